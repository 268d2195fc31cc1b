"""Columns of several kinds in one table: what each holds, and numbers as its cells again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dvaepp.data.kinds import MOST
from dvaepp.errors import InputError

Array = NDArray[Any]
ColumnKind = Literal["bits", "real", "counts", "categories"]
Stored = Literal["float", "int", "bool", "text"]
WHOLE = 2.0**53
"""Up to here whole numbers are exact in float64."""


@dataclass(frozen=True)
class Column:
    """A column of a table of several kinds."""

    name: str
    kind: ColumnKind
    values: tuple[str, ...] = ()
    """What 0 and 1 of bits, or 0, 1, .. of categories stand for, as texts."""
    stored: Stored = "float"
    """The type of its cells: whole numbers are int, whatever held them."""
    gap: bool = False
    """Whether a missing value is the category after those of `values`."""

    @property
    def categories(self) -> int:
        """How many it has, or 0."""
        return len(self.values) + self.gap

    def check(self, numbers: Array, where: str) -> None:
        """InputError, beginning with `where`, for numbers (n,), without NaN, that are none of its values."""
        if self.kind == "real":
            return
        top = self.categories - 1 if self.values else MOST
        wrong = (numbers < 0) | (numbers > top) | (numbers != np.floor(numbers))
        if wrong.any():
            held = f"{where}: column {self.name!r} holds {numbers[wrong][0]:g}"
            raise InputError(f"{held}, expected {self.kind}: whole numbers in 0..{top}")

    def cells(self, numbers: Array) -> Array:
        """Numbers (n,) in the type of its cells; what is missing, or NaN, is NaN among numbers, else None."""
        missing = np.isnan(numbers)
        self.check(numbers[~missing], "x")
        missing |= (numbers == len(self.values)) & self.gap
        found = self._values()[np.where(missing, 0, numbers).astype(np.int64)] if self.values else self._plain(numbers)
        if not missing.any():
            return found
        found = found.astype(np.float64 if self.stored in ("float", "int") else object)
        found[missing] = np.nan if found.dtype.kind == "f" else None
        return found

    def _values(self) -> Array:
        if self.stored == "text":
            return np.array(self.values, dtype=object)
        if self.stored == "bool":
            return np.array([word == "True" for word in self.values])
        return np.array([float(word) for word in self.values]).astype(self.stored)

    def _plain(self, numbers: Array) -> Array:
        if self.stored != "int":
            return numbers
        return np.rint(np.clip(np.nan_to_num(numbers.astype(np.float64)), -WHOLE, WHOLE)).astype(np.int64)

    def written(self) -> dict[str, Any]:
        """Itself as JSON has it."""
        return {**asdict(self), "values": list(self.values)}

    @staticmethod
    def read(written: Any) -> Column:
        """The column that JSON is; ValueError for anything else."""
        try:
            column = Column(**{**written, "values": tuple(map(str, written["values"]))})
        except (TypeError, KeyError):
            raise ValueError(f"{written!r} is no column of a table") from None
        if column.kind not in get_args(ColumnKind) or column.stored not in get_args(Stored):
            raise ValueError(f"{written!r} is no column of a table")
        return column


def kinds_of(columns: Sequence[Column] | None) -> tuple[tuple[str, int], ...]:
    """The kind of each column, and how many categories it has."""
    return tuple((column.kind, column.categories) for column in columns or ())


def cells_of(numbers: Array, columns: Sequence[Column]) -> dict[str, Array]:
    """Numbers (n, columns) as the cells of a table, by column; InputError where a column does not hold such numbers."""
    return {column.name: column.cells(each) for each, column in zip(numbers.T, columns, strict=True)}
