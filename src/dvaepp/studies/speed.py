"""Seconds per step of a recipe by each choice that changes nothing else: compiled or not, precision, threads."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dvaepp.networks.compiled import can_compile
from dvaepp.recipes.recipe import Recipe, override
from dvaepp.runs.folder import RunFolder
from dvaepp.training.replicas import stepping

_UNHEARD = {"steps": 10**12, "log_every": 10**12, "validate_every": 10**12}


@dataclass(frozen=True)
class Choice:
    """Settings and threads that a recipe can be trained with."""

    settings: tuple[str, ...]
    """As `--set` takes them."""
    threads: int

    @property
    def label(self) -> str:
        """The same in short."""
        return ", ".join([*(each.rpartition(".")[2] for each in self.settings), f"threads={self.threads}"])

    @property
    def options(self) -> str:
        """The same as options of `dvaepp train`."""
        return " ".join([*(f"--set {each}" for each in self.settings), f"--threads {self.threads}"])


@dataclass(frozen=True)
class Speed:
    """What a choice takes for a step, and before the first one."""

    choice: Choice
    seconds: float
    """A step's: the median over the stretches that were timed."""
    first: float
    """From the start to the end of the first step, or on a GPU the first steps: compiling."""


def choices(recipe: Recipe, threads: Sequence[int], device: str = "cpu") -> list[Choice]:
    """Those that the recipe's model has here: compiled if that can be, of convolutional models in bfloat16 too."""
    compiling = ["false", "true"] if can_compile(device.partition(":")[0]) else ["false"]
    axes = [[f"training.compile={each}" for each in compiling]]
    if recipe.model.convolutional is not None:
        axes.append([f"model.convolutional.precision={each}" for each in ("float32", "bfloat16")])
    return [Choice(settings, count) for count in threads for settings in itertools.product(*axes)]


def speeds(
    recipe: Recipe,
    chosen: Sequence[Choice],
    *,
    device: str = "cpu",
    data_dir: str | None = None,
    seconds: float = 5.0,
    rounds: int = 3,
) -> list[Speed]:
    """Time steps of new runs, of which nothing is kept, each for some `seconds` in all.

    All are made ready first; then they are timed in turn, in so many rounds, so that whatever else the machine does
    falls on all of them. InputError where a choice cannot be.
    """
    with tempfile.TemporaryDirectory() as folder:
        ready = [_ready(recipe, choice, Path(folder) / str(k), device, data_dir) for k, choice in enumerate(chosen)]
        times: list[list[float]] = [[] for _ in chosen]
        for _ in range(rounds):
            for (step, _), choice, taken in zip(ready, chosen, times, strict=True):
                torch.set_num_threads(choice.threads)
                taken.append(_timed(step, device, seconds / rounds))
        each = zip(chosen, times, ready, strict=True)
        return [Speed(choice, sorted(taken)[len(taken) // 2], first) for choice, taken, (_, first) in each]


def _ready(
    recipe: Recipe, choice: Choice, folder: Path, device: str, data_dir: str | None
) -> tuple[Callable[[], int], float]:
    """A function that takes steps of a run and says how many, once it has taken the first; and the time until then."""
    start = time.perf_counter()
    recipe = override(recipe, choice.settings)
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=_UNHEARD)})
    how: dict[str, Any] = {"device": device, "threads": choice.threads, "data_dir": data_dir}
    run = RunFolder.plan(recipe, folder, seed=0, command="", **how)
    folder.mkdir()
    steps = stepping(run.trainer())
    steps()
    _wait(device)
    return steps, time.perf_counter() - start


def _timed(steps: Callable[[], int], device: str, seconds: float) -> float:
    """Seconds per step, over some seconds."""
    steps()
    _wait(device)
    start, taken = time.perf_counter(), 0
    while not taken or time.perf_counter() - start < seconds:
        taken += steps()
        _wait(device)
    return (time.perf_counter() - start) / taken


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
