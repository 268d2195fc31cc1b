"""The random numbers of a trainer among others: a random state of its own, and what its steps draw."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dvaepp.models.base import Trace, evaluation_mode, unchecked
from dvaepp.training.alike import objective_of
from dvaepp.training.checkpoints import random_tensors, restore_random
from dvaepp.training.trainer import Trainer

_MOST_STEPS, _MOST_BYTES = 500, 2**27


def moves_within(trainer: Trainer) -> bool:
    """Whether chains move within a step: on a GPU, where uniform numbers are all that they take.

    On a CPU they move between steps, in place, by numbers of their own, which is faster there.
    """
    return trainer.device.type == "cuda" and math.prod(trainer.model.prior.chain_noise or (0,)) > 0


class Numbers:
    """A trainer's random state, as torch's generators are when this is made, and what its next steps draw with it.

    On a GPU the uniform numbers of a `span` of steps are drawn at once. Spans are counted from step 0, so that they are
    the same whichever stretches of steps are taken and wherever training is resumed, on cards of one kind.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._state = self._before = random_tensors(trainer.device)
        self._model, self._uniforms = layout(trainer)
        self._drawn: tuple[Tensor, Tensor] | None = None

    @contextmanager
    def own(self) -> Iterator[None]:
        """torch's generators as this trainer left them."""
        restore_random(self._state, self._trainer.device)
        try:
            yield
        finally:
            self._state = random_tensors(self._trainer.device)

    def at_steps(self) -> AbstractContextManager[None]:
        """What steps are taken in: they draw nothing."""
        return nullcontext()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """torch's generators as a checkpoint keeps them: within a span, the device's from before it."""
        before = self._before if self._within else self._state
        restore_random(self._state | self._of_device(before), self._trainer.device)
        yield

    @property
    def _within(self) -> int:
        """How many steps of the span have been taken."""
        return self._trainer.step % self.span

    @cached_property
    def moves_chains(self) -> bool:
        """Whether chains move within a step, by numbers that it is given."""
        return moves_within(self._trainer)

    @cached_property
    def span(self) -> int:
        """How many steps' numbers are drawn at once: one on a CPU, and where chains move between steps.

        Else 500, or as many as take 128 MiB.
        """
        moves = self._trainer.model.prior.chain_noise is not None
        if self._trainer.device.type != "cuda" or (moves and not self.moves_chains):
            return 1
        return max(1, min(_MOST_STEPS, _MOST_BYTES // (self.size * self._trainer.dtype.itemsize)))

    @property
    def size(self) -> int:
        """How many uniform numbers a step takes."""
        batch, bits = self._trainer.settings.batch, sum(bits for _, bits in self._model)
        return self._uniforms * batch * bits + math.prod(self._of_chains)

    @property
    def _of_chains(self) -> tuple[int, ...]:
        """The shape of what chains move by within a step; of no numbers where none do."""
        return (self._trainer.model.prior.chain_noise or (0,)) if self.moves_chains else (0,)

    def left(self) -> int:
        """How many steps the span still has."""
        return self.span - self._within

    def given(self, steps: int) -> tuple[Float[Tensor, "steps batch pixels"], Tensor, Tensor]:
        """The batches of the next steps, the uniform numbers of their passes, and what moves chains, (steps, ...) each.

        Drawn in the order of a step by itself: chains, which move now unless they do within the step; batches; noise.
        """
        with self.own():
            known = self._drawn if self._within else None
            chains = self._chains() if known is None else known[0]
            x = self._trainer.batches(steps)
            chains, noise = self._drawn = known or (chains, self._noise())
        first, last = self._within, self._within + steps
        return x, noise[first:last], chains[first:last]

    def _chains(self) -> Float[Tensor, "span ..."]:
        self._before = self._state
        if not self.moves_chains:
            self._trainer.model.prior.refresh()
        return self._uniform(*self._of_chains)

    def _noise(self) -> Float[Tensor, "span uniforms batch bits"]:
        """What passes of the model draw, group by group; what they draw not is 0."""
        drawn = [self._uniform(count, self._trainer.settings.batch, bits) for count, bits in self._model]
        return torch.cat([functional.pad(d, (0, 0, 0, 0, 0, self._uniforms - d.shape[1])) for d in drawn], -1)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand((self.span, *shape), dtype=self._trainer.dtype, device=self._trainer.device)

    @staticmethod
    def _of_device(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in state.items() if name != "random.cpu"}


class OwnNumbers:
    """A trainer's random state, as torch's generators are when this is made, for steps that draw as they go.

    On a GPU it is a generator's state that no other trainer's step moves: a CUDA graph draws from the one that it was
    captured with, so that graphs may be at work side by side.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._state = random_tensors(trainer.device)
        default = _generator(trainer.device)
        self._generator = None if default is None else default.clone_state()
        self.size = 0
        self.span = 1  # since launches of some such graphs fill a GPU's queue, and others would have to wait

    @contextmanager
    def own(self) -> Iterator[None]:
        """torch's generators as this trainer left them."""
        with _instead(self._generator, self._trainer.device):
            restore_random(self._state, self._trainer.device)
            try:
                yield
            finally:
                self._state = random_tensors(self._trainer.device)

    kept = at_steps = own

    def left(self) -> int:
        """How many steps may be taken at once."""
        return 1

    def given(self, steps: int) -> tuple[Float[Tensor, "steps batch pixels"], Tensor, Tensor]:
        """The batches of the next steps, no numbers, since steps draw them; chains that do not move in one do now."""
        with self.own():
            if not moves_within(self._trainer):
                self._trainer.model.prior.refresh()
            x = self._trainer.batches(steps)
        return x, x.new_zeros(steps, 0, x.shape[1], 0), x.new_zeros(steps, 0)


def _generator(device: torch.device) -> torch.Generator | None:
    """A GPU's generator."""
    if device.type != "cuda":
        return None
    generator: torch.Generator = torch.cuda.default_generators[device.index or 0]
    return generator


@contextmanager
def _instead(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """A GPU draws with the state of this generator itself, not with a copy of it."""
    default = _generator(device)
    if default is None or generator is None:
        yield
        return
    before = default.graphsafe_get_state()
    default.graphsafe_set_state(generator)
    try:
        yield
    finally:
        default.graphsafe_set_state(before)


def layout(trainer: Trainer) -> tuple[list[tuple[int, int]], int]:
    """How many uniform numbers a pass of the model draws for each bit of a group, and the group's bits; the most."""
    model, objective = trainer.model, objective_of(trainer)
    x = torch.zeros(2, trainer.data.pixels).to(next(model.parameters()))
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), unchecked(), evaluation_mode(model):
        trace: Trace = model(x)
    groups = enumerate(trace.posterior.groups)
    return [(objective.drawn(q, group), q.batch_shape[-1]) for group, q in groups], objective.uniforms(model)
