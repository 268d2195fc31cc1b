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

from dvaepp.latent.boltzmann import BoltzmannMachine
from dvaepp.latent.overlapping import OverlappingExponential, OverlappingLogistic
from dvaepp.latent.priors import BernoulliPrior, BoltzmannPrior, DirectedPrior, Prior
from dvaepp.latent.sampling import PersistentChains
from dvaepp.latent.smoothing import Overlapping, Smoothing
from dvaepp.models.feedforward import FeedForwardVAE, HierarchicalEncoder
from dvaepp.objectives.bounds import importance_weighted, joint_elbo, marginal_elbo

PIXELS = 4


# --- smoothings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SmoothingCase:
    """A smoothing and the same two densities by scipy; without density1, it is density0 mirrored about 1/2."""

    smoothing: Overlapping
    density0: Any
    density1: Any = None

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
        return torch.where(zeta.double() < 0.5, lower, upper)

    def component_sample(self, z: Tensor, generator: np.random.Generator) -> Tensor:
        """zeta ~ r(zeta | z) by the components' own inverse CDF, at bits z."""
        rho = generator.uniform(size=tuple(z.shape))
        zeta0 = self.density0.ppf(rho)
        zeta1 = 1 - zeta0 if self.density1 is None else self.density1.ppf(rho)
        return torch.where(z > 0.5, torch.from_numpy(zeta1), torch.from_numpy(zeta0))

    @property
    def ends(self) -> tuple[float, float]:
        """Where all mass but 1e-16 lies."""
        low, high = self.density0.support()
        return max(low, self.density0.ppf(1e-17)), high if math.isfinite(high) else 1 - self.density0.ppf(1e-17)


class _TruncatedExponential:
    """r(zeta | 0) = exp(-beta zeta) / Z_beta on [0, 1], by scipy's truncexpon with a finite survival function."""

    def __init__(self, beta: float) -> None:
        self.law = stats.truncexpon(b=beta, scale=1 / beta)
        self.beta = beta

    def pdf(self, zeta: Any) -> Any:
        return self.law.pdf(zeta)

    def cdf(self, zeta: Any) -> Any:
        return self.law.cdf(zeta)

    def sf(self, zeta: Any) -> Any:
        """The integral of the density from zeta to 1, in closed form: scipy's cancels."""
        zeta = np.clip(zeta, 0, 1)
        return np.exp(-self.beta * zeta) * np.expm1(-self.beta * (1 - zeta)) / np.expm1(-self.beta)

    def ppf(self, rho: Any) -> Any:
        return self.law.ppf(rho)

    def support(self) -> tuple[float, float]:
        return self.law.support()


def exponential(beta: float | Tensor) -> SmoothingCase:
    return SmoothingCase(OverlappingExponential(beta), _TruncatedExponential(float(beta)))


def logistic(beta: float | Tensor) -> SmoothingCase:
    return SmoothingCase(OverlappingLogistic(beta), stats.logistic(scale=1 / float(beta)))


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
}


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
    """-sum_i b_i z_i - sum_{i < j} J_ij z_i z_j, one term after the other."""
    couplings = machine.coupling_matrix()
    energy = torch.zeros(z.shape[:-1], dtype=z.dtype)
    for i in range(machine.bits):
        energy = energy - machine.bias[i] * z[..., i]
        for j in range(i + 1, machine.bits):
            energy = energy - couplings[i, j] * z[..., i] * z[..., j]
    return energy


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
    "full": PriorCase(partial(boltzmann_prior, *[1] * 6), (3, 3)),
    "rbm-chains": PriorCase(partial(forced_chains, 3, 3), (3, 3)),
}


# --- objectives and models --------------------------------------------------------------------------------------------

Objective = Callable[[Any, Tensor], Tensor]

every_objective: dict[str, Objective] = {
    "joint": joint_elbo,
    "marginal": marginal_elbo,
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
