"""What trainers must have in common to be replicas of each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from itertools import chain
from typing import Any

from torch import nn

from dvaepp.components.registry import settings_of
from dvaepp.errors import InputError
from dvaepp.models.base import Model
from dvaepp.models.encoders import HierarchicalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.objectives.base import Objective
from dvaepp.smoothings.base import Smoothing
from dvaepp.training.trainer import Trainer

OWN: dict[str, Any] = {"learning_rate": ((1.0, 1.0),), "cosine_to": None, "l2": 0.0, "kl_warmup": 0.0, "beta": None}
"""Settings of training that each replica may have for itself, with what they are compared without."""


def objective_of(trainer: Trainer) -> Objective:
    """What it trains on; InputError where that is no `Objective`, which takes noise."""
    if not isinstance(trainer.objective, Objective):
        raise InputError(f"replicas train on an Objective, such as JointBound(), not on {trainer.objective}")
    return trainer.objective


def check_alike(trainers: Sequence[Trainer]) -> None:
    """InputError unless trainers can be replicas of each other."""
    first = trainers[0]
    for trainer in trainers:
        if not (isinstance(trainer.model, FeedForwardVAE) and isinstance(trainer.model.encoder, HierarchicalEncoder)):
            raise InputError(f"replicas are feed-forward models of bits, and that of {trainer.folder} is none")
        for what, of in _COMPARED.items():
            if of(trainer) != of(first):
                both = f"{first.folder} and {trainer.folder}"
                raise InputError(f"{both} cannot be trained as replicas: they differ in {what}")


def _plain(chosen: Any) -> Any:
    """A component's kind and settings, of a smoothing those at one beta; anything else is itself."""
    if isinstance(chosen, Smoothing) and chosen.sharpness is not None:
        chosen = chosen.with_beta(2.0)
    if not is_dataclass(chosen):
        return chosen
    return type(chosen), [_plain(getattr(chosen, field.name)) for field in settings_of(type(chosen))]


def _made(estimator: Any) -> Any:
    """An estimator that an objective was given: itself, or of one that learns its kind, form and plain settings."""
    if not isinstance(estimator, nn.Module):
        return estimator
    plain = {name: value for name, value in vars(estimator).items() if isinstance(value, int | float | str | None)}
    return type(estimator), repr(estimator), plain | {"training": None}


def _structure(model: Model) -> Any:
    """All that two models share but their numbers, and the temperature of the smoothing."""
    tensors = chain(model.named_parameters(), model.named_buffers())
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors}
    parts = model.smoothing, getattr(model.prior, "chains", None), getattr(model, "likelihood", None)
    return repr(model), shapes, [_plain(part) for part in parts]


_COMPARED: dict[str, Callable[[Trainer], Any]] = {
    "their steps so far": lambda trainer: trainer.step,
    "their data": lambda trainer: trainer.about["data"],
    "their device": lambda trainer: trainer.device,
    "their bound": lambda trainer: (_plain(trainer.objective), _made(getattr(trainer.objective, "built", None))),
    "their model": lambda trainer: _structure(trainer.model),
    "settings of training": lambda trainer: trainer.settings.model_copy(update=OWN),
}
