import errno
import fcntl
import json
import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dvaepp import storage
from dvaepp.errors import InputError


def test_tensors_and_their_description_come_back_as_they_were(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 2).T, "b": torch.arange(5, dtype=torch.uint8)}
    storage.save_tensors(tmp_path / "t.safetensors", tensors, {"step": 3})
    read, about = storage.load_tensors(tmp_path / "t.safetensors")
    assert about == {"step": 3}
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """The operating system refuses to let any file grow past `size` bytes, as a full disk would."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_checkpoint_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    storage.save_tensors(path, {"a": torch.ones(20_000)}, {})
    with room_for(10_000), pytest.raises(InputError) as error:
        storage.save_tensors(path, {"a": torch.zeros(20_000)}, {})
    assert f"could not write {path}" in str(error.value)
    assert "the previous file is unharmed" in str(error.value)
    assert torch.equal(storage.load_tensors(path)[0]["a"], torch.ones(20_000))
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="could not write .*file/run/r.json"):
        storage.write_text(tmp_path / "file" / "run" / "r.json", "x")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_what_is_no_checkpoint_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.safetensors is not a"):
        storage.load_tensors(path)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    storage.save_tensors(path, {"a": torch.ones(100)}, {})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="not a whole dvaepp checkpoint"):
        storage.load_tensors(path)


def test_somebody_elses_safetensors_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="not a dvaepp checkpoint"):
        storage.load_tensors(tmp_path / "x.safetensors")


def test_json_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"steps": ')
    with pytest.raises(InputError, match=r"r\.json is not a recipe"):
        storage.read_json(tmp_path / "r.json", "a recipe")
    with pytest.raises(InputError, match=r"none\.json does not exist; expected a recipe"):
        storage.read_json(tmp_path / "none.json", "a recipe")


def test_json_is_written_whole_and_without_nan(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "s.json", {"nll": 1.5})
    assert json.loads((tmp_path / "s.json").read_text()) == {"nll": 1.5}
    with pytest.raises(InputError, match="was not written: .*not JSON compliant"):
        storage.write_json(tmp_path / "s.json", {"nll": float("nan")})
    assert json.loads((tmp_path / "s.json").read_text()) == {"nll": 1.5}


def test_where_folders_cannot_be_locked_a_file_beside_them_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, where an exclusive lock needs a file that is open for writing."""
    lock, folder = fcntl.flock, tmp_path / "run"
    folder.mkdir()

    def on_nfs(descriptor: int, operation: int) -> None:
        if not os.fstat(descriptor).st_mode & stat.S_IFREG:
            raise OSError(errno.EBADF, "Bad file descriptor")
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", on_nfs)
    with storage.locked(folder):
        assert list(folder.iterdir()) == []
        with pytest.raises(InputError, match="is being trained by another process"), storage.locked(folder):
            pass
    with storage.locked(folder):
        pass
