"""How long a study takes, from a few steps of each of its cells."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dvaepp.errors import InputError
from dvaepp.models.base import unchecked
from dvaepp.recipes.recipe import Recipe
from dvaepp.report.subject import Subject
from dvaepp.runs.folder import RunFolder
from dvaepp.studies.point import Point
from dvaepp.studies.work import Task, cell_of

_SECONDS, _STEPS = 1.0, 10
"""A cell is timed for this long, or for so many steps, whichever is over first."""


def seconds_left(task: Task, points: Sequence[Point]) -> float:
    """sum over points of (steps - step reached) x the cell's seconds per step: one process's seconds of training.

    Of a cell with a run at hand its metrics tell the speed, validations included; of others a few real steps, of which
    nothing is kept. InputError where data or model of one cannot be: so that is found before anything runs.
    """
    steps: dict[str, int] = {}
    cells: dict[str, list[Point]] = {}
    for point in points:
        cell = cell_of(point)
        cells.setdefault(cell, []).append(point)
        steps[cell] = steps.get(cell, 0) + steps_left(task.folder, point)
    return sum(steps[cell] * (_known(task, cells[cell]) or timed(task, cells[cell][0].recipe)) for cell in cells)


def steps_left(study: Path, point: Point) -> int:
    """Those that a point still has to be trained for; all of them where its checkpoint cannot be read."""
    with suppress(InputError):
        return max(0, point.steps - point.step(study))
    return point.steps


def _known(task: Task, points: Sequence[Point]) -> float | None:
    """Seconds per step by the metrics of a run that is at hand; None where there is none."""
    for point in points:
        folder = point.folder(task.folder)
        if not (folder / "metrics.jsonl").exists():
            continue
        with suppress(InputError):
            subject = Subject(RunFolder(folder))
            if subject.metrics and subject.seconds:
                return subject.seconds / max(float(line["step"]) for line in subject.metrics)
    return None


def timed(task: Task, recipe: Recipe) -> float:
    """Seconds per step of a new run of the recipe: a few steps after the first one, not compiled."""
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"compile": False})})
    with tempfile.TemporaryDirectory() as folder:
        options = {"device": task.device, "threads": task.threads, "data_dir": task.data_dir}
        trainer = RunFolder.plan(recipe, Path(folder), seed=0, command=task.command, **options).trainer()  # type: ignore[arg-type]
        trainer.model.train()
        with unchecked():
            float(trainer.train_step()[0])
            start, steps = time.perf_counter(), 0
            while steps < _STEPS and time.perf_counter() - start < _SECONDS:
                float(trainer.train_step()[0])
                steps += 1
    return (time.perf_counter() - start) / steps
