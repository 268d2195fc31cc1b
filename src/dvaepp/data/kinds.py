"""The kinds of data: bits, and numbers as they are, checked and in the dtype of their kind."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dvaepp.errors import InputError

Plain = Literal["levels", "real", "counts", "categories", "mixed"]
"""Numbers as they are: 8-bit levels of images; in tables real numbers, counts or indices of categories, or mixed."""
Kind = Literal["bits", Plain]
_LEAST_SD = 1e-37
"""Single precision has its full digits down to 1.2e-38."""
MOST = 2**24
"""Counts and categories reach the likelihood as float32, in which whole numbers are exact up to here."""
DTYPES: dict[str, torch.dtype] = {
    "bits": torch.uint8,
    "levels": torch.uint8,
    "real": torch.float32,
    "counts": torch.int32,
    "categories": torch.int32,
    "mixed": torch.float32,
}


Array = NDArray[Any]
_WHOLE: dict[str, tuple[type[np.generic], int]] = {
    "levels": (np.uint8, 255),
    "counts": (np.int32, MOST),
    "categories": (np.int32, MOST),
}


def plain(array: Array, kind: Plain, where: str) -> Array:
    """The array in the dtype of its kind; InputError that begins with `where` unless it holds such numbers."""
    _validate_shape(array, kind, where)
    if array.dtype.kind not in ("ui" if kind == "levels" else "buif"):
        expected = "integers in 0..255" if kind == "levels" else "bool, integers or floats"
        raise InputError(f"{where} has dtype {array.dtype}, expected {expected}")
    if array.size == 0:
        raise InputError(f"{where} is empty (shape {array.shape}), expected at least one example")
    return _real(array, where) if kind in ("real", "mixed") else _whole(array, kind, where)


def check_resolved(array: Array, where: str) -> None:
    """InputError beginning with `where` if single precision rounds a column by more than a twentieth of its sd.

    Also if a column varies with an sd below 1e-37.
    """
    columns = array.reshape(len(array), -1)
    sd = columns.std(0, dtype=np.float64)
    small = np.flatnonzero((sd < _LEAST_SD) & (columns != columns[0]).any(0))
    if len(small):
        raise InputError(
            f"{where} column {small[0] + 1} has an sd of {sd[small[0]]:.3g}, which single precision does not resolve, "
            f"expected at least {_LEAST_SD:.0e}: multiply it by a constant"
        )
    if np.can_cast(array.dtype, np.float32):
        return
    exact = columns.astype(np.float64, copy=False)
    lost = exact - exact.astype(np.float32)
    coarse = np.flatnonzero(np.ptp(lost, 0) > sd / 20)
    if len(coarse):
        column = exact[:, coarse[0]]
        raise InputError(
            f"{where} column {coarse[0] + 1} has an sd of {column.std():.3g} about {column.mean():.10g}, which single "
            "precision does not resolve: subtract its mean"
        )


def _validate_shape(array: Array, kind: Plain, where: str) -> None:
    if kind == "levels" and array.ndim != 3 and (array.ndim != 4 or array.shape[3] != 3):
        expected = "images (n, height, width), (n, height, width, 3) or (n, 3, height, width)"
        raise InputError(f"{where} has shape {array.shape}, expected {expected}; of tables say which kind they are")
    if kind == "mixed" and array.ndim != 2:
        raise InputError(f"{where} has shape {array.shape}, expected a table (n, columns)")
    if kind != "levels" and array.ndim not in (2, 3):
        raise InputError(f"{where} has shape {array.shape}, expected (n, columns) or (n, height, width)")


def _real(array: Array, where: str) -> Array:
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if not np.isfinite(single).all():
        bad = array[~np.isfinite(single)][0]
        raise InputError(f"{where} holds {bad}, expected finite numbers of single precision")
    return single


def _whole(array: Array, kind: str, where: str) -> Array:
    dtype, top = _WHOLE[kind]
    inside = (array >= 0) & (array <= top)
    if array.dtype.kind == "f":
        inside &= array == np.floor(array)
    if not inside.all():
        raise InputError(f"{where} holds {array[~inside][0]}, expected {kind}: whole numbers in 0..{top}")
    return array.astype(dtype)
