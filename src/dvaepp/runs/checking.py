"""Whether results are what the models that they were measured on give when they are scored again."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from dvaepp.errors import InputError
from dvaepp.recipes.recipe import recipe_from
from dvaepp.runs.archive import UNTOLD
from dvaepp.runs.evaluation import Progress, again
from dvaepp.runs.folder import RunFolder
from dvaepp.runs.records import Result
from dvaepp.storage import load_tensors

ROUNDING = 2e-5
"""How far numbers of one evaluation lie apart by rounding, relatively; below 1 absolutely, of counts one more."""
_LIKELIHOODS = ("nll", "elbo")


@dataclass(frozen=True)
class Verdict:
    """Whether a result holds, None where that could not be found out, and why."""

    holds: bool | None
    why: str


def runs_under(folder: Path) -> list[RunFolder]:
    """The run folders under a folder; InputError where there are none."""
    runs = [RunFolder(path.parent) for path in sorted(folder.rglob("run.json"))]
    if not runs:
        raise InputError(f"{folder} holds no run folders, which a check needs")
    return runs


def verdict(
    result: Result,
    source: Path,
    runs: Iterable[RunFolder],
    device: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Verdict:
    """Whether a result from a file holds, by the run among these whose model it was measured on.

    Where the draws are the same, all numbers must be, to rounding. Where they are not known to be (another device,
    other pieces, a result that does not say), likelihoods must be to within the standard error over examples.
    """
    try:
        run = run_of(result, runs, str(source))
        if run is None:
            return Verdict(None, "no run of this result is there, or it cannot be read")
        torch.set_num_threads(run.record.threads)
        found = again(run, result, device, progress)
    except InputError as error:
        return Verdict(None, str(error))
    off = differences(result, found)
    if not off:
        return Verdict(True, f"holds, NLL {result.scores['nll']:.2f}")
    told = ", ".join(f"{name} {_told(there)}, scored again {_told(here)}" for name, (there, here) in off.items())
    if result.made == found.made:
        return Verdict(False, told)
    spread = found.scores["nll_standard_error"]
    near = all(abs(result.scores[name] - found.scores[name]) <= spread for name in _LIKELIHOODS)
    return Verdict(near, f"{'holds within its standard error, by other draws' if near else 'differs'}: {told}")


def run_of(result: Result, runs: Iterable[RunFolder], source: str) -> RunFolder | None:
    """The run whose model a result was measured on: of its settings, seed and data, at its step; None if absent."""
    settings = recipe_from(result.settings, source).model_dump(mode="json", exclude=UNTOLD)
    for run in runs:
        with suppress(InputError):  # what cannot be read is no run of this result
            same = run.seed == result.seed and run.recipe.model_dump(mode="json", exclude=UNTOLD) == settings
            if same and _is_at(run, result):
                return run
    return None


def differences(result: Result, again: Result) -> dict[str, tuple[float | None, float | None]]:
    """The scores that differ by more than rounding, each as it stands in the result and as it was found again."""
    both = {name: (result.scores.get(name), again.scores.get(name)) for name in {**result.scores, **again.scores}}
    return {name: pair for name, pair in both.items() if not _alike(name, *pair)}


def _alike(name: str, there: float | None, here: float | None) -> bool:
    if there is None or here is None:
        return False
    return abs(there - here) <= ROUNDING * max(1.0, abs(here)) + name.startswith("active_")


def _is_at(run: RunFolder, result: Result) -> bool:
    """Whether the run's model is the one that was scored, on the same data."""
    last = result.evaluation is not None and result.evaluation.model == "last"
    path = run.folder / ("checkpoint.safetensors" if last else "best.safetensors")
    about = load_tensors(path, lambda _: False)[1]
    return about.get("step") == result.steps and result.data.digest in (None, about.get("data"))


def _told(score: float | None) -> str:
    return "absent" if score is None else f"{score:.6g}"
