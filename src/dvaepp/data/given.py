"""What a program holds examples in, as arrays of numpy's or as a table of pandas's."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dvaepp.errors import InputError

Array = NDArray[Any]


def as_frame(table: Any, name: str) -> Any:
    """A pandas table, its rows numbered from 0 and its columns called by texts; InputError where it is none."""
    if not (hasattr(table, "dtypes") and hasattr(table, "columns")):
        raise InputError(f"{name} is of {type(table).__name__}, expected a pandas table: columns of several kinds")
    return table.reset_index(drop=True).set_axis([str(column) for column in table.columns], axis=1)


def as_array(given: Any, name: str) -> Array:
    """The numpy array of what people hold arrays in; InputError, beginning with its name, where it is none.

    A pandas table takes a type that holds all of its own; what is missing there, or masked, is NaN.
    """
    if isinstance(given, Tensor):
        given = given.detach().cpu().to_dense()
        return np.asarray(given.float() if given.dtype == torch.bfloat16 else given)
    if np.ma.is_masked(given):
        return np.asarray(np.ma.filled(given.astype(np.float64), np.nan))
    if hasattr(given, "toarray"):  # scipy.sparse
        return np.asarray(given.toarray())
    if hasattr(given, "dtypes") and hasattr(given, "columns"):
        return _of_table(given, name)
    try:
        return np.asarray(given)
    except (ValueError, TypeError) as error:
        raise InputError(f"{name} is no array, expected numbers (n, ...): {error}") from None


def _of_table(table: Any, name: str) -> Array:
    """The numbers of a pandas table, in a dtype that holds them all."""
    for column, dtype in zip(table.columns, table.dtypes, strict=True):
        if getattr(dtype, "kind", "O") not in "buif":
            raise InputError(
                f"{name}: column {column!r} holds {dtype}, expected numbers: leave it out, give its codes, or take "
                "kind mixed (model.likelihood=mixed), for columns of several kinds"
            )
    kinds = {dtype.kind for dtype in table.dtypes}
    if kinds == {"b"} and not table.isna().to_numpy().any():
        return np.asarray(table.to_numpy(dtype=bool))
    return np.asarray(table.to_numpy(dtype=np.float64, na_value=np.nan))


def column_names(given: Any) -> tuple[str, ...] | None:
    """The names of a table's columns, where it has them."""
    return tuple(map(str, given.columns)) if hasattr(given, "dtypes") and hasattr(given, "columns") else None
