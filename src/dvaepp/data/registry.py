"""Data by name or path: load it, describe it, fetch its files, check them."""

import os
from pathlib import Path

from dvaepp.data.caltech101_silhouettes import CALTECH101_SILHOUETTES
from dvaepp.data.cifar10 import CIFAR10
from dvaepp.data.dataset import Dataset
from dvaepp.data.digits import DIGITS
from dvaepp.data.download import PublicDataSet, check_file, obtain
from dvaepp.data.formats import Header
from dvaepp.data.kinds import Plain
from dvaepp.data.mnist_dynamic import MNIST_DYNAMIC
from dvaepp.data.mnist_static import MNIST_STATIC
from dvaepp.data.omniglot import OMNIGLOT
from dvaepp.data.omniglot_lake import OMNIGLOT_LAKE
from dvaepp.data.own import Binarise, check_options, load_own
from dvaepp.data.pictures import Background
from dvaepp.errors import InputError, nearest
from dvaepp.storage import AnyPath

_EVERY = (DIGITS, MNIST_STATIC, MNIST_DYNAMIC, OMNIGLOT, OMNIGLOT_LAKE, CALTECH101_SILHOUETTES, CIFAR10)
PUBLIC = {each.name: each for each in _EVERY}
NAMES = tuple(PUBLIC)


def load(
    name: AnyPath,
    data_dir: AnyPath | None = None,
    binarise: Binarise = "auto",
    threshold: float = 0.5,
    kind: Plain = "levels",
    background: Background = "white",
    header: Header = "auto",
) -> Dataset:
    """The data set of a name in NAMES, found or downloaded, or the user's own data at a path.

    A path leads to an .npy, .npz, .csv, .amat or idx file or a folder of images. Arrays of images have their channels,
    one or three, in the last axis or, as in torch, the second. Binary data stay as they are; `binarise` makes grey into
    bits: "auto" and "dynamic" draw train afresh on every use, "threshold" takes 1[grey > threshold]. Pictures in colour
    become grey for it, which the protocol says. "none" leaves numbers as they are, and `kind` says what they are: 8-bit
    "levels" of images, grey or colour, or the "real" numbers, "counts" or "categories" 0, 1, .. of a table. Transparent
    images are laid over the `background`. `header` says whether the first line of a .csv is "present" names of columns
    or they are "absent"; "auto" takes a line without any number for names, and refuses numbers that may be or stand
    among names.
    InputError for everything that is not as expected.
    """
    check_options(binarise, threshold, kind, background, header)
    name = os.fspath(name)
    if name in NAMES:
        if binarise != "auto":
            raise InputError(f"binarise is {binarise!r} but {name} stands for a fixed protocol, expected auto")
        return PUBLIC[name].load(data_dir)
    path = Path(name).expanduser()
    if not name or not path.exists():
        raise InputError(_unknown(name, "a name or an existing path"))
    own = path.resolve().name
    return load_own(path, f"own-{own}" if own in NAMES else own, binarise, threshold, kind, background, header)


def describe(name: str) -> str:
    """One line: size, train/valid/test, protocol, licence and availability."""
    return _public(name).summary


def fetch(name: str, data_dir: AnyPath | None = None) -> list[Path]:
    """The files of a data set, those missing downloaded; InputError naming file and address when that fails."""
    return [obtain(file, data_dir) for file in _public(name).files_at(data_dir)]


def check(name: str, data_dir: AnyPath | None = None) -> list[tuple[Path, str]]:
    """Each file of a data set with 'ok', 'missing' or 'wrong SHA-256: expected .. got ..'."""
    return [check_file(file, data_dir) for file in _public(name).files_at(data_dir)]


def _public(name: str) -> PublicDataSet:
    if name not in PUBLIC:
        raise InputError(_unknown(name, "a data set"))
    return PUBLIC[name]


def _unknown(name: str, kind: str) -> str:
    return f"{name!r} is not {kind}, expected one of {', '.join(NAMES)}{nearest(name.lower(), NAMES)}"
