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
from dvaepp.data.arrays import as_array, bits_of, column_names, is_grey, prepared
from dvaepp.data.binarise import as_rows
from dvaepp.data.dataset import in_order
from dvaepp.data.own import mask_at
from dvaepp.errors import InputError
from dvaepp.models.base import Model
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
    if array.shape == shape:
        raise InputError(f"x is one example {shape}, expected several (n, ...): x[None] is one of them")
    ready = prepared({"": array}, "x", {"": "x"}, recipe.reading)
    (found,) = bits_of(ready, recipe.reading)
    drawn = is_grey(ready, recipe.reading)
    return Examples(as_rows(found), tuple(found.shape[1:]), np.arange(len(found)), columns=columns, drawn=drawn)


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


def filled(given: Array, gaps: Array) -> Array:
    """The examples with a value of theirs where one is missing; whole numbers as such."""
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
    known = getattr(getattr(model, "likelihood", None), "categories", None)
    if known is not None and int(x.max()) >= known:
        raise InputError(f"{name} holds the category {int(x.max())}, and the run's data had 0 to {known - 1}")
