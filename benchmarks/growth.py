"""How times grow with chains, sweeps, units, batch and importance samples, beside what their products alone take.

    OMP_NUM_THREADS=1 python benchmarks/growth.py docs/growth.png

Gibbs sweeps of a Boltzmann machine, compiled steps of Table 2's two nonlinear groups with an RBM, and its scoring, each
along one axis, the others as they are at size medium; one process and one thread. A line of JSON for each point, and
two curves for each axis: the work, and its matrix products replayed with nothing in between.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from speed import Piece, Work, milliseconds, record, replicas_step

import dvaepp
from dvaepp.evaluation.likelihood import score
from dvaepp.models.base import unchecked
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import override
from dvaepp.report.figures import save_figure

STEP = "table-2/mnist-static/nonlinear-2/rbm"


def sweeps_of(units: int, chains: int) -> tuple[Work, list[Piece]]:
    """Five sweeps of chains of a machine of two sides."""
    machine = dvaepp.BoltzmannMachine(units, units)
    torch.nn.init.normal_(machine.couplings[0], std=0.05)
    z = dvaepp.PersistentChains(chains, 5).start(machine)
    work = partial(machine.gibbs, z, 5)
    return work, record(work)


def step_of(folder: Path, **changes: int) -> tuple[Work, list[Piece]]:
    """A compiled step."""
    names = {
        "chains": "model.prior.sampler.num_chains",
        "sweeps": "model.prior.sampler.sweeps",
        "batch": "training.batch",
    }
    settings = [f"{names[name]}={value}" for name, value in changes.items() if name in names]
    if "units" in changes:
        settings.append(f"model.groups=[{changes['units']},{changes['units']}]")
    return replicas_step(override(catalogue.find(STEP, "medium"), settings), 1, folder)


def scoring_of(samples: int) -> tuple[Work, list[Piece]]:
    """Scoring ten images."""
    recipe = catalogue.find(STEP, "medium")
    torch.manual_seed(0)
    bits = (torch.rand(10, 784) < 0.13).float()
    spec = dvaepp.likelihoods.base.DataSpec((28, 28), torch.full((784,), 0.13), torch.ones(784))
    model, _ = recipe.build(spec)
    model.prior.estimate_log_partition(temperatures=5, chains=10)
    work = partial(score, model.eval(), bits, samples)
    return work, record(work)


AXES: dict[str, tuple[str, list[int], Callable[[Path, int], tuple[Work, list[Piece]]]]] = {
    "Gibbs: chains": ("200 + 200 units, 5 sweeps", [50, 200, 1000, 4000], lambda _, n: sweeps_of(200, n)),
    "Gibbs: units a side": ("200 chains, 5 sweeps", [50, 100, 200, 400, 800], lambda _, n: sweeps_of(n, 200)),
    "step: chains": ("5 sweeps, batch 100", [50, 200, 1000], lambda f, n: step_of(f, chains=n)),
    "step: sweeps": ("200 chains, batch 100", [1, 5, 20, 40], lambda f, n: step_of(f, sweeps=n)),
    "step: units a group": ("200 chains x 5", [50, 100, 200, 400], lambda f, n: step_of(f, units=n)),
    "step: batch": ("200 chains x 5", [25, 50, 100, 200, 400], lambda f, n: step_of(f, batch=n)),
    "scoring 10 images: samples": ("200 + 200 bits", [10, 100, 1000, 4000], lambda _, n: scoring_of(n)),
}


def products_of(pieces: list[Piece]) -> Work:
    """The matrix products of a floor."""
    products = [piece.work for piece in pieces if piece.kind == "product"]
    return lambda: [product() for product in products]


def points() -> Iterator[dict[str, Any]]:
    """Each axis' points: milliseconds of the work, and of its products."""
    for axis, (fixed, values, make) in AXES.items():
        for value in values:
            with tempfile.TemporaryDirectory() as folder, torch.no_grad(), unchecked():
                work, pieces = make(Path(folder), value)
                taken, least = milliseconds(work, products_of(pieces), repeats=8)
            yield {"axis": axis, "others": fixed, "value": value, "ms": round(taken, 3), "products_ms": round(least, 3)}


def draw(figure: Any, found: list[dict[str, Any]]) -> None:
    """A panel for each axis, both scales logarithmic."""
    from matplotlib.ticker import LogLocator

    panels = figure.subplots(2, 4).flatten()
    for panel, (axis, (fixed, values, _)) in zip(panels, AXES.items(), strict=False):
        mine = [each for each in found if each["axis"] == axis]
        for key, label, style in (("ms", "all", "o-"), ("products_ms", "its products", "s--")):
            panel.loglog(values, [each[key] for each in mine], style, label=label)
        panel.set_title(axis, fontsize=9)
        panel.set_xlabel(fixed, fontsize=8)
        panel.set_xticks(values, [f"{value:,}" for value in values])
        panel.minorticks_off()
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
    panels[0].set_ylabel("ms")
    panels[4].set_ylabel("ms")
    panels[0].legend(fontsize=8)
    panels[-1].set_axis_off()


def main() -> None:
    torch.set_num_threads(1)
    torch.distributions.Distribution.set_default_validate_args(False)
    found = []
    for point in points():
        print(json.dumps(point), flush=True)
        found.append(point)
    if sys.argv[1:]:
        save_figure(Path(sys.argv[1]), lambda figure: draw(figure, found), (13.0, 6.0))


if __name__ == "__main__":
    main()
