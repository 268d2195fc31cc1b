"""What codes tell of labels that no training saw, beside the data themselves and another model's codes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dvaepp.data import Dataset
from dvaepp.errors import InputError
from dvaepp.networks.dense import OneHot
from dvaepp.numerics import whole
from dvaepp.runs.run import Run

Array = NDArray[Any]
_MOST = 20_000
"""Examples of train and of test that a probe takes, the first: neighbours cost the product of their numbers."""


@dataclass(frozen=True)
class Probed:
    """How often the label of a test example is told by a representation; shares, each with its standard error."""

    name: str
    columns: int
    neighbours: float
    linear: float
    examples: int

    def error(self, share: float) -> float:
        """sqrt(p (1 - p) / n)."""
        return float(np.sqrt(share * (1 - share) / self.examples))


def probe(
    run: Run,
    neighbours: int = 5,
    *,
    seed: int = 0,
    most: int = _MOST,
    rival: bool = True,
    tell: Callable[[str], None] = lambda what: None,
) -> list[Probed]:
    """Accuracy on test labels of the k nearest neighbours in train and of logistic regression on train.

    Of the run's bits by Hamming distance (of normal variables the means, Euclidean, standardised); of the data as they
    are, likewise, with a column for each category; and, as a `rival`, of as many bits of scikit-learn's BernoulliRBM,
    fit to these with its own settings. Of train and of test it takes the first examples, `most` at most. `tell` is
    given the name of each before its work. InputError where the data have no labels.
    """
    try:
        from sklearn.neural_network import BernoulliRBM
    except ImportError:
        raise InputError("a probe needs scikit-learn; pip install 'dvaepp[sklearn]'") from None
    data, neighbours = run.data, whole("neighbours", neighbours)
    if data.labels is None:
        raise InputError(f"{data.name} has no labels to probe (data.label names a table's column of them)")
    if len(set(data.labels.train[:most].tolist())) < 2:
        raise InputError(f"the labels of {data.name}'s train are all alike, expected two classes or more")
    train, test = (run.examples(split).x[:most].numpy() for split in ("train", "test"))
    found = []

    def add(name: str, first: Array, second: Array, bits: bool) -> None:
        tell(name)
        found.append(_probed(name, (first, second), data, neighbours, bits))

    codes = [run.encode(x.reshape(-1, *run.shape), hard=not run.normal) for x in (train, test)]
    add("codes" if not run.normal else "means", codes[0], codes[1], not run.normal)
    train, test = (_in_columns(x, data) for x in (train, test))
    add("data", train, test, data.kind == "bits")
    if not rival:
        return found
    low, high = train.min(0), train.max(0)
    scaled = [np.clip((x - low) / np.where(high > low, high - low, 1), 0, 1) for x in (train, test)]
    tell("BernoulliRBM")
    rbm = BernoulliRBM(n_components=codes[0].shape[1], random_state=seed).fit(scaled[0])
    first, second = ((rbm.transform(x) > 0.5).astype(np.uint8) for x in scaled)
    add("BernoulliRBM", first, second, True)
    return found


def _in_columns(x: Array, data: Dataset) -> Array:
    """Examples with a column for each category."""
    named = [column.categories * (column.kind == "categories") for column in data.schema or ()]
    if data.kind == "categories":
        named = [data.categories] * data.pixels
    return OneHot(named)(torch.from_numpy(x).float()).numpy() if any(named) else x


def _probed(name: str, x: tuple[Array, Array], data: Dataset, neighbours: int, bits: bool) -> Probed:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    assert data.labels is not None
    labels = data.labels.train[: len(x[0])].numpy(), data.labels.test[: len(x[1])].numpy()
    scaled = x if bits else tuple(StandardScaler().fit(x[0]).transform(each) for each in x)
    near = nearest(scaled[0], scaled[1], neighbours)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as far as it has come is what is scored
        linear = LogisticRegression(max_iter=200).fit(scaled[0], labels[0])
    votes = np.apply_along_axis(np.bincount, 1, labels[0][near], minlength=len(data.labels.classes))
    told = float((votes.argmax(1) == labels[1]).mean())
    return Probed(name, x[0].shape[1], told, float(linear.score(scaled[1], labels[1])), len(labels[1]))


def retrieved(run: Run, count: int, shown: int) -> Float[Tensor, "{shown} values pixels"]:
    """In every row a test example, then those of train whose codes are nearest to its own, the nearest first."""
    if len(run.data.test) < shown:
        raise InputError(f"the picture shows {shown} test examples, and there are {len(run.data.test)}")
    train, test = run.examples("train").x[:_MOST], run.examples("test").x[:shown]
    codes = [run.encode(x.reshape(-1, *run.shape).numpy(), hard=not run.normal) for x in (train, test)]
    near = nearest(codes[0], codes[1], count)
    return torch.cat([test[:, None], train[torch.from_numpy(np.ascontiguousarray(near))]], 1)


def nearest(train: Array, test: Array, count: int) -> Array:
    """The places in train of the `count` rows nearest to each of test, the nearest first; of equally near the first."""
    known = train.astype(np.float32)
    squares, found = (known**2).sum(1), []
    for piece in np.array_split(test.astype(np.float32), max(1, len(test) // 500)):
        distances = squares - 2 * piece @ known.T
        found.append(np.argsort(distances, axis=1, kind="stable")[:, :count])
    return np.concatenate(found)
