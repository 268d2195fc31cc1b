"""A comparison of gradients as one figure: variance against bias^2, unbiased methods at the left edge."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dvaepp.errors import InputError
from dvaepp.evaluation.gradients import GradientComparison, GradientQuality
from dvaepp.report.figures import save_figure

_SIZE = (12.0, 9.0)
_TEXT = 6.5
_WIDEST = 180
"""Letters of a line over the whole figure."""
_UNBIASED, _BIASED, _LESS = "#3a9a5b", "#2c74c4", "#9ab9dc"
_FEWEST = 2.0
"""Standard errors from which on a bias is shown as a number, and not as a bound."""
_KNOWN = 0.2
"""Of a variance, the relative error up to which it is known: beyond it a few draws decide, and it may be infinite."""

Box = tuple[float, float, float, float]


def plot(found: GradientComparison, path: Path) -> None:
    """Write the figure as PNG or SVG, those left out whose variance is not known to 20 %, and named.

    InputError for another suffix, and where no method is left.
    """
    rows = [row for row in found.rows if row.variance.error < _KNOWN * row.variance.value]
    if not rows:
        raise InputError("there is nothing to plot: no method has a variance that is known to 20 % and not 0")
    save_figure(path, lambda figure: _draw(figure, found, rows), _SIZE)


def _draw(figure: Any, found: GradientComparison, rows: Sequence[GradientQuality]) -> None:
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.7))
    unbiased = [row for row in rows if row.method.unbiased]
    biased = [row for row in rows if not row.method.unbiased]
    marks = {left: [_mark_unbiased(left, row) for row in unbiased], right: [_mark(right, row) for row in biased]}
    left.set(xlim=(0, 1), xticks=[], xlabel="no bias", yscale="log", ylabel="variance of a single draw / |g|²")
    right.set(xscale="log" if biased else "linear", xlabel="bias² / |g|² (arrows: below this, two standard errors)")
    right.margins(x=0.15)
    unknown = [row.method.label for row in found.rows if row not in rows]
    named = "\n".join(textwrap.wrap(f"not shown, their variance being unknown: {'; '.join(unknown)}", _WIDEST))
    without = f"\n{named}" if unknown else ""
    figure.suptitle(f"{found.examples:,} examples, {found.draws:,} draws, seed {found.seed}{without}", fontsize=8)
    figure.draw_without_rendering()
    for axes, points in marks.items():
        _label(axes, points)


def _mark_unbiased(axes: Any, row: GradientQuality) -> tuple[float, float, str]:
    place = 0.04, row.relative_variance.value
    axes.errorbar(*place, yerr=row.relative_variance.error, fmt="o", color=_UNBIASED, markersize=4)
    return (*place, row.method.label)


def _mark(axes: Any, row: GradientQuality) -> tuple[float, float, str]:
    """The point with its errors, or where the bias is not told from 0 an arrow at what it is less than."""
    (bias, error), (variance, spread) = row.relative_bias, row.relative_variance
    if bias > _FEWEST * error:
        errors = [[min(error, 0.9 * bias)], [error]]
        axes.errorbar(bias, variance, xerr=errors, yerr=spread, fmt="o", color=_BIASED, markersize=4, linewidth=0.8)
        return bias, variance, row.method.label
    most = max(bias, 0.0) + _FEWEST * error
    axes.errorbar(most, variance, yerr=spread, fmt="<", color=_LESS, markersize=5, linewidth=0.8)
    return most, variance, row.method.label


def _label(axes: Any, points: Sequence[tuple[float, float, str]]) -> None:
    """Each point's name, as near to it as there is room, with a line where that is not beside it."""
    per_point = axes.figure.dpi / 72
    places = [axes.transData.transform((x, y)).tolist() for x, y, _ in points]
    taken: list[Box] = [(x - 3, y - 3, x + 3, y + 3) for x, y in places]
    window: Box = tuple(axes.get_window_extent().extents.tolist())
    for (x, y, text), (across, up) in sorted(zip(points, places, strict=True), key=lambda each: -each[0][1]):
        size = (0.57 * _TEXT * len(text) * per_point, 1.15 * _TEXT * per_point)
        boxes = list(_boxes(across, up, size, 5 * per_point))
        free = (each for each in boxes if _inside(each, window) and not any(_meet(each, o) for o in taken))
        box = next(free, boxes[0])
        taken.append(box)
        offset = (box[0] - across) / per_point, ((box[1] + box[3]) / 2 - up) / per_point
        end = (0 if offset[0] > 0 else 1, 0.5)
        line = {"arrowstyle": "-", "linewidth": 0.3, "color": "grey", "relpos": end} if abs(offset[1]) > _TEXT else None
        near = {"xytext": offset, "textcoords": "offset points", "va": "center", "fontsize": _TEXT}
        axes.annotate(text, (x, y), arrowprops=line, **near)


def _boxes(across: float, up: float, size: tuple[float, float], gap: float) -> Iterator[Box]:
    """Where a text might stand: to the right and to the left of its point, then higher and lower."""
    width, height = size
    shifts = (0.0, *itertools.chain.from_iterable((k * height / 2, -k * height / 2) for k in range(1, 60)))
    for shift in shifts:
        for start in (across + gap, across - gap - width):
            yield start, up + shift - height / 2, start + width, up + shift + height / 2


def _inside(box: Box, window: Box) -> bool:
    return box[0] >= window[0] and box[1] >= window[1] and box[2] <= window[2] and box[3] <= window[3]


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
