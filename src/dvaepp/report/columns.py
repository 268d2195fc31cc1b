"""The section of a report about a table: what its columns hold, beside what the model draws and reconstructs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from markupsafe import Markup
from torch import Tensor

from dvaepp.data import Dataset, Kind
from dvaepp.data.columns import cells_of
from dvaepp.data.kinds import DTYPES
from dvaepp.errors import InputError
from dvaepp.evaluation.by_column import distortion_by_column
from dvaepp.report import plots
from dvaepp.report.page import parts
from dvaepp.report.subject import Subject, short
from dvaepp.runs import pictures

_DRAWS, _ROWS, _MOST = 2000, 3, 30
"""Draws of the model, rows shown of data and of draws, and columns shown."""


@dataclass(frozen=True)
class _Comparison:
    """Numbers of each column by name, how far data and model are apart in it, and in what words."""

    numbers: dict[str, Float[Tensor, " columns"]]
    apart: Float[Tensor, " columns"]
    measure: str
    note: str
    plot: Sequence[Markup]


def columns(subject: Subject) -> list[Markup]:
    """What a table's columns hold against the model's draws and reconstructions; nothing where x is an image."""
    if len(subject.trained.shape) > 1:
        return []
    data, x, model = subject.data, subject.valid.cpu(), subject.trained.model
    means, draws = pictures.samples(model, _DRAWS, 2).unbind(1)
    made, nats = pictures.reconstructions(model, subject.valid), torch.full((data.pixels,), torch.nan)
    with suppress(InputError):  # a likelihood under which columns depend on each other given z
        nats = distortion_by_column(model, subject.valid).cpu()
    found = []
    for places in _alike(data):
        part, seen = _part(data, places), (x[:, places], means[:, places], draws[:, places], made[:, places])
        found += _section(part, *seen, nats[places], subject)
    real = x[:_ROWS]
    head = ["Column", *(f"{what} {i}" for what, n in (("real", len(real)), ("drawn", _ROWS)) for i in range(1, n + 1))]
    rows = _words(data, torch.cat([real, draws[:_ROWS]]))
    return [
        *found,
        parts.text(f"{subject.called[0].upper()}{subject.called[1:]} beside draws of the model:"),
        parts.table(head, rows),
    ]


def _alike(data: Dataset) -> list[list[int]]:
    """The places of columns that are told of in the same way: all, or of several kinds numbers and categories."""
    if data.schema is None:
        return [list(range(data.pixels))]
    named = [place for place, column in enumerate(data.schema) if column.kind == "categories"]
    return [places for places in ([p for p in range(data.pixels) if p not in named], named) if places]


def _part(data: Dataset, places: list[int]) -> Dataset:
    """Columns of several kinds that are told of in the same way, as data of one kind; of one kind the data."""
    if data.schema is None:
        return data
    kind: Kind = "categories" if data.schema[places[0]].kind == "categories" else "real"
    splits = {split: getattr(data, split)[:, places].to(DTYPES[kind]) for split in ("train", "valid", "test")}
    names = tuple(data.schema[place].name for place in places)
    return replace(data, **splits, shape=(len(places),), kind=kind, columns=names, schema=None)


def _section(
    data: Dataset,
    x: Float[Tensor, "n columns"],
    means: Float[Tensor, "draws columns"],
    draws: Float[Tensor, "draws columns"],
    made: Float[Tensor, "n columns"],
    nats: Float[Tensor, " columns"],
    subject: Subject,
) -> list[Markup]:
    """A row for each column, or those in which data and model differ most."""
    found = _categories(data, x, draws, made) if data.kind == "categories" else _numbers(data, x, means, draws, made)
    origin = "Data: training; reconstructed" if subject.given is None else "Data, and reconstructed"
    numbers = found.numbers | {"nats": nats.double().round(decimals=3)}
    shown: list[int] = found.apart.topk(min(_MOST, data.pixels)).indices.sort().values.tolist()
    cut = f"{len(shown)} of {data.pixels:,} columns are listed, those in which the {found.measure} most."
    return [
        *([parts.columns(found.plot)] if found.plot else []),
        parts.table(["Column", *numbers], _rows(data, shown, torch.stack([*numbers.values()]))),
        *([parts.text(cut)] if len(shown) < data.pixels else []),
        parts.note(f"{origin}: {len(x)} {subject.called}. {found.note} nats: −log p(x | z) of the column, by that z."),
    ]


def _words(data: Dataset, examples: Float[Tensor, "values columns"]) -> list[list[str]]:
    """Examples, a column of the table in each row; of several kinds as they stood there."""
    if data.schema is None:
        return _rows(data, list(range(min(_MOST, data.pixels))), examples)
    cells = cells_of(examples[:, :_MOST].numpy(), data.schema[:_MOST])
    return [[name, *map(_word, each)] for name, each in cells.items()]


def _word(cell: Any) -> str:
    """A cell as it stood in the table; a dash for one that is missing."""
    if cell is None:
        return "–"
    return str(cell) if isinstance(cell, str | bool | np.bool_) else short(float(cell))


def _rows(data: Dataset, shown: list[int], values: Float[Tensor, "values columns"]) -> list[list[str]]:
    """A row for each column that is shown, under its name if it has one, else its number from 1 on."""
    names = [(data.columns[j] if data.columns else "") or f"{j + 1}" for j in shown]
    return [[name, *map(short, values[:, j].tolist())] for name, j in zip(names, shown, strict=True)]


def _numbers(
    data: Dataset,
    x: Float[Tensor, "n columns"],
    means: Float[Tensor, "draws columns"],
    draws: Float[Tensor, "draws columns"],
    made: Float[Tensor, "n columns"],
) -> _Comparison:
    """Means, spreads where they do not follow from the means, and R² of reconstructions."""
    known, model = data.mean.double(), means.double().mean(0)
    numbers = {"mean, data": known, "mean, model": model}
    plot = []
    if data.kind == "bits":
        axes = ("mean of training data", "mean of the model")
        dots = plots.agreement("Column means", known, model, axes)
        plot = [parts.figure(dots, f"A dot for each of {data.pixels} columns")]
    else:
        spreads = (values.double().std(0, correction=0) for values in (data.train, draws))
        numbers |= dict(zip(("sd, data", "sd, model"), spreads, strict=True))
    numbers["R²"] = r_squared(x, made).round(decimals=2)
    note = (
        f"Model: {_DRAWS:,} draws, a z from the prior for each. R² = 1 − Σ(x − x̂)² / Σ(x − x̄)²: x̂ is the mean of "
        "p(x | z) for one z from q(z | x), x̄ that of x; – where x is constant."
    )
    return _Comparison(numbers, ((model - known) / data.sd).abs(), "means, in sd of the data, differ", note, plot)


def _categories(
    data: Dataset,
    x: Float[Tensor, "n columns"],
    draws: Float[Tensor, "draws columns"],
    made: Float[Tensor, "n columns"],
) -> _Comparison:
    """How often each category occurs, and how often the likeliest one given z is right."""
    known, model = (shares(values, data.categories) for values in (data.train, draws))
    apart = (known - model).abs().sum(1) / 2
    right = (x == made).double().mean(0)
    numbers = {"commonest, share of data": known.amax(1), "reconstructed right": right, "total variation": apart}
    note = (
        "Reconstructed right: how often the likeliest category of p(x | z), for one z from q(z | x), is that of x. "
        f"Total variation: between the shares of data and of {_DRAWS:,} draws."
    )
    axes = ("share of training data", "share of the model's draws")
    dots = plots.agreement("Shares", known.flatten(), model.flatten(), axes)
    text = f"A dot for each category of each of {data.pixels} columns; the model's share is of {_DRAWS:,} x"
    rounded = {name: values.round(decimals=3) for name, values in numbers.items()}
    return _Comparison(rounded, apart, "shares differ", note, [parts.figure(dots, text)])


def shares(x: Shaped[Tensor, "n columns"], categories: int) -> Float[Tensor, "columns {categories}"]:
    """How often each category occurs in each column."""
    return torch.stack([torch.bincount(column, minlength=categories) for column in x.long().T]) / len(x)


def r_squared(x: Float[Tensor, "n columns"], made: Float[Tensor, "n columns"]) -> Float[Tensor, " columns"]:
    """R² = 1 - sum (x - made)^2 / sum (x - mean of x)^2 of each column; NaN where x is constant."""
    x = x.double()
    total = (x - x.mean(0)).square().sum(0)
    return torch.where((x != x[0]).any(0), 1 - (x - made).square().sum(0) / total, torch.nan)
