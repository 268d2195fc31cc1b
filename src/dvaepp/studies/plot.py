"""A comparison as one figure: the NLL of every row with its spread, and how validation went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dvaepp.errors import InputError
from dvaepp.report.figures import save_figure
from dvaepp.studies.comparison import Comparison, Row

_MOST_ROWS = 60
_LONGEST = 60


def plot(compared: Comparison, path: Path) -> None:
    """Write the figure as PNG or SVG; InputError for another suffix, and for more rows than one can tell apart."""
    if len(compared.rows) > _MOST_ROWS:
        raise InputError(f"{len(compared.rows)} rows are too many for a figure, expected at most {_MOST_ROWS}")
    height = max(3.2, 0.3 * len(compared.rows) + 1)
    save_figure(path, lambda figure: _draw(figure, compared), (10.0, height))


def _draw(figure: Any, compared: Comparison) -> None:
    import matplotlib

    map_ = matplotlib.colormaps["viridis"]
    colours = [map_(0.9 * k / max(1, len(compared.rows) - 1)) for k in range(len(compared.rows))]
    curves = any(_curves(row) for row in compared.rows)
    left, *right = figure.subplots(1, 2 if curves else 1, squeeze=False)[0]
    _draw_scores(left, compared, colours)
    if right:
        _draw_curves(right[0], compared, colours)


def _draw_scores(axes: Any, compared: Comparison, colours: list[Any]) -> None:
    """A dot for each seed, and mean ± spread."""
    for place, (row, colour) in enumerate(zip(compared.rows, colours, strict=True)):
        mean, spread = row.nll
        axes.errorbar([mean], [place], xerr=[spread], fmt="D", color=colour, capsize=3, markersize=5)
        axes.plot(row.nlls, [place] * len(row.nlls), "o", color=colour, alpha=0.4, markersize=4)
    lengths = len({tuple(row.steps) for row in compared.rows}) > 1
    axes.set_yticks(range(len(compared.rows)), [_name(row, lengths) for row in compared.rows])
    axes.set_ylim(len(compared.rows) - 0.4, -0.6)
    axes.set(xlabel=f"NLL, {compared.first.split} data, nats", title=", ".join(compared.settings))
    axes.title.set_fontsize(9)


def _draw_curves(axes: Any, compared: Comparison, colours: list[Any]) -> None:
    for row, colour in zip(compared.rows, colours, strict=True):
        for steps, values in _curves(row):
            axes.plot(steps, values, color=colour, linewidth=1, marker="." if len(steps) < 30 else None)
    late = [v for row in compared.rows for _, values in _curves(row) for v in values[len(values) // 10 :]]
    margin = 0.05 * (max(late) - min(late)) or 1.0
    axes.set(xlabel="step", ylabel="NLL, validation data, nats", ylim=(min(late) - margin, max(late) + margin))


def _curves(row: Row) -> list[tuple[list[float], list[float]]]:
    """Steps and validation NLLs of those of its runs that are at hand."""
    subjects = (member.subject for member in row.members if member.subject is not None)
    found = (subject.curve("valid_nll") for subject in subjects)
    return [([*curve.steps], [*curve.values]) for curve in found if curve.values]


def _name(row: Row, length: bool) -> str:
    text = ", ".join((*row.settings, *(f"{steps:,} steps" for steps in row.steps if length)))
    return text if len(text) <= _LONGEST else f"…{text[-_LONGEST:]}"
