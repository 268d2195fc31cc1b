"""Data that a program holds: what becomes of numpy, torch, pandas and scipy arrays, and what is refused."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import scipy.sparse
import torch

from dvaepp import data
from dvaepp.errors import InputError

RANDOM = np.random.RandomState(3)
BITS = RANDOM.randint(0, 2, (30, 6)).astype(np.uint8)
GREY = RANDOM.randint(0, 256, (30, 4, 5)).astype(np.uint8)
REAL = RANDOM.normal(size=(30, 3))
from_arrays: Any = inspect.unwrap(data.from_arrays)


@pytest.mark.parametrize(
    "same",
    [
        BITS,
        BITS.tolist(),
        BITS.astype(bool),
        torch.from_numpy(BITS),
        torch.from_numpy(BITS).bfloat16().requires_grad_(),
        pandas.DataFrame(BITS),
        pandas.DataFrame(BITS, dtype="boolean"),
        pandas.DataFrame(BITS > 0),
        scipy.sparse.csr_array(BITS),
    ],
    ids=lambda given: type(given).__name__,
)
def test_bits_are_those_of_a_file_whatever_holds_them(same: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", BITS)
    assert data.from_arrays(same).digest() == data.load(tmp_path / "x.npy").digest()


@pytest.mark.parametrize("kind", ["levels", "bits", None])
def test_grey_becomes_bits_or_stays(kind: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", train=GREY[:20], test=GREY[20:])
    found = data.from_arrays(GREY[:20], test=GREY[20:], kind=kind)
    binarise: Any = "none" if kind == "levels" else "auto"
    assert found.digest() == data.load(tmp_path / "x.npz", binarise=binarise).digest()
    assert (found.dynamic, found.kind) == ((False, "levels") if kind == "levels" else (True, "bits"))
    cut = data.from_arrays(GREY, binarise="threshold", threshold=0.2)
    assert torch.equal(cut.train, (data.from_arrays(GREY).train > 51).to(torch.uint8))


def test_a_table_keeps_its_names_and_all_its_numbers() -> None:
    table = pandas.DataFrame({"height": REAL[:, 0], "count": np.arange(30), "odd": np.arange(30) % 2 > 0})
    found = data.from_arrays(table, kind="real")
    assert found.columns == ("height", "count", "odd")
    every = torch.cat([found.train, found.valid, found.test])
    assert sorted(every[:, 1].tolist()) == list(range(30))
    assert torch.equal(every[:, 2], every[:, 1] % 2)


def test_labels_go_with_their_examples() -> None:
    names = np.array(["ant", "bee", "cat"])[BITS[:, 0] + BITS[:, 1]]
    found = data.from_arrays(BITS, labels=names)
    assert found.labels is not None
    assert found.labels.classes == ("ant", "bee", "cat")
    for split in ("train", "valid", "test"):
        x, labels = getattr(found, split), getattr(found.labels, split)
        assert torch.equal(labels, (x[:, 0] + x[:, 1]).long())
    assert found.digest() == data.from_arrays(BITS).digest()


def test_labels_of_each_split_are_of_one_set_of_classes() -> None:
    found = data.from_arrays(BITS[:20], test=BITS[20:], labels={"train": [5] * 10 + [7] * 10, "test": [7] * 10})
    assert found.labels is not None
    assert found.labels.classes == ("5", "7")
    assert [found.labels.train.sum(), found.labels.valid.sum(), found.labels.test.sum()] == [8, 2, 10]


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (REAL, {}, r"^train holds values from -.* expected floats in \[0, 1\].*kind.*model.likelihood=normal"),
        (REAL, {"kind": "reals"}, "^kind is 'reals', expected one of bits, levels, real, counts, categories"),
        (
            REAL,
            {"kind": "real", "binarise": "dynamic"},
            "^binarise is 'dynamic' but kind is 'real', expected kind bits",
        ),
        (BITS, {"binarise": "none"}, "^binarise is 'none', expected auto, threshold or dynamic: kind says what stays"),
        (BITS, {"binarise": "some"}, "^binarise is 'some', expected one of auto"),
        (BITS, {"valid": BITS}, "^valid is given without test, expected train alone"),
        (BITS, {"test": BITS[:, :3]}, r"^arrays: its splits differ in size \(train \(6,\), test \(3,\)\)"),
        (BITS, {"test": np.full((3, 6), np.nan)}, "^test holds NaN, expected a number for every pixel"),
        (BITS, {"labels": [1, 2]}, r"^labels of train have shape \(2,\), expected one for each of its 30 examples"),
        (BITS, {"labels": {"test": [1]}}, "^labels are of test, expected those of train, by its name each"),
        (BITS, {"test": BITS, "labels": [1] * 30}, "^labels are of train, expected those of train and test"),
        (BITS[:3], {}, "^arrays: holds 3 examples, expected at least 10"),
        ([[0, 1], [1]], {}, "^train is no array, expected numbers"),
        ("bits.npy", {}, r"^train has (dtype|shape)"),
        ({"train": BITS}, {}, "^train has dtype object, expected bool, integers or floats"),
        (
            pandas.DataFrame({"a": ["x"] * 20, "b": [0] * 20}),
            {},
            "^train: column 'a' holds .*, expected numbers: leave",
        ),
        (pandas.DataFrame({"a": [0, None] * 10}), {}, "^train holds NaN, expected a number"),
        (pandas.DataFrame({"a": [0.5, None] * 10}), {"kind": "real"}, "^train holds nan, expected finite"),
        (pandas.DataFrame(BITS), {"test": pandas.DataFrame(BITS, columns=list("abcdef"))}, "differ in the names"),
    ],
)
def test_what_is_no_data_is_refused(given: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_arrays(given, **options)


@pytest.mark.parametrize(("x", "y"), [("x", "y"), ("images", "labels"), ("data", "target")])
def test_labels_beside_the_only_array_of_a_file(x: str, y: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{x: BITS, y: BITS[:, 0]})
    found = data.load(tmp_path / "x.npz")
    assert found.labels is not None
    assert torch.equal(found.labels.test, found.test[:, 0].long())
    assert found.digest() == data.from_arrays(BITS).digest()


@pytest.mark.parametrize("named", ["y_{}", "{}_labels", "labels_{}"])
def test_labels_of_splits_in_a_file(named: str, tmp_path: Path) -> None:
    labels = {named.format(split): x[:, 0] for split, x in (("train", BITS[:20]), ("test", BITS[20:]))}
    np.savez(tmp_path / "x.npz", train=BITS[:20], test=BITS[20:], **labels)
    found = data.load(tmp_path / "x.npz")
    assert found.labels is not None
    assert torch.equal(found.labels.valid, found.valid[:, 0].long())
    np.savez(tmp_path / "x.npz", train=BITS[:20], test=BITS[20:], **{named.format("test"): [1]})
    with pytest.raises(InputError, match="holds 1 of test labels, expected one for each example, 20 of train and 10"):
        data.load(tmp_path / "x.npz")


def test_names_of_classes_and_columns_in_a_file(tmp_path: Path) -> None:
    names = np.array(list("abcdef"))
    np.savez(tmp_path / "x.npz", x=BITS, labels=BITS[:, 0], classes=np.array(["no", "yes"]), columns=names)
    found = data.load(tmp_path / "x.npz")
    assert found.labels is not None
    assert (found.labels.classes, found.columns) == (("no", "yes"), tuple("abcdef"))
    np.savez(tmp_path / "x.npz", x=BITS, columns=names[:3])
    assert data.load(tmp_path / "x.npz").columns is None


def test_what_a_masked_array_hides_is_missing() -> None:
    with pytest.raises(InputError, match="train holds NaN"):
        data.from_arrays(np.ma.array(BITS, mask=BITS == 1))
    assert data.from_arrays(np.ma.array(BITS)).digest() == data.from_arrays(BITS).digest()
    assert data.from_arrays(torch.from_numpy(BITS).to_sparse()).digest() == data.from_arrays(BITS).digest()
