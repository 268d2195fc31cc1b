"""The user's own numbers as they are: levels in grey and colour, real numbers, counts and categories."""

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
COLOUR = RANDOM.randint(0, 256, (30, 4, 5, 3)).astype(np.uint8)
TABLES: dict[str, np.ndarray] = {
    "real": RANDOM.standard_normal((30, 6)).astype(np.float32),
    "counts": RANDOM.poisson(300, (30, 6)),
    "categories": RANDOM.randint(0, 4, (30, 6)),
}


def npy(path: Path, array: ArrayLike) -> str:
    np.save(path / "x.npy", array)
    return str(path / "x.npy")


def sorted_rows(*tensors: torch.Tensor) -> list[list[float]]:
    return sorted(torch.cat(tensors).tolist())


@pytest.mark.parametrize("images", [GREY, GREY[..., None], COLOUR, GREY.astype(np.int64)])
def test_levels_are_kept(tmp_path: Path, images: np.ndarray) -> None:
    loaded = data.load(npy(tmp_path, images), binarise="none")
    assert (loaded.kind, loaded.dynamic) == ("levels", False)
    assert loaded.shape == images.shape[1:] if images is COLOUR else (4, 5)
    assert loaded.train.dtype == torch.uint8
    assert sorted_rows(loaded.train, loaded.valid, loaded.test) == sorted(images.reshape(30, -1).tolist())
    assert "8-bit levels as they are, split 80/10/10" in loaded.protocol
    examples, shape = data.read_examples(tmp_path / "x.npy", "none")
    assert (examples.tolist(), shape) == (images.reshape(30, -1).tolist(), loaded.shape)


def test_dark_levels_are_not_bits(tmp_path: Path) -> None:
    assert data.load(npy(tmp_path, GREY % 2), binarise="none").train.max() == 1


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("form", ["npy", "csv", "npz"])
def test_tables_of_numbers(tmp_path: Path, kind: Any, form: str) -> None:
    table = TABLES[kind]
    path = tmp_path / f"x.{form}"
    if form == "csv":
        path.write_text("a,b,c,d,e,f\n" + "\n".join(", ".join(map(str, row)) for row in table.tolist()))
    elif form == "npz":
        np.savez(path, table=table.astype(np.float64))
    else:
        np.save(path, table)
    loaded = data.load(str(path), binarise="none", kind=kind)
    assert (loaded.kind, loaded.shape) == (kind, (6,))
    assert sorted_rows(loaded.train, loaded.valid, loaded.test) == sorted(table.tolist())
    assert loaded.digest() == data.load(npy(tmp_path, table), binarise="none", kind=kind).digest() or form == "npz"
    assert data.read_examples(path, "none", kind=kind)[0].tolist() == table.tolist()


@pytest.mark.parametrize("split", [False, True])
def test_folders_keep_colour_where_some_image_has_it(tmp_path: Path, split: bool) -> None:
    for number, image in enumerate(COLOUR):
        folder = tmp_path / (("train" if number < 20 else "test") if split else "all")
        folder.mkdir(exist_ok=True)
        grey = number < 25
        Image.fromarray(image[..., 0] if grey else image).save(folder / f"{number:02}.png")
    expected = COLOUR.copy()
    expected[:25] = COLOUR[:25, ..., :1]
    loaded = data.load(str(tmp_path), binarise="none")
    assert (loaded.shape, loaded.kind) == ((4, 5, 3), "levels")
    assert sorted_rows(loaded.train, loaded.valid, loaded.test) == sorted(expected.reshape(30, -1).tolist())
    assert data.load(str(tmp_path)).shape == (4, 5), "bits are drawn from grey"


def test_folders_of_grey_images_stay_grey(tmp_path: Path) -> None:
    for number, image in enumerate(GREY[:12]):
        Image.fromarray(image).save(tmp_path / f"{number:02}.png")
    loaded = data.load(str(tmp_path), binarise="none")
    assert loaded.shape == (4, 5)
    assert sorted_rows(loaded.train, loaded.valid, loaded.test) == sorted(GREY[:12].reshape(12, -1).tolist())


def test_colour_images_of_another_size_are_named(tmp_path: Path) -> None:
    for number in range(12):
        Image.fromarray(COLOUR[number, number // 11 :]).save(tmp_path / f"{number:02}.png")
    with pytest.raises(InputError, match=r"11.png: is 3x5, expected 4x5 \(height x width\) as 00.png"):
        data.load(str(tmp_path), binarise="none")


@pytest.mark.parametrize(
    ("kind", "array", "message"),
    [
        ("levels", GREY / 255, "dtype float64, expected integers in 0..255"),
        ("levels", BITS, r"shape \(30, 6\), expected images"),
        ("levels", COLOUR[..., :2], r"shape \(30, 4, 5, 2\), expected images"),
        ("levels", GREY.astype(np.int64) + 1, "holds 256, expected levels: whole numbers in 0..255"),
        ("levels", GREY[:0], "is empty"),
        ("real", np.where(BITS > 0, np.nan, 0.5), "holds nan, expected finite numbers of single precision"),
        ("real", BITS * 1e39, r"holds 1e\+39, expected finite numbers of single precision"),
        ("real", BITS.astype(str), "dtype <U3, expected bool, integers or floats"),
        ("real", COLOUR, r"shape \(30, 4, 5, 3\), expected \(n, columns\)"),
        ("counts", BITS * 0.5, "holds 0.5, expected counts: whole numbers in 0..16777216"),
        ("counts", np.where(BITS > 0, np.inf, 0.0), "holds inf, expected counts"),
        ("categories", np.where(BITS > 0, np.nan, 0.0), "holds nan, expected categories"),
        ("counts", BITS.astype(int) - 1, "holds -1, expected counts"),
        ("categories", BITS * 2.0**25, "holds 33554432.0, expected categories"),
        ("real", BITS[:9], "holds 9 examples, expected at least 10"),
    ],
)
def test_arrays_that_are_not_of_their_kind(tmp_path: Path, kind: Any, array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        data.load(npy(tmp_path, array), binarise="none", kind=kind)
    assert str(tmp_path / "x.npy") in str(caught.value)


def timestamps(spread: float, dtype: Any = np.float64, rows: int = 40) -> np.ndarray:
    """A column around 1.7e9, where single precision has steps of 128, between two others."""
    column = 1.7e9 + spread * RANDOM.uniform(-1, 1, rows)
    return np.stack([RANDOM.standard_normal(rows), column, np.ones(rows)], 1).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
@pytest.mark.parametrize("spread", [10.0, 100.0, 1000.0])
def test_columns_that_single_precision_does_not_resolve_are_refused(tmp_path: Path, spread: float, dtype: Any) -> None:
    path = npy(tmp_path, timestamps(spread, dtype))
    with pytest.raises(InputError, match=r"x\.npy.* column 2 .* single precision .* subtract its mean"):
        data.load(path, binarise="none", kind="real")
    np.savez(tmp_path / "x.npz", train=timestamps(spread, dtype), test=timestamps(1e6, dtype))
    with pytest.raises(InputError, match=r"x\.npz: train.* column 2 "):
        data.load(str(tmp_path / "x.npz"), binarise="none", kind="real")


def test_columns_that_single_precision_resolves_are_taken(tmp_path: Path) -> None:
    exact = np.stack([np.arange(2**24 - 40, 2**24), np.full(40, 1.7e9 + 1), np.full(40, 0.1)], 1)
    for array in (timestamps(1e5), timestamps(1e5, np.int64), timestamps(1e3, np.float32), exact):
        loaded = data.load(npy(tmp_path, array), binarise="none", kind="real")
        together = torch.cat([loaded.train, loaded.valid, loaded.test])
        assert sorted(together.flatten().tolist()) == sorted(array.astype(np.float32).flatten().tolist())


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1e-38, 1e-39, 1e-44])
@pytest.mark.parametrize("column", [0, 4])
def test_columns_that_vary_too_little_for_single_precision_are_refused_in_training(
    tmp_path: Path, dtype: Any, scale: float, column: int
) -> None:
    table = TABLES["real"].astype(np.float64)
    table[:, column] *= scale
    path = npy(tmp_path, table.astype(dtype))
    with pytest.raises(InputError, match=rf"x\.npy.* column {column + 1} has an sd of .*, expected at least 1e-37"):
        data.load(path, binarise="none", kind="real")
    assert len(data.read_examples(Path(path), "none", kind="real")[0]) == 30


def test_columns_that_vanish_in_double_precision_are_refused_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"column 1 has an sd of "):
        data.load(npy(tmp_path, TABLES["real"].astype(np.float64) * 1e-200), binarise="none", kind="real")


def test_small_columns_and_constants_of_any_size_are_taken(tmp_path: Path) -> None:
    table = TABLES["real"].astype(np.float64) * 1e-36
    table[:, 1], table[:, 2] = 1e-39, 0
    for array in (table, table.astype(np.float32), BITS > 0, BITS.astype(np.float16)):
        assert len(data.load(npy(tmp_path, array), binarise="none", kind="real").train) == 24


def test_a_few_rows_close_together_can_be_encoded_and_tested(tmp_path: Path) -> None:
    few = timestamps(10.0, rows=20)
    assert data.read_examples(Path(npy(tmp_path, few)), "none", kind="real")[0].shape == (20, 3)
    np.savez(tmp_path / "x.npz", train=timestamps(1e6), test=few)
    assert len(data.load(str(tmp_path / "x.npz"), binarise="none", kind="real").test) == 20


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("a,b\n", "is empty, expected rows of numbers separated by commas"),
        ("1.5,2\n3,four\n", "line 2 holds 'four', expected finite numbers"),
        ("1.5,2\n3,\n", "line 2 holds '', expected finite numbers"),
        ("1.5,2\n3,nan\n", "line 2 holds 'nan', expected finite numbers"),
        ("1.5,2\n3\n", "line 2 has 1 columns, expected 2"),
    ],
)
def test_tables_of_numbers_that_are_refused(tmp_path: Path, raw: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(raw)
    with pytest.raises(InputError, match=message):
        data.load(str(tmp_path / "x.csv"), binarise="none", kind="real")


def test_colour_says_how_it_can_be_kept(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected .*; with binarise=none, .*, also colour, \(n, height, width, 3\)"):
        data.load(npy(tmp_path, COLOUR))
