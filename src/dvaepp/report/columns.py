"""The section of a report about a table: what its columns hold, beside what the model draws and reconstructs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from markupsafe import Markup
from torch import Tensor

from dvaepp.data import Dataset
from dvaepp.report import pictures, plots
from dvaepp.report.page import parts
from dvaepp.report.subject import Subject, short

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
    made = pictures.reconstructions(model, subject.valid)
    found = _categories(data, x, draws, made) if data.kind == "categories" else _numbers(data, x, means, draws, made)
    shown: list[int] = found.apart.topk(min(_MOST, data.pixels)).indices.sort().values.tolist()
    cut = f"{len(shown)} of {data.pixels:,} columns are listed, those in which the {found.measure} most."
    real = x[:_ROWS]
    head = ["Column", *(f"{what} {i}" for what, n in (("real", len(real)), ("drawn", _ROWS)) for i in range(1, n + 1))]
    return [
        *([parts.columns(found.plot)] if found.plot else []),
        parts.table(["Column", *found.numbers], _rows(data, shown, torch.stack([*found.numbers.values()]))),
        *([parts.text(cut)] if len(shown) < data.pixels else []),
        parts.note(found.note),
        parts.text("Validation examples beside draws of the model:"),
        parts.table(head, _rows(data, shown, torch.cat([real, draws[:_ROWS]]))),
    ]


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
        f"Data: training. Model: {_DRAWS:,} draws, a z from the prior for each. R² = 1 − Σ(x − x̂)² / Σ(x − x̄)² over "
        f"{len(x)} validation examples: x̂ is the mean of p(x | z) for one z from q(z | x), x̄ that of x; – where x is "
        "constant."
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
        f"Reconstructed right: how often the likeliest category of p(x | z), for one z from q(z | x), is that of x, of "
        f"{len(x)} validation examples. Total variation: between the shares of training data and of {_DRAWS:,} draws."
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
