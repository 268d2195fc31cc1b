"""Table 1: 200 bits in one layer under a factorial prior, linear or not, trained in every way (Sec. 7.1)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

from dvaepp.estimators import LocalExpectation, MuPropDesign, NVILDesign, REBARDesign, ReinMax, RelaxedBernoulli
from dvaepp.objectives.base import Objective
from dvaepp.objectives.bounds import JointBound, MarginalBound
from dvaepp.objectives.elbo import Elbo
from dvaepp.optimisers.adam import Adam
from dvaepp.priors.directed import BernoulliDesign
from dvaepp.recipes.recipe import Recipe
from dvaepp.recipes.settings import DataSettings, EvaluationSettings, ModelSettings, Size
from dvaepp.recipes.table import Table, mean_and_sd
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.concrete import Concrete
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.training.settings import TrainingSettings

DATA = ("mnist-static", "omniglot-static", "omniglot-lake-static")
NETWORKS: dict[str, tuple[int, ...]] = {"linear": (), "nonlinear": (200, 200)}
"""Hidden layers of encoder and decoder."""
ABOUT = {
    "nvil": "NVIL",
    "muprop": "MuProp",
    "rebar": "REBAR",
    "concrete": "Concrete variables at temperature .1, discrete probabilities at them: a loss, and no bound",
    "concrete-density": "Concrete variables at temperature .1, the bound with their density",
    "joint": "overlapping exponentials, joint bound",
    "marginal": "overlapping exponentials, marginal bound",
    "reinmax": "ReinMax, analytic KL",
    "local-expectation": "local expectations, analytic KL",
}
COLUMNS = tuple(ABOUT)
"""The paper's columns, the bound of the Concrete density (Maddison et al. 2017), and two of far less variance."""

PAPER: dict[str, dict[str, tuple[float, float]]] = {
    "mnist-static/linear": {
        "nvil": (108.35, 0.06),
        "muprop": (108.03, 0.07),
        "rebar": (107.65, 0.08),
        "concrete": (107.00, 0.10),
        "joint": (107.98, 0.10),
        "marginal": (108.57, 0.10),
    },
    "mnist-static/nonlinear": {
        "nvil": (100.00, 0.10),
        "muprop": (100.66, 0.08),
        "rebar": (100.69, 0.08),
        "concrete": (99.54, 0.06),
        "joint": (99.16, 0.12),
        "marginal": (99.10, 0.21),
    },
    "omniglot-static/linear": {
        "nvil": (117.59, 0.04),
        "muprop": (117.64, 0.04),
        "rebar": (117.65, 0.04),
        "concrete": (117.65, 0.05),
        "joint": (117.38, 0.08),
        "marginal": (118.35, 0.06),
    },
    "omniglot-static/nonlinear": {
        "nvil": (116.57, 0.08),
        "muprop": (117.51, 0.09),
        "rebar": (118.02, 0.05),
        "concrete": (116.69, 0.08),
        "joint": (113.83, 0.11),
        "marginal": (113.76, 0.18),
    },
}
"""The paper's NLL, nats: mean and standard deviation of five runs, 100 importance samples; baselines are Tucker's."""

RATES = {"linear": 5e-4, "nonlinear": 1e-4}
BETAS = {
    "linear": {"joint": (8.0, 12.0), "marginal": (5.0, 12.0)},
    "nonlinear": {"joint": (7.0, 12.0), "marginal": (5.0, 12.0)},
}
"""The first and the last beta, chosen by validation on static MNIST at 100,000 steps (docs/log.md)."""

_TRAINING: dict[Size, TrainingSettings] = {
    "paper": TrainingSettings(
        steps=2_000_000, log_every=10_000, validate_every=100_000, validation_samples=100, validation_examples=1000
    ),
    "medium": TrainingSettings(
        steps=500_000, log_every=5000, validate_every=50_000, validation_samples=100, validation_examples=1000
    ),
    "small": TrainingSettings(
        steps=100_000, log_every=1000, validate_every=10_000, validation_samples=100, validation_examples=1000
    ),
    "tiny": TrainingSettings(steps=40, log_every=10, validate_every=20, validation_samples=2, validation_examples=50),
}
_EVALUATION: dict[Size, EvaluationSettings] = {
    "paper": EvaluationSettings(samples=100),
    "medium": EvaluationSettings(samples=100),
    "small": EvaluationSettings(samples=100),
    "tiny": EvaluationSettings(samples=5, examples=50),
}
_OBJECTIVES: dict[str, Objective] = {
    "nvil": Elbo(analytic_kl=False, estimator=NVILDesign()),
    "muprop": Elbo(analytic_kl=False, estimator=MuPropDesign()),
    "rebar": Elbo(analytic_kl=False, estimator=REBARDesign()),
    "concrete": Elbo(analytic_kl=False, estimator=RelaxedBernoulli(0.1, muprop=True)),
    "concrete-density": MarginalBound(),
    "joint": JointBound(),
    "marginal": MarginalBound(),
    "reinmax": Elbo(estimator=ReinMax()),
    "local-expectation": Elbo(estimator=LocalExpectation()),
}
_SMOOTHINGS: dict[str, Smoothing] = {"concrete-density": Concrete(0.1)}
_TUCKERS = ("nvil", "muprop", "rebar", "concrete", "concrete-density")
"""Columns trained with the optimiser of Tucker et al. (2017)."""


def recipe(name: str, data: str, network: str, column: str, size: Size) -> Recipe:
    """One cell of the table; sizes differ in how long it trains."""
    beta = BETAS[network].get(column)
    smoothing = _SMOOTHINGS.get(column, hard) if beta is None else OverlappingExponential(beta[0])
    changes = {
        "batch": 24,
        "learning_rate": ((1.0, RATES[network]),),
        "kl_warmup": 0.0,
        "beta": beta,
        "optimiser": Adam(epsilon=1e-8, beta2=0.99999) if column in _TUCKERS else Adam(epsilon=1e-3),
    }
    return Recipe(
        name=name,
        about=f"Table 1, {network}: {ABOUT[column]}.",
        data=DataSettings(name=data),
        model=ModelSettings(
            groups=(200,),
            hidden=NETWORKS[network],
            batch_norm=False,
            signed=True,
            prior=BernoulliDesign(),
            smoothing=smoothing,
        ),
        objective=_OBJECTIVES[column],
        training=_TRAINING[size].model_copy(update=changes),
        evaluation=_EVALUATION[size],
    )


@dataclass(frozen=True)
class Table1(Table):
    """Table 1: 200 bits in one layer under a factorial prior, linear or not, trained in every way (Sec. 7.1)."""

    name: ClassVar[str] = "table-1"
    note: ClassVar[str] = "Rows whose steps differ from the paper's are not comparable with it."
    source: ClassVar[str] = "paper (2,000,000 steps, 100 samples, five runs)"

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
