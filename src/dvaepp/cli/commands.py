"""What each command does, given its parsed arguments."""

from __future__ import annotations

import shlex
from argparse import Namespace
from dataclasses import fields
from functools import partial
from pathlib import Path

import torch

from dvaepp import data, distributed
from dvaepp.boltzmann.samplers import Sampler
from dvaepp.cli.console import downloads, print_scores, processes, tensorboard
from dvaepp.cli.doctor import doctor
from dvaepp.cli.files import compress, decompress, explore, export, push
from dvaepp.cli.gradients import gradients
from dvaepp.cli.outputs import complete, decode, encode, figure, interpolate, known, sample, save_columns
from dvaepp.cli.prior import prior
from dvaepp.cli.probe import probe
from dvaepp.cli.run_folder import check_folder, check_output, named_recipe, opened, page_of
from dvaepp.cli.speed import speed
from dvaepp.cli.study import compare, study
from dvaepp.cli.table import table
from dvaepp.components.registry import Component, components, described, faults
from dvaepp.errors import InputError
from dvaepp.estimators.base import EstimatorDesign
from dvaepp.likelihoods.base import Likelihood
from dvaepp.models.local import LocalVariables
from dvaepp.networks.residual import Cells
from dvaepp.objectives.base import Objective
from dvaepp.optimisers.base import Optimiser
from dvaepp.priors.base import PriorDesign
from dvaepp.recipes import catalogue
from dvaepp.recipes.settings import EvaluationSettings
from dvaepp.recipes.table import Table
from dvaepp.report.report import write_report
from dvaepp.runs import evaluation, results
from dvaepp.runs.archive import file_away
from dvaepp.runs.folder import RunFolder
from dvaepp.runs.located import check_own, is_only_read, shipped
from dvaepp.runs.progress import console, progress, show_metrics
from dvaepp.smoothings.base import Smoothing
from dvaepp.storage import check_columns_name, check_target, locked
from dvaepp.training import replicas
from dvaepp.training.checkpoints import step_in
from dvaepp.training.journal import Metrics
from dvaepp.training.trainer import Trainer

_KINDS: dict[str, type[Component]] = {
    "model.smoothing": Smoothing,
    "model.prior": PriorDesign,
    "model.prior.sampler": Sampler,
    "model.likelihood": Likelihood,
    "model.convolutional.local_variables": LocalVariables,
    "objective": Objective,
    "estimator": EstimatorDesign,
    "training.optimiser": Optimiser,
}
"""The settings that a component's name is for."""


def list_(arguments: Namespace) -> None:
    """Recipes, data sets, and the components that settings name."""
    console.print("Data sets, or your own with --data FILE_OR_FOLDER", style="bold")
    for name in data.names():
        console.print(f"  {name:24} {data.describe(name)}")
    for setting, kind in _KINDS.items():
        console.print(f"For --set {setting}=NAME, then --set {setting}.SETTING=VALUE", style="bold")
        _list_kind(kind)
    console.print("For --set model.convolutional.cells.SETTING=VALUE", style="bold")
    console.print(f"  {'':24} {described(Cells)}")
    console.print("Tables, for `dvaepp table NAME`", style="bold")
    _list_kind(Table)
    console.print("DVAEPP_IMPORT=FILE.py in the environment adds those that a file of yours defines (docs/guides)")
    console.print(f"Runs that ship with dvaepp, for whatever takes RUN: {', '.join(shipped())}")
    console.print("Recipes, for `dvaepp train RECIPE --size tiny|small|medium|paper`", style="bold")
    for name in catalogue.names():
        console.print(f"  {name:44} {catalogue.find(name).about}")


def _list_kind(kind: type[Component]) -> None:
    lines = {name: described(each) for name, each in components(kind).items()} | faults(kind)
    for name, text in lines.items():
        console.print(f"  {name:24} {text}")


def show(arguments: Namespace) -> None:
    """A recipe as JSON."""
    print(named_recipe(arguments).model_dump_json(indent=2))


def train(arguments: Namespace) -> None:
    """Train a recipe into a new run folder."""
    check_folder("--data-dir", arguments.data_dir)
    recipe = named_recipe(arguments)
    size = f"-{arguments.size or 'small'}" if not arguments.recipe.endswith(".json") else ""
    default = f"runs/{recipe.name.replace('/', '_')}{size}-seed{arguments.seed}"
    if (arguments.out or "").lower().startswith("hf:"):
        raise InputError(f"--out {arguments.out} is no folder here: train into one, then `dvaepp push` it")
    plan = partial(
        RunFolder.plan,
        recipe,
        Path(arguments.out or default),
        seed=arguments.seed,
        device=arguments.device,
        threads=arguments.threads,
        data_dir=arguments.data_dir,
        command=arguments.command_line,
        start=arguments.start,
    )
    with processes(arguments.device):
        run = distributed.on_first(plan)
        trainer = run.trainer()  # bad data and settings end here, before anything is written
        distributed.on_first(lambda: run.folder.mkdir(parents=True, exist_ok=True))
        with distributed.entered_by_first(locked(run.folder)):
            distributed.on_first(run.write)
            _fit(run, trainer)


def resume(arguments: Namespace) -> None:
    """Go on with a run."""
    run = opened(arguments)
    if not run.folder.is_dir():
        raise InputError(f"{run.folder / 'run.json'} does not exist; expected a run folder")
    if is_only_read(run.folder):
        begin = f"`dvaepp train {run.recipe.name} --from {shlex.quote(arguments.run)}` begins with its weights"
        raise InputError(f"{run.folder} is only read, and does not go on: {begin}")
    with processes(arguments.device or run.record.device), distributed.entered_by_first(locked(run.folder)):
        if arguments.steps is not None:
            run.extend(arguments.steps)
        trainer = run.trainer(arguments.device)  # what is amiss ends here, before the record is changed
        if arguments.steps is not None:
            distributed.on_first(run.keep)
        _fit(run, trainer)


def evaluate(arguments: Namespace) -> None:
    """Score a run; print the scores and keep them."""
    run = opened(arguments)
    changes = {name: getattr(arguments, name) for name in ("samples", "examples", "temperatures", "chains")}
    settings = run.recipe.evaluation.model_copy(update={k: v for k, v in changes.items() if v is not None})
    if arguments.all:
        settings = settings.model_copy(update={"examples": None})
    if arguments.quick:
        settings = settings.model_copy(update={"thorough": False})
    if arguments.per_example:
        check_columns_name(Path(arguments.per_example))
        check_output(arguments.per_example, arguments.data_at)
    if arguments.results:
        results.check_comparable(run.recipe, f"{run.folder}, which --results is to keep,")
        check_own(Path(arguments.results).absolute())
        check_target(Path(arguments.results) / run.recipe.name / f"seed{run.seed}.json")
    torch.set_num_threads(run.record.threads)
    with processes(arguments.device or run.record.device):
        _evaluate(run, settings, arguments)


def _evaluate(run: RunFolder, settings: EvaluationSettings, arguments: Namespace) -> None:
    how = {name: getattr(arguments, name) for name in ("seed", "last", "device", "megabytes")}
    given = evaluation.others(run)
    if given is not None and (arguments.results or arguments.split != "test"):
        option = "--results keeps scores" if arguments.results else "--split is"
        raise InputError(
            f"{option} of a run's own data, and {arguments.data_at} is not what {run.folder} was trained on"
        )
    with progress() as advance:
        if given is None:
            command = {"split": arguments.split, "command": arguments.command_line}
            if is_only_read(run.folder):
                console.print(f"{run.folder} is only read: the scores are not kept there", style="dim")
            found = evaluation.evaluate(run, settings, **command, **how, progress=advance)
        else:
            console.print(f"{len(given.x):,} examples of {arguments.data_at}, which are not the run's; nothing is kept")
            settings = settings.model_copy(update={"examples": arguments.examples})
            found = evaluation.evaluate_others(run, given, settings, **how, progress=advance)
    if distributed.rank() > 0:
        return
    if arguments.results and found.result:
        console.print(f"wrote {file_away(Path(arguments.results), found.result)}")
    if arguments.per_example:
        scores = {f.name: getattr(found.scores.examples, f.name).numpy() for f in fields(found.scores.examples)}
        kept = {name: each for name, each in scores.items() if arguments.per_example.endswith(".npz") or each.ndim < 3}
        save_columns(Path(arguments.per_example), {**known(found.examples), **kept})
    print_scores(found.scores)


def report(arguments: Namespace) -> None:
    """The HTML page."""
    run = opened(arguments)
    path = page_of(run, arguments.output, "report.html")
    if not path.is_dir() and path.suffix not in (".html", ".htm"):
        raise InputError(f"{path} must end in .html")
    write_report(run, path)
    console.print(f"wrote {path}")


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


def _fit(run: RunFolder, trainer: Trainer) -> None:
    folder = shlex.quote(str(run.folder))
    console.print(f"{run.recipe.name} on {run.data.name}, seed {run.seed}, into {run.folder}")
    console.print(run.data.protocol, style="dim")
    console.print(run.data.summary, style="dim")
    if trainer.step:
        finished = trainer.step == trainer.settings.steps
        console.print("is finished already" if finished else f"goes on after step {trainer.step}{_schedules(trainer)}")
    if run.taken is not None:
        console.print(f"begins with weights of {run.record.start}: {run.taken}")
    with (
        progress(trainer.settings.steps, trainer.step) as advance,
        tensorboard(run, trainer.step) as board,
    ):

        def report(metrics: Metrics) -> None:
            show_metrics(trainer, metrics, advance)
            board(metrics)

        try:
            replicas.fit(trainer, report)
        except KeyboardInterrupt:
            console.print(
                f"stopped: dvaepp resume {folder} goes on from step {step_in(trainer.checkpoint)}", markup=False
            )
            raise
    last = ""
    samples_file = "samples.png" if len(run.data.shape) > 1 else "samples.npz"
    if trainer.best:
        done = f"best validation NLL {trainer.best['valid_nll']:.2f} nats at step {trainer.best['step']:.0f}"
    else:
        done, last = "no validation NLL was finite, so that there is no best model, only the last", " --last"
    console.print(
        f"done: {done}\n"
        f"next: dvaepp evaluate {folder}{last}; dvaepp sample {folder}{last} -o {samples_file}; dvaepp report {folder}",
        markup=False,
    )


def _schedules(trainer: Trainer) -> str:
    """What the schedules, which stretch over all steps, give the next one."""
    settings, fraction = trainer.settings, trainer.settings.fraction_before(trainer.step + 1)
    beta = settings.beta_at(fraction)
    rate, weight = settings.learning_rate_at(fraction), settings.kl_weight_at(fraction)
    sharpness = "" if beta is None else f", beta {beta:.3g}"
    return f" of {settings.steps:,}: learning rate {rate:.3g}, KL weight {weight:.3g}{sharpness}"


COMMANDS = {
    "list": list_,
    "show": show,
    "train": train,
    "speed": speed,
    "resume": resume,
    "evaluate": evaluate,
    "sample": sample,
    "encode": encode,
    "decode": decode,
    "complete": complete,
    "interpolate": interpolate,
    "probe": probe,
    "compress": compress,
    "decompress": decompress,
    "explore": explore,
    "doctor": doctor,
    "export": export,
    "push": push,
    "report": report,
    "study": study,
    "compare": compare,
    "gradients": gradients,
    "table": table,
    "figure": figure,
    "prior": prior,
    "data": data_,
}


def run(arguments: Namespace) -> None:
    """The command that the arguments name; downloads show how they go."""
    with downloads():
        COMMANDS[arguments.command](arguments)
