"""The cells of a pandas table of several kinds: what its columns hold, found by their values, and cells as numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, get_args

import numpy as np

from dvaepp.data.columns import WHOLE, Array, Column, ColumnKind, Stored
from dvaepp.data.formats import MISSING
from dvaepp.data.kinds import MOST
from dvaepp.errors import InputError, nearest

_CATEGORIES = 256
_DISPERSION = 0.25, 10.0
"""Whole numbers are counts where their variance lies between these multiples of their mean."""
_NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
"""Of a text. What begins with zeros, such as 007, is a name."""
_NO_CELLS = (bytes, tuple, list, dict, set, frozenset, complex, np.ndarray)


def columns_of(table: Any, kinds: Mapping[str, str], where: str, gaps_named: bool = False) -> tuple[Column, ...]:
    """What the columns of a pandas table hold: as `kinds` says, else by what is there.

    Two different values are bits, words categories. Whole numbers of at least 0 are counts where a Poisson law may be
    theirs, of a variance of .25 to 10 times the mean; all others real numbers. With `gaps_named` a missing value among
    words, or among two values, is a category. InputError, beginning with `where`, for a column that is none of these.
    """
    if len(set(table.columns)) < len(table.columns):
        raise InputError(f"{where}: has several columns of one name, expected another for each")
    for name, kind in kinds.items():
        if name not in table.columns:
            hint = nearest(name, list(map(str, table.columns)))
            raise InputError(f"{where}: has no column {name!r}, of which kinds says what it holds{hint}")
        if kind not in get_args(ColumnKind):
            raise InputError(f"kinds.{name} is {kind!r}, expected one of {', '.join(get_args(ColumnKind))}")
    return tuple(_column(table[name], name, kinds.get(name), where, gaps_named) for name in table.columns)


def _column(cells: Any, name: str, said: Any, where: str, gaps_named: bool) -> Column:
    about, drop = f"{where}: column {name!r}", f"data.drop=[{name}] leaves it out"
    words, known = _words(cells, about), cells.dropna()
    if len(words) < 2:
        raise InputError(f"{about} holds {f'{words[0]!r} alone' if words else 'nothing'}, expected what varies: {drop}")
    numbers = _floats(known, texts=said in ("real", "counts"))
    kind: Any = said or _kind(words, numbers)
    if kind in ("real", "counts"):
        if numbers is None:
            odd = next((word for word in words if not _NUMBER.fullmatch(word)), words[0])
            raise InputError(f"{about} holds {odd!r}, expected numbers; {drop}")
        _check_single(numbers, about)
        found = Column(name, kind, stored="int" if kind == "counts" or _are_whole(numbers) else "float")
        found.check(numbers, where)
        return found
    if kind == "bits" and len(words) > 2:
        raise InputError(f"{about} holds {len(words):,} different values, expected two of bits")
    if len(words) > _CATEGORIES or 2 * len(words) > len(known):
        held = f"{len(words):,} different values in {len(known):,} rows, such as {words[0]!r}"
        raise InputError(f"{about} holds {held}, too many for categories; {drop}")
    gap = gaps_named and len(known) < len(cells)
    if gap and said == "bits":
        raise InputError(f"{about} misses values, and kinds says bits, expected categories, of which one is missing")
    return Column(name, "categories" if gap else kind, tuple(words), _stored(known, numbers), gap)


def _kind(words: Sequence[str], numbers: Array | None) -> Any:
    if len(words) == 2:
        return "bits"
    if numbers is None:
        return "categories"
    if _are_whole(numbers) and 0 <= numbers.min() <= numbers.max() <= MOST:
        low, high = (bound * numbers.mean() for bound in _DISPERSION)
        return "counts" if low <= numbers.var() <= high else "real"
    return "real"


def _stored(known: Any, numbers: Array | None) -> Stored:
    values = known.unique()
    if numbers is None or any(isinstance(value, str) for value in values):
        return "text"
    if all(isinstance(value, bool | np.bool_) for value in values):
        return "bool"
    return "int" if _are_whole(numbers) else "float"


def _are_whole(numbers: Array) -> bool:
    """Whether all are whole numbers that float64 holds exactly."""
    return bool((numbers == np.floor(numbers)).all() and (np.abs(numbers) <= WHOLE).all())


def _check_finite(numbers: Array, about: str) -> Array:
    """Numbers in single precision; InputError where they do not fit in it."""
    with np.errstate(over="ignore"):
        single: Array = numbers.astype(np.float32)
    if not np.isfinite(single).all():
        held = numbers[~np.isfinite(single)][0]
        raise InputError(f"{about} holds {held}, expected finite numbers of single precision")
    return single


def _check_single(numbers: Array, about: str) -> None:
    single = _check_finite(numbers, about)
    if (single == single[0]).all():
        raise InputError(f"{about} varies by less than single precision resolves: subtract its mean")


def numbers_in(table: Any, columns: Sequence[Column], where: str) -> Array:
    """The cells of a pandas table that has these columns in this order as numbers (n, columns), NaN where missing.

    InputError, beginning with `where`, for a cell that its column cannot hold.
    """
    return np.column_stack([_numbers(table[column.name], column, where) for column in columns])


def _numbers(cells: Any, column: Column, where: str) -> Array:
    about = f"{where}: column {column.name!r}"
    words = _words(cells, about)
    if not column.values:
        numbers = _floats(cells, texts=True)
        if numbers is None:
            odd = next((word for word in words if not _NUMBER.fullmatch(word)), words[0])
            raise InputError(f"{about} holds {odd!r}, expected numbers as in training")
        there = numbers[~np.isnan(numbers)]
        _check_finite(there, about)
        column.check(there, where)
        return numbers
    places: dict[Any, float] = {}
    for value in cells.dropna().unique():
        word = text(value)
        if word not in column.values and _NUMBER.fullmatch(word):
            word = text(float(word))
        if word not in column.values:
            listed = ", ".join(map(repr, column.values[:10]))
            raise InputError(f"{about} holds {text(value)!r}, expected one of {listed} as in training")
        places[value] = column.values.index(word)
    gap = float(len(column.values)) if column.gap else np.nan
    return np.array([gap if missing else places[cell] for cell, missing in zip(cells, cells.isna(), strict=True)])


def _words(cells: Any, about: str) -> list[str]:
    """The different values of a column as texts, numbers in their order, then words; InputError for what is neither."""
    try:
        values = list(cells.dropna().unique())
    except TypeError:
        values = list(cells.dropna())
    odd = next((value for value in values if isinstance(value, _NO_CELLS)), None)
    if odd is not None:
        raise InputError(f"{about} holds {type(odd).__name__}, such as {str(odd)[:40]}, expected numbers or words")
    return sorted({text(value) for value in values}, key=_order)


def _order(word: str) -> tuple[bool, float, str]:
    return (False, float(word), word) if _NUMBER.fullmatch(word) else (True, 0.0, word)


def _floats(cells: Any, texts: bool) -> Array | None:
    """A column's numbers in float64, NaN where they are missing; None where others than numbers are there.

    Those that `texts` write are among them, if that is asked for.
    """
    if getattr(cells.dtype, "kind", "O") in "buif":
        return np.asarray(cells.to_numpy(dtype=np.float64, na_value=np.nan))
    if getattr(cells.dtype, "kind", "O") in "mMc":
        return None
    numbers = np.full(len(cells), np.nan)
    for place, (cell, missing) in enumerate(zip(cells, cells.isna(), strict=True)):
        if missing:
            continue
        written = texts and isinstance(cell, str) and _NUMBER.fullmatch(cell.strip())
        if not (written or isinstance(cell, Real | Decimal | np.bool_)):
            return None
        numbers[place] = float(cell)
    return numbers


def text(cell: Any) -> str:
    """A cell as the name of a value: whole numbers without a point, whatever type they have."""
    if isinstance(cell, float | np.floating):
        return str(int(cell)) if float(cell).is_integer() else str(cell)
    return str(cell.item() if isinstance(cell, np.generic) else cell)


def typed(table: Any, comma: bool, known: Sequence[Column] | None) -> Any:
    """A pandas table of texts, as a file has them, with numbers where all cells of a column are such, and gaps.

    `comma` says that decimals stand after one. Cells of a column that is `known` to hold words stay as they are.
    """
    columns = {column.name: column for column in known or ()}
    return table.apply(lambda cells: _typed(cells, comma, columns.get(cells.name)))


def _typed(cells: Any, comma: bool, column: Column | None) -> Any:
    bare = cells.str.strip()
    missing = bare.str.lower().isin(MISSING)
    if column is not None and column.stored == "text":
        return cells.mask(missing & ~cells.isin(column.values), None)
    numbers = bare.str.replace(",", ".") if comma else bare
    if numbers[~missing].map(lambda cell: _NUMBER.fullmatch(cell) is not None).all():
        return numbers.mask(missing, "nan").astype(np.float64)
    if bare[~missing].isin(("True", "False", "true", "false", "TRUE", "FALSE")).all():
        return bare.str.lower().map({"true": True, "false": False})
    return cells.mask(missing, None)
