"""What is train, valid and test: folders and arrays by the names in use, of which none is dropped in silence; parts."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvaepp.data.pictures import images_below, is_visible
from dvaepp.errors import InputError

Array = NDArray[Any]
_SEED = 1
_NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing"),
}
COMPLETE = "train, valid and test, or train and test"
_LIKE_A_SPLIT = re.compile(rf"(x_)?({'|'.join(sum(_NAMES.values(), ()))})([ _-]|$)", re.IGNORECASE)


def by_split(names: Iterable[str], what: str, path: Path) -> dict[str, str]:
    """The names that say a split, in any case and with or without x_, by split; InputError where two say the same."""
    found: dict[str, list[str]] = {split: [] for split in _NAMES}
    for name in sorted(names):
        if (split := split_named(name.lower().removeprefix("x_"))) is not None:
            found[split].append(name)
    for split, same in found.items():
        if len(same) > 1:
            raise InputError(f"{path}: holds the {what} {' and '.join(same)}, expected one of them as {split}")
    return {split: same[0] for split, same in found.items() if same}


def split_named(name: str) -> str | None:
    """The split that a name in small letters says, None where it says none."""
    return next((split for split, known in _NAMES.items() if name in known), None)


def is_complete(found: Iterable[str]) -> bool:
    """Whether examples can be split so: train alone is split further, valid taken from train where there is none."""
    return set(found) in ({"train"}, {"train", "test"}, set(_NAMES))


def split_folders(path: Path) -> dict[str, Path]:
    """The folders of splits in a folder by split, or under the empty name the folder itself where it has none.

    InputError where some split is missing, where images stand beside train that are of no split, or where there are
    no splits but deeper down, or by longer names (train_set).
    """
    inside = sorted(entry for entry in path.glob("*") if is_visible(entry.relative_to(path)))
    found = by_split((entry.name for entry in inside if entry.is_dir()), "folders", path)
    if not found:
        _validate_pool(path)
        return {"": path}
    if not is_complete(found):
        raise InputError(f"{path}: holds the folders {', '.join(found.values())}, expected {COMPLETE}")
    for entry in inside:
        if entry.name not in found.values() and images_below(entry):
            raise beside(path, f"images in {entry.name}", found["train"])
    return {split: path / name for split, name in found.items()}


def _validate_pool(path: Path) -> None:
    for image in images_below(path):
        folders = image.relative_to(path).parts[:-1]
        for depth, name in enumerate(folders, 1):
            if _LIKE_A_SPLIT.match(name):
                raise InputError(
                    f"{path}: holds images in {'/'.join(folders[:depth])}, which may be a split, expected the folders "
                    f"{COMPLETE} right in it; if it is none, put all images into one folder train"
                )


def beside(path: Path, what: str, train: str) -> InputError:
    """The refusal of what stands beside train and is of no split."""
    valid, test = (f"{names[0]} (or {', '.join(names[1:])})" for names in (_NAMES["valid"], _NAMES["test"]))
    return InputError(f"{path}: holds {what} beside {train}, expected only {valid} and {test} there")


Part = tuple[str, Array]
"""The array that a split is taken from, and its examples there."""
Parts = tuple[Part, Part, Part]


def divided(counts: Mapping[str, int], source: str) -> tuple[Parts, str]:
    """Where train, valid and test are in arrays of so many examples by split, and how they came about.

    All under the empty name are still to be split.
    """
    if "" in counts:
        order = np.random.RandomState(_SEED).permutation(counts[""])
        held = max(1, len(order) // 10)
        train, valid, test = np.split(order, [len(order) - 2 * held, len(order) - held])
        return (("", train), ("", valid), ("", test)), f"split 80/10/10 after numpy RandomState({_SEED}).permutation"
    every = {split: np.arange(count) for split, count in counts.items()}
    if "valid" in counts:
        return (("train", every["train"]), ("valid", every["valid"]), ("test", every["test"])), "split as stored"
    held = max(1, counts["train"] // 10)
    if counts["train"] == held:
        raise InputError(f"{source}: train holds {held} example, expected at least 2 since valid is taken from it")
    first, last = np.split(every["train"], [counts["train"] - held])
    how = f"test as stored, valid the last {held} examples of train"
    return (("train", first), ("train", last), ("test", every["test"])), how


def taken(arrays: Mapping[str, Array], parts: Parts) -> tuple[Array, Array, Array]:
    """The examples of train, valid and test."""
    train, valid, test = (arrays[split][examples] for split, examples in parts)
    return train, valid, test
