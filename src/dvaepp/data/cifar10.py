"""CIFAR-10 in the forms it lies about in: the binary archive, the Python archive, arrays. No pickle is ever obeyed.

A reader gives train and test, (n, 32, 32, 3) uint8, as they are stored; `in_order` makes them the same from every form.
"""

import gzip
import io
import pickletools
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dvaepp.data import archives, formats
from dvaepp.data.binarise import SEED, permuted, plain_dataset
from dvaepp.data.dataset import Dataset
from dvaepp.data.download import File, PublicDataSet
from dvaepp.errors import InputError

Images = NDArray[np.uint8]
_HOST = "https://www.cs.toronto.edu/~kriz/"
_PIXELS = 3 * 32 * 32
_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_FROM_ELSEWHERE = ("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID")
_NUMPY = ("numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype")


def in_order(images: Images) -> Images:
    """The images sorted by their bytes: an order that no form of the data has a say in."""
    rows = sorted(image.tobytes() for image in images)
    return np.frombuffer(b"".join(rows), np.uint8).reshape(images.shape)


def binary(raw: bytes, path: Path) -> tuple[Images, Images]:
    """Train and test of cifar-10-binary.tar.gz, records of a label and 3,072 levels."""
    return _both(_members(raw, path, "cifar-10-batches-bin", ".bin"), _records)


def python(raw: bytes, path: Path) -> tuple[Images, Images]:
    """Train and test of cifar-10-python.tar.gz, pickled arrays."""
    return _both(_members(raw, path, "cifar-10-batches-py", ""), _pickled)


def arrays(raw: bytes, path: Path) -> tuple[Images, Images]:
    """Train and test from what `pixels` makes of cifar10.npz: a sixth of it is test."""
    images = np.frombuffer(raw, np.uint8).reshape(-1, 32, 32, 3)
    train, test = np.split(images, [len(images) * 5 // 6])
    return train, test


def pixels(path: Path) -> bytes:
    """The levels of train, then of test, of an .npz file, each in order: the content that a checksum can be of."""
    stored = archives.numpy_arrays(formats.content(path), path, ("train", "test"))
    for name, images in stored.items():
        if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3):
            found = f"{images.dtype} of shape {images.shape}"
            raise InputError(f"{path}: {name} holds {found}, expected uint8 of shape (n, 32, 32, 3)")
    return b"".join(in_order(stored[name]).tobytes() for name in ("train", "test"))


def _members(raw: bytes, path: Path, folder: str, suffix: str) -> dict[str, bytes]:
    """The files of an archive with the images: what they are called, what is in them."""
    names = [f"{folder}/{batch}{suffix}" for batch in (*_BATCHES, "test_batch")]
    try:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(raw)), mode="r:") as archive:
            members = [archive.getmember(name) for name in names]
            files = [archive.extractfile(member) if member.isreg() else None for member in members]
            return {f"{path}: {name}": file.read() if file else b"" for name, file in zip(names, files, strict=True)}
    except (tarfile.TarError, KeyError, OSError, EOFError, zlib.error) as error:
        reason = str(error).strip("'\"")
        raise InputError(f"{path}: expected a complete archive with the files {names[0]}, .., but {reason}") from error


def _both(members: dict[str, bytes], read: Callable[[bytes, str], Images]) -> tuple[Images, Images]:
    *train, test = (read(raw, where).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for where, raw in members.items())
    return np.concatenate(train), test


def _records(raw: bytes, where: str) -> Images:
    if not raw or len(raw) % (1 + _PIXELS):
        raise InputError(f"{where} has {len(raw):,} bytes, expected records of {1 + _PIXELS:,}")
    return np.frombuffer(raw, np.uint8).reshape(-1, 1 + _PIXELS)[:, 1:]


def _pickled(raw: bytes, where: str) -> Images:
    """The longest string of a pickle, which is an array's levels; its opcodes are read and not one is carried out."""
    longest = b""
    try:
        for opcode, argument, _ in pickletools.genops(raw):
            if opcode.name in _FROM_ELSEWHERE and argument not in _NUMPY:
                raise InputError(f"{where} refers to {argument or opcode.name}, expected only a numpy array and labels")
            if isinstance(argument, str) and len(argument) > len(longest):
                longest = argument.encode("latin-1")
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} is no complete pickle, expected one of Python 2 ({error})") from error
    if not longest or len(longest) % _PIXELS:
        raise InputError(f"{where} holds {len(longest):,} levels, expected images of {_PIXELS:,}")
    return np.frombuffer(longest, np.uint8)


@dataclass(frozen=True)
class Cifar10(PublicDataSet):
    """CIFAR-10 (Krizhevsky 2009), the same whichever file it comes from."""

    name: ClassVar[str] = "cifar10"
    summary: ClassVar[str] = "32x32 in colour, 45,000/5,000/10,000, levels 0..255; no stated licence, downloads 170 MB"
    files: ClassVar[tuple[File, ...]] = (
        File(
            "cifar10",
            "cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            binary,
            _HOST,
            unpack=formats.stored,
        ),
    )
    forms: ClassVar[tuple[File, ...]] = (
        File(
            "cifar10",
            "cifar-10-python.tar.gz",
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            python,
            _HOST,
            unpack=formats.stored,
        ),
        File(
            "cifar10",
            "cifar10.npz",
            "161d80adb6c4ac5020f8f90b14a0b8fb9e2efb4a6aaadd685c86cc17cbf120ac",
            arrays,
            unpack=pixels,
        ),
    )

    def assemble(self, contents: dict[str, Any]) -> Dataset:
        """A tenth of the training images held out, the same ones whichever file they come from."""
        ((name, splits),) = contents.items()
        train, test = (permuted(in_order(images)) for images in splits)
        held = len(train) // 10
        protocol = (
            f"CIFAR-10 (Krizhevsky 2009) from {name}, levels 0..255; train and test sorted by the bytes of the images "
            f"and permuted with numpy RandomState({SEED}), the last {held:,} training images are valid."
        )
        return plain_dataset(self.name, (train[:-held], train[-held:], test), protocol, "levels")
