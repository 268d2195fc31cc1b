"""Recipes as they were written before components were objects, in runs and results of that time, as they are now."""

from __future__ import annotations

import json
from typing import Any

from dvaepp.errors import InputError

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
"""Where settings of that time stand now; `training.muon` chose the optimiser (`optimiser`)."""

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


_OLD = frozenset(_MODEL) - {"smoothing", "prior"}


def as_now(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values in the form of today, whichever form they have; what is no setting of either is left alone.

    InputError for a mixture of the two.
    """
    values = dict(values)
    if isinstance(model := values.get("model"), dict):
        values["model"] = model = _model(model) if _is_old(model) else dict(model)
        if isinstance(convolutional := model.get("convolutional"), dict):
            model["convolutional"] = _convolutional(convolutional)
    if isinstance(training := values.get("training"), dict):
        values["training"] = _training(training)
    return values


def _is_old(model: dict[str, Any]) -> bool:
    """Whether a model has settings of the former form; InputError where it has objects of the present one beside."""
    old = sorted(_OLD.intersection(model))
    names = {name: model[name] for name in ("smoothing", "prior", "sampler") if name in model}
    if old and (mixed := [name for name, value in names.items() if not isinstance(value, str)]):
        given = json.dumps(names[mixed[0]])
        raise InputError(f"model.{old[0]} is of the former form, in which model.{mixed[0]} is a name, not {given}")
    return bool(old)


def _training(training: dict[str, Any]) -> dict[str, Any]:
    old = [name for name in ("muon", "epsilon") if name in training]
    if old and "optimiser" in training:
        raise InputError(f"training.{old[0]} is of the former form, which had no training.optimiser")
    rest = {name: value for name, value in training.items() if name not in old}
    return {**rest, "optimiser": optimiser(training.get("muon"), training.get("epsilon", 1e-3))} if old else training


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


def optimiser(muon: Any, epsilon: Any) -> dict[str, Any]:
    """What the former settings `training.muon` and `training.epsilon` chose."""
    return {"name": "adam", "epsilon": epsilon} if muon is None else {"name": "muon", "rate": muon, "epsilon": epsilon}
