"""Replicas: runs of one structure trained at once in one process, each as if it trained alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from dvaepp import distributed
from dvaepp.errors import InputError, TrainingDivergedError
from dvaepp.models.base import Trace, evaluation_mode, unchecked
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.priors.base import Prior
from dvaepp.training.alike import check_alike, objective_of
from dvaepp.training.batches import sent
from dvaepp.training.checkpoints import anneal, random_tensors, restore_random
from dvaepp.training.execution import Execution, Steps, executed
from dvaepp.training.journal import Metrics
from dvaepp.training.settings import TrainingSettings
from dvaepp.training.settling import pending, settle
from dvaepp.training.stacked import Given, Loss, Stack
from dvaepp.training.trainer import Trainer

Report = Callable[[Trainer, Metrics], None]


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

    def fit(self, report: Report = lambda trainer, metrics: None, stop: Callable[[], bool] = lambda: False) -> None:
        """Train up to the last step; `report` is given every line of metrics, and the trainer that it is of.

        Where `stop` says so after a line, all are saved as they are, and that is the end for now.
        """
        self.begin()
        while self.step < self._settings.steps and self.advance(report, stop):
            pass

    def begin(self) -> None:
        """Make ready for `advance`."""
        device = self.trainers[0].device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        for place, trainer in enumerate(self.trainers):
            with self._randomness(place):
                trainer.begin()
        self._losses: list[Tensor] = []
        self._block = block(self.trainers[0], len(self.trainers))
        self._clock = time.perf_counter()
        with unchecked(), torch.no_grad():
            self._restack()
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def advance(self, report: Report, stop: Callable[[], bool]) -> bool:
        """A block of steps of `fit`, and what follows it; whether training goes on.

        On a GPU it waits for the steps only where losses are looked at, so that several groups may take blocks in turn
        and are at work at once.
        """
        with unchecked(), torch.no_grad(), torch.cuda.stream(self._stream) if self._stream else nullcontext():
            given = self._given(self._until_next())
            self._losses.append(self._advance(given))
            if not (self.trainers[0].validates or self.step % self._settings.log_every == 0):
                return True
            losses, self._losses = torch.cat(self._losses), []
            return not self._observe(losses, given.x[-1], report, stop) and self.step < self._settings.steps

    @property
    def _settings(self) -> TrainingSettings:
        return self.trainers[0].settings

    def _until_next(self) -> int:
        """How many steps are taken before training is looked at, at most a block."""
        settings, step = self._settings, self.step
        to_log, to_validate = (every - step % every for every in (settings.log_every, settings.validate_every))
        return min(self._block, to_log, to_validate, settings.steps - step)

    @contextmanager
    def _randomness(self, place: int) -> Iterator[None]:
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
        self._steps: Steps | None = None

    def _given(self, steps: int) -> Given:
        """What the next steps are given, each trainer's from its own stream and schedules."""
        batches, noises, schedules = [], [], []
        known: dict[tuple[Any, ...], list[dict[str, float]]] = {}
        for place, trainer in enumerate(self.trainers):
            with self._randomness(place):
                trainer.model.prior.refresh()
                batches.append(trainer.batches(steps))
                noises.append(self._noise(trainer, steps))
            alike = (trainer.settings, trainer.model.smoothing.sharpness)
            if alike not in known:
                known[alike] = [trainer.schedule(step) for step in range(self.step + 1, self.step + steps + 1)]
            schedules.append(known[alike])
        x = torch.stack(batches, 1)
        numbers = torch.tensor([[list(at.values()) for at in each] for each in schedules], dtype=x.dtype)
        of_all = dict(zip(schedules[0][0], sent(numbers.permute(2, 1, 0).contiguous(), x.device), strict=True))
        beta, kl_weight = of_all.pop("beta"), of_all.pop("kl_weight")
        return Given(x, torch.stack(noises, 1), beta, kl_weight, of_all)

    def _noise(self, trainer: Trainer, steps: int) -> Float[Tensor, "steps uniforms batch bits"]:
        """The uniform numbers that passes of the model would draw, group by group; what they draw not is 0."""
        sizes = [(steps, count, trainer.settings.batch, bits) for count, bits in self._layout]
        drawn = [torch.rand(size, dtype=trainer.dtype, device=trainer.device) for size in sizes]
        return torch.cat([functional.pad(d, (0, 0, 0, 0, 0, self._uniforms - d.shape[1])) for d in drawn], -1)

    def _advance(self, given: Given) -> Float[Tensor, "steps models"]:
        if self._steps is None:
            self._steps = executed(self._stack, given, self._execution)
        losses = self._steps(given)
        for trainer in self.trainers:
            trainer.step += len(losses)
        return losses

    def _observe(
        self,
        losses: Float[Tensor, "steps models"],
        x: Tensor,
        report: Report,
        stop: Callable[[], bool],
    ) -> bool:
        """Let each trainer log and validate, and count its share of the time; drop those that diverged, save others.

        Whether training stops here.
        """
        self._stack.count(self.step)
        share = (time.perf_counter() - self._clock) / len(self.trainers)
        for place, trainer in enumerate(self.trainers):
            anneal(trainer.model, trainer.settings, trainer.settings.fraction_before(self.step))
            with self._randomness(place), torch.enable_grad():
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
            with self._randomness(place):
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


def block(trainer: Trainer, models: int) -> int:
    """How many steps are given at once: on a GPU, which would wait for each, 500 unless chains move between them.

    Fewer where batches and uniform numbers, of as many bits as pixels, would take more than 512 MiB.
    """
    if trainer.device.type != "cuda" or type(trainer.model.prior).refresh is not Prior.refresh:
        return 1
    numbers = 2 * models * trainer.settings.batch * trainer.data.pixels
    return max(1, min(500, 2**29 // (numbers * trainer.dtype.itemsize)))


def layout(trainer: Trainer) -> list[tuple[int, int]]:
    """How many uniform numbers a pass of the model draws for each bit of a group, and the group's bits."""
    model, objective = trainer.model, objective_of(trainer)
    x = torch.zeros(2, trainer.data.pixels).to(next(model.parameters()))
    devices = [trainer.device] if trainer.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), unchecked(), evaluation_mode(model):
        trace: Trace = model(x)
    return [(objective.drawn(q, group), q.batch_shape[-1]) for group, q in enumerate(trace.posterior.groups)]
