"""Public files: where they are looked for, where they come from and how they are known to be the right ones."""

import hashlib
import http.client
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar
from urllib.request import urlopen

from dvaepp.components.registry import Component
from dvaepp.data import formats
from dvaepp.data.dataset import Dataset
from dvaepp.errors import InputError
from dvaepp.storage import AnyPath

Where = AnyPath | None
Watcher = Callable[[str, int, int | None], None]
"""Is told a file's name, how many of its bytes have come, and how many there are if that is known."""
_TIMEOUT = 30.0
_PRINTED = {"sha256": "SHA-256", "md5": "MD5"}
_watcher: ContextVar[Watcher] = ContextVar("watcher", default=lambda name, done, total: None)


@dataclass(frozen=True)
class File:
    """One public file: its folder and name, how it is read, and the checksum of what `unpack` finds in it.

    By default that is its uncompressed content. `host` is the address that its name completes, None where it cannot be
    downloaded.
    """

    folder: str
    name: str
    checksum: str
    read: Callable[[bytes, Path], Any]
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


class PublicDataSet(Component, ABC):
    """A data set by name: one line about it, its files, and how what they hold becomes a `Dataset`.

    `forms` are other files, each of which stands for all of `files` where it is there and they are not.
    """

    kind: ClassVar[str] = "data set"
    folder: ClassVar[str] = "dvaepp.data"
    summary: ClassVar[str]
    files: ClassVar[tuple[File, ...]]
    forms: ClassVar[tuple[File, ...]] = ()
    comparable: ClassVar[bool] = True
    """Likelihoods may be compared with published ones."""

    @abstractmethod
    def assemble(self, contents: dict[str, Any]) -> Dataset:
        """The data set, of what was read from its files, by file name."""

    def files_at(self, data_dir: Where) -> tuple[File, ...]:
        """`files`, or the form of them that is there in their place."""
        if all(find(file, data_dir) for file in self.files):
            return self.files
        return next(((form,) for form in self.forms if find(form, data_dir)), self.files)

    def load(self, data_dir: Where) -> Dataset:
        """The data set, its files found or downloaded; InputError naming the file that is not as published."""
        return self.assemble({file.name: load(file, data_dir) for file in self.files_at(data_dir)})


def cache() -> Path:
    """$XDG_CACHE_HOME/dvaepp, else ~/.cache/dvaepp."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dvaepp"


def find(file: File, data_dir: Where) -> Path | None:
    """The first place that has the file: data_dir, the environment's DVAEPP_DATA, the cache, this package."""
    named = [data_dir, os.environ.get("DVAEPP_DATA"), cache(), str(resources.files("dvaepp.data"))]
    for place in [Path(place).expanduser() for place in named if place]:
        for name in file.names:
            if (place / file.folder / name).is_file():
                return place / file.folder / name
    return None


def target(file: File, data_dir: Where) -> Path:
    """Where a download of the file goes."""
    return (Path(data_dir).expanduser() if data_dir else cache()) / file.folder / file.name


def obtain(file: File, data_dir: Where) -> Path:
    """The file where it is, or else downloaded."""
    return find(file, data_dir) or download(file, target(file, data_dir))


def load(file: File, data_dir: Where) -> Any:
    """What is read from the file; InputError unless it is well-formed and the checksum is right."""
    path = obtain(file, data_dir)
    content = file.unpack(path)
    value = file.read(content, path)
    if (verdict := file.verdict(content)) != "ok":
        raise InputError(f"{path}: is not the published file ({verdict}); remove it to download it again")
    return value


def check_file(file: File, data_dir: Where) -> tuple[Path, str]:
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
    with urlopen(url, timeout=_TIMEOUT) as response, partial.open("wb") as out:
        header = response.headers.get("Content-Length")
        expected = int(header) if header else None
        while chunk := response.read(1 << 16):
            out.write(chunk)
            _watcher.get()(url.rsplit("/", 1)[1], out.tell(), expected)
        if expected and out.tell() != expected:
            raise OSError(f"the transfer ended after {out.tell():,} of {expected:,} bytes")


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Within the block the watcher is told how downloads go."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)
