"""Every smoothing is right in both precisions from beta .0001 to 10,000, logits to 60; mpmath's laws are the twins."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from laws import ConcreteLaw, ExponentialLaw, FlooredLaw, Law, LogisticLaw, Mixture, NormalLaw, PowerLaw, Spiked
from mpmath import mpf
from registry import (
    all_states,
    brute_force_log_z,
    every_sharpening,
    gauss_legendre,
    machine,
    pair_by_pair_energy,
)
from scipy import stats
from torch import Tensor

from dvaepp.components.registry import components
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.smoothings.base import BitDistribution, Smoothing
from dvaepp.smoothings.binary import StraightThroughGumbel, hard
from dvaepp.smoothings.concrete import Concrete
from dvaepp.smoothings.numerical import DensityPair
from dvaepp.smoothings.overlapping import Overlapping
from dvaepp.smoothings.spike import SpikeExponential, SpikeGaussian

LOGITS = (-60.0, -0.7, 0.0, 60.0)
MORE_LOGITS = (*LOGITS, -17.0, 17.0)
RHO = (1e-30, 1e-7, 0.2, 0.5, 0.75, 0.99, 1 - 2.0**-24)
BETAS = (1e-4, 0.05, 0.3, 8.0, 95.0, 720.0, 1e4)
PRECISIONS = (torch.float32, torch.float64)
PAIRS: dict[str, type[Law]] = {
    "exponential": ExponentialLaw,
    "logistic": LogisticLaw,
    "normal": NormalLaw,
    "power": PowerLaw,
    "floored": FlooredLaw,
}
SPIKES: dict[str, tuple[Any, type[Law]]] = {
    "spike-exponential": (SpikeExponential, ExponentialLaw),
    "spike-gaussian": (SpikeGaussian, NormalLaw),
}
every_precision = pytest.mark.parametrize("dtype", PRECISIONS, ids=["float32", "float64"])
every_pair = pytest.mark.parametrize("name", PAIRS)
every_spike = pytest.mark.parametrize("name", SPIKES)


@pytest.fixture(autouse=True)
def _forty_digits() -> Iterator[None]:
    with mpmath.workdps(40):
        yield


def betas(name: str) -> tuple[float, ...]:
    """As far as a smoothing allows."""
    return (1.0001, 1.5, 8.0, 110.0, 1e4) if name == "power" else BETAS


def forms(name: str, dtype: torch.dtype) -> list[float | Tensor]:
    """Every beta as a number, and some as 0-d tensors."""
    numbers = betas(name)
    return [*numbers, *(torch.tensor(beta, dtype=dtype) for beta in numbers[::2])]


def pairs(name: str, dtype: torch.dtype) -> Iterator[tuple[Overlapping, Law]]:
    """A pair at every beta, and its law."""
    for beta in forms(name, dtype):
        yield every_sharpening[name](beta).smoothing, PAIRS[name](float(beta))


def grid(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Every rho with every logit: (rho, logits), both (28,)."""
    rho, logits = torch.meshgrid(torch.tensor(RHO, dtype=dtype), torch.tensor(LOGITS, dtype=dtype), indexing="ij")
    return rho.reshape(-1).clone(), logits.reshape(-1).clone()


def digits(values: Tensor) -> list[mpf]:
    return [mpf(v) for v in values.tolist()]


def at(zeta: Tensor, functions: Sequence[Callable[[mpf], mpf]]) -> list[mpf]:
    """Each function of its element of zeta."""
    return [f(v) for f, v in zip(functions, digits(zeta), strict=True)]


def around(zeta: Tensor, steps: int, lowest: float) -> tuple[list[mpf], list[mpf]]:
    """The floats some steps below and above zeta. `lowest` stands for all that lies between 0 and itself."""
    below, above = zeta, zeta
    for _ in range(steps):
        below = torch.nextafter(below, torch.full_like(zeta, -math.inf))
        above = torch.nextafter(above, torch.full_like(zeta, math.inf))
    return digits(torch.where(zeta == lowest, 0.0, below)), digits(above)


def assert_inverse(
    zeta: Tensor, rho: Tensor, laws: Sequence[Any], steps: int, lowest: float = math.nan, room: float = 16.0
) -> None:
    """Between the floats some steps from zeta the CDF passes rho; in float32, above 1/2, 1 - CDF passes 1 - rho.

    More steps than one, and room in eps, are for a formula's roundings, among them an exponent's. Bisection in float64
    sees 1 - rho as a difference from 1.
    """
    eps = torch.finfo(zeta.dtype).eps
    for law, low, high, r in zip(laws, *around(zeta, steps, lowest), digits(rho), strict=True):
        where = f"rho {float(r)}, logit {float(law.logit)}, between {float(low)} and {float(high)}"
        error = eps * (room + abs(mpmath.log(r)))
        if r > 0.5 and zeta.dtype == torch.float32:
            assert law.sf(low) >= (1 - r) * (1 - error), where
            assert law.sf(high) <= (1 - r) * (1 + error), where
        else:
            assert law.cdf(low) <= r * (1 + error), where
            assert law.cdf(high) >= r * (1 - error), where


def assert_near(name: str, got: Tensor, exact: Sequence[mpf], *terms: Sequence[mpf]) -> None:
    """Within 16 eps of 5 and the terms that are added up."""
    eps = torch.finfo(got.dtype).eps
    for value, wanted, *parts in zip(got.tolist(), exact, *terms, strict=True):
        assert abs(value - wanted) <= 16 * eps * (5 + sum(map(abs, parts))), f"{name}: {value}, not {float(wanted)}"


def assert_relative(name: str, got: Tensor, exact: Sequence[mpf], *terms: Sequence[mpf]) -> None:
    """To 16 eps of 5 and the exponents that make the number; finite where floats do not reach it."""
    info = torch.finfo(got.dtype)
    for value, wanted, *parts in zip(got.tolist(), exact, *terms, strict=True):
        assert math.isfinite(value), f"{name}: {value}, not {mpmath.nstr(wanted)}"
        if abs(wanted) < info.max / 1e3:
            room = 16 * info.eps * (5 + sum(map(abs, parts))) * abs(wanted) + info.tiny
            assert abs(value - wanted) <= room, f"{name}: {value}, not {float(wanted)}"


def assert_probability(name: str, got: Tensor, exact: Sequence[mpf]) -> None:
    """In the lower tail as exact as elsewhere: relative to its logarithm's size."""
    assert_relative(name, got, exact, [mpmath.log(v) if v > 0 else mpf(0) for v in exact])


def assert_law(
    q: BitDistribution, laws: Sequence[Mixture], rho: Tensor, steps: int, lowest: float = math.nan
) -> Tensor:
    """The inverse is right; where it lies, so are its two gradients, the density and the CDF."""
    q.logits.requires_grad_()
    leaf = rho.clone().requires_grad_()
    draw = q.icdf(leaf)
    by_logit, by_rho = torch.autograd.grad(draw.sum(), (q.logits, leaf))
    zeta = draw.detach()
    assert_inverse(zeta, rho, laws, steps, lowest)
    log_pdf = at(zeta, [law.log_pdf for law in laws])
    terms = log_pdf, digits(q.logits), [law.law.log_beta for law in laws]
    assert_near("log_prob", q.log_prob(zeta), log_pdf, *terms)
    assert_probability("cdf", q.cdf(zeta), at(zeta, [law.cdf for law in laws]))
    assert_relative("d zeta / d logit", by_logit, at(zeta, [law.by_logit for law in laws]), *terms)
    assert_relative("d zeta / d rho", by_rho, at(zeta, [law.by_rho for law in laws]), *terms)
    return zeta


def assert_draws(q: BitDistribution, make: Callable[[float], Mixture]) -> None:
    """Draws and what follows are finite; densities and gradients of some of them are exact where they fell."""
    zeta = q.rsample()
    terms = zeta, q.log_prob(zeta), q.cdf(zeta), q.posterior(zeta).probs
    slopes = [torch.autograd.grad(v.sum(), q.logits, retain_graph=True)[0] for v in terms if v.requires_grad]
    assert all(bool(v.isfinite().all()) for v in (*terms, *slopes))
    laws = [make(v) for v in q.logits[:30].tolist()]
    log_pdf = at(zeta[:30], [law.log_pdf for law in laws])
    scale = log_pdf, digits(q.logits[:30]), [law.law.log_beta for law in laws]
    assert_near("log_prob", terms[1][:30], log_pdf, *scale)
    assert_relative("d zeta / d logit", slopes[0][:30], at(zeta[:30], [law.by_logit for law in laws]), *scale)


# --- overlapping pairs ---


def test_every_pair_has_its_law() -> None:
    assert PAIRS.keys() == every_sharpening.keys()


@every_pair
@every_precision
def test_the_inverse_its_gradients_and_the_density_there_are_exact(name: str, dtype: torch.dtype) -> None:
    rho, logits = grid(dtype)
    for smoothing, law in pairs(name, dtype):
        steps = 1 if name in ("exponential", "logistic") else 4  # the closed forms are rounded once
        lowest = torch.finfo(dtype).tiny if name == "power" else math.nan
        zeta = assert_law(smoothing(logits.clone()), [Mixture(law, v) for v in LOGITS] * len(RHO), rho, steps, lowest)
        assert bool(((law.low <= zeta) & (zeta <= 1 - law.low)).all())


@every_pair
@every_precision
def test_the_inverse_rises_with_rho_and_is_finite_at_its_ends(name: str, dtype: torch.dtype) -> None:
    rho = torch.linspace(0, 1, 101, dtype=dtype)[:, None].expand(-1, len(LOGITS))
    for smoothing, _ in pairs(name, dtype):
        zeta = smoothing(torch.tensor(LOGITS, dtype=dtype)).icdf(rho)
        assert bool(zeta.isfinite().all())
        assert bool((zeta.diff(dim=0) >= 0).all())


@every_pair
@every_precision
def test_both_components_and_their_inverses_are_exact_in_their_tails(name: str, dtype: torch.dtype) -> None:
    rho = torch.tensor([1e-30, 1e-7, 0.5, 0.99, 1 - 2.0**-24], dtype=dtype)
    lowest = torch.finfo(dtype).tiny if name == "power" else math.nan
    for smoothing, law in pairs(name, dtype):
        zeta = torch.cat([smoothing.icdf0(rho), smoothing.icdf1(rho)])
        alone = [Mixture(law, logit) for logit in (-math.inf, math.inf) for _ in rho]
        assert_inverse(zeta, torch.cat([rho, rho]), alone, 8, lowest)
        points, log_beta = digits(zeta), [law.log_beta] * len(zeta)
        logs = [[law.log_pdf(z, v) for v in points] for z in (0, 1)]
        assert_near("log_prob0", smoothing.log_prob0(zeta), logs[0], logs[0], log_beta)
        assert_near("log_prob1", smoothing.log_prob1(zeta), logs[1], logs[1], log_beta)
        ratio = [one - zero for zero, one in zip(*logs, strict=True)]
        assert_near("log_ratio", smoothing.log_ratio(zeta), ratio, *logs, log_beta)
        assert_probability("cdf0", smoothing.cdf0(zeta), [law.cdf(0, v) for v in points])
        assert_probability("cdf1", smoothing.cdf1(zeta), [law.cdf(1, v) for v in points])
        assert_probability("cdf_gap", smoothing.cdf_gap(zeta), [law.gap(v) for v in points])


@every_pair
@every_precision
def test_draws_and_their_gradients_are_exact_where_they_fell(name: str, dtype: torch.dtype) -> None:
    for smoothing, law in pairs(name, dtype):
        q = smoothing(torch.empty(2000, dtype=dtype).uniform_(-60, 60).requires_grad_())
        assert_draws(q, lambda logit, law=law: Mixture(law, logit))
        if name != "power":  # whose draws pile up at both ends
            assert stats.kstest(q.cdf(q.sample()).detach().numpy(), "uniform").pvalue > 5.7e-7


@every_pair
def test_the_density_of_a_boltzmann_prior_does_not_cancel(name: str) -> None:
    wide, states = machine(2, 3), all_states(5)
    log_p, states = (-pair_by_pair_energy(wide, states) - brute_force_log_z(wide)).tolist(), states.int().tolist()
    prior = BoltzmannPrior(copy.deepcopy(wide).float())
    for smoothing, law in pairs(name, torch.float32):
        zeta = smoothing(torch.zeros(2, 5)).sample()
        found = prior.log_prob(zeta, smoothing)
        for value, example in zip(found.detach(), zeta, strict=True):
            logs = [[law.log_pdf(z, v) for z in (0, 1)] for v in digits(example)]
            joint = [
                p + sum(log[z] for log, z in zip(logs, state, strict=True))
                for p, state in zip(log_p, states, strict=True)
            ]
            exact = mpmath.log(sum(map(mpmath.exp, joint)))
            parts = [min(map(abs, log)) for log in logs]
            assert_near("log p(zeta)", value[None], [exact], [exact], [sum(parts)], [5 * law.log_beta])


@pytest.mark.parametrize("beta", [1e-4, 8.0, 95.0, 720.0, 1500.0])
@every_precision
def test_written_densities_are_inverted_as_far_as_their_cells_go(beta: float, dtype: torch.dtype) -> None:
    rho, logits = grid(dtype)
    q = DensityPair(lambda v: -beta * v, lambda v: beta * v - beta)(logits)
    laws = [Mixture(ExponentialLaw(beta), v) for v in LOGITS] * len(RHO)
    low, high = around(q.icdf(rho), 4, torch.finfo(dtype).tiny)
    for law, r, below, above in zip(laws, digits(rho), low, high, strict=True):
        assert law.cdf(below) <= r * (1 + 1e-6)
        assert law.cdf(above) >= r * (1 - 1e-6)
    for end in (0.0, 1.0):
        assert bool(q.icdf(torch.full_like(rho, end)).isfinite().all())


# --- an atom at 0 ---


def spikes(name: str, dtype: torch.dtype) -> Iterator[tuple[Any, Law]]:
    make, law = SPIKES[name]
    for beta in forms(name, dtype):
        yield make(beta), law(float(beta))


@every_spike
@every_precision
def test_a_spike_s_inverse_its_gradients_and_the_density_there_are_exact(name: str, dtype: torch.dtype) -> None:
    rho, logits = grid(dtype)
    for smoothing, law in spikes(name, dtype):
        zeta = assert_law(smoothing(logits.clone()), [Spiked(law, v) for v in LOGITS] * len(RHO), rho, 8)
        assert_probability("sf1", smoothing.sf1(zeta), [law.sf(1, v) for v in digits(zeta)])
        assert_inverse(smoothing.icdf1(rho), rho, [Spiked(law, math.inf)] * len(rho), 8)


@every_spike
@every_precision
def test_a_spike_s_draws_and_gradients_are_exact_where_they_fell(name: str, dtype: torch.dtype) -> None:
    for smoothing, law in spikes(name, dtype):
        q = smoothing(torch.empty(2000, dtype=dtype).uniform_(-60, 60).requires_grad_())
        assert_draws(q, lambda logit, law=law: Spiked(law, logit))


# --- Concrete, and bits ---


@every_precision
def test_concrete_is_exact_at_any_temperature(dtype: torch.dtype) -> None:
    rho, logits = grid(dtype)
    for beta in forms("concrete", dtype):
        smoothing = Concrete(1.0).with_beta(beta)
        temperature = float(smoothing.temperature)
        laws = [ConcreteLaw(temperature, v) for v in LOGITS] * len(RHO)
        q = smoothing(logits)
        zeta = q.icdf(rho)
        # the noise, up to 130 in size, is rounded before it is scaled
        assert_inverse(zeta, rho, laws, 8, lowest=torch.finfo(dtype).tiny ** 0.5, room=260.0)
        log_pdf = at(zeta, [law.log_pdf for law in laws])
        log_zeta = [mpmath.log(v) for v in digits(zeta)]
        # the logarithm of the odds of zeta is rounded to eps of 1
        terms = log_pdf, digits(logits), log_zeta, [temperature + mpmath.log(temperature)] * len(zeta)
        assert_near("log_prob", q.log_prob(zeta), log_pdf, *terms)


@pytest.mark.parametrize("make", [Concrete, StraightThroughGumbel])
@every_precision
def test_relaxed_bits_and_what_follows_are_finite_at_any_temperature(make: Any, dtype: torch.dtype) -> None:
    for beta in BETAS:
        q = make(1 / beta)(torch.empty(2000, dtype=dtype).uniform_(-60, 60).requires_grad_())
        zeta = q.rsample()
        for term in (zeta, q.log_prob(zeta), q.cdf(zeta)):
            assert bool(term.isfinite().all())
            assert bool(torch.autograd.grad(term.sum(), q.logits, retain_graph=True)[0].isfinite().all())


# --- moments ---


def component_moments(name: str, beta: float) -> tuple[mpf, mpf]:
    """Mean and variance of r(zeta | 0): by quadrature where closed forms cancel, scipy's elsewhere."""
    if not issubclass(PAIRS[name], ExponentialLaw):
        law = every_sharpening[name](beta).density0
        return mpf(float(law.mean())), mpf(float(law.var()))
    law, cuts = PAIRS[name](beta), [0, *(min(1, k / mpf(beta)) for k in (3, 10, 40, 80)), 1]
    with mpmath.workdps(20):
        mean = mpmath.quad(lambda v: v * mpmath.exp(law.log_pdf0(v)), cuts)
        return mean, mpmath.quad(lambda v: (v - mean) ** 2 * mpmath.exp(law.log_pdf0(v)), cuts)


def forms_and_dtypes(beta: float) -> list[tuple[float | Tensor, torch.dtype]]:
    return [(beta, torch.float64), *((torch.tensor(beta, dtype=dtype), dtype) for dtype in PRECISIONS)]


@every_pair
def test_moments_do_not_cancel(name: str) -> None:
    shares = [1 / (1 + mpmath.exp(-mpf(v))) for v in MORE_LOGITS]
    for beta in betas(name):
        for form, dtype in forms_and_dtypes(beta):
            smoothing, (mean, variance) = every_sharpening[name](form).smoothing, component_moments(name, float(form))
            assert_relative("mean0", torch.as_tensor(smoothing.mean0, dtype=dtype)[None], [mean])
            assert_relative("variance0", torch.as_tensor(smoothing.variance0, dtype=dtype)[None], [variance])
            q = smoothing(torch.tensor(MORE_LOGITS, dtype=dtype))
            assert_relative("mean", q.mean, [mean + share * (1 - 2 * mean) for share in shares])
            exact = [variance + share * (1 - share) * (1 - 2 * mean) ** 2 for share in shares]
            assert_relative("variance", q.variance, exact)


@every_spike
def test_a_spike_s_moments_do_not_cancel(name: str) -> None:
    shares = [1 / (1 + mpmath.exp(-mpf(v))) for v in MORE_LOGITS]
    for beta in BETAS:
        for form, dtype in forms_and_dtypes(beta):
            mean, variance = component_moments(
                "exponential" if SPIKES[name][1] is ExponentialLaw else "normal", float(form)
            )
            q = SPIKES[name][0](form)(torch.tensor(MORE_LOGITS, dtype=dtype))
            assert_relative("mean", q.mean, [share * (1 - mean) for share in shares])
            exact = [share * variance + share * (1 - share) * (1 - mean) ** 2 for share in shares]
            assert_relative("variance", q.variance, exact)


def concrete_moments(temperature: float, logit: float) -> tuple[float, float]:
    """E[zeta] and Var[zeta] by quadrature over the noise, in pieces where it or the sigmoid turns; logit <= 0."""
    turns = [-logit + k * temperature for k in (-40, -20, -10, -5, -2, 0, 2, 5, 10, 20, 40)]
    cuts = torch.tensor(sorted({*np.arange(-130.0, 131.0, 5.0), *(v for v in turns if abs(v) < 130)}))
    node, weight = gauss_legendre(0.0, 1.0, pieces=1)
    width = cuts.diff()[:, None]
    noise = cuts[:-1, None] + width * node
    weight = weight * width * torch.sigmoid(noise) * torch.sigmoid(-noise)
    zeta = torch.sigmoid((noise + logit) / temperature)
    mean = (weight * zeta).sum()
    return float(mean), float((weight * (zeta - mean) ** 2).sum())


@every_precision
def test_concrete_s_moments_do_not_cancel(dtype: torch.dtype) -> None:
    for beta in (*BETAS, 0.999, 1.0, 1.001):
        q = Concrete(1 / beta)(torch.tensor(MORE_LOGITS, dtype=dtype))
        exact = [concrete_moments(1 / beta, -abs(v)) for v in MORE_LOGITS]
        means = [1 - mpf(mean) if v > 0 else mpf(mean) for v, (mean, _) in zip(MORE_LOGITS, exact, strict=True)]
        assert_relative("mean", q.mean, means)
        room = mpf(1 / beta if dtype == torch.float64 else 0)  # the sigmoid is rounded to float64's eps of 1/2
        assert_relative("variance", q.variance, [mpf(v) for _, v in exact], [room] * len(exact))
        assert bool(q.stddev.isfinite().all())


@every_precision
def test_the_variance_of_a_bit_does_not_cancel(dtype: torch.dtype) -> None:
    exact = [1 / (2 + 2 * mpmath.cosh(v)) for v in MORE_LOGITS]
    assert_relative("variance", hard(torch.tensor(MORE_LOGITS, dtype=dtype)).variance, exact)


# --- devices ---


@pytest.mark.parametrize("name", [n for n, each in components(Smoothing).items() if each().sharpness is not None])
def test_a_beta_on_another_device_is_not_read_back(name: str) -> None:
    beta, logits = torch.tensor(8.0, device="meta"), torch.zeros(2, 3, device="meta", requires_grad=True)
    q = components(Smoothing)[name]().with_beta(beta)(logits, validate_args=False)
    zeta = q.rsample()
    results = zeta, q.log_prob(zeta), q.cdf(zeta), q.icdf(torch.zeros_like(logits)), q.mean, q.variance
    assert all(v.device.type == "meta" and v.shape == (2, 3) for v in results)
