"""A study: recipes, the settings that are varied, and seeds; the grid of runs that they make."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from dvaepp.components.fields import Settings, complaint
from dvaepp.components.registry import components
from dvaepp.data import names as data_sets
from dvaepp.errors import InputError, nearest
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import Recipe, override, read_recipe, recipe_from
from dvaepp.recipes.settings import Size
from dvaepp.recipes.table import Table
from dvaepp.storage import read_json
from dvaepp.studies.grammar import seeds as read_seeds
from dvaepp.studies.point import Point


class Study(Settings):
    """The product of recipes, of the values of each setting, and of seeds; JSON both ways (study.json).

    `recipes` are names, patterns of names, tables, or recipes written out; a named one is taken at `size`, `small`
    unless told otherwise. `set` holds the values of each setting that is varied, components before their settings.
    `steps` and `data` are as of `dvaepp train`. `seeds` are numbers, how many there are, or text as of --seeds.
    `device`, `threads` and `data_dir` are those of runs that are not begun yet.

    >>> study = Study(recipes=["quick/rbm"], size="tiny", seeds=2, set={"model.smoothing": ["exponential", "logistic"]})
    >>> for point in study.points():
    ...     print(point.place)
    quick/rbm/smoothing=exponential/seed0
    quick/rbm/smoothing=exponential/seed1
    quick/rbm/smoothing=logistic/seed0
    quick/rbm/smoothing=logistic/seed1
    """

    recipes: tuple[str | dict[str, Any], ...] = Field(min_length=1)
    size: Size | None = None
    steps: int | None = Field(default=None, ge=1)
    data: str | None = Field(default=None, min_length=1)
    set: dict[str, tuple[Any, ...]] = Field(default={})
    seeds: tuple[int, ...] = tuple(range(5))
    device: str = "cpu"
    threads: int = Field(default=1, ge=1, le=1024)
    data_dir: str | None = Field(default=None, min_length=1)

    @field_validator("recipes", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if not isinstance(given, list | tuple):
            return given
        found = [one for each in given for one in (_meant(each) if isinstance(each, str) else [each])]
        return tuple(each for k, each in enumerate(found) if each not in found[:k])

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, given: Any) -> Any:
        if isinstance(given, int | str) and not isinstance(given, bool):
            return read_seeds(str(given))
        return tuple(given) if isinstance(given, list) else given

    @field_validator("set", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return {name: _values(name, values) for name, values in given.items()} if isinstance(given, dict) else given

    @field_validator("data")
    @classmethod
    def _from_anywhere(cls, data: str | None) -> str | None:
        """A path leads there from anywhere."""
        path = Path(data or "").expanduser()
        return data if data is None or data in data_sets() or not path.exists() else str(path.resolve())

    @model_validator(mode="after")
    def _one_length(self) -> Study:
        if self.steps is not None and "training.steps" in self.set:
            raise ValueError("steps and the values of training.steps both say how long a run trains: leave out one")
        return self

    @field_validator("seeds")
    @classmethod
    def _once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len({*seeds}) < len(seeds) or not all(0 <= seed < 2**31 for seed in seeds):
            raise ValueError("seeds are whole numbers from 0 to 2147483647, each once")
        return seeds

    def points(self, cells: str | None = None) -> list[Point]:
        """The runs of the grid: recipe after recipe, setting after setting, seed after seed.

        Of recipes whose name, or name within its table, the shell pattern `cells` matches. InputError, naming it, for a
        combination that is no recipe, and for two that make the same one.
        """
        made = [self._base(each) for each in self.recipes]
        if len(made) > len({base.name for base in made}):
            raise InputError("two recipes of the study have one name, and so would their runs have: rename one of them")
        chosen = [base for base in made if cells is None or _is_cell(base.name, cells)]
        if not chosen:
            raise InputError(f"--cells {cells!r} matches none of {', '.join(base.name for base in made[:3])}, ...")
        combinations = [dict(zip(self.set, values, strict=True)) for values in itertools.product(*self.set.values())]
        grid = [(base, each, self._combined(base, each)) for base in chosen for each in combinations]
        _check_distinct(grid)
        return [self._point(*each, seed) for each in grid for seed in self.seeds]

    def _base(self, given: str | dict[str, Any]) -> Recipe:
        if isinstance(given, dict):
            base = recipe_from(given, "a study's recipe").check()
        else:
            base = catalogue.find(given, self.size or "small")
        if self.data is not None:
            base = base.model_copy(update={"data": base.data.model_copy(update={"name": self.data})})
        return override(base, [f"training.steps={self.steps}"] if self.steps else [])

    def _combined(self, base: Recipe, settings: Mapping[str, Any]) -> Recipe:
        try:
            return override(base, _assignments(settings)).absolute()
        except InputError as error:
            if not settings:
                raise
            why = str(error).removeprefix("--set: ")
            raise InputError(f"{base.name} with {', '.join(_assignments(settings))} is not possible: {why}") from None

    @property
    def varied(self) -> tuple[str, ...]:
        """The settings that have several values."""
        return tuple(name for name, values in self.set.items() if len(values) > 1)

    def _point(self, base: Recipe, settings: Mapping[str, Any], recipe: Recipe, seed: int) -> Point:
        label = _label({name: settings[name] for name in self.varied})
        place = "/".join(filter(None, (base.name, label, f"seed{seed}")))
        return Point(recipe, seed, place, label, self._command(base, settings, seed))

    def _command(self, base: Recipe, settings: Mapping[str, Any], seed: int) -> str:
        """The command that trains the same run alone; of a recipe that has no name, nothing."""
        if base.name not in self.recipes:
            return ""
        told = {"size": self.size, "steps": self.steps, "data": self.data, "seed": seed, "device": self.device}
        told |= {"threads": self.threads, "data-dir": self.data_dir}
        options = [part for name, value in told.items() if value is not None for part in (f"--{name}", str(value))]
        return shlex.join(
            ["dvaepp", "train", base.name, *options, *(p for s in _assignments(settings) for p in ("--set", s))]
        )


def read_study(path: Path) -> Study:
    """The study in a JSON file; InputError for anything else."""
    return study_from(read_json(path, "a study in JSON"), f"{path} is not a study")


def study_from(values: Any, complaint_begins: str) -> Study:
    """The study that JSON values are; InputError, with the words that it begins with, for anything else."""
    try:
        return Study.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        path, text = complaint(error.errors()[0], Study)
        raise InputError(f"{complaint_begins}: {'.'.join(path)} {text}".replace(":  ", ": ")) from None


def _meant(name: str) -> Sequence[str | dict[str, Any]]:
    """The recipe in a JSON file, or the names that are meant."""
    return [read_recipe(Path(name)).model_dump(mode="json")] if name.endswith(".json") else matching(name)


def matching(pattern: str) -> list[str]:
    """The names of recipes that a name, a table's name or a shell pattern means; InputError where there is none.

    >>> matching("quick")
    ['quick/rbm', 'quick/zephyr', 'quick/directed']
    >>> matching("table-2/mnist-static/linear-1/*t")
    ['table-2/mnist-static/linear-1/joint']
    """
    known = catalogue.names()
    if pattern in known:
        return [pattern]
    found = [name for name in known if name.startswith(f"{pattern}/") or fnmatch.fnmatchcase(name, pattern)]
    if not found:
        hint = nearest(pattern, [*known, *components(Table)])
        raise InputError(f"no recipe, table or file is named {pattern!r}{hint} (`dvaepp list` names them all)")
    return found


def _values(name: str, values: Any) -> Any:
    """The values of a setting: a list of them, or one by itself."""
    listed = tuple(values) if isinstance(values, list | tuple) else (values,)
    written = [json.dumps(float(each) if type(each) is int and abs(each) < 2**53 else each) for each in listed]
    if not listed or len({*written}) < len(written):
        raise ValueError(f"{name} takes values that differ, at least one, not {json.dumps(values)}")
    return listed


def _is_cell(name: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(each, pattern) for each in (name, name.partition("/")[2]))


def _assignments(settings: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in settings.items()]


def _check_distinct(grid: Sequence[tuple[Recipe, Mapping[str, Any], Recipe]]) -> None:
    """InputError where two combinations make the same recipe: one of them would be run twice."""
    known: dict[str, Mapping[str, Any]] = {}
    for _, settings, recipe in grid:
        other = known.setdefault(recipe.model_dump_json(exclude={"about"}), settings)
        if other is not settings:
            both = " and ".join(", ".join(_assignments(each)) or recipe.name for each in (other, settings))
            raise InputError(f"{both} make the same recipe: a component's name comes before its settings")


def _label(settings: Mapping[str, Any]) -> str:
    """Settings as the name of a folder, each by the end of its name that no other has."""
    chosen = {name.removesuffix(".name"): value for name, value in settings.items()}
    text = ",".join(f"{_ending(name, chosen)}={_safe(value)}" for name, value in chosen.items())
    return text if len(text) <= 120 else f"{text[:100]}-{_digest(text)}"


def _ending(name: str, names: Iterable[str]) -> str:
    parts = name.split(".")
    endings = (".".join(parts[-k:]) for k in range(1, len(parts) + 1))
    return next(each for each in endings if [n for n in names if f".{n}".endswith(f".{each}")] == [name])


def _safe(value: Any) -> str:
    """A value in letters that any file system and shell takes, with a digest where that loses something."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    plain = isinstance(value, list) and all(isinstance(each, int | float) for each in value)
    safe = re.sub(r"[^A-Za-z0-9_.+-]+", "-", text.strip("[]{}"))
    return safe if safe == text or plain else f"{safe[:40]}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
