"""idx files of images, as MNIST comes: train-* with t10k-* in a folder, labels beside them."""

import re
from pathlib import Path

from dvaepp.data import formats, splits
from dvaepp.data.formats import Array
from dvaepp.errors import InputError

_SPLIT = re.compile(r"^(t10k|[a-z]+?)[-_.]?(images|labels)[-_.].*idx")
Found = tuple[dict[str, Array], dict[str, Array]]
"""Images and labels by split."""


def are_in(folder: Path) -> bool:
    """Whether there are idx files of images in a folder, by their names."""
    return any(kind == "images" for _, kind in map(_named, folder.iterdir()))


def in_folder(folder: Path) -> Found:
    """The images of the splits in a folder, t10k being test, and their labels where they are there."""
    found: dict[str, dict[str, Path]] = {"images": {}, "labels": {}}
    for path in sorted(folder.iterdir()):
        split, kind = _named(path)
        if split is None or kind is None:
            continue
        if split in found[kind]:
            raise InputError(
                f"{folder}: holds {found[kind][split].name} and {path.name}, expected one of them as {split}"
            )
        found[kind][split] = path
    if not splits.is_complete(found["images"]):
        held = ", ".join(path.name for path in found["images"].values())
        raise InputError(f"{folder}: holds {held}, expected images of {splits.COMPLETE}")
    images = {split: formats.idx(formats.content(path), path) for split, path in found["images"].items()}
    return images, {split: _labels(path) for split, path in found["labels"].items()}


def at(path: Path) -> Found:
    """The images in a file, and the labels in the one beside it of the same name but for images-idx3, labels-idx1."""
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    labels = {"": _labels(beside)} if beside != path and beside.exists() else {}
    return {"": formats.idx(formats.content(path), path)}, labels


def _labels(path: Path) -> Array:
    labels = formats.idx(formats.content(path), path)
    if labels.ndim != 1:
        raise InputError(f"{path}: has the shape {labels.shape}, expected labels (n,)")
    return labels


def _named(path: Path) -> tuple[str | None, str | None]:
    """The split and the kind, images or labels, that a file's name says."""
    said = _SPLIT.match(path.name.lower())
    if said is None or path.is_dir():
        return None, None
    split = "test" if said[1] == "t10k" else splits.split_named(said[1])
    return split, said[2] if split else None
