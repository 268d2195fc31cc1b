"""Exact sums over sparse machines: bits are summed out one after another, at the cost of their graph's treewidth."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError
from dvaepp.numerics import check_precision

_HOPELESS = 30

Factor = tuple[tuple[int, ...], Tensor]
"""A function of some bits: their places in the order of elimination, rising, and a table with an axis of 2 for each."""


def elimination_width(machine: BoltzmannMachine) -> int:
    """The most other bits that a bit has to be summed with, in the order found; every other bit without a mask.

    Or some number above 30, at which the search ends: on a processor of thousands of qubits it would take an hour.
    """
    return machine.bits - 1 if machine.mask is None else max(map(len, _order(machine)[1]))


def eliminated_log_partition(machine: BoltzmannMachine) -> Float[Tensor, ""]:
    """log Z = log sum_z exp(b'z + z'Jz), one bit after another; differentiable, 2^(width + 1) numbers at a time."""
    last = [torch.logaddexp(*table) for places, table in _eliminate(machine) if len(places) == 1]
    return torch.stack(last).sum().to(machine.bias.dtype)


@torch.no_grad()
def eliminated_sample(machine: BoltzmannMachine, num_samples: int) -> Float[Tensor, "samples bits"]:
    """Independent draws from p(z): the bits in reverse order of elimination, each given those it was summed with."""
    order, _ = _order(machine)
    z = machine.bias.new_zeros(num_samples, machine.bits)
    # A bit's table, before it is summed out, is its log odds given the bits that come later: those are drawn first.
    odds = [(places, table[1] - table[0]) for places, table in _eliminate(machine)]
    for (place, *later), given in reversed(odds):
        row = z.new_zeros(num_samples, dtype=torch.long)
        for other in later:
            row = 2 * row + z[:, order[other]].long()
        log_odds = given.reshape(-1)[row]
        z[:, order[place]] = (torch.rand_like(log_odds) < torch.sigmoid(log_odds)).to(z.dtype)
    return z


def _eliminate(machine: BoltzmannMachine) -> Iterator[Factor]:
    """For each bit in turn, the log of what it is summed from, given the bits that are still there."""
    check_precision("parameters of a Boltzmann machine", machine.bias)
    order, _ = _order(machine)
    if len(order) < machine.bits:
        raise InputError(f"more than {_HOPELESS} bits of this machine would have to be summed over jointly")
    couplings, bias = machine.coupling_matrix().double(), machine.bias.double()
    place = {bit: k for k, bit in enumerate(order)}
    factors: list[list[Factor]] = [[] for _ in order]
    zero = bias.new_zeros(())
    for bit in order:
        factors[place[bit]].append(((place[bit],), torch.stack([zero, bias[bit]])))
    for i, j in _pairs(machine):
        first, second = sorted((place[i], place[j]))
        factors[first].append(((first, second), torch.stack([zero, zero, zero, couplings[i, j]]).view(2, 2)))
    # Bucket k holds the factors whose first bit, in the order of elimination, is bit k: when its turn comes every
    # factor that knows it is there, and what is left after it is summed out belongs to the next bit that it knows.
    for bucket in factors:
        places, table = _product(bucket)
        bucket.clear()
        yield places, table
        if len(places) > 1:
            factors[places[1]].append((places[1:], torch.logaddexp(table[0], table[1])))


def _product(factors: list[Factor]) -> Factor:
    """The sum of log tables over all bits that any of them knows."""
    places = tuple(sorted(set().union(*(known for known, _ in factors))))
    tables = [table.view([2 if place in known else 1 for place in places]) for known, table in factors]
    total = tables[0]
    for table in sorted(tables[1:], key=Tensor.numel):
        total = total + table
    return places, total.expand([2] * len(places))


def _pairs(machine: BoltzmannMachine) -> tuple[tuple[int, int], ...]:
    if machine.masked_pairs is None:
        return tuple((i, j) for s in machine.slices[1:] for j in range(s.start, s.stop) for i in range(s.start))
    return machine.masked_pairs


def _order(machine: BoltzmannMachine) -> tuple[tuple[int, ...], tuple[frozenset[int], ...]]:
    return _min_fill(machine.bits, _pairs(machine))


@lru_cache(maxsize=8)
def _min_fill(bits: int, pairs: tuple[tuple[int, int], ...]) -> tuple[tuple[int, ...], tuple[frozenset[int], ...]]:
    """An order that next takes the bit whose neighbours lack the fewest edges, and each bit's neighbours by then.

    It ends early at a bit with hopelessly many.
    """
    neighbours: dict[int, set[int]] = {bit: set() for bit in range(bits)}
    for i, j in pairs:
        neighbours[i].add(j)
        neighbours[j].add(i)
    missing = {bit: _missing(neighbours, bit) for bit in neighbours}
    order, cliques = [], []
    while neighbours:
        bit = min(missing, key=lambda b: (missing[b], len(neighbours[b])))
        clique = neighbours.pop(bit)
        del missing[bit]
        for other in clique:
            neighbours[other] |= clique
            neighbours[other] -= {other, bit}
        for changed in clique.union(*(neighbours[other] for other in clique)):
            missing[changed] = _missing(neighbours, changed)
        order.append(bit)
        cliques.append(frozenset(clique))
        if len(clique) > _HOPELESS:
            break
    return tuple(order), tuple(cliques)


def _missing(neighbours: dict[int, set[int]], bit: int) -> int:
    return sum(j not in neighbours[i] for i, j in combinations(neighbours[bit], 2))
