"""Boltzmann machines and their samples as others write them: Ising models, QUBOs, dimod's models, files of states."""

from __future__ import annotations

import csv
import json
import math
import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from io import BytesIO
from numbers import Integral
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import networkx
import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.latent.boltzmann import BoltzmannMachine
from dvaepp.latent.graphs import machine_on_graph
from dvaepp.storage import read_json, write_text

Vartype = Literal["SPIN", "BINARY"]
_VALUES: Mapping[str, tuple[int, int]] = {"SPIN": (-1, 1), "BINARY": (0, 1)}
_FORMAT = "dvaepp quadratic model"
_VERSION = 1
_ENERGY = "offset + sum_i linear[i] x[i] + sum_k quadratic[k] x[pairs[k][0]] x[pairs[k][1]]; lower is likelier"
_WHAT = "a quadratic model, as write_model writes"
_ARRAYS = ("samples", "codes", "states")


@dataclass(frozen=True, eq=False)
class QuadraticModel:
    """E(x) = offset + h'x + sum_k J_k x_i x_j, (i, j) = pairs[k], with p(x) proportional to exp(-E(x)).

    x are spins -1 and 1 where `vartype` is "SPIN" (an Ising model), bits 0 and 1 where it is "BINARY" (a QUBO). Signs
    are physics' and D-Wave's, opposite to the machine's: a negative h_i or J_k makes x_i = 1, or x_i = x_j = 1, likely.
    Each pair occurs once. `labels[i]` names x_i. Arrays are float64 (bits,), int64 (pairs, 2) and float64 (pairs,).
    """

    vartype: Vartype
    linear: Float64[np.ndarray, " bits"]
    pairs: Int64[np.ndarray, "pairs 2"]
    quadratic: Float64[np.ndarray, " couplings"]
    offset: float
    labels: tuple[Hashable, ...]

    def __post_init__(self) -> None:
        bits, count = len(self.labels), len(self.pairs)
        if self.vartype not in tuple(_VALUES):
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

    def energy(self, states: Any) -> Float64[np.ndarray, "*batch"]:
        """E(x) = offset + h'x + sum_k J_k x_i x_j, in float64, of spins or bits (..., bits), in any array type."""
        x = np.asarray(states, np.float64)
        if x.shape[-1:] != self.linear.shape or not np.isin(x, _VALUES[self.vartype]).all():
            raise InputError(
                f"a {self.vartype} model of {len(self.linear)} bits takes states of that many "
                f"{' or '.join(map(str, _VALUES[self.vartype]))}, not an array of shape {x.shape}"
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
        return QuadraticModel(vartype, linear, self.pairs, quadratic, offset, self.labels)

    def scaled(self, factor: float) -> QuadraticModel:
        """The model of factor x E(x)."""
        linear, quadratic = factor * self.linear, factor * self.quadratic
        return QuadraticModel(self.vartype, linear, self.pairs, quadratic, factor * self.offset, self.labels)

    def _at_each_bit(self) -> Float64[np.ndarray, " bits"]:
        """The sum of the couplings of every bit."""
        both = np.concatenate([self.quadratic, self.quadratic])
        return np.bincount(self.pairs.T.ravel(), both, len(self.linear)).astype(np.float64)


def to_qubo(machine: BoltzmannMachine) -> QuadraticModel:
    """h = -b, J_ij = -J_ij, offset 0: the machine's energy E(z) = -b'z - z'Jz as a QUBO, in float64.

    Pairs are those that may interact, whether or not their couplings are zero: the mask's, or else all pairs of
    different blocks.
    """
    couplings = machine.coupling_matrix().detach().double().cpu().numpy()
    if machine.mask is None:
        block = np.repeat(np.arange(len(machine.blocks)), machine.blocks)
        joined = block[:, None] < block
    else:
        joined = machine.mask.cpu().numpy()
    pairs = np.argwhere(joined)
    bias = machine.bias.detach().double().cpu().numpy()
    labels = tuple(machine.labels)
    return QuadraticModel("BINARY", 0.0 - bias, pairs, 0.0 - couplings[pairs[:, 0], pairs[:, 1]], 0.0, labels)


def to_ising(machine: BoltzmannMachine) -> QuadraticModel:
    """h_i = -b_i/2 - sum_j J_ij/4, J_ij = -J_ij/4, offset -sum b/2 - sum J/4: E(z) of spins s = 2z - 1, in float64.

    Pairs as in `to_qubo`.
    """
    return to_qubo(machine).as_vartype("SPIN")


def machine_from(model: QuadraticModel, dtype: torch.dtype = torch.float32) -> BoltzmannMachine:
    """The machine with p(z) proportional to exp(-E(x)), whose energy is the model's less its value where z = 0.

    The graph of pairs is coloured into blocks (`machine_on_graph`), so that bits may come in another order and in other
    blocks than in a machine that the model was made from; `machine.labels` names them.
    """
    qubo = model.as_vartype("BINARY")
    bits = len(qubo.linear)
    graph = networkx.Graph()
    graph.add_nodes_from(range(bits))
    graph.add_edges_from(qubo.pairs.tolist())
    coloured = machine_on_graph(graph)
    order = np.asarray(coloured.labels)
    machine = BoltzmannMachine(*coloured.blocks, mask=coloured.mask, labels=[qubo.labels[i] for i in order]).to(dtype)
    place = np.empty(bits, np.int64)
    place[order] = np.arange(bits)
    i, j = np.sort(place[qubo.pairs], 1).T
    couplings = np.zeros((bits, bits))
    couplings[i, j] = -qubo.quadratic
    with torch.no_grad():
        machine.bias.copy_(torch.from_numpy(-qubo.linear[order]))
        for s, coupling in zip(machine.slices[1:], machine.couplings, strict=True):
            coupling.copy_(torch.from_numpy(couplings[: s.start, s]))
    return machine


def write_model(path: Path, model: QuadraticModel) -> None:
    """Write a model as JSON, a field a line; floats come back as they were.

    Raises InputError for labels other than texts, whole numbers and tuples of them.
    """
    about = {"format": _FORMAT, "version": _VERSION, "energy": _ENERGY, "values": _VALUES[model.vartype]}
    held = {
        "vartype": model.vartype,
        "offset": float(model.offset),
        "labels": [_written(label) for label in model.labels],
        "linear": model.linear.tolist(),
        "pairs": model.pairs.tolist(),
        "quadratic": model.quadratic.tolist(),
    }
    lines = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in {**about, **held}.items())
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_model(path: Path) -> QuadraticModel:
    """What `write_model` wrote; InputError for anything else."""
    value = read_json(path, _WHAT)
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise InputError(f"{path} is not {_WHAT}")
    if value.get("version") != _VERSION:
        raise InputError(f"{path} is a quadratic model of version {value.get('version')!r}, expected {_VERSION}")
    missing = [field.name for field in fields(QuadraticModel) if field.name not in value]
    if missing:
        raise InputError(f"{path} is a quadratic model without {', '.join(missing)}")
    try:
        return QuadraticModel(
            _vartype(value["vartype"]),
            _read_array(value, "linear", float),
            _read_array(value, "pairs", int, 2),
            _read_array(value, "quadratic", float),
            float(_read_array({"offset": [value["offset"]]}, "offset", float)[0]),
            _read_labels(value["labels"]),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def to_bqm(machine: BoltzmannMachine | QuadraticModel, vartype: Vartype = "SPIN") -> Any:
    """E(z) as a dimod.BinaryQuadraticModel over `machine.labels`, built from arrays; of a quadratic model as well."""
    dimod = _dimod()
    model = to_qubo(machine) if isinstance(machine, BoltzmannMachine) else machine
    model = model.as_vartype(_vartype(vartype))
    quadratic = (*model.pairs.T, model.quadratic)
    return dimod.BinaryQuadraticModel.from_numpy_vectors(
        model.linear, quadratic, model.offset, model.vartype, variable_order=model.labels
    )


def model_from_bqm(bqm: Any) -> QuadraticModel:
    """A dimod.BinaryQuadraticModel as arrays, in its own variables; InputError for anything else."""
    if not isinstance(bqm, _dimod().BinaryQuadraticModel):
        raise InputError(f"expected a dimod.BinaryQuadraticModel, not a {type(bqm).__name__}")
    linear, (rows, columns, quadratic), offset = bqm.to_numpy_vectors()
    pairs = np.stack([rows, columns], 1).astype(np.int64)
    return QuadraticModel(
        _vartype(bqm.vartype.name),
        np.asarray(linear, np.float64),
        pairs,
        np.asarray(quadratic, np.float64),
        float(offset),
        tuple(bqm.variables),
    )


def machine_from_bqm(bqm: Any, dtype: torch.dtype = torch.float32) -> BoltzmannMachine:
    """The machine with p(z) proportional to exp(-E), E a dimod.BinaryQuadraticModel (see `machine_from`)."""
    return machine_from(model_from_bqm(bqm), dtype)


def bits_to_spins(bits: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """s = 2z - 1."""
    return 2 * bits - 1


def spins_to_bits(spins: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """z = (s + 1) / 2."""
    return (spins + 1) / 2


def read_states(
    path: Path, machine: BoltzmannMachine | int, vartype: Vartype | None = None
) -> Float[Tensor, "samples bits"]:
    """Bits drawn elsewhere, from a file: floats 0 or 1 in the machine's order, a row for each sample.

    The file is .npy, .npz (the array samples, codes or states, or its only one), or .csv or .txt with a sample a line,
    separated by commas or spaces. It holds bits 0 and 1 or spins -1 and 1: `vartype` says which; else it holds spins
    where there is a -1, and bits where there is none. Columns are in the machine's order unless an array `labels`, or a
    first line that does not itself hold a sample, names them. Where only the number of bits is given in the machine's
    place, the names are 0, 1, ... Raises InputError for anything else.
    """
    labels = tuple(range(machine)) if isinstance(machine, int) else tuple(machine.labels)
    if path.suffix in (".npy", ".npz"):
        values, names = _load_arrays(path)
    elif path.suffix in (".csv", ".txt"):
        values, names = _load_lines(path)
    else:
        raise InputError(f"{path} does not end in .npy, .npz, .csv or .txt, as files of samples do")
    if values.ndim != 2 or values.shape[1] != len(labels) or not len(values):
        raise InputError(f"{path} holds samples of shape {values.shape}, expected (samples, {len(labels)})")
    values = values[:, _columns(path, names, labels)]
    if vartype is None:
        vartype = "SPIN" if bool((values == -1).any()) else "BINARY"
    low, high = _VALUES[_vartype(vartype)]
    wrong = ~np.isin(values, (low, high))
    if wrong.any():
        raise InputError(f"{path} holds {values[wrong][0]}, expected only {low} and {high}")
    return torch.from_numpy((values == high).astype(np.float32))


def _load_arrays(path: Path) -> tuple[np.ndarray, list[str] | None]:
    """The samples in a .npy or .npz file, and the names of its columns if there are any."""
    try:
        loaded = np.load(BytesIO(path.read_bytes()), allow_pickle=False)
        arrays = {"samples": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected a file of samples") from None
    except (OSError, ValueError, EOFError, KeyError, TypeError, NotImplementedError, BadZipFile, zlib.error):
        raise InputError(f"{path} is not a whole {path.suffix} file of numbers") from None
    labels = arrays.pop("labels", None)
    named = [name for name in _ARRAYS if name in arrays] or list(arrays)
    if len(named) != 1:
        raise InputError(f"{path} must hold one array of {', '.join(_ARRAYS)}, but holds {', '.join(arrays) or 'none'}")
    values = np.asarray(arrays[named[0]])
    if values.dtype.kind not in "buif":
        raise InputError(f"{path} holds {values.dtype} {named[0]}, expected numbers")
    if labels is None:
        return values, None
    return values, [_name(label) for label in np.asarray(labels).tolist()] if labels.ndim else [""]


def _load_lines(path: Path) -> tuple[np.ndarray, list[str] | None]:
    """The samples in a text file, and the names in its first line if that holds none."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        rows = [next(csv.reader([line], skipinitialspace=True)) if "," in line else line.split() for line in lines]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected a file of samples") from None
    except (OSError, UnicodeDecodeError, csv.Error, StopIteration):
        raise InputError(f"{path} is not a text file of samples") from None
    if not rows:
        raise InputError(f"{path} is empty, expected a sample a line")
    rows = [[entry.strip() for entry in row] for row in rows]
    names = None if all(_number(entry) in (-1, 0, 1) for entry in rows[0]) else rows.pop(0)
    width = len(names or rows[0])
    numbers = [[_number(entry) for entry in row] for row in rows]
    for row, read in zip(rows, numbers, strict=True):
        if None in read:
            raise InputError(f"{path} holds {row[read.index(None)]!r}, expected numbers")
        if len(row) != width:
            raise InputError(f"{path} has lines of {width} and of {len(row)} columns: it may be cut short")
    values = np.array(numbers, np.float64).reshape(-1, width)
    return values, names


def _columns(path: Path, names: list[str] | None, labels: Sequence[Hashable]) -> list[int]:
    """In which column each bit is."""
    if names is None:
        return list(range(len(labels)))
    wanted = [_name(label) for label in labels]
    if len(set(wanted)) != len(wanted) or sorted(names) != sorted(wanted):
        strange = next((name for name in names if name not in wanted), None)
        what = "does not name each bit once" if strange is None else f"names {strange!r}, which is none of the bits"
        raise InputError(f"{path}: the line or array of labels {what}")
    place = {name: column for column, name in enumerate(names)}
    return [place[name] for name in wanted]


def _name(label: Any) -> str:
    """A label as text; lists, as files have them, like tuples."""
    if isinstance(label, (tuple, list)):
        return "(" + ", ".join(_name(part) for part in label) + ")"
    return str(label)


def _number(entry: str) -> float | None:
    try:
        return float(entry)
    except ValueError:
        return None


def _vartype(value: Any) -> Vartype:
    if value not in tuple(_VALUES):
        raise InputError(f"vartype must be SPIN or BINARY, not {value!r}")
    found: Vartype = value
    return found


def _written(label: Any) -> Any:
    """A label as JSON."""
    if isinstance(label, str):
        return label
    if isinstance(label, Integral):
        return int(label)
    if isinstance(label, tuple):
        return [_written(part) for part in label]
    raise InputError(f"label {label!r} cannot be written: labels must be texts, whole numbers or tuples of them")


def _read_labels(value: Any) -> tuple[Hashable, ...]:
    """Labels from JSON."""
    if not isinstance(value, list):
        raise InputError("labels of a quadratic model must be a list")
    return tuple(_read_label(label) for label in value)


def _read_label(value: Any) -> Hashable:
    if isinstance(value, list):
        return tuple(_read_label(part) for part in value)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(f"labels of a quadratic model must be texts, whole numbers or lists of them, not {value!r}")
    return value


def _read_array(held: Mapping[str, Any], name: str, kind: type, columns: int = 0) -> Any:
    """An array from JSON: a list of numbers, or of lists of so many columns."""
    value, what = held[name], "whole numbers" if kind is int else "numbers"
    rows = value if columns else [value]
    if not isinstance(value, list) or not all(
        isinstance(row, list) and len(row) == (columns or len(row)) for row in rows
    ):
        raise InputError(f"{name} of a quadratic model must be a list of {f'{columns} ' if columns else ''}{what}")
    allowed = (int,) if kind is int else (int, float)
    wrong = [entry for row in rows for entry in row if isinstance(entry, bool) or not isinstance(entry, allowed)]
    if wrong:
        raise InputError(f"{name} of a quadratic model must hold {what}, not {wrong[0]!r}")
    try:
        return np.array(value, np.int64 if kind is int else np.float64).reshape((-1, columns) if columns else -1)
    except OverflowError:
        raise InputError(f"{name} of a quadratic model holds a number that is too large") from None


def _dimod() -> Any:
    try:
        import dimod
    except ImportError:
        raise InputError("D-Wave's models and samplers need dimod: pip install 'dvaepp[dwave]'") from None
    return dimod
