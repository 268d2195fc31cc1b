"""What there is to see of a model: samples, reconstructions and weights as images, curves and histograms as SVG."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.evaluation import measuring
from dvaepp.latent.hard import hard
from dvaepp.models.trace import Model
from dvaepp.storage import replacing

POSITIVE, NEGATIVE = (44, 116, 196), (212, 98, 28)
"""Blue and orange: they read on white and on black, and to the colour-blind."""
_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_CELL = 84
"""About how many pixels the longer side of an image takes in a grid, unless it has more."""
_GAP, _GAP_GREY = 2, 128

# --- images -----------------------------------------------------------------------------------------------------------


def samples(model: Model, rows: int, columns: int, seed: int = 0) -> Float[Tensor, "{rows} {columns} pixels"]:
    """In every row one z ~ p(z): first the mean of p(x | z), then draws x ~ p(x | z) (Fig. 4)."""
    if rows < 1 or columns < 1:
        raise InputError(f"samples need at least one row and one column, not {rows} x {columns}")
    with measuring(model, seed):
        likelihood = model.decode(model.prior.sample(rows))
        draws = likelihood.sample(torch.Size([columns - 1]))
        return torch.cat([likelihood.mean[None], draws]).transpose(0, 1).cpu()


def reconstructions(model: Model, x: Float[Tensor, "n pixels"], seed: int = 0) -> Float[Tensor, "n pixels"]:
    """The mean of p(x | z) for one z ~ q(z | x) each, in the binary limit."""
    with measuring(model, seed):
        mean: Tensor = model(x, hard).likelihood.mean
        return mean.cpu()


def grid(images: Float[Tensor, "rows columns pixels"], shape: tuple[int, ...]) -> Image.Image:
    """Images of values in [0, 1], 1 white, side by side; those smaller than a thumbnail are enlarged."""
    if len(shape) != 2:
        raise InputError(
            f"examples of shape {shape} are rows of a table and have no picture: save them as arrays (.npz)"
        )
    rows, columns, pixels = images.shape
    if math.prod(shape) != pixels:
        raise InputError(f"images of shape {shape} have {math.prod(shape)} pixels, not {pixels}")
    factor = max(1, round(_CELL / max(shape)))
    white = 255 * images.cpu().clamp(0, 1).reshape(rows, columns, *shape)
    cells = white.round().to(torch.uint8).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    cells = F.pad(cells, (_GAP, 0, _GAP, 0), value=_GAP_GREY)
    sheet = cells.transpose(1, 2).reshape(rows * cells.shape[2], columns * cells.shape[3])
    return Image.fromarray(F.pad(sheet, (0, _GAP, 0, _GAP), value=_GAP_GREY).numpy())


def signed(values: Float[Tensor, "rows columns"], scale: float) -> Image.Image:
    """Values in [-scale, scale], one a pixel: orange below zero, blue above, zero transparent."""
    share = (values.cpu() / scale).clamp(-1, 1)[..., None]
    colour = torch.where(share > 0, torch.tensor(POSITIVE), torch.tensor(NEGATIVE))
    opacity = 255 * share.abs()
    return Image.fromarray(torch.cat([colour, opacity.round()], -1).to(torch.uint8).numpy())


def save_grid(path: Path, image: Image.Image) -> None:
    """Write an image in the format that the suffix names; the file is whole or not there."""
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path} has no suffix of an image format, expected one of {', '.join(_FORMATS)}")
    with replacing(path) as temporary:
        try:
            image.save(temporary, kind)
        except (ValueError, OverflowError) as error:
            raise InputError(f"{path}: {image.width} x {image.height} pixels do not fit this format: {error}") from None


# --- plots ------------------------------------------------------------------------------------------------------------

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
_MOST_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """Values at steps, perhaps each with a standard error."""

    steps: Sequence[float]
    values: Sequence[float]
    errors: Sequence[float] = ()


def curves(label: str, *series: Curve) -> str:
    """Values against steps, with bands of one standard error; long ones as means of neighbours."""

    def draw(axes: Any) -> None:
        from matplotlib.ticker import EngFormatter

        for curve, colour in zip(series, _SERIES, strict=False):
            _draw_curve(axes, curve, colour)
        axes.set_xlim(left=0)
        axes.set_ylim(top=_top(series))
        axes.set_xlabel("step")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))

    return _svg(label, draw)


def histogram(label: str, values: Float[Tensor, " n"], limits: tuple[float, float] | None = None) -> str:
    """How often values occur; the label names them below the axis too."""

    def draw(axes: Any) -> None:
        axes.hist(values.tolist(), bins=30, range=limits, histtype="stepfilled", color=_SERIES[0])
        axes.set_xlim(limits)
        axes.set_xlabel(label)
        axes.locator_params(axis="x", nbins=5)
        axes.locator_params(axis="y", integer=True)
        axes.grid(visible=False, axis="x")

    return _svg(label, draw)


def ranked(label: str, values: Float[Tensor, " n"]) -> str:
    """The values, largest first."""

    def draw(axes: Any) -> None:
        ordered = values.sort(descending=True).values.tolist()
        axes.fill_between(range(len(ordered) + 1), [*ordered[:1], *ordered], step="pre", color=_SERIES[0])
        axes.set_xlim(0, len(ordered))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("unit, by rank")

    return _svg(label, draw)


def agreement(label: str, x: Float[Tensor, " n"], y: Float[Tensor, " n"], names: tuple[str, str]) -> str:
    """Pairs of probabilities as dots, and the diagonal on which they would be equal."""

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.75)
        axes.scatter(x.tolist(), y.tolist(), s=14, color=_SERIES[0], alpha=0.7, linewidths=0, rasterized=len(x) > 1000)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel=names[0], ylabel=names[1])

    return _svg(label, draw, height=3.5)


def _draw_curve(axes: Any, curve: Curve, colour: str) -> None:
    steps, values = _thinned(curve.steps), _thinned(curve.values)
    axes.plot(steps, values, color=colour, marker="o" if len(steps) < 30 else None, markersize=2.5)
    if curve.errors:
        errors = _thinned(curve.errors)
        low, high = ([v + sign * e for v, e in zip(values, errors, strict=True)] for sign in (-1, 1))
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)


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


def _svg(label: str, draw: Callable[[Any], None], width: float = 3.5, height: float = 2.2) -> str:
    """A figure as <svg> to be put into a page, in the page's colours and font; `label` is read out in its place."""
    import matplotlib
    from matplotlib.figure import Figure

    text = StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": label}):
        figure = Figure(figsize=(width, height))
        draw(figure.add_axes(_AXES))
        figure.savefig(text, format="svg", transparent=True, metadata=_METADATA)
    _, _, svg = text.getvalue().partition("<svg ")
    svg = _PRIVATE.sub("", svg)
    for placeholder, colour in _COLOURS.items():
        svg = svg.replace(placeholder, colour)
    return f'<svg role="img" aria-label="{escape(label)}" {svg}'
