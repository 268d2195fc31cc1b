"""The user's own data by path: what is read, and the one sentence for everything that cannot be."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from PIL import Image

from dvaepp import data
from dvaepp.errors import InputError

RANDOM = np.random.RandomState(7)
GREY = RANDOM.randint(0, 256, (30, 4, 5)).astype(np.uint8)
BITS = RANDOM.randint(0, 2, (30, 6)).astype(np.uint8)


def npy(path: Path, array: ArrayLike) -> str:
    np.save(path / "x.npy", array)
    return str(path / "x.npy")


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def sorted_rows(*tensors: torch.Tensor) -> list[list[int]]:
    return sorted(torch.cat(tensors).tolist())


# What is read


def test_binary_array_is_split_by_a_fixed_permutation(tmp_path: Path) -> None:
    loaded = data.load(npy(tmp_path, BITS))
    assert (loaded.shape, loaded.dynamic, loaded.name) == ((6,), False, "x.npy")
    assert (len(loaded.train), len(loaded.valid), len(loaded.test)) == (24, 3, 3)
    assert sorted_rows(loaded.train, loaded.valid, loaded.test) == sorted(BITS.tolist())
    assert loaded.train.tolist() != BITS[:24].tolist(), "not in the order of the file"
    assert loaded.digest() == data.load(npy(tmp_path, BITS)).digest()
    assert "80/10/10" in loaded.protocol


@pytest.mark.parametrize(
    "same", [BITS > 0, BITS * 255, BITS.astype(np.float64), BITS.astype(np.float16), BITS.astype(np.int64)]
)
def test_bits_are_bits_in_every_dtype(tmp_path: Path, same: np.ndarray) -> None:
    assert data.load(npy(tmp_path, same)).digest() == data.load(npy(tmp_path, BITS)).digest()


def test_channels_may_come_in_torchs_place(tmp_path: Path) -> None:
    colour = RANDOM.randint(0, 256, (30, 4, 5, 3)).astype(np.uint8)
    first = {n: np.moveaxis(array, 3, 1) for n, array in (("grey", GREY[..., None]), ("colour", colour))}
    assert data.load(npy(tmp_path, first["grey"])).digest() == data.load(npy(tmp_path, GREY)).digest()
    for name, plain in (("grey", GREY), ("colour", colour)):
        expected = data.load(npy(tmp_path, plain), binarise="none")
        found = data.load(npy(tmp_path, first[name]), binarise="none")
        assert (found.shape, found.digest()) == (expected.shape, expected.digest())
    thin = GREY[:, :1, :1]  # what both may be is the last axis: (n, 1, 1) and not (n, height, 1)
    assert data.load(npy(tmp_path, thin[..., None])).shape == (1, 1)
    with pytest.raises(InputError, match=r"shape \(30, 3, 4, 5\), expected .*\(n, 1, height, width\).*binarise=none"):
        data.load(npy(tmp_path, first["colour"]))


def test_grey_is_dynamic_or_cut_at_a_threshold(tmp_path: Path) -> None:
    path = npy(tmp_path, GREY[..., None])
    dynamic, cut = data.load(path), data.load(path, binarise="threshold", threshold=0.2)
    assert (dynamic.dynamic, dynamic.shape, cut.dynamic) == (True, (4, 5), False)
    assert torch.equal(cut.train, (dynamic.train > 51).to(torch.uint8))
    assert "0.2" in cut.protocol
    floats = data.load(npy(tmp_path, GREY / 255))
    assert torch.equal(floats.train, dynamic.train)


def test_threshold_is_strict(tmp_path: Path) -> None:
    halves = np.full((20, 3), 0.5)
    halves[0] = 0.51
    assert data.load(npy(tmp_path, halves), binarise="threshold").train.sum() <= 3


def test_named_arrays_are_the_splits_and_labels_are_never_read(tmp_path: Path) -> None:
    labels = np.array([{}], dtype=object)
    np.savez(tmp_path / "own.npz", train=BITS[:20], valid=BITS[20:25], test=BITS[25:], labels=labels)
    loaded = data.load(str(tmp_path / "own.npz"))
    assert [x.tolist() for x in (loaded.train, loaded.valid, loaded.test)] == [
        BITS[:20].tolist(),
        BITS[20:25].tolist(),
        BITS[25:].tolist(),
    ]


def test_without_valid_the_last_of_train_is_held_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", train=BITS[:20], test=BITS[20:])
    loaded = data.load(str(tmp_path / "own.npz"))
    assert loaded.valid.tolist() == BITS[18:20].tolist()
    assert "valid the last 2 examples of train" in loaded.protocol


def test_dark_splits_share_the_scale_of_the_others(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", train=GREY, test=np.ones_like(GREY))
    assert data.load(str(tmp_path / "own.npz")).test.float().mean() < 0.1, "grey level 1 of 255 is nearly black"


def test_the_only_array_of_an_npz_may_have_any_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", votes=BITS)
    assert data.load(str(tmp_path / "own.npz")).pixels == 6


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "images.idx3-ubyte.gz"])
def test_idx_files(tmp_path: Path, name: str) -> None:
    raw = idx(GREY)
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    loaded = data.load(str(tmp_path / name))
    assert torch.equal(loaded.train, data.load(npy(tmp_path, GREY)).train)


@pytest.mark.parametrize("kind", ["png", "bmp", "webp", "gif"])
def test_folders_of_images(tmp_path: Path, kind: str) -> None:
    for number, image in enumerate(GREY):
        picture = Image.fromarray(image).convert("RGB" if kind != "gif" else "L")
        picture.save(tmp_path / f"{number:02}.{kind}", **({"lossless": True} if kind == "webp" else {}))
    (tmp_path / "notes.txt").write_text("not an image")
    loaded = data.load(str(tmp_path))
    assert (loaded.shape, loaded.dynamic, len(loaded.train)) == ((4, 5), True, 24)
    assert set(map(tuple, loaded.train.tolist())) <= set(map(tuple, GREY.reshape(30, -1).tolist()))


def test_folders_of_splits(tmp_path: Path) -> None:
    for split, count in {"train": 9, "valid": 2, "test": 3}.items():
        (tmp_path / split / "some class").mkdir(parents=True)
        for number in range(count):
            Image.fromarray(GREY[number] // 128 * 255).save(tmp_path / split / "some class" / f"{number}.png")
    loaded = data.load(str(tmp_path))
    assert (len(loaded.train), len(loaded.valid), len(loaded.test), loaded.dynamic) == (9, 2, 3, False)


@pytest.mark.parametrize("header", ["", "a,b,c,d,e,f\n", '\ufeff"first, bit",b,c,d,e,f\r\n'])
def test_tables_with_and_without_a_header(tmp_path: Path, header: str) -> None:
    rows = "\n".join(", ".join(map(str, row)) for row in BITS)
    (tmp_path / "votes.csv").write_text(header + rows + "\n\n", encoding="utf-8")
    assert data.load(str(tmp_path / "votes.csv")).digest() == data.load(npy(tmp_path, BITS)).digest()


def test_amat_files(tmp_path: Path) -> None:
    (tmp_path / "x.amat").write_text("\n".join(" ".join(map(str, row)) for row in BITS))
    assert data.load(str(tmp_path / "x.amat")).digest() == data.load(npy(tmp_path, BITS)).digest()


def test_own_data_never_take_a_public_name(tmp_path: Path) -> None:
    (tmp_path / "omniglot").mkdir()
    for number in range(10):
        Image.fromarray(GREY[number]).save(tmp_path / "omniglot" / f"{number}.png")
    assert data.load(str(tmp_path / "omniglot")).name == "own-omniglot"


# What is refused


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.where(GREY == 255, np.nan, GREY / 255), "holds NaN"),
        (GREY / 100, r"holds values from .* to .*, expected floats in \[0, 1\]"),
        (BITS.astype(np.int8) - 1, r"from -1 to 0, expected integers in 0..255"),
        (BITS.astype(np.int64) * 256, r"from 0 to 256, expected integers in 0..255"),
        (np.where(BITS > 0, np.inf, 0.0), r"to inf, expected floats"),
        (BITS.astype(np.complex128), "dtype complex128, expected bool, integers or floats"),
        (BITS.astype(str), "dtype <U3, expected bool, integers or floats"),
        (np.zeros((0, 5), np.uint8), "is empty"),
        (np.zeros((20, 0), np.uint8), "is empty"),
        (np.zeros(20, np.uint8), r"shape \(20,\), expected \(n, height, width\)"),
        (np.zeros((20, 4, 4, 3), np.uint8), r"shape \(20, 4, 4, 3\), expected"),
        (BITS[:9], "holds 9 examples, expected at least 10"),
    ],
)
def test_arrays_that_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        data.load(npy(tmp_path, array))
    assert str(tmp_path / "x.npy") in str(caught.value)


class Bomb:
    """Would leave a trace if anyone unpickled it."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path.touch, (Path("unpickled"),)  # type: ignore[return-value]


def test_objects_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bombs = np.array([Bomb()] * 20, dtype=object)
    np.savez("bomb.npz", train=bombs)
    np.save("bomb.npy", bombs)
    for name in ("bomb.npz", "bomb.npy"):
        with pytest.raises(InputError, match=f"{name}: expected a complete .* file of plain numbers"):
            data.load(name)
    assert not Path("unpickled").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train": GREY, "valid": GREY}, "holds the arrays train, valid, expected train, valid and test"),
        ({"x": GREY, "y": GREY}, "holds the arrays x, y, expected"),
        ({"train": GREY, "test": GREY[:, 1:]}, "splits differ in size"),
        ({"train": GREY[:1], "test": GREY}, "train holds 1 example, expected at least 2"),
        ({"train": GREY, "valid": GREY[:0], "test": GREY}, "valid is empty"),
        ({}, "holds the arrays none"),
    ],
)
def test_archives_that_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "own.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message) as caught:
        data.load(str(tmp_path / "own.npz"))
    assert "own.npz" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("x.csv", b"", "is empty, expected rows"),
        ("x.csv", b"a,b\n", "is empty, expected rows"),
        ("x.csv", b"a,b\n0,1\n1,0,1\n", "line 3 has 3 columns, expected 2"),
        ("x.csv", b"0,1\n1,2\n", "line 2 holds '2', expected only 0 and 1"),
        ("x.csv", b"0;1\n1;0\n", "holds 2 examples, expected at least 10"),
        ("x.csv", b"0,1\n1,\n", "line 2 holds ''"),
        ("x.csv", b"\xff\xfe0,1", "is no text in UTF-8, UTF-16 or Windows-1252"),
        ("x.csv", b'a,b\n"0,1\n', "expected a comma-separated table"),
        ("x.amat", b"", "is empty"),
        ("x.amat", b"0 1 0\n1 0 2\n", "line 2 is malformed"),
        ("x.amat", b"0 1 0\n1 0 1\n0 1", "line 3 has 3 characters, expected 5"),
        ("x.amat", b"0,1,0\n1,0,1\n", "line 1 is malformed"),
        ("x.amat", b"0 1 \n0 1 \n", "line 1 is malformed"),
        ("x.amat", b"\n\n", "line 1 is malformed"),
        ("x-idx", b"\0\0\x08", "expected an idx file"),
        ("x-idx", idx(GREY)[:-1], "holds 599 bytes of values, expected 600"),
        ("x-idx", idx(GREY) + b"\0", "holds 601 bytes"),
        ("x-idx", b"\0\0\x0d\x03" + idx(GREY)[4:], "idx file of unsigned bytes"),
        ("labels-idx1", idx(GREY.reshape(-1)), r"shape \(600,\), expected"),
        ("x-idx.gz", gzip.compress(idx(GREY))[:-20], "expected a complete gzip file"),
        ("x-idx.gz", idx(GREY), "expected a complete gzip file"),
        ("x.npy", b"", "expected a complete .npy file"),
        ("x.npy", b"hello", "expected a complete .npy file"),
        ("x.npz", b"PK\x03\x04 and no more", "expected a complete .npz file"),
        ("x.feather", b"", "is of an unknown kind, expected .npy"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, raw: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError, match=message) as caught:
        data.load(str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("save", [np.save, np.savez])
def test_truncated_arrays_are_refused(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / ("x.npy" if save is np.save else "x.npz")
    save(path, GREY)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="expected a complete"):
        data.load(str(path))


def save_images(folder: Path) -> None:
    for number, image in enumerate(GREY[:12]):
        Image.fromarray(image).save(folder / f"{number:02}.png")


def test_image_of_another_size_is_named(tmp_path: Path) -> None:
    save_images(tmp_path)
    Image.fromarray(GREY[0, 1:]).save(tmp_path / "07.png")
    with pytest.raises(InputError, match=r"07.png: is 3x5, expected 4x5"):
        data.load(str(tmp_path))


@pytest.mark.parametrize("keep", [0, 20, 60])
def test_truncated_image_is_named(tmp_path: Path, keep: int) -> None:
    save_images(tmp_path)
    (tmp_path / "05.png").write_bytes((tmp_path / "05.png").read_bytes()[:keep])
    with pytest.raises(InputError, match=r"05\.png: expected a complete image file"):
        data.load(str(tmp_path))


def test_deep_image_is_named(tmp_path: Path) -> None:
    save_images(tmp_path)
    Image.fromarray(GREY[0].astype(np.uint16) * 257).save(tmp_path / "03.png")
    with pytest.raises(InputError, match=r"03.png: has pixels of mode I.*, expected 8 bits"):
        data.load(str(tmp_path))


def test_folders_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images found, expected a folder of "):
        data.load(str(tmp_path))
    for split in ("train", "valid"):
        (tmp_path / split).mkdir()
    with pytest.raises(InputError, match="holds the folders train, valid, expected"):
        data.load(str(tmp_path))


@pytest.mark.parametrize(
    ("first", "header", "names"),
    [
        ("a,b c , d\n", "auto", ("a", "b c", "d")),
        ('\ufeff"x, y","",z\r\n', "auto", ("x, y", "", "z")),
        ("\n\na,NA,c\n", "auto", ("a", "NA", "c")),
        ("7,8,9\n", "present", ("7", "8", "9")),
        ("", "auto", None),
        ("", "absent", None),
    ],
)
def test_a_table_knows_the_names_of_its_columns(
    first: str, header: Any, names: tuple[str, ...] | None, tmp_path: Path
) -> None:
    rows = "".join(f"{i % 2},{i % 3 % 2},1\n" for i in range(20))
    (tmp_path / "named.csv").write_text(first + rows, encoding="utf-8")
    (tmp_path / "plain.csv").write_text(rows)
    named = data.load(str(tmp_path / "named.csv"), header=header)
    assert named.columns == names
    assert named.digest() == data.load(str(tmp_path / "plain.csv"), header="absent").digest()


def test_names_of_columns_are_one_for_each() -> None:
    x = torch.zeros(3, 4, dtype=torch.uint8)
    for shape, names in (((4,), ("a", "b", "c")), ((2, 2), ("a", "b", "c", "d"))):
        with pytest.raises(InputError, match=rf"'d' has {len(names)} names of columns for examples of shape"):
            data.Dataset("d", shape, x, x, x, dynamic=False, protocol="", columns=names)
