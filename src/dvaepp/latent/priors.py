"""Priors over bits: independent, directed (Sec. 4) and Boltzmann machine (Sec. 5), on one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.latent.annealing import annealed_importance_sampling
from dvaepp.latent.assessment import estimate_log_partition, exact
from dvaepp.latent.boltzmann import BoltzmannMachine
from dvaepp.latent.convergence import ChainHealth, chain_health
from dvaepp.latent.gradients import replace_gradient
from dvaepp.latent.hard import hard
from dvaepp.latent.partition import LogPartition, exact_log_partition, exact_log_partition_given, exact_sample
from dvaepp.latent.partition import exact_bits as bits_to_sum
from dvaepp.latent.posterior import Posterior, bernoulli_entropy
from dvaepp.latent.sampling import Sampler
from dvaepp.latent.smoothing import Overlapping, Smoothing

_SWEEPS_APART = 40
MOST_BITS_PER_EXAMPLE = 10
"""p(zeta) of a Boltzmann machine sums 2^bits states for every example: tractable up to this many."""

NORMALISED = LogPartition(0.0, 0.0, None, True, "normalised by construction")


class Prior(nn.Module, ABC):
    """p(z) over all the bits, whose log Z is `log_partition`: None until it has been estimated for the first time."""

    log_partition: LogPartition | None
    joins_groups = False
    """Whether the KL joins bits of different groups, and so rests on nu (Sec. 5)."""

    @abstractmethod
    def kl_terms(self, q: Any) -> Float[Tensor, "*batch terms"]:
        """The terms of KL(q(z, zeta | x) || p(z, zeta)), nats, for the draw in q: one a group, or one in all."""

    def kl(self, q: Any) -> Float[Tensor, "*batch"]:
        """KL(q(z, zeta | x) || p(z, zeta)), nats: an estimate from q's one draw, unbiased in value and gradient."""
        return self.kl_terms(q).sum(-1)

    @abstractmethod
    def log_prob(self, zeta: Float[Tensor, "*batch bits"], smoothing: Smoothing) -> Float[Tensor, "*batch"]:
        """log p(zeta), nats, with z summed out; with `hard`, log p(z)."""

    def log_prob_bits(
        self, z: Float[Tensor, "*batch bits"], zeta: Float[Tensor, "*batch bits"]
    ) -> Float[Tensor, "*batch"]:
        """log p(z | zeta) = sum_k log p(z_k | zeta_<k), nats, for bits z; here zeta takes no part."""
        return self.log_prob(z, hard)

    def has_density(self, smoothing: Smoothing) -> bool:
        """Whether log_prob can be had for this smoothing."""
        return True

    @abstractmethod
    def sample(self, num_samples: int) -> Float[Tensor, "samples bits"]:
        """Bits drawn from p(z), in the binary limit. Moves no state but the random generator's."""

    def refresh(self) -> None:
        """Advance what the gradient of log Z is estimated from, if anything: call it once a training step."""

    def restart(self) -> None:
        """Begin the chains anew from the random state as it is, if there are any."""

    def chain_health(self) -> ChainHealth | None:
        """How the chains are that the gradient of log Z comes from; None where there are none. Moves no state."""
        return None

    def estimate_log_partition(
        self, *, temperatures: int = 1000, chains: int = 1024, repeats: int = 3, thorough: bool = False
    ) -> LogPartition:
        """Find log Z for the parameters as they are now, and keep it as `log_partition`.

        The settings are those of annealed importance sampling, used where log Z cannot be had exactly; `thorough` adds
        other ways, which must agree with it (`dvaepp.estimate_log_partition`).
        """
        return NORMALISED

    @property
    def log_partition_is_current(self) -> bool:
        """Whether the parameters are still those that `log_partition` was found for."""
        return True


class _DirectedByLogits(Prior, ABC):
    """A prior that is normalised by construction, given by the logits of every bit given the zeta of earlier groups."""

    log_partition = NORMALISED

    @abstractmethod
    def logits(self, zeta: Float[Tensor, "*batch bits"]) -> Float[Tensor, "*batch bits"]:
        """log odds of p(z_k = 1 | zeta_<k), for all groups side by side."""

    def kl_terms(self, q: Posterior) -> Float[Tensor, "*batch groups"]:
        """KL(q(z_k | x, zeta_<k) || p(z_k | zeta_<k)) for every group k of q (Eq. 4)."""
        logits = self.logits(q.zeta)
        cross_entropy = F.softplus(logits) - q.mu * logits
        groups = torch.split(cross_entropy - bernoulli_entropy(q.logits), list(q.sizes), -1)
        return torch.stack([kl.sum(-1) for kl in groups], -1)

    def log_prob_bits(
        self, z: Float[Tensor, "*batch bits"], zeta: Float[Tensor, "*batch bits"]
    ) -> Float[Tensor, "*batch"]:
        """sum_k log p(z_k | zeta_<k)."""
        return hard(self.logits(zeta)).log_prob(z).sum(-1)

    def log_prob(self, zeta: Float[Tensor, "*batch bits"], smoothing: Smoothing) -> Float[Tensor, "*batch"]:
        """sum_k log p(zeta_k | zeta_<k), p(zeta | ...) = sum_z r(zeta | z) p(z | ...) (Eq. 5)."""
        return smoothing(self.logits(zeta)).log_prob(zeta).sum(-1)


class BernoulliPrior(_DirectedByLogits):
    """p(z) = prod_i Bernoulli(z_i), with learned logits that start at 0."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        if isinstance(bits, bool) or not isinstance(bits, int) or bits < 1:
            raise InputError(f"bits of a BernoulliPrior must be a positive whole number, not {bits!r}")
        self.bias = nn.Parameter(torch.zeros(bits))

    def logits(self, zeta: Float[Tensor, "*batch bits"]) -> Float[Tensor, "*batch bits"]:
        """The learned logits, whatever zeta is."""
        check_bits("a BernoulliPrior", self.bias.numel(), zeta)
        return self.bias.expand_as(zeta)

    @torch.no_grad()
    def sample(self, num_samples: int) -> Float[Tensor, "samples bits"]:
        """Independent bits."""
        return torch.bernoulli(torch.sigmoid(self.bias).expand(num_samples, -1))


class DirectedPrior(_DirectedByLogits):
    """p(z_1) prod_k p(z_k | zeta_<k) (Fig. 2c).

    `bits` learned logits for z_1; then, for each further group, a network from zeta_<k, side by side, to its logits.
    """

    def __init__(self, bits: int, *networks: nn.Module) -> None:
        super().__init__()
        self.first = BernoulliPrior(bits)
        self.networks = nn.ModuleList(networks)

    def logits(self, zeta: Float[Tensor, "*batch bits"]) -> Float[Tensor, "*batch bits"]:
        """Learned logits of the first group, then each network's of what comes before its group."""
        logits = self.first.logits(zeta[..., : self.first.bias.numel()])
        for network in self.networks:
            logits = torch.cat([logits, network(zeta[..., : logits.shape[-1]])], -1)
        check_bits("this DirectedPrior", logits.shape[-1], zeta)
        return logits

    @torch.no_grad()
    def sample(self, num_samples: int) -> Float[Tensor, "samples bits"]:
        """Ancestral, in the binary limit zeta = z."""
        z = self.first.sample(num_samples)
        for network in self.networks:
            z = torch.cat([z, torch.bernoulli(torch.sigmoid(network(z)))], -1)
        return z


class BoltzmannPrior(Prior):
    """p(z) = exp(-E(z)) / Z, a Boltzmann machine (Sec. 5, Fig. 2g).

    Where at most `exact_bits` bits have to be summed over jointly (those outside the machine's largest block, or its
    graph's treewidth), log Z, its gradient and samples are exact and no chains are needed. Else the gradient of log Z
    comes from the samples of `chains`, any Sampler (call `refresh()` once a step), and its value from
    `estimate_log_partition()`; until that has been called, `kl` is a loss with the right gradient, and no bound.
    """

    joins_groups = True

    def __init__(self, machine: BoltzmannMachine, chains: Sampler | None = None, *, exact_bits: int = 16) -> None:
        super().__init__()
        self.machine = machine
        self.exact = bits_to_sum(machine) <= exact_bits
        if chains is not None and not isinstance(chains, Sampler):
            raise InputError(f"chains of a BoltzmannPrior must be a Sampler, such as PersistentChains, not {chains!r}")
        if not self.exact and chains is None:
            raise InputError(
                f"a Boltzmann machine of blocks {machine.blocks} is too large to enumerate: BoltzmannPrior needs "
                "chains, such as PersistentChains(1000, sweeps=40)"
            )
        self.chains = None if self.exact else chains
        self.log_partition = None
        self._estimated_for: list[Tensor] = []
        self.states: Tensor
        states = machine.bias.new_zeros(0, machine.bits) if self.chains is None else self.chains.start(machine)
        self.register_buffer("states", states)

    def kl_terms(self, q: Posterior) -> Float[Tensor, "*batch 1"]:
        """log Z - H(q) + E_q[E(z)] (Eq. 6, simplified form): one term, since the machine joins all groups."""
        return (self.log_z() - q.entropy() + self.machine.expected_energy(q))[..., None]

    def log_z(self) -> Float[Tensor, ""]:
        """log Z: its value exact or as last estimated, its gradient exact or the chains'.

        The chains' gradient is that of mean_l log sum_s exp(-E(s, r_l)), r_l the bits outside the summed-out block s:
        -E[dE] with that block averaged over analytically (Appendix E).
        """
        if self.exact:
            return exact_log_partition(self.machine)
        surrogate = self.machine.log_marginal(self.samples).mean()
        if self.log_partition is None:
            return surrogate
        return replace_gradient(torch.full_like(surrogate, self.log_partition.value), surrogate)

    def has_density(self, smoothing: Smoothing) -> bool:
        """True in the binary limit, and for overlapping smoothings of machines small enough to sum for each example."""
        few = self.exact and self.machine.enumerated_bits <= MOST_BITS_PER_EXAMPLE
        return smoothing.binary or (few and isinstance(smoothing, Overlapping))

    def log_prob(self, zeta: Float[Tensor, "*batch bits"], smoothing: Smoothing) -> Float[Tensor, "*batch"]:
        """-E(z) - log Z with `hard`; else log sum_z p(z) prod_i r(zeta_i | z_i), by enumeration.

        The sum is the partition function of a machine with biases raised by log r(zeta | 1) - log r(zeta | 0).
        """
        if smoothing.binary:
            return -self.machine.energy(zeta) - self.log_z()
        if not smoothing.shared_conditional:
            raise InputError(f"{smoothing} has no bound with a Boltzmann prior: use a directed prior")
        if not (self.has_density(smoothing) and isinstance(smoothing, Overlapping)):
            raise InputError(
                f"p(zeta) under {smoothing} has no tractable density for a Boltzmann machine of blocks "
                f"{self.machine.blocks}, which is too large to enumerate: use joint_elbo, or smoothing=hard"
            )
        check_bits("this BoltzmannPrior", self.machine.bits, zeta)
        log_unnormalised = exact_log_partition_given(self.machine, smoothing.log_ratio(zeta))
        return smoothing.log_prob0(zeta).sum(-1) + log_unnormalised - self.log_z()

    def sample(self, num_samples: int) -> Float[Tensor, "samples bits"]:
        """Exact where that can be; else copies of the chains' samples, 40 Gibbs sweeps away from what each copies."""
        if self.chains is None:
            return exact_sample(self.machine, num_samples)
        start = torch.randint(len(self.samples), (num_samples,), device=self.states.device)
        return self.machine.gibbs(self.samples[start], _SWEEPS_APART)

    @property
    def samples(self) -> Float[Tensor, "samples bits"]:
        """The chains' samples of p(z), which the gradient of log Z is taken from."""
        return self.states if self.chains is None else self.chains.samples(self.states)

    def refresh(self) -> None:
        """Advance the chains by one step of their sampler."""
        if self.chains is not None:
            self.states.copy_(self.chains.advance(self.machine, self.states))

    def restart(self) -> None:
        """Begin the chains anew."""
        if self.chains is not None:
            self.states.copy_(self.chains.start(self.machine))

    def chain_health(self) -> ChainHealth | None:
        """The temperature of the samples, and how copies of 100 of them move in 100 Gibbs sweeps."""
        return None if self.chains is None else chain_health(self.machine, self.samples)

    def estimate_log_partition(
        self, *, temperatures: int = 1000, chains: int = 1024, repeats: int = 3, thorough: bool = False
    ) -> LogPartition:
        """Exact where that can be, else annealed importance sampling with these settings; kept as `log_partition`.

        `thorough` adds parallel tempering and reverse annealing, and a judgement on whether the three agree.
        """
        if self.exact:
            self.log_partition = exact(self.machine)
        else:
            estimate = estimate_log_partition if thorough else annealed_importance_sampling
            self.log_partition = estimate(self.machine, temperatures=temperatures, chains=chains, repeats=repeats)
        self._estimated_for = self._parameter_copies()
        return self.log_partition

    @property
    def log_partition_is_current(self) -> bool:
        """False before the estimate, and once the machine's parameters have changed since."""
        if not self._estimated_for:
            return False
        pairs = zip(self._estimated_for, self.machine.parameters(), strict=True)
        return all(torch.equal(then.to(now.device), now) for then, now in pairs)

    def restore_log_partition(self, log_partition: LogPartition) -> None:
        """Take an estimate that was stored with the parameters as they are now."""
        self.log_partition, self._estimated_for = log_partition, self._parameter_copies()

    def _parameter_copies(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.machine.parameters()]


def check_bits(owner: str, bits: int, zeta: Tensor) -> None:
    """InputError unless zeta has as many variables as its owner."""
    if zeta.shape[-1] != bits:
        raise InputError(f"{owner} has {bits} bits, but was given a tensor of shape {tuple(zeta.shape)}")
