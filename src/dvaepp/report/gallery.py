"""Sections of a report that show the model itself: samples, reconstructions, the prior, latent units."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Shaped
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
from dvaepp.report import page, pictures, plots
from dvaepp.report.subject import Subject
from dvaepp.smoothings.binary import hard

_ROWS, _COLUMNS, _LOCAL_COLUMNS, _TABLE_SAMPLES = 6, 8, 5, 2000
_PIECE = 100
"""Examples that a model with local variables sees at a time."""


def samples(subject: Subject) -> str:
    """Images from the prior, or what stands for them where examples are rows of a table."""
    trained = subject.trained
    if len(trained.shape) == 1:
        return _columns(subject)
    if subject.local is not None:
        return _local_samples(subject)
    drawn = pictures.samples(trained.model, _ROWS, _COLUMNS)
    images = [_grid(subject, part) for part in (drawn[:, :1], drawn[:, 1:])]
    names = ("Mean", "Draws")
    figures = [page.figure(page.picture(i, f"{n} of p(x | z)"), n) for i, n in zip(images, names, strict=True)]
    note = f"Each row: one z from the prior, the mean of p(x | z), and draws from it. Model of step {trained.step:,}."
    return page.panels(figures, [image.width for image in images]) + page.paragraph(note, "note")


def _local_samples(subject: Subject) -> str:
    means, _ = pictures.local_samples(subject.trained.model, _ROWS, _LOCAL_COLUMNS)
    text = f"Each row: one z from the prior, seen through {_LOCAL_COLUMNS} draws of the local variables h from p(h | z)"
    assert subject.local is not None
    shown = (
        "The mean of p(x | z, h) for the pixels of the finest scale, given one draw of the coarser ones"
        if subject.local.conditional
        else "The mean of p(x | z, h)"
    )
    note = f"{shown}. Model of step {subject.trained.step:,}."
    return page.figure(page.picture(_grid(subject, means), text), text) + page.paragraph(note, "note")


def _grid(subject: Subject, images: Float[Tensor, "rows columns pixels"]) -> Image.Image:
    return pictures.grid(images, subject.trained.shape, pictures.white(subject.run.recipe))


def _columns(subject: Subject) -> str:
    """What the columns of a table hold on average, against the model's draws."""
    model, data = subject.trained.model, subject.run.data_for(subject.trained)
    if data.kind == "categories":
        drawn = pictures.samples(model, _TABLE_SAMPLES, 2)[:, 1]
        known, modelled = (_shares(x, data.categories) for x in (data.train, drawn))
        dots = plots.agreement("Shares", known, modelled, ("share of training data", "share of the model's draws"))
        text = f"A dot for each category of each of {data.pixels} columns; the model's share is of {_TABLE_SAMPLES:,} x"
        return page.columns(page.figure(dots, text))
    known, modelled = data.mean, pictures.samples(model, _TABLE_SAMPLES, 1)[:, 0].mean(0)
    axes = ("mean of training data", "mean of the model")
    dots = plots.agreement(
        "Column means", known, modelled, axes, (0.0, 1.0) if data.kind == "bits" else _ends(known, modelled)
    )
    text = f"A dot for each of {len(modelled)} columns; the model's mean is over {_TABLE_SAMPLES:,} z from the prior"
    return page.columns(page.figure(dots, text))


def _shares(x: Shaped[Tensor, "n columns"], categories: int) -> Float[Tensor, " shares"]:
    """How often each category occurs in each column."""
    counts = [torch.bincount(column, minlength=categories) for column in x.long().T]
    return torch.cat(counts) / len(x)


def _ends(*values: Float[Tensor, " n"]) -> tuple[float, float]:
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    return low, high if high > low else low + 1


def reconstructions(subject: Subject) -> str:
    """Validation examples above what the model makes of them."""
    trained = subject.trained
    if len(trained.shape) == 1:
        raise InputError("rows of a table have no picture")
    x = subject.valid[:_COLUMNS]
    made = "Mean of p(x | z, h), for each x one z and h" if subject.local else "Mean of p(x | z), for each x one z"
    texts = ("Validation examples x", f"{made} from q({'z, h' if subject.local else 'z'} | x)")
    images = [_grid(subject, values[None]) for values in (x, pictures.reconstructions(trained.model, x))]
    return "\n".join(page.figure(page.picture(i, text), text) for i, text in zip(images, texts, strict=True))


def prior(subject: Subject) -> str:
    """Couplings and biases of a Boltzmann machine, probabilities of independent bits."""
    prior = subject.trained.model.prior
    if isinstance(prior, BoltzmannPrior):
        return _machine(prior.machine)
    if isinstance(prior, NormalPrior):
        return page.paragraph(f"{len(prior.mean)} standard normal variables: nothing of this prior is learned.", "note")
    first = prior.first if isinstance(prior, DirectedPrior) else prior
    if not isinstance(first, BernoulliPrior):
        raise InputError(f"there is no picture of a {type(prior).__name__}")
    probabilities = torch.sigmoid(first.bias.detach()).cpu()
    which = "bits" if first is prior else "bits of the first group, on which the others depend"
    bars = plots.histogram("p(z = 1)", probabilities, (0.0, 1.0))
    return page.columns(page.figure(bars, f"The {len(probabilities)} {which}"))


def _machine(machine: BoltzmannMachine) -> str:
    """Couplings as an image, without the blocks that are zero by construction, and histograms."""
    biases = page.figure(plots.histogram("b", machine.bias.detach().cpu()), f"The {machine.bits:,} biases b")
    if len(machine.blocks) == 1:
        return page.columns(biases)
    matrix = machine.coupling_matrix().detach().cpu()[: -machine.blocks[-1], machine.blocks[0] :]
    weights = torch.from_numpy(-to_qubo(machine).quadratic)
    scale = float(np.quantile(weights.abs(), 0.99)) or 1.0
    image = page.picture(pictures.signed(matrix, scale), "Couplings")
    ends = page.key(f"≤ −{scale:.2f}", f"≥ {scale:.2f}", (pictures.NEGATIVE, pictures.POSITIVE))
    text = f"Couplings J between {matrix.shape[0]} bits (down) and {matrix.shape[1]} (across)"
    bars = page.figure(plots.histogram("J", weights), f"The {len(weights):,} couplings J")
    return page.columns(page.figure(image, text, ends), bars + biases)


def units(subject: Subject) -> str:
    """How much each global variable varies with x."""
    model, x = subject.trained.model, subject.valid
    if len(x) < 2:
        raise InputError("a single validation example has no variance")
    pieces = torch.split(x, _PIECE) if subject.local else (x,)
    with measuring(model, stream_seed("active units")):
        draws = [[model(piece, hard).posterior for piece in pieces] for _ in range(2)]
    mu = torch.stack([torch.cat([posterior.mu for posterior in draw]) for draw in draws], 1)
    variances = torch.split(unit_variances(mu).cpu(), list(draws[0][0].sizes))
    over = f"variance of E[z | x] over {len(x)} validation examples"
    named = {f"Group {k}: {over}": values for k, values in enumerate(variances, 1)}
    return page.columns(*(page.figure(plots.ranked(text, values), text) for text, values in named.items()))
