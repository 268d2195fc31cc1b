"""What was trained, against the catalogue: the recipe of that name at the size from which it differs least."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dvaepp.recipes.catalogue import find, names
from dvaepp.recipes.recipe import Recipe
from dvaepp.recipes.settings import SIZES

_ABSENT = "–"


@dataclass(frozen=True)
class Origin:
    """The catalogue's recipe, and (setting, its value, the run's value) for each that is another."""

    recipe: Recipe
    size: str
    changes: list[tuple[str, str, str]]


def origin(recipe: Recipe) -> Origin | None:
    """The catalogue's recipe of this name at the nearest size; None where the name is not in the catalogue."""
    if recipe.name not in names():
        return None
    known = [Origin(found, size, _changes(found, recipe)) for size in SIZES for found in [find(recipe.name, size)]]
    return min(known, key=lambda each: len(each.changes))


def _changes(known: Recipe, recipe: Recipe) -> list[tuple[str, str, str]]:
    before, now = (dict(flat(each.model_dump(mode="json", exclude={"name", "about"}))) for each in (known, recipe))
    texts = ((name, before.get(name, _ABSENT), now.get(name, _ABSENT)) for name in {**before, **now})
    return [(name, old, new) for name, old, new in texts if old != new]


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each setting under its dotted path, as `--set` takes both."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
