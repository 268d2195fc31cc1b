"""The work of one process on a study: whatever is missing of its points, group after group."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from dvaepp.components.registry import said
from dvaepp.errors import InputError
from dvaepp.runs import evaluation
from dvaepp.runs.archive import UNTOLD, file_away
from dvaepp.runs.folder import RunFolder
from dvaepp.storage import locked, read_json
from dvaepp.studies.point import Point
from dvaepp.studies.training import Stop, StoppedError, check_not_diverged, is_captured, train
from dvaepp.training.alike import OWN
from dvaepp.training.journal import Metrics
from dvaepp.training.settling import settle
from dvaepp.training.trainer import CHECKPOINT

_PATIENCE = 1.0
"""Seconds between looks at runs that other processes hold."""
_ABREAST = 8
"""Groups that a GPU trains at once."""


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
    processes: int = 1
    """How many work on the points."""

    def run(self, point: Point) -> RunFolder:
        """The run of a point, where it stands or from its beginning; InputError where another is in its place."""
        folder = point.folder(self.folder)
        if not (folder / "run.json").exists():
            (folder / ".run.json.tmp").unlink(missing_ok=True)  # of a process that was killed as it wrote
            return self._begun(point, folder)
        run = RunFolder(folder, data_dir=self.data_dir)
        if run.recipe.model_dump(mode="json", exclude=UNTOLD) != point.settings or run.seed != point.seed:
            raise InputError(f"{folder} holds a run of another recipe or seed")
        return run

    def _begun(self, point: Point, folder: Path) -> RunFolder:
        run = RunFolder.plan(
            point.recipe,
            folder,
            seed=point.seed,
            device=self.device,
            threads=self.threads,
            data_dir=self.data_dir,
            command=f"{point.command} --out {shlex.quote(str(folder))}" if point.command else self.command,
        )
        run.write()
        return run


def groups(points: Iterable[Point], most: int, device: str) -> list[list[Point]]:
    """Points that may be trained together, at most so many: one recipe but for seed and numbers of its schedules.

    Those that are captured on this device are each trained by itself.
    """
    found: dict[str, list[list[Point]]] = {}
    for point in points:
        cell = found.setdefault(cell_of(point), [])
        if not cell or len(cell[-1]) == most or is_captured(point.recipe, device):
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
    waiting = groups(points, task.replicas, task.device)
    told: set[str] = set()
    while waiting:
        waiting = [held for turn in _turns(task, waiting) if not stop() for held in _take(task, turn, tell, stop)]
        for point in (point for group in waiting for point in group if point.place not in told):
            tell(Event("waiting", point.place))
            told.add(point.place)
        if waiting and not stop():
            time.sleep(_PATIENCE)


def _turns(task: Task, waiting: Sequence[list[Point]]) -> list[list[list[Point]]]:
    """Groups that are done at once: on a GPU those that are compiled by eights, as far as each process has so many."""
    on_gpu = task.device.startswith("cuda")
    together = [group for group in waiting if on_gpu and group[0].recipe.training.compile]
    many = min(_ABREAST, -(-len(together) // task.processes))
    turns = [together[first : first + many] for first in range(0, len(together), many or 1)]
    return turns + [[group] for group in waiting if group not in together]


def _take(task: Task, turn: Sequence[Sequence[Point]], tell: Tell, stop: Stop) -> list[list[Point]]:
    """Do what is missing of groups; those of each that another process holds."""
    free: list[list[Point]] = [[] for _ in turn]
    held: list[list[Point]] = [[] for _ in turn]
    with ExitStack() as locks:
        for place, point in ((place, point) for place, group in enumerate(turn) for point in group):
            if point.is_finished(task.folder):
                tell(Event("finished", point.place, point.steps))
                continue
            folder = point.folder(task.folder)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                locks.enter_context(locked(folder))
            except InputError:
                held[place].append(point)
            else:
                free[place].append(point)
        try:
            _carry_out(task, free, tell, stop)
        except StoppedError:
            return []
    return [group for group in held if group]


def _carry_out(task: Task, groups: Iterable[Sequence[Point]], tell: Tell, stop: Stop) -> None:
    """Train and evaluate points whose folders are this process's, by their groups."""
    runs: dict[Path, tuple[Point, RunFolder]] = {}
    untrained: dict[tuple[int, int], list[RunFolder]] = {}
    for place, group in enumerate(groups):
        settle([point.folder(task.folder) / CHECKPOINT for point in group])
        for point in group:
            try:
                step, run = _where_it_stands(task, point)
            except (InputError, OSError) as error:
                tell(Event("failed", point.place, 0, str(error)))
                continue
            tell(Event("begun", point.place, step))
            runs[run.folder] = point, run
            if step < point.steps:
                untrained.setdefault((place, step), []).append(run)

    def report(run: RunFolder, metrics: Metrics) -> None:
        tell(Event("step", runs[run.folder][0].place, int(metrics["step"]), _shown(metrics)))

    def fail(run: RunFolder, why: str) -> None:
        tell(Event("failed", runs.pop(run.folder)[0].place, 0, why))

    train(untrained.values(), report, fail, stop)
    for point, run in runs.values():
        _evaluate(task, point, run, tell, stop)


def _where_it_stands(task: Task, point: Point) -> tuple[int, RunFolder]:
    """The step of a point's latest checkpoint, and its run; InputError where its folder cannot be gone on with."""
    folder = point.folder(task.folder)
    if not (folder / "run.json").exists():
        return 0, task.run(point)
    try:
        step, run = point.step(task.folder), task.run(point)
    except InputError as error:
        raise InputError(f"{error} (once {folder} is removed it is run anew)") from None
    if step < point.steps:
        check_not_diverged(folder)
    return step, run


def _shown(metrics: Metrics) -> str:
    return f"validation NLL {metrics['valid_nll']:.2f}" if "valid_nll" in metrics else ""


def _evaluate(task: Task, point: Point, run: RunFolder, tell: Tell, stop: Stop) -> None:
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
            command = shlex.join(["dvaepp", "evaluate", str(run.folder), "--results", str(point.results(task.folder))])
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
