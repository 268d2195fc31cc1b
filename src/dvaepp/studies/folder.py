"""A study's folder: study.json says what it is; `runs` holds its run folders, `results` a file for each result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dvaepp.errors import InputError
from dvaepp.storage import check_target, in_turn, write_json
from dvaepp.studies.study import Study, read_study

RECORD = "study.json"
_OWN = {RECORD, f".{RECORD}.tmp", "runs", "results"}


def write_study(study: Study, folder: Path) -> Study:
    """Write a study into its folder, or add its recipes, values and seeds to those of the study there; all of it.

    InputError where what is there is another study: of another size, length or data, or of other settings varied.
    """
    check_target(folder / RECORD)
    folder.mkdir(parents=True, exist_ok=True)
    with in_turn(folder):
        whole = _found(study, folder)
        if not (folder / RECORD).exists() or read_study(folder / RECORD) != whole:
            write_json(folder / RECORD, whole.model_dump(mode="json"))
    return whole


def check_folder(study: Study, folder: Path) -> None:
    """InputError where the study cannot be in that folder."""
    check_target(folder / RECORD)
    if folder.is_dir():
        _found(study, folder)


def _found(study: Study, folder: Path) -> Study:
    if (folder / RECORD).exists():
        return extended(read_study(folder / RECORD), study, folder)
    if {path.name for path in folder.iterdir()} - _OWN:
        raise InputError(f"{folder} is not empty and holds no {RECORD}: --out names another folder")
    return study


def extended(known: Study, asked: Study, folder: Path) -> Study:
    """The study whose grid holds those of both; InputError where they are not of one kind.

    >>> few, more = (Study(recipes=["quick/rbm"], seeds=seeds) for seeds in (2, [1, 7]))
    >>> extended(few, more, Path("studies/rbm")).seeds
    (0, 1, 7)
    """
    for what, before, now in (
        ("size", known.size or "small", asked.size or "small"),
        ("steps", known.steps, asked.steps),
        ("data", known.data, asked.data),
        ("varied settings", known.varied, asked.varied),
        ("other settings", _fixed(known), _fixed(asked)),
    ):
        if before != now:
            raise _another(folder, what, before, now)
    recipes = {_name(each): each for each in known.recipes}
    for each in asked.recipes:
        if recipes.setdefault(_name(each), each) != each:
            raise InputError(
                f"{folder} holds another study, with another recipe {_name(each)}: --out names another folder"
            )
    values = {name: _joined(known.set[name], asked.set[name]) for name in known.set}
    seeds = tuple(sorted({*known.seeds, *asked.seeds}))
    return asked.model_copy(update={"recipes": tuple(recipes.values()), "set": values, "seeds": seeds})


def _another(folder: Path, what: str, before: Any, now: Any) -> InputError:
    there, here = (json.dumps(value) if value is not None else "the recipe's" for value in (before, now))
    return InputError(f"{folder} holds another study ({what}: {there}, not {here}); --out names another folder")


def _fixed(study: Study) -> dict[str, Any]:
    return {name: values[0] for name, values in study.set.items() if name not in study.varied}


def _name(recipe: str | dict[str, Any]) -> str:
    return recipe if isinstance(recipe, str) else str(recipe.get("name"))


def _joined(known: tuple[Any, ...], more: tuple[Any, ...]) -> tuple[Any, ...]:
    written = {json.dumps(each) for each in known}
    return (*known, *(each for each in more if json.dumps(each) not in written))
