"""Every recipe by name."""

from __future__ import annotations

from pathlib import Path

from dvaepp.components.registry import component, components
from dvaepp.errors import InputError, nearest
from dvaepp.recipes.recipe import Recipe, read_recipe
from dvaepp.recipes.settings import Size
from dvaepp.recipes.table import Table


def names() -> list[str]:
    """All recipes' names: those of the starting points, then of every table."""
    tables = sorted(components(Table).values(), key=lambda table: (table.name != "quick", table.name))
    return [f"{table.name}/{cell}" for table in tables for cell in table().cells()]


def find(name: str, size: Size = "paper") -> Recipe:
    """The recipe of that name at that size, or the one in that JSON file, which has its own."""
    if name.endswith(".json"):
        return read_recipe(Path(name))
    if name not in names():
        raise InputError(f"no recipe is named {name!r}{nearest(name, names())} (`dvaepp list` names them all)")
    table, _, cell = name.partition("/")
    return component(Table, table)().recipe(cell, size).model_copy(update={"name": name})
