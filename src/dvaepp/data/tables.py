"""Tables as people have them, read by pandas: any separator, encoding and decimal mark, Parquet; chosen columns."""

import csv
import io
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dvaepp.data import formats
from dvaepp.data.cells import columns_of, numbers_in, typed
from dvaepp.data.columns import Column
from dvaepp.data.dataset import in_order
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
    if suffix(path) != ".csv" or path.suffix == ".gz" or reading.chooses_columns or reading.kind == "mixed":
        return False
    start = formats.stored(path)[:10_000]
    if start[:2] in _ENCODINGS:
        return False
    lines = start.decode("utf-8", errors="replace").splitlines()[:_LOOK]
    return _separator(lines) == "," and reading.binarise in ("auto", "none")


@dataclass(frozen=True)
class Table:
    """The cells of a table as numbers (n, columns), NaN where they are missing, and what is beside them."""

    values: Array
    rows: Array
    """Counted from 0 after the names."""
    labels: Array | None
    columns: tuple[str, ...] | None
    """Their names, where they have any."""
    schema: tuple[Column, ...] | None = None
    """What they hold, where they are of several kinds."""
    left: str = ""
    """What was left out for its gaps."""


def read(path: Path, reading: Reading, training: bool = False, gaps: bool = False) -> Table:
    """The columns of a file that are examples' (`of_frame`)."""
    table, named = frame(path, reading)
    found = of_frame(table, reading, str(path), training, gaps)
    return found if named or found.schema is not None else replace(found, columns=None)


def of_frame(given: Any, reading: Reading, where: str, training: bool = False, gaps: bool = False) -> Table:
    """The columns of a pandas table that are examples'.

    With `gaps`, missing numbers are NaN, whatever `reading` says. Where it is not for `training`, columns of labels and
    columns left out need not be there. InputError, beginning with `where`, naming the column that holds no numbers, or
    misses some, and the setting that helps.
    """
    table, labels = _labelled(given, reading, where, training, gaps)
    before, table = set(table.columns), _chosen(table, reading, where)
    left = [f"columns with gaps left out: {', '.join(sorted(before - set(table.columns)))}"] if training else []
    left = left if before - set(table.columns) else []
    if not table.shape[1] or not len(table):
        raise InputError(f"{where}: no columns or no rows are left, expected some that are not dropped and not labels")
    if reading.missing == "drop-rows" and not gaps:
        kept = ~table.isna().to_numpy().any(1)
        if not kept.any():
            raise InputError(f"{where}: every row misses a value, expected some without gaps: data.drop names columns")
        left += [f"{int((~kept).sum()):,} rows with gaps left out"] if not kept.all() else []
        table, labels = table[kept], labels if labels is None else labels[kept]
    schema = reading.known
    if reading.kind == "mixed" and schema is None:
        schema = columns_of(table, reading.kinds, where, reading.missing == "category")
    if not gaps:
        _check_whole(table.drop(columns=[column.name for column in schema or () if column.gap]), reading, schema, where)
    if schema is None:
        values = np.column_stack([_numbers(table[column], column, where) for column in table.columns])
    else:
        values = numbers_in(table, schema, where)
    names = tuple(map(str, table.columns))
    return Table(values, np.asarray(table.index), labels, names, schema, "; ".join(left))


def _labelled(table: Any, reading: Reading, where: str, training: bool, gaps: bool) -> tuple[Any, Array | None]:
    """The columns that are neither left out nor labels, and the labels (n,); rows without one may be left out."""
    for column in reading.drop:
        if training or column in table.columns:
            table = table.drop(columns=_found(table, column, where, "drop"))
    if reading.label is None or not (training or reading.label in table.columns):
        return table, None
    found = _found(table, reading.label, where, "label")
    if gaps:
        return table.drop(columns=found), None
    if reading.missing == "drop-rows":
        table = table[table[found].notna()]
    if table[found].isna().any():
        raise InputError(f"{where}: column {found!r} misses {int(table[found].isna().sum())} labels, expected all")
    return table.drop(columns=found), table[found].astype(str).to_numpy(dtype=str)


def _chosen(table: Any, reading: Reading, where: str) -> Any:
    """Columns without gaps where others are to be dropped; those that a model takes, in its order, where it says so."""
    dropping = reading.missing == "drop-columns"
    if reading.names is None:
        return table.loc[:, ~table.isna().any()] if dropping else table
    if dropping:
        table = table[[column for column in table.columns if column in reading.names]]
    elif reading.known is None:
        return table
    return table.iloc[:, in_order(tuple(table.columns), reading.names, where)]


def frame(path: Path, reading: Reading) -> tuple[Any, bool]:
    """The table as pandas has it, and whether its columns have names; those without are called by their number, "1"."""
    if suffix(path) == ".parquet":
        return parquet(path), True
    pandas = _pandas(path)
    text = _text(formats.content(path), path)
    lines = [line for line in text.splitlines() if line.strip()][:_LOOK]
    if not lines:
        raise InputError(f"{path}: is empty, expected rows of a table")
    separator = _separator(lines)
    comma = separator != "," and _has_decimal_commas(text, separator, path)
    first = next(csv.reader([lines[0]], delimiter=separator))
    named = reading.header == "present" or (reading.header == "auto" and formats.is_names(first, path))
    how: dict[str, Any] = {"sep": separator, "header": 0 if named else None, "skipinitialspace": True}
    if reading.kind == "mixed":
        how |= {"dtype": str, "keep_default_na": False}
    else:
        how |= {"decimal": "," if comma else ".", "na_values": list(formats.MISSING)}
    try:
        table = pandas.read_csv(io.StringIO(text), **how)
    except (ValueError, pandas.errors.ParserError) as error:
        raise InputError(f"{path}: expected a table, but {str(error).strip()}") from None
    if isinstance(table.index, pandas.RangeIndex):
        table.columns = [str(name) if named else str(place) for place, name in enumerate(table.columns, 1)]
        return typed(table, comma, reading.known) if reading.kind == "mixed" else table, named
    raise InputError(f"{path}: its rows have more cells than its first line, expected as many")


def parquet(path: Path) -> Any:
    """The pandas table of a Parquet file, its rows counted from 0; InputError where it is none."""
    pandas = _pandas(path)
    try:
        table = pandas.read_parquet(path).reset_index(drop=True)
    except Exception as error:  # pyarrow lets many kinds escape from a broken file
        raise InputError(f"{path}: expected a whole Parquet file, but {error}") from error
    return table.set_axis([str(name) for name in table.columns], axis=1)


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


def _has_decimal_commas(text: str, separator: str, path: Path) -> bool:
    """Whether commas stand before decimals; InputError where all of them may stand between thousands as well."""
    cells = [cell.strip(' \t\r"+-') for cell in re.split(rf"[{re.escape(separator)}\n]", text)]
    found = [cell for cell in cells if re.fullmatch(r"\d+(?:,\d+)+(?:[eE][+-]?\d+)?", cell)]
    if not found or any(re.fullmatch(r"\d+\.\d+(?:[eE][+-]?\d+)?", cell) for cell in cells):
        return False
    if all(re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+", number) for number in found):
        raise InputError(f"{path}: holds {found[0]}, which may be thousands or decimals: write it without the comma")
    return True


def _found(table: Any, column: str, where: str, setting: str) -> Any:
    if column not in table.columns:
        held = ", ".join(map(str, table.columns[:20]))
        hint = nearest(column, list(map(str, table.columns)))
        raise InputError(f"{where}: has no column {column!r}, which data.{setting} names, expected one of {held}{hint}")
    return column


def _check_whole(table: Any, reading: Reading, schema: tuple[Column, ...] | None, where: str) -> None:
    """InputError where values are missing, with what helps."""
    gaps = table.isna()
    if not gaps.to_numpy().any():
        return
    first = next(column for column in table.columns if gaps[column].any())
    count = f"{int(gaps[first].sum()):,} of {len(table):,} values"
    others = int(gaps.any().sum()) - 1
    also = f" (and {others} other column{'s' * (others > 1)} some)" if others else ""
    missing = f"{where}: column {first!r} misses {count}{also}, expected all"
    if reading.names is not None:
        raise InputError(f"{missing}, as in training; complete fills them in")
    named = any(column.name == first and column.values for column in schema or ()) and reading.missing == "refuse"
    ways = ["drop-rows", "drop-columns", *(["category"] if named else [])]
    raise InputError(f"{missing}: data.missing={', or '.join(ways)}, or data.drop=[{first}]")


def _numbers(column: Any, name: str, where: str) -> Array:
    """A column's numbers, NaN where they are missing."""
    if getattr(column.dtype, "kind", "O") in "buif":
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    shown = next((value for value in column.dropna() if not _is_number(value)), column.dropna().iloc[0])
    raise InputError(
        f"{where}: column {name!r} holds {shown!r}, expected numbers: data.label={name} keeps it as labels, "
        f"data.drop=[{name}] leaves it out, model.likelihood=mixed takes columns of several kinds"
    )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def refuse_index(values: Array, names: tuple[str, ...] | None, rows: Array | None, where: str) -> None:
    """InputError for a column of a table to train on that counts its rows, from 0 or 1."""
    places = np.arange(len(values)) if rows is None else rows
    for place, column in enumerate(values.T):
        name = names[place] if names else str(place + 1)
        for start in (0, 1):
            if len(values) > 2 and values.shape[1] > 1 and np.array_equal(column, places + start):
                raise InputError(f"{where}: column {name!r} counts the rows, expected it left out: data.drop=[{name}]")


def _pandas(path: Path) -> Any:
    try:
        import pandas
    except ImportError:
        raise InputError(f"{path}: reading it needs pandas; pip install 'dvaepp[tables]'") from None
    return pandas
