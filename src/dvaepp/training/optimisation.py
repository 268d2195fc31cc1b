"""The optimisers of a model, and of what its objective learns, each at the rate of its step; means of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dvaepp import distributed
from dvaepp.errors import InputError
from dvaepp.models.base import Model
from dvaepp.objectives.base import Objective
from dvaepp.optimisers.base import Rule
from dvaepp.training.averages import Averages
from dvaepp.training.checkpoints import load_learned, load_optimizer, optimizer_tensors
from dvaepp.training.settings import TrainingSettings

LEARNED = "estimator."
"""Before the names of what an objective learns, and of its optimisers."""


def learned_by(objective: object, settings: TrainingSettings, like: Tensor) -> nn.Module | None:
    """What an objective learns, in the place and precision of a parameter; InputError where it cannot be trained so."""
    if not isinstance(objective, Objective):
        return None
    if settings.kl_warmup and not objective.weighs_kl:
        raise InputError("kl_warmup must be 0 with this objective, whose KL lies inside its estimator's f")
    if objective.learned is None:
        return None
    if distributed.world() > 1:
        raise InputError("an estimator that learns is trained by one process, not by several")
    return objective.learned.to(like.device, like.dtype)


class Optimisation:
    """torch's optimisers by name, those of what is learned after `estimator.`, at `estimator_rate` times the rate.

    `averages` are those of the model's weights, if settings ask for them.
    """

    def __init__(self, model: Model, learned: nn.Module | None, settings: TrainingSettings) -> None:
        self.learned, self._settings = learned, settings
        self._of_model = settings.optimiser(model, settings.l2)
        self._of_learned = {} if learned is None else settings.optimiser(learned, 0.0)
        self.averages = None if settings.average is None else Averages(model, settings.average)

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """All by their names."""
        return self._of_model | {LEARNED + kind: optimizer for kind, optimizer in self._of_learned.items()}

    @property
    def rules(self) -> dict[str, Rule]:
        """How they move parameters, by the same names."""
        rules = self._settings.optimiser.rules
        return {kind: rules[kind.removeprefix(LEARNED)] for kind in self.optimizers}

    def rates(self, step: int) -> dict[str, float]:
        """Each rule's rate for a step, counted from 1."""
        slow, fast = self._rates(step)
        return {k: rule.rate(fast if k.startswith(LEARNED) else slow, step) for k, rule in self.rules.items()}

    def set_rates(self, step: int) -> None:
        """Set the optimisers to a step, counted from 1."""
        for optimizers, rate in zip((self._of_model, self._of_learned), self._rates(step), strict=True):
            if optimizers:
                self._settings.optimiser.set_rate(optimizers, rate, step)

    def _rates(self, step: int) -> tuple[float, float]:
        """The model's learning rate, and that of what is learned."""
        rate = self._settings.learning_rate_at(self._settings.fraction_before(step))
        return rate, self._settings.estimator_rate * rate

    def find_gradients(self, loss: Tensor, learning: Tensor) -> None:
        """The loss's gradient in the model's parameters, which start at none, and what is learned's in its own."""
        own = [] if self.learned is None else list(self.learned.parameters())
        found = torch.autograd.grad(learning, own, retain_graph=True) if own else ()
        torch.autograd.backward(loss)
        for parameter, gradient in zip(own, found, strict=True):
            parameter.grad = gradient

    def step(self, step: int) -> None:
        """Move every parameter along its gradient, and averages of them after this step, counted from 1."""
        for optimizer in self.optimizers.values():
            optimizer.step()
        if self.averages is not None:
            self.averages.step(step)

    def averaged(self) -> AbstractContextManager[None]:
        """The model with its averaged weights, if they are averaged."""
        return nullcontext() if self.averages is None else self.averages.in_place()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What is learned, averages, and what the optimisers keep, by name."""
        for name, tensor in self.learned.state_dict().items() if self.learned is not None else ():
            yield LEARNED + name, tensor
        for kind, optimizer in self.optimizers.items():
            yield from optimizer_tensors(optimizer, f"{kind}.").items()
        yield from () if self.averages is None else self.averages.tensors()

    def load(self, path: Path, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave; InputError where the checkpoint at this path holds something else."""
        if self.learned is not None:
            load_learned(self.learned, path, tensors, LEARNED)
        for kind, optimizer in self.optimizers.items():
            load_optimizer(optimizer, tensors, f"{kind}.")
        if self.averages is not None:
            self.averages.load(path, tensors)
