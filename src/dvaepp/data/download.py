"""The public files: where they are looked for, where they come from and how they are known to be the right ones."""

import hashlib
import http.client
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeVar
from urllib.request import urlopen

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from dvaepp.data import cifar, formats
from dvaepp.errors import InputError

T = TypeVar("T")
_TIMEOUT = 30.0
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_STATIC = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
_BURDA = "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/"
_MARLIN = "https://people.cs.umass.edu/~marlin/data/"
_KRIZHEVSKY = "https://www.cs.toronto.edu/~kriz/"
_PRINTED = {"sha256": "SHA-256", "md5": "MD5"}


@dataclass(frozen=True)
class File:
    """One file of a data set; its checksum is that of what `unpack` finds in it, by default uncompressed content."""

    folder: str
    name: str
    checksum: str
    host: str | None = None
    algorithm: str = "sha256"
    unpack: Callable[[Path], bytes] = formats.content

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called: a file that is only compressed, also without its .gz."""
        return (self.name, self.name.removesuffix(".gz")) if self.unpack is formats.content else (self.name,)

    @property
    def url(self) -> str:
        """Where it is downloaded from; InputError when it is not to be had anywhere."""
        if self.host is None:
            places = f"the folder {self.folder}/ of --data-dir or DVAEPP_DATA"
            raise InputError(f"{self.name}: is missing and cannot be downloaded, expected in {places}")
        return self.host + self.name

    def verdict(self, content: bytes) -> str:
        """'ok', or which checksum was expected and which one the content has."""
        found = hashlib.new(self.algorithm, content, usedforsecurity=False).hexdigest()
        wrong = f"wrong {_PRINTED[self.algorithm]}: expected {self.checksum} got {found}"
        return "ok" if found == self.checksum else wrong


_STATIC_SUMS = {
    "train": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "valid": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "test": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
}
_MNIST_SUMS = {
    "train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "t10k": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
}
FILES: dict[str, tuple[File, ...]] = {
    "digits": (File("digits", "digits.npz", "246e0c30eeea57c8d0037d3f38c8e00651ec204cc61b8022563e9aeeb9d756f4"),),
    "mnist-static": tuple(
        File("mnist_static", f"binarized_mnist_{split}.amat", checksum, _STATIC)
        for split, checksum in _STATIC_SUMS.items()
    ),
    "mnist-dynamic": tuple(
        File("mnist", f"{part}-images-idx3-ubyte.gz", checksum, _MNIST) for part, checksum in _MNIST_SUMS.items()
    ),
    "omniglot": (File("omniglot", "chardata.mat", "21ecaf34373511aa7691cf2e0802aa3d", _BURDA, "md5"),),
    "omniglot-lake": (
        File(
            "omniglot",
            "omniglot28_from_lake.npz",
            "190f89c906c1d31e2f49ff2dbc5bc3b4caebf76dfcd48d9a31d9a2b2339dcd85",
        ),
    ),
    "caltech101-silhouettes": (
        File(
            "caltech101_silhouettes",
            "caltech101_silhouettes_28_split1.mat",
            "eb6735e8d84b1850fabc5590124aab1755e90c9fd28123585324398405e1e42a",
            _MARLIN,
        ),
    ),
    "cifar10": (
        File(
            "cifar10",
            "cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            _KRIZHEVSKY,
            unpack=formats.stored,
        ),
    ),
}
FORMS: dict[str, tuple[File, ...]] = {
    "cifar10": (
        File(
            "cifar10",
            "cifar-10-python.tar.gz",
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            _KRIZHEVSKY,
            unpack=formats.stored,
        ),
        File(
            "cifar10",
            "cifar10.npz",
            "161d80adb6c4ac5020f8f90b14a0b8fb9e2efb4a6aaadd685c86cc17cbf120ac",
            unpack=cifar.pixels,
        ),
    ),
}
"""Other files, each of which stands for a whole data set where it is there and those of FILES are not."""


def files(name: str, data_dir: str | Path | None) -> tuple[File, ...]:
    """The files of a data set: those of FILES, or another form of it that is there in their place."""
    if all(find(file, data_dir) for file in FILES[name]):
        return FILES[name]
    return next(((form,) for form in FORMS.get(name, ()) if find(form, data_dir)), FILES[name])


def cache() -> Path:
    """$XDG_CACHE_HOME/dvaepp, else ~/.cache/dvaepp."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dvaepp"


def find(file: File, data_dir: str | Path | None) -> Path | None:
    """The first place that has the file: data_dir, the environment's DVAEPP_DATA, the cache, this package."""
    named = [data_dir, os.environ.get("DVAEPP_DATA"), cache(), str(resources.files("dvaepp.data"))]
    for place in [Path(place).expanduser() for place in named if place]:
        for name in file.names:
            if (place / file.folder / name).is_file():
                return place / file.folder / name
    return None


def target(file: File, data_dir: str | Path | None) -> Path:
    """Where a download of the file goes."""
    return (Path(data_dir).expanduser() if data_dir else cache()) / file.folder / file.name


def obtain(file: File, data_dir: str | Path | None) -> Path:
    """The file where it is, or else downloaded."""
    return find(file, data_dir) or download(file, target(file, data_dir))


def load(file: File, data_dir: str | Path | None, reader: Callable[[bytes, Path], T]) -> T:
    """What `reader` makes of the file's content; InputError unless it is well-formed and the checksum is right."""
    path = obtain(file, data_dir)
    content = file.unpack(path)
    value = reader(content, path)
    if (verdict := file.verdict(content)) != "ok":
        raise InputError(f"{path}: is not the published file ({verdict}); remove it to download it again")
    return value


def check_file(file: File, data_dir: str | Path | None) -> tuple[Path, str]:
    """The path of the file and 'ok', 'missing' or 'wrong SHA-256: expected .. got ..'."""
    path = find(file, data_dir)
    if path is None:
        return target(file, data_dir), "missing"
    return path, _verdict(file, path)


def _verdict(file: File, path: Path) -> str:
    try:
        return file.verdict(file.unpack(path))
    except InputError:
        return f"wrong {_PRINTED[file.algorithm]}: expected {file.checksum} got an unreadable file"


def download(file: File, path: Path) -> Path:
    """Download to `path` under a temporary name until the checksum is right; InputError leaves nothing behind."""
    url = file.url
    # The checksum is that of the uncompressed content, so the temporary name keeps the suffix.
    partial = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _transfer(url, partial)
        if (verdict := _verdict(file, partial)) != "ok":
            raise InputError(f"{path.name}: downloaded from {url}, is not the published file ({verdict})")
        return partial.replace(path)
    except (OSError, http.client.HTTPException) as error:
        reason = str(error).removeprefix("<urlopen error ").removesuffix(">")
        where = f"put it at {path} or name its folder by --data-dir or DVAEPP_DATA"
        raise InputError(f"{path.name}: cannot be downloaded from {url} ({reason}); {where}") from error
    finally:
        with suppress(OSError):
            partial.unlink()


def _transfer(url: str, partial: Path) -> None:
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    with urlopen(url, timeout=_TIMEOUT) as response, partial.open("wb") as out, bar:
        expected = response.headers.get("Content-Length")
        task = bar.add_task(url.rsplit("/", 1)[1], total=int(expected) if expected else None)
        while chunk := response.read(1 << 16):
            bar.advance(task, out.write(chunk))
        if expected and out.tell() != int(expected):
            raise OSError(f"the transfer ended after {out.tell():,} of {int(expected):,} bytes")
