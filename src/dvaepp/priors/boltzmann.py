"""The Boltzmann-machine prior and Eq. 6 (Sec. 5, Fig. 2g)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from dvaepp.boltzmann.agreement import estimate_log_partition, exact
from dvaepp.boltzmann.annealing import annealed_importance_sampling
from dvaepp.boltzmann.diagnostics import ChainDiagnostics, chain_diagnostics
from dvaepp.boltzmann.enumeration import bits_to_sum, exact_log_partition, exact_log_partition_weighted, exact_sample
from dvaepp.boltzmann.graphs import hardware_graph, machine_on_graph, read_edges
from dvaepp.boltzmann.log_partition import LogPartition
from dvaepp.boltzmann.machine import BoltzmannMachine, in_own_precision
from dvaepp.boltzmann.samplers import PersistentChains, Sampler
from dvaepp.errors import InputError
from dvaepp.gradients import replace_gradient
from dvaepp.numerics import whole
from dvaepp.priors.base import Prior, PriorDesign
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.overlapping import Overlapping
from dvaepp.smoothings.posterior import Posterior
from dvaepp.states import from_json_tensor, json_tensor, keep_extra_state

_SWEEPS_APART = 40
MOST_BITS_PER_EXAMPLE = 10
"""p(zeta) of a Boltzmann machine sums 2^bits states for every example: tractable up to this many."""


class BoltzmannPrior(Prior):
    """p(z) = exp(-E(z)) / Z, a Boltzmann machine (Sec. 5, Fig. 2g).

    Where at most `exact_bits` bits have to be summed over jointly (those outside the machine's largest block, or its
    graph's treewidth), log Z, its gradient and samples are exact and no chains are needed. Else the gradient of log Z
    comes from the samples of `chains`, any Sampler (call `refresh()` once a step), and its value from
    `estimate_log_partition()`: without it `kl` is a loss with the right gradient, no bound, and `log_prob` is refused.

    >>> from dvaepp import PersistentChains
    >>> prior = BoltzmannPrior(BoltzmannMachine(20, 20), PersistentChains(100, sweeps=5))
    >>> prior.refresh()
    >>> round(prior.estimate_log_partition(temperatures=10, chains=50).value, 3)  # 40 fair bits
    27.726
    """

    joins_groups = True

    def __init__(self, machine: BoltzmannMachine, chains: Sampler | None = None, *, exact_bits: int = 16) -> None:
        super().__init__()
        for hook in (keep_extra_state, _check_chains):
            self.register_load_state_dict_pre_hook(hook)  # type: ignore[no-untyped-call]
        self._log_partition: LogPartition | None = None
        self._found_for = ""
        self.machine = machine
        self.exact = bits_to_sum(machine) <= whole("exact_bits of a BoltzmannPrior", exact_bits, least=0)
        if chains is not None and not isinstance(chains, Sampler):
            raise InputError(f"chains of a BoltzmannPrior must be a Sampler, such as PersistentChains, not {chains!r}")
        if not self.exact and chains is None:
            raise InputError(
                f"a Boltzmann machine of blocks {machine.blocks} is too large to enumerate: BoltzmannPrior needs "
                "chains, such as PersistentChains(1000, sweeps=40)"
            )
        self.chains = None if self.exact else chains
        self.states: Tensor
        states = machine.bias.new_zeros(0, machine.bits) if self.chains is None else self.chains.start(machine)
        self.register_buffer("states", states)

    def kl_terms(self, q: Posterior) -> Float[Tensor, "*batch 1"]:
        """log Z - H(q) + E_q[E(z)] (Eq. 6, simplified form): one term, since the machine joins all groups."""
        return (self.log_z() - q.entropy() + expected_energy(self.machine, q))[..., None]

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

    def log_prob(
        self, zeta: Float[Tensor, "*batch bits"], smoothing: Smoothing, *, unnormalised: bool = False
    ) -> Float[Tensor, "*batch"]:
        """-E(z) - log Z with `hard`; else log sum_z p(z) prod_i r(zeta_i | z_i), by enumeration.

        The sum is a partition function with weights r(zeta_i | z_i), as of biases log r(zeta | 1) - log r(zeta | 0).
        Raises InputError where log Z is neither exact nor current, unless it is to be `unnormalised`: without log Z in
        its value, -E(z) with `hard`, but with it in its gradient.
        """
        if smoothing.binary:
            return -self.machine.energy(zeta) - self._normaliser(unnormalised)
        if not smoothing.shared_conditional:
            raise InputError(f"{smoothing} has no bound with a Boltzmann prior: use a directed prior")
        if not (self.has_density(smoothing) and isinstance(smoothing, Overlapping)):
            raise InputError(
                f"p(zeta) under {smoothing} has no tractable density for a Boltzmann machine of blocks "
                f"{self.machine.blocks}, which is too large to enumerate: use joint_elbo, or smoothing=hard"
            )
        self.machine.check(zeta)
        log_densities = smoothing.log_prob0(zeta), smoothing.log_prob1(zeta)
        return exact_log_partition_weighted(self.machine, *log_densities) - self._normaliser(unnormalised)

    def _normaliser(self, unnormalised: bool) -> Float[Tensor, ""]:
        """log Z, which must be exact or current; or 0, with log Z's gradient."""
        if not (self.exact or unnormalised):
            self.known_log_partition()
        log_z = self.log_z()
        return log_z - log_z.detach() if unnormalised else log_z

    def sample(self, num_samples: int) -> Float[Tensor, "samples bits"]:
        """Exact where that can be; else copies of the chains' samples, 40 Gibbs sweeps away from what each copies."""
        if self.chains is None:
            return exact_sample(self.machine, num_samples)
        num_samples = whole("num_samples", num_samples, least=0)
        start = torch.randint(len(self.samples), (num_samples,), device=self.states.device)
        return self.machine.gibbs(self.samples[start], _SWEEPS_APART)

    @property
    def samples(self) -> Float[Tensor, "samples bits"]:
        """The chains' samples of p(z), which the gradient of log Z is taken from."""
        return self.states if self.chains is None else self.chains.samples(self.states)

    def refresh(self, noise: Float[Tensor, "sweeps *_ bits"] | None = None) -> None:
        """Advance the chains by one step of their sampler, with these uniform numbers if it takes them."""
        if self.chains is not None:
            given = {} if noise is None else {"noise": noise}  # a sampler of someone else's need not know the word
            self.states.copy_(self.chains.advance(self.machine, self.states, **given))

    @property
    def chain_noise(self) -> tuple[int, ...] | None:
        """(sweeps, chains, bits) of persistent chains."""
        shape = None if self.chains is None else (self.chains.uniforms, *self.states.shape)
        return shape if type(self).refresh is BoltzmannPrior.refresh else (0,)

    def restart(self) -> None:
        """Begin the chains anew."""
        if self.chains is not None:
            self.states.copy_(self.chains.start(self.machine))

    def chain_diagnostics(self) -> ChainDiagnostics | None:
        """The temperature of the samples, and how copies of 100 of them move in 100 Gibbs sweeps."""
        return None if self.chains is None else chain_diagnostics(self.machine, self.samples)

    def estimate_log_partition(
        self, *, temperatures: int = 1000, chains: int = 1024, repeats: int = 3, thorough: bool = False
    ) -> LogPartition:
        """Exact where that can be, else annealed importance sampling with these settings; kept as `log_partition`.

        `thorough` adds parallel tempering and reverse annealing, and a judgement on whether the three agree.
        """
        estimate = estimate_log_partition if thorough else annealed_importance_sampling
        how: Any = {"temperatures": temperatures, "chains": chains, "repeats": repeats}
        self.log_partition = exact(self.machine) if self.exact else estimate(self.machine, **how)
        return self.log_partition

    @property
    def log_partition(self) -> LogPartition | None:
        """log Z as last found, None before; what is set here is taken to be that of the parameters as they are."""
        return self._log_partition

    @log_partition.setter
    def log_partition(self, found: LogPartition | None) -> None:
        if not (found is None or isinstance(found, LogPartition)):
            raise InputError(f"log_partition of a BoltzmannPrior must be a LogPartition, not {found!r}")
        self._log_partition, self._found_for = found, fingerprint(self.machine)

    @property
    def log_partition_is_current(self) -> bool:
        """False before the estimate, and once the machine's distribution has changed since; reads parameters back."""
        return self._log_partition is not None and self._found_for == fingerprint(self.machine)

    def get_extra_state(self) -> UInt8[Tensor, " bytes"]:
        """log Z and the fingerprint of the machine that it was found for, as JSON in bytes."""
        found = self._log_partition and asdict(self._log_partition)
        return json_tensor({"log_partition": found, "found_for": self._found_for})

    def set_extra_state(self, state: Tensor) -> None:
        """log Z as it was saved, current where the parameters are those that it was found for."""
        what = "log Z of a Boltzmann machine"
        held = from_json_tensor(state, what)
        try:
            found, self._found_for = held["log_partition"], str(held["found_for"])
            self._log_partition = None if found is None else LogPartition(**found)
        except (TypeError, KeyError):
            raise InputError(f"a state dict is damaged: it does not hold {what}") from None


def _check_chains(prior: BoltzmannPrior, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """InputError where a state dict holds other chains than the prior has; a load_state_dict pre-hook."""
    states = state_dict.get(prefix + "states")
    if states is not None and states.shape[:-1] != prior.states.shape[:-1]:
        there, here = (tuple(each.shape[:-1]) for each in (states, prior.states))
        raise InputError(f"a state dict of a BoltzmannPrior with chains {there} does not fit one with chains {here}")


@in_own_precision
def expected_energy(
    machine: BoltzmannMachine, q: Posterior, nu: Float[Tensor, "*batch bits"] | None = None
) -> Float[Tensor, "*batch"]:
    """E[E(z)] = -b'mu - sum_ij J_ij m_ij, m_ij = mu_i mu_j within a group, nu_i mu_j across groups (Sec. 5).

    Groups of q lie side by side over the machine's bits, earlier groups first; they need not be the blocks. Bits
    of one group are independent given the earlier zeta; across groups the later bit depends on the earlier one's
    zeta only. `nu` is q's own unless it is given, with another gradient.
    """
    machine.check(q.mu)
    nu = q.nu if nu is None else nu
    energy = -(q.mu @ machine.bias)
    for s, coupling in machine.interactions():
        for group in q.slices:
            start, stop = max(group.start, s.start), min(group.stop, s.stop)
            if start < stop:
                border = min(group.start, s.start)
                before = torch.cat([nu[..., :border], q.mu[..., border : s.start]], -1)
                field = before @ coupling[:, start - s.start : stop - s.start]
                energy = energy - (field * q.mu[..., start:stop]).sum(-1)
    return energy


@torch.no_grad()
def fingerprint(machine: BoltzmannMachine) -> str:
    """A digest of b and J, all that log Z depends on: the same on every device and in every precision that holds them.

    Couplings of pairs that do not interact take no part.
    """
    parameters = [machine.bias, *(coupling.flatten() for _, coupling in machine.interactions())]
    numbers = torch.cat(parameters).cpu().double() + 0.0  # -0 is 0
    return hashlib.sha256(numbers.numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class RestrictedBoltzmannDesign(PriorDesign):
    """p(z) = exp(-E(z)) / Z, a Boltzmann machine of blocks: two halves of all the bits unless `blocks` says otherwise.

    Where log Z cannot be exact its gradient comes from `sampler`.
    """

    name: ClassVar[str] = "rbm"
    blocks: tuple[int, ...] | None = None
    sampler: Sampler = field(default_factory=PersistentChains)

    def __call__(self, groups: tuple[int, ...], network: Callable[[int, int], nn.Module]) -> BoltzmannPrior:
        """A BoltzmannPrior; InputError unless the blocks hold as many bits as the groups, two at least."""
        bits = sum(groups)
        if bits < 2:
            raise InputError("a restricted Boltzmann machine needs at least 2 bits")
        blocks = self.blocks or (bits - bits // 2, bits // 2)
        if sum(blocks) != bits:
            raise InputError(f"blocks {blocks} hold {sum(blocks)} bits and groups {groups} {bits}")
        return BoltzmannPrior(BoltzmannMachine(*blocks), self.sampler)

    def outline(self) -> RestrictedBoltzmannDesign:
        """With one chain."""
        return replace(self, sampler=PersistentChains(1, 1))


@dataclass(frozen=True)
class GraphBoltzmannDesign(PriorDesign):
    """p(z) = exp(-E(z)) / Z, a Boltzmann machine on a `graph`: hardware's by name, or a CSV file of edges."""

    name: ClassVar[str] = "graph"
    convolutional: ClassVar[bool] = False
    graph: str = "zephyr-2"
    sampler: Sampler = field(default_factory=PersistentChains)

    def __call__(self, groups: tuple[int, ...], network: Callable[[int, int], nn.Module]) -> BoltzmannPrior:
        """A BoltzmannPrior; InputError unless the graph has as many nodes as the groups have bits."""
        edges = hardware_graph(self.graph) if self.file is None else read_edges(Path(self.file).expanduser())
        machine = machine_on_graph(edges)
        if machine.bits != sum(groups):
            raise InputError(f"graph {self.graph} has {machine.bits} nodes and model.groups hold {sum(groups)} bits")
        return BoltzmannPrior(machine, self.sampler)

    def outline(self) -> GraphBoltzmannDesign:
        """With one chain."""
        return replace(self, sampler=PersistentChains(1, 1))

    @property
    def file(self) -> str | None:
        """The graph, where it is a file."""
        return self.graph if self.graph.endswith(".csv") else None

    def with_file(self, path: str) -> GraphBoltzmannDesign:
        """The graph of that file."""
        return replace(self, graph=path)
