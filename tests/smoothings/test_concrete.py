"""The binary Concrete law is the sigmoid of a logistic number: scipy, quadrature, finite differences are the twins."""

import itertools
import math

import jaxtyping
import pytest
import torch
from registry import assert_mean, every_concrete, neighbours
from scipy import integrate, special, stats
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.concrete import Concrete

LOGITS = torch.tensor([-30.0, -4.0, -0.7, 0.0, 1.3, 5.0, 30.0], dtype=torch.float64)
RHO = torch.tensor([1e-6, 0.01, 0.2, 0.5, 0.77, 0.99, 1 - 1e-6], dtype=torch.float64)
ZETA = torch.linspace(0.003, 0.997, 41, dtype=torch.float64)[:, None].expand(-1, 7)


@pytest.fixture(params=every_concrete.values(), ids=every_concrete.keys())
def smoothing(request: pytest.FixtureRequest) -> Concrete:
    return request.param


def law(smoothing: Concrete, logits: Tensor) -> stats.rv_continuous:
    """The law of logit(zeta)."""
    t = float(smoothing.temperature)
    return stats.logistic(loc=logits.detach().numpy() / t, scale=1 / t)


def expectation(smoothing: Concrete, logit: float, f) -> float:
    """E[f(zeta)], adaptive quadrature over the logistic noise, which is cut where the sigmoid turns."""
    t = float(smoothing.temperature)

    def integrand(noise: float) -> float:
        return stats.logistic.pdf(noise) * f(special.expit((logit + noise) / t))

    cuts = sorted({-40.0, 40.0, *(min(40.0, max(-40.0, -logit + k * t)) for k in (-8, 0, 8))})
    return sum(integrate.quad(integrand, a, b, epsabs=1e-13, epsrel=1e-11)[0] for a, b in itertools.pairwise(cuts))


def test_density_and_cdf_are_those_of_the_definition(smoothing: Concrete) -> None:
    q, exact = smoothing(LOGITS), law(smoothing, LOGITS)
    at = special.logit(ZETA.numpy())
    log_density = torch.from_numpy(exact.logpdf(at)) - ZETA.log() - torch.log1p(-ZETA)
    torch.testing.assert_close(q.log_prob(ZETA), log_density, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(q.cdf(ZETA), torch.from_numpy(exact.cdf(at)), rtol=1e-9, atol=1e-300)
    assert q.cdf(torch.zeros(7).double()).tolist() == [0.0] * 7
    assert q.cdf(torch.ones(7).double()).tolist() == [1.0] * 7


def test_the_slope_of_the_cdf_is_the_density(smoothing: Concrete) -> None:
    zeta = ZETA.clone().requires_grad_()
    q = smoothing(LOGITS)
    slope = torch.autograd.grad(q.cdf(zeta).sum(), zeta)[0]
    torch.testing.assert_close(slope, q.log_prob(zeta).exp().detach(), rtol=1e-8, atol=1e-12)


def test_the_inverse_is_that_of_the_definition(smoothing: Concrete) -> None:
    for rho in RHO:
        zeta = smoothing(LOGITS).icdf(rho.expand(7))
        exact = torch.from_numpy(special.expit(law(smoothing, LOGITS).ppf(float(rho))))
        torch.testing.assert_close(zeta, exact.clamp(2.0**-511, 1 - 2.0**-53), rtol=1e-10, atol=1e-150)


def test_moments_are_their_integrals(smoothing: Concrete) -> None:
    logits = torch.tensor([-9.0, -2.0, 0.0, 0.7, 4.0], dtype=torch.float64)
    q = smoothing(logits)
    first = torch.tensor([expectation(smoothing, v, lambda s: s) for v in logits.tolist()], dtype=torch.float64)
    second = torch.tensor([expectation(smoothing, v, lambda s: s * s) for v in logits.tolist()], dtype=torch.float64)
    torch.testing.assert_close(q.mean, first, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(q.variance, second - first**2, rtol=1e-7, atol=1e-11)
    assert smoothing(logits.float()).variance.dtype == torch.float32


def test_zeta_tells_the_bit_which_has_its_probability(smoothing: Concrete) -> None:
    q = smoothing(LOGITS[1:-1])
    zeta = q.sample((40_000,))
    z = q.posterior(zeta).probs
    assert z.eq(zeta > 0.5).all()
    assert_mean(z, torch.sigmoid(LOGITS[1:-1]))
    half = torch.full_like(LOGITS, 0.5)
    torch.testing.assert_close(smoothing(LOGITS).cdf(half), torch.sigmoid(-LOGITS))
    leaf = LOGITS.clone().requires_grad_()
    assert not smoothing(leaf).posterior(smoothing(leaf).rsample()).probs.requires_grad


def test_concrete_says_what_it_is(smoothing: Concrete) -> None:
    assert (smoothing.binary, smoothing.has_atom, smoothing.shared_conditional) == (False, False, False)


@pytest.mark.parametrize("logit", [-3.0, 0.0, 1.2])
def test_draws_follow_the_cdf(smoothing: Concrete, logit: float) -> None:
    zeta = smoothing(torch.tensor(logit).double()).sample((20_000,))
    # A draw stands for all numbers that are rounded to it.
    low, high = (law(smoothing, torch.tensor(logit)).cdf(special.logit(v.numpy())) for v in neighbours(zeta))
    assert stats.kstest(low + (high - low) * torch.rand(20_000).numpy(), "uniform").pvalue > 5.7e-7


def test_gradients_are_those_of_the_inverse(smoothing: Concrete) -> None:
    rho, logits = (v.reshape(-1).clone() for v in torch.meshgrid(RHO[1:-1], LOGITS[2:-2], indexing="ij"))
    rho.requires_grad_()
    logits.requires_grad_()
    by_logits, by_rho = torch.autograd.grad(smoothing(logits).icdf(rho).sum(), (logits, rho))
    with torch.no_grad():
        h = 1e-6
        exact = (smoothing(logits + h).icdf(rho) - smoothing(logits - h).icdf(rho)) / (2 * h)
        torch.testing.assert_close(by_logits, exact, rtol=1e-6, atol=1e-9)
        exact = (smoothing(logits).icdf(rho + h) - smoothing(logits).icdf(rho - h)) / (2 * h)
        torch.testing.assert_close(by_rho, exact, rtol=1e-5, atol=1e-8)


def test_draws_carry_the_gradient_of_their_noise(smoothing: Concrete) -> None:
    logits = torch.zeros(1000, 3, dtype=torch.float64, requires_grad=True)
    zeta = smoothing(logits).rsample()
    gradient = torch.autograd.grad(zeta.sum(), logits)[0]
    value = zeta.detach()
    inside = (value < 1 - 1e-14) & (value > 1e-140)
    exact = value * (1 - value) / float(smoothing.temperature)
    torch.testing.assert_close(gradient[inside], exact[inside], rtol=1e-9, atol=1e-15)
    mean = expectation(smoothing, 1e-4, lambda s: s) - expectation(smoothing, -1e-4, lambda s: s)
    assert_mean(gradient.reshape(-1), mean / 2e-4)


def test_log_prob_differentiates_in_logits_and_zeta(smoothing: Concrete) -> None:
    zeta = torch.linspace(0.05, 0.95, 7, dtype=torch.float64, requires_grad=True)
    logits = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda left, right: smoothing(left).log_prob(right), (logits, zeta))


@pytest.mark.parametrize("temperature", [1 / 40, 0.1, 2 / 3, 5.0, 100.0])
def test_float32_draws_never_reach_the_ends_and_all_is_finite(temperature: float) -> None:
    logits = torch.empty(200_000).uniform_(-60, 60).requires_grad_()
    q = Concrete(temperature)(logits)
    zeta = q.rsample()
    assert bool(((zeta > 0) & (zeta < 1)).all())
    for term in (zeta, q.log_prob(zeta), q.cdf(zeta)):
        assert bool(term.isfinite().all())
        assert bool(torch.autograd.grad(term.sum(), logits, retain_graph=True)[0].isfinite().all())
    ends = torch.tensor([0.0, torch.finfo(torch.float32).tiny, 1.0], requires_grad=True)
    log_density = Concrete(temperature)(torch.zeros(3)).log_prob(ends)
    assert bool(log_density.isfinite().all())
    assert bool(torch.autograd.grad(log_density.sum(), ends)[0].isfinite().all())
    rho = torch.tensor([0.0, 1.0], requires_grad=True)
    zeta = Concrete(temperature)(torch.zeros(2)).icdf(rho)
    assert bool(((zeta > 0) & (zeta < 1)).all())
    assert bool(torch.autograd.grad(zeta.sum(), rho)[0].isfinite().all())


def test_float32_density_is_that_of_float64_at_the_same_zeta() -> None:
    logits = torch.empty(50_000).uniform_(-20, 20)
    for temperature in (0.1, 2 / 3):
        zeta = Concrete(temperature)(logits).sample()
        narrow, wide = (
            Concrete(temperature)(v).log_prob(w) for v, w in ((logits, zeta), (logits.double(), zeta.double()))
        )
        torch.testing.assert_close(narrow.double(), wide, rtol=1e-6, atol=2e-5)


def test_shapes_expand_and_validation(smoothing: Concrete, monkeypatch: pytest.MonkeyPatch) -> None:
    q = smoothing(torch.zeros(3, 2), validate_args=True)
    wide = q.expand(torch.Size((4, 3, 2)))
    for shape in ((), (5,)):
        zeta = wide.rsample(shape)
        results = (zeta, wide.log_prob(zeta), wide.cdf(zeta), wide.icdf(zeta), wide.posterior(zeta).probs)
        assert all(v.shape == (*shape, 4, 3, 2) and v.dtype == torch.float32 for v in results)
    assert (wide.mean.shape, wide.variance.shape, wide.has_rsample) == ((4, 3, 2), (4, 3, 2), True)
    with pytest.raises(ValueError, match="support"):
        wide.log_prob(torch.full((3, 2), 1.5))
    with pytest.raises(InputError, match="rho"):
        q.icdf(torch.full((3, 2), 1.1))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match="floating"):
        smoothing(torch.tensor([0, 1]))


def test_sharpening_sets_the_temperature_and_tends_to_hard() -> None:
    assert Concrete(1.0).with_beta(4.0) == Concrete(0.25)
    q, exact = Concrete(1.0).with_beta(1000.0)(LOGITS), hard(LOGITS)
    for zeta in (0.025, 0.975):
        at = torch.full_like(LOGITS, zeta)
        torch.testing.assert_close(q.cdf(at), exact.cdf(at), rtol=0, atol=2e-3)
    torch.testing.assert_close(q.mean, exact.mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(q.variance, exact.variance, rtol=0, atol=2e-3)
    with pytest.raises(InputError, match="beta"):
        Concrete(1.0).with_beta(-2.0)


def test_temperatures_that_are_none_are_refused() -> None:
    for temperature in (0.0, -1.0, math.nan, math.inf, torch.ones(2)):
        with pytest.raises(InputError, match="temperature"):
            Concrete(temperature)
