"""One reader a file format: its content as numpy arrays, or InputError naming the file and what was expected."""

import csv
import gzip
import io
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dvaepp.errors import InputError

Array = NDArray[Any]
Header = Literal["auto", "present", "absent"]
_TRUTH = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
MISSING = ("", "-", "--", ".", "?", "*", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none")
_LOOK = 1000
"""Lines that show whether the first one of numbers is like them."""
_CHOOSE = "data.label and data.drop name columns of other kinds, data.missing=drop-rows leaves rows with gaps out"
_Cell = Callable[[str, str], int | float]
"""A cell's value, given where it stands."""
_EXTREMES = np.errstate(over="ignore", invalid="ignore")


def stored(path: Path) -> bytes:
    """The bytes of a file as they are."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def content(path: Path) -> bytes:
    """The bytes of a file, uncompressed where its name ends in .gz."""
    raw = stored(path)
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: expected a complete gzip file, but {error}") from error


def idx(raw: bytes, path: Path) -> Array:
    """The array of an idx file of unsigned bytes, the format of MNIST."""
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != 8 or len(raw) < 4 + 4 * raw[3]:
        raise InputError(
            f"{path}: expected an idx file of unsigned bytes, which begins with the bytes 0 0 8 and dimensions"
        )
    start = 4 + 4 * raw[3]
    shape = tuple(int(size) for size in np.frombuffer(raw[4:start], ">u4"))
    if len(raw) - start != math.prod(shape):
        found = f"{len(raw) - start:,} bytes of values"
        raise InputError(f"{path}: holds {found}, expected {math.prod(shape):,} for the shape {shape} of its header")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def amat(raw: bytes, path: Path) -> Array:
    """The bits of an .amat text, (lines, columns): on each line 0 or 1, separated by one space."""
    if not raw:
        raise InputError(f"{path}: is empty, expected lines of 0 and 1 separated by one space")
    width = raw.find(b"\n") + 1 or len(raw) + 1
    raw = raw if raw.endswith(b"\n") else raw + b"\n"
    text = np.frombuffer(raw, np.uint8)
    whole = len(text) // width
    lines = text[: whole * width].reshape(whole, width)
    bits = lines[:, ::2] ^ ord("0")
    ends = np.where(np.arange(2, width + 1, 2) == width, ord("\n"), ord(" "))
    if width % 2 or len(text) % width or bits.max() > 1 or not np.array_equiv(lines[:, 1::2], ends):
        raise InputError(_first_bad_line(raw, width, path))
    return bits


def _first_bad_line(raw: bytes, width: int, path: Path) -> str:
    for number, line in enumerate(raw.split(b"\n"), 1):
        if len(line) + 1 != width:
            return f"{path}: line {number} has {len(line)} characters, expected {width - 1} as on line 1"
        if not line or line.replace(b"1", b"0") != b" ".join([b"0"] * (width // 2)):
            break
    return f"{path}: line {number} is malformed, expected 0 and 1 separated by one space"


def table(raw: bytes, path: Path, header: str = "auto", numbers: bool = False, gaps: bool = False) -> Array:
    """A comma-separated table of bits (uint8), or `numbers` (float64), (rows, columns); with `gaps` NaN where none is.

    By `header` "auto" a first line is one if a cell is neither a number nor a mark of a missing value. InputError
    where others are numbers, and where all are and may be names of columns: 0, 1, 2, .., 1, 2, 3, .., years, or equal
    steps off all else.
    """
    lines = _lines(raw, path)
    if lines and (header == "present" or (header == "auto" and is_header(lines[0], path))):
        lines = lines[1:]
    if not lines:
        kind = "numbers" if numbers else "0 and 1"
        raise InputError(f"{path}: is empty, expected rows of {kind} separated by commas")
    columns = len(lines[0][1])
    first = _counting(lines[0][1]) if header == "auto" and len(lines) > 1 else None
    read = _number_or_gap if gaps else _number if numbers else _bit
    if first is not None and _are_names(first, _values(lines[1:_LOOK], columns, path, read)):
        held = f"{lines[0][1][0].strip()} .. {lines[0][1][-1].strip()}"
        raise _unclear(f"{path}: line {lines[0][0]} holds {held}, which may be names of columns")
    return _values(lines, columns, path, read)


def number_table(raw: bytes, path: Path, header: str = "auto") -> Array:
    """The finite numbers of a comma-separated table, (rows, columns) float64."""
    return table(raw, path, header, numbers=True)


def column_names(path: Path, header: str = "auto") -> tuple[str, ...] | None:
    """The names in the first line of a comma-separated table that `table` has read, if by `header` it holds them."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        first = next(row for row in csv.reader(lines, strict=True) if row)
    named = header == "present" or (header == "auto" and is_header((1, first), path))
    return tuple(name.strip() for name in first) if named else None


def _lines(raw: bytes, path: Path) -> list[tuple[int, list[str]]]:
    """The cells of each line that is not blank, with its number."""
    try:
        rows = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
        return [(rows.line_num, row) for row in rows if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a comma-separated table in UTF-8, but {error}") from error


def is_header(line: tuple[int, list[str]], path: Path) -> bool:
    """Whether a cell is neither a number nor stands for one that is missing; InputError where others are numbers."""
    number, cells = line
    names = [cell for cell in cells if not _is_number(cell) and cell.strip().lower() not in MISSING]
    if names and any(map(_is_number, cells)):
        raise _unclear(f"{path}: line {number} mixes numbers with {names[0]!r}, so it may be names of columns or a row")
    return bool(names)


def is_names(first: list[str], path: Path) -> bool:
    """Whether the first line of a table holds names; InputError for numbers that count, which may be names."""
    if _counting(first) is not None:
        held = f"{first[0].strip()} .. {first[-1].strip()}"
        raise _unclear(f"{path}: line 1 holds {held}, which may be names of columns")
    return is_header((1, first), path)


def _unclear(what: str) -> InputError:
    meant = "header=present if they are names, header=absent if they are a row (in a recipe data.header)"
    return InputError(f"{what}: expected {meant}")


def _is_number(cell: str) -> bool:
    return not math.isnan(_float(cell)) or cell.strip().lower() in ("true", "false")


def _float(cell: str) -> float:
    """The number in a cell, NaN where there is none; Python's own 1_000 is none."""
    try:
        return math.nan if "_" in cell else float(cell)
    except ValueError:
        return math.nan


@_EXTREMES
def _counting(row: list[str]) -> NDArray[np.float64] | None:
    """The numbers of a row that rises or falls in equal steps over three columns or more, or by years over two."""
    numbers = np.array([_float(cell) for cell in row])
    if len(numbers) < 2 or not np.isfinite(numbers).all():
        return None
    steps = np.sign(np.diff(numbers))
    by_years = _are_years(numbers) and steps[0] != 0 and (steps == steps[0]).all()
    return numbers if by_years or _in_equal_steps(numbers[None])[0] else None


def _in_equal_steps(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each row of three columns or more rises or falls in equal steps, up to rounding."""
    steps = np.diff(rows, axis=1)
    rounding = 1e-13 * np.abs(rows).max(1, keepdims=True)
    alike = (np.abs(steps - steps[:, :1]) <= rounding) & (np.abs(steps) > rounding)
    return np.asarray(alike.all(1) & (rows.shape[1] > 2))


def _are_years(numbers: NDArray[np.float64]) -> bool:
    return bool((numbers % 1 == 0).all() and numbers.min() >= 1900 and numbers.max() <= 2100)


@_EXTREMES
def _are_names(first: NDArray[np.float64], body: Array) -> bool:
    """Whether numbers that count up or down are evidently names of columns, by the rows below them.

    Over bits they are. They are not where most rows count too, or hold the same numbers in another order. Else they
    are where they lie off all numbers below, unless these are few columns that rise or fall down the rows; and
    0, 1, 2, .., 1, 2, 3, .. and years one after the other are where they are long, of whole numbers as no row is, or
    of numbers that their columns do not hold.
    """
    if body.dtype == np.uint8:
        return True
    columns, names, steps = len(first), np.sort(first), np.diff(body, axis=1)
    alike = _in_equal_steps(body) | (steps == np.diff(first)).all(1) | (np.sort(body, axis=1) == names).all(1)
    if alike.mean() > 0.5:
        return False
    if body.max() < names[0] or body.min() > names[-1]:
        down = np.sign(np.diff(body, axis=0))
        in_order = len(body) > 4 and abs(down.sum()) > 0.8 * np.abs(down).sum()
        return columns > 5 or _are_years(names) or not in_order
    one_by_one = columns > 2 and names[-1] - names[0] == columns - 1
    long = columns > 5 and (np.sign(steps) == np.sign(np.diff(first))).all(1).mean() < 0.5
    alone = (body % 1 == 0).all(1).mean() < 0.01
    new = (body != first).all(0).sum() >= (3 if columns == 3 else 2)
    small = names[0] in (0, 1) and (columns > 3 or first[0] < first[-1])
    return bool(one_by_one and (small or _are_years(names)) and (long or alone or new))


def _values(
    lines: list[tuple[int, list[str]]], columns: int, path: Path, read: Callable[[str, str], int | float]
) -> Array:
    rows = [_row(row, columns, f"{path}: line {number}", read) for number, row in lines]
    return np.array(rows, np.uint8 if read is _bit else np.float64)


def _row(row: list[str], columns: int, where: str, read: _Cell) -> list[int | float]:
    if len(row) != columns:
        raise InputError(f"{where} has {len(row)} columns, expected {columns} as on the first row")
    return [read(cell.strip().lower(), where) for cell in row]


def _bit(cell: str, where: str) -> int:
    if cell not in _TRUTH:
        grey = "grey levels in 0..255 take data.binarise=dynamic or threshold"
        others = "other numbers a likelihood of theirs, model.likelihood=normal, poisson or categorical"
        raise InputError(f"{where} holds {cell!r}, expected only 0 and 1; {grey}, {others}; {_CHOOSE}")
    return _TRUTH[cell]


def _number_or_gap(cell: str, where: str) -> float:
    return math.nan if cell in MISSING else _number(cell, where)


def _number(cell: str, where: str) -> float:
    value = _float(cell)
    if not math.isfinite(value):
        raise InputError(f"{where} holds {cell!r}, expected finite numbers; {_CHOOSE}")
    return value


def mat(raw: bytes, path: Path, names: tuple[str, ...]) -> list[Array]:
    """The matrices of a MATLAB file in the order of `names`."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise InputError(f"{path}: reading it needs scipy; install it with pip install 'dvaepp[mat]'") from error
    try:
        stored = loadmat(io.BytesIO(raw))
        return [stored[name] for name in names]
    except Exception as error:  # scipy lets many kinds escape from a broken file
        raise InputError(f"{path}: expected a MATLAB 5 file with the matrices {', '.join(names)}") from error
