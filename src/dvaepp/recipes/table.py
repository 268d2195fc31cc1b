"""The contract of tables: recipes by name, and what has been published of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from dvaepp.components.registry import Component
from dvaepp.recipes.recipe import Recipe
from dvaepp.recipes.settings import Size


@dataclass(frozen=True)
class Unit:
    """What numbers of a table are given in: so many nats each, with so many decimals."""

    nats: float = 1.0
    decimals: int = 2


Paper = Mapping[str, Mapping[str, tuple[float, float]]]
"""Mean and standard deviation of a paper's runs, by a table's place and column."""


def mean_and_sd(paper: Paper, cell: str) -> str:
    """What was published of the cell PLACE/COLUMN, a dash where nothing was.

    >>> mean_and_sd({"data/network": {"joint": (107.98, 0.1)}}, "data/network/joint")
    '107.98 ± 0.10'
    """
    place, _, column = cell.rpartition("/")
    known = paper.get(place, {}).get(column)
    return "–" if known is None else f"{known[0]:.2f} ± {known[1]:.2f}"


class Table(Component, ABC):
    """Recipes whose names begin with the table's; `dvaepp table NAME` puts results beside what was published of them.

    >>> from dvaepp.recipes.quick import Quick
    >>> table = Quick()  # any Table
    >>> table.recipe(table.cells()[0], "tiny").name
    'quick/rbm'
    """

    kind: ClassVar[str] = "table"
    folder: ClassVar[str] = "dvaepp.recipes"
    title: ClassVar[str] = "NLL on test data, nats, z binary"
    """What its numbers are."""
    note: ClassVar[str] = ""
    """What one must know to compare them, in a sentence or two."""
    starting_points: ClassVar[bool] = False
    """Its recipes are there to be changed: results of other settings may bear their names, and stand in no row."""
    source: ClassVar[str] = "published"
    """The heading of published numbers."""

    @abstractmethod
    def cells(self) -> tuple[str, ...]:
        """The names of its recipes after its own, such as mnist-static/linear-1/rbm."""

    @abstractmethod
    def recipe(self, cell: str, size: Size) -> Recipe:
        """The recipe of a cell; sizes differ in how long and how much, not in what."""

    def published(self, cell: str) -> str:
        """The number that was published, with its error if there is one; a dash where there is none."""
        return "–"

    def unit(self, cell: str) -> Unit:
        """What a cell's number is given in."""
        return Unit()
