"""The training of a study's runs: one after another, or as replicas, groups of them side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from dvaepp.components.registry import said
from dvaepp.errors import InputError, TrainingDivergedError
from dvaepp.recipes.recipe import Recipe
from dvaepp.runs.run import Run
from dvaepp.storage import write_text
from dvaepp.training.journal import Metrics
from dvaepp.training.replicas import Replicas
from dvaepp.training.trainer import Trainer

_DIVERGED = "diverged.txt"
"""What a run folder holds where its training diverged: the message. Without it the run is tried again."""

Stop = Callable[[], bool]
Report = Callable[[Run, Metrics], None]


class StoppedError(Exception):
    """Work was asked to stop, and has been saved."""


def check_not_diverged(folder: Path) -> None:
    """InputError where the training of the run in this folder has diverged."""
    path = folder / _DIVERGED
    if path.exists():
        raise InputError(f"{path.read_text(encoding='utf-8').strip()} (it is tried again once {path} is removed)")


def train(groups: Collection[Sequence[Run]], report: Report, stop: Stop) -> dict[Path, str]:
    """Train groups of runs, each of one cell that stands at one step, up to their last; by folder why one failed.

    Feed-forward models whose recipe says training.compile are replicas within their group, and all such groups go side
    by side: on a GPU they are at work at once. `report` is given every line of metrics. Where `stop` says so runs are
    saved as they are, and StoppedError raised.
    """
    failed = _side_by_side([runs for runs in groups if is_stacked(runs[0].recipe)], report, stop)
    for run in (run for runs in groups if not is_stacked(runs[0].recipe) for run in runs):
        if (why := _trained(run, report, stop)) is not None:
            failed[run.folder] = why
    return failed


def is_stacked(recipe: Recipe) -> bool:
    """Whether runs of a recipe are trained as replicas."""
    return recipe.training.compile and recipe.model.convolutional is None


class _Group:
    """Runs that are trained as replicas of each other, from the first block of steps on."""

    def __init__(self, runs: Sequence[Run], report: Report) -> None:
        self.runs, self._report = {run.folder: run for run in runs}, report
        self._replicas: Replicas | None = None

    def advance(self, stop: Stop) -> bool:
        """Take a block of steps; whether training goes on."""
        if self._replicas is None:
            gpu = next(iter(self.runs.values())).device.type == "cuda"
            self._replicas = Replicas([run.trainer for run in self.runs.values()], "graph" if gpu else "compiled")
            self._replicas.begin()
        return self._replicas.advance(lambda trainer, line: self._report(self.runs[trainer.folder], line), stop)

    def failures(self) -> dict[Path, str]:
        """Which diverged and where, once training is over; their folders say so from then on.

        StoppedError where training is not over.
        """
        trainers = self._replicas.trainers if self._replicas else []
        failures = self._replicas.failures if self._replicas else {}
        for folder, failure in failures.items():
            write_text(folder / _DIVERGED, f"{failure}\n")
        if any(trainer.step < trainer.settings.steps for trainer in trainers):
            raise StoppedError
        return {folder: str(failure) for folder, failure in failures.items()}


def _side_by_side(groups: Collection[Sequence[Run]], report: Report, stop: Stop) -> dict[Path, str]:
    """Train groups of replicas, each a block of steps in its turn; those of one that breaks one by one afterwards."""
    failed: dict[Path, str] = {}
    broken: list[Run] = []
    going, stopped = [_Group(runs, report) for runs in groups], False
    while going:
        for group in list(going):
            try:
                if group.advance(stop):
                    continue
                failed |= group.failures()
            except StoppedError:
                stopped = True
            except Exception as error:  # whatever a user's own components raise: the others go on
                if len(group.runs) > 1:
                    broken += group.runs.values()
                else:
                    failed |= {folder: said(error) for folder in group.runs}
            going.remove(group)
    if stopped:
        raise StoppedError
    for run in broken:
        failed |= _side_by_side([[run]], report, stop)
    return failed


def _trained(run: Run, report: Report, stop: Stop) -> str | None:
    try:
        trainer = run.trainer()
        trainer.fit(lambda metrics: _on(run, trainer, metrics, report, stop))
    except StoppedError:
        raise
    except TrainingDivergedError as error:
        write_text(run.folder / _DIVERGED, f"{error}\n")
        return str(error)
    except Exception as error:  # as above
        return said(error)
    return None


def _on(run: Run, trainer: Trainer, metrics: Metrics, report: Report, stop: Stop) -> None:
    """Report a line; stop after it where nothing else belongs to its step, with a checkpoint of that step."""
    report(run, metrics)
    whole = "valid_kl" in metrics or not trainer.validates
    if trainer.step < trainer.settings.steps and whole and stop():
        trainer.save()
        raise StoppedError
