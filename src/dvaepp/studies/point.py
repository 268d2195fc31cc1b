"""A point of a study's grid: one run, and how far it has come."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dvaepp.errors import InputError
from dvaepp.recipes.recipe import Recipe, recipe_from
from dvaepp.runs.archive import UNTOLD
from dvaepp.runs.records import Result, read_result
from dvaepp.runs.results import check_comparable
from dvaepp.storage import read_json
from dvaepp.training.checkpoints import step_in
from dvaepp.training.trainer import CHECKPOINT


@dataclass(frozen=True)
class Point:
    """A recipe and a seed; `place` is its run folder under the study's `runs`, `label` the settings in it.

    `command` trains the same run alone, where a command can.
    """

    recipe: Recipe
    seed: int
    place: str
    label: str
    command: str

    @property
    def steps(self) -> int:
        """How many steps it takes."""
        return self.recipe.training.steps

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The recipe in JSON, without what makes a result no other."""
        return self.recipe.model_dump(mode="json", exclude=UNTOLD)

    @cached_property
    def as_named(self) -> bool:
        """Whether its result may stand in the table that its recipe's name is of."""
        try:
            check_comparable(self.recipe, self.place)
        except InputError:
            return False
        return True

    def folder(self, study: Path) -> Path:
        """Its run folder."""
        return study / "runs" / self.place

    def results(self, study: Path) -> Path:
        """Where its result is filed away; what is not of the recipe that it is named after goes apart."""
        return study / "results" if self.as_named else study / "results" / self.label

    def step(self, study: Path) -> int:
        """The step of its latest checkpoint, 0 where there is none; InputError where that cannot be read."""
        return step_in(self.folder(study) / CHECKPOINT)

    def result(self, study: Path) -> tuple[Result, Path] | None:
        """What its evaluation gave, and in which file of the run folder; None where there is no such thing yet."""
        for path in sorted(self.folder(study).glob("scores*.json"), key=lambda path: len(path.name)):
            with suppress(InputError):  # a half-written or foreign file is no result
                if self._gave(result := read_result(path), str(path)):
                    return result, path
        return None

    def is_finished(self, study: Path) -> bool:
        """Whether it is trained to the end and evaluated."""
        with suppress(InputError):
            return self.result(study) is not None and self.step(study) >= self.steps
        return False

    def is_filed(self, study: Path) -> bool:
        """Whether the study's results hold what its evaluation gave."""
        if (found := self.result(study)) is None:
            return False
        there = (self.results(study) / self.recipe.name).glob(f"seed{self.seed}*.json")
        return any(read_json(path, "scores of a run") == read_json(found[1], "scores of a run") for path in there)

    def _gave(self, result: Result, source: str) -> bool:
        effort, wanted = result.evaluation, self.recipe.evaluation.model_dump(exclude={"examples"})
        if result.trained is not None and result.trained < self.steps:
            return False
        if effort is None or effort.model != "best" or {k: getattr(effort, k) for k in wanted} != wanted:
            return False
        if (most := self.recipe.evaluation.examples) is not None and effort.examples > most:
            return False
        about = (result.split, result.evaluation_seed, result.seed)
        settings = recipe_from(result.settings, source).model_dump(mode="json", exclude=UNTOLD)
        return about == ("test", 0, self.seed) and settings == self.settings
