"""Likelihoods with settings that the data decide: a run's model has them again when it is loaded."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.components.registry import _KNOWN, OF_DATA
from dvaepp.errors import InputError
from dvaepp.evaluation.likelihood import score, shared_log_partition
from dvaepp.likelihoods.base import DataSpec, Likelihood
from dvaepp.models.base import Model
from dvaepp.recipes.catalogue import find
from dvaepp.recipes.recipe import override
from dvaepp.runs.evaluation import evaluate
from dvaepp.runs.folder import RunFolder
from dvaepp.storage import load_tensors, save_tensors

SETTINGS = [
    "model.groups=[6,6]", "model.hidden=[8]", "model.smoothing=exponential", "model.prior.sampler=exact",
    "training.steps=4", "training.validate_every=2", "training.validation_examples=10", "evaluation.samples=300",
    "model.likelihood=laplace",
]  # fmt: skip


@pytest.fixture(autouse=True)
def laplace() -> Iterator[None]:
    """Defined for these tests alone."""

    @dataclass(frozen=True)
    class Laplace(Likelihood):
        """p(x; m) = exp(-|x - m| / s) / (2 s), s and the middle of x being the data's."""

        name: ClassVar[str] = "laplace"
        scale: float = field(default=1.0, metadata=OF_DATA)
        middle: float = field(default=0.0, metadata=OF_DATA)

        def for_data(self, spec: DataSpec) -> "Laplace":
            return replace(self, scale=float(spec.sd.mean()), middle=float(spec.mean.mean()))

        @property
        def width(self) -> int:
            return 1

        def log_prob(
            self, parameters: Float[Tensor, "*batch sites width"], x: Float[Tensor, "*batch sites values"]
        ) -> Float[Tensor, "*batch sites"]:
            p = torch.distributions.Laplace(self.mean(parameters), self.scale, validate_args=False)
            return p.log_prob(x).squeeze(-1)

        def sample(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
            return torch.distributions.Laplace(self.mean(parameters), self.scale).sample()

        def mean(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
            return parameters + self.middle

        def check(self, x: Tensor) -> None:
            pass

    yield
    del _KNOWN["likelihood"]["laplace"]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    np.save(tmp_path / "x.npy", 50 + 7 * np.random.RandomState(0).randn(60, 5).astype(np.float32))
    recipe = override(find("quick/rbm", "tiny"), [*SETTINGS, f"data.name={tmp_path / 'x.npy'}"])
    kind = {"seed": 0, "device": "cpu", "threads": 1, "data_dir": None, "command": "test"}
    return RunFolder.create(recipe, tmp_path / "run", **kind)


@pytest.mark.parametrize("last", [False, True], ids=["best", "last"])
def test_the_loaded_model_is_the_trained_one(run: RunFolder, last: bool) -> None:
    trainer = run.trainer()
    trainer.fit()
    trained, loaded = trainer.model, run.model(last).model
    assert trained.likelihood.scale == pytest.approx(7, rel=0.2)
    assert loaded.likelihood == trained.likelihood
    if last:
        settings = run.recipe.evaluation
        scores = evaluate(run, settings, split="valid", seed=0, last=True, command="test").scores
        assert scores.numbers()["nll"] == pytest.approx(nll(trained, run), abs=1e-3)


def nll(model: Model, run: RunFolder) -> float:
    """-log p(x) of the validation data, as evaluate finds it with seed 0: the draws are the seed's."""
    shared_log_partition(model.eval().prior, temperatures=20, chains=100, repeats=1)
    return score(model, run.data.valid.float(), run.recipe.evaluation.samples, seed=0).numbers()["nll"]


def test_a_checkpoint_from_before_is_read_and_one_of_other_examples_is_not(run: RunFolder) -> None:
    run.trainer().fit()
    path = run.folder / "best.safetensors"
    tensors, about = load_tensors(path)
    assert tensors["data.mean"].dtype == tensors["data.sd"].dtype == torch.float32
    save_tensors(path, {name: each for name, each in tensors.items() if name.startswith("model.")}, about)
    assert run.model().model.likelihood.scale == 1
    save_tensors(path, {**tensors, "data.sd": torch.ones(4)}, about)
    with pytest.raises(InputError, match=r"best\.safetensors does not fit its data: examples are \(5,\), mean and sd"):
        run.model()
