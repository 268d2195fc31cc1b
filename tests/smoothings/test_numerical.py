"""Densities that a user writes down, and inverses by bisection: scipy's laws are the twins."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.numerics import quantile
from dvaepp.smoothings.numerical import DensityPair

RHO = torch.tensor([1e-12, 1e-6, 0.01, 0.2, 0.5, 0.77, 0.99, 1 - 1e-6], dtype=torch.float64)


def flat(zeta: Tensor) -> Tensor:
    return torch.zeros_like(zeta)


def log_beta(a: int, b: int):
    """log of zeta^(a - 1) (1 - zeta)^(b - 1), which is 0 at the ends."""
    return lambda zeta: (a - 1) * torch.log(zeta) + (b - 1) * torch.log1p(-zeta)


@pytest.mark.parametrize(("a", "b"), [(2, 5), (4, 2), (3, 3)])
def test_densities_that_vanish_at_the_ends_are_normalised_and_inverted(a: int, b: int) -> None:
    pair, law = DensityPair(flat, log_beta(a, b)), stats.beta(a, b)
    torch.testing.assert_close(torch.from_numpy(law.cdf(pair.icdf1(RHO))), RHO, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(pair.icdf0(RHO), RHO, rtol=0, atol=1e-13)
    zeta = torch.linspace(0.001, 0.999, 31, dtype=torch.float64)
    torch.testing.assert_close(pair.log_prob1(zeta), torch.from_numpy(law.logpdf(zeta)), rtol=1e-9, atol=1e-9)
    assert (pair.mean1, pair.variance1) == (pytest.approx(law.mean(), rel=1e-9), pytest.approx(law.var(), rel=1e-9))
    logits = torch.empty(20_000).uniform_(-20, 20).requires_grad_()
    q = pair(logits)
    zeta = q.rsample()
    for term in (zeta, q.log_prob(zeta), q.posterior(zeta).logits):
        assert bool(term.isfinite().all())
        assert bool(torch.autograd.grad(term.sum(), logits, retain_graph=True)[0].isfinite().all())


def test_constants_and_intervals_do_not_matter() -> None:
    shifted = DensityPair(lambda t: 5000 - 2 * (t - 3), lambda t: -7000 + 2 * (t - 3), low=3.0, high=5.0)
    law = stats.truncexpon(b=4, loc=3, scale=0.5)
    zeta = torch.linspace(3, 5, 21, dtype=torch.float64)
    torch.testing.assert_close(shifted.log_prob0(zeta), torch.from_numpy(law.logpdf(zeta)), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(shifted.cdf0(zeta), torch.from_numpy(law.cdf(zeta)), rtol=1e-12, atol=1e-13)
    assert shifted.mean1 == pytest.approx(8 - law.mean(), rel=1e-12)
    draws = shifted(torch.zeros(1000)).sample()
    assert bool(((draws >= 3) & (draws <= 5)).all())
    outside = torch.tensor([2.0, 6.0])
    assert shifted.cdf0(outside).tolist() == [0.0, pytest.approx(1.0, abs=1e-7)]


def test_float32_and_float64_are_both_served() -> None:
    pair = DensityPair(lambda t: -8 * t, lambda t: 8 * t - 8)
    for dtype in (torch.float32, torch.float64):
        zeta = torch.tensor([0.1, 0.5, 0.9], dtype=dtype)
        for value in (pair.cdf0(zeta), pair.cdf1(zeta), pair.cdf_gap(zeta), pair.icdf0(zeta), pair.log_prob1(zeta)):
            assert value.dtype == dtype
    narrow, wide = pair.icdf0(RHO.float()), pair.icdf0(RHO.float().double())
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-7, atol=1e-9)


def test_the_gap_does_not_cancel_in_either_tail() -> None:
    pair = DensityPair(lambda t: -8 * t * t, lambda t: -8 * (t - 1) ** 2, low=-1.5, high=2.5)
    zeta = torch.tensor([-1.4, -1.2, 0.5, 2.2, 2.4], dtype=torch.float64)
    laws = [stats.truncnorm(4 * (-1.5 - m), 4 * (2.5 - m), loc=m, scale=0.25) for m in (0, 1)]
    lower = laws[0].cdf(zeta) - laws[1].cdf(zeta)
    upper = laws[1].sf(zeta) - laws[0].sf(zeta)
    exact = torch.from_numpy(np.where(zeta < 0.5, lower, upper))
    torch.testing.assert_close(pair.cdf_gap(zeta), exact, rtol=1e-8, atol=0)


def test_pairs_are_equal_by_their_functions_and_do_not_compare_tables() -> None:
    assert DensityPair(flat, log_beta(2, 2)) != DensityPair(flat, flat)
    assert DensityPair(flat, flat) == DensityPair(flat, flat)
    assert hash(DensityPair(flat, flat)) == hash(DensityPair(flat, flat))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda t: torch.where(t > 0.5, torch.nan, 0.0), "log_density1 must be finite .* nan at zeta = 0.5"),
        (lambda t: torch.where(t < 0.25, torch.inf, 0.0), "log_density1 must be finite .* inf at zeta = "),
        (lambda t: torch.where(t > 0.5, -torch.inf, 0.0), "log_density1 must be finite .* -inf at zeta = 0.5"),
        (lambda t: torch.full_like(t, -torch.inf), "log_density1 .* no mass"),
        (lambda t: t.sum(), "log_density1 must return real numbers of its argument's shape"),
        (lambda t: 0.0, "log_density1 must return real numbers .* not float"),
        (lambda t: -0.95 * torch.log(t), "log_density1 is too sharp"),
        (lambda t: -1e9 * (t - 0.3) ** 2, "log_density1 is too sharp"),
    ],
)
def test_densities_that_are_none_are_refused(bad, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DensityPair(flat, bad)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf)])
def test_intervals_that_are_none_are_refused(low: float, high: float) -> None:
    with pytest.raises(InputError, match="low must be"):
        DensityPair(flat, flat, low, high)


# --- bisection ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bisection_finds_the_least_float_that_reaches_rho(dtype: torch.dtype) -> None:
    info = torch.finfo(dtype)
    wanted = torch.tensor([-info.max, -3.7, -1e-30, -0.0, 1e-40, 1e-30, 0.1, 1.0, 7e22, info.max], dtype=dtype)
    ends = torch.full_like(wanted, -torch.inf), torch.full_like(wanted, torch.inf)
    assert quantile(lambda zeta: zeta, wanted, *ends).eq(wanted).all()
    assert quantile(lambda zeta: zeta, wanted, *reversed(ends)).eq(wanted).all()
    assert quantile(lambda zeta: 3 * zeta + 1, torch.ones(1, dtype=dtype), ends[0][:1], ends[1][:1]).abs() < info.eps


def test_bisection_stays_between_its_ends() -> None:
    rho, low, high = torch.tensor([-5.0, 0.3, 5.0]), torch.zeros(3), torch.ones(3)
    assert quantile(lambda zeta: zeta, rho, low, high)[1:].tolist() == [pytest.approx(0.3), 1.0]
    assert quantile(lambda zeta: zeta, rho, low, high)[0] < 1e-44
