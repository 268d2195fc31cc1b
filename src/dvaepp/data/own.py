"""The user's own data: a path to arrays, images or a table becomes a `Dataset`."""

from pathlib import Path

import torch
from torch import Tensor

from dvaepp.data import archives, formats, pictures
from dvaepp.data.arrays import Arrays, bits_of, dataset_of, prepared
from dvaepp.data.binarise import Grey, as_rows
from dvaepp.data.dataset import Dataset
from dvaepp.data.formats import Header
from dvaepp.data.kinds import Plain
from dvaepp.data.pictures import Background
from dvaepp.data.reading import Binarise, Reading
from dvaepp.data.splits import split_folders
from dvaepp.errors import InputError
from dvaepp.storage import AnyPath


def load_own(path: Path, name: str, reading: Reading) -> Dataset:
    """The data at a path, split, and binarised unless `reading` says that they stay; InputError naming the file."""
    arrays = _read(path, reading)
    labels, columns = _beside(path, arrays, reading)
    return dataset_of(
        arrays,
        name=name,
        source=str(path),
        where=_where(arrays, path),
        reading=reading,
        labels=labels,
        columns=columns,
        grey=lambda: _grey_of(path),
    )


def _beside(path: Path, arrays: Arrays, reading: Reading) -> tuple[dict[str, Grey], tuple[str, ...] | None]:
    """Labels of examples that were read, and the names of their columns, where the file has them."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return {}, formats.column_names(path, reading.header)
    if suffix != ".npz":
        return {}, None
    raw = formats.content(path)
    labels, columns = archives.labels_beside(raw), archives.column_names_beside(raw)
    fit = labels.keys() == arrays.keys() and all(len(labels[split]) == len(x) for split, x in arrays.items())
    return labels if fit else {}, columns if all(
        x.shape[1:] == (len(columns or ()),) for x in arrays.values()
    ) else None


def _grey_of(path: Path) -> str:
    """What the grey levels are that become bits."""
    if path.is_dir() and pictures.shows_colour(path):
        return "colour pictures turned grey (a recipe with model.likelihood=logistic-mixture keeps their colour)"
    return "grey data"


def _where(arrays: Arrays, path: Path) -> dict[str, str]:
    """How what is said of each array begins."""
    return {split: f"{path}: {split}" if split else f"{path}:" for split in arrays}


def _read(path: Path, reading: Reading) -> Arrays:
    """The arrays at a path as they are there; a single one under the empty name."""
    arrays = _read_folder(path, reading) if path.is_dir() else _read_file(path, reading)
    return {"": next(iter(arrays.values()))} if len(arrays) == 1 else arrays


def _read_folder(path: Path, reading: Reading) -> Arrays:
    folders = split_folders(path)
    colour = reading.plain is not None and any(map(pictures.has_colour, folders.values()))
    return {split: pictures.image_folder(folder, colour, reading.background) for split, folder in folders.items()}


def _read_file(path: Path, reading: Reading) -> dict[str, Grey]:
    suffix = path.suffix.lower()
    table = formats.number_table if reading.plain else formats.table
    reader = formats.amat if suffix == ".amat" else formats.idx if "idx" in path.name else None
    if suffix in (".npy", ".npz"):
        return archives.numpy_arrays(formats.content(path), path)
    if suffix == ".csv":
        return {"": table(formats.content(path), path, reading.header)}
    if reader:
        return {"": reader(formats.content(path), path)}
    kinds = ".npy, .npz, .csv, .amat, an idx file (its name holds 'idx') or a folder of images"
    raise InputError(f"{path}: is of an unknown kind, expected {kinds}")


def read_examples(
    path: AnyPath,
    binarise: Binarise = "auto",
    threshold: float = 0.5,
    kind: Plain = "levels",
    background: Background = "white",
    header: Header = "auto",
) -> tuple[Tensor, tuple[int, ...]]:
    """Every example at a path in the order stored, (n, pixels), and the shape of one.

    Bits (uint8), or with binarise "none" numbers in the dtype of their kind. Splits follow each other. Grey becomes
    bits as in valid and test of `load`, whose options these are: drawn once, or by threshold.
    """
    reading = Reading(binarise, threshold, kind, background, header)
    arrays = _read(Path(path), reading)
    examples = bits_of(prepared(arrays, str(path), _where(arrays, Path(path)), reading), reading)
    return torch.cat([as_rows(x) for x in examples]), tuple(examples[0].shape[1:])
