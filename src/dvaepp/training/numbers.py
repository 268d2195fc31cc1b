"""The random numbers of a trainer among others: a random state of its own, and what its steps draw."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dvaepp.models.base import Trace, evaluation_mode, unchecked
from dvaepp.training.alike import objective_of
from dvaepp.training.checkpoints import random_tensors, restore_random
from dvaepp.training.trainer import Trainer

_MOST_STEPS, _MOST_BYTES = 500, 2**27


class Numbers:
    """A trainer's random state, as torch's generators are when this is made, and the uniform numbers of its steps.

    On a GPU those of a `span` of steps are drawn at once. Spans are counted from step 0, so that the numbers are the
    same whichever stretches of steps are taken and wherever training is resumed.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._state = self._before = random_tensors(trainer.device)
        self._model, self._uniforms = layout(trainer)
        self._of_chains = trainer.model.prior.chain_noise
        self._noise: Tensor | None = None
        self._chains: Tensor | None = None

    @contextmanager
    def own(self) -> Iterator[None]:
        """torch's generators as this trainer left them."""
        restore_random(self._state, self._trainer.device)
        try:
            yield
        finally:
            self._state = random_tensors(self._trainer.device)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """torch's generators as a checkpoint keeps them: within a span, the device's from before it."""
        within = self._trainer.step % self.span
        restore_random(self._state | (self._of_device(self._before) if within else {}), self._trainer.device)
        yield

    @property
    def moves_chains(self) -> bool:
        """Whether chains move within a step, by numbers that it is given: on a GPU, where their sampler takes them.

        On a CPU they move between steps, in place, by numbers of their own, which is faster there.
        """
        return self._trainer.device.type == "cuda" and math.prod(self._of_chains or (0,)) > 0

    @property
    def span(self) -> int:
        """How many steps' numbers are drawn at once: one on a CPU, and where chains move between steps.

        Else 500, or as many as take 128 MiB.
        """
        if self._trainer.device.type != "cuda" or (self._of_chains is not None and not self.moves_chains):
            return 1
        numbers = self._uniforms * self._trainer.settings.batch * sum(bits for _, bits in self._model)
        numbers += math.prod(self._of_chains or (0,))
        return max(1, min(_MOST_STEPS, _MOST_BYTES // (numbers * self._trainer.dtype.itemsize)))

    def left(self) -> int:
        """How many steps the span still has."""
        return self.span - self._trainer.step % self.span

    def chains(self, steps: int) -> Float[Tensor, "steps ..."]:
        """What chains move by in the next steps; nothing where they have moved now, or there are none.

        To be called before `noise`, as a step draws in this order.
        """
        if self._is_due(self._chains):
            self._before = self._state
            if not self.moves_chains:
                self._trainer.model.prior.refresh()
            self._chains = self._uniform(*(self._of_chains or ()) if self.moves_chains else (0,))
        return self._next(self._chains, steps)

    def noise(self, steps: int) -> Float[Tensor, "steps uniforms batch bits"]:
        """What passes of the model draw in the next steps, group by group; what they draw not is 0."""
        if self._is_due(self._noise):
            batch = self._trainer.settings.batch
            drawn = [self._uniform(count, batch, bits) for count, bits in self._model]
            self._noise = torch.cat(
                [functional.pad(d, (0, 0, 0, 0, 0, self._uniforms - d.shape[1])) for d in drawn], -1
            )
        return self._next(self._noise, steps)

    def _is_due(self, numbers: Tensor | None) -> bool:
        return numbers is None or self._trainer.step % self.span == 0

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand((self.span, *shape), dtype=self._trainer.dtype, device=self._trainer.device)

    def _next(self, numbers: Tensor | None, steps: int) -> Tensor:
        assert numbers is not None
        first = self._trainer.step % self.span
        return numbers[first : first + steps]

    @staticmethod
    def _of_device(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in state.items() if name != "random.cpu"}


def layout(trainer: Trainer) -> tuple[list[tuple[int, int]], int]:
    """How many uniform numbers a pass of the model draws for each bit of a group, and the group's bits; the most."""
    model, objective = trainer.model, objective_of(trainer)
    x = torch.zeros(2, trainer.data.pixels).to(next(model.parameters()))
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), unchecked(), evaluation_mode(model):
        trace: Trace = model(x)
    groups = enumerate(trace.posterior.groups)
    return [(objective.drawn(q, group), q.batch_shape[-1]) for group, q in groups], objective.uniforms(model)
