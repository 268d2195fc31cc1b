"""Tables as people have them, read by pandas: any separator, encoding and decimal mark, Parquet; chosen columns."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from dvaepp.data import formats
from dvaepp.data.formats import Array
from dvaepp.data.reading import Reading
from dvaepp.errors import InputError, nearest

SUFFIXES = (".csv", ".tsv", ".tab", ".parquet")
_SEPARATORS = ",;\t|"
_ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_LOOK = 20
"""Lines by which separator and decimal mark are told."""


def suffix(path: Path) -> str:
    """That of a table's name in small letters, without .gz."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def is_plain(path: Path, reading: Reading) -> bool:
    """Whether `formats.table` reads it: commas between numbers, or between 0 and 1 where these are wanted, in UTF-8."""
    if suffix(path) != ".csv" or path.suffix == ".gz" or reading.chooses_columns:
        return False
    start = formats.stored(path)[:10_000]
    if start[:2] in _ENCODINGS:
        return False
    lines = start.decode("utf-8", errors="replace").splitlines()[:_LOOK]
    return _separator(lines) == "," and reading.binarise in ("auto", "none")


def read(path: Path, reading: Reading, gaps: bool = False) -> tuple[Array, Array | None, Array, tuple[str, ...] | None]:
    """The numbers (n, columns) of the columns that are examples', labels (n,), their rows, and names of the columns.

    Rows are counted from 0 after the names. With `gaps`, missing numbers are NaN, whatever `reading` says. InputError
    naming the column that holds no numbers, or misses some, and the
    setting that helps.
    """
    table, named = _table(path, reading)
    for column in reading.drop:
        table = table.drop(columns=_found(table, column, path, "drop"))
    labels = None
    if reading.label is not None:
        found = _found(table, reading.label, path, "label")
        if table[found].isna().any():
            raise InputError(f"{path}: column {found!r} misses {int(table[found].isna().sum())} labels, expected all")
        labels, table = table[found].astype(str).to_numpy(dtype=str), table.drop(columns=found)
    if not table.shape[1] or not len(table):
        raise InputError(f"{path}: no columns are left, expected some that are not dropped and not labels")
    table, rows = (table, np.arange(len(table))) if gaps else _without_gaps(table, reading, path)
    values = np.column_stack([_numbers(table[column], column, reading, path, gaps) for column in table.columns])
    _refuse_index(values, table.columns, rows, path)
    labels = labels if labels is None else labels[rows]
    return values, labels, rows, tuple(map(str, table.columns)) if named else None


def _table(path: Path, reading: Reading) -> tuple[Any, bool]:
    """The table as pandas has it, and whether its columns have names; those without are called by their number, "1"."""
    pandas = _pandas(path)
    if suffix(path) == ".parquet":
        try:
            return pandas.read_parquet(path), True
        except Exception as error:  # pyarrow lets many kinds escape from a broken file
            raise InputError(f"{path}: expected a whole Parquet file, but {error}") from error
    text = _text(formats.content(path), path)
    lines = text.splitlines()[:_LOOK]
    if not any(lines):
        raise InputError(f"{path}: is empty, expected rows of a table")
    separator = _separator(lines)
    comma = separator != "," and not any("." in cell for cell in _cells(lines, separator)[1:])
    first = next(csv.reader([next(line for line in lines if line.strip())], delimiter=separator))
    named = reading.header == "present" or (reading.header == "auto" and formats.is_header((1, first), path))
    how = {"sep": separator, "decimal": "," if comma else ".", "header": 0 if named else None, "skipinitialspace": True}
    try:
        table = pandas.read_csv(io.StringIO(text), na_values=list(formats.MISSING), **how)
    except (ValueError, pandas.errors.ParserError) as error:
        raise InputError(f"{path}: expected a table, but {str(error).strip()}") from None
    if isinstance(table.index, pandas.RangeIndex):
        table.columns = [str(name) if named else str(place) for place, name in enumerate(table.columns, 1)]
        return table, named
    raise InputError(f"{path}: its rows have more cells than its first line, expected as many")


def _text(raw: bytes, path: Path) -> str:
    """The text of a file: UTF-8, UTF-16 where it begins so, else as Western Windows writes."""
    marked = next((encoding for mark, encoding in _ENCODINGS.items() if raw.startswith(mark)), None)
    for encoding in (marked,) if marked else ("utf-8", "cp1252"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise InputError(f"{path}: is no text in UTF-8, UTF-16 or Windows-1252, expected a table")


def _separator(lines: list[str]) -> str:
    """What stands equally often in every line, rather than a comma; a comma where nothing does."""
    counts = {each: {line.count(each) for line in lines if line.strip()} for each in _SEPARATORS}
    alike = {each: min(found) for each, found in counts.items() if len(found) == 1 and 0 not in found}
    others = {each: count for each, count in alike.items() if each != ","}
    chosen = others or alike
    return max(chosen, key=lambda each: chosen[each]) if chosen else ","


def _cells(lines: list[str], separator: str) -> list[str]:
    return [cell for row in csv.reader(lines[1:], delimiter=separator) for cell in row]


def _found(table: Any, column: str, path: Path, setting: str) -> Any:
    if column not in table.columns:
        held = ", ".join(map(str, table.columns[:20]))
        hint = nearest(column, list(map(str, table.columns)))
        raise InputError(f"{path}: has no column {column!r}, which data.{setting} names, expected one of {held}{hint}")
    return column


def _without_gaps(table: Any, reading: Reading, path: Path) -> tuple[Any, Array]:
    """The table with what is missing dealt with, and the rows that are left of it."""
    rows, gaps = np.arange(len(table)), table.isna()
    if not gaps.to_numpy().any():
        return table, rows
    if reading.missing == "drop-rows":
        kept = ~gaps.to_numpy().any(1)
        if not kept.any():
            raise InputError(
                f"{path}: every row misses a value, expected some that miss none: data.missing=drop-columns"
            )
        return table[kept], rows[kept]
    if reading.missing == "drop-columns":
        kept = ~gaps.to_numpy().any(0)
        if not kept.any():
            raise InputError(
                f"{path}: every column misses a value, expected some that miss none: data.missing=drop-rows"
            )
        return table.loc[:, kept], rows
    if reading.missing == "category":
        return table, rows
    first = next(column for column in table.columns if gaps[column].any())
    count = f"{int(gaps[first].sum()):,} of {len(table):,} values"
    others = int(gaps.any().sum()) - 1
    also = f" (and {others} other column{'s' * (others > 1)} some)" if others else ""
    raise InputError(
        f"{path}: column {first!r} misses {count}{also}, expected all: data.missing=drop-rows, drop-columns or, for "
        f"categories, category; or data.drop=[{first}]"
    )


def _numbers(column: Any, name: str, reading: Reading, path: Path, gaps: bool) -> Array:
    """A column's numbers; of categories each value's place among those there, in order, those that are missing last."""
    if reading.plain == "categories" and (column.dtype.kind not in "iub" or column.isna().any()):
        codes, values = _pandas(path).factorize(column, sort=True)
        return np.where(codes < 0, len(values), codes).astype(np.float64)
    if column.isna().any() and not gaps:
        raise InputError(f"{path}: column {name!r} misses values, and data.missing=category is for categories")
    if column.dtype.kind in "buif":
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    shown = next(value for value in column if not _is_number(value))
    raise InputError(
        f"{path}: column {name!r} holds {shown!r}, expected numbers: data.label={name} keeps it as labels, "
        f"data.drop=[{name}] leaves it out"
    )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _refuse_index(values: Array, names: Any, rows: Array, path: Path) -> None:
    """InputError for a column that counts the rows, from 0 or 1."""
    for name, column in zip(names, values.T, strict=True):
        for start in (0, 1):
            if len(rows) > 2 and np.array_equal(column, rows + start):
                raise InputError(f"{path}: column {name!r} counts the rows, expected it left out: data.drop=[{name}]")


def _pandas(path: Path) -> Any:
    try:
        import pandas
    except ImportError:
        raise InputError(f"{path}: reading it needs pandas; pip install 'dvaepp[tables]'") from None
    return pandas
