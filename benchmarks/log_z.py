"""How honest the errors of log Z are: every estimate against the exact value, on random machines, and at 200+200.

``OMP_NUM_THREADS=1 python benchmarks/log_z.py small`` takes 200 machines of each size and weight sd (bits' biases have
the same sd), and every method once on each; ``hard`` takes 40 of kinds that defeat them; ``large`` compares the methods
where there is no exact value; ``again`` repeats parallel tempering on one of those 40 times. Results go to
results/log-z/, a file for each kind of machine, and finished ones are kept: run it again to go on.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

import dvaepp
from dvaepp.boltzmann.log_partition import LogPartition
from dvaepp.boltzmann.samplers import TemperedChains
from dvaepp.storage import read_json, write_json

BLOCKS = {"8+8": (8, 8), "12+12": (12, 12), "16+16": (16, 16), "full-14": (1,) * 14}
Estimate = Callable[[dvaepp.BoltzmannMachine], LogPartition]
Make = Callable[[int], dvaepp.BoltzmannMachine]

SMALL: dict[str, Estimate] = {
    "annealed importance sampling": lambda m: dvaepp.annealed_importance_sampling(m, temperatures=100, chains=256),
    "reverse annealing": lambda m: dvaepp.reverse_annealed_importance_sampling(m, temperatures=100, chains=256),
    "population annealing": lambda m: dvaepp.population_annealing(m, temperatures=100, population=256),
    "parallel tempering": lambda m: dvaepp.parallel_tempering(m, temperatures=12, chains=32, sweeps=256),
}
LARGE: dict[str, Estimate] = {
    "annealed importance sampling": dvaepp.annealed_importance_sampling,
    "population annealing": dvaepp.population_annealing,
    "parallel tempering": dvaepp.parallel_tempering,
    "reverse annealing": lambda m: dvaepp.reverse_annealed_importance_sampling(m, samples=tempered(m)),
}


def random_machine(blocks: tuple[int, ...], sd: float, seed: int) -> dvaepp.BoltzmannMachine:
    machine = dvaepp.BoltzmannMachine(*blocks)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in machine.parameters():
            parameter.normal_(0, sd, generator=generator)
    return machine


def ferromagnet(side: int, strength: float, seed: int) -> dvaepp.BoltzmannMachine:
    """Spins on two sides, each coupled to all of the other by +-strength, so that two opposite states are deep wells.

    Signs come from a random gauge; biases get N(0, .3^2) more.
    """
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(side, generator=generator).sign() for _ in range(2))
    couplings, machine = strength * torch.outer(left, right), dvaepp.BoltzmannMachine(side, side)
    with torch.no_grad():
        machine.couplings[0].copy_(4 * couplings)
        machine.bias.copy_(torch.cat([-2 * couplings.sum(1), -2 * couplings.sum(0)]))
        machine.bias.add_(0.3 * torch.randn(2 * side, generator=generator))
    return machine


def deceptive(seed: int, side: int = 20, core: int = 5) -> dvaepp.BoltzmannMachine:
    """A deep well behind a narrow gate: a core that has to be all ones before the other bits' couplings to it count.

    Where the well begins to outweigh the rest, the core has long been frozen at zero.
    """
    generator, machine = torch.Generator().manual_seed(seed), dvaepp.BoltzmannMachine(side, side)
    with torch.no_grad():
        weights = machine.couplings[0]
        weights[:core, :core] = 2.4
        weights[:core, core:] = weights[core:, :core] = 60 / core
        biases = machine.bias.view(2, side)
        biases[:, :core] = -1.2 * core - 1750 / (2 * core)
        machine.bias.add_(0.1 * torch.randn(2 * side, generator=generator))
    return machine


def tempered(machine: dvaepp.BoltzmannMachine) -> torch.Tensor:
    """4096 states from parallel tempering: 1024 ensembles after 300 sweeps, at four moments 25 sweeps apart."""
    chains, samples = TemperedChains(1024, sweeps=25, temperatures=24), []
    state = chains.start(machine)
    for step in range(12):
        state = chains.advance(machine, state)
        samples += [chains.samples(state)] if step >= 8 else []
    return torch.cat(samples)


def measure(folder: Path, kinds: dict[str, Make], machines: int) -> None:
    for name, make in kinds.items():
        path = folder / f"{name}.json"
        if path.exists():
            continue
        found: dict[str, list[dict[str, float]]] = {method: [] for method in SMALL}
        for seed in range(machines):
            machine = make(seed)
            with torch.no_grad():
                exact = float(dvaepp.exact_log_partition(machine.double()))
            machine.float()
            for method, estimate in SMALL.items():
                torch.manual_seed(seed)
                start = time.perf_counter()
                log_z = estimate(machine)
                found[method].append(
                    {
                        "error": log_z.value - exact,
                        "standard_error": log_z.standard_error,
                        "trusted": float(log_z.trusted),
                        "seconds": time.perf_counter() - start,
                    }
                )
        summary = {method: summarise(rows) for method, rows in found.items()}
        write_json(path, {"machines": machines, "methods": summary})
        print(name, summary, flush=True)


def small(folder: Path) -> None:
    pairs = [(name, sd) for name in BLOCKS for sd in (0.3, 1.0, 2.5)]
    measure(folder, {f"{name}-sd{sd}": partial(random_machine, BLOCKS[name], sd) for name, sd in pairs}, 200)


def hard(folder: Path) -> None:
    ferromagnets = {f"ferromagnet-16+16-{strength}": partial(ferromagnet, 16, strength) for strength in (0.3, 1.0)}
    measure(folder, {"16+16-sd6.0": partial(random_machine, (16, 16), 6.0), **ferromagnets}, 40)
    measure(folder, {"deceptive-20+20": deceptive}, 10)


def summarise(rows: list[dict[str, float]]) -> dict[str, float]:
    """How often within 3 of its own errors, of all and of the trusted ones; root mean square error; time."""
    within = [abs(row["error"]) <= 3 * row["standard_error"] + 1e-6 for row in rows]
    trusted = [ok for ok, row in zip(within, rows, strict=True) if row["trusted"]]
    mean_square = sum(row["error"] ** 2 for row in rows) / len(rows)
    return {
        "within_3_errors": sum(within) / len(rows),
        "trusted": len(trusted) / len(rows),
        "within_3_errors_where_trusted": sum(trusted) / max(len(trusted), 1),
        "rms_error": math.sqrt(mean_square),
        "mean_error": sum(row["error"] for row in rows) / len(rows),
        "mean_standard_error": sum(row["standard_error"] for row in rows) / len(rows),
        "mean_seconds": sum(row["seconds"] for row in rows) / len(rows),
    }


def large(folder: Path) -> None:
    for sd in (0.1, 0.3):
        for seed in range(3):
            path = folder / f"200+200-sd{sd}-seed{seed}.json"
            if path.exists():
                continue
            machine, found = random_machine((200, 200), sd, seed), {}
            for method, estimate in LARGE.items():
                torch.manual_seed(seed)
                start = time.perf_counter()
                log_z = estimate(machine)
                found[method] = {**asdict(log_z), "seconds": round(time.perf_counter() - start, 2)}
                print(sd, seed, method, log_z, f"{time.perf_counter() - start:.1f} s", flush=True)
            write_json(path, {"blocks": [200, 200], "weight_sd": sd, "seed": seed, "methods": found})


def again(folder: Path) -> None:
    """Parallel tempering of 400 sweeps, 40 times on one machine: z scores against the other methods' mean."""
    machine, scores = random_machine((200, 200), 0.1, 1), []
    others = read_json(folder / "200+200-sd0.1-seed1.json", "results of `large`")["methods"]
    found = [others[name] for name in ("annealed importance sampling", "reverse annealing")]
    weights = [1 / each["standard_error"] ** 2 for each in found]
    value = sum(w * each["value"] for w, each in zip(weights, found, strict=True)) / sum(weights)
    for seed in range(1000, 1040):
        torch.manual_seed(seed)
        log_z = dvaepp.parallel_tempering(machine, sweeps=400)
        scores.append((log_z.value - value) / log_z.standard_error)
    mean, square = sum(scores) / len(scores), sum(z * z for z in scores) / len(scores)
    summary = {"mean_z": mean, "rms_z": math.sqrt(square), "runs": len(scores), "against": value}
    write_json(folder / "200+200-sd0.1-seed1-again.json", summary)
    print(summary)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["small", "hard", "large", "again"])
    parser.add_argument("--results", type=Path, default=Path("results/log-z"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    {"small": small, "hard": hard, "large": large, "again": again}[arguments.which](arguments.results)
