"""Exact sums over the states of a Boltzmann machine, and exact samples."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dvaepp.boltzmann.elimination import eliminated_log_partition, eliminated_sample, elimination_width
from dvaepp.boltzmann.machine import BoltzmannMachine, in_own_precision
from dvaepp.errors import InputError
from dvaepp.numerics import check_counts

MOST_ENUMERATED_BITS = 25
MOST_SAMPLED_BITS = 20
_PIECE_BITS = 16
_PIECE_NUMBERS = 2**21


def enumerated_states(
    machine: BoltzmannMachine, numbers: Int[Tensor, " states"] | None = None
) -> Float[Tensor, "states bits"]:
    """The settings of these numbers, by default all, of the bits outside the summed-out block, whose own bits are 0."""
    count = machine.enumerated_bits
    code = torch.arange(2**count, device=machine.bias.device) if numbers is None else numbers
    bits = ((code[:, None] >> torch.arange(count, device=code.device)) & 1).to(machine.bias.dtype)
    s = machine.slices[machine.summed]
    return torch.cat([bits[:, : s.start], bits.new_zeros(len(bits), s.stop - s.start), bits[:, s.start :]], 1)


def enumerated_log_marginals(machine: BoltzmannMachine) -> Float[Tensor, " states"]:
    """log sum over the summed-out block of exp(-E), for every setting of the other bits."""
    if torch.is_grad_enabled():
        return torch.cat(list(_pieces(machine)))
    found, start = machine.bias.new_empty(2**machine.enumerated_bits), 0
    for piece in _pieces(machine):  # a list of small results among large ones would leave holes that nothing fits into
        found[start : start + len(piece)] = piece
        start += len(piece)
    return found


def _pieces(machine: BoltzmannMachine) -> Iterator[Float[Tensor, " states"]]:
    """Log marginals in order, piece by piece: of 2^16 states with gradients, which hold all, else in some 50 MB."""
    total = 2**machine.enumerated_bits
    step = 2**_PIECE_BITS if torch.is_grad_enabled() else min(2**_PIECE_BITS, max(1, _PIECE_NUMBERS // machine.bits))
    for start in range(0, total, step):
        numbers = torch.arange(start, min(start + step, total), device=machine.bias.device)
        yield machine.log_marginal(enumerated_states(machine, numbers))


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
    return torch.logsumexp(torch.stack([torch.logsumexp(piece, 0) for piece in _pieces(machine)]), 0)


def can_be_sampled_exactly(machine: BoltzmannMachine) -> bool:
    """Whether `exact_sample` can serve this machine."""
    return bits_to_sum(machine) <= MOST_SAMPLED_BITS


@torch.no_grad()
def exact_sample(machine: BoltzmannMachine, num_samples: int) -> Float[Tensor, "samples bits"]:
    """Independent draws from p(z): the enumerated bits from their marginal, then the summed-out block given them.

    Or bit by bit, where the machine's treewidth is smaller. States are enumerated piece by piece, in some 100 MB.
    Raises InputError where more than 20 bits have to be summed over jointly.
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
    z = enumerated_states(machine, rows)
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
    zeros[:, s].zero_()
    rest_energy, field = machine.marginal_terms(states)
    summed = torch.logaddexp(log_zero[..., None, s], field + log_one[..., None, s]).sum(-1)
    return torch.logsumexp(log_zero @ zeros.T + log_one @ states.T - rest_energy + summed, -1)
