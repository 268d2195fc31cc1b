"""Splits by the names that are in use: none is merged, dropped or guessed."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dvaepp import data
from dvaepp.errors import InputError

RANDOM = np.random.RandomState(7)
GREY = RANDOM.randint(0, 256, (20, 4, 5)).astype(np.uint8)
PARTS = {"train": slice(12), "valid": slice(12, 17), "test": slice(17, 20)}
OTHERS = [
    ("train", "val", "test"),
    ("train", "validation", "test"),
    ("train", "dev", "test"),
    ("training", "validation", "testing"),
    ("Train", "Valid", "Test"),
    ("TRAIN", "VAL", "TEST"),
    ("Training", "Dev", "Testing"),
]


def folders(path: Path, names: tuple[str, ...], below: str = ".") -> None:
    """The three parts of GREY below folders of these names."""
    for name, part in zip(names, PARTS.values(), strict=True):
        images(path / name / below, part)


def images(folder: Path, part: slice = slice(2)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(20)[part]:
        Image.fromarray(GREY[number]).save(folder / f"{number:02}.png")


def is_split(loaded: data.Dataset) -> bool:
    flat = GREY.reshape(20, -1)
    return all(np.array_equal(getattr(loaded, split).numpy(), flat[part]) for split, part in PARTS.items())


@pytest.mark.parametrize("below", [".", "cats"])
@pytest.mark.parametrize("names", [("train", "valid", "test"), *OTHERS])
def test_folders_of_splits_have_any_of_their_usual_names(tmp_path: Path, names: tuple[str, ...], below: str) -> None:
    folders(tmp_path, names, below)
    assert is_split(data.load(str(tmp_path), binarise="none"))


@pytest.mark.parametrize("prefix", ["", "x_", "X_"])
@pytest.mark.parametrize("names", [("train", "valid", "test"), *OTHERS])
def test_arrays_of_splits_have_any_of_their_usual_names(tmp_path: Path, names: tuple[str, ...], prefix: str) -> None:
    arrays = {prefix + name: GREY[part] for name, part in zip(names, PARTS.values(), strict=True)}
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    assert is_split(data.load(str(tmp_path / "x.npz"), binarise="none"))


def test_the_mnist_of_keras_is_read(tmp_path: Path) -> None:
    labels = {"y_train": np.arange(12), "y_test": np.arange(8)}
    np.savez(tmp_path / "mnist.npz", x_train=GREY[:12], x_test=GREY[12:], **labels)
    loaded = data.load(str(tmp_path / "mnist.npz"), binarise="none")
    assert (len(loaded.train), len(loaded.valid), len(loaded.test)) == (11, 1, 8)
    assert "valid the last 1 examples of train" in loaded.protocol


@pytest.mark.parametrize(
    "pair", [("val", "valid"), ("train", "Train"), ("TEST", "test"), ("dev", "validation"), ("train", "training")]
)
def test_two_names_for_one_split_are_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    for name in {"train", "test", *pair}:
        images(tmp_path / "pictures" / name, slice(10))
    np.savez(tmp_path / "x.npz", **dict.fromkeys({"train", "test", *pair}, GREY))  # type: ignore[arg-type]
    for what, where in (("folders", "pictures"), ("arrays", "x.npz")):
        both = f"{where}: holds the {what} {' and '.join(sorted(pair))}, expected one of them"
        with pytest.raises(InputError, match=both):
            data.load(str(tmp_path / where))
        with pytest.raises(InputError, match=both):
            data.read_examples(tmp_path / where)


def test_train_and_valid_alone_are_refused_by_their_own_names(tmp_path: Path) -> None:
    for name in ("Train", "val"):
        images(tmp_path / "pictures" / name, slice(12))
    np.savez(tmp_path / "x.npz", Train=GREY, val=GREY)
    with pytest.raises(InputError, match="holds the folders Train, val, expected train, valid and test, or train and"):
        data.load(str(tmp_path / "pictures"))
    with pytest.raises(InputError, match="holds the arrays Train, val, expected train, valid and test, or train and"):
        data.load(str(tmp_path / "x.npz"))


# What stands beside the splits


@pytest.mark.parametrize("splits", [("train",), ("train", "test"), ("Train", "val", "test")])
@pytest.mark.parametrize("other", ["holdout", "extra/cats", "test2", "train_old", "unlabelled", "tset"])
def test_a_folder_of_images_beside_train_is_refused(tmp_path: Path, splits: tuple[str, ...], other: str) -> None:
    for name in (*splits, other):
        images(tmp_path / name, slice(12))
    expected = rf"holds images in {other.split('/')[0]} beside {splits[0]}, expected .*valid \(or val"
    with pytest.raises(InputError, match=expected):
        data.load(str(tmp_path))
    with pytest.raises(InputError, match=expected):
        data.read_examples(tmp_path)


@pytest.mark.parametrize("splits", [("train",), ("train", "test")])
def test_an_image_beside_train_is_refused(tmp_path: Path, splits: tuple[str, ...]) -> None:
    for name in splits:
        images(tmp_path / name, slice(12))
    images(tmp_path, slice(1))
    with pytest.raises(InputError, match=r"holds images in 00.png beside train, expected"):
        data.load(str(tmp_path))


@pytest.mark.parametrize("splits", [("train",), ("train", "test")])
def test_folders_without_images_may_stand_beside_train(tmp_path: Path, splits: tuple[str, ...]) -> None:
    for name in splits:
        images(tmp_path / name, slice(12))
    for other in ("docs", "empty/inside", "labels"):
        (tmp_path / other).mkdir(parents=True)
    (tmp_path / "labels" / "train.txt").write_text("0\n")
    (tmp_path / "README").write_text("about")
    assert len(data.read_examples(tmp_path)[0]) == 12 * len(splits)


@pytest.mark.parametrize("hidden", [".git", "__MACOSX", ".val"])
def test_hidden_folders_may_stand_beside_train(tmp_path: Path, hidden: str) -> None:
    for name in ("train", hidden):
        images(tmp_path / name, slice(12))
    assert len(data.read_examples(tmp_path)[0]) == 12


def test_folders_of_classes_are_one_pool(tmp_path: Path) -> None:
    for name in ("cat", "dog", "trainers", "Tests"):
        images(tmp_path / name, slice(12))
    assert len(data.load(str(tmp_path)).train) == 48 - 2 * 4
    for name in ("cat", "dog"):
        images(tmp_path / "own" / "train" / name, slice(12))
    assert len(data.load(str(tmp_path / "own")).train) == 24 - 2 * 2


@pytest.mark.parametrize(
    "names",
    [
        ("data/train", "data/test"),
        ("mnist/train", "mnist/val", "mnist/test"),
        ("cat/train", "cat/test", "dog/train", "dog/test"),
        ("train_set", "test_set"),
        ("training_data/cat", "testing_data/cat"),
        ("train-images", "other"),
        ("a/b/c/Dev set", "a/b/d"),
        ("x_train_1", "x_train_2"),
        ("cat", "val 2"),
        ("cat/validation",),
    ],
)
def test_splits_deeper_down_or_by_longer_names_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        images(tmp_path / name, slice(12))
    said = (
        rf"{tmp_path.name}: holds images in (.*), which may be a split, expected the folders train, valid and test, or"
    )
    for read in (data.load, data.read_examples):
        with pytest.raises(InputError, match=said) as caught:
            inspect.unwrap(read)(tmp_path if read is data.read_examples else str(tmp_path))  # type: ignore[operator]
        found = re.search(said, str(caught.value))
        assert found is not None
        assert any(f"{name}/".startswith(f"{found[1]}/") for name in names)
    (tmp_path / "train").mkdir()
    for name in names:
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).rename(tmp_path / "train" / name)
    assert len(data.read_examples(tmp_path)[0]) == 12 * len(names)


def test_names_of_splits_are_no_matter_inside_one_above_or_without_images(tmp_path: Path) -> None:
    top = tmp_path / "train" / "test_data"
    for name in ("train/test_tube", "train/val", "test/train"):
        images(top / name, slice(12))
    assert len(data.read_examples(top)[0]) == 36
    other = tmp_path / "val" / "pool"
    for name in ("cat", ".test/a", "@eaDir/train", "devices", "valley"):
        images(other / name, slice(12))
    (other / "train_labels").mkdir()
    (other / "train_labels" / "a.txt").write_text("0\n")
    assert len(data.read_examples(other)[0]) == 36


@pytest.mark.parametrize("train", [(36,), (6, 6), (6, 6, 1), (1, 6, 6), (4, 9), (12, 3), (3, 2, 2, 3)])
@pytest.mark.parametrize("other", [(36,), (6, 6), (6, 6, 1), (1, 6, 6), (9, 4), (3, 12), (2, 2, 3, 3)])
def test_an_array_beside_train_in_another_layout_is_refused(
    tmp_path: Path, train: tuple[int, ...], other: tuple[int, ...]
) -> None:
    np.savez(tmp_path / "x.npz", train=np.zeros((40, *train)), test=np.zeros((9, *train)), extra=np.zeros((6, *other)))
    with pytest.raises(InputError, match="x.npz: holds examples in extra beside train, expected"):
        data.read_examples(tmp_path / "x.npz")


def test_arrays_of_other_numbers_of_values_may_stand_beside_train(tmp_path: Path) -> None:
    others = {"ids": np.zeros(40), "boxes": np.zeros((40, 4)), "mean": np.zeros((6, 6)), "masks": np.zeros((40, 6, 7))}
    np.savez(tmp_path / "x.npz", train=np.zeros((40, 6, 6)), test=np.zeros((9, 6, 6)), **others)  # type: ignore[arg-type]
    assert len(data.read_examples(tmp_path / "x.npz")[0]) == 49
    np.savez(tmp_path / "x.npz", train=np.zeros((40, 1)), test=np.zeros((9, 1)), ids=np.zeros(40))
    assert len(data.read_examples(tmp_path / "x.npz")[0]) == 49


@pytest.mark.parametrize("other", ["extra", "holdout", "test2", "x_unlabelled"])
@pytest.mark.parametrize("splits", [("train",), ("train", "test"), ("train", "valid", "test")])
@pytest.mark.parametrize("form", ["images", "table", "floats"])
def test_an_array_that_could_be_examples_is_refused(
    tmp_path: Path, other: str, splits: tuple[str, ...], form: str
) -> None:
    examples = {"images": GREY, "table": GREY.reshape(20, -1), "floats": GREY / 255}[form]
    np.savez(tmp_path / "x.npz", **{other: examples[:3]}, **dict.fromkeys(splits, examples))  # type: ignore[arg-type]
    expected = rf"x.npz: holds examples in {other} beside train, expected .*valid \(or val"
    with pytest.raises(InputError, match=expected):
        data.load(str(tmp_path / "x.npz"))
    with pytest.raises(InputError, match=expected):
        data.read_examples(tmp_path / "x.npz")


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "valid", "test")])
def test_labels_beside_the_splits_are_not_read(tmp_path: Path, splits: tuple[str, ...]) -> None:
    table = GREY.reshape(20, -1) % 2
    others = {
        "labels": np.arange(20),
        "train_labels": np.eye(20),
        "y_train": table,
        "test_targets": table,
        "names": np.array(["a", "b"]),
        "objects": np.array([{}, None], dtype=object),
        "records": np.zeros(20, [("ä", "u1")]),
        "scale": np.array(1.0),
        "image": GREY[0],
    }
    np.savez(tmp_path / "x.npz", **others, **dict.fromkeys(splits, table))  # type: ignore[arg-type]
    assert len(data.read_examples(tmp_path / "x.npz")[0]) == 20 * len(splits)


def test_train_alone_beside_labels_is_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x_train=GREY, y_train=np.arange(20))
    loaded = data.load(str(tmp_path / "x.npz"), binarise="none")
    assert (len(loaded.train), len(loaded.valid), len(loaded.test)) == (16, 2, 2)
