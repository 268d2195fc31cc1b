"""Every recipe by name."""

from __future__ import annotations

from pathlib import Path

from dvaepp.errors import InputError, nearest
from dvaepp.recipes import quick, table_2, table_3
from dvaepp.recipes.recipe import Recipe, read_recipe
from dvaepp.recipes.settings import Size


def names() -> list[str]:
    """All recipes' names."""
    table = [
        f"table-2/{data}/{network}/{column}"
        for data in table_2.DATA
        for network in table_2.NETWORKS
        for column in table_2.COLUMNS
    ]
    conv = [f"table-3/{data}/{row}" for data in table_3.DATA for row in (*table_3.ROWS, *table_3.ABLATIONS)]
    return [*quick.COLUMNS, *table, *conv]


def find(name: str, size: Size = "paper") -> Recipe:
    """The recipe of that name at that size, or the one in that JSON file, which has its own."""
    if name.endswith(".json"):
        return read_recipe(Path(name))
    if name not in names():
        raise InputError(f"no recipe is named {name!r}{nearest(name, names())} (`dvaepp list` names them all)")
    if name in quick.COLUMNS:
        return quick.recipe(name, size)
    if name.startswith("table-3/"):
        _, data, row = name.split("/")
        return table_3.recipe(name, data, row, size)
    _, data, network, column = name.split("/")
    return table_2.recipe(name, data, network, column, size)
