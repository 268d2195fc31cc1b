"""The user's own data: a path to arrays, pictures or a table becomes a `Dataset`."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvaepp.data import archives, formats, idx_files, pictures, tables
from dvaepp.data.arrays import Arrays, bits_of, dataset_of, is_grey, prepared
from dvaepp.data.binarise import as_rows
from dvaepp.data.columns import Column
from dvaepp.data.dataset import Dataset, Examples
from dvaepp.data.formats import Array, Header
from dvaepp.data.kinds import Plain
from dvaepp.data.pictures import Background
from dvaepp.data.reading import Binarise, Reading
from dvaepp.data.splits import split_folders
from dvaepp.errors import InputError
from dvaepp.storage import AnyPath


@dataclass(frozen=True)
class _Held:
    """What lies at a path: arrays as they are there by split, a single one under the empty name, and what is beside."""

    arrays: Arrays
    labels: Arrays = field(default_factory=dict)
    ids: Arrays | None = None
    columns: tuple[str, ...] | None = None
    schema: tuple[Column, ...] | None = None
    left: str = ""
    """What was left out for its gaps."""


def load_own(path: Path, name: str, reading: Reading) -> Dataset:
    """The data at a path, split, and binarised unless `reading` says that they stay; InputError naming the file."""
    held = _with_others(_read(path, reading, training=True), path, reading)
    if tables.suffix(path) in tables.SUFFIXES and held.columns is not None:
        values = next(iter(held.arrays.values()))
        tables.refuse_index(
            values.reshape(len(values), -1), held.columns, next(iter((held.ids or {}).values()), None), str(path)
        )
    return dataset_of(
        held.arrays,
        name=name,
        source=str(path),
        where=_where(held.arrays, path),
        reading=reading,
        labels=held.labels,
        ids=held.ids,
        columns=held.columns,
        schema=held.schema,
        left=held.left,
        grey=lambda: _grey_of(path),
    )


def examples_at(path: Path, reading: Reading) -> Examples:
    """Every example at a path; grey becomes bits as in valid and test of `load`: drawn once, or by threshold."""
    held = _read(path, reading)
    ready = prepared(held.arrays, str(path), _where(held.arrays, path), reading)
    examples = bits_of(ready, reading)
    rows = held.ids or {split: np.arange(len(x)) for split, x in held.arrays.items()}
    labels = np.concatenate([held.labels[split].astype(str) for split in held.arrays]) if held.labels else None
    several = len(held.arrays) > 1
    ids = np.concatenate([np.char.add(f"{s}/", rows[s].astype(str)) if several else rows[s] for s in held.arrays])
    shape = tuple(examples[0].shape[1:])
    return Examples(
        torch.cat([as_rows(x) for x in examples]), shape, ids, labels, held.columns, is_grey(ready, reading)
    )


def gapped_at(path: Path, reading: Reading) -> tuple[Array, tuple[str, ...] | None]:
    """Every example at a path (n, ...) as it is there, and a table's columns: values that are missing are NaN."""
    if tables.suffix(path) not in tables.SUFFIXES:
        held = _read(path, reading)
        return np.concatenate(list(held.arrays.values())), held.columns
    if tables.is_plain(path, reading):
        values = formats.table(formats.content(path), path, reading.header, numbers=True, gaps=True)
        return values, formats.column_names(path, reading.header)
    table = tables.read(path, reading, gaps=True)
    return table.values, table.columns


def frame_at(path: Path, reading: Reading) -> Any:
    """The pandas table at a path, all of it, where pandas reads one whose columns have names; else None."""
    if tables.suffix(path) not in tables.SUFFIXES or tables.is_plain(path, reading):
        return None
    frame, named = tables.frame(path, reading)
    return frame if named else None


def mask_at(path: Path) -> Array:
    """What is missing: where a picture is white, or an .npy array holds True or 1."""
    if path.suffix.lower() in pictures.IMAGES:
        return np.asarray(pictures.image_folder(path)[0] > 127)
    if path.suffix.lower() != ".npy":
        raise InputError(f"{path}: is no mask, expected a picture that is white where values are missing, or an .npy")
    mask = archives.numpy_arrays(formats.content(path), path)[""]
    if mask.dtype.kind not in "bui" or mask.max(initial=0) > 1 or mask.min(initial=0) < 0:
        raise InputError(f"{path}: holds {mask.dtype} of other values than True and False, or 1 and 0")
    return mask.astype(bool)


def read_examples(
    path: AnyPath,
    binarise: Binarise = "auto",
    threshold: float = 0.5,
    kind: Plain = "levels",
    background: Background = "white",
    header: Header = "auto",
    **options: Any,
) -> tuple[Tensor, tuple[int, ...]]:
    """Every example at a path in the order stored, (n, pixels), and the shape of one.

    Bits (uint8), or with binarise "none" numbers in the dtype of their kind. Splits follow each other. Grey becomes
    bits as in valid and test of `load`, whose options these are: drawn once, or by threshold.
    """
    found = examples_at(Path(path), Reading(binarise, threshold, kind, background, header, **options))
    return found.x, found.shape


def _read(path: Path, reading: Reading, training: bool = False) -> _Held:
    """What lies at a path; InputError for labels of other numbers than there are examples."""
    reader = _reader(path)
    held = _sized(_table(path, reading, training) if reader is _table else reader(path, reading), path, reading)
    labels = held.labels
    if len(held.arrays) == 1:
        (name,) = held.arrays
        labels = {"": labels[name if name in labels else ""]} if {name, ""} & labels.keys() else {}
        ids = held.ids and {"": held.ids[name]}
        held = replace(held, arrays={"": held.arrays[name]}, labels=labels, ids=ids)
    counts = {split: len(x) for split, x in held.arrays.items()}
    if "" in labels and "" not in counts:  # of no split
        labels = {}
    found = {split: len(each) for split, each in labels.items()}
    if found and found != counts:
        raise InputError(f"{path}: holds {_counted(found)} labels, expected one for each example, {_counted(counts)}")
    return replace(held, labels=labels)


def _counted(counts: dict[str, int]) -> str:
    return " and ".join(f"{count:,}{split and f' of {split}'}" for split, count in counts.items())


def _sized(held: _Held, path: Path, reading: Reading) -> _Held:
    """Rows (n, height width) as images (n, height, width) of the size that is asked for; pictures have it already."""
    size = reading.size
    if size is None or all(x.shape[1:3] == size for x in held.arrays.values()):
        return held
    if any(x.ndim != 2 or x.shape[1] != math.prod(size) for x in held.arrays.values()):
        found = ", ".join(str(x.shape) for x in held.arrays.values())
        expected = f"(n, {math.prod(size)}) or (n, {size[0]}, {size[1]})"
        raise InputError(f"{path}: holds {found}, and data.size scales pictures only: expected {expected}")
    return _Held({split: x.reshape(-1, *size) for split, x in held.arrays.items()}, held.labels, held.ids)


def _with_others(held: _Held, path: Path, reading: Reading) -> _Held:
    """What lies at a path as train, beside valid and test of paths of their own, where `reading` names them."""
    if reading.test is None:
        return held
    if "" not in held.arrays:
        raise InputError(f"{path}: has splits of its own, expected none where data.test names another place")
    named = {"": path, **({"valid": Path(reading.valid)} if reading.valid else {}), "test": Path(reading.test)}
    if held.schema is not None:
        reading = replace(reading, known=held.schema, names=held.columns)
    every = {split or "train": held if not split else _whole(each, reading) for split, each in named.items()}
    if len({each.columns for each in every.values()}) > 1:
        raise InputError(f"{path}: its columns are not called as those of {reading.test}, expected the same names")

    def joined(what: str) -> Arrays:
        each = {split: getattr(one, what) for split, one in every.items()}
        return {split: found[""] for split, found in each.items()} if all(each.values()) else {}

    return replace(held, arrays=joined("arrays"), labels=joined("labels"), ids=joined("ids") or None)


def _whole(path: Path, reading: Reading) -> _Held:
    """What lies at another path than the training data's, as one split."""
    if not path.exists():
        raise InputError(f"{path}, which data.valid or data.test names, does not exist")
    held = _read(path, reading)

    def whole(arrays: Arrays | None) -> Arrays:
        return {"": np.concatenate([arrays[split] for split in held.arrays])} if arrays else {}

    return _Held(whole(held.arrays), whole(held.labels), whole(held.ids) or None, held.columns)


def _reader(path: Path) -> Callable[[Path, Reading], _Held]:
    """What reads the file or folder, by its name."""
    suffix = path.suffix.lower()
    if path.is_dir():
        return _idx_folder if idx_files.are_in(path) else _picture_folder
    if suffix in pictures.IMAGES:
        return _picture
    if suffix in (".npy", ".npz"):
        return _numpy
    if tables.suffix(path) in tables.SUFFIXES:
        return _table
    if suffix == ".amat":
        return lambda path, reading: _Held({"": formats.amat(formats.content(path), path)})
    if "idx" in path.name:
        return _idx_file
    kinds = (
        ".npy, .npz, .csv, .tsv, .parquet, .amat, an idx file (its name holds 'idx'), an image or a folder of images"
    )
    raise InputError(f"{path}: is of an unknown kind, expected {kinds}")


def _picture_folder(path: Path, reading: Reading) -> _Held:
    """Pictures below the folders of splits; those that all lie in folders of their own there are of these classes."""
    folders = split_folders(path)
    colour = reading.plain is not None and any(map(pictures.has_colour, folders.values()))
    how = colour, reading.background, reading.size, reading.fit
    arrays = {split: pictures.image_folder(folder, *how) for split, folder in folders.items()}
    names = {split: [p.relative_to(f) for p in pictures.images_below(f)] for split, f in folders.items()}
    ids = {split: np.array([str(name) for name in each]) for split, each in names.items()}
    classes = all(len(name.parts) > 1 for each in names.values() for name in each)
    labels = {split: np.array([name.parts[0] for name in each]) for split, each in names.items()} if classes else {}
    return _Held(arrays, labels, ids)


def _picture(path: Path, reading: Reading) -> _Held:
    colour = reading.plain is not None and pictures.has_colour(path)
    image = pictures.image_folder(path, colour, reading.background, reading.size, reading.fit)
    return _Held({"": image}, ids={"": np.array([path.name])})


def _numpy(path: Path, reading: Reading) -> _Held:
    raw = formats.content(path)
    arrays = archives.numpy_arrays(raw, path)
    schema = archives.schema_beside(raw) if reading.kind == "mixed" and path.suffix.lower() == ".npz" else None
    if reading.kind == "mixed" and schema is None:
        raise InputError(f"{path}: columns of several kinds are read from .csv, .tsv and .parquet, or pandas tables")
    if path.suffix.lower() == ".npy":
        return _Held(arrays)
    columns = archives.column_names_beside(raw)
    fits = all(x.shape[1:] == (len(columns or ()),) for x in arrays.values())
    ids = archives.ids_beside(raw)
    ids = ids if ids and {split: len(x) for split, x in ids.items()} == {s: len(x) for s, x in arrays.items()} else None
    return _Held(arrays, archives.labels_beside(raw), ids, columns if fits else None, schema)


def _table(path: Path, reading: Reading, training: bool = False) -> _Held:
    if not tables.is_plain(path, reading):
        found = tables.read(path, reading, training)
        whole = not reading.plain and (found.values % 1 == 0).all()  # bits, -1 and 1, or grey levels
        values = found.values.astype(np.int64) if whole else found.values
        labels = {} if found.labels is None else {"": found.labels}
        return _Held({"": values}, labels, {"": found.rows}, found.columns, found.schema, found.left)
    table = formats.number_table if reading.plain else formats.table
    array = table(formats.content(path), path, reading.header)
    return _Held({"": array}, columns=formats.column_names(path, reading.header))


def _idx_folder(path: Path, reading: Reading) -> _Held:
    return _Held(*idx_files.in_folder(path))


def _idx_file(path: Path, reading: Reading) -> _Held:
    return _Held(*idx_files.at(path))


def _grey_of(path: Path) -> str:
    """What the grey levels are that become bits."""
    if path.is_dir() and pictures.shows_colour(path):
        return "colour pictures turned grey (a recipe with model.likelihood=logistic-mixture keeps their colour)"
    return "grey data"


def _where(arrays: Arrays, path: Path) -> dict[str, str]:
    """How what is said of each array begins."""
    return {split: f"{path}: {split}" if split else f"{path}:" for split in arrays}
