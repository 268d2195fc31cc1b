"""Bias, variance and cost of gradients, against enumeration of a small model, where every draw can be listed."""

import copy
import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from registry import (
    all_states,
    boltzmann_prior,
    exact_log_q,
    images,
    log_pixels,
    log_prior,
    prior_bits,
    randomise,
    tiny_model,
)
from torch import Tensor

import dvaepp
from dvaepp.errors import InputError
from dvaepp.estimators import (
    DARN,
    NVIL,
    VIMCO,
    LeaveOneOut,
    LocalExpectation,
    MuProp,
    PlainEstimator,
    Reinforce,
    ReinMax,
    RelaxedBernoulli,
    StraightThrough,
)
from dvaepp.estimators.base import Estimator, Function, evaluate, score
from dvaepp.evaluation import logit_gradients
from dvaepp.evaluation.estimated import Estimated, squared_mean, total_variance
from dvaepp.evaluation.gradients import Cost, GradientComparison, GradientQuality, gradient_costs, gradient_quality
from dvaepp.evaluation.logit_gradients import TRUTH, GradientMethod, single_draws, true_gradient, with_logits
from dvaepp.evaluation.methods import chosen, gradient_methods
from dvaepp.gradients import add_gradient
from dvaepp.models.encoders import NormalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.objectives.bounds import JointBound
from dvaepp.objectives.elbo import Elbo, elbo
from dvaepp.priors.directed import BernoulliPrior
from dvaepp.priors.normal import NormalPrior
from dvaepp.report.gradient_plot import plot
from dvaepp.report.gradient_table import comma_separated, markdown
from dvaepp.smoothings.exponential import OverlappingExponential

BITS = 6
PIXELS = 4


def six_bits() -> FeedForwardVAE:
    return tiny_model(randomise(BernoulliPrior(BITS), 0.8), (BITS,))


def by(estimator: Estimator, analytic_kl: bool = True, **settings: Any) -> GradientMethod:
    return GradientMethod("it", Elbo(analytic_kl).with_estimator(estimator), **settings)


def measured(method: GradientMethod, model: FeedForwardVAE | None = None, **settings: Any) -> GradientQuality:
    found = gradient_quality(model or six_bits(), images(), [method], **{"draws": 4000, **settings})
    return found.rows[0]


def exact_gradient(model: FeedForwardVAE, x: Tensor) -> Tensor:
    """d E_q[log p(x, z) - log q(z | x)] / d logits of each image, which is that in the last bias. (images, bits)"""
    z = all_states(prior_bits(model.prior))
    bias = list(model.encoder.parameters())[-1]
    rows = []
    for row in x:
        log_q = exact_log_q(model, row[None])[0]
        weight = log_pixels(model, z, row.expand(len(z), -1)) + log_prior(model.prior, z, z) - log_q
        rows.append(torch.autograd.grad((log_q.exp() * weight).sum(), bias)[0])
    return torch.stack(rows)


def listed(model: FeedForwardVAE, estimator: Estimator, analytic_kl: bool) -> tuple[Tensor, Tensor]:
    """The probability of every setting of the draws, and the gradient that it gives. (settings, images, [bits])"""
    z = all_states(BITS * estimator.uniforms).view(-1, estimator.uniforms, BITS)
    noise = torch.where(z > 0.5, 0.0, 1 - 1e-12).transpose(0, 1).double()
    weights, gradients = [], []
    for row in images():
        logits = model.code(row[None]).detach().expand(len(z), -1).clone().requires_grad_()
        rows = row.expand(len(z), -1)
        value = elbo(with_logits(model, logits), rows, estimator, analytic_kl, noise=noise)
        gradients.append(torch.autograd.grad(value.sum(), logits)[0])
        states = torch.distributions.Bernoulli(logits=logits[:, None]).log_prob(z)
        weights.append(states.sum((1, 2)).exp().detach())
    return torch.stack(weights, 1), torch.stack(gradients, 1)


def context_free(estimator: Any) -> Any:
    return randomise(estimator, 0.5, 3)


OF_BITS: dict[str, tuple[Callable[[], Estimator], bool]] = {
    "reinforce": (Reinforce, False),
    "leave-one-out": (LeaveOneOut, True),
    "nvil": (lambda: context_free(NVIL(PIXELS, hidden=3)), False),
    "muprop": (lambda: context_free(MuProp()), True),
    "straight-through": (StraightThrough, True),
    "reinmax": (ReinMax, True),
    "darn": (DARN, False),
    "local-expectation": (LocalExpectation, True),
}
"""Estimators whose gradient is a function of their draws of bits alone, and whether the KL is analytic."""


@pytest.mark.parametrize("case", OF_BITS.values(), ids=OF_BITS)
def test_bias_variance_and_signal_are_those_of_all_draws_listed(case: tuple[Callable[[], Estimator], bool]) -> None:
    make, analytic_kl = case
    model, estimator = six_bits(), make()
    weights, gradients = listed(model, estimator, analytic_kl)
    mean = (weights[..., None] * gradients).sum(0)
    truth = exact_gradient(model, images())
    exact = {
        "bias": (mean - truth).square().sum(-1).mean(),
        "variance": (weights * (gradients - mean).square().sum(-1)).sum(0).mean(),
        "signal": mean.square().sum(-1).mean(),
    }
    row = measured(by(estimator, analytic_kl), model)
    for name, value in exact.items():
        found: Estimated = getattr(row, name)
        assert abs(found.value - float(value)) < 5 * found.error + 1e-9, name
    assert row.variance.error < 0.1 * row.variance.value
    assert row.truth == pytest.approx(float(truth.square().sum(-1).mean()))
    cosine = float((mean * truth).sum() / (mean.norm() * truth.norm()))
    assert row.cosine is None or row.cosine == pytest.approx(cosine, abs=0.1)
    if estimator.unbiased:
        torch.testing.assert_close(mean, truth)


@pytest.mark.parametrize("prior", [lambda: randomise(BernoulliPrior(4), 0.8), lambda: boltzmann_prior(2, 2)])
def test_the_true_gradient_of_few_bits_is_exact(prior: Callable[[], Any]) -> None:
    model = tiny_model(prior(), (4,))
    torch.testing.assert_close(true_gradient(model, images(), 10)[0], exact_gradient(model, images()))


def test_of_many_bits_local_expectations_stand_for_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = gradient_quality(six_bits(), images(), [by(StraightThrough())], draws=4000)
    monkeypatch.setattr(logit_gradients, "MOST_ENUMERATED", BITS - 1)
    found = gradient_quality(six_bits(), images(), [by(StraightThrough())], draws=4000)
    assert (exact.truth_noise, exact.truth.error) == (0, 0)
    assert 0 < found.truth_noise < 0.01
    assert 0 < abs(found.truth.value - exact.truth.value) < 5 * found.truth.error < 0.1 * exact.truth.value
    one, other = found.rows[0].bias, exact.rows[0].bias
    assert 0 < abs(one.value - other.value) < 5 * (one.error**2 + other.error**2) ** 0.5
    assert found.rows[0].bias.error > exact.rows[0].bias.error
    with pytest.raises(InputError, match=r"draws=10 .*too few"):
        gradient_quality(randomise(six_bits(), 0.0), images(), [by(Reinforce())], draws=10)


@dataclass(frozen=True)
class Stretched(PlainEstimator):
    """REINFORCE, three times as long: it claims to be unbiased, and is not."""

    unbiased: ClassVar[bool] = True
    draws: ClassVar[int] = 1
    uniforms: ClassVar[int] = 1

    def value(self, f: Function, logits: Tensor, uniform: Tensor) -> Tensor:
        b = self.sample(logits, uniform)[0]
        value = evaluate(f, b)
        return add_gradient(value, logits, 3 * value[:, None] * score(logits, b))


def test_a_claim_that_does_not_hold_is_found_out() -> None:
    assert measured(by(Stretched()), draws=20_000).holds is False
    assert measured(by(Reinforce()), draws=20_000).holds is True
    assert measured(by(StraightThrough())).holds is None
    assert measured(by(RelaxedBernoulli())).holds is None, "it is unbiased for another target"
    assert measured(by(VIMCO(), analytic_kl=False)).holds is None, "it is unbiased for another bound"


def test_smoothings_are_biased_by_what_their_bound_is_in_expectation() -> None:
    soft = measured(GradientMethod("joint", JointBound(), OverlappingExponential(3.0)))
    sharp = measured(GradientMethod("joint", JointBound(), OverlappingExponential(9.0)))
    assert soft.bias.value - 5 * soft.bias.error > sharp.bias.value > 5 * sharp.bias.error / 2
    assert soft.variance.value < sharp.variance.value


def test_squares_and_variances_are_estimated_without_bias_and_with_their_errors() -> None:
    generator = torch.Generator().manual_seed(1)
    spread = torch.tensor([3.0, 1.0, 0.5, 0.5, 0.1], dtype=torch.float64)
    for mean in (torch.zeros(5).double(), torch.tensor([0.3, -1.0, 0.2, 0.0, 0.0]).double()):
        draws = mean + spread * torch.randn(3000, 40, 5, generator=generator, dtype=torch.float64)
        cases = ((squared_mean, mean.square().sum()), (total_variance, spread.square().sum()))
        for estimate, exact in cases:
            found = torch.tensor([estimate(each) for each in draws], dtype=torch.float64)
            off = found[:, 0].mean() - exact
            assert abs(off) < 5 * found[:, 0].std() / len(found) ** 0.5
            assert 0.9 < float(found[:, 1].square().mean().sqrt() / found[:, 0].std()) < 1.4


def test_no_method_depends_on_the_others_or_on_how_the_draws_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = [by(Reinforce()), by(VIMCO(), False), GradientMethod("joint", JointBound(), OverlappingExponential(5.0))]
    together = gradient_quality(six_bits(), images(), methods, draws=100, seed=3)
    alone = gradient_quality(six_bits(), images(), methods[2:], draws=100, seed=3)
    assert together.rows[2].bias == alone.rows[0].bias
    assert together.rows[2].variance == alone.rows[0].variance
    other = gradient_quality(six_bits(), images(), methods[2:], draws=100, seed=4)
    assert other.rows[0].variance != alone.rows[0].variance
    monkeypatch.setattr(logit_gradients, "_NUMBERS", 200)
    assert single_draws(six_bits(), images(), methods[1], 37, 5).shape == (37, 2, BITS)


def test_what_the_decoder_sees_is_counted() -> None:
    methods = [by(LocalExpectation()), by(VIMCO(samples=3), False), by(ReinMax()), by(MuProp())]
    costs = gradient_costs(six_bits(), images(), methods, repeats=1)
    assert [cost.evaluations for cost in costs] == [BITS + 1, 3, 1, 2]
    assert all(cost.milliseconds > 0 for cost in costs)


def test_nothing_is_moved_but_what_is_fitted() -> None:
    model, estimator = six_bits().train(), NVIL(PIXELS, hidden=3).double()
    before, own = copy.deepcopy(model.state_dict()), copy.deepcopy(estimator.state_dict())
    state, methods = torch.get_rng_state(), [by(estimator), by(estimator, fit=True)]
    found = gradient_quality(
        model, images(), methods, draws=500, batches=lambda _: images().repeat(10, 1), fit_steps=200
    )
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    for module, kept in ((model, before), (estimator, own)):
        assert all(torch.equal(kept[name], tensor) for name, tensor in module.state_dict().items())
    raw, fitted = found.rows
    assert fitted.variance.value < 0.7 * raw.variance.value
    assert fitted.method.objective is not methods[1].objective
    with pytest.raises(InputError, match="'it' is to be fitted, which needs batches"):
        gradient_quality(model, images(), methods)


def test_refusals() -> None:
    two = tiny_model(randomise(BernoulliPrior(5)), (3, 2))
    normal = FeedForwardVAE(
        NormalEncoder(dvaepp.dense(4, 6)), NormalPrior(3), dvaepp.dense(3, 4), OverlappingExponential(5.0)
    )
    with pytest.raises(InputError, match="one group of bits, and this model has 2"):
        gradient_quality(two, images(), [by(Reinforce())])
    with pytest.raises(InputError, match="not on one with this NormalEncoder"):
        gradient_quality(normal, images().float(), [by(Reinforce())])
    with pytest.raises(InputError, match="draws must be"):
        gradient_quality(six_bits(), images(), [by(Reinforce())], draws=9)
    with pytest.raises(InputError, match="x must be"):
        gradient_quality(six_bits(), images().float(), [by(Reinforce())])
    with pytest.raises(InputError, match="no joint bound"):
        gradient_quality(six_bits(), images(), [GradientMethod("c", JointBound(), dvaepp.Concrete(0.5))])


# --- which methods there are ------------------------------------------------------------------------------------------


def labels(prior: Any = None) -> list[str]:
    return [method.label for method in gradient_methods(prior or BernoulliPrior(BITS), BITS, torch.zeros(PIXELS))]


def test_every_estimator_and_smoothing_stands_there_once() -> None:
    known = labels()
    assert len(set(known)) == len(known)
    for label in (
        "reinforce, sampled KL",
        "vimco samples=5, sampled KL",
        "nvil, sampled KL, fitted",
        "relaxed-bernoulli temperature=0.1, sampled KL",
        "relaxed-bernoulli temperature=0.5",
        "straight-through-gumbel temperature=0.1",
        "reinmax temperature=1",
        "joint, exponential beta=8",
        "marginal, exponential beta=18",
        "joint, power beta=30",
        "joint, spike-exponential beta=10",
    ):
        assert label in known
    assert "vimco samples=5" not in known
    assert "local-expectation, sampled KL" not in known
    assert not any(label.startswith("rolfe") for label in known)
    assert "rolfe, spike-exponential beta=10" in labels(dvaepp.BoltzmannPrior(dvaepp.BoltzmannMachine(3, 3)))


def test_all_of_them_are_measured_and_no_claim_is_wrong() -> None:
    model = six_bits()
    methods = [each for each in gradient_methods(model.prior, BITS, torch.zeros(PIXELS).double()) if not each.fit]
    for method in methods:
        if isinstance(method.objective, Elbo) and isinstance(method.objective.built, torch.nn.Module):
            method.objective.built.double()
    costs = gradient_costs(model, images(), methods, repeats=1)
    found = gradient_quality(model, images(), methods, draws=500, costs=costs)
    assert [row.method.label for row in found.rows if row.holds is False] == []
    assert sum(row.holds is True for row in found.rows) > 15
    assert all(torch.tensor([*row.bias, *row.variance]).isfinite().all() for row in found.rows)


@pytest.mark.usefixtures("forgotten")
def test_a_users_own_is_among_them() -> None:
    @dataclass(frozen=True)
    class Mine(Stretched):
        name: ClassVar[str] = "mine"
        strength: float = 2.0

    @dataclass(frozen=True)
    class Unset(Stretched):
        name: ClassVar[str] = "unset"
        strength: float

    assert "mine" in labels()
    assert not any(label.startswith("unset") for label in labels()), "it has a setting without default"


def test_methods_are_chosen_by_name() -> None:
    methods = gradient_methods(BernoulliPrior(BITS), BITS, torch.zeros(PIXELS))
    names = [method.label for method in chosen(methods, ["arm", "joint*beta=8", "nvil, fitted"])]
    assert names == ["arm", "arm, sampled KL", "nvil, fitted", "joint, exponential beta=8"]
    with pytest.raises(InputError, match=r"'reinmx'; did you mean 'reinmax'\?"):
        chosen(methods, ["arm", "reinmx"])


# --- how it is shown --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found() -> GradientComparison:
    smoothed = GradientMethod("joint | 6", JointBound(), OverlappingExponential(6.0))
    methods = [by(Reinforce()), by(StraightThrough()), smoothed, by(LocalExpectation())]
    costs = gradient_costs(six_bits(), images(), methods, repeats=1)
    return gradient_quality(six_bits(), images(), methods, draws=60, costs=costs)


def test_the_table_has_a_row_for_each_and_says_what_it_rests_on(found: GradientComparison) -> None:
    text = markdown(found, "a model")
    lines = text.split("\n")
    assert [line.count(" | ") for line in lines[:6]] == [8] * 6
    assert lines[4].startswith("| joint \\| 6 | ")
    assert lines[2].endswith(" | yes |")
    told = " ".join(lines[6:])
    for part in (
        "a model",
        "2 training examples, 60 draws, seed 0",
        "by a sum over all states",
        "SNR |mean|² / variance",
    ):
        assert part in told
    assert max(map(len, lines[6:])) <= 120
    assert (str(Estimated(-0.2, 0.013)), str(Estimated(1234.56, 7.89))) == ("~0 ± 0.013", "1,234.6 ± 7.9")


def test_the_csv_holds_all_numbers_in_full(found: GradientComparison) -> None:
    rows = list(csv.DictReader(io.StringIO(comma_separated(found, "a model"))))
    assert len(rows) == len(found.rows)
    for line, row in zip(rows, found.rows, strict=True):
        assert line["method"] == row.method.label
        assert float(line["bias2"]) == row.bias.value
        assert float(line["relative_bias2_standard_error"]) == row.relative_bias.error
        assert float(line["variance"]) == row.variance.value
        assert float(line["truth2"]) == pytest.approx(row.truth)
        assert float(line["milliseconds"]) == row.cost.milliseconds
        assert (line["claims_unbiased"], line["draws"], line["of"]) == (str(row.method.unbiased), "60", "a model")


def test_the_figure_names_every_method(found: GradientComparison, tmp_path: Path) -> None:
    plot(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    plot(found, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert all(f"<!-- {row.method.label} -->" in drawn for row in found.rows)
    with pytest.raises(InputError, match=r"must end in \.png or \.svg"):
        plot(found, tmp_path / "plot.pdf")


def test_what_follows_of_the_squares_that_were_estimated() -> None:
    squares = Estimated(4.0, 0.4), Estimated(8.0, 0.1), Estimated(2.0, 0.01)
    row = GradientQuality(TRUTH, *squares, 3.0, 16.0, Cost(1.0, 1.0))
    assert row.relative_bias == pytest.approx((0.25, 0.025))
    assert row.relative_variance == pytest.approx((0.5, 0.00625))
    assert row.signal_to_noise == pytest.approx(0.25)
    assert row.cosine == pytest.approx(3 / 32**0.5)
