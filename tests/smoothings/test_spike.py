"""Smoothings with an atom at 0 are what Rolfe defines: scipy's law, quadrature, finite differences are the twins."""

import math

import jaxtyping
import pytest
import torch
from registry import SpikeCase, assert_mean, every_spike, spike_exponential, spike_gaussian
from scipy import stats
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.spike import SpikeExponential, SpikeGaussian

LOGITS = torch.tensor([-30.0, -4.0, -0.7, 0.0, 1.3, 5.0, 30.0], dtype=torch.float64)
RHO = torch.tensor([1e-6, 0.01, 0.2, 0.45, 0.77, 0.99, 1 - 1e-6], dtype=torch.float64)
Q, P = torch.sigmoid(LOGITS), torch.sigmoid(-LOGITS)


@pytest.fixture(params=every_spike.values(), ids=every_spike.keys())
def case(request: pytest.FixtureRequest) -> SpikeCase:
    return request.param


gentle = pytest.mark.parametrize(
    "case",
    [every_spike[k] for k in ("exponential-1", "exponential-5", "gaussian-1", "gaussian-3", "gaussian-3-at-half")],
)


def interior(case: SpikeCase, count: int = 41) -> Tensor:
    """Points off the atom where the density is not lost in float64."""
    low, high = case.law.support()
    mean, sd = float(case.law.mean()), float(case.law.var()) ** 0.5
    zeta = torch.linspace(max(low, mean - 6 * sd) + 1e-3, min(high, mean + 6 * sd) - 1e-3, count, dtype=torch.float64)
    return zeta[zeta.abs() > 1e-4]


def of_law(case: SpikeCase, name: str, zeta: Tensor) -> Tensor:
    return torch.as_tensor(getattr(case.law, name)(zeta.detach().double().numpy()))


def cdf(case: SpikeCase, logits: Tensor, zeta: Tensor) -> Tensor:
    """(1 - q) 1[zeta >= 0] + q R(zeta | 1)."""
    return torch.sigmoid(-logits) * (zeta >= 0) + torch.sigmoid(logits) * of_law(case, "cdf", zeta)


def exact_slope(case: SpikeCase, logits: Tensor, zeta: Tensor) -> Tensor:
    """d zeta / d logit at fixed rho: 0 at the atom, else q (1 - q) (R0 - R1) / (q r1), R0 = 1[zeta >= 0]."""
    gap = torch.where(zeta < 0, -of_law(case, "cdf", zeta), of_law(case, "sf", zeta))
    return torch.where(zeta == 0, 0.0, torch.sigmoid(-logits.double()) * gap / of_law(case, "pdf", zeta))


# --- the density for z = 1 ---


def test_the_density_cdf_and_moments_are_those_of_the_definition(case: SpikeCase) -> None:
    zeta, s = interior(case), case.smoothing
    torch.testing.assert_close(s.log_prob1(zeta).exp(), of_law(case, "pdf", zeta), rtol=1e-8, atol=0)
    torch.testing.assert_close(s.cdf1(zeta), of_law(case, "cdf", zeta), rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(s.sf1(zeta), of_law(case, "sf", zeta), rtol=1e-9, atol=0)
    assert float(s.mean1) == pytest.approx(float(case.law.mean()), abs=1e-12)
    assert float(s.variance1) == pytest.approx(float(case.law.var()), rel=1e-7)


def test_the_inverse_inverts_the_density_s_cdf(case: SpikeCase) -> None:
    torch.testing.assert_close(of_law(case, "cdf", case.smoothing.icdf1(RHO)), RHO, rtol=0, atol=1e-12)


# --- the law with its atom ---


def test_log_prob_is_a_mass_at_the_atom_and_a_density_elsewhere(case: SpikeCase) -> None:
    q = case.smoothing(LOGITS)
    torch.testing.assert_close(q.log_prob(torch.zeros(7).double()).exp(), P, rtol=1e-12, atol=0)
    zeta = interior(case)[:, None].expand(-1, 7)
    torch.testing.assert_close(q.log_prob(zeta).exp(), Q * of_law(case, "pdf", zeta), rtol=1e-8, atol=0)


def test_atom_and_density_together_have_mass_one_and_the_moments(case: SpikeCase) -> None:
    q = case.smoothing(LOGITS)
    for f, exact in (
        (torch.ones_like, torch.ones(7).double()),
        (lambda v: v, q.mean),
        (lambda v: (v - q.mean[:, None]) ** 2, q.variance),
    ):
        at_atom = f(torch.zeros(7, 1).double())[:, 0]
        found = P * at_atom + Q * case.integral(lambda v, f=f: f(v.expand(7, -1)))
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-14)


def test_the_cdf_jumps_by_the_atom(case: SpikeCase) -> None:
    q = case.smoothing(LOGITS)
    zeta = torch.cat([interior(case), torch.tensor([-1e-9, 0.0, 1e-9]).double()])[:, None].expand(-1, 7)
    torch.testing.assert_close(q.cdf(zeta), cdf(case, LOGITS, zeta), rtol=0, atol=1e-12)


def test_the_slope_of_the_cdf_is_the_density_off_the_atom(case: SpikeCase) -> None:
    zeta = interior(case)[:, None].repeat(1, 7).requires_grad_()
    q = case.smoothing(LOGITS)
    slope = torch.autograd.grad(q.cdf(zeta).sum(), zeta)[0]
    torch.testing.assert_close(slope, q.log_prob(zeta).exp().detach(), rtol=1e-9, atol=1e-300)


def test_the_inverse_cdf_is_the_least_zeta_that_reaches_rho(case: SpikeCase) -> None:
    rho, logits = (v.reshape(-1) for v in torch.meshgrid(RHO, LOGITS, indexing="ij"))
    zeta = case.smoothing(logits).icdf(rho)
    step = 1e-12 * (1 + zeta.abs())
    assert bool((cdf(case, logits, zeta + step) >= rho - 1e-11).all())
    assert bool((cdf(case, logits, zeta - step) <= rho + 1e-11).all())
    assert bool((zeta == 0).any())
    assert bool((zeta > 0).any())


def test_the_inverse_of_the_exponential_is_rolfe_s_formula() -> None:
    rho, logits = (v.reshape(-1) for v in torch.meshgrid(RHO, LOGITS, indexing="ij"))
    for beta in (1.0, 5.0, 20.0):
        q = torch.sigmoid(logits)
        rolfe = torch.log1p(math.expm1(beta) * ((rho - 1) / q + 1).clamp(min=0)) / beta
        exact = torch.where(rho <= 1 - q, 0.0, rolfe)
        torch.testing.assert_close(SpikeExponential(beta)(logits).icdf(rho), exact, rtol=1e-7, atol=1e-9)


def test_the_posterior_is_one_sided_and_carries_no_gradient(case: SpikeCase) -> None:
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    zeta = torch.tensor([0.0, 1e-300, 0.3, 1.0], dtype=torch.float64, requires_grad=True)
    nu = case.smoothing(logits).posterior(zeta).probs
    assert nu.tolist() == [0.0, 1.0, 1.0, 1.0]
    assert not nu.requires_grad


def test_spikes_say_what_they_are(case: SpikeCase) -> None:
    s = case.smoothing
    assert (s.binary, s.has_atom, s.shared_conditional) == (False, True, True)


# --- gradients ---


@gentle
def test_icdf_gradients_are_finite_differences_of_the_inverse(case: SpikeCase) -> None:
    rho, logits = (v.reshape(-1).clone() for v in torch.meshgrid(RHO[1:-1], LOGITS[1:-1], indexing="ij"))
    rho.requires_grad_()
    logits.requires_grad_()
    by_logits, by_rho = torch.autograd.grad(case.smoothing(logits).icdf(rho).sum(), (logits, rho))
    with torch.no_grad():
        h = 1e-6
        exact = (case.smoothing(logits + h).icdf(rho) - case.smoothing(logits - h).icdf(rho)) / (2 * h)
        torch.testing.assert_close(by_logits, exact, rtol=1e-5, atol=1e-8)
        exact = (case.smoothing(logits).icdf(rho + h) - case.smoothing(logits).icdf(rho - h)) / (2 * h)
        torch.testing.assert_close(by_rho, exact, rtol=1e-5, atol=1e-8)


def test_draws_carry_the_implicit_gradient_of_where_they_fell(case: SpikeCase) -> None:
    logits = LOGITS.expand(400, 7).clone().requires_grad_()
    zeta = case.smoothing(logits).rsample()
    gradient = torch.autograd.grad(zeta.sum(), logits)[0]
    torch.testing.assert_close(gradient, exact_slope(case, logits.detach(), zeta.detach()), rtol=1e-8, atol=0)


@gentle
def test_the_mean_gradient_of_a_continuous_function_is_that_of_its_expectation(case: SpikeCase) -> None:
    def f(zeta: Tensor) -> Tensor:
        return torch.sin(3 * zeta) + zeta**2 + (zeta - 0.3).abs()

    logits = torch.tensor([-2.0, 0.0, 1.5], dtype=torch.float64)
    leaf = logits.expand(200_000, 3).clone().requires_grad_()
    pathwise = torch.autograd.grad(f(case.smoothing(leaf).rsample()).sum(), leaf)[0]
    at_atom = f(torch.zeros(1).double())
    q = torch.sigmoid(logits)
    assert_mean(pathwise, q * (1 - q) * (case.integral(f) - at_atom))


def test_log_prob_differentiates_in_logits_and_zeta(case: SpikeCase) -> None:
    zeta = interior(case, 7)
    logits = torch.linspace(-3, 3, len(zeta), dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda left, right: case.smoothing(left).log_prob(right), (logits.requires_grad_(), zeta.requires_grad_())
    )
    zeta = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    logits = LOGITS.clone().requires_grad_()
    by_logits, by_zeta = torch.autograd.grad(case.smoothing(logits).log_prob(zeta).sum(), (logits, zeta))
    torch.testing.assert_close(by_logits, -Q)
    assert by_zeta.tolist() == [0.0] * 7


def test_draws_compose_with_torch_func(case: SpikeCase) -> None:
    logits, rho = torch.tensor([-1.0, 0.4, 2.0]).double(), torch.tensor([0.3, 0.8, 0.9]).double()

    def total(values: Tensor) -> Tensor:
        return case.smoothing(values, validate_args=False).icdf(rho).sum()

    leaf = logits.clone().requires_grad_()
    expected = torch.autograd.grad(total(leaf), leaf)[0]
    both = torch.stack([logits, logits + 1])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(total))(both)[0], expected)


# --- draws ---


@pytest.mark.parametrize("logit", [-3.0, 0.0, 1.2])
def test_draws_are_the_atom_or_follow_the_density(case: SpikeCase, logit: float) -> None:
    zeta = case.smoothing(torch.tensor(logit)).sample((20_000,))
    assert_mean((zeta == 0).double(), torch.sigmoid(torch.tensor(-logit).double()))
    assert stats.kstest(of_law(case, "cdf", zeta[zeta != 0]).numpy(), "uniform").pvalue > 5.7e-7


def test_draws_of_neighbouring_units_are_independent(case: SpikeCase) -> None:
    zeta = case.smoothing(torch.zeros(2, dtype=torch.float64)).sample((20_000,))
    centred = zeta - zeta.mean(0)
    assert_mean(centred[:, 0] * centred[:, 1], 0.0)


def test_a_one_is_never_rounded_to_the_atom(monkeypatch: pytest.MonkeyPatch) -> None:
    rho = torch.tensor([1e-45, 1e-42, 1e-38, 1e-30])
    assert bool((SpikeExponential(1.0)(torch.full_like(rho, 200.0)).icdf(rho) > 0).all())
    monkeypatch.setattr(torch, "rand", lambda shape, **kinds: torch.full(shape, 0.5, **kinds))
    assert SpikeGaussian(3.0, mean=0.0).icdf1(torch.tensor(0.5)) == 0
    zeta = SpikeGaussian(3.0, mean=0.0)(torch.tensor([-1.0, 1.0])).sample()
    assert (zeta == 0).tolist() == [True, False]


# --- a torch.distributions.Distribution ---


def test_shapes_dtypes_and_expand(case: SpikeCase) -> None:
    q = case.smoothing(torch.zeros(3, 2))
    assert (q.batch_shape, q.event_shape, q.has_rsample) == ((3, 2), (), True)
    for shape in ((), (5,), (2, 5)):
        zeta = q.rsample(shape)
        results = (q.log_prob(zeta), q.cdf(zeta), q.icdf(torch.full_like(zeta, 0.3)), q.posterior(zeta).probs)
        assert all(v.shape == (*shape, 3, 2) and v.dtype == torch.float32 for v in (zeta, *results))
    assert q.mean.shape == q.variance.shape == (3, 2)
    wide = q.expand(torch.Size((4, 3, 2)))
    assert wide.rsample((5,)).shape == (5, 4, 3, 2)
    torch.testing.assert_close(wide.log_prob(torch.full((3, 2), 0.2)), q.log_prob(torch.full((4, 3, 2), 0.2)))


def test_validation_refuses_what_is_off_the_support(case: SpikeCase, monkeypatch: pytest.MonkeyPatch) -> None:
    q = case.smoothing(torch.zeros(2), validate_args=True)
    assert bool(q.support.check(q.sample((1000,))).all())
    assert bool(q.support.check(torch.tensor(1.5))) == (case.law.support()[1] > 1)
    with pytest.raises(ValueError, match="support"):
        q.log_prob(torch.tensor([torch.nan, 0.5]))
    with pytest.raises(ValueError, match="support"):
        q.expand(torch.Size((3, 2))).log_prob(torch.full((3, 2), torch.nan))
    with pytest.raises(InputError, match="rho"):
        q.icdf(torch.tensor([1.1, 0.5]))
    with pytest.raises(ValueError, match="logits"):
        case.smoothing(torch.tensor([0.0, torch.nan]), validate_args=True)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match="floating"):
        case.smoothing(torch.tensor([0, 1]))


@pytest.mark.parametrize("make", [SpikeExponential, SpikeGaussian])
def test_betas_and_means_that_are_none_are_refused(make) -> None:
    for beta in (0.0, -1.0, math.nan, math.inf, torch.ones(2)):
        with pytest.raises(InputError, match="beta"):
            make(beta)
    with pytest.raises(InputError, match="mean"):
        SpikeGaussian(3.0, math.nan)


def test_a_spike_with_another_beta_keeps_its_mean_and_tends_to_hard() -> None:
    assert SpikeExponential(3.0).with_beta(7.0) == SpikeExponential(7.0)
    assert SpikeGaussian(3.0, 0.7).with_beta(7.0) == SpikeGaussian(7.0, 0.7)
    for smoothing in (SpikeExponential(3.0), SpikeGaussian(3.0)):
        q, exact = smoothing.with_beta(1000.0)(LOGITS), hard(LOGITS)
        for zeta in (-0.1, 0.0, 0.9):
            at = torch.full_like(LOGITS, zeta)
            torch.testing.assert_close(q.cdf(at), exact.cdf(at), rtol=0, atol=1e-12)
        torch.testing.assert_close(q.mean, exact.mean, rtol=0, atol=2e-3)
        torch.testing.assert_close(q.variance, exact.variance, rtol=0, atol=2e-3)


# --- float32 ---


@pytest.mark.parametrize("make", [spike_exponential, spike_gaussian])
@pytest.mark.parametrize("beta", [1.0, 8.0, 18.0, 40.0])
def test_float32_draws_and_what_follows_are_finite(make, beta: float) -> None:
    logits = torch.empty(200_000).uniform_(-60, 60).requires_grad_()
    q = make(beta).smoothing(logits)
    zeta = q.rsample()
    for term in (zeta, q.log_prob(zeta), q.cdf(zeta)):
        assert bool(term.isfinite().all())
        assert bool(torch.autograd.grad(term.sum(), logits, retain_graph=True)[0].isfinite().all())
    gradient = torch.autograd.grad(zeta.sum(), logits)[0]
    exact = exact_slope(make(beta), logits.detach(), zeta.detach())
    torch.testing.assert_close(gradient.double(), exact, rtol=3e-4, atol=1e-30)


def test_the_exponential_does_not_overflow_at_a_beta_of_a_thousand() -> None:
    s, rho = SpikeExponential(1000.0), torch.tensor([1e-6, 0.3, 0.9])
    zeta = s.icdf1(rho)
    torch.testing.assert_close(zeta, 1 + rho.log() / 1000)
    assert bool(torch.stack([s.log_prob1(zeta), s.cdf1(zeta), s.sf1(zeta)]).isfinite().all())
