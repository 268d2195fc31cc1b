"""The commands whose whole work is a file of pictures or arrays: sample, encode, decode, figure."""

from __future__ import annotations

import math
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvaepp.cli.run_folder import opened
from dvaepp.errors import InputError
from dvaepp.models.base import measuring
from dvaepp.priors.normal import NormalPrior
from dvaepp.randomness import stream_seed
from dvaepp.recipes.recipe import Recipe
from dvaepp.report.figures import write_figure
from dvaepp.report.pictures import columns_for, enlargement, grid, local_samples, samples, save_grid, white
from dvaepp.runs.codes import read_codes
from dvaepp.runs.progress import console
from dvaepp.storage import check_arrays_name, write_arrays


def sample(arguments: Namespace) -> None:
    """Pictures or arrays from the prior."""
    run = opened(arguments)
    trained, path = run.model(arguments.last, arguments.device), Path(arguments.output)
    size = (arguments.rows, arguments.columns, arguments.seed)
    _check_picture(path, arguments.rows, arguments.columns, trained.shape)
    if run.recipe.model.convolutional is not None:
        means, draws = local_samples(trained.model, *size)
        shown = means
    else:
        shown = samples(trained.model, *size)
        means, draws = shown[:, 0], shown[:, 1:]
    if path.suffix == ".npz":
        arrays = {"means": means, "samples": draws}
        save_arrays(path, **{name: x.reshape(*x.shape[:-1], *trained.shape).numpy() for name, x in arrays.items()})
    else:
        _write_picture(path, shown, trained.shape, run.recipe)


def encode(arguments: Namespace) -> None:
    """Codes of data."""
    run = opened(arguments)
    trained = run.model(arguments.last, arguments.device)
    normal = isinstance(trained.model.prior, NormalPrior)
    if normal and arguments.hard:
        raise InputError(f"the global variables of {arguments.run} are normal: they have no bits, leave out --hard")
    check_arrays_name(Path(arguments.output))
    with measuring(trained.model, stream_seed("codes", arguments.seed)):
        if arguments.data in ("train", "valid", "test"):
            known = run.data_for(trained)
            split = getattr(known, arguments.data)
            x = known.batch(torch.arange(len(split))) if arguments.data == "train" else split.float()
        else:
            read, shape = run.recipe.read_examples(existing(arguments.data))
            if shape != trained.shape:
                raise InputError(f"{arguments.data} holds examples of shape {shape}, the run's model {trained.shape}")
            x = read.float()
        pieces = [trained.model.code(piece.to(trained.device)).cpu() for piece in torch.split(x, 1000)]
    logits = torch.cat(pieces)
    groups = np.array(run.recipe.model.groups)
    if normal:
        save_arrays(Path(arguments.output), means=logits.numpy(), groups=groups)
    elif arguments.hard:
        save_arrays(Path(arguments.output), codes=(logits > 0).to(torch.uint8).numpy(), groups=groups)
    else:
        save_arrays(Path(arguments.output), probabilities=torch.sigmoid(logits).numpy(), groups=groups)


def decode(arguments: Namespace) -> None:
    """Means of p(x | z)."""
    run = opened(arguments)
    trained = run.model(arguments.last, arguments.device)
    codes = read_codes(existing(arguments.codes), trained.model.prior, sum(run.recipe.model.groups))
    path = Path(arguments.output)
    columns = columns_for(len(codes))
    _check_picture(path, math.ceil(len(codes) / columns), columns, trained.shape)
    with measuring(trained.model, stream_seed("decoded codes")):
        pieces = [trained.model.decode(piece.to(trained.device)).mean.cpu() for piece in torch.split(codes, 1000)]
    means = torch.cat(pieces)
    if path.suffix == ".npz":
        save_arrays(path, means=means.reshape(-1, *trained.shape).numpy())
    else:
        blank = means.new_zeros(-len(means) % columns, means.shape[1])
        _write_picture(path, torch.cat([means, blank]).reshape(-1, columns, means.shape[1]), trained.shape, run.recipe)


def figure(arguments: Namespace) -> None:
    """A figure of the paper."""
    if arguments.name == "4":
        _figure_4(arguments)
        return
    for option in ("run", "rows", "columns"):
        if getattr(arguments, option) is not None:
            raise InputError(f"figure {arguments.name} is not of a run: --{option} goes with figure 4")
    for path in write_figure(arguments.name, Path(arguments.output or f"figure-{arguments.name}")):
        console.print(f"wrote {path}")


def _figure_4(arguments: Namespace) -> None:
    if arguments.run is None:
        raise InputError("figure 4 shows samples of a trained model: --run names its folder")
    run = opened(arguments)
    trained = run.model(arguments.last, arguments.device)
    if run.recipe.model.convolutional is None:
        raise InputError(f"figure 4 varies local variables, and the model of {arguments.run} has none")
    path, rows, columns = Path(arguments.output or "figure-4.png"), arguments.rows or 5, arguments.columns or 5
    _check_picture(path, rows, columns, trained.shape)
    shown, _ = local_samples(trained.model, rows, columns, arguments.seed)
    _write_picture(path, shown, trained.shape, run.recipe)


def existing(name: str) -> Path:
    path = Path(name)
    if not path.exists():
        raise InputError(f"{name} does not exist")
    return path


def _check_picture(path: Path, rows: int, columns: int, shape: tuple[int, ...]) -> None:
    """InputError before any work where so many images make no picture; .npz takes any number."""
    if path.suffix != ".npz":
        enlargement(rows, columns, shape)


def _write_picture(path: Path, drawn: torch.Tensor, shape: tuple[int, ...], recipe: Recipe) -> None:
    """(rows, columns, pixels) as a grid of images."""
    save_grid(path, grid(drawn, shape, white(recipe)))
    console.print(f"wrote {path}")


def save_arrays(path: Path, **arrays: Any) -> None:
    write_arrays(path, **arrays)
    console.print(f"wrote {path}")
