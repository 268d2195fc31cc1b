"""Averages of weights against the sum that defines them, and what of a run that has them is validated and kept."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dvaepp.boltzmann.enumeration import exact_log_partition
from dvaepp.errors import InputError
from dvaepp.evaluation.likelihood import score
from dvaepp.models.base import measuring
from dvaepp.randomness import stream_seed
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import override
from dvaepp.runs.folder import RunFolder
from dvaepp.storage import load_tensors, save_tensors
from dvaepp.training.averages import Averages

CHANGES = ["model.groups=[5,4]", "model.hidden=[6]", "training.steps=30", "training.validate_every=10"]


def start(folder: Path, *changes: str) -> RunFolder:
    recipe = override(catalogue.find("quick/rbm", "tiny"), [*CHANGES, *changes])
    return RunFolder.create(recipe, folder, seed=2, device="cpu", threads=1, data_dir=None, command="test")


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_a_mean_is_the_weighted_sum_of_all_weights_so_far(decay: float) -> None:
    """Of the weights after step s it holds a_s times the product of 1 - a_t over the steps t after s."""
    torch.manual_seed(0)
    layer, frozen = nn.Linear(3, 2).double(), nn.Linear(2, 2).requires_grad_(False)
    model = nn.Sequential(layer, nn.BatchNorm1d(2).double(), frozen)
    averages = Averages(model, decay)
    assert averages.means.keys() == {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
    history = []
    for step in range(1, 41):
        for tensor in (*model[:2].parameters(), model[1].running_mean, model[1].running_var):
            tensor.data.normal_()
        history.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        averages.step(step)
    shares = [max(1 - decay, 10 / (9 + t)) for t in range(1, 41)]
    weights = [share * math.prod(1 - later for later in shares[s + 1 :]) for s, share in enumerate(shares)]
    assert sum(weights) == pytest.approx(1)
    for name, mean in averages.means.items():
        expected = sum(w * then[name] for w, then in zip(weights, history, strict=True))
        torch.testing.assert_close(mean, expected, rtol=1e-12, atol=1e-12)


def test_what_is_validated_and_kept_are_the_averages(tmp_path: Path) -> None:
    run, plain = start(tmp_path / "run", "training.average=0.9"), start(tmp_path / "plain")
    seen: dict[int, dict[str, Any]] = {}
    trainer = run.trainer()
    assert trainer.optimisation.averages is not None

    def look(metrics: dict[str, Any]) -> None:
        if "valid_nll" in metrics:
            seen[metrics["step"]] = {
                name: t.clone() for name, t in trainer.model.state_dict().items() if "_extra" not in name
            }

    trainer.fit(look)
    plain.trainer().fit()
    weights, about = load_tensors(run.folder / "checkpoint.safetensors")
    unaveraged, _ = load_tensors(plain.folder / "checkpoint.safetensors")
    best, of_best = load_tensors(run.folder / "best.safetensors")
    names = [name for name in unaveraged if name.startswith("model.") and not name.endswith("_extra_state")]
    assert all(torch.equal(weights[name], unaveraged[name]) for name in names)  # training is as it would be without
    assert not any(name.startswith("average.") for name in best)
    moved = [name for name in names if f"average.{name[6:]}" in weights]
    for name in moved:
        torch.testing.assert_close(best[name], seen[of_best["step"]][name[6:]], rtol=0, atol=0)
        assert not torch.equal(weights[name], weights[f"average.{name[6:]}"])
    last = run.model(last=True)
    for name in moved:
        assert torch.equal(last.model.state_dict()[name[6:]], weights[f"average.{name[6:]}"])
    with measuring(last.model, stream_seed("log Z of the validation", 2, 30)):
        last.model.prior.estimate_log_partition()
    assert about["step"] == last.step == 30
    settings = run.recipe.training
    generator = torch.Generator().manual_seed(stream_seed("validation examples", 2))
    subset = torch.randperm(len(run.data.valid), generator=generator)[: settings.validation_examples]
    x, seed = run.data.valid[subset].float(), stream_seed("validation", 2, 30)
    expected = score(last.model, x, settings.validation_samples, seed=seed).numbers()["nll"]
    assert run.metrics()[-1]["valid_nll"] == pytest.approx(expected, rel=1e-6)  # log Z is exact here


def test_a_checkpoint_without_averages_is_refused(tmp_path: Path) -> None:
    run = start(tmp_path / "run", "training.average=0.9")
    run.trainer().fit()
    path = run.folder / "checkpoint.safetensors"
    tensors, about = load_tensors(path)
    mean = next(name for name in tensors if name.startswith("average.decoder"))
    for damaged in (
        {name: tensor for name, tensor in tensors.items() if name != mean},
        tensors | {mean: torch.zeros(2)},
    ):
        save_tensors(path, damaged, about)
        with pytest.raises(InputError, match="holds no average of decoder"):
            RunFolder(run.folder).trainer()


@pytest.mark.parametrize("decay", ["0", "1", "1.5", "-0.1"])
def test_decays_beyond_0_and_1_are_refused(decay: str) -> None:
    with pytest.raises(InputError, match=r"training\.average"):
        override(catalogue.find("quick/rbm", "tiny"), [f"training.average={decay}"])


def test_the_log_z_that_is_kept_is_that_of_the_averaged_machine(tmp_path: Path) -> None:
    changes = ["model.groups=[20,20]", "training.average=0.9", "training.learning_rate=[[1.0,0.03]]"]
    run = start(tmp_path / "run", *changes, "training.validation_chains=500", "training.validation_temperatures=100")
    trainer = run.trainer()
    trainer.fit()
    assert not trainer.model.prior.exact
    prior = run.model(last=True).model.prior
    assert prior.log_partition_is_current
    moved, averaged = (copy.deepcopy(each.machine).double() for each in (trainer.model.prior, prior))
    with torch.no_grad():
        exact, unaveraged = float(exact_log_partition(averaged)), float(exact_log_partition(moved))
    found = prior.log_partition
    assert abs(found.value - exact) < 5 * found.standard_error + 1e-3
    assert abs(unaveraged - exact) > 10 * found.standard_error
