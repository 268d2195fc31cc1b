"""Every smoothing is what Sec. 3 defines: scipy's densities, quadrature and finite differences are the twins."""

import itertools
import math
from collections.abc import Callable

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from registry import (
    SmoothingCase,
    all_states,
    assert_mean,
    every_sharpening,
    every_smoothing,
    exponential,
    logistic,
    neighbours,
    normal,
    written_normal,
)
from scipy import stats
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.gradients import replace_gradient
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.exponential import UniformExponential
from dvaepp.smoothings.power import PowerFunction

LOGITS = torch.tensor([-30.0, -4.0, -0.7, 0.0, 1.3, 5.0, 30.0], dtype=torch.float64)
RHO = torch.tensor([1e-6, 0.01, 0.2, 0.5, 0.77, 0.99, 1 - 1e-6], dtype=torch.float64)
EPS = 2.0**-23


@pytest.fixture(params=every_smoothing.values(), ids=every_smoothing.keys())
def case(request: pytest.FixtureRequest) -> SmoothingCase:
    return request.param


@pytest.fixture(params=every_sharpening.values(), ids=every_sharpening.keys())
def make(request: pytest.FixtureRequest) -> Callable[..., SmoothingCase]:
    return request.param


def grid() -> tuple[Tensor, Tensor]:
    """Every logit with every rho: (rho, logits), both (49,)."""
    rho, logits = torch.meshgrid(RHO, LOGITS, indexing="ij")
    return rho.reshape(-1).clone(), logits.reshape(-1).clone()


def assert_inverse(cdf: Callable[[Tensor], Tensor], zeta: Tensor, rho: Tensor, error: float = 1e-12) -> None:
    """rho lies between the CDF at the floats next to zeta: all that a float can say of an inverse."""
    low, high = neighbours(zeta)
    assert bool((cdf(low) <= rho + error).all())
    assert bool((cdf(high) >= rho - error).all())


# --- the pair of densities ---


def test_the_densities_and_cdfs_are_those_of_the_definition(case: SmoothingCase) -> None:
    zeta, _ = case.quadrature()
    s = case.smoothing
    torch.testing.assert_close(s.log_prob0(zeta).exp(), case.pdf(zeta, 0), rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(s.log_prob1(zeta).exp(), case.pdf(zeta, 1), rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(s.cdf0(zeta), case.cdf(zeta, 0), rtol=0, atol=1e-12)
    torch.testing.assert_close(s.cdf1(zeta), case.cdf(zeta, 1), rtol=0, atol=1e-12)


def test_components_are_inverted_by_their_inverse_cdfs(case: SmoothingCase) -> None:
    s = case.smoothing
    assert_inverse(lambda zeta: case.cdf(zeta, 0), s.icdf0(RHO), RHO)
    assert_inverse(lambda zeta: case.cdf(zeta, 1), s.icdf1(RHO), RHO)


def test_component_moments_are_their_integrals(case: SmoothingCase) -> None:
    s = case.smoothing
    for z, mean, variance in ((0, s.mean0, s.variance0), (1, s.mean1, s.variance1)):
        assert float(mean) == pytest.approx(case.mean(z), abs=1e-9)
        assert float(variance) == pytest.approx(case.variance(z), rel=1e-6)


def test_the_log_ratio_is_the_logarithm_of_the_two_densities(case: SmoothingCase) -> None:
    zeta = torch.linspace(1e-9, 1 - 1e-9, 41, dtype=torch.float64)
    exact = case.pdf(zeta, 1).log() - case.pdf(zeta, 0).log()
    torch.testing.assert_close(case.smoothing.log_ratio(zeta), exact, rtol=1e-9, atol=1e-8)


# --- the mixture ---


def test_the_mixture_integrates_to_one_and_to_its_moments(case: SmoothingCase) -> None:
    zeta, weight = case.quadrature()
    q = case.smoothing(LOGITS)
    density = q.log_prob(zeta[:, None].expand(-1, len(LOGITS))).exp()
    mass = (weight[:, None] * density).sum(0)
    mean = (weight[:, None] * density * zeta[:, None]).sum(0)
    variance = (weight[:, None] * density * (zeta[:, None] - mean) ** 2).sum(0)
    atol = 1e-8 + 3 * case.unplaced
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=0, atol=atol)
    torch.testing.assert_close(q.mean, mean, rtol=0, atol=atol)
    torch.testing.assert_close(q.variance, variance, rtol=1e-6, atol=atol)
    torch.testing.assert_close(q.stddev, q.variance.sqrt())


def test_the_mixture_density_and_cdf_are_those_of_the_definition(case: SmoothingCase) -> None:
    zeta = torch.linspace(0.003, 0.997, 61, dtype=torch.float64)[:, None].expand(-1, len(LOGITS))
    q = case.smoothing(LOGITS)
    torch.testing.assert_close(q.log_prob(zeta).exp(), case.mixture_pdf(LOGITS, zeta), rtol=1e-8, atol=1e-300)
    torch.testing.assert_close(q.cdf(zeta), case.mixture_cdf(LOGITS, zeta), rtol=0, atol=1e-12)


def test_the_slope_of_the_cdf_is_the_density(case: SmoothingCase) -> None:
    zeta = torch.linspace(0.01, 0.99, 41, dtype=torch.float64)[:, None].repeat(1, len(LOGITS)).requires_grad_()
    q = case.smoothing(LOGITS)
    slope = torch.autograd.grad(q.cdf(zeta).sum(), zeta)[0]
    torch.testing.assert_close(slope, q.log_prob(zeta).exp().detach(), rtol=1e-6, atol=1e-10)


def test_the_inverse_cdf_inverts_the_cdf(case: SmoothingCase) -> None:
    rho, logits = grid()
    zeta = case.smoothing(logits).icdf(rho)
    # Backward error: near the middle d zeta / d rho reaches exp(beta / 2) / beta, so zeta itself is not determined.
    assert_inverse(lambda v: case.mixture_cdf(logits, v), zeta, rho)


def test_the_inverse_is_finite_at_the_ends_of_rho(case: SmoothingCase) -> None:
    rho, logits = torch.tensor([0.0, 1.0]), torch.zeros(2, requires_grad=True)
    for dtype in (torch.float32, torch.float64):
        zeta = case.smoothing(logits.to(dtype)).icdf(rho.to(dtype))
        assert bool(zeta.isfinite().all())
        assert bool(torch.autograd.grad(zeta.sum(), logits)[0].isfinite().all())


def test_the_posterior_is_bayes_rule(case: SmoothingCase) -> None:
    zeta = torch.linspace(0.02, 0.98, 33, dtype=torch.float64)[:, None].expand(-1, len(LOGITS))
    odds = torch.sigmoid(LOGITS) * case.pdf(zeta, 1) / (torch.sigmoid(-LOGITS) * case.pdf(zeta, 0))
    posterior = case.smoothing(LOGITS).posterior(zeta)
    torch.testing.assert_close(posterior.logits, odds.log(), rtol=1e-9, atol=1e-8)
    torch.testing.assert_close(posterior.probs, odds / (1 + odds), rtol=1e-8, atol=1e-14)


def test_the_posterior_averages_to_the_bits(case: SmoothingCase) -> None:
    zeta, weight = case.quadrature()
    q = case.smoothing(LOGITS)
    zeta = zeta[:, None].expand(-1, len(LOGITS))
    nu = (weight[:, None] * q.log_prob(zeta).exp() * q.posterior(zeta).probs).sum(0)
    torch.testing.assert_close(nu, q.bits.probs, rtol=0, atol=1e-8 + 3 * case.unplaced)
    torch.testing.assert_close(q.probs, torch.sigmoid(LOGITS), rtol=1e-14, atol=0)


# --- gradients ---


def finite_difference(f, at: Tensor, step: float) -> Tensor:
    """Richardson's central difference: error of order step^4."""
    wide, narrow = ((f(at + h) - f(at - h)) / (2 * h) for h in (step, step / 2))
    return (4 * narrow - wide) / 3


# Of sharper ones the differences carry no digits, and a sample mean misses rare slopes of size exp(beta / 2) / beta.
# Their gradient is compared with the implicit function theorem's below.
not_too_sharp = {name: case for name, case in every_smoothing.items() if case.beta < 15}


@pytest.mark.parametrize("case", not_too_sharp.values(), ids=not_too_sharp.keys())
def test_icdf_gradients_are_finite_differences_of_the_inverse(case: SmoothingCase) -> None:
    rho, logits = (v.reshape(-1) for v in torch.meshgrid(RHO[1:-1], LOGITS[1:-1], indexing="ij"))
    rho, logits = rho.clone().requires_grad_(), logits.clone().requires_grad_()
    by_logits, by_rho = torch.autograd.grad(case.smoothing(logits).icdf(rho).sum(), (logits, rho))
    with torch.no_grad():
        exact = finite_difference(lambda v: case.smoothing(v).icdf(rho), logits, 2e-4)
        torch.testing.assert_close(by_logits, exact, rtol=1e-5, atol=1e-7)
        exact = finite_difference(lambda v: case.smoothing(logits).icdf(v), rho, 1e-5)
        torch.testing.assert_close(by_rho, exact, rtol=1e-4, atol=1e-7)


def implicit_gradient(case: SmoothingCase, logits: Tensor, zeta: Tensor) -> Tensor:
    """d zeta / d logit = -(dF / d logit) / f at fixed rho, F by scipy in float64, where nothing cancels."""
    logits = logits.detach().double()
    slope_of_q = torch.sigmoid(logits) * torch.sigmoid(-logits)
    return slope_of_q * case.cdf_gap(zeta) / case.mixture_pdf(logits, zeta)


def test_rsample_carries_the_gradient_of_the_inverse_cdf_at_the_draw(case: SmoothingCase) -> None:
    logits = LOGITS.clone().requires_grad_()
    zeta = case.smoothing(logits).rsample((400,))
    gradient = torch.autograd.grad(zeta.sum(0), logits, torch.ones_like(LOGITS))[0]
    torch.testing.assert_close(gradient, implicit_gradient(case, LOGITS, zeta.detach()).sum(0), rtol=1e-6, atol=1e-9)


def test_icdf_and_rsample_have_one_gradient(case: SmoothingCase) -> None:
    logits = LOGITS.clone().requires_grad_()
    q = case.smoothing(logits)
    zeta = q.rsample()
    again = q.icdf(q.cdf(zeta.detach()).detach())
    by_sample, by_inverse = (torch.autograd.grad(v.sum(), logits, retain_graph=True)[0] for v in (zeta, again))
    torch.testing.assert_close(by_sample, by_inverse, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("case", not_too_sharp.values(), ids=not_too_sharp.keys())
def test_the_mean_of_zeta_has_the_gradient_of_its_expectation(case: SmoothingCase) -> None:
    logits = torch.tensor([-2.0, 0.0, 1.5], dtype=torch.float64)
    leaf = logits.expand(100_000, 3).clone().requires_grad_()
    pathwise = torch.autograd.grad(case.smoothing(leaf).rsample().sum(), leaf)[0]
    gap = case.mean(1) - case.mean(0)
    assert_mean(pathwise, torch.sigmoid(logits) * torch.sigmoid(-logits) * gap, sigmas=5)


def test_log_prob_differentiates_in_logits_and_zeta(case: SmoothingCase) -> None:
    zeta = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    logits = torch.tensor([-3.0, -1.0, -0.2, 0.3, 0.9, 2.2, 3.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda left, right: case.smoothing(left).log_prob(right), (logits.requires_grad_(), zeta.requires_grad_())
    )


def test_the_sampled_value_is_what_was_drawn_not_a_rounding_of_it() -> None:
    value, surrogate = torch.tensor([0.1, 0.7]), torch.tensor([1.0, 3.0], requires_grad=True)
    replaced = replace_gradient(value, 2 * surrogate)
    torch.testing.assert_close(replaced.detach(), value, rtol=0, atol=0)
    torch.testing.assert_close(torch.autograd.grad(replaced.sum(), surrogate)[0], torch.tensor([2.0, 2.0]))


# --- draws ---


@pytest.mark.parametrize("logit", [-3.0, 0.0, 1.2])
def test_draws_follow_the_cdf(case: SmoothingCase, logit: float) -> None:
    n = 20_000
    logits = torch.tensor(logit)
    zeta = case.smoothing(logits).sample((n,))
    # A draw stands for all numbers that are rounded to it. The largest distance of the empirical CDF, with the tail
    # probability of a five sigma event.
    low, high = (case.mixture_cdf(logits, v) for v in neighbours(zeta))
    assert stats.kstest((low + (high - low) * torch.rand_like(low)).numpy(), "uniform").pvalue > 5.7e-7


def test_draws_of_neighbouring_units_are_independent(case: SmoothingCase) -> None:
    zeta = case.smoothing(torch.zeros(2, dtype=torch.float64)).sample((20_000,))
    centred = zeta - zeta.mean(0)
    assert_mean(centred[:, 0] * centred[:, 1], 0.0)


# --- a torch.distributions.Distribution ---


def test_shapes_follow_torch_distributions(case: SmoothingCase) -> None:
    q = case.smoothing(torch.zeros(3, 2))
    assert (q.batch_shape, q.event_shape, q.has_rsample) == ((3, 2), (), True)
    assert isinstance(q, torch.distributions.Distribution)
    for shape in ((), (5,), (2, 5)):
        zeta = q.rsample(shape)
        assert zeta.shape == q.sample(torch.Size(shape)).shape == (*shape, 3, 2)
        assert q.log_prob(zeta).shape == q.cdf(zeta).shape == q.posterior(zeta).logits.shape == (*shape, 3, 2)
        assert q.icdf(torch.full((*shape, 3, 2), 0.3)).shape == (*shape, 3, 2)
    assert q.mean.shape == q.variance.shape == q.probs.shape == (3, 2)


def test_scalars_and_both_precisions_keep_their_shape_and_dtype(case: SmoothingCase) -> None:
    beta = getattr(case.smoothing, "beta", None)
    for dtype, shape in itertools.product((torch.float32, torch.float64), ((), (2,))):
        if shape == () and isinstance(beta, Tensor) and beta.dtype != dtype:
            continue  # two scalars of different precision: torch promotes to the wider
        q = case.smoothing(torch.zeros(shape, dtype=dtype))
        zeta = q.rsample()
        results = (zeta, q.log_prob(zeta), q.cdf(zeta), q.icdf(zeta.clamp(0, 1)), q.mean, q.variance)
        assert all(v.shape == shape and v.dtype == dtype for v in results)
        assert q.posterior(zeta).logits.dtype == dtype


def test_expand_repeats_the_distribution_and_keeps_validation(case: SmoothingCase) -> None:
    q = case.smoothing(torch.tensor([0.0, 2.0]))
    wide = q.expand(torch.Size((4, 2)))
    assert wide.batch_shape == (4, 2)
    assert wide.rsample((3,)).shape == (3, 4, 2)
    zeta = torch.tensor([0.2, 0.9])
    torch.testing.assert_close(wide.log_prob(zeta), q.log_prob(zeta).expand(4, 2))
    with pytest.raises(ValueError, match="support"):
        wide.log_prob(torch.full((4, 2), torch.nan))


def test_support_is_that_of_the_densities_and_holds_every_draw(case: SmoothingCase) -> None:
    q = case.smoothing(torch.tensor([-20.0, 0.0, 20.0]))
    assert bool(q.support.check(q.sample((1000,))).all())
    low, high = case.density0.support()
    assert bool(q.support.check(torch.tensor(1.5))) == (high > 1)
    assert bool(q.support.check(torch.tensor(-0.5))) == (low < 0)


def test_validation_refuses_values_off_the_support_and_nan_logits(case: SmoothingCase) -> None:
    with pytest.raises(ValueError, match="logits"):
        case.smoothing(torch.tensor([0.0, torch.nan]), validate_args=True)
    q = case.smoothing(torch.zeros(2), validate_args=True)
    with pytest.raises(ValueError, match="support"):
        q.log_prob(torch.tensor([torch.nan, 0.5]))
    with pytest.raises(ValueError, match="rho"):
        q.icdf(torch.tensor([1.1, 0.5]))
    assert case.smoothing(torch.zeros(2), validate_args=False).log_prob(torch.tensor([torch.nan, 0.5])).isnan()[0]


def test_integer_logits_are_refused(case: SmoothingCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no shape checks
    with pytest.raises(InputError, match="floating"):
        case.smoothing(torch.tensor([0, 1]))
    with pytest.raises(InputError, match="floating"):
        hard(torch.tensor([0, 1]))


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan, math.inf, torch.ones(2), torch.tensor(5.0, requires_grad=True)])
def test_a_beta_that_is_no_inverse_temperature_is_refused(make, beta: float | Tensor) -> None:
    with pytest.raises(InputError, match="beta"):
        type(make(5.0).smoothing)(beta)


def test_power_functions_need_a_beta_above_one_and_a_floor_is_a_share() -> None:
    with pytest.raises(InputError, match="beta must be a finite number above 1"):
        PowerFunction(1.0)
    for epsilon in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(InputError, match="epsilon"):
            UniformExponential(5.0, epsilon)


def test_beta_as_a_tensor_is_the_number(make) -> None:
    logits, zeta = torch.tensor([-1.0, 0.5]), torch.tensor([0.3, 0.6])
    for beta in (torch.tensor(7.0), torch.tensor(7.0, dtype=torch.float64)):
        number, tensor = make(7.0).smoothing(logits), make(beta).smoothing(logits)
        for got, expected in (
            (tensor.log_prob(zeta), number.log_prob(zeta)),
            (tensor.icdf(zeta), number.icdf(zeta)),
            (tensor.mean, number.mean),
            (tensor.variance, number.variance),
        ):
            assert got.dtype == torch.float32
            torch.testing.assert_close(got, expected)


def test_a_schedule_may_change_beta_in_place(make) -> None:
    beta = torch.tensor(5.0)
    smoothing = make(beta).smoothing
    beta.fill_(9.0)
    zeta, logits = torch.tensor([0.3, 0.6]), torch.tensor([-1.0, 0.5])
    torch.testing.assert_close(smoothing(logits).log_prob(zeta), make(9.0).smoothing(logits).log_prob(zeta))


# --- the binary limit ---


@pytest.mark.parametrize("make", [make for name, make in every_sharpening.items() if name != "floored"])
def test_large_beta_tends_to_hard(make) -> None:
    q, exact = make(1000.0).smoothing(LOGITS), hard(LOGITS)
    for zeta in (0.025, 0.975):
        at = torch.full_like(LOGITS, zeta)
        torch.testing.assert_close(q.cdf(at), exact.cdf(at), rtol=0, atol=4e-3)
    torch.testing.assert_close(q.mean, exact.mean, rtol=0, atol=2e-3)
    torch.testing.assert_close(q.variance, exact.variance, rtol=0, atol=2e-3)


@pytest.mark.parametrize("make", [exponential, logistic, normal])
def test_large_beta_tells_the_bit_and_its_inverse_is_that_of_hard(make) -> None:
    rho, logits = grid()
    clear = (rho - torch.sigmoid(-logits)).abs() > 1e-9
    error = make(1000.0).smoothing(logits).icdf(rho) - hard(logits).icdf(rho)
    assert float(error[clear].abs().max()) < 0.025
    nearly, zero = torch.tensor([0.01, 0.99], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    nu, exact = (s(zero).posterior(v).probs for s, v in ((make(1000.0).smoothing, nearly), (hard, nearly.round())))
    torch.testing.assert_close(nu, exact, rtol=0, atol=1e-6)


def test_a_smoothing_with_another_beta_is_otherwise_the_same(make) -> None:
    assert make(5.0).smoothing.with_beta(9.0) == make(9.0).smoothing
    beta = torch.tensor(9.0)
    assert make(5.0).smoothing.with_beta(beta).beta is beta
    with pytest.raises(InputError, match="beta"):
        make(5.0).smoothing.with_beta(-1.0)


def test_sharpening_keeps_what_is_not_beta() -> None:
    assert UniformExponential(5.0, 0.3).with_beta(7.0) == UniformExponential(7.0, 0.3)


def test_what_has_no_inverse_temperature_takes_no_beta() -> None:
    for smoothing in (hard, written_normal().smoothing):
        with pytest.raises(InputError, match="no inverse temperature"):
            smoothing.with_beta(3.0)


def test_overlapping_smoothings_say_what_they_are(case: SmoothingCase) -> None:
    s = case.smoothing
    assert (s.binary, s.has_atom, s.shared_conditional) == (False, False, True)


def test_hard_is_the_bits_themselves() -> None:
    q = hard(LOGITS.float())
    z = q.sample((40_000,))
    assert set(z.unique().tolist()) == {0.0, 1.0}
    assert_mean(z[:, 1:-1].double(), torch.sigmoid(LOGITS)[1:-1])
    assert not q.has_rsample
    assert not z.requires_grad
    assert bool(q.support.check(z).all())
    with pytest.raises(NotImplementedError):
        q.rsample()


def test_hard_has_the_probabilities_and_moments_of_a_bernoulli() -> None:
    q = hard(LOGITS)
    p1, p0 = q.log_prob(torch.ones(7).double()).exp(), q.log_prob(torch.zeros(7).double()).exp()
    torch.testing.assert_close(p0 + p1, torch.ones(7).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close((p1 / p0).log(), LOGITS, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(q.mean, p1, rtol=0, atol=1e-12)
    torch.testing.assert_close(q.variance, p1 * p0, rtol=0, atol=1e-8)


def test_hard_cdf_and_inverse() -> None:
    q = hard(torch.tensor([-1.0, 1.0]).double())
    p0 = torch.sigmoid(torch.tensor([1.0, -1.0]).double())
    for zeta, exact in ((-0.1, 0 * p0), (0.0, p0), (0.7, p0), (1.0, 1 + 0 * p0), (3.0, 1 + 0 * p0)):
        torch.testing.assert_close(q.cdf(torch.full((2,), zeta).double()), exact)
    assert q.icdf(p0 - 1e-9).tolist() == [0.0, 0.0]
    assert q.icdf(p0 + 1e-9).tolist() == [1.0, 1.0]


def test_hard_posterior_knows_the_bit() -> None:
    z = all_states(2)
    posterior = hard(torch.tensor([0.3, -5.0]).double()).posterior(z)
    torch.testing.assert_close(posterior.probs, z, rtol=0, atol=0)


def test_hard_as_a_distribution() -> None:
    q = hard(torch.zeros(3, 2)).expand(torch.Size((4, 3, 2)))
    assert q.batch_shape == (4, 3, 2)
    assert q.sample((5,)).shape == (5, 4, 3, 2)
    with pytest.raises(ValueError, match="support"):
        hard(torch.zeros(2), validate_args=True).log_prob(torch.tensor([0.5, 1.0]))
    with pytest.raises(ValueError, match="support"):
        hard(torch.zeros(2), validate_args=True).expand(torch.Size((3, 2))).log_prob(torch.full((3, 2), 0.5))


# --- float32 ---

any_logit = st.floats(-60, 60, width=32)
any_beta = st.floats(1.0625, 40, width=32)
any_rho = st.integers(1, 2**24 - 1).map(lambda k: k * 2.0**-24)
any_make = st.sampled_from([*every_sharpening.values()])
float32_search = settings(max_examples=400, deadline=None, derandomize=True, database=None)


def ulp(value: Tensor) -> Tensor:
    """Spacing of float32 numbers at a float32 value."""
    return torch.from_numpy(np.spacing(value.abs().numpy())).double()


@float32_search
@given(make=any_make, logit=any_logit, beta=any_beta, rho=any_rho)
def test_float32_icdf_is_finite_and_backward_stable(make, logit: float, beta: float, rho: float) -> None:
    case = make(beta)
    logits, uniform = torch.tensor([logit], dtype=torch.float32), torch.tensor([rho], dtype=torch.float32)
    zeta = case.smoothing(logits).icdf(uniform)
    assert bool(zeta.isfinite().all())
    # zeta is rounded to float32, and so is the distance 1 - zeta of a logistic draw; each moves F by density * ulp.
    # The rest, in terms of order one that meet in B, is a few roundings of rho and q: 4 ulp of 1.
    room = 2 * (ulp(zeta) + (EPS if zeta.abs() > 0.5 else 0.0))
    low = torch.where(zeta == torch.finfo(torch.float32).tiny, 0.0, zeta.double() - room)
    assert float(case.mixture_cdf(logits, low)) <= rho + 4 * EPS
    assert float(case.mixture_cdf(logits, zeta.double() + room)) >= rho - 4 * EPS


@float32_search
@given(make=any_make, logit=any_logit, beta=any_beta, rho=any_rho)
def test_float32_densities_and_gradients_agree_with_float64_at_the_same_zeta(make, logit, beta, rho) -> None:
    case = make(beta)
    narrow = torch.tensor([logit], dtype=torch.float32, requires_grad=True)
    wide = torch.tensor([logit], dtype=torch.float64, requires_grad=True)
    q32, q64 = case.smoothing(narrow), case.smoothing(wide)
    zeta = q32.icdf(torch.tensor([rho], dtype=torch.float32))
    assert_close_to_float64(case, zeta, torch.autograd.grad(zeta.sum(), narrow)[0], logit)
    zeta = zeta.detach()
    at = zeta.clone().requires_grad_()
    at64 = zeta.double().requires_grad_()
    # log_prob sums terms as large as the logit and the two log densities: some of their ulps is what float32 can give.
    logs = [getattr(case.smoothing, name)(at64) for name in ("log_prob0", "log_prob1")]
    scale = EPS * (abs(logit) + sum(float(v.detach().abs()) for v in logs) + beta + 5)
    steepest = sum(float(torch.autograd.grad(v, at64)[0].abs()) for v in logs)
    log32, log64 = q32.log_prob(at), q64.log_prob(at64)
    assert float((log32 - log64).abs().detach()) <= 4 * scale
    nu32, nu64 = q32.posterior(at), q64.posterior(at64)
    assert float((nu32.logits - nu64.logits).abs().detach()) <= 4 * scale
    assert float((nu32.probs - nu64.probs).abs().detach()) <= 4 * scale
    slopes32, slopes64 = torch.autograd.grad(log32, (narrow, at)), torch.autograd.grad(log64, (wide, at64))
    assert abs(float(slopes32[0]) - float(slopes64[0])) <= 4 * scale
    assert abs(float(slopes32[1]) - float(slopes64[1])) <= 8 * scale * steepest + 1e-6


def assert_close_to_float64(case: SmoothingCase, zeta: Tensor, gradient: Tensor, logit: float) -> None:
    exact = implicit_gradient(case, torch.tensor([logit]), zeta.detach())
    assert bool(gradient.isfinite().all())
    # log f carries the rounding of terms up to |logit| + 3 beta: a relative error of 1e-4 of the gradient at most.
    torch.testing.assert_close(gradient.double(), exact, rtol=3e-4, atol=1e-6)


@pytest.mark.parametrize("beta", [1.1, 8.0, 18.0, 40.0])
def test_float32_draws_are_finite_with_finite_gradients_and_downstream_terms(make, beta: float) -> None:
    logits = torch.empty(200_000).uniform_(-60, 60).requires_grad_()
    q = make(beta).smoothing(logits)
    zeta = q.rsample()
    terms = (zeta, q.log_prob(zeta), q.posterior(zeta).logits)
    for term in terms:
        assert bool(term.isfinite().all())
        assert bool(torch.autograd.grad(term.sum(), logits, retain_graph=True)[0].isfinite().all())


@pytest.mark.parametrize("beta", [1.1, 8.0, 40.0])
def test_float32_draws_carry_the_exact_gradient_of_where_they_fell(make, beta: float) -> None:
    logits = torch.empty(100_000).uniform_(-12, 12).requires_grad_()
    case = make(beta)
    zeta = case.smoothing(logits).rsample()
    gradient = torch.autograd.grad(zeta.sum(), logits)[0]
    exact = implicit_gradient(case, logits, zeta.detach())
    torch.testing.assert_close(gradient.double(), exact, rtol=3e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [1.1, 8.0, 40.0])
def test_power_functions_are_finite_at_the_ends_and_saturate_there(dtype: torch.dtype, beta: float) -> None:
    zeta = torch.tensor([0.0, 1.0], dtype=dtype, requires_grad=True)
    q, info = PowerFunction(beta)(torch.zeros(2, dtype=dtype)), torch.finfo(dtype)
    for term in (q.log_prob(zeta), q.posterior(zeta).logits):
        assert bool(term.isfinite().all())
        assert bool(torch.autograd.grad(term.sum(), zeta, retain_graph=True)[0].isfinite().all())
    ends = torch.tensor([math.log(info.tiny), -math.log(info.eps / 2)], dtype=dtype)
    torch.testing.assert_close(q.posterior(zeta.detach()).logits, (1 - 1 / beta) * ends)
    draws = q.icdf(torch.tensor([0.0, 1.0], dtype=dtype))
    assert draws.tolist() == [info.tiny, 1 - info.eps / 2]


def test_normal_tails_do_not_cancel() -> None:
    case = normal(5.0)
    zeta = torch.tensor([-1.5, -0.7, 0.2, 1.6, 2.4], dtype=torch.float64)
    torch.testing.assert_close(case.smoothing.cdf0(zeta), case.cdf(zeta, 0), rtol=1e-12, atol=0)
    torch.testing.assert_close(case.smoothing.cdf1(zeta), case.cdf(zeta, 1), rtol=1e-12, atol=0)
    torch.testing.assert_close(case.smoothing.cdf_gap(zeta), case.cdf_gap(zeta), rtol=1e-11, atol=0)


# --- composition with torch ---


def test_draws_compose_with_torch_func(make) -> None:
    smoothing, logits = make(6.0).smoothing, torch.tensor([-1.0, 0.4, 2.0])
    rho = torch.tensor([0.3, 0.5, 0.9])

    def total(values: Tensor) -> Tensor:
        return smoothing(values, validate_args=False).icdf(rho).sum()

    leaf = logits.clone().requires_grad_()
    expected = torch.autograd.grad(total(leaf), leaf)[0]
    torch.testing.assert_close(torch.func.grad(total)(logits), expected)
    both = torch.stack([logits, logits + 1])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(total))(both)[0], expected)
