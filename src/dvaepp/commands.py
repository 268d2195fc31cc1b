"""What each command does, given its parsed arguments."""

from __future__ import annotations

import shlex
from argparse import Namespace
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvaepp import data, distributed
from dvaepp.console import console, print_scores, processes, progress, show_metrics, tensorboard
from dvaepp.errors import InputError
from dvaepp.evaluation import measuring
from dvaepp.experiments import catalogue, results
from dvaepp.experiments import run as runs
from dvaepp.experiments.codes import read_codes
from dvaepp.experiments.figures import write_figure
from dvaepp.experiments.pictures import grid, local_samples, samples, save_grid, white
from dvaepp.experiments.recipe import Recipe, override
from dvaepp.experiments.report import write_report
from dvaepp.experiments.run import Run
from dvaepp.experiments.settings import EvaluationSettings
from dvaepp.latent.exchange import write_model
from dvaepp.latent.normal import NormalPrior
from dvaepp.latent.priors import BoltzmannPrior
from dvaepp.latent.quadratic import to_ising, to_qubo
from dvaepp.storage import check_arrays_name, check_target, locked, write_arrays, write_json, write_text
from dvaepp.training import Metrics


def list_(arguments: Namespace) -> None:
    """Recipes and data sets."""
    console.print("Data sets, or your own with --data FILE_OR_FOLDER", style="bold")
    for name in data.NAMES:
        console.print(f"  {name:24} {data.describe(name)}")
    console.print("Recipes, for `dvaepp train RECIPE --size tiny|small|paper`", style="bold")
    for name in catalogue.names():
        console.print(f"  {name:44} {catalogue.find(name).about}")


def show(arguments: Namespace) -> None:
    """A recipe as JSON."""
    print(_recipe(arguments).model_dump_json(indent=2))


def train(arguments: Namespace) -> None:
    """Train a recipe into a new run folder."""
    recipe = _recipe(arguments)
    size = f"-{arguments.size or 'small'}" if not arguments.recipe.endswith(".json") else ""
    default = f"runs/{recipe.name.replace('/', '_')}{size}-seed{arguments.seed}"
    if arguments.data_dir is not None and not Path(arguments.data_dir).is_dir():
        raise InputError(f"--data-dir {arguments.data_dir} is not a folder")
    if arguments.out == "":
        raise InputError("--out must name a folder")
    create = partial(
        Run.create,
        recipe,
        Path(arguments.out or default),
        seed=arguments.seed,
        device=arguments.device,
        threads=arguments.threads,
        data_dir=arguments.data_dir,
        command=arguments.command_line,
    )
    with processes(arguments.device):
        _fit(distributed.on_first(create))


def resume(arguments: Namespace) -> None:
    """Go on with a run."""
    run = Run(Path(arguments.run))
    if not run.folder.is_dir():
        raise InputError(f"{run.folder / 'run.json'} does not exist; expected a run folder")
    with processes(run.record.device):
        _fit(run)


def evaluate(arguments: Namespace) -> None:
    """Score a run; print the scores and keep them."""
    run = Run(Path(arguments.run))
    changes = {name: getattr(arguments, name) for name in ("samples", "examples", "temperatures", "chains")}
    settings = run.recipe.evaluation.model_copy(update={k: v for k, v in changes.items() if v is not None})
    if arguments.all:
        settings = settings.model_copy(update={"examples": None})
    if arguments.quick:
        settings = settings.model_copy(update={"thorough": False})
    if arguments.per_example:
        check_arrays_name(Path(arguments.per_example))
        check_target(Path(arguments.per_example))
    if arguments.results:
        check_target(Path(arguments.results) / run.recipe.name / f"seed{run.seed}.json")
    torch.set_num_threads(run.record.threads)
    with processes(arguments.device or run.record.device):
        _evaluate(run, settings, arguments)


def _evaluate(run: Run, settings: EvaluationSettings, arguments: Namespace) -> None:
    with progress() as advance:
        scores, result = runs.evaluate(
            run,
            settings,
            split=arguments.split,
            seed=arguments.seed,
            last=arguments.last,
            device=arguments.device,
            command=arguments.command_line,
            megabytes=arguments.megabytes,
            progress=advance,
        )
    if distributed.rank() > 0:
        return
    write_json(run.folder / "scores.json", result)
    if arguments.results:
        write_json(Path(arguments.results) / run.recipe.name / f"seed{run.seed}.json", result)
    if arguments.per_example:
        examples = {f.name: getattr(scores.examples, f.name).numpy() for f in fields(scores.examples)}
        _save_arrays(Path(arguments.per_example), **examples)
    print_scores(scores)


def sample(arguments: Namespace) -> None:
    """Pictures or arrays from the prior."""
    run = Run(Path(arguments.run))
    trained, path = run.model(arguments.last, arguments.device), Path(arguments.output)
    size = (arguments.rows, arguments.columns, arguments.seed)
    if run.recipe.model.convolutional is not None:
        means, draws = local_samples(trained.model, *size)
        shown = means
    else:
        shown = samples(trained.model, *size)
        means, draws = shown[:, 0], shown[:, 1:]
    if path.suffix == ".npz":
        arrays = {"means": means, "samples": draws}
        _save_arrays(path, **{name: x.reshape(*x.shape[:-1], *trained.shape).numpy() for name, x in arrays.items()})
    else:
        _write_picture(path, shown, trained.shape, run.recipe)


def encode(arguments: Namespace) -> None:
    """Codes of data."""
    run = Run(Path(arguments.run))
    trained = run.model(arguments.last, arguments.device)
    normal = isinstance(trained.model.prior, NormalPrior)
    if normal and arguments.hard:
        raise InputError(f"the global variables of {arguments.run} are normal: they have no bits, leave out --hard")
    check_arrays_name(Path(arguments.output))
    with measuring(trained.model, arguments.seed):
        if arguments.data in ("train", "valid", "test"):
            known = run.data_for(trained)
            split = getattr(known, arguments.data)
            x = known.batch(torch.arange(len(split))) if arguments.data == "train" else split.float()
        else:
            read, shape = run.recipe.read_examples(_existing(arguments.data))
            if shape != trained.shape:
                raise InputError(f"{arguments.data} holds examples of shape {shape}, the run's model {trained.shape}")
            x = read.float()
        pieces = [trained.model.code(piece.to(trained.device)).cpu() for piece in torch.split(x, 1000)]
    logits = torch.cat(pieces)
    groups = np.array(run.recipe.model.groups)
    if normal:
        _save_arrays(Path(arguments.output), means=logits.numpy(), groups=groups)
    elif arguments.hard:
        _save_arrays(Path(arguments.output), codes=(logits > 0).to(torch.uint8).numpy(), groups=groups)
    else:
        _save_arrays(Path(arguments.output), probabilities=torch.sigmoid(logits).numpy(), groups=groups)


def decode(arguments: Namespace) -> None:
    """Means of p(x | z)."""
    run = Run(Path(arguments.run))
    trained = run.model(arguments.last, arguments.device)
    codes = read_codes(_existing(arguments.codes), trained.model.prior, sum(run.recipe.model.groups))
    with measuring(trained.model, 0):
        pieces = [trained.model.decode(piece.to(trained.device)).mean.cpu() for piece in torch.split(codes, 1000)]
    means = torch.cat(pieces)
    path = Path(arguments.output)
    if path.suffix == ".npz":
        _save_arrays(path, means=means.reshape(-1, *trained.shape).numpy())
    else:
        columns = min(len(means), 10)
        blank = means.new_zeros(-len(means) % columns, means.shape[1])
        _write_picture(path, torch.cat([means, blank]).reshape(-1, columns, means.shape[1]), trained.shape, run.recipe)


def report(arguments: Namespace) -> None:
    """The HTML page."""
    run = Run(Path(arguments.run))
    path = Path(arguments.output) if arguments.output else run.folder / "report.html"
    write_report(run, path)
    console.print(f"wrote {path}")


def table(arguments: Namespace) -> None:
    """The table of results."""
    text = results.table(Path(arguments.results), arguments.number)
    if arguments.output:
        write_text(Path(arguments.output), text)
    else:
        print(text, end="")


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
    run = Run(Path(arguments.run))
    trained = run.model(arguments.last, arguments.device)
    if run.recipe.model.convolutional is None:
        raise InputError(f"figure 4 varies local variables, and the model of {arguments.run} has none")
    shown, _ = local_samples(trained.model, arguments.rows or 5, arguments.columns or 5, arguments.seed)
    _write_picture(Path(arguments.output or "figure-4.png"), shown, trained.shape, run.recipe)


def prior(arguments: Namespace) -> None:
    """A run's Boltzmann machine as an Ising model or QUBO."""
    boltzmann = Run(Path(arguments.run)).model(arguments.last, arguments.device).model.prior
    if not isinstance(boltzmann, BoltzmannPrior):
        raise InputError(f"the prior of {arguments.run} is a {type(boltzmann).__name__}, not a Boltzmann machine")
    if not arguments.output.endswith(".json"):
        raise InputError(f"{arguments.output} must end in .json")
    form = to_ising if arguments.form == "ising" else to_qubo
    write_model(Path(arguments.output), form(boltzmann.machine))
    console.print(f"wrote {arguments.output}")


def data_(arguments: Namespace) -> None:
    """Fetch or check the files of a data set."""
    if arguments.action == "fetch":
        for path in data.fetch(arguments.name, arguments.data_dir):
            print(path)
        return
    verdicts = data.check(arguments.name, arguments.data_dir)
    for path, verdict in verdicts:
        print(f"{path}: {verdict}")
    if any(verdict != "ok" for _, verdict in verdicts):
        raise InputError(f"the files of {arguments.name} are not all right; `dvaepp data fetch` brings missing ones")


def _recipe(arguments: Namespace) -> Recipe:
    changes = [f"training.steps={arguments.steps}"] if arguments.steps else []
    if arguments.recipe.endswith(".json") and arguments.size:
        raise InputError(f"--size chooses among named recipes; {arguments.recipe} has its own settings")
    recipe = catalogue.find(arguments.recipe, arguments.size or "small")
    if arguments.data is not None:
        settings = recipe.data.model_copy(update={"name": arguments.data})
        recipe = recipe.model_copy(update={"data": settings})
    return override(recipe, [*changes, *arguments.set])


def _fit(run: Run) -> None:
    with distributed.entered_by_first(locked(run.folder)):
        _fit_alone(run)


def _fit_alone(run: Run) -> None:
    trainer = run.trainer()
    console.print(f"{run.recipe.name} on {run.data.name}, seed {run.seed}, into {run.folder}")
    if trainer.step:
        finished = trainer.step == trainer.settings.steps
        console.print("is finished already" if finished else f"goes on after step {trainer.step}")
    with (
        progress(trainer.settings.steps, trainer.step) as advance,
        tensorboard(run, trainer.step) as board,
    ):

        def report(metrics: Metrics) -> None:
            show_metrics(trainer, metrics, advance)
            board(metrics)

        trainer.fit(report)
    folder = shlex.quote(str(run.folder))
    samples_file = "samples.png" if len(run.data.shape) > 1 else "samples.npz"
    console.print(
        f"done: best validation NLL {trainer.best['valid_nll']:.2f} nats at step {trainer.best['step']:.0f}\n"
        f"next: dvaepp evaluate {folder}; dvaepp sample {folder} -o {samples_file}; dvaepp report {folder}",
        markup=False,
    )


def _existing(name: str) -> Path:
    path = Path(name)
    if not path.exists():
        raise InputError(f"{name} does not exist")
    return path


def _write_picture(path: Path, drawn: torch.Tensor, shape: tuple[int, ...], recipe: Recipe) -> None:
    """(rows, columns, pixels) as a grid of images."""
    save_grid(path, grid(drawn, shape, white(recipe)))
    console.print(f"wrote {path}")


def _save_arrays(path: Path, **arrays: Any) -> None:
    write_arrays(path, **arrays)
    console.print(f"wrote {path}")


COMMANDS = {
    "list": list_,
    "show": show,
    "train": train,
    "resume": resume,
    "evaluate": evaluate,
    "sample": sample,
    "encode": encode,
    "decode": decode,
    "report": report,
    "table": table,
    "figure": figure,
    "prior": prior,
    "data": data_,
}
