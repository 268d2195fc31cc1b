"""The user's own data: a path to arrays, images or a table becomes a `Dataset`."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dvaepp.data import formats
from dvaepp.data.binarise import (
    SEED,
    Grey,
    drawn_bits,
    dynamic_dataset,
    flat,
    is_binary,
    permuted,
    static_dataset,
    threshold_bits,
)
from dvaepp.data.dataset import Dataset
from dvaepp.errors import InputError

Binarise = Literal["auto", "threshold", "dynamic"]
_FEWEST = 10
_READERS: dict[str, Callable[[bytes, Path], Grey]] = {".csv": formats.table, ".amat": formats.amat}


def load_own(path: Path, name: str, binarise: Binarise, threshold: float) -> Dataset:
    """The data at a path, split and binarised; InputError naming the file unless it holds examples of bits or grey."""
    arrays = _read(path)
    count = sum(map(len, arrays.values()))
    if count < _FEWEST:
        raise InputError(f"{path}: holds {count} examples, expected at least {_FEWEST}")
    splits, how = _split(_grey(arrays), path)
    binary = all(map(is_binary, splits))
    if not binary and binarise != "threshold":
        return dynamic_dataset(name, splits, f"{path}: grey data, {how}")
    train, valid, test = (threshold_bits(grey, 0.5 if binary else threshold) for grey in splits)
    kind = "binary data" if binary else f"grey data, x = 1[grey > {threshold}]"
    return static_dataset(name, (train, valid, test), f"{path}: {kind}, {how}.")


def _read(path: Path) -> dict[str, Grey]:
    """The arrays at a path, (n, height, width) or (n, columns), by split; a single one under the empty name."""
    arrays = _read_folder(path) if path.is_dir() else _read_file(path)
    if len(arrays) == 1:
        arrays = {"": next(iter(arrays.values()))}
    arrays = {
        split: array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array for split, array in arrays.items()
    }
    _validate(arrays, path)
    return arrays


def _read_folder(path: Path) -> dict[str, Grey]:
    found = [split for split in ("train", "valid", "test") if (path / split).is_dir()]
    if found in ([], ["train"]):
        return {"": formats.image_folder(path)}
    if not {"train", "test"} <= set(found):
        raise InputError(
            f"{path}: holds the folders {', '.join(found)}, expected train, valid and test, or train and test"
        )
    return {split: formats.image_folder(path / split) for split in found}


def _read_file(path: Path) -> dict[str, Grey]:
    suffix = path.suffix.lower()
    reader = _READERS.get(suffix) or (formats.idx if "idx" in path.name else None)
    if suffix in (".npy", ".npz"):
        return formats.numpy_arrays(formats.content(path), path)
    if reader:
        return {"": reader(formats.content(path), path)}
    kinds = ".npy, .npz, .csv, .amat, an idx file (its name holds 'idx') or a folder of images"
    raise InputError(f"{path}: is of an unknown kind, expected {kinds}")


def _validate(arrays: dict[str, Grey], path: Path) -> None:
    for split, array in arrays.items():
        _validate_split(array, f"{path}: {split}" if split else f"{path}:")
    if len({array.shape[1:] for array in arrays.values()}) > 1:
        sizes = ", ".join(f"{split} {array.shape[1:]}" for split, array in arrays.items())
        raise InputError(f"{path}: its splits differ in size ({sizes}), expected one size of example")


def _validate_split(array: Grey, where: str) -> None:
    if array.dtype.kind not in "buif":
        raise InputError(f"{where} has dtype {array.dtype}, expected bool, integers or floats")
    if array.ndim not in (2, 3):
        expected = "(n, height, width), (n, height, width, 1) or (n, columns)"
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


def read_examples(path: Path, binarise: Binarise = "auto", threshold: float = 0.5) -> tuple[Tensor, tuple[int, ...]]:
    """Every example at a path in the order stored, as bits (n, pixels) uint8, and the shape of one.

    Splits follow each other. Grey becomes bits as in valid and test of `load`: drawn once, or by threshold.
    """
    arrays = _read(path)
    greys = list(_grey(arrays).values())
    binary = all(map(is_binary, greys))
    bits = [
        threshold_bits(g, 0.5 if binary else threshold) if binary or binarise == "threshold" else drawn_bits(g)
        for g in greys
    ]
    return torch.cat([flat(b) for b in bits]), tuple(greys[0].shape[1:])
