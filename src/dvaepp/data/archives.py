"""numpy's files, .npy and .npz: examples by split, with labels and names of columns beside them; never unpickled."""

import io
import json
import math
import re
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from dvaepp.data import splits
from dvaepp.data.columns import Column
from dvaepp.data.dataset import Dataset
from dvaepp.data.formats import Array
from dvaepp.errors import InputError
from dvaepp.storage import write_arrays

_LABELS = re.compile("^y$|^y_|(^|_)(label|target)s?(_|$)", re.IGNORECASE)
_NAMES = ("classes", "columns", "schema")


def numpy_arrays(raw: bytes, path: Path, names: tuple[str, ...] = ()) -> dict[str, Array]:
    """The named arrays of an .npz file, by default its splits or only one, or that of an .npy file; never unpickles.

    Splits have any of their usual names, and InputError names an array beside them that could be examples.
    """
    try:
        stored = np.load(io.BytesIO(raw), allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return {"": stored}
        with stored:
            wanted = {name: name for name in names} or _splits(stored, path)
            return {split: stored[name] for split, name in wanted.items()}
    except InputError:
        raise
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"{path}: expected a complete {path.suffix} file of plain numbers, but {reason}") from error


def labels_beside(raw: bytes) -> dict[str, Array]:
    """The labels (n,) of an .npz file by split, those of its only array under the empty name; none that are no values.

    Called y_train, train_labels, labels or alike; `classes`, if that is there too, names what whole numbers stand for.
    """
    with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
        found: dict[str, Array] = {}
        for name in filter(_LABELS.search, archive.files):
            rest = _LABELS.sub("", name.lower()).strip("_")
            split = splits.split_named(rest) if rest else ""
            with suppress(ValueError):  # objects, which would have to be unpickled
                if split is not None and archive[name].ndim == 1:
                    found[split] = archive[name]
        classes = _texts(archive, "classes")
    if classes is None or any(x.dtype.kind not in "ui" or x.max(initial=0) >= len(classes) for x in found.values()):
        return found
    return {split: classes[places] for split, places in found.items()}


def column_names_beside(raw: bytes) -> tuple[str, ...] | None:
    """The array `columns` of an .npz file, where there is one of texts."""
    with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
        columns = _texts(archive, "columns")
    return None if columns is None else tuple(map(str, columns))


def schema_beside(raw: bytes) -> tuple[Column, ...] | None:
    """What the columns of several kinds hold, of a file that `save_dataset` wrote."""
    with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
        schema = _texts(archive, "schema")
    with suppress(ValueError):
        return None if schema is None else tuple(Column.read(json.loads(each)) for each in schema.tolist())
    return None


def ids_beside(raw: bytes) -> dict[str, Array] | None:
    """What the examples of each split are called in a file that `save_dataset` wrote, where that was known."""
    with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
        names = {split: f"{split}_ids" for split in ("train", "valid", "test")}
        known = all(name in archive.files and archive[name].ndim == 1 for name in names.values())
        return {split: archive[name] for split, name in names.items()} if known else None


def _texts(archive: Any, name: str) -> Array | None:
    """An array (n,) of texts by its name; None where there is none."""
    with suppress(ValueError):
        if name in archive.files and archive[name].ndim == 1 and archive[name].dtype.kind == "U":
            texts: Array = archive[name]
            return texts
    return None


def save_dataset(path: Path, data: Dataset) -> None:
    """Write a data set whose `load` by the same options gives it again: examples, labels, and names of columns."""
    arrays: dict[str, Array] = {}
    for split in ("train", "valid", "test"):
        examples = getattr(data, split).reshape(-1, *data.shape).numpy()
        arrays[split] = 255 * examples if data.dynamic and split != "train" else examples
        if data.labels is not None:
            arrays[f"{split}_labels"] = getattr(data.labels, split).numpy()
        if data.ids is not None:
            arrays[f"{split}_ids"] = data.ids[("train", "valid", "test").index(split)]
    if data.labels is not None:
        arrays["classes"] = np.array(data.labels.classes)
    if data.columns is not None:
        arrays["columns"] = np.array(data.columns)
    if data.schema is not None:
        arrays["schema"] = np.array([json.dumps(column.written()) for column in data.schema])
    write_arrays(path, **arrays)


def _splits(archive: Any, path: Path) -> dict[str, str]:
    """The arrays to read by split: train and what goes with it, or the only one; labels beside them are no examples."""
    names: list[str] = archive.files
    examples = [name for name in names if not (_beside(name) and _values_each(archive, name) == 0)] or names
    if len(examples) == 1:
        return {examples[0]: examples[0]}
    found = splits.by_split(names, "arrays", path)
    if not splits.is_complete(found):
        held = ", ".join(names) or "none"
        raise InputError(f"{path}: holds the arrays {held}, expected {splits.COMPLETE}, or only one")
    values = _values_each(archive, found["train"])
    others = [name for name in names if name not in found.values() and not _LABELS.search(name)]
    for name in others:
        if values and _values_each(archive, name) == values:
            raise splits.beside(path, f"examples in {name}", found["train"])
    return found


def _values_each(archive: Any, name: str) -> int:
    """Values of one example by the header of an array; 0 where it holds no numbers or one for each example."""
    with suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), archive.zip.open(f"{name}.npy") as file:
        if np.lib.format.read_magic(file) == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            return math.prod(shape[1:]) if len(shape) > 1 and dtype.kind in "buif" else 0
    return 0


def _beside(name: str) -> bool:
    """Whether an array of that name may be labels, or names of classes or columns."""
    return name in _NAMES or bool(_LABELS.search(name))
