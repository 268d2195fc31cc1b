"""Files that are either whole or not there, written under a temporary name and renamed; JSON in tensors."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dvaepp.errors import InputError

AnyPath = str | os.PathLike[str]
"""What public functions take for a path."""
_KEY = "dvaepp"  # the header's only key: with more, safetensors writes them in random order


def check_target(path: Path) -> None:
    """InputError where a file cannot be written: it is a folder, or what lies above it is no folder or read-only."""
    if not path.name or path.is_dir():
        raise InputError(f"could not write {path}: it is a folder")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise InputError(f"could not write {path}: {above} is not a folder that can be written to")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    A file that was there before survives a full disk or a kill at any moment. Raises InputError where writing fails.
    """
    check_target(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        kept = "; the previous file is unharmed" if path.exists() else ""
        raise InputError(f"could not write {path}: {error}{kept}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from doing the same to a folder; InputError where one already does. POSIX only.

    Where the file system locks no folders, as NFS, a file .NAME.lock beside it is locked.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    with ExitStack() as opened:
        for path, flags in ((folder, os.O_RDONLY), (folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT)):
            descriptor = os.open(path, flags)
            opened.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                raise InputError(f"{folder} is being trained by another process") from None
            except OSError:
                continue
        yield


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait until no other process does the same to a file or folder; not where the system cannot lock it."""
    if os.name != "posix":
        yield
        return
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file; InputError where writing fails."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise InputError(f"could not write {path}: {error}") from error


def read_lines(path: Path) -> list[str]:
    """The whole lines of a file; one that was being written when its process was killed is left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"could not read {path}: {error}") from None
    return [line.rstrip("\n") for line in lines if line.endswith("\n")]


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text`, UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON; InputError where it holds NaN or infinity, which JSON has not."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except ValueError as error:
        raise InputError(f"{path} was not written: {error}") from None
    write_text(path, text + "\n")


def read_json(path: Path, what: str) -> Any:
    """The JSON value in a file; InputError, naming `what` was expected, where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} does not exist; expected {what}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not {what}: {error}") from None


def check_arrays_name(path: Path) -> None:
    """InputError unless a file of arrays is named as one."""
    if path.suffix != ".npz":
        raise InputError(f"{path} must end in .npz")


def write_arrays(path: Path, **arrays: Any) -> None:
    """Replace `path` by numpy arrays under their names, compressed; InputError unless it ends in .npz."""
    check_arrays_name(path)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def check_columns_name(path: Path) -> None:
    """InputError unless a file of columns is named as one that can be written."""
    if path.suffix not in (".npz", ".csv", ".parquet"):
        raise InputError(f"{path} must end in .npz, .csv or .parquet")


def write_columns(path: Path, columns: Mapping[str, Any]) -> None:
    """Replace `path` by columns (n,), and several (n, k) at once: .npz under their names, else a table.

    There those of an array are called after it, name_1 to name_k. InputError where the file's name says another kind.
    """
    check_columns_name(path)
    if path.suffix == ".npz":
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **columns)
        return
    table = {column: values for name, each in columns.items() for column, values in _columns(name, np.asarray(each))}
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            _pandas(path).DataFrame(table).to_parquet(temporary)
            return
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            lines = csv.writer(file, lineterminator="\n")
            lines.writerow(table)
            lines.writerows(zip(*map(_written, table.values()), strict=True))


def _written(values: Any) -> Any:
    """The cells of a column: single precision as its own digits are, nothing where a value is missing."""
    return values.astype(str) if values.dtype == np.float32 else values.tolist()


def _columns(name: str, values: Any) -> list[tuple[str, Any]]:
    if values.ndim == 1:
        return [(name, values)]
    return [(f"{name}_{place}", column) for place, column in enumerate(values.T, 1)]


def _pandas(path: Path) -> Any:
    try:
        import pandas
        import pyarrow  # noqa: F401
    except ImportError:
        raise InputError(f"{path}: Parquet needs pandas and pyarrow; pip install 'dvaepp[tables]'") from None
    return pandas


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """One safetensors file: the tensors, and `about` as JSON in its header."""
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata={_KEY: json.dumps(about)})


def load_tensors(
    path: Path, wanted: Callable[[str], bool] = lambda _: True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` wrote: the tensors with wanted names, and `about`. InputError for anything else."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise InputError(f"{path} is not a dvaepp checkpoint, though it holds safetensors")
            about = json.loads(metadata[_KEY])
            if not isinstance(about, dict):
                raise InputError(f"{path} is not a dvaepp checkpoint: its header holds no description")
            return {name: file.get_tensor(name) for name in file.keys() if wanted(name)}, about  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected a dvaepp checkpoint") from None
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not a whole dvaepp checkpoint: {error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
