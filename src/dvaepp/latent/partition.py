"""The partition function of a Boltzmann machine: exact where it can be, else estimated with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.latent.boltzmann import BoltzmannMachine

MOST_ENUMERATED_BITS = 25
_CHUNK_BITS = 16


@dataclass(frozen=True)
class LogPartition:
    """log Z (nats), how it was found and how far to trust it.

    `standard_error` is 0 for an exact value. `effective_sample_size` is that of the importance weights, None where
    there are none. `trusted` is False where the estimate's own diagnosis says that its error may be larger than stated.
    """

    value: float
    standard_error: float
    effective_sample_size: float | None
    trusted: bool
    method: str

    @property
    def interval(self) -> tuple[float, float]:
        """value -+ 2 standard errors."""
        return self.value - 2 * self.standard_error, self.value + 2 * self.standard_error

    def __str__(self) -> str:
        """For people: value, error, method."""
        error = f" ± {self.standard_error:.3f}" if self.standard_error else ""
        return f"{self.value:.3f}{error} nats ({self.method}{'' if self.trusted else '; not to be trusted'})"


def enumerated_states(
    machine: BoltzmannMachine, start: int = 0, stop: int | None = None
) -> Float[Tensor, "states bits"]:
    """Numbers start to stop of the settings of the bits outside the summed-out block, whose own bits are 0."""
    count = machine.enumerated_bits
    code = torch.arange(start, 2**count if stop is None else stop, device=machine.bias.device)
    bits = ((code[:, None] >> torch.arange(count, device=code.device)) & 1).to(machine.bias.dtype)
    s = machine.slices[machine.summed]
    return torch.cat([bits[:, : s.start], bits.new_zeros(len(bits), s.stop - s.start), bits[:, s.start :]], 1)


def enumerated_log_marginals(machine: BoltzmannMachine) -> Float[Tensor, " states"]:
    """log sum over the summed-out block of exp(-E), for every setting of the other bits."""
    return machine.log_marginal(enumerated_states(machine))


def exact_log_partition(machine: BoltzmannMachine) -> Float[Tensor, ""]:
    """log Z = log sum_r exp(b'r + r'Jr + sum softplus(field(r))), r the bits outside the largest block.

    A 0-d tensor, nats, differentiable in the machine's parameters; the graph holds a row for each of those settings, so
    gradients are for some 16 bits. Raises InputError where more than 25 would have to be enumerated.
    """
    count = machine.enumerated_bits
    if count > MOST_ENUMERATED_BITS:
        raise InputError(
            f"exact_log_partition would enumerate 2^{count} states of a machine of blocks {machine.blocks}; at most "
            f"{MOST_ENUMERATED_BITS} bits outside the largest block can be (use annealed_importance_sampling)"
        )
    total, step = 2**count, 2 ** min(count, _CHUNK_BITS)
    chunks = (enumerated_states(machine, start, start + step) for start in range(0, total, step))
    return torch.logsumexp(torch.stack([torch.logsumexp(machine.log_marginal(z), 0) for z in chunks]), 0)


def exact_log_partition_given(
    machine: BoltzmannMachine, extra_bias: Float[Tensor, "*batch bits"]
) -> Float[Tensor, "*batch"]:
    """log Z of the machine with biases b + extra_bias, for a batch of them; enumerates, so for small machines only."""
    states, s = enumerated_states(machine), machine.slices[machine.summed]
    rest_energy, field = machine.marginal_terms(states)
    log_marginal = extra_bias @ states.T - rest_energy + F.softplus(field + extra_bias[..., None, s]).sum(-1)
    return torch.logsumexp(log_marginal, -1)


@torch.no_grad()
def annealed_importance_sampling(
    machine: BoltzmannMachine,
    *,
    temperatures: int = 1000,
    chains: int = 1024,
    repeats: int = 3,
    sweeps: int = 1,
) -> LogPartition:
    """log Z = n log 2 + log E[w], log w = sum_t log p*_t+1(r_t) - log p*_t(r_t), along exp(-t E) (Neal 2001).

    Weights are marginal: p*_t sums out the largest block, which halves their spread against full states
    (Salakhutdinov & Murray 2008). E[Z estimate] = Z, so the logarithm is low on average. The standard error is the
    larger of the weights' own and of the spread between the independent `repeats`, each of `chains` chains; it is
    trusted where the effective sample size is at least 100 and no repeat lies further off than chance allows.
    """
    for name, setting in (
        ("temperatures", temperatures),
        ("chains", chains),
        ("repeats", repeats),
        ("sweeps", sweeps),
    ):
        if setting < 1:
            raise InputError(f"{name} of annealed_importance_sampling must be at least 1, not {setting}")
    z = torch.randint(0, 2, (repeats * chains, machine.bits), device=machine.bias.device).to(machine.bias.dtype)
    log_weights = z.new_zeros(len(z), dtype=torch.float64)
    for step in range(temperatures):
        cold, warm = (step + 1) / temperatures, step / temperatures
        rest_energy, field = machine.marginal_terms(z)
        growth = F.softplus(cold * field) - F.softplus(warm * field)
        log_weights += growth.sum(-1, dtype=torch.float64) - rest_energy / temperatures
        if step + 1 < temperatures:
            z = machine.gibbs(z, sweeps, inverse_temperature=cold)
    method = f"annealed importance sampling, {temperatures} temperatures x {chains} chains x {repeats} repeats"
    return _from_log_weights(log_weights.view(repeats, chains), machine.bits * math.log(2), method)


def _from_log_weights(log_weights: Float[Tensor, "repeats chains"], log_base: float, method: str) -> LogPartition:
    """log mean w, its error by the delta method and by repeats, and its diagnosis."""
    weights = torch.softmax(log_weights.flatten(), 0)
    size = float(1 / (weights**2).sum())
    by_weights = math.sqrt(max(1 / size - 1 / weights.numel(), 0))
    each = torch.logsumexp(log_weights, 1) - math.log(log_weights.shape[1])
    by_repeats = float(each.std() / math.sqrt(len(each))) if len(each) > 1 else 0.0
    consistent = by_repeats <= 4 * by_weights + 1e-6
    return LogPartition(
        value=log_base + float(torch.logsumexp(log_weights.flatten(), 0)) - math.log(log_weights.numel()),
        standard_error=max(by_weights, by_repeats),
        effective_sample_size=size,
        trusted=math.isfinite(size) and size >= 100 and consistent,
        method=method,
    )
