"""Smoothings whose zeta is z itself: right bits, and the gradient that their definition puts in place of none."""

import math

import numpy as np
import pytest
import torch
from registry import DeterministicCase, assert_mean, every_deterministic, gauss_legendre
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.smoothings.binary import ReinMax, StraightThrough, StraightThroughGumbel, hard
from dvaepp.smoothings.concrete import Concrete

LOGITS = torch.tensor([-4.0, -0.7, 0.0, 1.3, 5.0], dtype=torch.float64)
with_gradient = {name: case for name, case in every_deterministic.items() if case.slope is not None}


@pytest.fixture(params=every_deterministic.values(), ids=every_deterministic.keys())
def case(request: pytest.FixtureRequest) -> DeterministicCase:
    return request.param


@pytest.fixture(params=with_gradient.values(), ids=with_gradient.keys())
def soft(request: pytest.FixtureRequest) -> DeterministicCase:
    return request.param


def test_draws_are_bits_of_the_right_probability(case: DeterministicCase) -> None:
    q = case.smoothing(LOGITS)
    for z in (q.sample((40_000,)), q.relaxed_sample() if q.has_rsample is False else q.rsample((40_000,))):
        assert set(z.unique().tolist()) <= {0.0, 1.0}
        if z.ndim == 2:
            assert_mean(z, torch.sigmoid(LOGITS))
    assert not q.sample().requires_grad


def test_probabilities_moments_and_cdf_are_a_bernoulli_s(case: DeterministicCase) -> None:
    q, exact = case.smoothing(LOGITS), torch.sigmoid(LOGITS)
    zero, one = torch.zeros_like(LOGITS), torch.ones_like(LOGITS)
    torch.testing.assert_close(q.log_prob(one).exp(), exact)
    torch.testing.assert_close(q.log_prob(zero).exp(), 1 - exact)
    torch.testing.assert_close(q.mean, exact)
    torch.testing.assert_close(q.variance, exact * (1 - exact))
    torch.testing.assert_close(q.cdf(zero), 1 - exact)
    assert q.icdf(1 - exact - 1e-9).eq(0).all()
    assert q.icdf(1 - exact + 1e-9).eq(1).all()


def test_the_posterior_is_the_bit_and_passes_its_gradient_on(case: DeterministicCase) -> None:
    zeta = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    nu = case.smoothing(LOGITS).posterior(zeta).probs
    torch.testing.assert_close(nu, zeta, rtol=0, atol=0)
    weight = torch.arange(5.0).double()
    torch.testing.assert_close(torch.autograd.grad((weight * nu).sum(), zeta)[0], weight)


def test_bits_say_what_they_are(case: DeterministicCase) -> None:
    s = case.smoothing
    assert (s.binary, s.has_atom, s.shared_conditional) == (True, False, True)
    assert s(LOGITS).has_rsample == (case.slope is not None)


def gradients(case: DeterministicCase, draws: int) -> tuple[Tensor, Tensor]:
    """Bits and the gradients that they carry, (draws, logits) each."""
    leaf = LOGITS.expand(draws, -1).clone().requires_grad_()
    z = case.smoothing(leaf).rsample()
    return z.detach(), torch.autograd.grad(z.sum(), leaf)[0]


def test_the_gradient_has_the_moments_of_its_definition_jointly_with_the_bit(soft: DeterministicCase) -> None:
    z, gradient = gradients(soft, 100_000)
    noise, weight = (v.numpy() for v in gauss_legendre(-45.0, 45.0, pieces=400))
    density = np.exp(-np.abs(noise)) / (1 + np.exp(-np.abs(noise))) ** 2
    for power, bit in ((1, 0), (1, 1), (2, 1)):
        exact = []
        for logit in LOGITS.tolist():
            kept = (logit + noise > 0) ** bit
            exact.append((weight * density * kept * soft.slope(logit, noise) ** power).sum())
        # the indicator's jump lies inside a piece of the quadrature: an error of 1e-4 at most, as of one node
        sample = gradient**power * z**bit
        assert_mean(sample, torch.tensor(exact), sigmas=5.5)


def test_the_straight_through_gradient_is_that_of_the_probability() -> None:
    z, gradient = gradients(with_gradient["straight-through"], 10)
    q = torch.sigmoid(LOGITS)
    torch.testing.assert_close(gradient, (q * (1 - q)).expand(10, -1))
    assert set(z.unique().tolist()) == {0.0, 1.0}


def test_the_gumbel_surrogate_is_concrete_s_zeta_on_the_bit_s_side() -> None:
    rho = torch.rand(1000, 5, dtype=torch.float64)
    for temperature in (0.2, 1.0):
        s = StraightThroughGumbel(temperature).surrogate(LOGITS, 1 - rho)
        torch.testing.assert_close(s, Concrete(temperature)(LOGITS).icdf(rho))
        assert bool(((s > 0.5) == (1 - rho < torch.sigmoid(LOGITS))).all())


def test_float32_gradients_are_finite_at_extreme_logits_and_temperatures(soft: DeterministicCase) -> None:
    for smoothing in (soft.smoothing, StraightThroughGumbel(1 / 40)):
        logits = torch.empty(100_000).uniform_(-60, 60).requires_grad_()
        z = smoothing(logits).rsample()
        assert set(z.unique().tolist()) == {0.0, 1.0}
        assert bool(torch.autograd.grad(z.sum(), logits)[0].isfinite().all())


def test_a_uniform_number_of_zero_gives_a_finite_gradient() -> None:
    logits = torch.zeros(2, requires_grad=True)
    s = StraightThroughGumbel(0.1).surrogate(logits, torch.tensor([0.0, 1 - 2.0**-24]))
    assert bool(s.isfinite().all())
    assert bool(torch.autograd.grad(s.sum(), logits)[0].isfinite().all())


def test_shapes_expand_and_validation(case: DeterministicCase) -> None:
    q = case.smoothing(torch.zeros(3, 2), validate_args=True)
    wide = q.expand(torch.Size((4, 3, 2)))
    assert (wide.batch_shape, wide.has_rsample) == ((4, 3, 2), q.has_rsample)
    for shape in ((), (5,)):
        z = wide.rsample(shape) if wide.has_rsample else wide.sample(shape)
        assert z.shape == wide.log_prob(z).shape == wide.posterior(z).probs.shape == (*shape, 4, 3, 2)
        assert z.dtype == torch.float32
        assert bool(wide.support.check(z).all())
    for distribution in (q, wide):
        with pytest.raises(ValueError, match="support"):
            distribution.log_prob(torch.full((3, 2), 0.5))


def test_reinmax_at_temperature_1_has_no_bias_where_f_is_quadratic() -> None:
    rho = torch.arange(0.5, 100_000, dtype=torch.float64)[:, None] / 100_000  # its mean is an integral, to 1e-5
    for f in (lambda z: 3 * z, lambda z: (z - 0.3) ** 2):
        logits = LOGITS.expand(len(rho), -1).clone().requires_grad_()
        z = ReinMax()(logits).rsample(noise=torch.stack([rho.expand(-1, 5)] * 2))
        gradient = torch.autograd.grad(f(z).sum(), logits)[0].mean(0)
        leaf = LOGITS.clone().requires_grad_()
        q = torch.sigmoid(leaf)
        exact = torch.autograd.grad((q * f(torch.tensor(1.0)) + (1 - q) * f(torch.tensor(0.0))).sum(), leaf)[0]
        torch.testing.assert_close(gradient, exact, rtol=0, atol=1e-4)


def test_draws_of_expanded_logits_carry_the_summed_gradient(soft: DeterministicCase) -> None:
    logits = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    z = soft.smoothing(logits).expand(torch.Size((3, 2))).rsample((4,))
    assert torch.autograd.grad(z.sum(), logits)[0].gt(0).all()


def test_sharpening_sets_the_temperature_where_there_is_one() -> None:
    assert StraightThroughGumbel(1.0).with_beta(4.0) == StraightThroughGumbel(0.25)
    for smoothing in (hard, StraightThrough(), ReinMax()):
        with pytest.raises(InputError, match="no inverse temperature"):
            smoothing.with_beta(4.0)
    with pytest.raises(InputError, match="beta"):
        StraightThroughGumbel(1.0).with_beta(0.0)


def test_temperatures_that_are_none_are_refused() -> None:
    for temperature in (0.0, -1.0, math.nan, math.inf, torch.ones(2)):
        for smoothing in (StraightThroughGumbel, ReinMax):
            with pytest.raises(InputError, match="temperature"):
                smoothing(temperature)
