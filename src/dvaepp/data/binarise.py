"""From arrays to data sets: the one seeded draw, threshold and order that every loader shares.

A grey array is uint8 with levels 0..255, or floating with values in [0, 1]. Seeds go to `numpy.random.RandomState`,
whose streams numpy promises to keep.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dvaepp.data.columns import Column
from dvaepp.data.dataset import Dataset
from dvaepp.data.kinds import Plain

Grey = NDArray[Any]
Bits = NDArray[np.uint8]
Splits = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
SEED = 1


def white(grey: Grey) -> int:
    """The value that stands for the probability one."""
    return 255 if grey.dtype == np.uint8 else 1


def drawn_bits(grey: Grey, seed: int = SEED) -> Bits:
    """x ~ Bernoulli(grey), one draw from RandomState(seed)."""
    uniform = np.random.RandomState(seed).random_sample(grey.shape)
    return (uniform * white(grey) < grey).astype(np.uint8)


def threshold_bits(grey: Grey, threshold: float) -> Bits:
    """x = 1[grey > threshold], with grey in [0, 1]."""
    return (grey > threshold * white(grey)).astype(np.uint8)


def levels(grey: Grey) -> Bits:
    """Grey levels 0..255, rounded to the nearest."""
    if grey.dtype == np.uint8:
        return grey
    return np.rint(np.multiply(grey, 255, dtype=np.float64)).astype(np.uint8)


def is_binary(grey: Grey) -> bool:
    """Whether nothing lies between black and white."""
    return bool(((grey == 0) | (grey == white(grey))).all())


def permuted(examples: Grey, seed: int = SEED) -> Grey:
    """The examples in the order of RandomState(seed).permutation."""
    return examples[np.random.RandomState(seed).permutation(len(examples))]


def columns_first(matrix: Grey) -> Grey:
    """(n, 28, 28) images from rows that list the pixels column by column."""
    return matrix.reshape(-1, 28, 28).transpose(0, 2, 1)


def as_rows(examples: NDArray[Any]) -> Tensor:
    """(n, ...) numpy values as an (n, pixels) tensor of their dtype that owns its memory."""
    return torch.from_numpy(np.array(examples, order="C").reshape(len(examples), -1))


def plain_dataset(
    name: str,
    splits: Splits,
    protocol: str,
    kind: Plain,
    columns: tuple[str, ...] | None = None,
    schema: tuple[Column, ...] | None = None,
) -> Dataset:
    """Train, valid and test (n, ...) as they are, in the dtype of their kind."""
    train, valid, test = map(as_rows, splits)
    return Dataset(name, splits[0].shape[1:], train, valid, test, False, protocol, kind, columns, schema)


def static_dataset(name: str, splits: Splits, protocol: str) -> Dataset:
    """Bits (n, ...) of train, valid and test as they are."""
    train, valid, test = (as_rows(x.astype(np.uint8)) for x in splits)
    return Dataset(name, splits[0].shape[1:], train, valid, test, dynamic=False, protocol=protocol)


def dynamic_dataset(name: str, splits: tuple[Grey, Grey, Grey], protocol: str) -> Dataset:
    """Grey (n, ...) train, valid and test: train drawn on every use, the others once, each with RandomState(SEED)."""
    train, valid, test = splits
    bits = as_rows(drawn_bits(valid)), as_rows(drawn_bits(test))
    how = f"{protocol}; train binarised on every draw, valid and test once, each with numpy RandomState({SEED})."
    return Dataset(name, train.shape[1:], as_rows(levels(train)), *bits, dynamic=True, protocol=how)
