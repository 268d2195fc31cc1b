"""Starting points for any data."""

from __future__ import annotations

from dvaepp.recipes.recipe import Recipe

QUICK = {"quick/rbm": "rbm", "quick/zephyr": "rbm", "quick/directed": "joint"}
"""Starting points for any data: the nonlinear-2 models of Table 2, on the built-in digits unless told otherwise."""


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
