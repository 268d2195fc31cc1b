"""Examples and tables whose gaps a run has filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvaepp.data.columns import WHOLE
from dvaepp.data.own import frame_at
from dvaepp.data.reading import Reading

Array = NDArray[Any]


@dataclass(frozen=True, repr=False)
class Completed:
    """Examples (n, ...) whose missing values are filled in; those that were there are as they were."""

    samples: Array
    """With one draw of what is missing."""
    means: Array
    """With about its mean, float32; of categories the commonest."""
    missing: Array
    """True where a value was missing."""
    acceptance: float
    """The share of the chains' proposals that were accepted: where it is small, more sweeps are needed."""


def completed_table(path: Path, reading: Reading, drawn: Mapping[str, Array], missing: Array) -> dict[str, Array]:
    """The columns of the table at a path, as they are there and in their order, with what is `missing` as it was drawn.

    What was drawn alone where the columns have no names there, and where the path leads to no table.
    """
    frame = frame_at(path, reading)
    if frame is None or not set(drawn) <= set(frame.columns):
        return dict(drawn)
    columns = {name: np.asarray(frame[name]) for name in frame.columns}
    for (name, cells), gaps in zip(drawn.items(), missing.T, strict=True):
        filled = columns[name].astype(object)
        filled[gaps] = cells[gaps]
        columns[name] = _typed(filled, cells.dtype)
    return columns


def _typed(cells: Array, drawn: np.dtype[Any]) -> Array:
    """Cells in the type of those that were drawn, but that none that stood there is rounded."""
    if drawn.kind == "b":
        return cells.astype(bool)
    if drawn.kind not in "if":
        return cells
    numbers = cells.astype(np.float64)
    whole = drawn.kind == "i" and bool((numbers == np.floor(numbers)).all() and (np.abs(numbers) <= WHOLE).all())
    return cells.astype(np.int64) if whole else numbers
