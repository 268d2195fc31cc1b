"""The command `gradients`: every way to take gradients, side by side on one model and one batch."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from rich import box
from rich.table import Table as RichTable
from rich.text import Text
from torch import Tensor

from dvaepp.cli.run_folder import check_folder, named_recipe, opened
from dvaepp.data import Dataset
from dvaepp.errors import InputError
from dvaepp.evaluation.gradients import FIT_STEPS, Cost, GradientComparison, gradient_costs, gradient_quality
from dvaepp.evaluation.logit_gradients import TRUTH, GradientMethod, single_group
from dvaepp.evaluation.methods import chosen, gradient_methods
from dvaepp.models.base import Model, evaluation_mode
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.randomness import stream_seed
from dvaepp.recipes.build import spec_of
from dvaepp.recipes.recipe import Recipe
from dvaepp.report.changes import flat
from dvaepp.report.gradient_plot import plot
from dvaepp.report.gradient_table import HEADS, caption, cells, comma_separated, markdown
from dvaepp.report.subject import duration
from dvaepp.runs.folder import RunFolder
from dvaepp.runs.progress import console, progress
from dvaepp.runs.records import check_not_a_runs
from dvaepp.storage import check_target, write_text
from dvaepp.training.batches import BatchOrder

_FIT_BATCH = 100
"""Examples that what an estimator learns is fitted to at a step."""
_FASTER = 3
"""How many times as fast many rows are together as few at a time, about."""


@dataclass(frozen=True)
class _Subject:
    """The model, its data, and where both are from."""

    model: Model
    data: Dataset
    of: str

    def batches(self, seed: int, size: int) -> BatchOrder:
        """Training examples, in the order that a training of this seed sees them."""
        return BatchOrder(len(self.data.train), size, seed)


def gradients(arguments: Namespace) -> None:
    """Bias, variance, signal-to-noise and time of estimators and smoothings."""
    check_folder("--data-dir", arguments.data_dir)
    paths = [Path(each) for each in arguments.output]
    for path in paths:
        _check_output(path)
    torch.set_num_threads(arguments.threads)
    with torch.random.fork_rng(devices=[]):
        subject = _of_run(arguments) if arguments.checkpoint is not None else _of_recipe(arguments)
        found = _measured(subject, arguments)
    _show(found, subject.of)
    for path in paths:
        _write(path, found, subject.of)


def _measured(subject: _Subject, arguments: Namespace) -> GradientComparison:
    data, seed, examples = subject.data, arguments.seed, arguments.examples
    if examples > len(data.train):
        raise InputError(f"--examples {examples} are more than the {len(data.train):,} training examples")
    torch.manual_seed(stream_seed("gradients", seed))  # what dynamic data are drawn with
    x = data.batch(subject.batches(seed, examples).indices(0))
    model = single_group(subject.model, x)
    with evaluation_mode(model):
        bits = model.code(x).shape[1]
    methods = gradient_methods(model.prior, bits, data.mean, seed)
    methods = chosen(methods, arguments.only) if arguments.only else methods
    costs = _announced(model, x, methods, arguments.draws)
    order = subject.batches(stream_seed("fitted estimators", seed), _FIT_BATCH)
    with progress() as advance:
        return gradient_quality(
            model,
            x,
            methods,
            draws=arguments.draws,
            seed=seed,
            batches=lambda step: data.batch(order.indices(step)),
            costs=costs,
            tell=advance,
        )


def _announced(
    model: FeedForwardVAE, x: Float[Tensor, "batch pixels"], methods: list[GradientMethod], draws: int
) -> list[Cost]:
    """The costs of the methods; says how long their draws will take."""
    *costs, truth = gradient_costs(model, x, [*methods, TRUTH])
    together = sum(cost.milliseconds for cost in costs) / _FASTER + truth.milliseconds
    fits = FIT_STEPS * sum(cost.milliseconds for cost, method in zip(costs, methods, strict=True) if method.fit)
    fits *= max(1.0, _FIT_BATCH / len(x) / _FASTER)
    time, many = duration((draws * together + fits) / 1000), f"{len(methods)} method{'s' * (len(methods) > 1)}"
    print(f"{many}, {draws:,} draws for {len(x):,} example{'s' * (len(x) > 1)}: about {time}", file=sys.stderr)
    return costs


def _of_recipe(arguments: Namespace) -> _Subject:
    """A recipe's model as its training begins."""
    if arguments.recipe is None:
        raise InputError("gradients takes a recipe, or a run with --checkpoint: neither is named")
    if arguments.last:
        raise InputError("--last chooses among the models of a run, which --checkpoint names")
    recipe = named_recipe(arguments)
    data = recipe.load_data(arguments.data_dir)
    torch.manual_seed(stream_seed("weights", arguments.seed))
    model, _ = recipe.build(spec_of(data))
    return _Subject(model, data, f"{recipe.name} on {data.name} before training")


def _of_run(arguments: Namespace) -> _Subject:
    """A run's model."""
    where = {"run": arguments.checkpoint, "data_at": arguments.data, "data_dir": arguments.data_dir}
    run = opened(Namespace(**where))
    name = run.recipe.name
    if arguments.recipe is not None:
        _check_same_model(named_recipe(Namespace(**{**vars(arguments), "data": None})), run)
    elif arguments.size or arguments.set:
        raise InputError("--size and --set go with a recipe: the run of --checkpoint has its own settings")
    trained = run.model(arguments.last, "cpu")
    data = run.data_for(trained)
    step = f"step {trained.step:,} of the run {run.folder}"
    return _Subject(trained.model, data, f"{name} on {data.name}, {step}")


def _check_same_model(recipe: Recipe, run: RunFolder) -> None:
    """InputError naming the first setting of model or data in which the two differ; smoothings may."""
    asked, known = _settings(recipe), _settings(run.recipe)
    for name in {**asked, **known}:
        if (one := asked.get(name)) != (other := known.get(name)):
            raise InputError(f"{recipe.name} is not the model of {run.folder}: {name} is {one} and there {other}")


def _settings(recipe: Recipe) -> dict[str, str]:
    every = flat(recipe.absolute().model_dump(mode="json", include={"model", "data"}))
    return {name: text for name, text in every if not name.startswith("model.smoothing")}


def _check_output(path: Path) -> None:
    if path.suffix not in (".md", ".csv", ".png", ".svg"):
        raise InputError(f"{path} must end in .md, .csv, .png or .svg")
    check_not_a_runs(path)
    check_target(path)


def _write(path: Path, found: GradientComparison, of: str) -> None:
    if path.suffix in (".md", ".csv"):
        write_text(path, markdown(found, of) if path.suffix == ".md" else comma_separated(found, of))
    else:
        plot(found, path)
    print(f"wrote {path}", file=sys.stderr)


def _show(found: GradientComparison, of: str) -> None:
    """The table as text: Markdown where there is no terminal, which is wide enough for it."""
    if not sys.stdout.isatty():
        print(markdown(found, of), end="")
        return
    table = RichTable(box=box.SIMPLE_HEAD)
    for k, head in enumerate(HEADS):
        table.add_column(Text(head), justify="left" if k in (0, len(HEADS) - 1) else "right", overflow="fold")
    for line in cells(found):
        table.add_row(*map(Text, line))
    console.print(table)
    console.print(caption(found, of), style="dim")
