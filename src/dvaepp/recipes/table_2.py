"""Table 2: an RBM prior against directed ones, one or two groups of 200 bits, linear or not (Sec. 7.2, Appendix F)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

from dvaepp.boltzmann.samplers import PersistentChains
from dvaepp.objectives.base import Objective
from dvaepp.objectives.bounds import JointBound, MarginalBound
from dvaepp.objectives.rolfe import RolfeBound
from dvaepp.priors.boltzmann import RestrictedBoltzmannDesign
from dvaepp.priors.directed import DirectedDesign
from dvaepp.recipes.recipe import Recipe
from dvaepp.recipes.settings import DataSettings, EvaluationSettings, ModelSettings, Size
from dvaepp.recipes.table import Table, mean_and_sd
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.smoothings.spike import SpikeExponential
from dvaepp.training.settings import TrainingSettings

DATA = ("mnist-static", "omniglot", "omniglot-lake")
NETWORKS = {
    "linear-1": ((200,), ()),
    "linear-2": ((200, 200), ()),
    "nonlinear-1": ((200,), (200, 200)),
    "nonlinear-2": ((200, 200), (200, 200)),
}
ABOUT = {
    "rbm": "RBM prior, joint bound",
    "rolfe": "RBM prior, spike-and-exponential smoothing, Rolfe's bound",
    "joint": "directed prior, joint bound",
    "marginal": "directed prior, marginal bound",
}
COLUMNS = tuple(ABOUT)

PAPER: dict[str, dict[str, tuple[float, float]]] = {
    "mnist-static/linear-1": {
        "rbm": (91.21, 0.11),
        "rolfe": (91.55, 0.08),
        "joint": (106.70, 0.08),
        "marginal": (106.80, 0.19),
    },
    "mnist-static/linear-2": {
        "rbm": (94.15, 0.45),
        "rolfe": (91.06, 0.21),
        "joint": (98.16, 0.11),
        "marginal": (98.56, 0.10),
    },
    "mnist-static/nonlinear-1": {
        "rbm": (85.41, 0.04),
        "rolfe": (85.57, 0.03),
        "joint": (95.04, 0.10),
        "marginal": (95.06, 0.08),
    },
    "mnist-static/nonlinear-2": {
        "rbm": (84.27, 0.05),
        "rolfe": (84.52, 0.05),
        "joint": (87.96, 0.13),
        "marginal": (88.23, 0.11),
    },
    "omniglot/linear-1": {
        "rbm": (109.66, 0.09),
        "rolfe": (109.83, 0.17),
        "joint": (117.62, 0.09),
        "marginal": (117.78, 0.07),
    },
    "omniglot/linear-2": {
        "rbm": (109.01, 0.45),
        "rolfe": (110.35, 0.14),
        "joint": (111.21, 0.12),
        "marginal": (111.49, 0.08),
    },
    "omniglot/nonlinear-1": {
        "rbm": (102.62, 0.07),
        "rolfe": (103.12, 0.06),
        "joint": (108.77, 0.24),
        "marginal": (108.82, 0.20),
    },
    "omniglot/nonlinear-2": {
        "rbm": (100.55, 0.05),
        "rolfe": (105.60, 0.68),
        "joint": (103.57, 0.15),
        "marginal": (104.05, 0.22),
    },
}
"""The paper's NLL, nats: mean and standard deviation of five runs, 4000 importance samples."""

_OBJECTIVES: dict[str, Objective] = {"marginal": MarginalBound(), "rolfe": RolfeBound()}
_LEARNING_RATE = ((0.02, 3e-4), (0.60, 3e-3), (0.75, 1e-3), (0.95, 3e-4), (1.0, 9e-5))
_BETA = {
    ("mnist", "rbm"): {"linear-1": 12.0, "nonlinear-1": 14.0},
    ("omniglot", "rbm"): {"linear-1": 14.0, "nonlinear-1": 12.0},
    ("mnist", "rolfe"): {"linear-1": 5.0, "linear-2": 5.0, "nonlinear-1": 5.0, "nonlinear-2": 4.0},
    ("omniglot", "rolfe"): dict.fromkeys(NETWORKS, 4.0),
}
_TRAINING: dict[Size, TrainingSettings] = {
    "paper": TrainingSettings(
        steps=1_000_000,
        average=0.9999,
        log_every=1000,
        validate_every=20_000,
        validation_samples=100,
        validation_examples=10_000,
        validation_temperatures=1000,
        validation_chains=1024,
    ),
    "medium": TrainingSettings(
        steps=100_000, average=0.999, log_every=1000, validate_every=5000, validation_samples=100
    ),
    "small": TrainingSettings(steps=3000, validate_every=500),
    "tiny": TrainingSettings(
        steps=40,
        log_every=10,
        validate_every=20,
        validation_samples=2,
        validation_examples=50,
        validation_temperatures=10,
        validation_chains=16,
    ),
}
_EVALUATION: dict[Size, EvaluationSettings] = {
    "paper": EvaluationSettings(samples=4000, temperatures=10_000),
    "medium": EvaluationSettings(samples=4000),
    "small": EvaluationSettings(samples=100, examples=1000),
    "tiny": EvaluationSettings(samples=5, examples=50, temperatures=20, chains=128, thorough=False),
}
CHAINS: dict[Size, tuple[int, int]] = {"paper": (1000, 40), "medium": (200, 5), "small": (1000, 5), "tiny": (20, 2)}
"""Chains, and sweeps of each step."""


def recipe(name: str, data: str, network: str, column: str, size: Size) -> Recipe:
    """One cell of the table; training lasts longer for larger sizes, nothing else but the chains' number changes."""
    groups, hidden = NETWORKS[network]
    chains, sweeps = CHAINS[size]
    beta = _BETA.get(("omniglot" if data.startswith("omniglot") else "mnist", column), {}).get(network, 10.0)
    rbm = RestrictedBoltzmannDesign(sampler=PersistentChains(chains, sweeps))
    return Recipe(
        name=name,
        about=f"Table 2, {network}: {ABOUT[column]}.",
        data=DataSettings(name=data),
        model=ModelSettings(
            groups=groups,
            hidden=hidden,
            prior=rbm if column in ("rbm", "rolfe") else DirectedDesign(),
            smoothing=SpikeExponential(beta) if column == "rolfe" else OverlappingExponential(beta),
        ),
        objective=_OBJECTIVES.get(column, JointBound()),
        training=_TRAINING[size].model_copy(update={"learning_rate": _LEARNING_RATE, "l2": 1e-4}),
        evaluation=_EVALUATION[size],
    )


@dataclass(frozen=True)
class Table2(Table):
    """Table 2: an RBM prior against directed ones, one or two groups of 200 bits, linear or not (Sec. 7.2)."""

    name: ClassVar[str] = "table-2"
    note: ClassVar[str] = "Rows whose steps differ from the paper's are not comparable with it."
    source: ClassVar[str] = "paper (1,000,000 steps, 4,000 samples, five runs)"

    def cells(self) -> tuple[str, ...]:
        """DATA/NETWORK/COLUMN."""
        return tuple("/".join(cell) for cell in itertools.product(DATA, NETWORKS, COLUMNS))

    def recipe(self, cell: str, size: Size) -> Recipe:
        """The recipe of a cell."""
        data, network, column = cell.split("/")
        return recipe(f"{self.name}/{cell}", data, network, column, size)

    def published(self, cell: str) -> str:
        """The mean and standard deviation of five runs."""
        return mean_and_sd(PAPER, cell)
