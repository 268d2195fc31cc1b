"""Arrays by split become a `Dataset`: checked, split, binarised, with labels beside them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import torch

from dvaepp.data import tables
from dvaepp.data.binarise import (
    Grey,
    drawn_bits,
    dynamic_dataset,
    is_binary,
    plain_dataset,
    static_dataset,
    threshold_bits,
)
from dvaepp.data.columns import Column
from dvaepp.data.dataset import Dataset, Labels
from dvaepp.data.given import as_array, as_frame, column_names
from dvaepp.data.kinds import Kind, Plain, check_resolved, plain
from dvaepp.data.reading import Binarise, Missing, Reading
from dvaepp.data.splits import Parts, divided, taken
from dvaepp.errors import InputError

Arrays = dict[str, Grey]
"""Examples (n, ...) by split; all under the empty name where they are still to be split."""
_FEWEST = 10
_PRINTED = {
    "levels": "8-bit levels",
    "real": "real numbers",
    "counts": "counts",
    "categories": "categories",
    "mixed": "columns of several kinds",
}


def from_arrays(
    train: Any,
    valid: Any = None,
    test: Any = None,
    kind: Kind | None = None,
    labels: Any = None,
    *,
    binarise: Binarise = "auto",
    threshold: float = 0.5,
    kinds: Mapping[str, str] | None = None,
    missing: Missing = "refuse",
    name: str = "arrays",
) -> Dataset:
    """Examples (n, ...) of numpy, torch, pandas or scipy.sparse, or nested lists, as data to train on.

    Images are (n, height, width), in colour with three channels last or, as in torch, second; tables (n, columns), and
    a pandas table's columns keep their names. Without `test` all is split 80/10/10 in a fixed random order; with it and
    without `valid`, that is the last tenth of train. `kind` says what the numbers are: "bits", the default, takes 0 and
    1, or grey (integers in 0..255, floats in [0, 1]) that `binarise` makes bits of, as `load` does; "levels" of images,
    "real" numbers, "counts" and "categories" 0, 1, .. stay as they are. "mixed" takes pandas tables of columns of
    several kinds, each as `kinds` says ({"age": "real", ..}) or as its values do (`cells.columns_of`); values that
    are `missing` are refused, or rows or columns with them dropped, or they are a category. `labels`, one for each
    example of train, or those of each split by its name, are kept as `Dataset.labels`; no model sees them.

    InputError for everything that is not as expected, naming the array.

    >>> x = np.random.RandomState(0).normal(size=(50, 3))
    >>> found = from_arrays(x, kind="real", labels=["odd", "even"] * 25)
    >>> len(found.train), len(found.valid), len(found.test), found.labels.classes
    (40, 5, 5, ('even', 'odd'))
    >>> found.protocol
    'arrays: real numbers as they are, split 80/10/10 after numpy RandomState(1).permutation.'
    """
    if kind not in (None, "bits", *get_args(Plain)):
        raise InputError(f"kind is {kind!r}, expected one of bits, {', '.join(get_args(Plain))}")
    if kind not in (None, "bits") and binarise != "auto":
        raise InputError(f"binarise is {binarise!r} but kind is {kind!r}, expected kind bits: it makes bits of grey")
    if binarise == "none":
        raise InputError("binarise is 'none', expected auto, threshold or dynamic: kind says what stays as it is")
    plain = kind not in (None, "bits")
    if kinds is not None and not isinstance(kinds, Mapping):
        raise InputError(f"kinds must map names of columns to what they hold, not {kinds!r}")
    reading = Reading(
        "none" if plain else binarise, threshold, str(kind) if plain else "levels", kinds=kinds or {}, missing=missing
    )
    if missing != "refuse" and kind != "mixed":
        raise InputError(f"missing is {missing!r} but kind is {kind!r}, expected kind mixed: leave such rows out")
    given = {k: x for k, x in {"train": train, "valid": valid, "test": test}.items() if x is not None}
    if given.keys() == {"train", "valid"}:
        raise InputError("valid is given without test, expected train alone, train and test, or all three")
    if not isinstance(labels, Mapping):
        labels = {} if labels is None else {"train": labels}
    if kind == "mixed":
        return _of_tables(given, labels, reading, name)
    columns = {split: column_names(x) for split, x in given.items()}
    if len(set(columns.values())) > 1:
        raise InputError("train, valid and test differ in the names of their columns, expected the same in one order")
    arrays = {split: as_array(x, split) for split, x in given.items()}
    alone = {"train": ""} if len(arrays) == 1 else {}
    return dataset_of(
        {alone.get(split, split): array for split, array in arrays.items()},
        name=name,
        source=name,
        where={alone.get(split, split): split for split in arrays},
        reading=reading,
        labels={alone.get(split, split): as_array(each, f"labels of {split}") for split, each in labels.items()},
        columns=columns["train"],
    )


def _of_tables(given: Mapping[str, Any], labels: Mapping[str, Any], reading: Reading, name: str) -> Dataset:
    """Pandas tables of columns of several kinds by split, what these are being found in train."""
    found: dict[str, tables.Table] = {}
    for split, table in given.items():
        found[split] = tables.of_frame(as_frame(table, split), reading, split, training=True)
        reading = replace(reading, known=found["train"].schema, names=found["train"].columns)
    tables.refuse_index(found["train"].values, found["train"].columns, found["train"].rows, "train")
    classes = {split: as_array(each, f"labels of {split}") for split, each in labels.items()}
    for split, each in classes.items():
        if split in given and len(each) != len(given[split]):
            held = f"labels of {split} have shape {each.shape}"
            raise InputError(f"{held}, expected one for each of its {len(given[split]):,} examples")
    called = {split: "" if len(given) == 1 else split for split in (*given, *labels)}
    return dataset_of(
        {called[split]: table.values for split, table in found.items()},
        name=name,
        source=name,
        where={called[split]: split for split in found},
        reading=reading,
        labels={called[split]: each[found[split].rows] if split in found else each for split, each in classes.items()},
        ids={called[split]: table.rows for split, table in found.items()},
        columns=found["train"].columns,
        schema=found["train"].schema,
        left=found["train"].left,
    )


def dataset_of(
    arrays: Arrays,
    *,
    name: str,
    source: str,
    where: Mapping[str, str],
    reading: Reading,
    labels: Mapping[str, Grey] | None = None,
    ids: Mapping[str, Grey] | None = None,
    columns: tuple[str, ...] | None = None,
    schema: tuple[Column, ...] | None = None,
    left: str = "",
    grey: Callable[[], str] = lambda: "grey data",
) -> Dataset:
    """The data set of arrays that hold examples as they came, split, and binarised where `reading` says so.

    `where` begins what is said of each array, `source` what is said of all; `grey` says what becomes bits. `ids` are
    what examples are called, by default their rows.
    """
    arrays = prepared(arrays, source, where, reading, training=True)
    count = sum(map(len, arrays.values()))
    if count < _FEWEST:
        raise InputError(f"{source}: holds {count} examples, expected at least {_FEWEST}")
    counts = {split: len(array) for split, array in arrays.items()}
    parts, how = divided(counts, source)
    how = f"{how}, {left}" if left else how
    made = _made(name, taken(arrays, parts), source, how, reading, grey, columns, schema)
    rows = {split: np.arange(count) for split, count in counts.items()} if ids is None else ids
    return replace(made, labels=_labels(labels or {}, counts, parts), ids=taken(rows, parts), columns=columns)


def _made(
    name: str,
    splits: tuple[Grey, Grey, Grey],
    source: str,
    how: str,
    reading: Reading,
    grey: Callable[[], str],
    columns: tuple[str, ...] | None,
    schema: tuple[Column, ...] | None,
) -> Dataset:
    """Three splits of prepared examples as bits, or as they are."""
    if reading.plain:
        protocol = f"{source}: {_PRINTED[reading.plain]} as they are, {how}."
        return plain_dataset(name, splits, protocol, reading.plain, columns, schema)
    binary = all(map(is_binary, splits))
    if not binary and reading.binarise != "threshold":
        return dynamic_dataset(name, splits, f"{source}: {grey()}, {how}")
    train, valid, test = (threshold_bits(x, 0.5 if binary else reading.threshold) for x in splits)
    origin = "binary data" if binary else f"{grey()}, x = 1[grey > {reading.threshold}]"
    return static_dataset(name, (train, valid, test), f"{source}: {origin}, {how}.")


def is_grey(arrays: Arrays, reading: Reading) -> bool:
    """Whether prepared examples become bits that they were not."""
    return reading.plain is None and not all(map(is_binary, arrays.values()))


def bits_of(arrays: Arrays, reading: Reading) -> list[Grey]:
    """Prepared examples of each split as they are, or as bits as in valid and test: drawn once, or by threshold."""
    if reading.plain:
        return list(arrays.values())
    binary = all(map(is_binary, arrays.values()))
    if binary or reading.binarise == "threshold":
        return [threshold_bits(x, 0.5 if binary else reading.threshold) for x in arrays.values()]
    return [drawn_bits(x) for x in arrays.values()]


def prepared(arrays: Arrays, source: str, where: Mapping[str, str], reading: Reading, training: bool = False) -> Arrays:
    """The arrays in the dtype of their kind, or as grey levels 0..255 or floats in [0, 1]; images have channels last.

    For `training` single precision must tell the examples apart.
    """
    kind = reading.plain
    arrays = {split: channels_last(x, (1, 3) if kind == "levels" else (1,)) for split, x in arrays.items()}
    if kind:
        wide = {split: array for split, array in arrays.items() if split in ("", "train")}
        arrays = {split: plain(array, kind, where[split]) for split, array in arrays.items()}
        for split, array in wide.items() if training and kind in ("real", "mixed") else ():
            check_resolved(array, where[split])
    else:
        arrays = _unsigned(arrays)
        for split, array in arrays.items():
            _validate_grey(array, where[split])
        arrays = _grey(arrays)
    if len({array.shape[1:] for array in arrays.values()}) > 1:
        sizes = ", ".join(f"{split} {array.shape[1:]}" for split, array in arrays.items())
        raise InputError(f"{source}: its splits differ in size ({sizes}), expected one size of example")
    return arrays


def channels_last(array: Grey, channels: tuple[int, ...]) -> Grey:
    """Images (n, height, width, 1), and (n, channels, height, width), torch's order, as (n, height, width) or (.., 3).

    Where both the second and the last axis may be channels, it is the last.
    """
    if array.ndim != 4 or array.shape[3] == 3:
        return array
    if array.shape[3] != 1 and array.shape[1] in channels:
        array = np.moveaxis(array, 1, 3)
    return array[..., 0] if array.shape[3] == 1 else array


def _unsigned(arrays: Arrays) -> Arrays:
    """Bits where every value of all splits is -1 or 1, else the arrays themselves."""
    spins = all(x.dtype.kind in "if" and bool(((x == -1) | (x == 1)).all()) and (x < 0).any() for x in arrays.values())
    return {split: (x > 0).astype(np.uint8) for split, x in arrays.items()} if spins else arrays


def _validate_grey(array: Grey, where: str) -> None:
    if array.dtype.kind not in "buif":
        raise InputError(f"{where} has dtype {array.dtype}, expected bool, integers or floats")
    if array.ndim not in (2, 3):
        expected = "(n, height, width), (n, height, width, 1), (n, 1, height, width) or (n, columns)"
        if array.ndim == 4:
            as_it_is = "binarise=none, in a recipe model.likelihood=logistic-mixture"
            expected += f"; with {as_it_is}, also colour, (n, height, width, 3) or (n, 3, height, width)"
        raise InputError(f"{where} has shape {array.shape}, expected {expected}")
    if array.size == 0:
        raise InputError(f"{where} is empty (shape {array.shape}), expected at least one example")
    low, high = array.min(), array.max()
    if np.isnan(low):
        raise InputError(f"{where} holds NaN, expected a number for every pixel")
    top = 1 if array.dtype.kind == "f" else 255
    if low < 0 or high > top:
        expected = "floats in [0, 1] (grey levels 0..255 as integers)" if top == 1 else "integers in 0..255"
        others = "others stay as they are with binarise=none and their kind, in a recipe model.likelihood=normal"
        raise InputError(f"{where} holds values from {low} to {high}, expected {expected}; {others}")


def _grey(arrays: Arrays) -> Arrays:
    """Integers as grey levels 0..255: those that never exceed 1, in any split, are bits."""
    integers = [array for array in arrays.values() if array.dtype.kind != "f"]
    white = 255 if max((int(array.max()) for array in integers), default=0) <= 1 else 1
    return {
        split: array if array.dtype.kind == "f" else array.astype(np.uint8) * np.uint8(white)
        for split, array in arrays.items()
    }


def _labels(labels: Mapping[str, Grey], counts: Mapping[str, int], parts: Parts) -> Labels | None:
    """Labels of every example, split as these are; InputError unless there is one for each."""
    if not labels:
        return None
    if labels.keys() != counts.keys():
        named = [" and ".join(split or "train" for split in each) for each in (labels, counts)]
        raise InputError(f"labels are of {named[0]}, expected those of {named[1]}, by its name each")
    for split, each in labels.items():
        if each.shape != (counts[split],):
            held = f"labels of {split or 'train'} have shape {each.shape}"
            raise InputError(f"{held}, expected one for each of its {counts[split]:,} examples")
        if any(label is None or repr(label) in ("nan", "<NA>", "NaT") for label in each.tolist()):
            raise InputError(f"labels of {split or 'train'} miss some, expected one for each example")
    every = np.concatenate([each.astype(str) if each.dtype.kind in "OUS" else each for each in labels.values()])
    classes, codes = np.unique(every, return_inverse=True)
    ends = np.cumsum([len(each) for each in labels.values()])[:-1]
    by_split = dict(zip(labels, np.split(codes.reshape(-1), ends), strict=True))
    return Labels(tuple(map(str, classes)), *(torch.from_numpy(x.astype(np.int64)) for x in taken(by_split, parts)))
