"""Plots as SVG for a page: curves, histograms and bars in the page's own colours."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from jaxtyping import Float
from markupsafe import Markup, escape
from torch import Tensor

from dvaepp.errors import InputError

_COLOURS = {
    "#000001": "currentColor",
    "#000002": "var(--faint)",
    "#000003": "var(--rule)",
    "#000004": "var(--one)",
    "#000005": "var(--two)",
}
"""What stands for a colour while matplotlib draws, and the page's own colour that takes its place."""
_INK, _FAINT, _RULE, *_SERIES = _COLOURS
_STYLE: Any = {
    "font.size": 8,
    "text.color": _INK,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.5,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _FAINT,
    "ytick.labelcolor": _FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",
}
_PRIVATE = re.compile(
    r'<style.*?</style>| id="[a-z0-9.]+_\d+"| font-family: [^;"]*;|(?<= )(width|height)="[\d.]+pt" ', re.DOTALL
)
"""What an <svg> of its own may say, but one within a page should not."""
_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_AXES = (0.13, 0.2, 0.86, 0.77)
"""Left, bottom, width and height within the figure: the same for all, so that they line up on the page."""
_WIDE, _WIDE_AXES = (7.2, 3.0), (0.065, 0.15, 0.875, 0.82)
"""The same for a figure of two columns' width."""
_MOST_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """Values at steps, perhaps each with a standard error."""

    steps: Sequence[float]
    values: Sequence[float]
    errors: Sequence[float] = ()


def curves(label: str, *series: Curve) -> Markup:
    """Values against steps, with bands of one standard error; long ones as means of neighbours."""

    def draw(axes: Any) -> None:
        for curve, colour in zip(series, _SERIES, strict=False):
            _draw_curve(axes, curve, colour)
        axes.set_xlim(left=0)
        axes.set_ylim(top=_top(series))
        _label_steps(axes)

    return _svg(label, draw)


def histogram(label: str, values: Float[Tensor, " n"], limits: tuple[float, float] | None = None) -> Markup:
    """How often values occur; the label names them below the axis too."""

    def draw(axes: Any) -> None:
        axes.hist(values.tolist(), bins=30, range=limits, histtype="stepfilled", color=_SERIES[0])
        axes.set_xlim(limits)
        axes.set_xlabel(label)
        axes.locator_params(axis="x", nbins=5)
        axes.locator_params(axis="y", integer=True)
        axes.grid(visible=False, axis="x")

    return _svg(label, draw)


def ranked(label: str, values: Float[Tensor, " n"]) -> Markup:
    """The values, largest first."""

    def draw(axes: Any) -> None:
        ordered = values.sort(descending=True).values.tolist()
        axes.fill_between(range(len(ordered) + 1), [*ordered[:1], *ordered], step="pre", color=_SERIES[0])
        axes.set_xlim(0, len(ordered))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("unit, by rank")
        axes.locator_params(axis="x", integer=True)

    return _svg(label, draw)


def agreement(
    label: str,
    x: Float[Tensor, " n"],
    y: Float[Tensor, " n"],
    names: tuple[str, str],
    ends: tuple[float, float] = (0.0, 1.0),
) -> Markup:
    """Pairs of numbers between two ends as dots, and the diagonal on which they would be equal."""
    margin = 0.02 * (ends[1] - ends[0])
    limits = (ends[0] - margin, ends[1] + margin)

    def draw(axes: Any) -> None:
        axes.plot(ends, ends, color=_FAINT, linewidth=0.75)
        axes.scatter(x.tolist(), y.tolist(), s=14, color=_SERIES[0], alpha=0.7, linewidths=0, rasterized=len(x) > 1000)
        axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel=names[0], ylabel=names[1])

    return _svg(label, draw, (3.5, 3.5))


def group_curves(label: str, series: Sequence[Curve], floor: float) -> Markup:
    """A curve for each group, numbered at its end: logarithmic above `floor`, a dashed line, and linear below it."""

    def draw(axes: Any) -> None:
        from matplotlib.ticker import FuncFormatter

        axes.set_yscale("symlog", linthresh=floor, linscale=0.5)
        axes.axhline(floor, color=_FAINT, linewidth=0.75, linestyle="--")
        for j, curve in enumerate(series):
            style = {"color": _shade(j, len(series)), "linestyle": ("-", "--", ":")[j % 3], "linewidth": 1.2}
            _plot(axes, curve, **style)
        axes.set_xlim(0, max(curve.steps[-1] for curve in series))
        _label_steps(axes)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _number_ends(axes, [_thinned(curve.values)[-1] for curve in series])

    return _svg(label, draw, _WIDE, _WIDE_AXES)


def bars(label: str, values: Sequence[float], floor: float) -> Markup:
    """A bar for each group with its value above it, in orange where that is below `floor`."""

    def draw(axes: Any) -> None:
        numbers = range(1, len(values) + 1)
        colours = [_SERIES[1] if value < floor else _SERIES[0] for value in values]
        axes.bar(numbers, values, color=colours, width=0.7)
        for number, value, colour in zip(numbers, values, colours, strict=True):
            text = f"{value:.{2 if abs(value) < 10 else 1}f}"
            axes.annotate(text, (number, max(value, 0)), (0, 2), color=colour, ha="center", **_ABOVE)
        axes.set_xlim(0.4, len(values) + 0.6)
        axes.margins(y=0.12)
        axes.set_ylim(top=max(axes.get_ylim()[1], floor))
        axes.set_xlabel("group")
        axes.locator_params(axis="x", integer=True, nbins=20)
        axes.grid(visible=False, axis="x")

    return _svg(label, draw, (7.2, 2.2), _WIDE_AXES)


_ABOVE: Any = {"textcoords": "offset points", "fontsize": 7}


def _label_steps(axes: Any) -> None:
    """Whole steps, in thousands where there are many."""
    from matplotlib.ticker import EngFormatter

    axes.set_xlabel("step")
    axes.locator_params(axis="x", integer=True)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _shade(j: int, count: int) -> tuple[float, float, float]:
    """Of a sequence of colours from blue over magenta to orange, all of middling lightness: seen on white and black."""
    stops = ((44, 116, 196), (140, 92, 190), (200, 72, 130), (212, 98, 28))
    place = 3 * j / max(count - 1, 1)
    k = min(int(place), 2)
    red, green, blue = ((a + (place - k) * (b - a)) / 255 for a, b in zip(stops[k], stops[k + 1], strict=True))
    return red, green, blue


def _number_ends(axes: Any, values: Sequence[float]) -> None:
    """The numbers of curves at the right of where they end, moved apart where they would overlap."""
    for j, height in enumerate(_apart([_height(axes, value) for value in values], min(0.06, 1 / len(values)))):
        colour = _shade(j, len(values))
        axes.text(1.01, height, str(j + 1), color=colour, transform=axes.transAxes, va="center", fontsize=7)


def _height(axes: Any, value: float) -> float:
    """Where a value lies on the axis, from 0 to 1."""
    _, y = axes.transAxes.inverted().transform(axes.transData.transform((0, value)))
    return float(y)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Heights in the same order, at least a gap apart and not above 1: pushed up, then down from the top."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    places, low, high = list(heights), -math.inf, 1 + gap
    for j in order:
        places[j] = low = max(places[j], low + gap)
    for j in reversed(order):
        places[j] = high = min(places[j], high - gap)
    return places


def _draw_curve(axes: Any, curve: Curve, colour: str) -> None:
    steps, values = _plot(axes, curve, color=colour)
    if curve.errors:
        errors = _thinned(curve.errors)
        low, high = ([v + sign * e for v, e in zip(values, errors, strict=True)] for sign in (-1, 1))
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)


def _plot(axes: Any, curve: Curve, **style: Any) -> tuple[list[float], list[float]]:
    """Draw a line, with dots where they are few; the steps and values that were drawn."""
    steps, values = _thinned(curve.steps), _thinned(curve.values)
    axes.plot(steps, values, marker="o" if len(steps) < 30 else None, markersize=2.5, **style)
    return steps, values


def _thinned(values: Sequence[float]) -> list[float]:
    """Means of runs of neighbours, few enough to draw."""
    size = math.ceil(len(values) / _MOST_POINTS)
    runs = [values[start : start + size] for start in range(0, len(values), size)] if size else []
    return [sum(run) / len(run) for run in runs]


def _top(series: Sequence[Curve]) -> float | None:
    """The top of the axis: what curves reach after their first twentieth, from which they tend to fall steeply."""
    late = [value for curve in series for value in curve.values[len(curve.values) // 20 :]]
    if not all(curve.values for curve in series):
        raise InputError("metrics.jsonl lacks a quantity to draw")
    top = max(late) + 0.1 * (max(late) - min(late))
    return top if max(max(curve.values) for curve in series) > top > min(late) else None


def _svg(
    label: str,
    draw: Callable[[Any], None],
    size: tuple[float, float] = (3.5, 2.2),
    place: tuple[float, float, float, float] = _AXES,
) -> Markup:
    """A figure as <svg> to be put into a page, in the page's colours and font; `label` is read out in its place."""
    import matplotlib
    from matplotlib.figure import Figure

    text = StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": label}):
        figure = Figure(figsize=size)
        draw(figure.add_axes(place))
        figure.savefig(text, format="svg", transparent=True, metadata=_METADATA)
    _, _, svg = text.getvalue().partition("<svg ")
    svg = _PRIVATE.sub("", svg)
    for placeholder, colour in _COLOURS.items():
        svg = svg.replace(placeholder, colour)
    return Markup(f'<svg role="img" aria-label="{escape(label)}" {svg}')
