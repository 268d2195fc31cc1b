"""Everything that a contract runs over, one line each, and the exact twins that the tests compare with.

The twins know only definitions: states are enumerated, densities of smoothings come from scipy, energies are summed
pair by pair. Nothing here calls the function that it stands against.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from dvaepp.boltzmann.dimod_sampler import SimulatedAnnealer
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.boltzmann.samplers import AnnealedPopulation, ExactSamples, PersistentChains, Sampler, TemperedChains
from dvaepp.estimators import (
    ARM,
    ARMS,
    DARN,
    NVIL,
    REBAR,
    RELAX,
    VIMCO,
    DisARM,
    DoubleControlVariates,
    Estimator,
    GumbelRao,
    LeaveOneOut,
    LocalExpectation,
    MuProp,
    PiecewiseLinear,
    Reinforce,
    RelaxedBernoulli,
)
from dvaepp.estimators import ReinMax as ReinMaxEstimator
from dvaepp.estimators import StraightThrough as StraightThroughEstimator
from dvaepp.estimators import StraightThroughGumbel as StraightThroughGumbelEstimator
from dvaepp.likelihoods.base import Likelihood
from dvaepp.likelihoods.logistic_mixture import DiscretizedLogisticMixture
from dvaepp.likelihoods.mixed import MixedLikelihood
from dvaepp.likelihoods.standard import BernoulliLikelihood, CategoricalLikelihood, NormalLikelihood, PoissonLikelihood
from dvaepp.models.encoders import HierarchicalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.models.local import BernoulliVariables, LocalVariables, NormalVariables
from dvaepp.objectives.bounds import joint_elbo, marginal_elbo
from dvaepp.objectives.elbo import elbo
from dvaepp.objectives.importance import importance_weighted
from dvaepp.optimisers.adam import Adam
from dvaepp.optimisers.base import Optimiser
from dvaepp.optimisers.muon import MuonAndAdam
from dvaepp.priors.base import Prior
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.priors.directed import BernoulliPrior, DirectedPrior
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import ReinMax, StraightThrough, StraightThroughGumbel, hard
from dvaepp.smoothings.concrete import Concrete
from dvaepp.smoothings.exponential import OverlappingExponential, UniformExponential
from dvaepp.smoothings.logistic import OverlappingLogistic
from dvaepp.smoothings.normal import OverlappingNormal
from dvaepp.smoothings.numerical import DensityPair
from dvaepp.smoothings.overlapping import Overlapping
from dvaepp.smoothings.power import PowerFunction
from dvaepp.smoothings.spike import Spike, SpikeExponential, SpikeGaussian

PIXELS = 4


# --- smoothings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SmoothingCase:
    """A smoothing and the same two densities by scipy; without density1, it is density0 mirrored about 1/2.

    `beta` says how sharp it is: d zeta / d rho reaches exp(beta / 2) / beta. `unplaced` is the mass of r(zeta | 1)
    above the largest float64 below 1.
    """

    smoothing: Overlapping
    density0: Any
    density1: Any = None
    beta: float = 5.0
    unplaced: float = 0.0

    def pdf(self, zeta: Tensor, z: int) -> Tensor:
        """r(zeta | z), float64."""
        value = zeta.detach().double().numpy()
        if z == 0:
            return torch.from_numpy(np.asarray(self.density0.pdf(value)))
        mirrored = self.density0.pdf(1 - value) if self.density1 is None else self.density1.pdf(value)
        return torch.from_numpy(np.asarray(mirrored))

    def cdf(self, zeta: Tensor, z: int) -> Tensor:
        """R(zeta | z), float64, without cancellation in the lower tail."""
        value = zeta.detach().double().numpy()
        if z == 0:
            return torch.from_numpy(np.asarray(self.density0.cdf(value)))
        mirrored = self.density0.sf(1 - value) if self.density1 is None else self.density1.cdf(value)
        return torch.from_numpy(np.asarray(mirrored))

    def sf(self, zeta: Tensor, z: int) -> Tensor:
        """1 - R(zeta | z), float64, without cancellation in the upper tail."""
        value = zeta.detach().double().numpy()
        if z == 0:
            return torch.from_numpy(np.asarray(self.density0.sf(value)))
        mirrored = self.density0.cdf(1 - value) if self.density1 is None else self.density1.sf(value)
        return torch.from_numpy(np.asarray(mirrored))

    def mean(self, z: int) -> float:
        """E[zeta | z]."""
        if self.density1 is None:
            return float(abs(z - self.density0.mean()))
        return float((self.density1 if z else self.density0).mean())

    def variance(self, z: int) -> float:
        """Var[zeta | z]."""
        return float((self.density1 if z and self.density1 is not None else self.density0).var())

    def mixture_pdf(self, logits: Tensor, zeta: Tensor) -> Tensor:
        """sum_z q(z) r(zeta | z), float64."""
        logits = logits.detach().double()
        return torch.sigmoid(-logits) * self.pdf(zeta, 0) + torch.sigmoid(logits) * self.pdf(zeta, 1)

    def mixture_cdf(self, logits: Tensor, zeta: Tensor) -> Tensor:
        """sum_z q(z) R(zeta | z), float64."""
        logits = logits.detach().double()
        return torch.sigmoid(-logits) * self.cdf(zeta, 0) + torch.sigmoid(logits) * self.cdf(zeta, 1)

    def cdf_gap(self, zeta: Tensor) -> Tensor:
        """R(zeta | 0) - R(zeta | 1), from the tail in which it does not cancel."""
        lower = self.cdf(zeta, 0) - self.cdf(zeta, 1)
        upper = self.sf(zeta, 1) - self.sf(zeta, 0)
        return torch.where(self.cdf(zeta, 0) + self.cdf(zeta, 1) < 1, lower, upper)

    def component_sample(self, z: Tensor, generator: np.random.Generator) -> Tensor:
        """zeta ~ r(zeta | z) by the components' own inverse CDF, at bits z."""
        rho = generator.uniform(size=tuple(z.shape))
        zeta0 = self.density0.ppf(rho)
        zeta1 = 1 - zeta0 if self.density1 is None else self.density1.ppf(rho)
        return torch.where(z > 0.5, torch.from_numpy(zeta1), torch.from_numpy(zeta0))

    def quadrature(self) -> tuple[Tensor, Tensor]:
        """Nodes and weights for integrals over zeta; they crowd towards ends where densities are infinite."""
        low, high = self.density0.support()
        if self.unplaced:
            t, weight = gauss_legendre(0.0, 1.0, pieces=100)
            half, weight = t ** (2 * self.beta) / 2, weight * self.beta * t ** (2 * self.beta - 1)
            upper = (1 - half).clamp(max=1 - 2.0**-53)
            return torch.cat([half, upper]), torch.cat([weight, weight])
        if not math.isfinite(low):
            low = self.density0.ppf(1e-17)
            high = 1 - low
        return gauss_legendre(low, high, pieces=100)


class _TruncatedExponential:
    """r(zeta | 0) = exp(-beta zeta) / Z_beta on [0, 1], by scipy's truncexpon with a finite survival function."""

    def __init__(self, beta: float) -> None:
        self.law = stats.truncexpon(b=beta, scale=1 / beta)
        self.beta = beta

    def __getattr__(self, name: str) -> Any:
        return getattr(self.law, name)

    def sf(self, zeta: Any) -> Any:
        """The integral of the density from zeta to 1, in closed form: scipy's cancels."""
        zeta = np.clip(zeta, 0, 1)
        return np.exp(-self.beta * zeta) * np.expm1(-self.beta * (1 - zeta)) / np.expm1(-self.beta)


class _Floored:
    """A law on [0, 1] mixed with the uniform one."""

    def __init__(self, law: Any, epsilon: float) -> None:
        self.parts, self.epsilon = (law, stats.uniform()), epsilon

    def _mix(self, name: str, *arguments: Any) -> Any:
        law, uniform = (getattr(part, name)(*arguments) for part in self.parts)
        return (1 - self.epsilon) * law + self.epsilon * uniform

    def pdf(self, zeta: Any) -> Any:
        return self._mix("pdf", zeta)

    def cdf(self, zeta: Any) -> Any:
        return self._mix("cdf", zeta)

    def sf(self, zeta: Any) -> Any:
        return self._mix("sf", zeta)

    def mean(self) -> Any:
        return self._mix("mean")

    def var(self) -> Any:
        second = [part.var() + part.mean() ** 2 for part in self.parts]
        return (1 - self.epsilon) * second[0] + self.epsilon * second[1] - self.mean() ** 2

    def support(self) -> tuple[float, float]:
        return 0.0, 1.0


def exponential(beta: float | Tensor) -> SmoothingCase:
    return SmoothingCase(OverlappingExponential(beta), _TruncatedExponential(float(beta)), beta=float(beta))


def logistic(beta: float | Tensor) -> SmoothingCase:
    return SmoothingCase(OverlappingLogistic(beta), stats.logistic(scale=1 / float(beta)), beta=float(beta))


def normal(beta: float | Tensor) -> SmoothingCase:
    laws = (stats.norm(loc=z, scale=1 / float(beta)) for z in (0, 1))
    return SmoothingCase(OverlappingNormal(beta), *laws, beta=float(beta) ** 2 / 4)


def power(beta: float | Tensor) -> SmoothingCase:
    laws = stats.beta(1 / float(beta), 1), stats.beta(1, 1 / float(beta))
    return SmoothingCase(PowerFunction(beta), *laws, beta=float(beta), unplaced=2.0 ** (-53 / float(beta)))


def floored(beta: float | Tensor, epsilon: float = 0.05) -> SmoothingCase:
    law = _Floored(_TruncatedExponential(float(beta)), epsilon)
    return SmoothingCase(UniformExponential(beta, epsilon), law, beta=float(beta))


def written_exponential(beta: float) -> SmoothingCase:
    """The exponentials again, as a pair of densities that a user writes down."""
    pair = DensityPair(lambda zeta: 3 - beta * zeta, lambda zeta: beta * zeta)
    return SmoothingCase(pair, _TruncatedExponential(beta), beta=beta)


def written_normal() -> SmoothingCase:
    """Two normals that are no mirror images, cut at -1 and 2."""
    pair = DensityPair(
        lambda zeta: -(((zeta - 0.1) / 0.3) ** 2) / 2, lambda zeta: -(((zeta - 0.9) / 0.2) ** 2) / 2, -1.0, 2.0
    )
    laws = (stats.truncnorm((-1 - m) / s, (2 - m) / s, loc=m, scale=s) for m, s in ((0.1, 0.3), (0.9, 0.2)))
    return SmoothingCase(pair, *laws)


every_smoothing: dict[str, SmoothingCase] = {
    "exponential-1": exponential(1.0),
    "exponential-5": exponential(5.0),
    "exponential-12.3": exponential(12.3),
    "exponential-30": exponential(30.0),
    "exponential-tensor-8": exponential(torch.tensor(8.0, dtype=torch.float64)),
    "logistic-1": logistic(1.0),
    "logistic-5": logistic(5.0),
    "logistic-12.3": logistic(12.3),
    "logistic-30": logistic(30.0),
    "logistic-tensor-8": logistic(torch.tensor(8.0, dtype=torch.float64)),
    "normal-1": normal(1.0),
    "normal-5": normal(5.0),
    "normal-12.3": normal(12.3),
    "power-1.5": power(1.5),
    "power-3": power(3.0),
    "power-tensor-8": power(torch.tensor(8.0, dtype=torch.float64)),
    "floored-5": floored(5.0),
    "floored-20": floored(20.0, epsilon=0.2),
    "written-exponential-40": written_exponential(40.0),
    "written-normal": written_normal(),
}

every_sharpening: dict[str, Callable[[float | Tensor], SmoothingCase]] = {
    "exponential": exponential,
    "logistic": logistic,
    "normal": normal,
    "power": power,
    "floored": floored,
}


@dataclass(frozen=True)
class SpikeCase:
    """A smoothing with an atom at 0, and r(zeta | 1) by scipy."""

    smoothing: Spike
    law: Any
    beta: float

    def integral(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        """The integral of r(zeta | 1) f(zeta), cut at 0 where f may have a kink."""
        low, high = self.law.support()
        low, high = (low, high) if math.isfinite(low) else (self.law.ppf(1e-17), self.law.isf(1e-17))
        parts = [gauss_legendre(*ends) for ends in itertools.pairwise(sorted({low, min(max(low, 0.0), high), high}))]
        zeta, weight = (torch.cat(v) for v in zip(*parts, strict=True))
        return (weight * torch.from_numpy(self.law.pdf(zeta.numpy())) * f(zeta)).sum(-1)


class _Mirrored:
    """The law of 1 - zeta."""

    def __init__(self, law: Any) -> None:
        self.law = law

    def pdf(self, zeta: Any) -> Any:
        return self.law.pdf(1 - zeta)

    def cdf(self, zeta: Any) -> Any:
        return self.law.sf(1 - zeta)

    def sf(self, zeta: Any) -> Any:
        return self.law.cdf(1 - zeta)

    def mean(self) -> Any:
        return 1 - self.law.mean()

    def var(self) -> Any:
        return self.law.var()

    def support(self) -> tuple[float, float]:
        low, high = self.law.support()
        return 1 - high, 1 - low


def spike_exponential(beta: float | Tensor) -> SpikeCase:
    return SpikeCase(SpikeExponential(beta), _Mirrored(_TruncatedExponential(float(beta))), float(beta))


def spike_gaussian(beta: float | Tensor, mean: float = 1.0) -> SpikeCase:
    return SpikeCase(SpikeGaussian(beta, mean), stats.norm(loc=mean, scale=1 / float(beta)), float(beta))


every_spike: dict[str, SpikeCase] = {
    "exponential-1": spike_exponential(1.0),
    "exponential-5": spike_exponential(5.0),
    "exponential-30": spike_exponential(30.0),
    "exponential-tensor-8": spike_exponential(torch.tensor(8.0, dtype=torch.float64)),
    "gaussian-1": spike_gaussian(1.0),
    "gaussian-3": spike_gaussian(3.0),
    "gaussian-3-at-half": spike_gaussian(3.0, mean=0.5),
    "gaussian-tensor-8": spike_gaussian(torch.tensor(8.0, dtype=torch.float64)),
}


@dataclass(frozen=True)
class DeterministicCase:
    """A smoothing whose zeta is z, and the slope d zeta / d logit that a draw carries, given its logistic noise."""

    smoothing: Smoothing
    slope: Callable[[Any, Any], Any] | None = None


def gumbel(temperature: float | Tensor) -> DeterministicCase:
    t = float(temperature)
    return DeterministicCase(
        StraightThroughGumbel(temperature), lambda logit, noise: stats.logistic.pdf((logit + noise) / t) / t
    )


def reinmax(temperature: float | Tensor) -> DeterministicCase:
    def slope(logit: Any, noise: Any) -> Any:
        s = ((logit + noise > 0) + stats.logistic.cdf(logit / float(temperature))) / 2
        return 2 * s * (1 - s) - stats.logistic.pdf(logit) / 2

    return DeterministicCase(ReinMax(temperature), slope)


every_deterministic: dict[str, DeterministicCase] = {
    "hard": DeterministicCase(hard),
    "straight-through": DeterministicCase(
        StraightThrough(), lambda logit, noise: stats.logistic.pdf(logit + 0 * noise)
    ),
    "gumbel-1": gumbel(1.0),
    "gumbel-0.3": gumbel(0.3),
    "gumbel-tensor-2": gumbel(torch.tensor(2.0, dtype=torch.float64)),
    "reinmax-1": reinmax(1.0),
    "reinmax-tensor-2": reinmax(torch.tensor(2.0, dtype=torch.float64)),
}

every_concrete: dict[str, Concrete] = {
    "0.1": Concrete(0.1),
    "0.5": Concrete(0.5),
    "2/3": Concrete(2 / 3),
    "2": Concrete(2.0),
    "tensor": Concrete(torch.tensor(0.4, dtype=torch.float64)),
}


def neighbours(zeta: Tensor) -> tuple[Tensor, Tensor]:
    """The floats next to zeta, float64; those beyond the ends to which smoothings keep it are 0 and 1."""
    value, info = zeta.detach().numpy(), torch.finfo(zeta.dtype)
    low, high = (torch.from_numpy(np.asarray(np.nextafter(value, end, dtype=value.dtype))) for end in (-np.inf, np.inf))
    return torch.where((zeta == info.tiny) | (zeta == info.tiny**0.5), 0.0, low).double(), high.double()


def gauss_legendre(low: float, high: float, pieces: int = 40, nodes: int = 24) -> tuple[Tensor, Tensor]:
    """Nodes and weights of composite Gauss-Legendre quadrature, float64."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    edges = np.linspace(low, high, pieces + 1)
    half = (edges[1:] - edges[:-1]) / 2
    points = (edges[:-1] + half)[:, None] + half[:, None] * x
    return torch.from_numpy(points.ravel()), torch.from_numpy((half[:, None] * w).ravel())


# --- priors -----------------------------------------------------------------------------------------------------------


def all_states(bits: int) -> Tensor:
    """Every setting of the bits, (2^bits, bits), float64."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=bits)), dtype=torch.float64).view(2**bits, bits)


def pair_by_pair_energy(machine: BoltzmannMachine, z: Tensor) -> Tensor:
    """-sum_i b_i z_i - sum_{i < j} J_ij z_i z_j over the pairs that interact, one term after the other."""
    energy = torch.zeros(z.shape[:-1], dtype=z.dtype)
    for i in range(machine.bits):
        energy = energy - machine.bias[i] * z[..., i]
    for s, coupling in zip(machine.slices[1:], machine.couplings, strict=True):
        for i, j in itertools.product(range(s.start), range(s.start, s.stop)):
            if machine.mask is None or machine.mask[i, j]:
                energy = energy - coupling[i, j - s.start] * z[..., i] * z[..., j]
    return energy


def brute_force_log_z(machine: BoltzmannMachine) -> Tensor:
    """log of the sum over all states."""
    return torch.logsumexp(-pair_by_pair_energy(machine, all_states(machine.bits)), 0)


def pair_moments(z: Tensor) -> Tensor:
    """z_i and z_i z_j of every state, (..., bits (bits + 1) / 2): by their means a machine's samples are judged."""
    i, j = torch.triu_indices(z.shape[-1], z.shape[-1])
    return z[..., i] * z[..., j]


def exact_pair_moments(machine: BoltzmannMachine, inverse_temperature: float = 1.0) -> Tensor:
    """The means of `pair_moments` under the machine, by enumeration."""
    return log_boltzmann(machine, inverse_temperature).exp().detach() @ pair_moments(all_states(machine.bits))


def draw_states(log_p: Tensor, count: int) -> Tensor:
    """Independent draws from a table of log p over all states."""
    index = torch.multinomial(log_p.detach().exp(), count, replacement=True)
    return all_states(int(math.log2(len(log_p))))[index]


def state_counts(z: Tensor) -> Tensor:
    """How many rows are each state, in the order of all_states."""
    bits = z.shape[-1]
    code = (z.reshape(-1, bits).double() @ (2.0 ** torch.arange(bits - 1, -1, -1, dtype=torch.float64))).long()
    return torch.bincount(code, minlength=2**bits)


def assert_distributed(z: Tensor, log_p: Tensor) -> None:
    """Chi-square over all states at the tail probability of five sigma; states rarer than 5 counts are pooled."""
    counts, expected = state_counts(z).double(), len(z) * log_p.detach().exp()
    assert not counts[expected == 0].any(), "states that cannot be"
    rare = expected < 5
    pooled = [torch.cat([v[~rare], v[rare].sum()[None]]) if rare.any() else v for v in (counts, expected)]
    if rare.any() and pooled[1][-1] < 5:
        pooled = [torch.cat([v[:-2], v[-2:].sum()[None]]) for v in pooled]
    statistic = float(((pooled[0] - pooled[1]) ** 2 / pooled[1]).sum())
    assert stats.chi2.sf(statistic, len(pooled[0]) - 1) > 5.7e-7, f"chi-square {statistic} of {len(pooled[0])} cells"


def log_boltzmann(machine: BoltzmannMachine, inverse_temperature: float = 1.0) -> Tensor:
    """log p(z) of every state, normalised by enumeration."""
    return torch.log_softmax(-inverse_temperature * pair_by_pair_energy(machine, all_states(machine.bits)), 0)


def log_prior(prior: Prior, z: Tensor, zeta: Tensor) -> Tensor:
    """log p(z | earlier zeta) for states z (..., bits), by definition; zeta = z in the binary limit."""
    if isinstance(prior, BoltzmannPrior):
        log_z = torch.logsumexp(-pair_by_pair_energy(prior.machine, all_states(prior.machine.bits)), 0)
        return -pair_by_pair_energy(prior.machine, z) - log_z
    first = prior.first if isinstance(prior, DirectedPrior) else prior
    assert isinstance(first, BernoulliPrior)
    log_p = log_bernoulli(first.bias, z[..., : len(first.bias)])
    start = len(first.bias)
    for network in prior.networks if isinstance(prior, DirectedPrior) else ():
        logits = network(zeta[..., :start])
        log_p = log_p + log_bernoulli(logits, z[..., start : start + logits.shape[-1]])
        start += logits.shape[-1]
    assert start == z.shape[-1]
    return log_p


def prior_bits(prior: Prior) -> int:
    """How many bits the prior is over."""
    if isinstance(prior, BoltzmannPrior):
        return prior.machine.bits
    with torch.random.fork_rng():
        return prior.sample(1).shape[-1]


def log_bernoulli(logits: Tensor, z: Tensor) -> Tensor:
    """sum_i log of the probability of bit z_i."""
    logits = logits.double()
    return torch.where(z > 0.5, torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)).sum(-1)


def randomise(module: nn.Module, sd: float = 1.0, seed: int = 0) -> Any:
    """The module in float64 with every parameter drawn from N(0, sd^2)."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(sd * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def network(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, outputs))


def machine(*blocks: int, sd: float = 0.8, seed: int = 0) -> BoltzmannMachine:
    made: BoltzmannMachine = randomise(BoltzmannMachine(*blocks), sd, seed)
    return made


def sparse_machine(*blocks: int, pairs: Sequence[tuple[int, int]], sd: float = 0.8, seed: int = 0) -> BoltzmannMachine:
    """A machine of these pairs only; the raw couplings of the others are not zero."""
    mask = torch.zeros(sum(blocks), sum(blocks), dtype=torch.bool)
    for i, j in pairs:
        mask[i, j] = True
    made: BoltzmannMachine = randomise(BoltzmannMachine(*blocks, mask=mask), sd, seed)
    return made


every_shape = [(3, 2), (2, 3, 2), (1, 1, 1, 1, 1), (5,), (4, 1), (1, 2, 1, 2), (3, 1, 2)]
"""Blocks of Boltzmann machines."""

every_mask: dict[str, tuple[tuple[int, ...], tuple[tuple[int, int], ...]]] = {
    "rbm": ((3, 2), ((0, 3), (1, 3), (2, 4))),
    "three-blocks": ((2, 3, 1), ((0, 2), (1, 4), (3, 5), (0, 5))),
    "lower-triangle": ((2, 2, 2), ((2, 0), (5, 3), (4, 1), (1, 3), (3, 1))),
    "single-bits": ((1, 1, 1, 1, 1), ((0, 1), (1, 2), (4, 2))),
    "no-pairs": ((2, 2), ()),
}
"""Blocks, and the only pairs of bits that are coupled."""

every_machine: dict[str, Callable[..., BoltzmannMachine]] = {
    **{str(blocks): partial(machine, *blocks) for blocks in every_shape},
    **{f"masked-{name}": partial(sparse_machine, *blocks, pairs=pairs) for name, (blocks, pairs) in every_mask.items()},
}

RING = tuple((i, 3 + (i + k) % 3) for i in range(3) for k in range(2))
"""The pairs of a ring of six bits in two blocks of three: fewer are summed jointly than lie outside a block."""
WHEEL = ((0, 3), (0, 4), (1, 3), (1, 4), (2, 3), (2, 4), (0, 5), (1, 5), (4, 5))
"""The pairs of six bits in blocks (3, 2, 1)."""


def directed(*sizes: int) -> DirectedPrior:
    ends = list(itertools.accumulate(sizes))
    nets = [network(end, size) for end, size in zip(ends, sizes[1:], strict=False)]
    made: DirectedPrior = randomise(DirectedPrior(sizes[0], *nets), 0.8, 1)
    return made


@dataclass(frozen=True)
class PriorCase:
    """A prior over six bits with random parameters, and the sizes of the encoder's groups that it is asked about."""

    make: Callable[[], Prior]
    groups: tuple[int, ...]


def boltzmann_prior(*blocks: int, **settings: Any) -> BoltzmannPrior:
    return BoltzmannPrior(machine(*blocks), **settings)


def sparse_prior(*blocks: int, pairs: Sequence[tuple[int, int]]) -> BoltzmannPrior:
    return BoltzmannPrior(sparse_machine(*blocks, pairs=pairs))


def forced_chains(*blocks: int) -> BoltzmannPrior:
    """A small machine treated as a large one; its log Z, which only the value needs, is found exactly."""
    prior = boltzmann_prior(*blocks, chains=PersistentChains(200, 5), exact_bits=0)
    prior.double()
    prior.log_partition = BoltzmannPrior(prior.machine).estimate_log_partition()
    return prior


every_prior: dict[str, PriorCase] = {
    "bernoulli": PriorCase(lambda: randomise(BernoulliPrior(6), 0.8), (6,)),
    "directed-2": PriorCase(lambda: directed(3, 3), (3, 3)),
    "directed-3": PriorCase(lambda: directed(1, 3, 2), (1, 3, 2)),
    "rbm-1-group": PriorCase(partial(boltzmann_prior, 3, 3), (6,)),
    "rbm-2-groups": PriorCase(partial(boltzmann_prior, 3, 3), (3, 3)),
    "rbm-2-groups-across": PriorCase(partial(boltzmann_prior, 3, 3), (2, 4)),
    "rbm-4-groups": PriorCase(partial(boltzmann_prior, 3, 3), (1, 2, 2, 1)),
    "three-blocks": PriorCase(partial(boltzmann_prior, 2, 3, 1), (4, 2)),
    "ring": PriorCase(partial(sparse_prior, 3, 3, pairs=RING), (2, 4)),
    "sparse-three-blocks": PriorCase(partial(sparse_prior, 3, 2, 1, pairs=WHEEL), (3, 3)),
    "full": PriorCase(partial(boltzmann_prior, *[1] * 6), (3, 3)),
    "rbm-chains": PriorCase(partial(forced_chains, 3, 3), (3, 3)),
}


# --- samplers, likelihoods, local variables, optimisers, data sets, tables --------------------------------------------

every_sampler: dict[str, Sampler] = {
    "persistent": PersistentChains(4000, 2),
    "tempered": TemperedChains(2000, 2, temperatures=3),
    "tempered-one-sweep": TemperedChains(1000, 1, temperatures=4),
    "annealed": AnnealedPopulation(4000, 5),
    "exact": ExactSamples(4000),
    "annealer": SimulatedAnnealer(4000, 40),
}

every_likelihood: list[Likelihood] = [
    BernoulliLikelihood(),
    NormalLikelihood(),
    CategoricalLikelihood(5),
    PoissonLikelihood(),
    MixedLikelihood(columns=(PoissonLikelihood(), CategoricalLikelihood(3), NormalLikelihood(), PoissonLikelihood())),
    DiscretizedLogisticMixture(components=4, values=1),
    DiscretizedLogisticMixture(components=3, values=3),
]

every_local: dict[str, LocalVariables] = {"normal": NormalVariables(), "bernoulli": BernoulliVariables()}

every_optimiser: dict[str, Optimiser] = {"adam": Adam(epsilon=1e-4), "muon": MuonAndAdam(rate=3.0, momentum=0.9)}

every_data_set: dict[str, tuple[tuple[int, ...], tuple[int, int, int]]] = {
    "digits": ((28, 28), (4000, 500, 500)),
    "mnist-static": ((28, 28), (50_000, 10_000, 10_000)),
    "mnist-dynamic": ((28, 28), (50_000, 10_000, 10_000)),
    "omniglot": ((28, 28), (23_000, 1345, 8070)),
    "omniglot-lake": ((28, 28), (23_000, 1345, 8070)),
    "omniglot-static": ((28, 28), (23_000, 1345, 8070)),
    "omniglot-lake-static": ((28, 28), (23_000, 1345, 8070)),
    "caltech101-silhouettes": ((28, 28), (4100, 2264, 2307)),
    "cifar10": ((32, 32, 3), (45_000, 5000, 10_000)),
}
"""The shape of an example, and how many are train, valid and test."""

every_table: dict[str, int] = {"quick": 3, "table-1": 54, "table-2": 48, "table-3": 66}
"""How many cells there are."""

# --- estimators -------------------------------------------------------------------------------------------------------

FEATURES = 4
"""Of an estimator's context: the pixels of `tiny_model`."""


def learned(estimator: Any) -> Any:
    """The estimator in float64, as if it had learned something: a baseline that is wrong, an eta that is not 1."""
    return randomise(estimator, 0.3, 7)


every_estimator: dict[str, Callable[[int], Estimator]] = {
    "reinforce": lambda bits: Reinforce(),
    "leave-one-out-2": lambda bits: LeaveOneOut(),
    "leave-one-out-4": lambda bits: LeaveOneOut(samples=4),
    "nvil": lambda bits: learned(NVIL(FEATURES, torch.full((FEATURES,), 0.4), hidden=5)),
    "vimco": lambda bits: VIMCO(samples=3),
    "arm": lambda bits: ARM(),
    "disarm": lambda bits: DisARM(),
    "arms-3": lambda bits: ARMS(samples=3),
    "arms-5": lambda bits: ARMS(samples=5),
    "muprop": lambda bits: learned(MuProp()),
    "muprop-context": lambda bits: learned(MuProp(FEATURES, hidden=5)),
    "double-control-variates": lambda bits: DoubleControlVariates(),
    "double-control-variates-3": lambda bits: DoubleControlVariates(samples=3, alpha=-0.4),
    "rebar": lambda bits: learned(REBAR()),
    "rebar-fixed": lambda bits: learned(
        REBAR(FEATURES, hidden=5, temperature=0.2, learn_temperature=False, muprop=False)
    ),
    "relax": lambda bits: learned(RELAX(bits, layers=(5,))),
    "relax-context": lambda bits: learned(RELAX(bits, FEATURES, hidden=5, layers=(5, 5))),
    "local-expectation": lambda bits: LocalExpectation(),
    "straight-through": lambda bits: StraightThroughEstimator(),
    "straight-through-gumbel": lambda bits: StraightThroughGumbelEstimator(temperature=0.7),
    "gumbel-rao": lambda bits: GumbelRao(temperature=0.7, samples=4),
    "reinmax": lambda bits: ReinMaxEstimator(),
    "reinmax-2": lambda bits: ReinMaxEstimator(temperature=2.0),
    "darn": lambda bits: DARN(),
    "piecewise-linear": lambda bits: PiecewiseLinear(beta=3.0),
    "relaxed-bernoulli": lambda bits: RelaxedBernoulli(temperature=0.6),
}
"""Made for so many bits, and a context of FEATURES where it sees one."""

# --- objectives and models --------------------------------------------------------------------------------------------

Objective = Callable[[Any, Tensor], Tensor]

every_objective: dict[str, Objective] = {
    "joint": joint_elbo,
    "marginal": marginal_elbo,
    "elbo": partial(elbo, estimator=LeaveOneOut(), analytic_kl=False),
    "importance-1": partial(importance_weighted, num_samples=1),
    "importance-3": partial(importance_weighted, num_samples=3),
    "importance-10": partial(importance_weighted, num_samples=10),
    "importance-1-soft": partial(importance_weighted, num_samples=1, smoothing=OverlappingExponential(6.0)),
    "importance-3-soft": partial(importance_weighted, num_samples=3, smoothing=OverlappingExponential(6.0)),
    "importance-10-soft": partial(importance_weighted, num_samples=10, smoothing=OverlappingLogistic(6.0)),
}


def tiny_model(
    prior: Prior, groups: Sequence[int], smoothing: Smoothing | None = None, seed: int = 2
) -> FeedForwardVAE:
    """A model of four pixels with random nonlinear networks, float64; the prior keeps its parameters."""
    ends = [0, *itertools.accumulate(groups)]
    encoder = HierarchicalEncoder(*(network(PIXELS + s, size) for s, size in zip(ends, groups, strict=False)))
    randomise(encoder, 0.7, seed)
    decoder = randomise(network(ends[-1], PIXELS), 0.9, seed + 1)
    return FeedForwardVAE(encoder, prior, decoder, smoothing or OverlappingExponential(6.0))


def case_model(name: str, smoothing: Smoothing | None = None) -> FeedForwardVAE:
    case = every_prior[name]
    return tiny_model(case.make(), case.groups, smoothing)


def images() -> Tensor:
    """Two images of four pixels, float64."""
    return torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]], dtype=torch.float64)


def log_pixels(model: FeedForwardVAE, zeta: Tensor, x: Tensor) -> Tensor:
    """log p(x | zeta), pixel by pixel."""
    return log_bernoulli(model.decoder(zeta), x)


def exact_log_likelihood(model: FeedForwardVAE, x: Tensor) -> Tensor:
    """log p(x) = log sum_z p(z) p(x | z) of the binary model, over all states; (batch,), differentiable."""
    z = all_states(prior_bits(model.prior))
    return torch.logsumexp(log_prior(model.prior, z, z) + model.decode(z).log_prob(x[:, None, :]), 1)


def exact_log_q(model: FeedForwardVAE, x: Tensor) -> Tensor:
    """log q(z | x) of the binary model for every state, (batch, states): each group sees the earlier bits."""
    states = all_states(prior_bits(model.prior))
    pixels, z = x[:, None, :].expand(-1, len(states), -1), states.expand(len(x), -1, -1)
    log_q, start = torch.zeros(len(x), len(states), dtype=torch.float64), 0
    for level in model.encoder.levels:
        logits = level(torch.cat([pixels, z[..., :start]], -1))
        log_q = log_q + log_bernoulli(logits, z[..., start : start + logits.shape[-1]])
        start += logits.shape[-1]
    return log_q


# --- statistics -------------------------------------------------------------------------------------------------------


def errors_off(samples: Tensor, exact: Tensor | float) -> Tensor:
    """How many standard errors the mean over the first axis lies from the exact value."""
    standard_error = samples.std(0) / math.sqrt(len(samples))
    return (samples.mean(0) - exact).abs() / (standard_error + 1e-12)


def assert_mean(samples: Tensor, exact: Tensor | float, sigmas: float = 5.0) -> None:
    """The mean over the first axis is the exact value, to so many standard errors."""
    worst = errors_off(samples.detach(), exact.detach() if isinstance(exact, Tensor) else exact).max()
    assert worst < sigmas, f"{float(worst):.1f} standard errors off: {samples.mean(0)} against {exact}"


def batch_gradients(estimate: Callable[[], Tensor], parameters: Sequence[Tensor], batches: int) -> Tensor:
    """The gradients of independent estimates, flattened: (batches, entries)."""
    rows = []
    for _ in range(batches):
        rows.append(flat_gradient(estimate(), parameters))
    return torch.stack(rows)


def flat_gradient(value: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """d value / d parameters in one vector; 0 where a parameter does not take part."""
    gradients = torch.autograd.grad(value, list(parameters), retain_graph=True, allow_unused=True)
    pairs = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in pairs])
