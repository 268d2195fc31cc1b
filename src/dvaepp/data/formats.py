"""One reader a file format: its content as numpy arrays, or InputError naming the file and what was expected."""

import csv
import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dvaepp.errors import InputError

Array = NDArray[Any]
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".pgm", ".pbm", ".ppm")
_TRUTH = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


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


def table(raw: bytes, path: Path, numbers: bool = False) -> Array:
    """A comma-separated table of bits (uint8), or `numbers` (float64), (rows, columns).

    A first line with a cell that is no number is a header.
    """
    read, dtype, kind = (_number, np.float64, "numbers") if numbers else (_bit, np.uint8, "0 and 1")
    try:
        rows = csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
        lines = [(rows.line_num, row) for row in rows if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a comma-separated table in UTF-8, but {error}") from error
    if lines and not all(_is_number(cell) for cell in lines[0][1]):
        lines = lines[1:]
    if not lines:
        raise InputError(f"{path}: is empty, expected rows of {kind} separated by commas")
    columns = len(lines[0][1])
    return np.array([_row(row, columns, f"{path}: line {number}", read) for number, row in lines], dtype)


def number_table(raw: bytes, path: Path) -> Array:
    """The finite numbers of a comma-separated table, (rows, columns) float64."""
    return table(raw, path, numbers=True)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in ("true", "false", "")
    return True


def _row(row: list[str], columns: int, where: str, read: Callable[[str, str], int | float]) -> list[int | float]:
    if len(row) != columns:
        raise InputError(f"{where} has {len(row)} columns, expected {columns} as on the first row")
    return [read(cell.strip().lower(), where) for cell in row]


def _bit(cell: str, where: str) -> int:
    if cell not in _TRUTH:
        raise InputError(f"{where} holds {cell!r}, expected only 0 and 1")
    return _TRUTH[cell]


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where} holds {cell!r}, expected finite numbers")
    return value


def numpy_arrays(raw: bytes, path: Path, names: tuple[str, ...] = ()) -> dict[str, Array]:
    """The named arrays of an .npz file, by default its splits or only one, or that of an .npy file; never unpickles."""
    try:
        stored = np.load(io.BytesIO(raw), allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return {"": stored}
        with stored:
            return {name: stored[name] for name in names or _splits(stored.files, path)}
    except InputError:
        raise
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"{path}: expected a complete {path.suffix} file of plain numbers, but {reason}") from error


def _splits(found: list[str], path: Path) -> tuple[str, ...]:
    """The arrays to read: train and what goes with it, so labels beside them never are, or the only one."""
    names = tuple(name for name in ("train", "valid", "test") if name in found)
    if "train" in names and names != ("train", "valid"):
        return names
    if len(found) == 1:
        return tuple(found)
    held = ", ".join(found) or "none"
    raise InputError(f"{path}: holds the arrays {held}, expected train, valid and test, or train and test, or only one")


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


def image_folder(folder: Path, colour: bool = False) -> Array:
    """Images below a folder in the order of their paths, uint8 (n, height, width) grey, or (n, height, width, 3).

    Of an animation one frame.
    """
    paths = _images(folder)
    if not paths:
        raise InputError(f"{folder}: no images found, expected a folder of {', '.join(IMAGES[:6])} files")
    first = _image(paths[0], colour)
    images = np.empty((len(paths), *first.shape), np.uint8)
    for slot, path in zip(images, paths, strict=True):
        image = _image(path, colour)
        if image.shape != first.shape:
            (height, width), (rows, columns) = image.shape[:2], first.shape[:2]
            raise InputError(
                f"{path}: is {height}x{width}, expected {rows}x{columns} (height x width) as {paths[0].name}"
            )
        slot[:] = image
    return images


def has_colour(folder: Path) -> bool:
    """Whether some image below the folder is stored in colour (or with a palette); a broken one has none."""
    return any(_mode(path) not in ("1", "L", "LA", "") for path in _images(folder))


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGES and path.name[0] != ".")


def _mode(path: Path) -> str:
    with suppress(OSError, SyntaxError, ValueError, Image.DecompressionBombError), Image.open(path) as image:
        return image.mode
    return ""


def _image(path: Path, colour: bool) -> Array:
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise InputError(f"{path}: has pixels of mode {image.mode}, expected 8 bits a channel")
            return np.array(image.convert("RGB" if colour else "L"))
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: expected a complete image file, but {error}") from error
