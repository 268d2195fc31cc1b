"""DVAE++ on this machine: step time and memory at the sizes of Table 3, what channels-last, bfloat16, compilation and
Muon change, and where the time goes.

    OMP_NUM_THREADS=1 python benchmarks/convolutional.py small [--device cuda] [--profile]
    OMP_NUM_THREADS=1 python benchmarks/convolutional.py paper --steps 1

Variants are run in turn, round after round, and the fastest step of each is printed: the machine may be shared.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from dvaepp.likelihoods.base import DataSpec
from dvaepp.networks.compiled import compile_cells
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import override

RECIPE = "table-3/mnist-static/rbm-normal"


def step_of(size: str, device: str, *changes: str) -> tuple[nn.Module, Callable[[], Tensor]]:
    """A model at this size, and one training step of it on a batch of 100 images."""
    torch.manual_seed(0)
    recipe = override(catalogue.find(RECIPE, size), changes)
    model, objective = recipe.build(DataSpec((28, 28), torch.full((784,), 0.13), torch.ones(784)))
    model.to(device)
    both = recipe.training.optimiser(model, recipe.training.l2).values()
    x = (torch.rand(recipe.training.batch, 784) < 0.13).float().to(device)

    def step() -> Tensor:
        terms = objective(model, x)
        loss = -terms.bound(0.5, terms.balancing(0.5)).mean()
        model.zero_grad()
        loss.backward()
        for optimizer in both:
            optimizer.step()
        return loss.detach()

    return model, step


def timed(step: Callable[[], Tensor], device: str) -> float:
    """Milliseconds of one step."""
    start = time.perf_counter()
    step()
    if device != "cpu":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def channels_last(model: nn.Module) -> None:
    """Convolutions with their channels side by side in memory."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def variants(size: str, device: str, fast: bool) -> dict[str, Callable[[], Tensor]]:
    """Steps by name; with `fast` only the one that the recipes take."""
    model, step = step_of(size, device)
    print(f"{size}: {sum(p.numel() for p in model.parameters()):,} parameters")
    steps = {"as it is": step}
    if not fast:
        model, steps["channels last"] = step_of(size, device)
        channels_last(model)
        _, steps["bfloat16"] = step_of(size, device, "model.convolutional.precision=bfloat16")
        _, steps["Adam alone"] = step_of(size, device, "training.optimiser=adam")
        model, steps["compiled cells"] = step_of(size, device)
        compile_cells(model)
    return steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("size", choices=["tiny", "small", "paper"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    Distribution.set_default_validate_args(False)
    steps = variants(arguments.size, arguments.device, fast=arguments.steps == 1)
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.steps):
        for name, step in steps.items():
            times[name].append(timed(step, arguments.device))
    first = min(times["as it is"])
    for name, values in times.items():
        print(f"{name:15} {min(values):8.1f} ms a step, {min(values) / first:.2f} of the first")
    if arguments.device == "cpu":
        print(f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    else:
        print(f"memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB")
    if arguments.profile:
        with torch.profiler.profile() as profile:
            steps["as it is"]()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))


if __name__ == "__main__":
    main()
