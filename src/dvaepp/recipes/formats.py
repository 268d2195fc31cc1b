"""Recipes as they were written before components were objects, in runs and results of that time, as they are now."""

from __future__ import annotations

from typing import Any

MOVED = {
    "model.beta": "model.smoothing.beta",
    "model.blocks": "model.prior.blocks",
    "model.graph": "model.prior.graph",
    "model.sampler": "model.prior.sampler",
    "model.chains": "model.prior.sampler.num_chains",
    "model.sweeps": "model.prior.sampler.sweeps",
    "model.temperatures": "model.prior.sampler.temperatures",
    "model.convolutional.squeeze_excite": "model.convolutional.cells.squeeze_excite",
    "training.epsilon": "training.optimiser.epsilon",
}
"""Where settings of that time stand now; `training.muon` chose the optimiser, and still does (`as_now`)."""

_SAMPLERS = {
    "gibbs": {"num_chains": "chains", "sweeps": "sweeps"},
    "tempering": {"num_chains": "chains", "sweeps": "sweeps", "temperatures": "temperatures"},
    "population": {"population": "chains", "temperatures": "temperatures"},
    "exact": {"num_samples": "chains"},
    "annealer": {"num_reads": "chains", "sweeps": "sweeps"},
}
_MODEL: dict[str, Any] = {
    "smoothing": "exponential",
    "beta": 10.0,
    "prior": "rbm",
    "blocks": None,
    "graph": None,
    "sampler": "gibbs",
    "chains": 1000,
    "sweeps": 40,
    "temperatures": 10,
}
"""The settings of that time that have moved, with the values that they had where a recipe was silent."""


def as_now(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values in the form of today, whichever form they have; what is no setting of either is left alone."""
    values = dict(values)
    if isinstance(model := values.get("model"), dict):
        values["model"] = model = _model(model) if _is_old(model) else dict(model)
        if isinstance(convolutional := model.get("convolutional"), dict):
            model["convolutional"] = _convolutional(convolutional)
    training = values.get("training")
    if isinstance(training, dict) and not {"muon", "epsilon"}.isdisjoint(training):
        rest = {name: value for name, value in training.items() if name not in ("muon", "epsilon", "optimiser")}
        epsilon = training.get("epsilon", training.get("optimiser", {}).get("epsilon", 1e-3))
        values["training"] = {**rest, "optimiser": _optimiser(training.get("muon"), epsilon)}
    return values


def _is_old(model: dict[str, Any]) -> bool:
    named = isinstance(model.get("smoothing", ""), str) and isinstance(model.get("prior", ""), str)
    return named and not {"beta", "blocks", "graph", "sampler", "chains", "sweeps", "temperatures"}.isdisjoint(model)


def _model(model: dict[str, Any]) -> dict[str, Any]:
    of = _MODEL | model
    rest = {name: value for name, value in model.items() if name not in _MODEL}
    return {**rest, "smoothing": _smoothing(of["smoothing"], of["beta"]), "prior": _prior(of)}


def _smoothing(name: str, beta: Any) -> dict[str, Any]:
    if name == "straight-through":
        return {"name": name}
    if name in ("concrete", "straight-through-gumbel"):
        return {"name": name, "temperature": 1 / beta if isinstance(beta, int | float) and beta else beta}
    return {"name": name, "beta": beta}


def _prior(of: dict[str, Any]) -> dict[str, Any]:
    if of["prior"] not in ("rbm", "graph"):
        return {"name": of["prior"]}
    structure = "blocks" if of["prior"] == "rbm" else "graph"
    settings = {new: of[old] for new, old in _SAMPLERS.get(of["sampler"], {}).items()}
    return {"name": of["prior"], structure: of[structure], "sampler": {"name": of["sampler"], **settings}}


def _convolutional(of: dict[str, Any]) -> dict[str, Any]:
    cells = of.get("cells", 2)
    if "squeeze_excite" not in of and not isinstance(cells, int):
        return of
    now = {"count": cells, "squeeze_excite": of.get("squeeze_excite", True)}
    return {**{name: value for name, value in of.items() if name != "squeeze_excite"}, "cells": now}


def _optimiser(muon: Any, epsilon: Any) -> dict[str, Any]:
    return {"name": "adam", "epsilon": epsilon} if muon is None else {"name": "muon", "rate": muon, "epsilon": epsilon}
