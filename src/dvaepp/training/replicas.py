"""Replicas: runs of one structure trained at once in one process, each as if it trained alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp import distributed
from dvaepp.components.registry import settings_of
from dvaepp.errors import InputError, TrainingDivergedError
from dvaepp.models.base import Model, Trace, evaluation_mode, unchecked
from dvaepp.models.encoders import HierarchicalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.objectives.base import Objective
from dvaepp.smoothings.base import Smoothing
from dvaepp.storage import load_tensors
from dvaepp.training.checkpoints import anneal, random_tensors, restore_random
from dvaepp.training.execution import Execution, executed
from dvaepp.training.journal import Metrics
from dvaepp.training.stacked import Given, Loss, Stack
from dvaepp.training.trainer import Trainer

OWN: dict[str, Any] = {"learning_rate": ((1.0, 1.0),), "cosine_to": None, "l2": 0.0, "kl_warmup": 0.0, "beta": None}
"""Settings of training that each replica may have for itself, with what they are compared without."""
_PENDING = ".next"


class Replicas:
    """Trainers of feed-forward models whose tensors lie stacked, so that one vectorised step moves them all.

    Seeds, data order, noise, chains, learning rates, KL weight, beta and L2 are each trainer's own; all else is one.
    Each draws from a random state of its own in the order in which it would alone: a replica's result is that of the
    run by itself, up to rounding, whichever others it is trained with. Each keeps its run folder as `Trainer.fit` does;
    checkpoints of all are written, then take the place of the former, so that a kill leaves all at one step (`settle`).
    `makers` give the trainers, each leaving torch's generator as it goes on with it. InputError where they differ in
    more than is their own, or do not stand at one step. One that diverges stops alone: `failures` has it.

    >>> import tempfile
    >>> import dvaepp
    >>> from dvaepp.data.dataset import Dataset
    >>> bits = torch.randint(0, 2, (20, 12), dtype=torch.uint8)
    >>> data = Dataset("coins", (12,), bits, bits, bits, dynamic=False, protocol="fair coins")
    >>> def trainer(folder, seed):
    ...     torch.manual_seed(seed)
    ...     encoder, decoder = dvaepp.HierarchicalEncoder(dvaepp.dense(12, 4)), dvaepp.dense(4, 12)
    ...     model = dvaepp.FeedForwardVAE(encoder, dvaepp.BernoulliPrior(4), decoder, dvaepp.OverlappingExponential())
    ...     settings = dvaepp.TrainingSettings(steps=2, batch=10)
    ...     return Trainer(model, dvaepp.objectives.bounds.JointBound(), data, settings, folder, seed)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     replicas = Replicas([partial(trainer, f"{folder}/{seed}", seed) for seed in range(3)], "eager")
    ...     replicas.fit()
    >>> [trainer.step for trainer in replicas.trainers]
    [2, 2, 2]
    """

    def __init__(self, makers: Sequence[Callable[[], Trainer]], execution: Execution = "compiled") -> None:
        if not makers:
            raise InputError("Replicas need at least one trainer")
        self.trainers: list[Trainer] = []
        self.failures: dict[Path, TrainingDivergedError] = {}
        self._execution, self._random = execution, []
        for make in makers:
            self.trainers.append(make())
            self._random.append(random_tensors(self.trainers[-1].device))
        check_alike(self.trainers)

    @property
    def step(self) -> int:
        """How many steps have been taken."""
        return self.trainers[0].step

    def fit(
        self,
        report: Callable[[Trainer, Metrics], None] = lambda trainer, metrics: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train up to the last step; `report` is given every line of metrics, and the trainer that it is of.

        Where `stop` says so after a line, all are saved as they are, and that is the end for now.
        """
        for place, trainer in enumerate(self.trainers):
            with self._stream(place):
                trainer.begin()
        settings, losses, self._clock = self.trainers[0].settings, [], time.perf_counter()
        with unchecked(), torch.no_grad():
            self._restack()
            while self.step < settings.steps:
                given = self._given()
                losses.append(self._advance(given))
                if self.trainers[0].validates or self.step % settings.log_every == 0:
                    stops = self._observe(torch.stack(losses), given.x, report, stop)
                    losses.clear()
                    if stops:
                        return

    @contextmanager
    def _stream(self, place: int) -> Iterator[None]:
        """torch's generators as this trainer left them."""
        device = self.trainers[place].device
        restore_random(self._random[place], device)
        try:
            yield
        finally:
            self._random[place] = random_tensors(device)

    def _restack(self) -> None:
        losses = [Loss(trainer.model, objective_of(trainer)) for trainer in self.trainers]
        each = [trainer.optimisation for trainer in self.trainers]
        self._layout = layout(self.trainers[0])
        self._uniforms = losses[0].objective.uniforms(losses[0].model)
        self._stack = Stack(losses, [one.optimizers for one in each], each[0].rules)
        self._step: Callable[[Given], Tensor] | None = None

    def _given(self) -> Given:
        """What the next step is given, each trainer's from its own stream and schedules."""
        batches, noises = [], []
        for place, trainer in enumerate(self.trainers):
            with self._stream(place):
                trainer.model.prior.refresh()
                batches.append(trainer.batch())
                noises.append(self._noise(trainer))
        x = torch.stack(batches).to(self.trainers[0].device, self.trainers[0].dtype)
        schedules = [trainer.schedule(self.step + 1) for trainer in self.trainers]
        of_all = {name: x.new_tensor([schedule[name] for schedule in schedules]) for name in schedules[0]}
        beta, kl_weight = of_all.pop("beta"), of_all.pop("kl_weight")
        return Given(x, torch.stack(noises).to(x), beta, kl_weight, of_all)

    def _noise(self, trainer: Trainer) -> Float[Tensor, "uniforms batch bits"]:
        """The uniform numbers that a pass of the model would draw, group by group; what it draws not is 0."""
        batch, dtype, device = trainer.settings.batch, trainer.dtype, trainer.device
        drawn = [torch.rand((count, batch, bits), dtype=dtype, device=device) for count, bits in self._layout]
        return torch.cat([torch.cat([d, d.new_zeros(self._uniforms - len(d), *d.shape[1:])]) for d in drawn], -1)

    def _advance(self, given: Given) -> Float[Tensor, " models"]:
        if self._step is None:
            self._step = executed(self._stack, given, self._execution)
        losses = self._step(given)
        for trainer in self.trainers:
            trainer.step += 1
        return losses

    def _observe(
        self,
        losses: Float[Tensor, "steps models"],
        x: Tensor,
        report: Callable[[Trainer, Metrics], None],
        stop: Callable[[], bool],
    ) -> bool:
        """Let each trainer log and validate, and count its share of the time; drop those that diverged, save others.

        Whether training stops here.
        """
        self._stack.count(self.step)
        share = (time.perf_counter() - self._clock) / len(self.trainers)
        for place, trainer in enumerate(self.trainers):
            anneal(trainer.model, trainer.settings, trainer.settings.fraction_before(self.step))
            with self._stream(place), torch.enable_grad():
                try:
                    trainer.observe(losses[:, place], x[place], partial(report, trainer), share)
                except TrainingDivergedError as error:
                    self.failures[trainer.folder] = error
        kept = [place for place, trainer in enumerate(self.trainers) if trainer.folder not in self.failures]
        stops = not kept or stop()
        if kept and (stops or self.trainers[0].validates):
            self._save(kept)
        if len(kept) < len(self.trainers):
            self.trainers, self._random = [self.trainers[i] for i in kept], [self._random[i] for i in kept]
            if kept:
                self._restack()
        self._clock = time.perf_counter()
        return stops

    def _save(self, places: Sequence[int]) -> None:
        """Write the checkpoints of all before any takes the place of the former."""
        checkpoints = [self.trainers[place].checkpoint for place in places]
        for place, checkpoint in zip(places, checkpoints, strict=True):
            with self._stream(place):
                self.trainers[place].save(pending(checkpoint) if len(places) > 1 else checkpoint)
        if len(places) > 1:
            settle(checkpoints)


def fit(trainer: Trainer, report: Callable[[Metrics], None] = lambda metrics: None) -> None:
    """`Trainer.fit`; of a feed-forward model whose settings say `compile`, with its whole step compiled.

    Raises TrainingDivergedError as that does.
    """
    if not (trainer.settings.compile and isinstance(trainer.model, FeedForwardVAE)) or distributed.world() > 1:
        trainer.fit(report)
        return
    alone = Replicas([lambda: trainer], "graph" if trainer.device.type == "cuda" else "compiled")
    alone.fit(lambda _, metrics: report(metrics))
    for error in alone.failures.values():
        raise error


def layout(trainer: Trainer) -> list[tuple[int, int]]:
    """How many uniform numbers a pass of the model draws for each bit of a group, and the group's bits."""
    model, objective = trainer.model, objective_of(trainer)
    x = torch.zeros(2, trainer.data.pixels).to(next(model.parameters()))
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), unchecked(), evaluation_mode(model):
        trace: Trace = model(x)
    return [(objective.drawn(q, group), q.batch_shape[-1]) for group, q in enumerate(trace.posterior.groups)]


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
        chosen = chosen.with_beta(1.0)
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
    return repr(model), shapes, _plain(model.smoothing), _plain(getattr(model, "likelihood", None))


_COMPARED: dict[str, Callable[[Trainer], Any]] = {
    "their steps so far": lambda trainer: trainer.step,
    "their data": lambda trainer: trainer.about["data"],
    "their device": lambda trainer: trainer.device,
    "their bound": lambda trainer: (_plain(trainer.objective), _made(getattr(trainer.objective, "built", None))),
    "their model": lambda trainer: _structure(trainer.model),
    "settings of training": lambda trainer: trainer.settings.model_copy(update=OWN),
}


def pending(checkpoint: Path) -> Path:
    """Where a checkpoint waits until those of all replicas are written."""
    return checkpoint.with_name(checkpoint.name + _PENDING)


def settle(checkpoints: Sequence[Path]) -> None:
    """Bring checkpoints of replicas that were killed while they were written to one step: all new, or all former.

    To be done before trainers are made of them.
    """
    waiting = [path for path in checkpoints if pending(path).exists()]
    for path in [path for path in waiting if path.exists() and _step(pending(path)) <= _step(path)]:
        pending(path).unlink()  # the run has gone on by itself since, or what waits cannot be read
        waiting.remove(path)
    if not waiting:
        return
    newest = max(_step(pending(path)) for path in waiting)
    done = [path in waiting or (path.exists() and _step(path) == newest) for path in checkpoints]
    for path in waiting:
        if all(done):
            pending(path).replace(path)
        else:
            pending(path).unlink()


def _step(checkpoint: Path) -> int:
    with suppress(InputError, KeyError, TypeError):
        return int(load_tensors(checkpoint, lambda name: False)[1]["step"])
    return -1
