"""What people give a run, as its model takes it."""

from __future__ import annotations

import math
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dvaepp.data import Examples
from dvaepp.data.arrays import bits_of, is_grey, prepared
from dvaepp.data.binarise import as_rows
from dvaepp.data.dataset import in_order
from dvaepp.data.given import as_array, as_frame, column_names
from dvaepp.data.own import examples_at, gapped_at, mask_at
from dvaepp.data.reading import Reading
from dvaepp.data.tables import of_frame
from dvaepp.errors import InputError
from dvaepp.likelihoods.base import Likelihood
from dvaepp.models.base import Model

Array = NDArray[Any]


def examples_in(given: Any, reading: Reading, shape: tuple[int, ...]) -> Examples:
    """Examples at a path, or in whatever holds arrays, read as those of a run; InputError for other shapes.

    Where their columns and those of the run have names, they are put into the run's order; InputError for others.
    """
    if isinstance(given, str | PathLike):
        name, found = str(given), examples_at(existing(given), reading)
    elif reading.known is not None and column_names(given) is not None:
        name, found = "x", _in_table(given, reading)
    else:
        name, found = "x", _in_array(as_array(given, "x"), column_names(given), reading, shape)
    if found.columns is not None and reading.names is not None:
        found = replace(found, x=found.x[:, in_order(found.columns, reading.names, name)])
    if found.shape != shape:
        raise InputError(f"{name} holds examples of shape {found.shape}, the run's model {shape}")
    return found


def existing(path: str | PathLike[str]) -> Path:
    """The path; InputError where there is nothing."""
    if not Path(path).exists():
        raise InputError(f"{path} does not exist")
    return Path(path)


def _in_table(given: Any, reading: Reading) -> Examples:
    """The rows of a pandas table of several kinds."""
    table = of_frame(as_frame(given, "x"), reading, "x")
    (ready,) = prepared({"": table.values}, "x", {"": "x"}, reading).values()
    return Examples(as_rows(ready), ready.shape[1:], table.rows, columns=table.columns)


def _in_array(array: Array, columns: tuple[str, ...] | None, reading: Reading, shape: tuple[int, ...]) -> Examples:
    """Examples (n, ...) of an array, or (n, pixels)."""
    if array.ndim == 2 and array.shape[1] == math.prod(shape):
        array = array.reshape(-1, *shape)
    if array.shape == shape:
        raise InputError(f"x is one example {shape}, expected several (n, ...): x[None] is one of them")
    ready = prepared({"": array}, "x", {"": "x"}, reading)
    (found,) = bits_of(ready, reading)
    for column, values in zip(reading.known or (), found.T, strict=False):
        column.check(values, "x")
    drawn = is_grey(ready, reading)
    return Examples(as_rows(found), tuple(found.shape[1:]), np.arange(len(found)), columns=columns, drawn=drawn)


def gapped_in(given: Any, reading: Reading) -> Array:
    """Examples (n, ...) as they came, NaN where values are missing, their columns in the run's order."""
    if isinstance(given, str | PathLike):
        name, (values, own) = str(given), gapped_at(existing(given), reading)
    elif reading.known is not None and column_names(given) is not None:
        table = of_frame(as_frame(given, "x"), reading, "x", gaps=True)
        name, values, own = "x", table.values, table.columns
    else:
        name, values, own = "x", as_array(given, "x"), column_names(given)
    return values if own is None or reading.names is None else values[:, in_order(own, reading.names, name)]


def codes_in(given: Any, bits: int, normal: bool) -> Float[Tensor, "n bits"]:
    """Codes as a decoder takes them: probabilities are rounded to bits, normal variables stay."""
    codes = as_array(given, "codes")
    if codes.dtype.kind not in "buif" or codes.ndim != 2 or codes.shape[1] != bits or not len(codes):
        raise InputError(f"codes are {codes.dtype} of shape {codes.shape}, expected numbers (n, {bits})")
    if not np.isfinite(codes).all() or not (normal or ((codes >= 0) & (codes <= 1)).all()):
        raise InputError(f"codes lie from {codes.min()} to {codes.max()}, expected bits or probabilities in [0, 1]")
    found = torch.from_numpy(codes.astype(np.float32))
    return found if normal else found.round()


def gaps_in(given: Array, missing: Any, shape: tuple[int, ...]) -> Array:
    """What is missing of examples (n, ...): NaN, or what an array or the file at a path says, of all or of each."""
    if missing is None:
        return np.isnan(given) if given.dtype.kind == "f" else np.zeros(given.shape, bool)
    gaps = mask_at(Path(missing)) if isinstance(missing, str | PathLike) else as_array(missing, "missing")
    if gaps.shape == shape[:2] and len(shape) == 3:  # a mask of pixels, for each of their colours
        gaps = np.repeat(gaps[..., None], 3, 2)
    if gaps.shape == shape and len(shape) == 3 and given.shape[1:] == (3, *shape[:2]):  # x has channels first
        gaps = np.moveaxis(gaps, 2, 0)
    if gaps.shape in (given.shape[1:], shape):
        gaps = np.repeat(gaps.reshape(1, *given.shape[1:]), len(given), 0)
    if gaps.dtype != bool or gaps.shape != given.shape:
        expected = f"True and False of the shape of x, {given.shape}, or of one example, {shape}"
        raise InputError(f"missing is {gaps.dtype} of shape {gaps.shape}, expected {expected}")
    return gaps


def filled(given: Array, gaps: Array, reading: Reading) -> Array:
    """The examples with a value that may be theirs where one is missing; whole numbers as such."""
    if reading.known is not None:
        return np.where(gaps, 0, given)
    known = given[~gaps]
    whole = np.where(gaps, known.min() if known.size else np.zeros((), given.dtype), given)
    return whole.astype(np.int64) if whole.dtype.kind == "f" and (whole % 1 == 0).all() else whole


def clamped_bits(given: Any, n: int, bits: int) -> Array:
    """Bits (n, bits) of a prior, NaN where they are free, of one row or n; InputError for others."""
    clamp = as_array(given, "clamp")
    if clamp.dtype.kind not in "buif" or clamp.ndim not in (1, 2) or clamp.shape[-1] != bits:
        raise InputError(
            f"clamp is {clamp.dtype} of shape {clamp.shape}, expected numbers (bits,) or (n, bits) of {bits} bits"
        )
    if clamp.ndim == 2 and len(clamp) != n:
        raise InputError(f"clamp holds {len(clamp)} rows of bits, expected {n}, or one")
    return np.array(np.broadcast_to(clamp.astype(np.float32), (n, bits)))


def check_categories(x: Tensor, model: Model, name: str) -> None:
    """InputError where x holds categories that the model's data did not have."""
    likelihood = getattr(model, "likelihood", None)
    known = likelihood.one_hot if isinstance(likelihood, Likelihood) else 0
    if known and int(x.max()) >= known:
        raise InputError(f"{name} holds the category {int(x.max())}, and the run's data had 0 to {known - 1}")
