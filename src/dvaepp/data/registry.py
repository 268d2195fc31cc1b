"""Data by name or path: load it, describe it, fetch its files, check them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dvaepp.components.registry import components, faults
from dvaepp.data.dataset import Dataset
from dvaepp.data.download import PublicDataSet, check_file, obtain
from dvaepp.data.formats import Header
from dvaepp.data.kinds import Plain
from dvaepp.data.own import load_own
from dvaepp.data.pictures import Background, Fit
from dvaepp.data.reading import Binarise, Missing, Reading
from dvaepp.errors import InputError, nearest
from dvaepp.storage import AnyPath


def names() -> tuple[str, ...]:
    """Every public data set's name."""
    return tuple(sorted(components(PublicDataSet)))


def load(
    name: AnyPath,
    data_dir: AnyPath | None = None,
    binarise: Binarise = "auto",
    threshold: float = 0.5,
    kind: Plain = "levels",
    background: Background = "white",
    header: Header = "auto",
    drop: Sequence[str] = (),
    label: str | None = None,
    missing: Missing = "refuse",
    size: int | tuple[int, int] | None = None,
    fit: Fit = "crop",
    valid: AnyPath | None = None,
    test: AnyPath | None = None,
    kinds: Mapping[str, str] | None = None,
) -> Dataset:
    """The data set of one of `names()`, found or downloaded, or the user's own data at a path.

    A path leads to an .npy, .npz, .csv, .tsv, .parquet, .amat or idx file or a folder of images. Arrays of images have
    their channels, one or three, in the last axis or, as in torch, the second. Binary data stay as they are; `binarise`
    makes grey into bits: "auto" and "dynamic" draw train afresh on every use, "threshold" takes 1[grey > threshold].
    Pictures in colour become grey for it, which the protocol says. "none" leaves numbers as they are, and `kind` says
    what they are: 8-bit "levels" of images, grey or colour, or the "real" numbers, "counts" or "categories" 0, 1, .. of
    a table, or "mixed", columns of several kinds, each as `kinds` says ({"age": "real", ..}) or as its values do
    (`cells.columns_of`). Transparent images are laid over the `background`. `header` says whether the first line of a
    .csv is "present" names of columns or they are "absent"; "auto" takes a line without any number for names, and
    refuses numbers that may be or stand among names. Columns of a table that `drop` names are left out, and the column
    `label` is kept as labels; one without names is called by its number, "1". Values that are `missing` are refused, or
    rows or columns with them dropped, or among columns of several kinds they are a category. Pictures are scaled to a
    `size`, (height, width) or one side of a square: to "crop" so that they fill it, to "pad" so that they fit in it, or
    to "resize" each side by itself; rows of as many numbers become images of it. `valid` and `test` lead to splits of
    their own; what lies at the path itself is then train.

    InputError for everything that is not as expected.
    """
    if not isinstance(name, str | os.PathLike):
        raise InputError(f"load takes a name or a path, not {type(name).__name__}: data.from_arrays takes arrays")
    name = os.fspath(name)
    sides = (size, size) if isinstance(size, int) else size
    lie = [None if path is None else str(Path(path).expanduser()) for path in (valid, test)]
    columns = tuple(map(str, drop)), None if label is None else str(label), missing
    reading = Reading(
        binarise,
        threshold,
        kind,
        background,
        header,
        *columns,
        sides,
        fit,
        lie[0],
        lie[1],
        dict(kinds or {}),
    )
    if name in names():
        for option, given, usual in (("binarise", binarise, "auto"), ("kind", kind, "levels")):
            if given != usual:
                raise InputError(f"{option} is {given!r} but {name} stands for a fixed protocol, expected {usual}")
        return _public(name).load(data_dir)
    path = Path(name).expanduser()
    if not name or not path.exists():
        raise InputError(_unknown(name, "a name or an existing path"))
    own = path.resolve().name
    return load_own(path, f"own-{own}" if own in names() else own, reading)


def describe(name: str) -> str:
    """One line: size, train/valid/test, protocol, licence and availability."""
    return _public(name).summary


def fetch(name: str, data_dir: AnyPath | None = None) -> list[Path]:
    """The files of a data set, those missing downloaded; InputError naming file and address when that fails."""
    return [obtain(file, data_dir) for file in _public(name).files_at(data_dir)]


def check(name: str, data_dir: AnyPath | None = None) -> list[tuple[Path, str]]:
    """Each file of a data set with 'ok', 'missing' or 'wrong SHA-256: expected .. got ..'."""
    return [check_file(file, data_dir) for file in _public(name).files_at(data_dir)]


def is_comparable(name: str) -> bool:
    """Whether likelihoods of this data set may be compared with published ones; True of the user's own."""
    return name not in names() or _public(name).comparable


def _public(name: str) -> PublicDataSet:
    known = components(PublicDataSet)
    if name not in known:
        raise InputError(_unknown(name, "a data set"))
    return known[name]()


def _unknown(name: str, kind: str) -> str:
    if (fault := faults(PublicDataSet).get(name)) is not None:
        return fault
    return f"{name!r} is not {kind}, expected one of {', '.join(names())}{nearest(name.lower(), names())}"
