"""Starting points for any data: the nonlinear-2 models of Table 2, on the built-in digits unless told otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dvaepp.boltzmann.samplers import PersistentChains
from dvaepp.priors.boltzmann import GraphBoltzmannDesign
from dvaepp.recipes import table_2
from dvaepp.recipes.recipe import Recipe
from dvaepp.recipes.settings import Size
from dvaepp.recipes.table import Table

COLUMNS = {"rbm": "rbm", "zephyr": "rbm", "directed": "joint"}
"""The column of Table 2 that each is of."""


@dataclass(frozen=True)
class Quick(Table):
    """Starting points for any data: the nonlinear-2 models of Table 2."""

    name: ClassVar[str] = "quick"
    starting_points: ClassVar[bool] = True

    def cells(self) -> tuple[str, ...]:
        """rbm, zephyr, directed."""
        return tuple(COLUMNS)

    def recipe(self, cell: str, size: Size) -> Recipe:
        """The starting point of that name."""
        found = table_2.recipe(f"{self.name}/{cell}", "digits", "nonlinear-2", COLUMNS[cell], size)
        return _on_hardware(found, size) if cell == "zephyr" else found


def _on_hardware(recipe: Recipe, size: Size) -> Recipe:
    """The recipe with a prior on the graph of a quantum annealer, small enough for a few chains."""
    chains, sweeps = table_2.CHAINS[size]
    prior = GraphBoltzmannDesign("zephyr-2", PersistentChains(min(chains, 200), sweeps))
    settings = {"prior": prior, "groups": (80, 80)}
    return recipe.model_copy(
        update={
            "about": "A Boltzmann machine on a Zephyr graph of 160 qubits, joint bound.",
            "model": recipe.model.model_copy(update=settings),
        }
    )
