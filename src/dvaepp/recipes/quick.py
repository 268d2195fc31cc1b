"""Starting points for any data: the nonlinear-2 models of Table 2, on the built-in digits unless told otherwise."""

from __future__ import annotations

from dvaepp.recipes import table_2
from dvaepp.recipes.recipe import Recipe
from dvaepp.recipes.settings import Size

COLUMNS = {"quick/rbm": "rbm", "quick/zephyr": "rbm", "quick/directed": "joint"}
"""The column of Table 2 that each is of."""


def recipe(name: str, size: Size) -> Recipe:
    """The starting point of that name."""
    found = table_2.recipe(name, "digits", "nonlinear-2", COLUMNS[name], size)
    return _on_hardware(found) if name == "quick/zephyr" else found


def _on_hardware(recipe: Recipe) -> Recipe:
    """The recipe with a prior on the graph of a quantum annealer, small enough for a few chains."""
    chains = min(recipe.model.chains, 200)
    settings = {"prior": "graph", "graph": "zephyr-2", "groups": (80, 80), "chains": chains}
    return recipe.model_copy(
        update={
            "about": "A Boltzmann machine on a Zephyr graph of 160 qubits, joint bound.",
            "model": recipe.model.model_copy(update=settings),
        }
    )
