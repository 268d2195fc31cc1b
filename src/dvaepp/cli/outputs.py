"""The commands whose whole work is a file of pictures, arrays or columns: sample, encode, decode, complete, .."""

from __future__ import annotations

import math
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvaepp.cli.run_folder import check_output, opened, used
from dvaepp.data import Examples
from dvaepp.data.formats import content, table
from dvaepp.errors import InputError
from dvaepp.recipes.recipe import Recipe
from dvaepp.report.figures import write_figure
from dvaepp.runs.codes import read_codes, read_local
from dvaepp.runs.completed import completed_table
from dvaepp.runs.pictures import (
    GREY,
    check_picture_name,
    columns_for,
    enlargement,
    grid,
    local_samples,
    samples,
    save_grid,
    white,
)
from dvaepp.runs.progress import console
from dvaepp.runs.run import Run
from dvaepp.storage import check_columns_name, write_arrays, write_columns


def sample(arguments: Namespace) -> None:
    """Pictures, arrays or rows of a table from the prior."""
    check_output(arguments.output, arguments.clamp)
    if Path(arguments.output).suffix in (".csv", ".parquet"):
        _sample_rows(arguments)
        return
    if arguments.clamp is not None:
        _sample_clamped(arguments)
        return
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


def _sample_rows(arguments: Namespace) -> None:
    """Draws x ~ p(x | z) p(z) as rows of a table, one for each line of clamped bits if there are any."""
    path, run = Path(arguments.output), used(arguments)
    given = None if arguments.clamp is None else _clamped(arguments)
    drawn = run.sample(arguments.rows if given is None else len(given), clamp=given, seed=arguments.seed)
    save_columns(path, run.cells(drawn))


def _clamped(arguments: Namespace) -> Any:
    """Bits by line of a file, NaN where they are free."""
    clamp = existing(arguments.clamp)
    return table(content(clamp), clamp, "absent", numbers=True, gaps=True)


def _sample_clamped(arguments: Namespace) -> None:
    """In every row means of p(x | z) for other draws of z, given the bits in a line of a file."""
    path, given, run = Path(arguments.output), _clamped(arguments), used(arguments)
    _check_picture(path, len(given), arguments.columns, run.shape)
    each = given.repeat(arguments.columns, 0)
    means = run.sample(len(each), means=True, clamp=each, seed=arguments.seed)
    shaped = means.reshape(len(given), arguments.columns, *run.shape)
    if path.suffix == ".npz":
        save_arrays(path, means=shaped)
    else:
        _write_picture(path, torch.from_numpy(shaped).flatten(2), run.shape, run.recipe)


def encode(arguments: Namespace) -> None:
    """Codes of data."""
    path = Path(arguments.output)
    check_columns_name(path)
    check_output(arguments.output, arguments.data)
    run = used(arguments)
    examples, codes = run.coded(arguments.data, hard=arguments.hard, seed=arguments.seed)
    kind = "means" if run.normal else "codes" if arguments.hard else "probabilities"
    groups = {"groups": np.array(run.recipe.model.groups)} if path.suffix == ".npz" else {}
    if arguments.local:
        if path.suffix != ".npz":
            raise InputError(f"--local writes arrays of several axes, and {path} must end in .npz")
        local = run.local_codes(arguments.data, seed=arguments.seed)
        groups |= {f"local_{place}": h for place, h in enumerate(local, 1)}
    save_columns(path, {**known(examples), kind: codes, **groups})


def decode(arguments: Namespace) -> None:
    """Means of p(x | z)."""
    check_output(arguments.output, arguments.codes)
    run = used(arguments)
    codes = read_codes(existing(arguments.codes), run.model.prior, sum(run.recipe.model.groups))
    path = Path(arguments.output)
    columns = columns_for(len(codes))
    _check_picture(path, math.ceil(len(codes) / columns), columns, run.shape)
    local = read_local(Path(arguments.codes), run.recipe.model.convolutional)
    means = torch.from_numpy(run.decode(codes, local=local)).flatten(1)
    if path.suffix == ".npz":
        save_arrays(path, means=means.reshape(-1, *run.shape).numpy())
    else:
        blank = means.new_zeros(-len(means) % columns, means.shape[1])
        _write_picture(path, torch.cat([means, blank]).reshape(-1, columns, means.shape[1]), run.shape, run.recipe)


def complete(arguments: Namespace) -> None:
    """Examples whose missing values are drawn given the others."""
    check_output(arguments.output, arguments.data, arguments.mask)
    path, run = Path(arguments.output), used(arguments)
    if path.suffix not in (".npz", ".csv", ".parquet"):
        check_picture_name(path)
        _check_picture(path, 1, 3, run.shape)
    data = arguments.data if arguments.data in ("train", "valid", "test") else existing(arguments.data)
    found = run.complete(data, arguments.mask, sweeps=arguments.sweeps, seed=arguments.seed)
    console.print(f"accepted {found.acceptance:.1%} of the chains' proposals", style="dim")
    if found.acceptance * arguments.sweeps < 3:
        console.print("few proposals were accepted: these are hardly draws given what is there; more --sweeps help")
    if path.suffix == ".npz":
        save_arrays(path, samples=found.samples, means=found.means, missing=found.missing)
    elif path.suffix in (".csv", ".parquet"):
        drawn = run.cells(found.samples)
        save_columns(path, drawn if isinstance(data, str) else completed_table(data, run.reading, drawn, found.missing))
    else:
        gaps = np.where(found.missing, GREY * white(run.recipe), found.means)
        shown = np.stack([gaps, found.samples, found.means], 1).reshape(len(gaps), 3, -1)
        _check_picture(path, *shown.shape[:2], run.shape)
        _write_picture(path, torch.from_numpy(shown).float(), run.shape, run.recipe)


def interpolate(arguments: Namespace) -> None:
    """Means on the way from the code of one example to that of another."""
    check_output(arguments.output, arguments.first, arguments.second)
    run, path = used(arguments), Path(arguments.output)
    first, second = (_one(run, name) for name in (arguments.first, arguments.second))
    means = run.interpolate(first, second, steps=arguments.steps, seed=arguments.seed)
    _check_picture(path, len(means), arguments.steps, run.shape)
    if path.suffix == ".npz":
        save_arrays(path, means=means)
    else:
        _write_picture(path, torch.from_numpy(means).flatten(2), run.shape, run.recipe)


def _one(run: Run, name: str) -> Any:
    """The test example of this number, counted from 0, or those at a path."""
    if not name.isdecimal():
        return existing(name)
    test = run.data.test
    if int(name) >= len(test):
        raise InputError(f"test example {name} is not among the {len(test):,}, which are counted from 0")
    return test[int(name)][None].reshape(1, *run.shape)


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


def known(examples: Examples) -> dict[str, Any]:
    """Columns that say which examples these are: rows or files' names, and labels where they are known."""
    name = "example" if examples.ids.dtype.kind == "U" else "index"
    return {name: examples.ids, **({} if examples.labels is None else {"label": examples.labels})}


def save_columns(path: Path, columns: dict[str, Any]) -> None:
    write_columns(path, columns)
    console.print(f"wrote {path}")


def save_arrays(path: Path, **arrays: Any) -> None:
    write_arrays(path, **arrays)
    console.print(f"wrote {path}")
