"""Whether results are what the models that they were measured on give when they are scored again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dvaepp.errors import InputError
from dvaepp.recipes.recipe import recipe_from
from dvaepp.runs.archive import UNTOLD
from dvaepp.runs.records import Result
from dvaepp.runs.run import Run
from dvaepp.storage import load_tensors

TOLERANCE = 1e-3
"""How far two numbers of one evaluation may lie apart by rounding, absolutely or relatively."""


def runs_under(folder: Path) -> list[Run]:
    """The run folders under a folder; InputError where there are none."""
    runs = [Run(path.parent) for path in sorted(folder.rglob("run.json"))]
    if not runs:
        raise InputError(f"{folder} holds no run folders, which a check needs")
    return runs


def run_of(result: Result, runs: Iterable[Run], source: str) -> Run | None:
    """The run whose model a result was measured on: of the same settings and seed, at the same step; None if absent."""
    settings = recipe_from(result.settings, source).model_dump(mode="json", exclude=UNTOLD)
    for run in runs:
        if run.seed == result.seed and run.recipe.model_dump(mode="json", exclude=UNTOLD) == settings:
            return run if _step(run, result) == result.steps else None
    return None


def differences(result: Result, again: Result) -> dict[str, tuple[float, float]]:
    """The scores that differ by more than rounding, each as it stands in the result and as it was found again."""
    return {
        name: (result.scores.get(name, float("nan")), found)
        for name, found in again.scores.items()
        if not abs(result.scores.get(name, float("nan")) - found) <= TOLERANCE * max(1.0, abs(found))
    }


def _step(run: Run, result: Result) -> int | None:
    last = result.evaluation is not None and result.evaluation.model == "last"
    path = run.folder / ("checkpoint.safetensors" if last else "best.safetensors")
    step: int | None = load_tensors(path, lambda _: False)[1].get("step") if path.exists() else None
    return step
