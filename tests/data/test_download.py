"""Finding, downloading and checking the public files, against a server on the loopback."""

import builtins
import gzip
import hashlib
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dvaepp import data
from dvaepp.components.registry import component
from dvaepp.data.download import File, PublicDataSet, watched
from dvaepp.errors import InputError

SPLITS = ("train", "valid", "test")


def publish(monkeypatch: pytest.MonkeyPatch, name: str, *files: File) -> None:
    """A data set with other files in place of its own."""
    monkeypatch.setattr(component(PublicDataSet, name), "files", files)


class Handler(BaseHTTPRequestHandler):
    files: dict[str, bytes]
    cut: int

    def do_GET(self) -> None:
        content = self.files.get(self.path.rsplit("/", 1)[1])
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) - self.cut])

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Handler]]:
    """A server of static MNIST whose files are tiny, in place of the public one."""
    Handler.files, Handler.cut = {f"binarized_mnist_{split}.amat": wide(split) for split in SPLITS}, 0
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    host = f"http://127.0.0.1:{httpd.server_port}/"
    tiny = (
        replace(file, host=host, checksum=hashlib.sha256(Handler.files[file.name]).hexdigest())
        for file in component(PublicDataSet, "mnist-static").files
    )
    publish(monkeypatch, "mnist-static", *tiny)
    yield Handler
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def empty_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVAEPP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def wide(split: str) -> bytes:
    """Three lines of 784 bits, all equal to the number of the split modulo 2."""
    return (b" ".join([str(SPLITS.index(split) % 2).encode()] * 784) + b"\n") * 3


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


NAMES = [f"binarized_mnist_{split}.amat" for split in ("test", "train", "valid")]


def test_missing_files_are_downloaded_into_the_cache_once(server: type[Handler], tmp_path: Path) -> None:
    assert {verdict for _, verdict in data.check("mnist-static")} == {"missing"}
    loaded = data.load("mnist-static")
    assert [int(x.sum()) for x in (loaded.train, loaded.valid, loaded.test)] == [0, 3 * 784, 0]
    assert files_below(tmp_path / "cache/dvaepp/mnist_static") == NAMES
    assert {verdict for _, verdict in data.check("mnist-static")} == {"ok"}
    server.files = {}
    assert data.fetch("mnist-static") == [path for path, _ in data.check("mnist-static")]


def test_data_dir_comes_first_then_the_environment_then_the_cache(
    server: type[Handler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.fetch("mnist-static")
    for place in ("given", "environment"):
        shutil.copytree(tmp_path / "cache/dvaepp", tmp_path / place)
    server.files = {}
    monkeypatch.setenv("DVAEPP_DATA", str(tmp_path / "environment"))
    assert data.fetch("mnist-static", tmp_path / "given")[0].is_relative_to(tmp_path / "given")
    assert data.fetch("mnist-static", tmp_path / "empty")[0].is_relative_to(tmp_path / "environment")
    shutil.rmtree(tmp_path / "environment")
    assert data.fetch("mnist-static")[0].is_relative_to(tmp_path / "cache")


@pytest.mark.usefixtures("server")
def test_downloads_go_to_data_dir_when_given(tmp_path: Path) -> None:
    data.load("mnist-static", data_dir=tmp_path / "given")
    assert files_below(tmp_path) == NAMES
    assert files_below(tmp_path / "given/mnist_static") == NAMES


@pytest.mark.usefixtures("server")
def test_a_watcher_sees_each_file_grow_to_its_size() -> None:
    seen: list[tuple[str, int, int | None]] = []
    with watched(lambda *progress: seen.append(progress)):
        data.fetch("mnist-static")
    assert seen == [(f"binarized_mnist_{split}.amat", 4704, 4704) for split in SPLITS]


def test_wrong_checksum_leaves_nothing_behind(server: type[Handler], tmp_path: Path) -> None:
    server.files[NAMES[1]] = wide("valid")
    with pytest.raises(
        InputError, match=rf"{NAMES[1]}: downloaded from http://127.* \(wrong SHA-256: expected .* got "
    ):
        data.load("mnist-static")
    assert files_below(tmp_path) == []


def test_truncated_transfer_leaves_nothing_behind(server: type[Handler], tmp_path: Path) -> None:
    server.cut = 100
    message = rf"{NAMES[1]}: cannot be downloaded from http://127.*transfer ended after 4,604 of 4,704 bytes"
    with pytest.raises(InputError, match=message):
        data.load("mnist-static")
    assert files_below(tmp_path) == []


def test_absent_file_names_its_address(server: type[Handler], tmp_path: Path) -> None:
    server.files = {}
    with pytest.raises(InputError, match=rf"cannot be downloaded from http://127.*{NAMES[1]} .*404"):
        data.load("mnist-static")
    assert files_below(tmp_path) == []


def test_no_network_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, "omniglot", replace(component(PublicDataSet, "omniglot").files[0], host="http://127.0.0.1:1/"))
    with pytest.raises(InputError, match=r"chardata.mat: cannot be downloaded from .*refused.*; put it at .*omniglot"):
        data.load("omniglot")


@pytest.mark.usefixtures("server")
def test_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"train\.amat: cannot be downloaded"):
        data.load("mnist-static", data_dir=tmp_path / "file")


def test_lake_has_no_download() -> None:
    with pytest.raises(InputError, match=r"lake\.npz: is missing and cannot be downloaded, expected in"):
        data.load("omniglot-lake")


def test_damaged_files_are_named(server: type[Handler], tmp_path: Path) -> None:
    train, valid, _ = data.fetch("mnist-static", tmp_path)
    train.write_bytes(wide("train")[:-200])
    with pytest.raises(InputError, match=r"binarized_mnist_train.amat: line 3 has 1368 characters, expected 1567"):
        data.load("mnist-static", tmp_path)
    train.write_bytes(wide("valid"))
    with pytest.raises(InputError, match=r"train.amat: is not the published file \(wrong SHA-256: expected"):
        data.load("mnist-static", tmp_path)
    verdicts = dict(data.check("mnist-static", tmp_path))
    assert verdicts[train].startswith("wrong SHA-256: expected ")
    assert verdicts[valid] == "ok"


def test_gzip_files_are_checked_by_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.arange(70000 * 784, dtype=np.uint32).astype(np.uint8)
    parts = {"train": images[: 60000 * 784], "t10k": images[60000 * 784 :]}
    files, folder = [], tmp_path / "mnist"
    folder.mkdir()
    for file, (part, pixels) in zip(component(PublicDataSet, "mnist-dynamic").files, parts.items(), strict=True):
        raw = b"\0\0\x08\x03" + np.array([len(pixels) // 784, 28, 28], ">u4").tobytes() + pixels.tobytes()
        unpacked = part == "t10k"
        (folder / file.name.removesuffix(".gz" if unpacked else "")).write_bytes(
            raw if unpacked else gzip.compress(raw, 1)
        )
        files.append(replace(file, checksum=hashlib.sha256(raw).hexdigest()))
    publish(monkeypatch, "mnist-dynamic", *files)
    assert [verdict for _, verdict in data.check("mnist-dynamic", tmp_path)] == ["ok", "ok"]
    (folder / files[0].name).write_bytes(b"no gzip")
    assert "got an unreadable file" in data.check("mnist-dynamic", tmp_path)[0][1]


def burda(folder: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A stand-in for chardata.mat in Burda's layout; its training images, upright."""
    scipy_io = pytest.importorskip("scipy.io")
    random = np.random.RandomState(0)
    train, test = random.random_sample((1500, 28, 28)), np.full((70, 28, 28), 0.25)
    train[:, 0, :] = 0
    train[-1] = 1
    columns = {
        name: images.transpose(0, 2, 1).reshape(-1, 784).T for name, images in {"data": train, "testdata": test}.items()
    }
    (folder / "omniglot").mkdir()
    scipy_io.savemat(folder / "omniglot/chardata.mat", columns)
    (file,) = component(PublicDataSet, "omniglot").files
    checksum = hashlib.md5((folder / "omniglot/chardata.mat").read_bytes()).hexdigest()
    publish(monkeypatch, "omniglot", replace(file, checksum=checksum))
    return train


def test_omniglot_keeps_the_order_of_burdas_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = burda(tmp_path, monkeypatch)
    omniglot = data.load("omniglot", tmp_path)
    assert [len(x) for x in (omniglot.train, omniglot.valid, omniglot.test)] == [155, 1345, 70]
    assert (omniglot.train.reshape(-1, 28, 28) / 255 - torch.tensor(train[:155])).abs().max() <= 0.5 / 255 + 1e-6
    assert omniglot.valid[-1].sum() == 784
    assert omniglot.valid.reshape(-1, 28, 28)[:-1, 0].sum() == 0, "the first row is empty, so images stand upright"
    assert omniglot.test.float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_omniglot_binarised_once_is_drawn_by_one_stream_then_permuted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upright = burda(tmp_path, monkeypatch)
    publish(monkeypatch, "omniglot-static", component(PublicDataSet, "omniglot").files[0])
    static = data.load("omniglot-static", tmp_path)
    assert (static.dynamic, [len(x) for x in (static.train, static.valid, static.test)]) == (False, [155, 1345, 70])
    np.random.seed(5)
    train = np.random.rand(1500, 784) < upright.reshape(1500, 784).astype(np.float32)
    test = np.random.rand(70, 784) < 0.25
    order = np.random.RandomState(123).permutation(1500)
    assert torch.equal(torch.cat([static.train, static.valid]), torch.tensor(train[order].astype(np.uint8)))
    assert torch.equal(static.test, torch.tensor(test.astype(np.uint8)))


def test_mat_files_without_scipy_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    burda(tmp_path, monkeypatch)
    real_import = builtins.__import__

    def no_scipy(name: str, *rest: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_scipy)
    with pytest.raises(InputError, match=r"chardata.mat: reading it needs scipy; install it with .*dvaepp\[mat\]"):
        data.load("omniglot", tmp_path)


def test_broken_mat_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    burda(tmp_path, monkeypatch)
    (tmp_path / "omniglot/chardata.mat").write_bytes(b"MATLAB 5.0 and no more")
    with pytest.raises(InputError, match=r"chardata\.mat: expected a MATLAB 5 file with the matrices data, testdata"):
        data.load("omniglot", tmp_path)
