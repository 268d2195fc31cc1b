"""Exact sums over the states of a Boltzmann machine, and exact samples."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.boltzmann.elimination import eliminated_log_partition, eliminated_sample, elimination_width
from dvaepp.boltzmann.machine import BoltzmannMachine, in_own_precision
from dvaepp.errors import InputError
from dvaepp.numerics import check_counts

MOST_ENUMERATED_BITS = 25
MOST_SAMPLED_BITS = 20
_CHUNK_BITS = 16


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


def bits_to_sum(machine: BoltzmannMachine) -> int:
    """How many bits have to be summed over jointly to be exact: those outside the largest block, or the treewidth."""
    width = machine.enumerated_bits if machine.mask is None else elimination_width(machine)
    return min(machine.enumerated_bits, width)


def exact_log_partition(machine: BoltzmannMachine) -> Float[Tensor, ""]:
    """log Z = log sum_r exp(b'r + r'Jr + sum softplus(field(r))), r the bits outside the largest block.

    Or, for a masked machine whose graph has a smaller treewidth, summed bit by bit. A 0-d tensor, nats, differentiable
    in the machine's parameters; the graph holds a row for each setting of `bits_to_sum(machine)` bits, so gradients are
    for some 16 bits. Raises InputError where that is more than 25.
    """
    count = bits_to_sum(machine)
    if count > MOST_ENUMERATED_BITS:
        raise InputError(
            f"exact_log_partition would sum at least 2^{count} states of a machine of blocks {machine.blocks}; at most "
            f"{MOST_ENUMERATED_BITS} bits, outside the largest block or of the treewidth, can be (use "
            "estimate_log_partition)"
        )
    if count < machine.enumerated_bits:
        return eliminated_log_partition(machine)
    total, step = 2**count, 2 ** min(count, _CHUNK_BITS)
    chunks = (enumerated_states(machine, start, start + step) for start in range(0, total, step))
    return torch.logsumexp(torch.stack([torch.logsumexp(machine.log_marginal(z), 0) for z in chunks]), 0)


def can_be_sampled_exactly(machine: BoltzmannMachine) -> bool:
    """Whether `exact_sample` can serve this machine."""
    return bits_to_sum(machine) <= MOST_SAMPLED_BITS


@torch.no_grad()
def exact_sample(machine: BoltzmannMachine, num_samples: int) -> Float[Tensor, "samples bits"]:
    """Independent draws from p(z): the enumerated bits from their marginal, then the summed-out block given them.

    Or bit by bit, where the machine's treewidth is smaller. Raises InputError where more than 20 bits have to be summed
    over jointly.
    """
    check_counts("exact_sample", num_samples=num_samples)
    if not can_be_sampled_exactly(machine):
        raise InputError(
            f"exact_sample would sum at least 2^{bits_to_sum(machine)} states of a machine of blocks {machine.blocks}; "
            f"at most 2^{MOST_SAMPLED_BITS} can be (use PersistentChains or TemperedChains)"
        )
    if bits_to_sum(machine) < machine.enumerated_bits:
        return eliminated_sample(machine, num_samples)
    cumulative = torch.softmax(enumerated_log_marginals(machine).double(), 0).cumsum(0)
    rho = torch.rand(num_samples, dtype=cumulative.dtype, device=cumulative.device)
    rows = torch.searchsorted(cumulative, rho).clamp(max=len(cumulative) - 1)
    z = enumerated_states(machine)[rows]
    log_odds = machine.field(z, machine.summed)
    z[:, machine.slices[machine.summed]] = (torch.rand_like(log_odds) < torch.sigmoid(log_odds)).to(z.dtype)
    return z


@in_own_precision
def exact_log_partition_weighted(
    machine: BoltzmannMachine, log_zero: Float[Tensor, "*batch bits"], log_one: Float[Tensor, "*batch bits"]
) -> Float[Tensor, "*batch"]:
    """log sum_z exp(-E(z)) prod_i w_i(z_i), given log w_i(0) and log w_i(1); enumerates, so for small machines only.

    However far the two weights of a bit lie apart, nothing cancels: each state adds up its own. A weight may be 0.
    """
    least = torch.finfo(log_zero.dtype).min / machine.bits  # in place of minus infinity, which times 0 would be NaN
    log_zero, log_one = log_zero.clamp(min=least), log_one.clamp(min=least)
    states, s = enumerated_states(machine), machine.slices[machine.summed]
    zeros = 1 - states
    zeros[:, s] = 0
    rest_energy, field = machine.marginal_terms(states)
    summed = torch.logaddexp(log_zero[..., None, s], field + log_one[..., None, s]).sum(-1)
    return torch.logsumexp(log_zero @ zeros.T + log_one @ states.T - rest_energy + summed, -1)
