"""Table 3: DVAE++ with global and local latent variables, discrete or not, on five data sets (Sec. 7.3).

Where the paper's main text is silent we chose: two global groups (the paper takes the best of 1, 2 and 4), beta from 5
to 10 (Rolfe: 5), a warm-up of 30 %, Adam at 1e-3 falling along a cosine, one cell a scale for Caltech ("shallower"),
x_0 as pixels of x where the paper downsamples, and 1,000,000 steps. `small` warms up for 10 % and takes Muon too.
"""

from __future__ import annotations

from typing import Any

from dvaepp.recipes.recipe import Recipe
from dvaepp.recipes.settings import ConvolutionalSettings, DataSettings, EvaluationSettings, ModelSettings, Size
from dvaepp.training.settings import TrainingSettings

DATA = ("mnist-static", "mnist-dynamic", "omniglot", "omniglot-lake", "caltech101-silhouettes", "cifar10")
_UNCONDITIONAL = ("mnist-static", "mnist-dynamic")

ROWS = {
    "normal-normal": "normal global and local variables",
    "rolfe-normal": "RBM global variables by Rolfe's bound, normal local ones",
    "rbm-normal": "DVAE++: RBM global variables, normal local ones",
    "rbm-bernoulli": "RBM global variables, Bernoulli local ones",
    "bernoulli-bernoulli": "Bernoulli global and local variables",
}
"""The five rows, global before local."""

PAPER: dict[str, dict[str, float]] = {
    "mnist-static": {
        "normal-normal": 79.40,
        "rolfe-normal": 79.04,
        "rbm-normal": 79.17,
        "rbm-bernoulli": 79.72,
        "bernoulli-bernoulli": 79.90,
    },
    "mnist-dynamic": {
        "normal-normal": 78.59,
        "rolfe-normal": 78.65,
        "rbm-normal": 78.49,
        "rbm-bernoulli": 79.55,
        "bernoulli-bernoulli": 79.62,
    },
    "omniglot": {
        "normal-normal": 92.51,
        "rolfe-normal": 92.56,
        "rbm-normal": 92.38,
        "rbm-bernoulli": 93.95,
        "bernoulli-bernoulli": 93.87,
    },
    "caltech101-silhouettes": {
        "normal-normal": 82.24,
        "rolfe-normal": 81.95,
        "rbm-normal": 81.88,
        "rbm-bernoulli": 85.40,
        "bernoulli-bernoulli": 86.57,
    },
    "cifar10": {
        "normal-normal": 3.40,
        "rolfe-normal": 3.39,
        "rbm-normal": 3.38,
        "rbm-bernoulli": 3.59,
        "bernoulli-bernoulli": 3.62,
    },
}
"""The paper's NLL by 4000 importance samples, nats; for CIFAR-10 bits per dimension."""

ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "no-squeeze-excite": ("without squeeze-and-excitation", {"convolutional": {"squeeze_excite": False}}),
    "no-balancing": ("without KL balancing", {"training": {"balance_kl": False}}),
    "conditional": ("the decoder that conditions on coarser pixels", {"convolutional": {"conditional": True}}),
    "unconditional": ("the decoder that is factorial over pixels", {"convolutional": {"conditional": False}}),
    "groups-1": ("global variables in one group", {"groups": 1}),
    "groups-2": ("global variables in two groups", {"groups": 2}),
    "groups-4": ("global variables in four groups", {"groups": 4}),
    "factorial": ("a factorial global prior", {"prior": "bernoulli"}),
}
"""Appendix I's questions (its table is lost): what differs from the row rbm-normal."""

_BITS, _BITS_CIFAR = 16, 128
_CONVOLUTIONAL: dict[Size, ConvolutionalSettings] = {
    "paper": ConvolutionalSettings(),
    "small": ConvolutionalSettings(local_groups=4, variables=8, channels=32, cells=1, stem=2),
    "tiny": ConvolutionalSettings(local_groups=2, variables=2, channels=4, cells=1, stem=4),
}
_HIDDEN: dict[Size, tuple[int, ...]] = {"paper": (256,), "small": (64,), "tiny": (8,)}
_TRAINING: dict[Size, TrainingSettings] = {
    "paper": TrainingSettings(
        steps=1_000_000,
        learning_rate=((1.0, 1e-3),),
        cosine_to=1e-5,
        validate_every=10_000,
        validation_samples=20,
        validation_examples=2000,
    ),
    "small": TrainingSettings(
        steps=13_000,
        learning_rate=((1.0, 2e-3),),
        cosine_to=1e-5,
        muon=10,
        kl_warmup=0.1,
        validate_every=1000,
        validation_samples=10,
    ),
    "tiny": TrainingSettings(
        steps=2,
        batch=4,
        learning_rate=((1.0, 2e-3),),
        cosine_to=1e-5,
        log_every=1,
        validate_every=2,
        validation_samples=2,
        validation_examples=4,
        validation_temperatures=10,
        validation_chains=16,
    ),
}
_EVALUATION: dict[Size, EvaluationSettings] = {
    "paper": EvaluationSettings(samples=4000, temperatures=10_000),
    "small": EvaluationSettings(samples=100),
    "tiny": EvaluationSettings(samples=3, examples=4, temperatures=20, chains=128, thorough=False),
}
_CHAINS: dict[Size, tuple[int, int]] = {"paper": (1000, 40), "small": (200, 5), "tiny": (20, 2)}


def recipe(name: str, data: str, row: str, size: Size) -> Recipe:
    """One cell of the table, or with an ablation's name for the row that variant of rbm-normal."""
    about, changes = ABLATIONS.get(row, (ROWS.get(row, ""), {}))
    row = "rbm-normal" if row in ABLATIONS else row
    global_, local = row.split("-")
    bits = _BITS_CIFAR if data == "cifar10" else _BITS
    groups = changes.get("groups", 2)
    chains, sweeps = _CHAINS[size]
    convolutional = _CONVOLUTIONAL[size].model_copy(
        update={
            "local_variables": local,
            "conditional": data not in _UNCONDITIONAL,
            **({"cells": 1} if size == "paper" and data.startswith("caltech") else {}),
            **changes.get("convolutional", {}),
        }
    )
    return Recipe(
        name=name,
        about=f"Table 3: {about}.",
        data=DataSettings(name=data),
        model=ModelSettings(
            groups=(bits // groups,) * groups,
            hidden=_HIDDEN[size],
            batch_norm=False,
            prior=changes.get("prior", {"rolfe": "rbm"}.get(global_, global_)),
            smoothing="spike-exponential" if global_ == "rolfe" else "exponential",
            beta=5.0 if global_ == "rolfe" else 8.0,
            chains=chains,
            sweeps=sweeps,
            likelihood="logistic-mixture" if data == "cifar10" else "bernoulli",
            convolutional=convolutional,
        ),
        objective={"rolfe": "rolfe", "bernoulli": "marginal"}.get(global_, "joint"),
        training=_TRAINING[size].model_copy(
            update={
                "beta": None if global_ in ("rolfe", "normal") else (5.0, 10.0),
                "balance_kl": True,
                **changes.get("training", {}),
            }
        ),
        evaluation=_EVALUATION[size],
    )
