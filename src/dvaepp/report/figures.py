"""The paper's figures about smoothings, computed from the smoothings themselves, as PNG and SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.concrete import Concrete
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.smoothings.spike import SpikeExponential
from dvaepp.storage import AnyPath, replacing

BETAS = (5.0, 8.0, 12.0)
_STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "dvaepp"}
_COLOURS = ("#2c74c4", "#d4621c", "#3a9a5b")
_POINTS = 20_000


def write_figure(name: str, target: AnyPath) -> list[Path]:
    """Draw a figure of FIGURES into target, or where that has no suffix into target.png and target.svg.

    Returns what was written; raises InputError for other suffixes.
    """
    target = Path(target)
    suffixes = [target.suffix] if target.suffix else [".png", ".svg"]
    if target.is_dir() or not set(suffixes) <= {".png", ".svg"}:
        raise InputError(f"{target} must name a file that ends in .png or .svg, or has no suffix for both")
    paths = [target.with_name(target.stem + suffix) for suffix in suffixes]
    for path in paths:
        save_figure(path, FIGURES[name], (9, 3.2))
    return paths


def save_figure(path: Path, draw: Callable[[Any], None], size: tuple[float, float]) -> None:
    """Draw a figure of this size, inches, into a PNG or SVG; InputError for other suffixes."""
    if path.suffix not in (".png", ".svg"):
        raise InputError(f"{path} must end in .png or .svg")
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        with replacing(path) as temporary:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(temporary, format=path.suffix[1:], dpi=160, metadata=metadata)


def figure_1(figure: Any) -> None:
    """Fig. 1: the densities r(zeta | z), and the inverse CDF at rho = 1/2 against spike-and-exponential."""
    left, right = figure.subplots(1, 2)
    zeta, q = torch.linspace(0, 1, 401), torch.linspace(0.001, 0.999, 999)
    for beta, colour in zip(BETAS, _COLOURS, strict=True):
        smoothing = OverlappingExponential(beta)
        left.plot(zeta, smoothing.log_prob0(zeta).exp(), color=colour, label=rf"$r(\zeta\,|\,0)$, $\beta$ = {beta:g}")
        left.plot(zeta, smoothing.log_prob1(zeta).exp(), color=colour, linestyle="--")
        right.plot(q, median(smoothing, q), color=colour, label=rf"mixture, $\beta$ = {beta:g}")
    right.plot(q, median(SpikeExponential(BETAS[1]), q), color="black", label=rf"spike-and-exp, $\beta$ = {BETAS[1]:g}")
    left.set(xlabel=r"$\zeta$", ylabel="density", title=r"a) $r(\zeta\,|\,0)$ and, dashed, $r(\zeta\,|\,1)$")
    right.set(xlabel=r"$q(z = 1\,|\,x)$", ylabel=r"$\zeta$", title=r"b) inverse CDF at $\rho$ = 0.5")
    for axes, place in ((left, "upper center"), (right, "upper left")):
        axes.legend(frameon=False, fontsize=8, loc=place)


def figure_concrete(figure: Any) -> None:
    """Appendix C: overlapping exponentials against Concrete, d zeta / dq at q = 1/2 by how far zeta is from a bit."""
    curves, mean, spread = figure.subplots(1, 3)
    q = torch.linspace(0.001, 0.999, 999)
    families: Sequence[tuple[str, Callable[[float], Smoothing], Iterable[float]]] = (
        ("mixture of exponentials", OverlappingExponential, torch.linspace(4, 20, 33).tolist()),
        ("Concrete", lambda sharpness: Concrete(1 / sharpness), torch.logspace(0.15, 1.35, 33).tolist()),
    )
    for (name, make, sharpnesses), colour in zip(families, _COLOURS, strict=False):
        measured = [sharpness_and_gradient(make(value)) for value in sharpnesses]
        distances = [each.distance for each in measured]
        mean.plot(distances, [each.mean_gradient for each in measured], color=colour, label=name)
        spread.plot(distances, [each.gradient_sd for each in measured], color=colour, label=name)
    for beta, style in zip(BETAS[:2], ("-", "--"), strict=True):
        smoothing = OverlappingExponential(beta)
        matched = Concrete(matching_temperature(sharpness_and_gradient(smoothing).distance))
        label = rf"$\beta$ = {beta:g}", f"T = {matched.temperature:.2f}"
        for each, colour, text in zip((smoothing, matched), _COLOURS, label, strict=False):
            curves.plot(q, median(each, q), color=colour, linestyle=style, label=text)
    curves.set(xlabel="q", ylabel=r"$\zeta$", title=r"a) inverse CDF at $\rho$ = 0.5")
    mean.axhline(1, color="grey", linewidth=0.8)
    mean.set(xlabel=r"mean distance of $\zeta$ to 0 or 1", title=r"b) mean of $d\zeta/dq$ (of a bit: 1)")
    spread.set(xlabel=r"mean distance of $\zeta$ to 0 or 1", title=r"c) its standard deviation", yscale="log")
    for axes in (curves, mean, spread):
        axes.legend(frameon=False, fontsize=8)


FIGURES: dict[str, Callable[[Any], None]] = {"1": figure_1, "concrete": figure_concrete}


def median(smoothing: Smoothing, q: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The inverse CDF at rho = 1/2 of bits with these probabilities."""
    return smoothing(torch.logit(q)).icdf(torch.full_like(q, 0.5))


@dataclass(frozen=True)
class Sharpness:
    """E[min(zeta, 1 - zeta)], and mean and standard deviation of d zeta / dq, for a bit with q = 1/2."""

    distance: float
    mean_gradient: float
    gradient_sd: float


def sharpness_and_gradient(smoothing: Smoothing) -> Sharpness:
    """By the midpoint rule over rho, in double precision; d zeta / dq = (d zeta / dlogit) / (q (1 - q))."""
    logits = torch.zeros(_POINTS, dtype=torch.float64, requires_grad=True)
    rho = (torch.arange(_POINTS, dtype=torch.float64) + 0.5) / _POINTS
    zeta = smoothing(logits).icdf(rho)
    (gradient,) = torch.autograd.grad(zeta.sum(), logits)
    distance = torch.minimum(zeta, 1 - zeta).mean().detach()
    return Sharpness(float(distance), float(4 * gradient.mean()), float(4 * gradient.std()))


def matching_temperature(distance: float) -> float:
    """The temperature at which Concrete is as far from a bit, by bisection."""
    low, high = 0.01, 10.0
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if sharpness_and_gradient(Concrete(middle)).distance < distance else (low, middle)
    return middle
