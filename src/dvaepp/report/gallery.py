"""Sections of a report that show the model itself: samples, reconstructions, the prior, latent units."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from dvaepp.boltzmann.ising import to_qubo
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError
from dvaepp.evaluation.scores import unit_variances
from dvaepp.models.base import measuring
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.priors.directed import BernoulliPrior, DirectedPrior
from dvaepp.priors.normal import NormalPrior
from dvaepp.randomness import stream_seed
from dvaepp.report import plots
from dvaepp.report.page import parts, picture
from dvaepp.report.subject import Subject
from dvaepp.runs import pictures
from dvaepp.smoothings.binary import hard

_ROWS, _DRAWS, _REAL, _LOCAL_COLUMNS = 6, 4, 3, 5
"""Rows of samples; columns of draws, of real examples beside them, and of local variables."""
_RECONSTRUCTED = 8
_PIECE = 100
"""Examples that a model with local variables sees at a time."""


def samples(subject: Subject) -> list[Markup]:
    """Images from the prior beside real ones; nothing where examples are rows of a table."""
    trained = subject.trained
    if len(trained.shape) == 1:
        return []
    if subject.local is not None:
        means, _ = pictures.local_samples(trained.model, _ROWS, _LOCAL_COLUMNS)
        shown = {"Means": means}
        what = (
            "The mean of p(x | z, h) for the pixels of the finest scale, given one draw of the coarser ones"
            if subject.local.conditional
            else "The mean of p(x | z, h)"
        )
        each = (
            f"one z from the prior, seen through {_LOCAL_COLUMNS} draws of the local variables h from p(h | z). {what}"
        )
    else:
        drawn = pictures.samples(trained.model, _ROWS, 1 + _DRAWS)
        shown = {"Mean": drawn[:, :1], "Draws": drawn[:, 1:]}
        each = "one z from the prior, the mean of p(x | z), and draws from it"
    real, why = _real(subject)
    grids = {name: _grid(subject, images) for name, images in (shown | real).items()}
    figures = [
        parts.figure(picture(grid, f"{name} of p(x | z)" if name in shown else name), name)
        for name, grid in grids.items()
    ]
    return [
        parts.panels([grid.width for grid in grids.values()], figures),
        parts.note(f"Each row: {each}. Model of step {trained.step:,}.{why}"),
    ]


def _real(subject: Subject) -> tuple[dict[str, Float[Tensor, "rows columns pixels"]], str]:
    """Validation examples from all over the split, grey where there are not enough, or why there are none."""
    try:
        valid = subject.data.valid.float()
    except InputError as error:
        return {}, f" Real examples are not shown: {error}."
    count = min(len(valid), _ROWS * _REAL)
    columns = math.ceil(count / _ROWS)
    blank = valid.new_full(
        (_ROWS * columns - count, valid.shape[1]), pictures.white(subject.run.recipe) * pictures.GREY
    )
    chosen = valid[torch.linspace(0, len(valid) - 1, count).long()]
    return {"Real examples": torch.unflatten(torch.cat([chosen, blank]), 0, (_ROWS, columns))}, ""


def _grid(subject: Subject, images: Float[Tensor, "rows columns pixels"]) -> Image.Image:
    return pictures.grid(images, subject.trained.shape, pictures.white(subject.run.recipe))


def reconstructions(subject: Subject) -> list[Markup]:
    """Validation examples above what the model makes of them; nothing where they are rows of a table."""
    trained = subject.trained
    if len(trained.shape) == 1:
        return []
    x = subject.valid[:_RECONSTRUCTED]
    made = "Mean of p(x | z, h), for each x one z and h" if subject.local else "Mean of p(x | z), for each x one z"
    texts = (
        f"{subject.called[0].upper()}{subject.called[1:]}: x",
        f"{made} from q({'z, h' if subject.local else 'z'} | x)",
    )
    images = [_grid(subject, values[None]) for values in (x, pictures.reconstructions(trained.model, x))]
    return [parts.figure(picture(image, text), text) for image, text in zip(images, texts, strict=True)]


def prior(subject: Subject) -> list[Markup]:
    """Couplings and biases of a Boltzmann machine, probabilities of independent bits."""
    prior = subject.trained.model.prior
    if isinstance(prior, BoltzmannPrior):
        return _machine(prior.machine)
    if isinstance(prior, NormalPrior):
        return [parts.note(f"{len(prior.mean)} standard normal variables: nothing of this prior is learned.")]
    first = prior.first if isinstance(prior, DirectedPrior) else prior
    if not isinstance(first, BernoulliPrior):
        raise InputError(f"there is no picture of a {type(prior).__name__}")
    probabilities = torch.sigmoid(first.bias.detach()).cpu()
    alone = len(subject.run.recipe.model.groups) == 1 or first is prior
    which = "bits" if alone else "bits of the first group, on which the others depend"
    bars = plots.histogram("p(z = 1)", probabilities, (0.0, 1.0))
    return [parts.columns([parts.figure(bars, f"The {len(probabilities)} {which}")])]


def _machine(machine: BoltzmannMachine) -> list[Markup]:
    """Couplings as an image, without the blocks that are zero by construction, and histograms."""
    biases = parts.figure(plots.histogram("b", machine.bias.detach().cpu()), f"The {machine.bits:,} biases b")
    if len(machine.blocks) == 1:
        return [parts.columns([biases])]
    matrix = machine.coupling_matrix().detach().cpu()[: -machine.blocks[-1], machine.blocks[0] :]
    weights = torch.from_numpy(-to_qubo(machine).quadratic)
    scale = float(np.quantile(weights.abs(), 0.99)) or 1.0
    text = f"Couplings J between {matrix.shape[0]} bits (down) and {matrix.shape[1]} (across)"
    image = parts.figure(
        picture(pictures.signed(matrix, scale), "Couplings"), text, ends=(f"≤ −{scale:.2g}", f"≥ {scale:.2g}")
    )
    bars = parts.figure(plots.histogram("J", weights), f"The {len(weights):,} couplings J")
    return [parts.columns([image, bars + biases])]


def units(subject: Subject) -> list[Markup]:
    """How much each global variable varies with x."""
    model, x = subject.trained.model, subject.valid
    if len(x) < 2:
        raise InputError("a single validation example has no variance")
    pieces = torch.split(x, _PIECE) if subject.local else (x,)
    with measuring(model, stream_seed("active units")):
        draws = [[model(piece, hard).posterior for piece in pieces] for _ in range(2)]
    mu = torch.stack([torch.cat([posterior.mu for posterior in draw]) for draw in draws], 1)
    variances = torch.split(unit_variances(mu).cpu(), list(draws[0][0].sizes))
    over = f"variance of E[z | x] over {len(x)} {subject.called}"
    named = {f"Group {k}: {over}": values for k, values in enumerate(variances, 1)}
    return [parts.columns([parts.figure(plots.ranked(text, values), text) for text, values in named.items()])]
