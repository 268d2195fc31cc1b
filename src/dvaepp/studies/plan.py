"""A study in its folder: which of its runs are asked for, which are missing, and their being carried out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dvaepp.components.registry import component
from dvaepp.errors import InputError
from dvaepp.recipes.catalogue import names
from dvaepp.recipes.table import Table
from dvaepp.storage import AnyPath
from dvaepp.studies.estimate import seconds_left, steps_left
from dvaepp.studies.folder import check_folder, write_study
from dvaepp.studies.point import Point
from dvaepp.studies.study import Study
from dvaepp.studies.training import Stop, is_stacked
from dvaepp.studies.work import Event, Task, Tell, file_result
from dvaepp.studies.workers import carry_out


@dataclass(frozen=True)
class Outcome:
    """What became of a plan's points: those that are trained and evaluated, those that failed and why, the rest."""

    finished: tuple[Point, ...]
    failed: dict[str, str]
    left: tuple[Point, ...]


@dataclass(frozen=True)
class Plan:
    """The points of a study that are asked for, in its folder. `carry_out` writes; nothing else does.

    >>> study = Study(recipes=["quick/rbm"], size="tiny", seeds=4)
    >>> plan = planned(study, "studies/none", shard=(2, 2))
    >>> [point.place for point in plan.points], plan.steps_left()
    (['quick/rbm/seed1', 'quick/rbm/seed3'], 80)
    """

    study: Study
    task: Task
    points: tuple[Point, ...]

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return self.task.folder

    @property
    def tables(self) -> list[str]:
        """The names of those tables, with published numbers, that results of its points stand in."""
        known = names()
        of = {
            point.recipe.name.partition("/")[0]
            for point in self.points
            if point.recipe.name in known and point.as_named
        }
        return sorted(name for name in of if not component(Table, name).starting_points)

    def missing(self) -> list[Point]:
        """The points that are not trained and evaluated yet."""
        return [point for point in self.points if not point.is_finished(self.folder)]

    def steps_left(self) -> int:
        """Training steps of the points that are missing."""
        return sum(steps_left(self.folder, point) for point in self.missing())

    def seconds_left(self, jobs: int = 1) -> float:
        """How long their training takes in so many processes (`estimate.seconds_left`); InputError as there."""
        missing = self.missing()
        return seconds_left(self.task, missing) / max(1, min(jobs, len(missing)))

    def carry_out(
        self,
        jobs: int = 1,
        tell: Tell = lambda event: None,
        stop: Stop = lambda: False,
    ) -> Outcome:
        """Train and evaluate what is missing, and see that every result is filed; `tell` is told how it goes."""
        write_study(self.study, self.folder)
        failed: dict[str, str] = {}

        def on(event: Event) -> None:
            if event.what == "failed":
                failed[event.place] = event.text
            tell(event)

        missing = self.missing()
        for point in self.points:
            if point not in missing and not point.is_filed(self.folder):
                file_result(self.folder, point)
        if missing:
            carry_out(self.study, missing, self.task, min(jobs, len(missing)), on, stop)
        missing = self.missing()
        return Outcome(
            tuple(point for point in self.points if point not in missing),
            {point.place: failed[point.place] for point in missing if point.place in failed},
            tuple(point for point in missing if point.place not in failed),
        )


def planned(
    study: Study,
    folder: AnyPath,
    *,
    cells: str | None = None,
    shard: tuple[int, int] = (1, 1),
    replicas: int = 1,
    command: str = "dvaepp study",
) -> Plan:
    """The points of a study whose recipes match `cells`, of which the i-th of n shards has every n-th.

    A process trains so many `replicas` of one cell at once, where the recipe says training.compile.

    InputError for an impossible point, and where the folder is that of another study.
    """
    points = study.points(cells)
    check_folder(study, Path(folder))
    part = points[shard[0] - 1 :: shard[1]]
    if not part:
        raise InputError(f"--shard {shard[0]}/{shard[1]} has nothing to do: the study has {len(points)} runs")
    if replicas > 1 and not any(is_stacked(point.recipe) for point in points):
        raise InputError(f"replicas={replicas} is for feed-forward models whose recipe says training.compile=true")
    begun = all((point.folder(Path(folder)) / "run.json").exists() for point in part)
    if study.threads > (most := os.cpu_count() or 1) and not begun:
        raise InputError(f"threads={study.threads} is more than this machine has: at most {most} (--threads)")
    task = Task(Path(folder), study.device, study.threads, study.data_dir, command, replicas)
    return Plan(study, task, tuple(part))


def run_study(
    study: Study,
    folder: AnyPath,
    *,
    jobs: int = 1,
    replicas: int = 1,
    hours: float | None = None,
    tell: Tell = lambda event: None,
) -> Outcome:
    """Train and evaluate what is missing of a study in its folder, in so many processes; what became of its runs.

    After `hours` nothing new starts, and what runs is saved and stops: called again it goes on. InputError for an
    impossible study, before anything is written.

    >>> import tempfile
    >>> study = Study(recipes=["quick/rbm"], size="tiny", steps=2, seeds=1, set={"model.groups": [[4, 4]]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(run_study(study, folder).finished)
    1
    """
    return planned(study, folder, replicas=replicas).carry_out(
        jobs, tell, stop_after(None if hours is None else 3600 * hours)
    )


def stop_after(seconds: float | None) -> Callable[[], bool]:
    """Whether so many seconds have passed from now on; never where there are none."""
    end = None if seconds is None else time.monotonic() + seconds
    return lambda: end is not None and time.monotonic() >= end
