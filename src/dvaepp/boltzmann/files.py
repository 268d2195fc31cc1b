"""Files of machines and of their samples, for samplers elsewhere: models as JSON, states in whatever they are saved."""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields
from io import BytesIO
from numbers import Integral
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.boltzmann.ising import VALUES, QuadraticModel, Vartype, check_vartype
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError
from dvaepp.numerics import whole
from dvaepp.storage import AnyPath, read_json, write_text

_FORMAT = "dvaepp quadratic model"
_VERSION = 1
_ENERGY = "offset + sum_i linear[i] x[i] + sum_k quadratic[k] x[pairs[k][0]] x[pairs[k][1]]; lower is likelier"
_WHAT = "a quadratic model, as write_model writes"
_ARRAYS = ("samples", "codes", "states")
_BESIDE = ("", "energy", "num_occurrences", "chain_break_fraction")
"""Columns of a dimod SampleSet's table that are no bits."""


def write_model(path: AnyPath, model: QuadraticModel) -> None:
    """Write a model as JSON, a field a line; floats come back as they were.

    Raises InputError for labels other than texts, whole numbers and tuples of them, and for anything but a model.
    """
    if not isinstance(model, QuadraticModel):
        raise InputError(
            f"write_model takes a QuadraticModel, as to_ising(machine) makes, not a {type(model).__name__}"
        )
    about = {"format": _FORMAT, "version": _VERSION, "energy": _ENERGY, "values": VALUES[model.vartype]}
    held = {
        "vartype": model.vartype,
        "offset": float(model.offset),
        "labels": [_written(label) for label in model.labels],
        "blocks": model.blocks,
        "linear": model.linear.tolist(),
        "pairs": model.pairs.tolist(),
        "quadratic": model.quadratic.tolist(),
    }
    lines = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in {**about, **held}.items())
    write_text(Path(path), "{\n" + ",\n".join(lines) + "\n}\n")


def read_model(path: AnyPath) -> QuadraticModel:
    """What `write_model` wrote; InputError for anything else. Files of before have no `blocks`."""
    value = read_json(Path(path), _WHAT)
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise InputError(f"{path} is not {_WHAT}")
    if value.get("version") != _VERSION:
        raise InputError(f"{path} is a quadratic model of version {value.get('version')!r}, expected {_VERSION}")
    missing = [field.name for field in fields(QuadraticModel) if field.name not in {"blocks", *value}]
    if missing:
        raise InputError(f"{path} is a quadratic model without {', '.join(missing)}")
    try:
        return QuadraticModel(
            check_vartype(value["vartype"]),
            _read_array(value, "linear", float),
            _read_array(value, "pairs", int, 2),
            _read_array(value, "quadratic", float),
            float(_read_array({"offset": [value["offset"]]}, "offset", float)[0]),
            _read_labels(value["labels"]),
            None if value.get("blocks") is None else tuple(_read_array(value, "blocks", int).tolist()),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_states(
    path: AnyPath, machine: BoltzmannMachine | int, vartype: Vartype | None = None
) -> Float[Tensor, "samples bits"]:
    """Bits drawn elsewhere, from a file: floats 0 or 1 in the machine's order, a row for each sample.

    The file is .npy, .npz (the array samples, codes or states, or its only one), or .csv or .txt with a sample a line,
    separated by commas or spaces. It holds bits 0 and 1 or spins -1 and 1: `vartype` says which; else it holds spins
    where there is a -1, and bits where there is none. Columns are in the machine's order unless an array `labels`, or a
    first line that does not itself hold a sample, names them. A dimod SampleSet is read as .csv of its pandas table,
    each sample as often as it occurred, or as .json of its `to_serializable()`, which takes dimod. Where only the
    number of bits is given in the machine's place, the names are 0, 1, ... Raises InputError for anything else.
    """
    labels = tuple(machine.labels) if isinstance(machine, BoltzmannMachine) else tuple(range(whole("bits", machine)))
    path = Path(path)
    if path.suffix in (".npy", ".npz"):
        values, names = _load_arrays(path)
    elif path.suffix in (".csv", ".txt"):
        values, names = _samples_alone(*_load_lines(path), path)
    elif path.suffix == ".json":
        values, names = _load_sample_set(path)
    else:
        raise InputError(f"{path} does not end in .npy, .npz, .csv, .txt or .json, as files of samples do")
    if values.ndim != 2 or values.shape[1] != len(labels) or not len(values):
        raise InputError(f"{path} holds samples of shape {values.shape}, expected (samples, {len(labels)})")
    values = values[:, _columns(path, names, labels)]
    if vartype is None:
        vartype = "SPIN" if bool((values == -1).any()) else "BINARY"
    low, high = VALUES[check_vartype(vartype)]
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


def _samples_alone(values: np.ndarray, names: list[str] | None, path: Path) -> tuple[np.ndarray, list[str] | None]:
    """The samples of a SampleSet's table, each as often as it occurred; others as they are."""
    if names is None or "energy" not in names:
        return values, names
    times = values[:, names.index("num_occurrences")] if "num_occurrences" in names else np.ones(len(values))
    if (times < 1).any() or (times % 1).any():
        raise InputError(f"{path}: num_occurrences must be whole numbers from 1 on")
    kept = [place for place, name in enumerate(names) if name not in _BESIDE]
    return values[:, kept].repeat(times.astype(np.int64), 0), [names[place] for place in kept]


def _load_sample_set(path: Path) -> tuple[np.ndarray, list[str]]:
    """The samples of a dimod SampleSet in JSON, and the names of its variables."""
    value = read_json(path, "a dimod SampleSet, as json.dumps(sampleset.to_serializable()) writes it")
    try:
        import dimod
    except ImportError:
        raise InputError(f"{path}: reading a SampleSet needs dimod; pip install 'dvaepp[dwave]'") from None
    try:
        found = dimod.SampleSet.from_serializable(value)
        times = np.asarray(found.record.num_occurrences, np.int64)
        return found.record.sample.astype(np.float64).repeat(times, 0), [_name(label) for label in found.variables]
    except Exception as error:  # dimod lets many kinds escape from what is no SampleSet
        raise InputError(f"{path} is not a dimod SampleSet in JSON: {error}") from None


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
