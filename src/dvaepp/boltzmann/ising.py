"""Boltzmann machines as others write their energies: Ising models and QUBOs, in arrays, and dimod's models."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import networkx
import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from dvaepp.boltzmann.graphs import machine_on_graph
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError
from dvaepp.numerics import is_count

Vartype = Literal["SPIN", "BINARY"]
VALUES: Mapping[str, tuple[int, int]] = {"SPIN": (-1, 1), "BINARY": (0, 1)}


@dataclass(frozen=True, eq=False)
class QuadraticModel:
    """E(x) = offset + h'x + sum_k J_k x_i x_j, (i, j) = pairs[k], with p(x) proportional to exp(-E(x)).

    x are spins -1 and 1 where `vartype` is "SPIN" (an Ising model), bits 0 and 1 where it is "BINARY" (a QUBO). Signs
    are physics' and D-Wave's, opposite to the machine's: a negative h_i or J_k makes x_i = 1, or x_i = x_j = 1, likely.
    Each pair occurs once. `labels[i]` names x_i. Arrays are float64 (bits,), int64 (pairs, 2) and float64 (pairs,).
    `blocks`, where they are known, are the sizes of groups of variables side by side without pairs among themselves:
    those of the machine that the model was made from.

    >>> model = QuadraticModel("SPIN", np.array([0.5, 0.0]), np.array([[0, 1]]), np.array([-1.0]), 0.0, ("a", "b"))
    >>> model.energy([[-1, -1], [1, -1]]).tolist()
    [-1.5, 1.5]
    """

    vartype: Vartype
    linear: Float64[np.ndarray, " bits"]
    pairs: Int64[np.ndarray, "pairs 2"]
    quadratic: Float64[np.ndarray, " couplings"]
    offset: float
    labels: tuple[Hashable, ...]
    blocks: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        bits, count = len(self.labels), len(self.pairs)
        if self.vartype not in tuple(VALUES):
            raise InputError(f"vartype of a quadratic model must be SPIN or BINARY, not {self.vartype!r}")
        if not bits or len(set(self.labels)) != bits:
            raise InputError(f"labels of a quadratic model must be different names of at least one bit, not {bits}")
        for name, array, shape in (
            ("linear", self.linear, (bits,)),
            ("pairs", self.pairs, (count, 2)),
            ("quadratic", self.quadratic, (count,)),
        ):
            if array.shape != shape:
                raise InputError(f"{name} of a quadratic model of {bits} bits must be {shape}, not {array.shape}")
        if not (np.isfinite(self.linear).all() and np.isfinite(self.quadratic).all() and math.isfinite(self.offset)):
            raise InputError("linear, quadratic and offset of a quadratic model must be finite")
        low, high = self.pairs.min(1), self.pairs.max(1)
        if bool((low < 0).any() or (high >= bits).any() or (low == high).any()):
            raise InputError(f"pairs of a quadratic model must join two different numbers from 0 to {bits - 1}")
        if len(np.unique(low * bits + high)) != count:
            raise InputError("pairs of a quadratic model must not repeat")
        if self.blocks is not None:
            self._check_blocks(self.blocks)
            object.__setattr__(self, "blocks", tuple(map(int, self.blocks)))

    def _check_blocks(self, blocks: tuple[int, ...]) -> None:
        bits = len(self.labels)
        sizes = blocks if isinstance(blocks, tuple) else ()
        if not all(map(is_count, sizes)) or sum(sizes) != bits:
            raise InputError(
                f"blocks of a quadratic model must be positive whole numbers that add up to {bits}, not {blocks}"
            )
        block = np.repeat(np.arange(len(blocks)), blocks)[self.pairs]
        if bool((block[:, 0] == block[:, 1]).any()):
            raise InputError(f"pairs of a quadratic model of blocks {blocks} join bits of one block")

    def energy(self, states: Any) -> Float64[np.ndarray, "*batch"]:
        """E(x) = offset + h'x + sum_k J_k x_i x_j, in float64, of spins or bits (..., bits), in any array type."""
        x = np.asarray(states, np.float64)
        if x.shape[-1:] != self.linear.shape or not np.isin(x, VALUES[self.vartype]).all():
            raise InputError(
                f"a {self.vartype} model of {len(self.linear)} bits takes states of that many "
                f"{' or '.join(map(str, VALUES[self.vartype]))}, not an array of shape {x.shape}"
            )
        i, j = self.pairs.T
        return np.asarray(self.offset + x @ self.linear + (x[..., i] * x[..., j]) @ self.quadratic)

    def as_vartype(self, vartype: Vartype) -> QuadraticModel:
        """The same energies as a function of the other variables: s = 2z - 1."""
        if vartype == self.vartype:
            return self
        linear_sum, quadratic_sum = float(self.linear.sum()), float(self.quadratic.sum())
        if vartype == "SPIN":
            linear, quadratic = self.linear / 2 + self._at_each_bit() / 4, self.quadratic / 4
            offset = self.offset + linear_sum / 2 + quadratic_sum / 4
        else:
            linear, quadratic = 2 * self.linear - 2 * self._at_each_bit(), 4 * self.quadratic
            offset = self.offset - linear_sum + quadratic_sum
        return replace(self, vartype=vartype, linear=linear, quadratic=quadratic, offset=offset)

    def scaled(self, factor: float) -> QuadraticModel:
        """The model of factor x E(x)."""
        linear, quadratic = factor * self.linear, factor * self.quadratic
        return replace(self, linear=linear, quadratic=quadratic, offset=factor * self.offset)

    def _at_each_bit(self) -> Float64[np.ndarray, " bits"]:
        """The sum of the couplings of every bit."""
        both = np.concatenate([self.quadratic, self.quadratic])
        return np.bincount(self.pairs.T.ravel(), both, len(self.linear)).astype(np.float64)


def to_qubo(machine: BoltzmannMachine) -> QuadraticModel:
    """h = -b, couplings -J, offset 0: the machine's energy E(z) = -b'z - z'Jz as a QUBO, in float64.

    Pairs are those that may interact, whether or not their couplings are zero: the mask's, or else all pairs of
    different blocks.
    """
    couplings = machine.coupling_matrix().detach().double().cpu().numpy()
    pairs = np.argwhere(_between(machine.blocks) if machine.mask is None else machine.mask.cpu().numpy())
    bias = machine.bias.detach().double().cpu().numpy()
    quadratic = 0.0 - couplings[pairs[:, 0], pairs[:, 1]]
    return QuadraticModel("BINARY", 0.0 - bias, pairs, quadratic, 0.0, tuple(machine.labels), machine.blocks)


def to_ising(machine: BoltzmannMachine) -> QuadraticModel:
    """h_i = -b_i/2 - sum_j J_ij/4, couplings -J_ij/4, offset -sum b/2 - sum J/4: E(z) of spins s = 2z - 1, in float64.

    Pairs as in `to_qubo`.
    """
    return to_qubo(machine).as_vartype("SPIN")


def machine_from(model: QuadraticModel | Any, dtype: torch.dtype = torch.float32) -> BoltzmannMachine:
    """The machine with p(z) proportional to exp(-E(x)), whose energy is the model's less its value where z = 0.

    The model is a `QuadraticModel` or a dimod.BinaryQuadraticModel; InputError for anything else.
    Bits come in the model's order where it has `blocks`, as those made from machines do: the machine is then the one
    that went out, without a mask where all pairs of different blocks are there. Else the graph of pairs is coloured
    (`machine_on_graph`), and bits come block by block: `machine.labels` names them.
    """
    if not isinstance(model, QuadraticModel):
        model = model_from_bqm(model)
    qubo = model.as_vartype("BINARY")
    bits = len(qubo.linear)
    order, blocks = _coloured(qubo) if qubo.blocks is None else (np.arange(bits), qubo.blocks)
    place = np.empty(bits, np.int64)
    place[order] = np.arange(bits)
    i, j = np.sort(place[qubo.pairs], 1).T
    couplings, joined = np.zeros((bits, bits)), np.zeros((bits, bits), np.bool_)
    couplings[i, j], joined[i, j] = -qubo.quadratic, True
    whole = qubo.blocks is not None and np.array_equal(joined, _between(blocks))
    mask = None if whole else torch.from_numpy(joined)
    machine = BoltzmannMachine(*blocks, mask=mask, labels=[qubo.labels[k] for k in order]).to(dtype)
    limit = torch.finfo(dtype).max
    if max(np.abs(qubo.linear).max(), np.abs(qubo.quadratic).max(initial=0)) > limit:
        raise InputError(f"the model's numbers are too large for {dtype}")
    with torch.no_grad():
        machine.bias.copy_(torch.from_numpy(-qubo.linear[order]))
        for s, coupling in zip(machine.slices[1:], machine.couplings, strict=True):
            coupling.copy_(torch.from_numpy(couplings[: s.start, s]))
    return machine


def _coloured(model: QuadraticModel) -> tuple[Int64[np.ndarray, " bits"], tuple[int, ...]]:
    """The variables in an order, and the sizes of blocks in it, of a colouring of the graph of pairs."""
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(model.labels)))
    graph.add_edges_from(model.pairs.tolist())
    machine = machine_on_graph(graph)
    return np.asarray(machine.labels), machine.blocks


def _between(blocks: tuple[int, ...]) -> Bool[np.ndarray, "bits bits"]:
    """Which pairs are of different blocks, the earlier bit first."""
    block = np.repeat(np.arange(len(blocks)), blocks)
    return np.asarray(block[:, None] < block)


def to_bqm(machine: BoltzmannMachine | QuadraticModel, vartype: Vartype = "SPIN") -> Any:
    """E(z) as a dimod.BinaryQuadraticModel over `machine.labels`, built from arrays; of a quadratic model as well."""
    dimod = _dimod()
    model = to_qubo(machine) if isinstance(machine, BoltzmannMachine) else machine
    model = model.as_vartype(check_vartype(vartype))
    quadratic = (*model.pairs.T, model.quadratic)
    return dimod.BinaryQuadraticModel.from_numpy_vectors(
        model.linear, quadratic, model.offset, model.vartype, variable_order=model.labels
    )


def model_from_bqm(bqm: Any) -> QuadraticModel:
    """A dimod.BinaryQuadraticModel as arrays, in its own variables; InputError for anything else."""
    if not (hasattr(bqm, "to_numpy_vectors") and isinstance(bqm, _dimod().BinaryQuadraticModel)):
        raise InputError(f"expected a QuadraticModel or a dimod.BinaryQuadraticModel, not a {type(bqm).__name__}")
    linear, (rows, columns, quadratic), offset = bqm.to_numpy_vectors(list(bqm.variables))
    pairs = np.stack([rows, columns], 1).astype(np.int64)
    return QuadraticModel(
        check_vartype(bqm.vartype.name),
        np.asarray(linear, np.float64),
        pairs,
        np.asarray(quadratic, np.float64),
        float(offset),
        tuple(bqm.variables),
    )


def check_vartype(value: Any) -> Vartype:
    """The name of a kind of variable; InputError for any other."""
    if value not in tuple(VALUES):
        raise InputError(f"vartype must be SPIN or BINARY, not {value!r}")
    found: Vartype = value
    return found


def _dimod() -> Any:
    try:
        import dimod
    except ImportError:
        raise InputError("D-Wave's models and samplers need dimod: pip install 'dvaepp[dwave]'") from None
    return dimod
