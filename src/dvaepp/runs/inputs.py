"""What people give a run, as its model takes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from dvaepp.data.arrays import as_array, bits_of, column_names, prepared
from dvaepp.data.binarise import as_rows
from dvaepp.data.dataset import in_order
from dvaepp.data.own import mask_at
from dvaepp.errors import InputError
from dvaepp.recipes.recipe import Recipe

Array = NDArray[Any]


def examples_in(given: Any, recipe: Recipe, shape: tuple[int, ...], columns: Sequence[str] | None) -> Examples:
    """Examples at a path, or in whatever holds arrays, read as those of the recipe; InputError for other shapes.

    Where their columns and those of the run have names, they are put into the run's order; InputError for others.
    """
    if isinstance(given, str | PathLike):
        name, found = str(given), recipe.examples_at(given)
    else:
        name, found = "x", _in_array(as_array(given, "x"), column_names(given), recipe, shape)
    if found.columns is not None and columns is not None:
        found = replace(found, x=found.x[:, in_order(found.columns, columns, name)])
    if found.shape != shape:
        raise InputError(f"{name} holds examples of shape {found.shape}, the run's model {shape}")
    return found


def _in_array(array: Array, columns: tuple[str, ...] | None, recipe: Recipe, shape: tuple[int, ...]) -> Examples:
    """Examples (n, ...) of an array, or (n, pixels)."""
    if array.ndim == 2 and array.shape[1] == math.prod(shape):
        array = array.reshape(-1, *shape)
    (found,) = bits_of(prepared({"": array}, "x", {"": "x"}, recipe.reading), recipe.reading)
    return Examples(as_rows(found), tuple(found.shape[1:]), np.arange(len(found)), columns=columns)


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
    if gaps.dtype != bool or gaps.shape not in (given.shape, given.shape[1:], shape):
        expected = f"True and False of the shape of x, {given.shape}, or of one example, {shape}"
        raise InputError(f"missing is {gaps.dtype} of shape {gaps.shape}, expected {expected}")
    if gaps.shape == given.shape:
        return gaps
    return np.array(np.broadcast_to(gaps.reshape(given.shape[1:]), given.shape))
