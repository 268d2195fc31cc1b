"""Speed of dvaepp against its own floor and against a peer, as ratios measured in one run, on one thread.

The floor of a piece of work is its own matrix products and random draws, recorded from a real step and replayed with
nothing in between::

    OMP_NUM_THREADS=1 python benchmarks/speed.py [--peer PYTHON | --replicas | --chains]

`--peer` names the interpreter of the environment that benchmarks/peer.py describes; the peer's step and ours are then
timed in turn on the same job. `--replicas` times compiled steps of Table 1's cells instead, by themselves and as
replicas, per replica and step, against the same products, fused Adam and random draws, listed line by line. `--chains`
times those of Table 2's two nonlinear groups with an RBM, whose products and draws are the chains' too; block Gibbs
sampling beside peers is a stage of benchmarks/compare.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import dvaepp
from dvaepp.boltzmann import gibbs as kernels
from dvaepp.boltzmann import machine as boltzmann
from dvaepp.data.dataset import Dataset
from dvaepp.likelihoods.base import DataSpec
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import Recipe, override
from dvaepp.training.replicas import Replicas
from dvaepp.training.trainer import Trainer

Work = Callable[[], Any]


@dataclass(frozen=True)
class Piece:
    """A part of a floor: `kind` is product, draws or optimiser."""

    kind: str
    name: str
    work: Work


class Recorder(TorchDispatchMode):
    """Keeps every matrix product and random draw that runs inside it, as a piece that does it again."""

    def __init__(self) -> None:
        super().__init__()
        self.floor: list[Piece] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = str(function)
        if name.startswith(("aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm")):
            a, b = args[-2:] if "add" not in name else args[1:3]
            a, b, out = self._like(a), self._like(b), torch.empty(*a.shape[:-1], b.shape[-1])
            product = torch.mm if a.ndim == 2 else torch.bmm
            shapes = f"{tuple(a.shape)} @ {tuple(b.shape)}"
            self.floor.append(Piece("product", shapes, lambda: product(a, b, out=out)))
        elif name.startswith("mkldnn._linear_pointwise"):
            shapes = f"{tuple(args[0].shape)} @ {tuple(args[1].shape[::-1])}, by oneDNN"
            self.floor.append(Piece("product", shapes, lambda: function(*args, **(kwargs or {}))))
        elif name.startswith(("aten.rand", "aten.uniform")) and result.is_floating_point():
            self.floor.append(Piece("draws", f"uniform {tuple(result.shape)}", torch.empty_like(result).uniform_))
        return result

    @staticmethod
    def _like(matrix: torch.Tensor) -> torch.Tensor:
        return torch.empty_strided(matrix.shape, matrix.stride()).normal_()

    def filler(self, like: torch.Tensor) -> Callable[[torch.Tensor], object]:
        fill = kernels.uniform_filler(like)

        def recording(tensor: torch.Tensor) -> None:
            fill(tensor)
            again = torch.empty_like(tensor)
            self.floor.append(Piece("draws", f"uniform {tuple(tensor.shape)}, of 16 bits", lambda: fill(again)))

        return recording


def record(work: Work) -> list[Piece]:
    """The products and draws of one run of the work."""
    recorder = Recorder()
    with recorder, mock.patch.object(boltzmann, "uniform_filler", recorder.filler):
        work()
    return recorder.floor


def milliseconds(*works: Work, repeats: int) -> list[float]:
    """Medians; the works take turns, so that whatever else the machine does falls on all of them."""
    times: list[list[float]] = [[] for _ in works]
    for repeat in range(repeats + 3):
        for work, taken in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            if repeat >= 3:
                taken.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(taken) for taken in times]


def against_floor(work: Work, repeats: int) -> dict[str, float]:
    """Time of the work, of its floor, and their ratio."""
    pieces = record(work)

    def floor() -> None:
        for piece in pieces:
            piece.work()

    taken, least = milliseconds(work, floor, repeats=repeats)
    return {"ms": round(taken, 3), "floor_ms": round(least, 3), "ratio": round(taken / least, 3)}


def trainer(recipe: Recipe, folder: Path) -> Trainer:
    """A trainer on the built-in digits, binarised once, that has taken a few steps."""
    torch.manual_seed(0)
    data = recipe.load_data()
    data = replace(data, train=(data.train > 127).to(torch.uint8), dynamic=False)
    model, objective = recipe.build(DataSpec(data.shape, data.mean, data.sd))
    torch.distributions.Distribution.set_default_validate_args(False)
    built = Trainer(model.train(), objective, data, recipe.training, folder)
    for _ in range(5):
        built.train_step()
    return built


def two_group_step(folder: Path) -> Work:
    """Two groups of 100, networks of 2 x 200 tanh, RBM 100+100, batch 100, 100 chains x 40 sweeps."""
    changes = ["model.groups=[100,100]", "model.prior.sampler.num_chains=100", "model.prior.sampler.sweeps=40"]
    return trainer(override(catalogue.find("quick/rbm", "small"), changes), folder).train_step


def gibbs(sweeps: int = 10) -> Work:
    """Sweeps of 1000 chains of a 200+200 machine."""
    machine = dvaepp.BoltzmannMachine(200, 200)
    torch.nn.init.normal_(machine.couplings[0], std=0.1)
    z = dvaepp.PersistentChains(1000, sweeps).start(machine)
    return lambda: machine.gibbs(z, sweeps)


def peer_job(folder: Path) -> Work:
    """What benchmarks/peer.py does: linear 784-200-784, RBM 100+100, batch 100, 1000 chains x 10 sweeps."""
    changes = [
        "model.groups=[200]",
        "model.hidden=[]",
        "model.prior.sampler.num_chains=1000",
        "model.prior.sampler.sweeps=10",
    ]
    return trainer(override(catalogue.find("quick/rbm", "small"), changes), folder).train_step


def replicas_step(recipe: Recipe, count: int, folder: Path) -> tuple[Work, list[Piece]]:
    """A compiled step of so many replicas of a recipe on noise of static MNIST's size, and the pieces of its floor."""
    bits = (torch.rand(2000, 784) < 0.13).to(torch.uint8)
    data = Dataset("noise", (28, 28), bits, bits[:100], bits[:100], dynamic=False, protocol="fair noise")

    def made(seed: int) -> Trainer:
        torch.manual_seed(seed)
        model, objective = recipe.build(DataSpec(data.shape, data.mean, data.sd))
        return Trainer(model.train(), objective, data, recipe.training, folder / str(seed), seed)

    replicas = Replicas([partial(made, seed) for seed in range(count)])
    replicas.begin()
    given = replicas._given(1).each()[0]
    step = record(lambda: replicas._stack.step(replicas._stack.state, given))
    chains = [piece for each in replicas.trainers for piece in record(each.model.prior.refresh)]
    pieces = [piece for piece in [*step, *chains] if piece.kind == "product" or piece in chains]
    weights = [torch.randn_like(p) for trainer in replicas.trainers for p in trainer.model.parameters()]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    noise = given.noise
    drawn = [torch.empty_like(each) for each in noise]
    pieces.append(Piece("draws", f"uniform {tuple(noise.shape)}", lambda: [each.uniform_() for each in drawn]))
    pieces.append(Piece("optimiser", "fused Adam", torch.optim.Adam(weights, fused=True).step))
    return lambda: replicas._advance(replicas._given(1)), pieces


def against_floor_by_lines(recipe: Recipe, count: int, folder: Path, repeats: int) -> dict[str, Any]:
    """Per replica: time of a step, of each piece of its floor, and the ratio to all, to products, and with draws."""
    work, pieces = replicas_step(recipe, count, folder)
    with torch.no_grad():
        taken, *least = (ms / count for ms in milliseconds(work, *(piece.work for piece in pieces), repeats=repeats))
    lines = {f"{k}. {piece.name}": round(ms, 4) for k, (piece, ms) in enumerate(zip(pieces, least, strict=True), 1)}
    kinds = [piece.kind for piece in pieces]

    def over(*counted: str) -> float:
        return round(taken / sum(ms for kind, ms in zip(kinds, least, strict=True) if kind in counted), 2)

    return {
        "ms": round(taken, 3),
        "floor_ms": round(sum(least), 3),
        "ratio": over("product", "draws", "optimiser"),
        "ratio_to_products": over("product"),
        "ratio_to_products_and_draws": over("product", "draws"),
        "floor": lines,
    }


def table_1(folder: Path) -> dict[str, Any]:
    """Cells of Table 1, by themselves and as replicas."""
    torch.distributions.Distribution.set_default_validate_args(False)
    recipes = {
        cell: catalogue.find(f"table-1/mnist-static/{cell}", "small")
        for cell in ("linear/joint", "nonlinear/joint", "linear/reinmax")
    }
    return {
        f"{cell}, {count} at once": against_floor_by_lines(recipe, count, folder / cell / str(count), 60)
        for cell, recipe in recipes.items()
        for count in (1, 5, 20, 40)
    }


def table_2(folder: Path) -> dict[str, Any]:
    """Two nonlinear groups of 200 with an RBM of 200 + 200, by chains and sweeps."""
    torch.distributions.Distribution.set_default_validate_args(False)
    found = {}
    for chains, sweeps, repeats in ((200, 5, 60), (1000, 40, 15)):
        changes = [f"model.prior.sampler.num_chains={chains}", f"model.prior.sampler.sweeps={sweeps}"]
        recipe = override(catalogue.find("table-2/mnist-static/nonlinear-2/rbm", "medium"), changes)
        found[f"{chains} x {sweeps}"] = against_floor_by_lines(recipe, 1, folder / f"{chains}-{sweeps}", repeats)
    return found


def against_peer(python: str, folder: Path) -> dict[str, Any]:
    """Our step before and after the peer's run, and the peer's."""
    step = peer_job(folder)
    (before,) = milliseconds(step, repeats=50)
    script = str(Path(__file__).with_name("peer.py"))
    peer = json.loads(subprocess.run([python, script], check=True, capture_output=True, text=True).stdout)
    (after,) = milliseconds(step, repeats=50)
    ours = max(before, after)
    return {"ms": round(ours, 3), **peer, "times_faster": round(peer["peer_ms"] / ours, 1)}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--peer", help="python of the peer's environment")
    arguments.add_argument("--replicas", action="store_true", help="time Table 1's cells as replicas")
    arguments.add_argument("--chains", action="store_true", help="time Table 2's two nonlinear groups with an RBM")
    asked = arguments.parse_args()
    peer = asked.peer
    if peer and (asked.replicas or asked.chains):
        arguments.error("--peer goes with neither --replicas nor --chains")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = (
            table_1(Path(folder))
            if asked.replicas
            else table_2(Path(folder))
            if asked.chains
            else {
                "two_group_step": against_floor(two_group_step(Path(folder)), 100),
                "gibbs_1000_chains_200_200_10_sweeps": against_floor(gibbs(), 30),
                "peer_job_step": against_floor(peer_job(Path(folder)), 50),
            }
        )
        if peer:
            result["peer"] = against_peer(peer, Path(folder))
    print(json.dumps({**result, "torch": torch.__version__, "threads": torch.get_num_threads()}, indent=2))


if __name__ == "__main__":
    main()
