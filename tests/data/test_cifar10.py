"""CIFAR-10 from each of its forms: tiny archives of the published layout, and the real images where they are."""

import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dvaepp import data
from dvaepp.data import cifar10
from dvaepp.data.download import File
from dvaepp.errors import InputError

REAL = Path(os.environ.get("DVAEPP_DATA", "/nowhere")) / "cifar10/cifar10_webp.npz"
SCRIPT = Path(__file__).parents[2] / "scripts/cifar10_from_mosaics.py"
IMAGES = np.random.RandomState(3).randint(0, 256, (60, 32, 32, 3)).astype(np.uint8)
TRAIN, TEST = IMAGES[:50], IMAGES[50:]
BATCHES = [*np.split(TRAIN, 5), TEST]
NAMES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def planes(images: np.ndarray) -> np.ndarray:
    """Red, then green, then blue, each row by row, as both archives have them."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def records(images: np.ndarray) -> bytes:
    return np.concatenate([np.full((len(images), 1), 7, np.uint8), planes(images)], 1).tobytes()


def pickled(images: np.ndarray, reconstruct: bytes = b"numpy.core.multiarray\n_reconstruct\n") -> bytes:
    """What cPickle of Python 2 made of {'labels': [7], 'data': array} under protocol 2."""
    levels = planes(images).tobytes()
    shape = b"M" + struct.pack("<H", len(images)) + b"M" + struct.pack("<H", 3072) + b"\x86"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(levels)) + levels + b"tb"
    array = b"c" + reconstruct + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R" + state
    return b"\x80\x02}(U\x06labels](K\x07eU\x04data" + array + b"u."


def binary_archive() -> bytes:
    return tar({f"cifar-10-batches-bin/{n}.bin": records(x) for n, x in zip(NAMES, BATCHES, strict=True)})


def python_archive() -> bytes:
    return tar({f"cifar-10-batches-py/{n}": pickled(x) for n, x in zip(NAMES, BATCHES, strict=True)})


def npz(train: np.ndarray = TRAIN, test: np.ndarray = TEST) -> bytes:
    out = io.BytesIO()
    np.savez(out, train=train, test=test)
    return out.getvalue()


FORMS: dict[str, Callable[[], bytes]] = {
    "cifar-10-binary.tar.gz": binary_archive,
    "cifar-10-python.tar.gz": python_archive,
    "cifar10.npz": npz,
}


@pytest.fixture(autouse=True)
def empty_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVAEPP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def put(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes) -> Path:
    """The file in a data folder, its checksum taken to be the published one."""
    path = folder / "cifar10" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)

    def known(file: File) -> File:
        checksum = hashlib.sha256(file.unpack(path)).hexdigest() if file.name == name else file.checksum
        return replace(file, checksum=checksum)

    for attribute in ("files", "forms"):
        monkeypatch.setattr(cifar10.Cifar10, attribute, tuple(map(known, getattr(cifar10.Cifar10, attribute))))
    return path


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_images_in_the_same_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    put(tmp_path, monkeypatch, name, FORMS[name]())
    loaded = data.load("cifar10", tmp_path)
    assert (loaded.kind, loaded.shape, loaded.dynamic) == ("levels", (32, 32, 3), False)
    assert (len(loaded.train), len(loaded.valid), len(loaded.test)) == (45, 5, 10)
    together = torch.cat([loaded.train, loaded.valid]).numpy()
    assert {x.tobytes() for x in together} == {x.tobytes() for x in TRAIN}, "upright, channels last"
    assert {x.tobytes() for x in loaded.test.numpy()} == {x.tobytes() for x in TEST}
    assert name in loaded.protocol
    assert "RandomState(1)" in loaded.protocol
    assert data.check("cifar10", tmp_path) == [(tmp_path / "cifar10" / name, "ok")]
    assert data.fetch("cifar10", tmp_path) == [tmp_path / "cifar10" / name]
    put(tmp_path / "other", monkeypatch, "cifar10.npz", npz(TRAIN[::-1], TEST[::-1]))
    assert data.load("cifar10", tmp_path / "other").digest() == loaded.digest()


def test_without_any_form_the_binary_archive_is_asked_for(tmp_path: Path) -> None:
    assert data.check("cifar10", tmp_path) == [(tmp_path / "cifar10/cifar-10-binary.tar.gz", "missing")]


def test_other_images_are_not_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, make in FORMS.items():
        path = tmp_path / name / "cifar10" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(make())
        with pytest.raises(InputError, match=rf"{name}: is not the published file \(wrong SHA-256"):
            data.load("cifar10", tmp_path / name)


def test_an_archive_is_not_taken_unpacked(tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10/cifar-10-binary.tar").write_bytes(b"")
    assert data.check("cifar10", tmp_path)[0][1] == "missing"


# What is refused

SYSTEM = b"\x80\x02cposix\nsystem\nU\x05touchU\x08unpickled\x86R."
EVIL = {
    "a global": pickled(TEST, b"posix\nsystem\n"),
    "a call": SYSTEM,
    "a stacked global": pickle.dumps(os.system, protocol=4),
    "an instance": b"(S'touch unpickled'\niposix\nsystem\n.",
    "a persistent id": b"Pabc\n.",
    "an extension": b"\x80\x02\x82\x01.",
}


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
def test_a_pickle_that_refers_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {f"cifar-10-batches-py/{n}": pickled(x) for n, x in zip(NAMES, BATCHES, strict=True)}
    put(tmp_path, monkeypatch, "cifar-10-python.tar.gz", tar({**files, "cifar-10-batches-py/data_batch_3": evil}))
    with pytest.raises(InputError, match=r"python.tar.gz: cifar-10-batches-py/data_batch_3 refers to "):
        data.load("cifar10", tmp_path)
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("keep", [0, 1, 20, 60, 300, 5000, -1])
def test_truncated_pickles_are_refused(keep: int) -> None:
    files = {f"cifar-10-batches-py/{n}": pickled(x)[:keep] for n, x in zip(NAMES, BATCHES, strict=True)}
    with pytest.raises(InputError, match="x: cifar-10-batches-py/data_batch_1 is no complete pickle"):
        cifar10.python(tar(files), Path("x"))


def test_pickles_without_images_are_refused() -> None:
    with pytest.raises(InputError, match="holds 5 levels, expected images of 3,072"):
        cifar10.python(tar({f"cifar-10-batches-py/{n}": b"\x80\x02U\x05ships." for n in NAMES}), Path("x"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a complete archive|has 0 bytes"),
        (b"no archive", "expected a complete archive"),
        (binary_archive()[:-3000], "expected a complete archive"),
        (tar({"cifar-10-batches-bin/data_batch_1.bin": records(TEST)}), "expected a complete archive .*data_batch_2"),
        (python_archive(), "expected a complete archive with the files cifar-10-batches-bin/data_batch_1.bin"),
        (
            tar({f"cifar-10-batches-bin/{n}.bin": b"ab" for n in NAMES}),
            "data_batch_1.bin has 2 bytes, expected records",
        ),
        (tar({f"cifar-10-batches-bin/{n}.bin": b"" for n in NAMES}), "data_batch_1.bin has 0 bytes"),
    ],
)
def test_broken_archives_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"^x: .*({message})"):
        cifar10.binary(content, Path("x"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npz(TRAIN.astype(np.int64)), "train holds int64 of shape .*, expected uint8"),
        (npz(TRAIN, TEST[..., :1]), r"test holds uint8 of shape \(10, 32, 32, 1\), expected"),
        (npz()[:-100], "expected a complete .npz file"),
    ],
)
def test_broken_arrays_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "cifar10.npz").write_bytes(content)
    with pytest.raises(InputError, match=f"cifar10.npz: {message}"):
        cifar10.pixels(tmp_path / "cifar10.npz")


# The real images


@pytest.mark.skipif(not REAL.is_file(), reason="no mosaics of CIFAR-10 below DVAEPP_DATA")
def test_the_mosaics_are_cifar(tmp_path: Path) -> None:
    pytest.importorskip("PIL._webp", reason="this Pillow cannot read WebP")
    subprocess.run([sys.executable, str(SCRIPT), str(REAL), str(tmp_path)], check=True)
    assert [path.name for path in (tmp_path / "cifar10").iterdir()] == ["cifar10.npz"], "nothing temporary is left"
    loaded = data.load("cifar10", tmp_path)
    assert (len(loaded.train), len(loaded.valid), len(loaded.test)) == (45000, 5000, 10000)
    total = sum(x.reshape(-1, 3).sum(0, dtype=torch.int64) for x in (loaded.train, loaded.valid))
    # The means of the channels that everyone subtracts: .4914, .4822, .4465.
    assert (total / (50000 * 1024)).tolist() == pytest.approx([125.307, 122.950, 113.866], abs=2e-3)
    assert (loaded.valid.float().mean() - loaded.test.float().mean()).abs() < 2
