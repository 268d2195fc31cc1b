"""Columns of several kinds in one table: what each holds, found by its type or said, and its cells as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from dvaepp.data.kinds import MOST
from dvaepp.errors import InputError, nearest

Array = NDArray[Any]
ColumnKind = Literal["bits", "real", "counts", "categories"]
GAP = ""
"""The category that a missing value is, where it is one."""
_CATEGORIES = 256
_DISPERSION = 0.25, 10.0
"""Whole numbers are counts where their variance lies between these multiples of their mean."""


@dataclass(frozen=True)
class Column:
    """A column of a table of several kinds."""

    name: str
    kind: ColumnKind
    values: tuple[str, ...] = ()
    """What 0 and 1 of bits, or 0, 1, .. of categories stand for; "" is a missing value."""
    whole: bool = False
    """Of real numbers, whether all were whole."""

    def check(self, numbers: Array, where: str) -> None:
        """InputError, beginning with `where`, for numbers (n,) that are none of its values."""
        if self.kind == "real":
            return
        top = len(self.values) - 1 if self.values else MOST
        wrong = (numbers < 0) | (numbers > top) | (numbers % 1 != 0)
        if wrong.any():
            held = f"{where}: column {self.name!r} holds {numbers[wrong][0]:g}"
            raise InputError(f"{held}, expected {self.kind}: whole numbers in 0..{top}")

    def written(self) -> dict[str, Any]:
        """Itself as JSON has it."""
        return {**asdict(self), "values": list(self.values)}

    @staticmethod
    def read(written: Any) -> Column:
        """The column that JSON is; ValueError for anything else."""
        known = isinstance(written, dict) and written.keys() == {"name", "kind", "values", "whole"}
        if not known or written["kind"] not in get_args(ColumnKind) or not isinstance(written["values"], list):
            raise ValueError(f"{written!r} is no column of a table")
        return Column(str(written["name"]), written["kind"], tuple(map(str, written["values"])), bool(written["whole"]))


def kinds_of(columns: Sequence[Column] | None) -> tuple[tuple[ColumnKind, int], ...]:
    """The kind of each column, and how many categories it has."""
    return tuple((column.kind, len(column.values)) for column in columns or ())


def columns_of(table: Any, kinds: Mapping[str, str], where: str, gaps_named: bool = False) -> tuple[Column, ...]:
    """What the columns of a pandas table hold: as `kinds` says, else by what is there.

    Two different values are bits, words categories. Whole numbers of at least 0 are counts where a Poisson law may be
    theirs, of a variance of .25 to 10 times the mean; all others real numbers. With `gaps_named` a missing value of
    bits or categories is a category. InputError, beginning with `where`, for a column that is none of these.
    """
    if len(set(table.columns)) < len(table.columns):
        raise InputError(f"{where}: has several columns of one name, expected another for each")
    for name, kind in kinds.items():
        if name not in table.columns:
            hint = nearest(name, list(map(str, table.columns)))
            raise InputError(f"{where}: has no column {name!r}, of which data.kinds says the kind{hint}")
        if kind not in get_args(ColumnKind):
            expected = ", ".join(get_args(ColumnKind))
            raise InputError(f"data.kinds.{name} is {kind!r}, expected one of {expected}")
    return tuple(_column(table[name], name, kinds.get(name), where, gaps_named) for name in table.columns)


def _column(column: Any, name: str, kind: str | None, where: str, gaps_named: bool) -> Column:
    known = column.dropna()
    words = sorted({text(value) for value in known.unique()}, key=_place)
    numeric = column.dtype.kind in "iuf" if hasattr(column.dtype, "kind") else False
    about = f"{where}: column {name!r}"
    drop = f"data.drop=[{name}] leaves it out"
    if len(words) < 2:
        raise InputError(f"{about} holds {f'{words[0]!r} alone' if words else 'nothing'}, expected what varies: {drop}")
    numbers = known.to_numpy(dtype=np.float64) if numeric else None
    kind = kind or _kind(words, numbers)
    if kind == "bits" and len(words) > 2:
        raise InputError(f"{about} holds {len(words):,} different values, expected two of bits")
    if kind in ("real", "counts"):
        if numbers is None:
            odd = next((word for word in words if not _is_number(word)), words[0])
            raise InputError(f"{about} holds {odd!r}, expected numbers; {drop}")
        _check_single(numbers, about)
        found = Column(name, cast(ColumnKind, kind), whole=kind == "real" and bool((numbers % 1 == 0).all()))
        found.check(numbers, where)
        return found
    if len(words) > _CATEGORIES or 2 * len(words) > len(known):
        held = f"{len(words):,} different values in {len(known):,} rows"
        raise InputError(f"{about} holds {held}, such as {words[0]!r}, too many for categories; {drop}")
    if gaps_named and len(known) < len(column):
        return Column(name, "categories", (*words, GAP))
    return Column(name, cast(ColumnKind, kind), tuple(words))


def _kind(words: Sequence[str], numbers: Array | None) -> ColumnKind:
    if len(words) == 2:
        return "bits"
    if numbers is None:
        return "categories"
    if (numbers % 1 == 0).all() and numbers.min() >= 0 and numbers.max() <= MOST:
        low, high = (bound * numbers.mean() for bound in _DISPERSION)
        return "counts" if low <= numbers.var() <= high else "real"
    return "real"


def _check_single(numbers: Array, about: str) -> None:
    with np.errstate(over="ignore"):
        finite = np.isfinite(numbers.astype(np.float32))
    if not finite.all():
        raise InputError(f"{about} holds {numbers[~finite][0]}, expected finite numbers of single precision")


def numbers_in(table: Any, columns: Sequence[Column], where: str) -> Array:
    """The cells of a pandas table that has these columns in this order as numbers (n, columns), NaN where missing.

    InputError, beginning with `where`, for a cell that its column cannot hold.
    """
    return np.column_stack([_numbers(table[column.name], column, where) for column in columns])


def _numbers(cells: Any, column: Column, where: str) -> Array:
    about = f"{where}: column {column.name!r}"
    if not column.values:
        try:
            numbers: Array = cells.to_numpy(dtype=np.float64, na_value=np.nan)
        except (ValueError, TypeError):
            odd = next(value for value in cells.dropna() if not _is_number(value))
            raise InputError(f"{about} holds {odd!r}, expected numbers as in training") from None
        there = numbers[~np.isnan(numbers)]
        _check_single(there, about)
        column.check(there, where)
        return numbers
    places: dict[Any, float] = {}
    for value in cells.dropna().unique():
        if (word := text(value)) not in column.values:
            listed = ", ".join(repr(each) for each in column.values[:10] if each != GAP)
            raise InputError(f"{about} holds {word!r}, expected one of {listed} as in training")
        places[value] = column.values.index(word)
    gap = float(column.values.index(GAP)) if GAP in column.values else np.nan
    return np.array([gap if missing else places[cell] for cell, missing in zip(cells, cells.isna(), strict=True)])


def cells_of(numbers: Array, columns: Sequence[Column]) -> dict[str, Array]:
    """Numbers (n, columns) as the cells of a table, each column (n,) in the type that it was read from.

    Words are texts, and a missing value an empty one, or NaN among numbers.
    """
    return {column.name: _cells(each, column) for each, column in zip(numbers.T, columns, strict=True)}


def _cells(numbers: Array, column: Column) -> Array:
    if column.kind == "counts" or column.whole:
        return np.rint(numbers).astype(np.int64)
    if not column.values:
        return numbers
    known = [word for word in column.values if word != GAP]
    words: Array = np.array(column.values)
    if all(map(_is_number, known)):
        whole = all(word.lstrip("-").isdecimal() for word in known) and GAP not in column.values
        words = np.array([float(word or "nan") for word in column.values]).astype(np.int64 if whole else np.float64)
    elif set(column.values) == {"False", "True"}:
        words = np.array([word == "True" for word in column.values])
    return words[np.rint(numbers).astype(np.int64)]


def text(cell: Any) -> str:
    """A cell as the name of a category: whole numbers without a point, whatever type they have."""
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        return str(int(cell))
    return str(cell.item() if isinstance(cell, np.generic) else cell)


def _place(word: str) -> tuple[bool, float, str]:
    """Numbers in their order, then words in theirs."""
    return (False, float(word), word) if _is_number(word) else (True, 0.0, word)


def _is_number(value: Any) -> bool:
    """Whether it is a finite number, or a text as `text` writes one: "05" is a word."""
    try:
        return bool(np.isfinite(float(value))) and (not isinstance(value, str) or text(float(value)) == value)
    except (TypeError, ValueError):
        return False
