"""The Dataset, the public data sets by known facts about them, and names."""

import hashlib
import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dvaepp import data
from dvaepp.data import Dataset
from dvaepp.errors import InputError

REAL = Path(os.environ.get("DVAEPP_DATA", "/nowhere"))
needs_static = pytest.mark.skipif(not (REAL / "mnist_static").is_dir(), reason="no static MNIST below DVAEPP_DATA")
needs_mnist = pytest.mark.skipif(not (REAL / "mnist").is_dir(), reason="no MNIST below DVAEPP_DATA")
needs_lake = pytest.mark.skipif(
    not (REAL / "omniglot/omniglot28_from_lake.npz").is_file(), reason="no Lake OMNIGLOT below DVAEPP_DATA"
)
needs_caltech = pytest.mark.skipif(
    not (REAL / "caltech101_silhouettes").is_dir(), reason="no Caltech-101 silhouettes below DVAEPP_DATA"
)


def bits(rows: int, columns: int = 6) -> Tensor:
    return torch.randint(0, 2, (rows, columns), dtype=torch.uint8)


def small(train: Tensor | None = None, dynamic: bool = False, shape: tuple[int, ...] = (2, 3)) -> Dataset:
    train = bits(4) if train is None else train
    return Dataset("small", shape, train, torch.zeros_like(bits(2)), torch.ones_like(bits(3)), dynamic, "by hand")


def sizes(dataset: Dataset) -> tuple[int, int, int]:
    return len(dataset.train), len(dataset.valid), len(dataset.test)


# The Dataset


def test_static_batch_is_the_rows_asked_for() -> None:
    train = torch.tensor([[0, 0, 1], [1, 1, 1], [0, 1, 0]], dtype=torch.uint8)
    dataset = Dataset("three", (3,), train, train, train, False, "by hand")
    batch = dataset.batch(torch.tensor([2, 0, 2]))
    assert batch.dtype == torch.float32
    assert batch.tolist() == [[0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert dataset.pixels == 3
    assert dataset.mean.tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3])


def test_dynamic_batch_is_drawn_afresh_with_the_grey_as_probability() -> None:
    grey = torch.tensor([[0, 51, 102, 153, 204, 255]] * 4, dtype=torch.uint8)
    dataset = small(grey, dynamic=True)
    rows = torch.zeros(20000, dtype=torch.long)
    first, second = dataset.batch(rows), dataset.batch(rows)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)
    assert first.mean(0).tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1], abs=0.015)
    assert dataset.mean.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    torch.manual_seed(3)
    third = dataset.batch(rows)
    torch.manual_seed(3)
    assert torch.equal(dataset.batch(rows), third)


def test_digest_identifies_the_data() -> None:
    train = bits(4)
    same, reshaped = small(train.clone()), small(train, shape=(3, 2))
    changed = train.clone()
    changed[2, 3] ^= 1
    digests = [small(train).digest(), reshaped.digest(), small(changed).digest(), small(train[:3]).digest()]
    assert small(train).digest() == same.digest()
    assert len(set(digests)) == 4


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (bits(4).float(), r"train has dtype torch.float32, expected torch.uint8"),
        (bits(4, 5), r"train has shape \(4, 5\), expected \(n, 6\)"),
        (bits(4).reshape(4, 2, 3), r"expected \(n, 6\) for examples of shape \(2, 3\)"),
        (bits(0), r"train is empty"),
        (bits(4) + 1, r"train holds the value 2, expected values in 0..1"),
    ],
)
def test_dataset_refuses(train: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(train)


def test_dynamic_dataset_refuses_grey_outside_train() -> None:
    with pytest.raises(InputError, match="test holds the value 7"):
        Dataset("grey", (6,), bits(4), bits(2), torch.full((3, 6), 7, dtype=torch.uint8), True, "by hand")


def plain(kind: Any, train: Tensor, shape: tuple[int, ...] = (2, 3)) -> Dataset:
    return Dataset("plain", shape, train, train[:1], train[1:], False, "by hand", kind)


PLAIN = {
    "levels": torch.tensor([[0, 255, 7], [3, 255, 8]], dtype=torch.uint8),
    "real": torch.tensor([[-1.5, 1e9, 0.0], [0.5, 3e9, 1.0]]),
    "counts": torch.tensor([[0, 1000, 7], [2, 2**24, 8]], dtype=torch.int32),
    "categories": torch.tensor([[0, 1, 2], [2, 1, 4]], dtype=torch.int32),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_numbers_stay_as_they_are(kind: str) -> None:
    dataset = plain(kind, PLAIN[kind], (3,))
    batch = dataset.batch(torch.tensor([1, 0]))
    assert batch.dtype == torch.float32
    assert batch.tolist() == PLAIN[kind].flip(0).tolist()
    assert dataset.mean.tolist() == PLAIN[kind].double().mean(0).tolist()


@pytest.mark.parametrize("offset", [0.0, 1e3, 1.7e9, -1e30])
def test_mean_and_sd_of_columns_far_from_zero_are_numpys(offset: float) -> None:
    column = offset + max(1.0, abs(offset)) * 1e-4 * torch.randn(5000, 1, dtype=torch.float64)
    dataset = plain("real", column.float(), (1,))
    kept = dataset.train.double().numpy()
    assert float(dataset.mean) == pytest.approx(kept.mean(), rel=1e-7)
    assert float(dataset.sd) == pytest.approx(kept.std(), rel=1e-6)
    assert float(plain("real", torch.full((5000, 1), offset), (1,)).sd) == 1.0


def test_categories_are_counted_over_all_splits() -> None:
    train, test = PLAIN["categories"][:1], PLAIN["categories"][1:]
    assert Dataset("three", (3,), train, train, test, False, "by hand", "categories").categories == 5


def test_a_digest_is_that_of_its_kind_and_those_of_bits_are_old() -> None:
    digests = {plain(kind, PLAIN["counts"], (3,)).digest() for kind in ("counts", "categories")}
    bit = torch.tensor([[0, 1, 1], [1, 0, 1]], dtype=torch.uint8)
    digests |= {plain(kind, bit, (3,)).digest() for kind in ("bits", "levels")}
    assert len(digests) == 4
    # Checkpoints written before there were kinds hold this one.
    assert plain("bits", bit, (3,)).digest() == "a90eb2c9d40a8e21986022519005187f8bcc849b8b7d4f6f6305be8c9a80f176"


@pytest.mark.parametrize(
    ("kind", "train", "message"),
    [
        ("levels", PLAIN["counts"], "train has dtype torch.int32, expected torch.uint8"),
        ("real", PLAIN["real"].double(), "train has dtype torch.float64, expected torch.float32"),
        ("real", PLAIN["real"] / 0, "train holds a number that is not finite"),
        ("counts", PLAIN["counts"] - 1, "train holds the value -1, expected values in 0..16777216"),
        ("categories", PLAIN["counts"] + 1, "train holds the value 16777217, expected values in 0..16777216"),
    ],
)
def test_numbers_that_are_refused(kind: str, train: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plain(kind, train, (3,))


def test_an_unknown_kind_is_refused() -> None:
    dataset = plain("levels", PLAIN["levels"], (3,))
    object.__setattr__(dataset, "kind", "pixels")  # The checked constructor takes no such string.
    with pytest.raises(InputError, match="kind is 'pixels', expected one of bits, levels, real, counts, categories"):
        dataset.__post_init__()


def test_only_bits_are_dynamic() -> None:
    levels = PLAIN["levels"]
    with pytest.raises(InputError, match="kind is 'levels', expected bits of dynamic data"):
        Dataset("grey", (3,), levels, levels, levels, True, "by hand", "levels")


# Public data sets


def test_digits_come_with_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVAEPP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    digits = data.load("digits")
    assert (digits.shape, sizes(digits), digits.dynamic) == ((28, 28), (4000, 500, 500), True)
    assert 0.12 < digits.mean.mean() < 0.14
    assert [verdict for _, verdict in data.check("digits")] == ["ok"]
    assert data.load("digits").digest() == digits.digest()
    everything = torch.cat([digits.train > 127, digits.valid > 0, digits.test > 0]).float()
    assert (everything[:400].mean(0) - everything[4500:].mean(0)).abs().max() < 0.25, "still sorted by class"


@needs_mnist
def test_digits_are_images_of_mnist() -> None:
    mnist = {image.tobytes() for image in data.load("mnist-dynamic").train.numpy()}
    assert all(image.tobytes() in mnist for image in data.load("digits").train.numpy())


@needs_static
def test_static_mnist_is_larochelles() -> None:
    static = data.load("mnist-static")
    assert (static.shape, sizes(static), static.dynamic) == ((28, 28), (50000, 10000, 10000), False)
    packed = [
        hashlib.md5(np.packbits(x.numpy()).tobytes()).hexdigest() for x in (static.train, static.valid, static.test)
    ]
    assert packed == [
        "309a57a5f57edf7dfa1a0d2118daedf9",
        "98627b12c08410820c516e41a0e07017",
        "50aa7f0ccbdaba86f6a8aeabd1fecfed",
    ]
    assert static.mean.mean().item() == pytest.approx(0.13056, abs=1e-5)
    # The test file is sorted: its first 980 images are zeros, whose centre is empty; ones follow.
    centre = static.test.reshape(-1, 28, 28)[:, 13:15, 13:15].float().mean((1, 2))
    assert centre[:980].mean() < 0.05
    assert centre[980:2000].mean() > 0.8


@needs_mnist
def test_dynamic_mnist_holds_out_the_last_training_images() -> None:
    mnist = data.load("mnist-dynamic")
    assert (mnist.shape, sizes(mnist), mnist.dynamic) == ((28, 28), (50000, 10000, 10000), True)
    assert int(mnist.train.sum(dtype=torch.int64)) / mnist.train.numel() == pytest.approx(33.395, abs=0.01)
    assert mnist.test.float().mean().item() == pytest.approx(33.791 / 255, abs=2e-4)
    assert data.load("mnist-dynamic").digest() == mnist.digest()


@needs_lake
def test_omniglot_from_lake_is_another_data_set_than_omniglot() -> None:
    lake = data.load("omniglot-lake")
    assert (lake.name, sizes(lake), lake.dynamic) == ("omniglot-lake", (23000, 1345, 8070), True)
    assert "not comparable" in lake.protocol
    assert "not comparable" in data.describe("omniglot-lake")
    # Held out at random, valid looks like test; the file's last alphabets would not.
    assert (lake.valid.float().mean(0) - lake.test.float().mean(0)).abs().mean() < 0.01


@needs_lake
def test_omniglot_binarised_once_is_the_same_images_and_a_draw_of_them() -> None:
    lake, static = data.load("omniglot-lake"), data.load("omniglot-lake-static")
    assert (static.name, sizes(static), static.dynamic) == ("omniglot-lake-static", (23000, 1345, 8070), False)
    assert "not comparable" in static.protocol
    assert "not comparable" in data.describe("omniglot-lake-static")
    grey, bits = lake.train.double() / 255, static.train.double()
    assert bool((bits[grey == 1] == 1).all())
    assert bool((bits[grey == 0] == 0).all())
    inside = (grey > 0) & (grey < 1)  # the greys were rounded to 256 levels after the draw
    off = (bits - grey)[inside].sum() / (grey * (1 - grey))[inside].sum().sqrt()
    assert abs(float(off)) < 5
    assert static.digest() == data.load("omniglot-lake-static").digest()


@needs_caltech
def test_silhouettes_stand_upright_on_an_empty_background() -> None:
    pytest.importorskip("scipy", reason="reading .mat needs scipy")
    caltech = data.load("caltech101-silhouettes")
    assert (caltech.shape, sizes(caltech), caltech.dynamic) == ((28, 28), (4100, 2264, 2307), False)
    images = caltech.train.reshape(-1, 28, 28).float()
    assert images[:, 10:18, 10:18].mean() > 2 * images[:, [0, 0, 27, 27], [0, 27, 0, 27]].mean()
    # Photographed things are more alike left and right than above and below.
    assert (images - images.flip(2)).abs().mean() < 0.9 * (images - images.flip(1)).abs().mean()


# Names


def test_every_name_is_described_in_one_line() -> None:
    assert set(data.names()) >= {"digits", "mnist-static", "mnist-dynamic", "omniglot", "omniglot-lake"}
    for name in data.names():
        assert ("32x32" if name == "cifar10" else "28x28") in data.describe(name)
        assert "\n" not in data.describe(name)


@pytest.mark.parametrize("use", [data.load, data.describe, data.fetch, data.check])
def test_unknown_names_are_answered_by_the_nearest(use: object) -> None:
    assert callable(use)
    with pytest.raises(InputError, match="did you mean 'mnist-static'"):
        use("mnist_statik")


def test_a_missing_path_is_named() -> None:
    with pytest.raises(InputError, match=r"'/no/such/file.npy' is not a name or an existing path"):
        data.load("/no/such/file.npy")
    with pytest.raises(InputError, match="'' is not a name"):
        data.load("")


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match=r"threshold is 1.5, expected a number in \[0, 1\)"):
        data.load("digits", threshold=1.5)
    with pytest.raises(InputError, match="digits stands for a fixed protocol"):
        data.load("digits", binarise="threshold")
    with pytest.raises(InputError, match="binarise is 'maybe', expected one of auto, threshold, dynamic"):
        inspect.unwrap(data.load)("digits", binarise="maybe")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="kind is 'pixels', expected one of levels, real, counts, categories"):
        inspect.unwrap(data.load)("digits", kind="pixels")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="kind is 'real' but digits stands for a fixed protocol, expected levels"):
        data.load("digits", kind="real")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, r"threshold is 1.5, expected a number in \[0, 1\)"),
        ({"binarise": "maybe"}, "binarise is 'maybe', expected one of auto, threshold, dynamic"),
        ({"binarise": "none", "kind": "pixels"}, "kind is 'pixels', expected one of levels, real, counts, categories"),
        ({"kind": "real", "binarise": "dynamic"}, "kind is 'real' but binarise is 'dynamic', expected auto"),
    ],
)
def test_options_are_checked_where_examples_are_read(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    np.save(tmp_path / "x.npy", np.eye(12))
    with pytest.raises(InputError, match=message):
        inspect.unwrap(data.read_examples)(tmp_path / "x.npy", **options)
