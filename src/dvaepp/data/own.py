"""The user's own data: a path to arrays, images or a table becomes a `Dataset`."""

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from dvaepp.data import formats, pictures
from dvaepp.data.binarise import (
    SEED,
    Grey,
    as_rows,
    drawn_bits,
    dynamic_dataset,
    is_binary,
    permuted,
    plain_dataset,
    static_dataset,
    threshold_bits,
)
from dvaepp.data.dataset import Dataset
from dvaepp.data.formats import Header
from dvaepp.data.kinds import Plain, check_resolved, plain
from dvaepp.data.pictures import Background
from dvaepp.data.splits import split_folders
from dvaepp.errors import InputError
from dvaepp.storage import AnyPath

Binarise = Literal["auto", "threshold", "dynamic", "none"]
_FEWEST = 10
_PRINTED = {"levels": "8-bit levels", "real": "real numbers", "counts": "counts", "categories": "categories"}


def check_options(binarise: str, threshold: float, kind: str, background: str, header: str) -> None:
    """InputError unless each option of `load` and `read_examples` is one that they have."""
    options: dict[str, tuple[str, Any]] = {
        "binarise": (binarise, Binarise),
        "kind": (kind, Plain),
        "background": (background, Background),
        "header": (header, Header),
    }
    for option, (given, known) in options.items():
        if given not in get_args(known):
            raise InputError(f"{option} is {given!r}, expected one of {', '.join(get_args(known))}")
    if kind != "levels" and binarise != "none":
        raise InputError(f"kind is {kind!r} but binarise is {binarise!r}, expected binarise none: bits have no kind")
    if not 0 <= threshold < 1:
        raise InputError(f"threshold is {threshold}, expected a number in [0, 1)")


def load_own(
    path: Path, name: str, binarise: Binarise, threshold: float, kind: Plain, background: Background, header: Header
) -> Dataset:
    """The data at a path, split, and binarised unless `binarise` is "none"; InputError naming the file."""
    plain_kind = kind if binarise == "none" else None
    arrays = _read(path, plain_kind, background, header, training=True)
    count = sum(map(len, arrays.values()))
    if count < _FEWEST:
        raise InputError(f"{path}: holds {count} examples, expected at least {_FEWEST}")
    splits, how = _split(arrays, path)
    if plain_kind:
        return plain_dataset(name, splits, f"{path}: {_PRINTED[plain_kind]} as they are, {how}.", plain_kind)
    binary = all(map(is_binary, splits))
    if not binary and binarise != "threshold":
        return dynamic_dataset(name, splits, f"{path}: {_grey_of(path)}, {how}")
    train, valid, test = (threshold_bits(grey, 0.5 if binary else threshold) for grey in splits)
    origin = "binary data" if binary else f"{_grey_of(path)}, x = 1[grey > {threshold}]"
    return static_dataset(name, (train, valid, test), f"{path}: {origin}, {how}.")


def _grey_of(path: Path) -> str:
    """What the grey levels are that become bits."""
    if path.is_dir() and pictures.shows_colour(path):
        return "colour pictures turned grey (a recipe with model.likelihood=logistic-mixture keeps their colour)"
    return "grey data"


def _read(
    path: Path, kind: Plain | None, background: Background, header: Header, training: bool = False
) -> dict[str, Grey]:
    """The arrays at a path, (n, ...), by split; a single one under the empty name.

    Numbers in the dtype of their kind; without one, grey levels 0..255 or floats in [0, 1]. For `training` that dtype
    must tell the examples apart.
    """
    arrays = _read_folder(path, kind, background) if path.is_dir() else _read_file(path, kind, header)
    if len(arrays) == 1:
        arrays = {"": next(iter(arrays.values()))}
    arrays = {split: _channels_last(array, (1, 3) if kind == "levels" else (1,)) for split, array in arrays.items()}
    where = {split: f"{path}: {split}" if split else f"{path}:" for split in arrays}
    if kind:
        wide = {split: array for split, array in arrays.items() if split in ("", "train")}
        arrays = {split: plain(array, kind, where[split]) for split, array in arrays.items()}
        for split, array in wide.items() if training and kind == "real" else ():
            check_resolved(array, where[split])
    else:
        for split, array in arrays.items():
            _validate_grey(array, where[split])
        arrays = _grey(arrays)
    _validate_sizes(arrays, path)
    return arrays


def _channels_last(array: Grey, channels: tuple[int, ...]) -> Grey:
    """Images (n, height, width, 1), and (n, channels, height, width), torch's order, as (n, height, width) or (.., 3).

    Where both the second and the last axis may be channels, it is the last.
    """
    if array.ndim != 4 or array.shape[3] == 3:
        return array
    if array.shape[3] != 1 and array.shape[1] in channels:
        array = np.moveaxis(array, 1, 3)
    return array[..., 0] if array.shape[3] == 1 else array


def _read_folder(path: Path, kind: Plain | None, background: Background) -> dict[str, Grey]:
    folders = split_folders(path)
    colour = kind is not None and any(map(pictures.has_colour, folders.values()))
    return {split: pictures.image_folder(folder, colour, background) for split, folder in folders.items()}


def _read_file(path: Path, kind: Plain | None, header: Header) -> dict[str, Grey]:
    suffix = path.suffix.lower()
    table = formats.number_table if kind else formats.table
    reader = formats.amat if suffix == ".amat" else formats.idx if "idx" in path.name else None
    if suffix in (".npy", ".npz"):
        return formats.numpy_arrays(formats.content(path), path)
    if suffix == ".csv":
        return {"": table(formats.content(path), path, header)}
    if reader:
        return {"": reader(formats.content(path), path)}
    kinds = ".npy, .npz, .csv, .amat, an idx file (its name holds 'idx') or a folder of images"
    raise InputError(f"{path}: is of an unknown kind, expected {kinds}")


def _validate_sizes(arrays: dict[str, Grey], path: Path) -> None:
    if len({array.shape[1:] for array in arrays.values()}) > 1:
        sizes = ", ".join(f"{split} {array.shape[1:]}" for split, array in arrays.items())
        raise InputError(f"{path}: its splits differ in size ({sizes}), expected one size of example")


def _validate_grey(array: Grey, where: str) -> None:
    if array.dtype.kind not in "buif":
        raise InputError(f"{where} has dtype {array.dtype}, expected bool, integers or floats")
    if array.ndim not in (2, 3):
        expected = "(n, height, width), (n, height, width, 1), (n, 1, height, width) or (n, columns)"
        if array.ndim == 4:
            as_it_is = "binarise=none, in a recipe model.likelihood=logistic-mixture"
            expected += f"; with {as_it_is}, also colour, (n, height, width, 3) or (n, 3, height, width)"
        raise InputError(f"{where} has shape {array.shape}, expected {expected}")
    if array.size == 0:
        raise InputError(f"{where} is empty (shape {array.shape}), expected at least one example")
    low, high = array.min(), array.max()
    if np.isnan(low):
        raise InputError(f"{where} holds NaN, expected a number for every pixel")
    top = 1 if array.dtype.kind == "f" else 255
    if low < 0 or high > top:
        expected = "floats in [0, 1] (grey levels 0..255 as integers)" if top == 1 else "integers in 0..255"
        raise InputError(f"{where} holds values from {low} to {high}, expected {expected}")


def _grey(arrays: dict[str, Grey]) -> dict[str, Grey]:
    """Integers as grey levels 0..255: those that never exceed 1, in any split, are bits."""
    integers = [array for array in arrays.values() if array.dtype.kind != "f"]
    white = 255 if max((int(array.max()) for array in integers), default=0) <= 1 else 1
    return {
        split: array if array.dtype.kind == "f" else array.astype(np.uint8) * np.uint8(white)
        for split, array in arrays.items()
    }


def _split(arrays: dict[str, Grey], path: Path) -> tuple[tuple[Grey, Grey, Grey], str]:
    """Train, valid and test from what there is, and how they came about."""
    if "" in arrays:
        examples = permuted(arrays[""])
        held = max(1, len(examples) // 10)
        train, valid, test = np.split(examples, [len(examples) - 2 * held, len(examples) - held])
        return (train, valid, test), f"split 80/10/10 after numpy RandomState({SEED}).permutation"
    train, test = arrays["train"], arrays["test"]
    if "valid" in arrays:
        return (train, arrays["valid"], test), "split as stored"
    held = max(1, len(train) // 10)
    if len(train) == held:
        raise InputError(f"{path}: train holds {held} example, expected at least 2 since valid is taken from it")
    return (train[:-held], train[-held:], test), f"test as stored, valid the last {held} examples of train"


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
    check_options(binarise, threshold, kind, background, header)
    examples = list(_read(Path(path), kind if binarise == "none" else None, background, header).values())
    shape = tuple(examples[0].shape[1:])
    if binarise == "none":
        return torch.cat([as_rows(x) for x in examples]), shape
    binary = all(map(is_binary, examples))
    bits = [
        threshold_bits(g, 0.5 if binary else threshold) if binary or binarise == "threshold" else drawn_bits(g)
        for g in examples
    ]
    return torch.cat([as_rows(b) for b in bits]), shape
