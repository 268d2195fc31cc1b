"""p(x | zeta) against enumeration, scipy in float64, and the moments of its samples."""

import math

import mpmath
import numpy as np
import pytest
import torch
from registry import every_likelihood, gauss_legendre
from scipy import stats

import dvaepp
from dvaepp import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretizedLogisticMixture,
    InputError,
    Likelihood,
    MixedLikelihood,
    NormalLikelihood,
    PoissonLikelihood,
)

*_, GREY, COLOUR = ALL = every_likelihood
NAMES = [f"{type(likelihood).__name__}-{likelihood.values}" for likelihood in ALL]
each = pytest.mark.parametrize("likelihood", ALL, ids=NAMES)


# Every likelihood


@each
def test_it_is_a_distribution_over_whole_examples(likelihood: Likelihood) -> None:
    p = likelihood(torch.randn(2, 3, 7 * likelihood.width))
    assert (p.batch_shape, p.event_shape) == (torch.Size([2, 3]), torch.Size([7 * likelihood.values]))
    draws = p.sample(torch.Size([5]))
    assert draws.shape == (5, 2, 3, 7 * likelihood.values)
    assert p.mean.shape == (2, 3, 7 * likelihood.values)
    assert p.log_prob(draws).shape == (5, 2, 3)
    assert torch.equal(p.log_prob(draws)[4], p.log_prob(draws[4])), "x broadcasts"
    one = likelihood(torch.randn(7 * likelihood.width))
    assert one.log_prob(draws).shape == (5, 2, 3), "parameters broadcast"


@each
def test_sites_are_independent_and_in_order(likelihood: Likelihood) -> None:
    parameters = torch.randn(4, 7 * likelihood.width, dtype=torch.float64)
    x = likelihood(parameters).sample()
    alone = [
        likelihood(parameters[:, site * likelihood.width : (site + 1) * likelihood.width]).log_prob(
            x[:, site * likelihood.values : (site + 1) * likelihood.values]
        )
        for site in range(7)
    ]
    assert likelihood(parameters).log_prob(x).tolist() == pytest.approx(torch.stack(alone).sum(0).tolist())
    by_site = likelihood.log_prob(parameters.unflatten(-1, (7, -1)), x.unflatten(-1, (7, -1)))
    assert by_site.T.flatten().tolist() == pytest.approx(torch.stack(alone).flatten().tolist())


@each
def test_samples_are_in_the_support_and_carry_no_gradient(likelihood: Likelihood) -> None:
    parameters = (3 * torch.randn(500, 2 * likelihood.width)).requires_grad_()
    draws = likelihood(parameters).sample()
    likelihood.check(draws)
    assert not draws.requires_grad


@each
def test_nan_and_other_shapes_are_refused(likelihood: Likelihood) -> None:
    p = likelihood(torch.randn(3, 2 * likelihood.width))
    x = p.sample()
    x[1, 0] = math.nan
    with pytest.raises(ValueError, match="support"):
        p.log_prob(x)
    with pytest.raises(ValueError, match="shape|size"):
        p.log_prob(p.sample()[:, :1].expand(3, 7))
    with pytest.raises(ValueError, match="invalid values"):
        likelihood(torch.full((3, likelihood.width), math.nan))


@pytest.mark.parametrize(
    ("likelihood", "bad", "expected"),
    [
        (BernoulliLikelihood(), 0.5, "0 or 1"),
        (NormalLikelihood(), math.inf, "finite numbers"),
        (CategoricalLikelihood(5), 5.0, r"whole numbers in 0\.\.4"),
        (CategoricalLikelihood(5), 1.5, r"whole numbers in 0\.\.4"),
        (PoissonLikelihood(), -1.0, "whole numbers of at least 0"),
        (PoissonLikelihood(), math.inf, "whole numbers of at least 0"),
        (GREY, 256.0, r"whole numbers in 0\.\.255"),
        (COLOUR, 0.5, r"whole numbers in 0\.\.255"),
    ],
)
def test_values_outside_the_support_are_named(likelihood: Likelihood, bad: float, expected: str) -> None:
    x = torch.zeros(2, 3 * likelihood.values)
    likelihood.check(x)
    x[1, 2] = bad
    with pytest.raises(InputError, match=rf"x holds the value {bad:g} outside the support, expected {expected}"):
        likelihood.check(x)
    with pytest.raises(ValueError, match="support"):
        likelihood(torch.zeros(2, 3 * likelihood.width)).log_prob(x)


@each
def test_without_validation_nothing_is_read_back(likelihood: Likelihood) -> None:
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        p = likelihood(torch.full((likelihood.width,), math.nan))
        assert p.log_prob(torch.zeros(likelihood.values)).isnan()
    finally:
        torch.distributions.Distribution.set_default_validate_args(True)


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="values is 2, expected 1"):
        DiscretizedLogisticMixture(values=2)
    with pytest.raises(InputError, match="components .* must be a whole number of at least 1, not 0"):
        DiscretizedLogisticMixture(0)
    with pytest.raises(InputError, match="categories .* must be a whole number of at least 2, not 1"):
        CategoricalLikelihood(1)
    with pytest.raises(InputError, match="decoder gives 31 outputs, expected a multiple of 30"):
        COLOUR(torch.zeros(2, 31))
    assert (DiscretizedLogisticMixture().width, DiscretizedLogisticMixture(values=1).width) == (100, 30)


@pytest.mark.parametrize("size", [0.0, 20.0, 80.0, 1e4, 1e15])
@each
def test_values_and_gradients_are_finite_in_float32(likelihood: Likelihood, size: float) -> None:
    size = min(size, 80.0) if isinstance(likelihood, PoissonLikelihood | MixedLikelihood) else size
    parameters = (size * torch.randn(200, likelihood.width).clamp(-1, 1)).requires_grad_()
    for x in (torch.zeros(200, likelihood.values), torch.ones(200, likelihood.values)):
        values = [x, 127 * x, 255 * x] if likelihood.values == 3 or likelihood is GREY else [x]
        for value in values:
            log_prob = likelihood(parameters).log_prob(value)
            (gradient,) = torch.autograd.grad(log_prob.sum(), parameters)
            assert log_prob.isfinite().all()
            assert gradient.isfinite().all()
    if size <= 20 or likelihood.values == 3 or likelihood is GREY:
        assert likelihood(parameters).mean.isfinite().all()
        likelihood.check(likelihood(parameters).sample())


# Against scipy


def test_table_likelihoods_are_scipys() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        a, b, counts = torch.randn(50), torch.randn(50), torch.arange(50.0)
        bits = counts % 2
        pairs = {
            "normal": (NormalLikelihood()(torch.stack([a, b], -1)), a + 1, stats.norm(a, b.exp()).logpdf(a + 1)),
            "poisson": (PoissonLikelihood()(3 * a[:, None]), counts, stats.poisson((3 * a).exp()).logpmf(counts)),
            "bernoulli": (BernoulliLikelihood()(a[:, None]), bits, stats.bernoulli(torch.sigmoid(a)).logpmf(bits)),
        }
        for p, x, expected in pairs.values():
            assert p.log_prob(x[:, None]).tolist() == pytest.approx(expected.tolist())
        assert pairs["normal"][0].mean[:, 0].tolist() == a.tolist()
        by_site = BernoulliLikelihood().log_prob(a[:, None, None], bits[:, None, None])
        assert by_site[:, 0].tolist() == pytest.approx(pairs["bernoulli"][2].tolist())
    finally:
        torch.set_default_dtype(torch.float32)


COUNTS = [0, 1, 2, 3, 7, 30, 255, 1000, 65_537, 10**6, 10**7, 2**24 - 1, 2**24]
LOG_RATES = [-60.0, -20.0, -3.0, -0.1, 0.0, 0.7, 5.0, 12.0, 16.1, 16.6, 20.0, 60.0]


def counts_and_log_rates(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Every count with every log rate, and with rates at which it is likely: x and 0.001 to 5 sd beside it."""
    x = torch.tensor(COUNTS, dtype=torch.float64)
    far = torch.cartesian_prod(x, torch.tensor(LOG_RATES, dtype=torch.float64))
    z = torch.tensor([0.0, 1e-3, -1e-3, 0.1, -1.0, 2.0, -5.0], dtype=torch.float64)
    near = torch.stack([x[1:, None].expand(-1, 7), (x[1:, None] + z * x[1:, None].sqrt()).clamp(min=0.01).log()], -1)
    both = torch.cat([far, near.flatten(0, 1)]).to(dtype)
    return both[:, 0], both[:, 1]


def poissons_log_probability(x: float, log_rate: float) -> float:
    with mpmath.workdps(60):
        return float(x * mpmath.mpf(log_rate) - mpmath.exp(log_rate) - mpmath.loggamma(x + 1))


def poissons_slope(x: float, log_rate: float) -> float:
    with mpmath.workdps(60):
        return float(x - mpmath.exp(log_rate))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_poisson_is_exact_for_all_counts_that_float32_holds(dtype: torch.dtype) -> None:
    x, log_rate = counts_and_log_rates(dtype)
    log_rate.requires_grad_()
    log_prob = PoissonLikelihood().log_prob(log_rate[:, None, None], x[:, None, None])[:, 0]
    assert log_prob.dtype == dtype
    pairs = list(zip(x.tolist(), log_rate.tolist(), strict=True))
    exact = torch.tensor([poissons_log_probability(*pair) for pair in pairs], dtype=torch.float64)
    torch.testing.assert_close(log_prob.double(), exact, rtol=2e-7, atol=0)
    (slope,) = torch.autograd.grad(log_prob.sum(), log_rate)
    exact_slope = torch.tensor([poissons_slope(*pair) for pair in pairs], dtype=torch.float64)
    torch.testing.assert_close(slope.double(), exact_slope, rtol=2e-7, atol=1e-8)


@pytest.mark.parametrize("rate", [1e3, 1e6, 1e7])
def test_the_probabilities_of_large_counts_sum_to_one(rate: float) -> None:
    x = torch.arange(int(rate - 7 * math.sqrt(rate)), int(rate + 7 * math.sqrt(rate)), dtype=torch.float32)
    log_rate = torch.tensor(rate).log().expand(len(x))
    log_prob = PoissonLikelihood().log_prob(log_rate[:, None, None], x[:, None, None])
    assert float(log_prob.double().exp().sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log_rate", [10.0, 16.0, 40.0, 44.0, 60.0])
def test_samples_of_any_rate_are_counts_of_about_that_rate(log_rate: float, dtype: torch.dtype) -> None:
    p = PoissonLikelihood()(torch.full((1,), log_rate, dtype=dtype))
    x = p.sample(torch.Size([1000]))
    PoissonLikelihood().check(x)
    off = (x.double().mean() / math.exp(log_rate) - 1).abs()
    assert float(off) < 5 * math.exp(-log_rate / 2) / math.sqrt(1000) + 10 * torch.finfo(dtype).eps


def test_categories_are_scipys() -> None:
    logits = torch.randn(6, 5, dtype=torch.float64)
    for k in range(5):
        x = torch.full((6, 1), float(k), dtype=torch.float64)
        expected = [stats.multinomial(1, row.softmax(-1).numpy()).logpmf(np.eye(5)[k]).item() for row in logits]
        assert CategoricalLikelihood(5)(logits).log_prob(x).tolist() == pytest.approx(expected)
    assert CategoricalLikelihood(5)(logits).mean[:, 0].tolist() == logits.argmax(-1).tolist()


def test_the_scale_of_a_normal_has_a_floor() -> None:
    p = NormalLikelihood(log_scale_floor=-2.0)(torch.tensor([[0.5, -50.0]]))
    assert p.log_prob(torch.tensor([[0.5]])).item() == pytest.approx(stats.norm(0, math.exp(-2)).logpdf(0))


# Samples


@pytest.mark.parametrize(
    ("likelihood", "parameters", "variance"),
    [
        (BernoulliLikelihood(), [0.7], torch.tensor(0.7).sigmoid().item() * torch.tensor(-0.7).sigmoid().item()),
        (NormalLikelihood(), [1.5, 0.4], math.exp(0.8)),
        (PoissonLikelihood(), [1.2], math.exp(1.2)),
    ],
)
def test_moments_of_samples(likelihood: Likelihood, parameters: list[float], variance: float) -> None:
    p = likelihood(torch.tensor(parameters))
    draws = p.sample(torch.Size([50000])).double()
    assert draws.mean().item() == pytest.approx(p.mean.item(), abs=5 * math.sqrt(variance / 50000))
    fourth = ((draws - draws.mean()) ** 4).mean().item()
    assert draws.var().item() == pytest.approx(variance, abs=5 * math.sqrt((fourth - variance**2) / 50000))


def test_categories_are_drawn_in_proportion() -> None:
    logits = torch.randn(5)
    draws = CategoricalLikelihood(5)(logits).sample(torch.Size([50000]))
    observed = torch.bincount(draws[:, 0].long(), minlength=5) / 50000
    assert (observed - logits.softmax(-1)).abs().max() < 5 * math.sqrt(0.25 / 50000)


# In a model


@each
def test_a_model_takes_any_likelihood(likelihood: Likelihood) -> None:
    sites = 4
    pixels = sites * likelihood.values
    encoder = dvaepp.HierarchicalEncoder(dvaepp.dense(pixels, 6))
    decoder = dvaepp.dense(6, sites * likelihood.width, (5,))
    model = dvaepp.FeedForwardVAE(
        encoder, dvaepp.BernoulliPrior(6), decoder, dvaepp.OverlappingExponential(8.0), likelihood
    )
    bound = dvaepp.joint_elbo(model, model.generate(3))
    bound.sum().backward()
    assert bound.shape == (3,)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# Variances


def moments_by_the_sum(likelihood: Likelihood, parameters: torch.Tensor, values: torch.Tensor) -> list[torch.Tensor]:
    """Mean and variance of one value at each site, from log_prob at every value that it may have."""
    x = values[:, None, None].expand(-1, len(parameters), 1)
    p = likelihood.log_prob(parameters.expand(len(values), -1, -1), x).exp()
    weights = p / p.sum(0)
    mean = (weights * values[:, None]).sum(0)
    return [mean, (weights * (values[:, None] - mean).square()).sum(0)]


def test_variances_are_those_of_the_law() -> None:
    parameters = 2 * torch.randn(30, 2, dtype=torch.float64)
    bits, counts = torch.arange(2.0, dtype=torch.float64), torch.arange(4000.0, dtype=torch.float64)
    for likelihood, values in ((BernoulliLikelihood(), bits), (PoissonLikelihood(), counts)):
        _, expected = moments_by_the_sum(likelihood, parameters[:, :1], values)
        torch.testing.assert_close(likelihood.variance(parameters[:, :1])[:, 0], expected)
        torch.testing.assert_close(likelihood(parameters[:, 0]).variance, expected)
    nodes, weights = gauss_legendre(-1, 1)
    mean, sd = parameters[:, 0], parameters[:, 1].exp()
    x = mean + 12 * sd * nodes[:, None]  # the density of x times dx, over 12 standard deviations each side
    density = NormalLikelihood().log_prob(parameters.expand(len(x), -1, -1), x[..., None]).exp() * weights[:, None]
    expected = (12 * sd * density * (x - mean).square()).sum(0)
    torch.testing.assert_close(NormalLikelihood()(parameters).variance[:, 0], expected)


@pytest.mark.parametrize("log_scale", [-7.0, -4.0, -1.0, 2.0, 6.0])
def test_the_variance_of_grey_levels_is_the_sum_over_levels(log_scale: float) -> None:
    parameters = torch.randn(50, GREY.width, dtype=torch.float64)
    parameters[:, 8:] = log_scale
    parameters[:25, 4:8] = parameters[:25, 4:5]  # one component: nothing but its own spread
    _, expected = moments_by_the_sum(GREY, parameters, torch.arange(256.0, dtype=torch.float64))
    torch.testing.assert_close(GREY.variance(parameters)[:, 0], expected, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(GREY.variance(parameters.float())[:, 0].double(), expected, rtol=1e-4, atol=2e-3)


def test_the_variance_of_colour_is_that_of_draws() -> None:
    torch.manual_seed(3)
    parameters = torch.randn(20, COLOUR.width, dtype=torch.float64)
    parameters[:, 3:12] *= 0.15
    parameters[:, 12:21] = -3.5  # far from 0 and 255
    draws = COLOUR(parameters.flatten()).sample(torch.Size([100_000])).unflatten(-1, (20, 3))
    squares = (draws - draws.mean(0)).square()
    error = squares.std(0) / math.sqrt(len(draws))
    assert float(((squares.mean(0) - COLOUR.variance(parameters)).abs() / error).max()) < 5


def test_what_has_no_variance_says_so_in_a_sentence() -> None:
    with pytest.raises(InputError, match="categories have no variance"):
        _ = CategoricalLikelihood(5)(torch.zeros(5)).variance

    class Users(PoissonLikelihood):
        variance = Likelihood.variance

    with pytest.raises(InputError, match="Users gives no variance"):
        _ = Users()(torch.zeros(5)).variance


@each
def test_half_precision_of_x_does_not_decide_in_which_precision_nats_add_up(likelihood: Likelihood) -> None:
    p = likelihood(torch.randn(3, 784 * likelihood.width))
    x = p.sample().round().clamp(0, 1)
    expected = p.log_prob(x)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        found = p.log_prob(x.to(dtype))
        assert found.dtype in (torch.float32, torch.float64)
        torch.testing.assert_close(found.float(), expected, rtol=1e-6, atol=0)
