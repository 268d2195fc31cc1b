"""The training metrics are of the objective that trains: its loss and its parts at the same draw, whatever it is."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deep import deep_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from registry import (
    boltzmann_prior,
    every_concrete,
    every_deterministic,
    every_prior,
    every_smoothing,
    every_spike,
    flat_gradient,
    images,
    tiny_model,
)
from torch import Tensor

from dvaepp import distributed
from dvaepp.components.registry import component
from dvaepp.data.dataset import Dataset
from dvaepp.errors import InputError
from dvaepp.likelihoods.base import DataSpec
from dvaepp.models.base import measuring
from dvaepp.objectives.base import BoundTerms, Objective
from dvaepp.objectives.bounds import joint_elbo, marginal_elbo
from dvaepp.objectives.rolfe import rolfe_elbo
from dvaepp.priors.base import Prior
from dvaepp.randomness import stream_seed
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import override
from dvaepp.runs.progress import show_metrics
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import StraightThrough
from dvaepp.smoothings.concrete import Concrete
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.smoothings.spike import SpikeExponential
from dvaepp.training.batches import BatchOrder
from dvaepp.training.journal import Metrics
from dvaepp.training.settings import TrainingSettings
from dvaepp.training.trainer import Trainer

# Lines after the second step, in the midst of the warm-up, and after the fourth and last.
SETTINGS = {"steps": 4, "kl_warmup": 0.5, "log_every": 2, "validate_every": 4}
QUICK = {"batch": 6, "validation_samples": 1, "validation_temperatures": 2, "validation_chains": 2}
KL_WEIGHTS = [0.5, 1]
BOUNDS: dict[str, Callable[..., Tensor]] = {"joint": joint_elbo, "marginal": marginal_elbo, "rolfe": rolfe_elbo}
NAMED: dict[str, Smoothing] = {
    **{name: case.smoothing for name, case in every_smoothing.items()},
    **{f"spike-{name}": case.smoothing for name, case in every_spike.items()},
    **{name: case.smoothing for name, case in every_deterministic.items() if name != "hard"},
    **{f"concrete-{name}": smoothing for name, smoothing in every_concrete.items()},
}
SMOOTHINGS = {type(smoothing): name for name, smoothing in NAMED.items()}  # the last of each class


def allowed(objective: str, smoothing: Smoothing, prior: Prior, groups: int) -> bool:
    """Whether the bound has a value and a gradient there (test_bounds and test_rolfe have the refusals)."""
    if objective == "marginal":
        return not smoothing.has_atom and prior.has_density(smoothing)
    if objective == "rolfe":
        return smoothing.has_atom and prior.joins_groups
    lost = smoothing.has_atom and prior.joins_groups and groups > 1
    return smoothing.shared_conditional and not lost


def combinations() -> list[tuple[str, str, str]]:
    """Every kind of smoothing with one prior, and every prior with four of them, for the objectives that allow it.

    But for chains, which are slow to watch: test_train_step has them.
    """
    some = [SMOOTHINGS[kind] for kind in (OverlappingExponential, SpikeExponential, StraightThrough, Concrete)]
    priors = {name: case.make() for name, case in every_prior.items() if name != "rbm-chains"}
    found = []
    for objective in BOUNDS:
        one = "rbm-2-groups" if objective == "rolfe" else "directed-2"
        for smoothing, prior in itertools.product(SMOOTHINGS.values(), priors):
            chosen = prior == one or smoothing in some
            if chosen and allowed(objective, NAMED[smoothing], priors[prior], len(every_prior[prior].groups)):
                found.append((objective, smoothing, prior))
    return found


def bits(pixels: int, examples: int = 12) -> Dataset:
    drawn = torch.randint(0, 2, (examples, pixels), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    return Dataset("bits", (pixels,), drawn, drawn[:2], drawn[2:4], False, "by hand")


def logged(trainer: Trainer, values: Callable[[Tensor, float], list[Tensor]]) -> list[tuple[Metrics, list[Tensor]]]:
    """Every line of training metrics, and what `values` of the batch and the KL weight are at the draw of that line."""
    lines: list[tuple[Metrics, list[Tensor]]] = []
    settings, order = trainer.settings, BatchOrder(len(trainer.data.train), trainer.settings.batch, trainer.seed)

    def look(metrics: Metrics) -> None:
        if "loss" in metrics:
            x = trainer.data.batch(order.indices(trainer.step - 1))
            lines.append((metrics, values(x, settings.kl_weight_at((trainer.step - 1) / settings.steps))))

    trainer.folder.mkdir(exist_ok=True)
    trainer.fit(look)
    assert [metrics["kl_weight"] for metrics, _ in lines] == pytest.approx(KL_WEIGHTS)
    return lines


def at_the_draw(trainer: Trainer, value: Callable[[], Tensor]) -> Tensor:
    """A value at the draws with which the trainer measures its latest step."""
    with measuring(trainer.model, stream_seed("loss", trainer.seed, trainer.step)):
        return value().mean()


@pytest.mark.parametrize(("objective", "smoothing", "prior"), combinations())
def test_what_is_logged_is_the_bound_that_trains_in_warm_up_and_after(
    objective: str, smoothing: str, prior: str, tmp_path: Path
) -> None:
    case, bound = every_prior[prior], BOUNDS[objective]
    model = tiny_model(case.make(), case.groups, NAMED[smoothing]).float()
    trainer = Trainer(
        model, component(Objective, objective)(), bits(4), TrainingSettings(**SETTINGS, **QUICK), tmp_path
    )

    def values(x: Tensor, kl_weight: float) -> list[Tensor]:
        return [at_the_draw(trainer, lambda w=w: bound(model, x, w)) for w in (kl_weight, 0.0)]

    for metrics, (own, without_kl) in logged(trainer, values):
        assert metrics["loss"] == pytest.approx(-float(own), rel=1e-5, abs=1e-5)
        assert metrics["distortion"] == pytest.approx(-float(without_kl), rel=1e-5, abs=1e-5)


# --- terms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "smoothing", "prior"), combinations())
def test_terms_make_the_bound_to_the_bit_and_their_gradients_its_gradient(
    objective: str, smoothing: str, prior: str
) -> None:
    case = every_prior[prior]
    model, x = tiny_model(case.make(), case.groups, NAMED[smoothing]), images()

    def at_one_draw(value: Callable[[], Any]) -> Any:
        torch.manual_seed(7)
        return value()

    terms, parameters = at_one_draw(lambda: component(Objective, objective)()(model, x)), list(model.parameters())
    likelihood, kl = (flat_gradient(part.sum(), parameters) for part in (terms.log_likelihood, terms.global_kl))
    for kl_weight in (0.0, 0.3, 1.0):
        bound = at_one_draw(lambda w=kl_weight: BOUNDS[objective](model, x, w))
        assert torch.equal(terms.log_likelihood - kl_weight * terms.global_kl, bound)
        torch.testing.assert_close(flat_gradient(bound.sum(), parameters), likelihood - kl_weight * kl)
    assert terms.local_kl_terms.shape == (2, 0)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(numbers=arrays(np.float64, (5, 6), elements=st.floats(-50, 50)), kl_weight=st.floats(0, 1))
def test_a_bound_is_linear_in_its_terms_whatever_weighs_them(numbers: np.ndarray, kl_weight: float) -> None:
    likelihood, kl, *local = torch.from_numpy(numbers[:, :5]).unbind(1)
    terms, weights = BoundTerms(likelihood, kl, torch.stack(local, 1)), torch.from_numpy(numbers[:3, 5].copy())
    by_hand = [row[0] - kl_weight * (row[1] + row[2:5] @ numbers[:3, 5]) for row in numbers]
    torch.testing.assert_close(terms.bound(kl_weight, weights), torch.tensor(by_hand))
    torch.testing.assert_close(terms.mean().bound(kl_weight, weights), terms.bound(kl_weight, weights).mean())
    torch.testing.assert_close(terms.kl(torch.ones(3).double()), terms.kl())
    assert (terms.balancing(kl_weight) is None) == (kl_weight == 1)


# --- local groups -----------------------------------------------------------------------------------------------------

ROWS = {"normal-normal": "joint", "rolfe-normal": "rolfe", "rbm-bernoulli": "joint", "bernoulli-bernoulli": "marginal"}


def deep_trainer(row: str, folder: Path) -> Trainer:
    """A row of Table 3 at the smallest size, its weights spread so that its local groups differ, on random images."""
    settings = [f"training.{name}={value}" for name, value in {**SETTINGS, **QUICK}.items()]
    recipe = override(catalogue.find(f"table-3/mnist-static/{row}", "tiny"), settings)
    torch.manual_seed(0)
    images = bits(784).train
    data = Dataset("bits", (28, 28), images, images[:2], images[2:4], False, "by hand")
    model, objective = recipe.build(DataSpec(data.shape, data.mean, data.sd))
    with torch.no_grad():
        for module in model.hierarchy.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.normal_(std=0.2)
    return Trainer(model, objective, data, recipe.training, folder)


@pytest.mark.parametrize("row", ROWS)
def test_the_logged_loss_is_the_balanced_one_and_the_kl_is_not_balanced(row: str, tmp_path: Path) -> None:
    trainer, bound = deep_trainer(row, tmp_path), BOUNDS[ROWS[row]]
    model, apart = trainer.model, []

    def values(x: Tensor, kl_weight: float) -> list[Tensor]:
        given = ({"balanced": True, "kl_weight": kl_weight}, *({"kl_weight": w} for w in (kl_weight, 0.0, 1.0)))
        return [at_the_draw(trainer, lambda keywords=keywords: bound(model, x, **keywords)) for keywords in given]

    for metrics, (trained, plain, without_kl, whole) in logged(trainer, values):
        assert metrics["loss"] == pytest.approx(-float(trained), rel=1e-6)
        assert metrics["distortion"] == pytest.approx(-float(without_kl), rel=1e-6)
        assert metrics["kl"] == pytest.approx(float(without_kl - whole), abs=1e-3)
        apart.append(abs(float(trained - plain)))
    assert apart[0] > 1e-2  # what would be wrong shows
    assert apart[1] == 0


@pytest.mark.parametrize("row", ROWS)
def test_a_step_is_taken_on_the_balanced_bound_to_the_bit(row: str, tmp_path: Path) -> None:
    trainer, bound = deep_trainer(row, tmp_path), BOUNDS[ROWS[row]]
    trainer.model.train()
    for kl_weight in (0.0, 0.5, 1.0):
        then, state = copy.deepcopy(trainer.model), torch.get_rng_state()
        measured, x = trainer.train_step()
        then.smoothing = trainer.model.smoothing  # annealed before the step
        torch.set_rng_state(state)
        loss = -bound(then, x, kl_weight, balanced=True).mean()
        assert torch.equal(measured, loss.detach())
        loss.backward()
        for name, parameter in then.named_parameters():
            assert torch.equal(trainer.model.get_parameter(name).grad, parameter.grad), name


@pytest.mark.parametrize("row", ["rbm-normal", "bernoulli-bernoulli"])
def test_the_kl_of_every_local_group_is_logged_at_the_same_draw(row: str, tmp_path: Path) -> None:
    trainer = deep_trainer(row, tmp_path)

    def values(x: Tensor, kl_weight: float) -> list[Tensor]:
        with measuring(trainer.model, stream_seed("loss", trainer.seed, trainer.step)):
            return list(trainer.model(x).local_kl_terms().mean(0))

    for metrics, terms in logged(trainer, values):
        local = [value for name, value in metrics.items() if name.startswith("kl_local_")]
        assert local == pytest.approx([float(term) for term in terms], rel=1e-6)
        assert len(local) == 2


# --- whatever trains, wherever it is told -----------------------------------------------------------------------------


def test_the_objective_of_a_user_is_logged_by_its_own_terms(tmp_path: Path) -> None:
    case = every_prior["directed-2"]
    model = tiny_model(case.make(), case.groups).float()

    def tempered(model: Any, x: Tensor) -> BoundTerms:
        """The pixels' log-probability counts twice, the KL three times."""
        trace = model(x)
        kl = 3 * model.prior.kl(trace.posterior)
        return BoundTerms(2 * trace.likelihood.log_prob(x), kl, trace.local_kl_terms())

    trainer = Trainer(model, tempered, bits(4), TrainingSettings(**SETTINGS, **QUICK), tmp_path)

    def values(x: Tensor, kl_weight: float) -> list[Tensor]:
        return [at_the_draw(trainer, lambda w=w: joint_elbo(model, x, w)) for w in (0.0, 1.0)]

    for metrics, (without_kl, whole) in logged(trainer, values):
        distortion, kl = -2 * float(without_kl), 3 * float(without_kl - whole)
        assert metrics["distortion"] == pytest.approx(distortion, rel=1e-5)
        assert metrics["kl"] == pytest.approx(kl, rel=1e-5)
        assert metrics["loss"] == pytest.approx(distortion + metrics["kl_weight"] * kl, rel=1e-5)


def test_an_objective_that_gives_a_number_without_its_parts_is_refused(tmp_path: Path) -> None:
    case, settings = every_prior["bernoulli"], TrainingSettings(**SETTINGS)
    trainer = Trainer(tiny_model(case.make(), case.groups).float(), joint_elbo, bits(4), settings, tmp_path)
    with pytest.raises(InputError, match=r"must give BoundTerms, as joint_terms does, not a Tensor"):
        trainer.train_step()


@pytest.mark.parametrize("bound", [joint_elbo, marginal_elbo])
def test_a_balanced_bound_asks_no_other_process(bound: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(values: Tensor) -> Tensor:
        raise AssertionError("another process was asked")

    monkeypatch.setattr(distributed, "mean", asked)
    model = deep_model(boltzmann_prior(2, 2), (2, 2), groups=2)
    x = torch.randint(0, 2, (3, 16)).double()
    assert bound(model, x, 0.5, balanced=True).shape == (3,)


def test_the_loss_that_is_shown_while_training_is_the_logged_one(tmp_path: Path) -> None:
    case, shown = every_prior["bernoulli"], []
    model = tiny_model(case.make(), case.groups)
    trainer = Trainer(model, component(Objective, "joint")(), bits(4), TrainingSettings(**SETTINGS), tmp_path)
    metrics = {"step": 5, "loss": 123.4, "distortion": 100.0, "kl_weight": 0.5, "kl": 40.0}
    show_metrics(trainer, metrics, lambda done, total, text: shown.append(text))
    assert shown[0].startswith("loss 123.4")
    assert "40.0" in shown[0]
    assert len(shown[0]) < 33
