"""Replicas: runs of one structure trained at once in one process, each as if it trained alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp import distributed
from dvaepp.errors import InputError, TrainingDivergedError
from dvaepp.models.base import unchecked
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.training.alike import check_alike, objective_of
from dvaepp.training.batches import sent
from dvaepp.training.checkpoints import anneal
from dvaepp.training.execution import Execution, Steps, executed
from dvaepp.training.in_place import InPlace
from dvaepp.training.journal import Metrics
from dvaepp.training.numbers import Numbers, OwnNumbers
from dvaepp.training.settling import pending, settle
from dvaepp.training.stacked import Given, Loss, Movable, Stack
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
        self.beside = 0
        """How many other trainers are at work in turn with these, whose share of the time is not counted."""
        self._execution, self._numbers = execution, []
        for make in makers:
            self.trainers.append(make())
            self._numbers.append(self._numbers_of(self.trainers[-1]))
        self._check()

    @property
    def step(self) -> int:
        """How many steps have been taken."""
        return self.trainers[0].step

    def fit(self, report: Report = lambda trainer, metrics: None, stop: Callable[[], bool] = lambda: False) -> None:
        """Train up to the last step; `report` is given every line of metrics, and the trainer that it is of.

        Where `stop` says so after a line, all are saved as they are, and that is the end for now.
        """
        self.begin()
        while self.advance(report, stop):
            pass

    def _numbers_of(self, trainer: Trainer) -> Numbers | OwnNumbers:
        return Numbers(trainer)

    def _check(self) -> None:
        check_alike(self.trainers)

    def begin(self) -> None:
        """Make ready for `advance`."""
        device = self.trainers[0].device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        for trainer, numbers in zip(self.trainers, self._numbers, strict=True):
            with numbers.own():
                trainer.begin()
        self._losses: list[Tensor] = []
        self._x = torch.empty(0)
        self._clock = time.perf_counter()
        self._wait()
        with self._at_work():
            self._restack()

    def advance(self, report: Report, stop: Callable[[], bool]) -> bool:
        """Look at the stretch of steps before, where a line of metrics follows it, and take the next one.

        Whether there is one. So on a GPU it waits for steps only once those of other groups, whose turns come between,
        are at work too.
        """
        first = self.trainers[0]
        with self._at_work():
            if self._losses and first.is_looked_at:
                losses, self._losses = torch.cat(self._losses), []
                if self._observe(losses, self._x, report, stop):
                    return False
            if self.step == self.trainers[0].settings.steps:
                return False
            given = self._given(min(self._stretch, self._numbers[0].left(), self.trainers[0].until_next))
            self._losses.append(self._advance(given))
            self._x = given.x[-1]
        return True

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Without gradients and checks; on a GPU in a stream of this group's own."""
        with unchecked(), torch.no_grad(), torch.cuda.stream(self._stream) if self._stream else nullcontext():
            yield

    def _wait(self) -> None:
        """Until all is done that was asked of a GPU: memory of one stream is about to be used in another, or freed."""
        if self._stream is not None:
            torch.cuda.synchronize(self._stream.device)

    def _restack(self) -> None:
        self._stack = self._movable()
        self._steps: Steps | None = None
        self._stretch = stretch(self.trainers, self._numbers[0])
        self._alike = [
            f"{trainer.settings.model_dump_json()} {trainer.model.smoothing.sharpness}" for trainer in self.trainers
        ]
        self._wait()

    def _movable(self) -> Movable:
        losses = [Loss(trainer.model, objective_of(trainer)) for trainer in self.trainers]
        each = [trainer.optimisation for trainer in self.trainers]
        averages = [one.averages.means for one in each if one.averages is not None]
        return Stack(losses, [one.optimizers for one in each], each[0].rules, averages)

    def _given(self, steps: int) -> Given:
        """What the next steps are given, each trainer's from its own stream and schedules."""
        each = [numbers.given(steps) for numbers in self._numbers]
        x, noise, chains = (torch.stack(tensors, 1) for tensors in zip(*each, strict=True))
        rates = self._schedules(range(self.step + 1, self.step + steps + 1), x)
        beta, kl_weight, average = (rates.pop(name) for name in ("beta", "kl_weight", "average"))
        return Given(x, noise, chains, beta, kl_weight, average, rates)

    def _schedules(self, steps: range, like: Tensor) -> dict[str, Float[Tensor, "steps models"]]:
        """The trainers' schedules at these steps, worked out once for those that have one in common."""
        known: dict[str, list[dict[str, float]]] = {}
        for alike, trainer in zip(self._alike, self.trainers, strict=True):
            known[alike] = known.get(alike) or [schedule(trainer, step) for step in steps]
        numbers = [[[*at.values()] for at in known[alike]] for alike in self._alike]
        table = sent(torch.tensor(numbers, dtype=like.dtype).permute(2, 1, 0).contiguous(), like.device)
        return dict(zip(known[self._alike[0]][0], table, strict=True))

    def _advance(self, given: Given) -> Float[Tensor, "steps models"]:
        with self._numbers[0].at_steps():
            if self._steps is None:
                self._steps = executed(self._stack, given, self._execution, self._stretch)
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
        share = (time.perf_counter() - self._clock) / (len(self.trainers) + self.beside)
        for place, trainer in enumerate(self.trainers):
            anneal(trainer.model, trainer.settings, trainer.settings.fraction_before(self.step))
            with self._numbers[place].own(), torch.enable_grad():
                try:
                    trainer.observe(losses[:, place], x[place], partial(report, trainer), share)
                except TrainingDivergedError as error:
                    self.failures[trainer.folder] = error.with_traceback(None)  # which would hold this group
        kept = [place for place, trainer in enumerate(self.trainers) if trainer.folder not in self.failures]
        stops = not kept or stop()
        if kept and (stops or self.trainers[0].validates):
            self._save(kept)
        if len(kept) < len(self.trainers):
            self.trainers, self._numbers = [self.trainers[i] for i in kept], [self._numbers[i] for i in kept]
            if kept:
                self._restack()
        self._clock = time.perf_counter()
        return stops

    def _save(self, places: Sequence[int]) -> None:
        """Write the checkpoints of all before any takes the place of the former."""
        checkpoints = [self.trainers[place].checkpoint for place in places]
        for place, checkpoint in zip(places, checkpoints, strict=True):
            with self._numbers[place].kept():
                self.trainers[place].save(pending(checkpoint) if len(places) > 1 else checkpoint)
        if len(places) > 1:
            settle(checkpoints)


class Captured(Replicas):
    """One trainer, of any model, whose step is a CUDA graph of what it is (`InPlace`); on a CPU it can be `eager`.

    A graph takes as long as its kernels, where launching them one by one takes several times that. The objective must
    not decide by values, nor read them.
    """

    def __init__(self, make: Callable[[], Trainer], execution: Execution = "captured") -> None:
        super().__init__([make], execution)

    def _numbers_of(self, trainer: Trainer) -> OwnNumbers:
        return OwnNumbers(trainer)

    def _check(self) -> None:
        """There is nothing to compare."""

    def _movable(self) -> Movable:
        return InPlace(self.trainers[0])


def fit(trainer: Trainer, report: Callable[[Metrics], None] = lambda metrics: None) -> None:
    """`Trainer.fit`; where its settings say `compile`, with a feed-forward model's whole step compiled.

    On a GPU a convolutional model's step is captured.

    Raises TrainingDivergedError as that does.
    """
    alone = _compiled(trainer)
    if alone is None:
        trainer.fit(report)
        return
    alone.fit(lambda _, metrics: report(metrics))
    for error in alone.failures.values():
        raise error


def stepping(trainer: Trainer) -> Callable[[], int]:
    """A function that takes the next steps as `fit` would, one or on a GPU a stretch, and says how many.

    Nothing is logged but by the settings, whose lines are to be as far away as the steps that are taken.
    """
    alone = _compiled(trainer)
    if alone is None:
        trainer.begin()

        def one() -> int:
            with unchecked():
                trainer.train_step()
            return 1

        return one
    alone.begin()

    def several() -> int:
        before = trainer.step
        alone.advance(lambda *_: None, lambda: False)
        return trainer.step - before

    return several


def _compiled(trainer: Trainer) -> Replicas | None:
    """What trains it with its whole step compiled or captured, where its settings ask for that and its model can be."""
    if trainer.is_captured:
        return Captured(lambda: trainer)
    if not (trainer.settings.compile and isinstance(trainer.model, FeedForwardVAE)) or distributed.world() > 1:
        return None
    return Replicas([lambda: trainer], "graph" if trainer.device.type == "cuda" else "compiled")


def schedule(trainer: Trainer, step: int) -> dict[str, float]:
    """A step's numbers, counted from 1: beta and the averages' share (0 where there are none), KL weight, and rates."""
    settings, fraction = trainer.settings, trainer.settings.fraction_before(step)
    averages = trainer.optimisation.averages
    beta = settings.beta_at(fraction)
    return {
        "beta": float(trainer.model.smoothing.sharpness or 0) if beta is None else beta,
        "kl_weight": settings.kl_weight_at(fraction),
        "average": 0.0 if averages is None else averages.share(step),
        **trainer.optimisation.rates(step),
    }


def stretch(trainers: Sequence[Trainer], numbers: Numbers | OwnNumbers) -> int:
    """How many steps are taken at once: a span, or as many as have 512 MiB of batches and uniform numbers."""
    first = trainers[0]
    given = len(trainers) * (first.settings.batch * first.data.pixels + numbers.size) * first.dtype.itemsize
    return max(1, min(numbers.span, 2**29 // given))
