"""The work of one process on a study: whatever is missing of its points, group after group."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from dvaepp.components.registry import said
from dvaepp.errors import InputError, TrainingDivergedError
from dvaepp.runs import evaluation
from dvaepp.runs.archive import UNTOLD, file_away
from dvaepp.runs.run import Run
from dvaepp.storage import locked, read_json, write_text
from dvaepp.studies.point import Point
from dvaepp.training.execution import Execution
from dvaepp.training.journal import Metrics
from dvaepp.training.replicas import OWN, Replicas, settle
from dvaepp.training.trainer import CHECKPOINT, Trainer

DIVERGED = "diverged.txt"
"""What a run folder holds where its training diverged: the message. Without it the run is tried again."""
_PATIENCE = 1.0
"""Seconds between looks at runs that other processes hold."""

Stop = Callable[[], bool]


class StoppedError(Exception):
    """Work was asked to stop, and has been saved."""


@dataclass(frozen=True)
class Event:
    """What became of a point: it was begun at a step, trained to one, evaluated, finished, or failed.

    `text` is what to say of it: the loss, its NLL, or what went wrong. `waiting` is about a run that others hold.
    """

    what: Literal["begun", "step", "evaluating", "finished", "failed", "waiting"]
    place: str
    step: int = 0
    text: str = ""


Tell = Callable[[Event], None]


@dataclass(frozen=True)
class Task:
    """A study's folder, how its new runs compute, where data sets lie, and how many replicas are trained at once."""

    folder: Path
    device: str = "cpu"
    threads: int = 1
    data_dir: str | None = None
    command: str = "dvaepp study"
    replicas: int = 1

    def run(self, point: Point) -> Run:
        """The run of a point, where it stands or from its beginning; InputError where another is in its place."""
        folder = point.folder(self.folder)
        if not (folder / "run.json").exists():
            (folder / ".run.json.tmp").unlink(missing_ok=True)  # of a process that was killed as it wrote
            return self._begun(point, folder)
        run = Run(folder, data_dir=self.data_dir)
        if run.recipe.model_dump(mode="json", exclude=UNTOLD) != point.settings or run.seed != point.seed:
            raise InputError(f"{folder} holds a run of another recipe or seed")
        return run

    def _begun(self, point: Point, folder: Path) -> Run:
        run = Run.plan(
            point.recipe,
            folder,
            seed=point.seed,
            device=self.device,
            threads=self.threads,
            data_dir=self.data_dir,
            command=point.command or self.command,
        )
        run.write()
        return run


def train(runs: Sequence[Run], report: Callable[[Run, Metrics], None], stop: Stop) -> list[str | None]:
    """Train runs of one cell that stand at one step up to their last; of each that failed why, in their order.

    Those of feed-forward models whose recipe says training.compile are trained at once, as replicas. `report` is given
    every line of metrics. Where `stop` says so they are saved as they are, and StoppedError raised.
    """
    if all(run.recipe.training.compile and run.recipe.model.convolutional is None for run in runs):
        return _trained_together(runs, report, stop)
    return [_trained(run, report, stop) for run in runs]


def _trained_together(runs: Sequence[Run], report: Callable[[Run, Metrics], None], stop: Stop) -> list[str | None]:
    of = {run.folder: run for run in runs}
    try:
        execution: Execution = "graph" if runs[0].device.type == "cuda" else "compiled"
        replicas = Replicas([run.trainer for run in runs], execution)
        replicas.fit(lambda trainer, metrics: report(of[trainer.folder], metrics), stop)
    except Exception as error:  # whatever a user's own components raise: the others go on
        return [said(error)] if len(runs) == 1 else [_trained_together([run], report, stop)[0] for run in runs]
    for folder, failure in replicas.failures.items():
        write_text(folder / DIVERGED, f"{failure}\n")
    if any(trainer.step < trainer.settings.steps for trainer in replicas.trainers):
        raise StoppedError
    return [str(replicas.failures[run.folder]) if run.folder in replicas.failures else None for run in runs]


def _trained(run: Run, report: Callable[[Run, Metrics], None], stop: Stop) -> str | None:
    try:
        trainer = run.trainer()
        trainer.fit(lambda metrics: _on(run, trainer, metrics, report, stop))
    except StoppedError:
        raise
    except TrainingDivergedError as error:
        write_text(run.folder / DIVERGED, f"{error}\n")
        return str(error)
    except Exception as error:  # as above
        return said(error)
    return None


def _on(run: Run, trainer: Trainer, metrics: Metrics, report: Callable[[Run, Metrics], None], stop: Stop) -> None:
    """Report a line; stop after it where nothing else belongs to its step, with a checkpoint of that step."""
    report(run, metrics)
    whole = "valid_kl" in metrics or not trainer.validates
    if trainer.step < trainer.settings.steps and whole and stop():
        trainer.save()
        raise StoppedError


def groups(points: Iterable[Point], most: int) -> list[list[Point]]:
    """Points that may be trained together, at most so many: one recipe but for seed and numbers of its schedules."""
    found: dict[str, list[list[Point]]] = {}
    for point in points:
        cell = found.setdefault(cell_of(point), [])
        if not cell or len(cell[-1]) == most:
            cell.append([])
        cell[-1].append(point)
    return [group for cell in found.values() for group in cell]


def cell_of(point: Point) -> str:
    """What points that may be trained together have in common, as JSON."""
    recipe = point.recipe.model_dump(mode="json", exclude={"about": True, "training": {*OWN}})
    recipe["model"]["smoothing"].pop("beta", None)
    return json.dumps(recipe)


def work(task: Task, points: Sequence[Point], tell: Tell, stop: Stop) -> None:
    """Train and evaluate what is missing, and file results away; those that other processes hold come last.

    Whatever fails is told, and stops nothing else. Several processes may do so at once, with any points.
    """
    waiting = groups(points, task.replicas)
    told: set[str] = set()
    while waiting:
        waiting = [held for group in waiting if not stop() and (held := _take(task, group, tell, stop))]
        for point in (point for group in waiting for point in group if point.place not in told):
            tell(Event("waiting", point.place))
            told.add(point.place)
        if waiting and not stop():
            time.sleep(_PATIENCE)


def _take(task: Task, group: Sequence[Point], tell: Tell, stop: Stop) -> list[Point]:
    """Do what is missing of a group; those of it that another process holds."""
    free, held = [], []
    with ExitStack() as locks:
        for point in group:
            if point.is_finished(task.folder):
                tell(Event("finished", point.place, point.steps))
                continue
            folder = point.folder(task.folder)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                locks.enter_context(locked(folder))
            except InputError:
                held.append(point)
            else:
                free.append(point)
        try:
            _carry_out(task, free, tell, stop)
        except StoppedError:
            return []
    return held


def _carry_out(task: Task, points: Sequence[Point], tell: Tell, stop: Stop) -> None:
    """Train and evaluate points whose folders are this process's."""
    settle([point.folder(task.folder) / CHECKPOINT for point in points])
    runs: dict[Path, tuple[Point, Run]] = {}
    untrained: dict[int, list[Run]] = {}
    for point in points:
        try:
            step = point.step(task.folder)
            _check_not_diverged(task, point, step)
            run = task.run(point)
        except (InputError, OSError) as error:
            tell(Event("failed", point.place, 0, str(error)))
            continue
        tell(Event("begun", point.place, step))
        runs[run.folder] = point, run
        if step < point.steps:
            untrained.setdefault(step, []).append(run)

    def report(run: Run, metrics: Metrics) -> None:
        tell(Event("step", runs[run.folder][0].place, int(metrics["step"]), _shown(metrics)))

    for alike in untrained.values():
        for run, why in zip(alike, train(alike, report, stop), strict=True):
            if why is not None:
                tell(Event("failed", runs.pop(run.folder)[0].place, 0, why))
    for point, run in runs.values():
        _evaluate(task, point, run, tell, stop)


def _check_not_diverged(task: Task, point: Point, step: int) -> None:
    path = point.folder(task.folder) / DIVERGED
    if path.exists() and step < point.steps:
        raise InputError(f"{path.read_text(encoding='utf-8').strip()} (it is tried again once {path} is removed)")


def _shown(metrics: Metrics) -> str:
    return f"validation NLL {metrics['valid_nll']:.2f}" if "valid_nll" in metrics else ""


def _evaluate(task: Task, point: Point, run: Run, tell: Tell, stop: Stop) -> None:
    """Evaluate a trained run unless that has been done, and file its result away."""

    def on(done: int, total: int) -> None:
        if done < total and stop():
            raise StoppedError
        tell(Event("evaluating", point.place, point.steps, f"{done:,} of {total:,} test examples"))

    try:
        if point.result(task.folder) is None:
            if stop():
                raise StoppedError
            torch.set_num_threads(run.record.threads)
            command = f"dvaepp evaluate {run.folder} --results {point.results(task.folder)}"
            settings = run.recipe.evaluation
            evaluation.evaluate(run, settings, split="test", seed=0, last=False, command=command, progress=on)
        scores = file_result(task.folder, point)
    except StoppedError:
        raise
    except Exception as error:  # as in training
        tell(Event("failed", point.place, point.steps, said(error)))
    else:
        tell(Event("finished", point.place, point.steps, scores))


def file_result(study: Path, point: Point) -> str:
    """File the result of an evaluated point away among the study's; its NLL in words, nothing where there is none."""
    if (found := point.result(study)) is None:
        return ""
    result, path = found
    file_away(point.results(study), read_json(path, "scores of a run"))
    return f"NLL {result.scores['nll']:.2f}"
