"""The training of a study's runs: one after another, or as replicas, groups of them side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from dvaepp.components.registry import said
from dvaepp.errors import InputError, TrainingDivergedError
from dvaepp.recipes.recipe import Recipe
from dvaepp.runs.folder import RunFolder
from dvaepp.storage import write_text
from dvaepp.training.journal import Metrics
from dvaepp.training.replicas import Captured, Replicas
from dvaepp.training.trainer import Trainer

_DIVERGED = "diverged.txt"
"""What a run folder holds where its training diverged: the message. Without it the run is tried again."""

Stop = Callable[[], bool]
Report = Callable[[RunFolder, Metrics], None]
Fail = Callable[[RunFolder, str], None]


class StoppedError(Exception):
    """Work was asked to stop, and has been saved."""


def check_not_diverged(folder: Path) -> None:
    """InputError where the training of the run in this folder has diverged."""
    path = folder / _DIVERGED
    if path.exists():
        raise InputError(f"{path.read_text(encoding='utf-8').strip()} (it is tried again once {path} is removed)")


def train(groups: Collection[Sequence[RunFolder]], report: Report, fail: Fail, stop: Stop) -> None:
    """Train groups of runs, each of one cell that stands at one step, up to their last.

    Where the recipe says training.compile, feed-forward models are replicas within their group and, on a GPU, others
    are captured; all such groups go side by side: on a GPU they are at work at once. `report` is given every line of
    metrics, `fail` why a run failed. Where `stop` says so nothing begins, runs are saved as they are, and StoppedError
    is raised.
    """
    _side_by_side([runs for runs in groups if _is_abreast(runs[0])], report, fail, stop)
    for run in (run for runs in groups if not _is_abreast(runs[0]) for run in runs):
        _train(run, report, fail, stop)


def is_stacked(recipe: Recipe) -> bool:
    """Whether runs of a recipe are trained as replicas."""
    return recipe.training.compile and recipe.model.convolutional is None


def is_captured(recipe: Recipe, device: str) -> bool:
    """Whether a run of a recipe is trained by itself as a CUDA graph."""
    return recipe.training.compile and not is_stacked(recipe) and device.startswith("cuda")


def _is_abreast(run: RunFolder) -> bool:
    return is_stacked(run.recipe) or is_captured(run.recipe, run.device.type)


class _Group:
    """Runs that are trained as replicas of each other, from the first stretch of steps on, or one run as a graph."""

    def __init__(self, runs: Sequence[RunFolder]) -> None:
        self.runs = {run.folder: run for run in runs}
        self._replicas: Replicas | None = None

    def advance(self, others: int, report: Report, stop: Stop) -> bool:
        """Take a stretch of steps, so many other runs being at work in turn; whether training goes on."""
        if self._replicas is None:
            if stop():
                raise StoppedError
            first = next(iter(self.runs.values()))
            if is_stacked(first.recipe):
                on_gpu = first.device.type == "cuda"
                makers = [run.trainer for run in self.runs.values()]
                self._replicas = Replicas(makers, "graph" if on_gpu else "compiled")
            else:
                trainer = first.trainer()
                if not trainer.is_captured:
                    raise InputError(
                        f"{first.folder}: its step cannot be a CUDA graph; training.compile=false leaves it out"
                    )
                self._replicas = Captured(lambda: trainer)
            self._replicas.begin()
        self._replicas.beside = others
        return self._replicas.advance(lambda trainer, line: report(self.runs[trainer.folder], line), stop)

    def conclude(self, fail: Fail) -> None:
        """Tell which runs diverged and where, which their folders say from then on; StoppedError where others stop."""
        replicas = self._replicas
        for folder, failure in replicas.failures.items() if replicas else ():
            write_text(folder / _DIVERGED, f"{failure}\n")
            fail(self.runs[folder], str(failure))
        if any(trainer.step < trainer.settings.steps for trainer in (replicas.trainers if replicas else ())):
            raise StoppedError


def _side_by_side(groups: Collection[Sequence[RunFolder]], report: Report, fail: Fail, stop: Stop) -> None:
    """Train groups of replicas, each a stretch of steps in its turn; those of one that breaks one by one afterwards."""
    broken: list[RunFolder] = []
    going, stopped = [_Group(runs) for runs in groups], False
    while going:
        for group in list(going):
            others = sum(len(other.runs) for other in going if other is not group)
            try:
                if group.advance(others, report, stop):
                    continue
                group.conclude(fail)
            except StoppedError:
                stopped = True
            except Exception as error:  # whatever a user's own components raise: the others go on
                alone = len(groups) == len(group.runs) == 1
                for run in group.runs.values():
                    fail(run, said(error)) if alone else broken.append(run)
            going.remove(group)
    if stopped:
        raise StoppedError
    for run in broken:
        _side_by_side([[run]], report, fail, stop)


def _train(run: RunFolder, report: Report, fail: Fail, stop: Stop) -> None:
    try:
        trainer = run.trainer()
        trainer.fit(lambda metrics: _on(run, trainer, metrics, report, stop))
    except StoppedError:
        raise
    except TrainingDivergedError as error:
        write_text(run.folder / _DIVERGED, f"{error}\n")
        fail(run, str(error))
    except Exception as error:  # as above
        fail(run, said(error))


def _on(run: RunFolder, trainer: Trainer, metrics: Metrics, report: Report, stop: Stop) -> None:
    """Report a line; stop after it where nothing else belongs to its step, with a checkpoint of that step."""
    report(run, metrics)
    whole = "valid_kl" in metrics or not trainer.validates
    if trainer.step < trainer.settings.steps and whole and stop():
        trainer.save()
        raise StoppedError
