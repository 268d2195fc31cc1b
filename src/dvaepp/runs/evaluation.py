"""Scoring a run, and what is kept of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from dvaepp import distributed
from dvaepp.boltzmann.log_partition import LogPartition
from dvaepp.data import Examples, load, names
from dvaepp.errors import InputError
from dvaepp.evaluation.kept import KeptScores
from dvaepp.evaluation.likelihood import score, shared_log_partition
from dvaepp.evaluation.scores import Scores
from dvaepp.randomness import stream_seed
from dvaepp.recipes.settings import EvaluationSettings
from dvaepp.runs.archive import keep_latest, latest
from dvaepp.runs.folder import RunFolder, TrainedModel
from dvaepp.runs.inputs import check_categories, examples_in
from dvaepp.runs.located import is_only_read
from dvaepp.runs.records import Result, check_result, complaint
from dvaepp.storage import check_target
from dvaepp.training.checkpoints import step_in
from dvaepp.training.trainer import CHECKPOINT

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """Scores, the examples that they are of, and the JSON object of a result, of the run's own data."""

    scores: Scores
    examples: Examples
    result: dict[str, Any] | None = None


def evaluate(
    run: RunFolder,
    settings: EvaluationSettings,
    *,
    split: str,
    seed: int,
    last: bool,
    device: str | None = None,
    command: str,
    megabytes: int | float = 64,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Score a run's model on a split, with a fresh log Z; `result` is what scores.json and `results/` keep.

    What has been scored is kept in the run's folder until the end: a stopped evaluation goes on where it was. The
    result is then the latest there (`archive.keep_latest`). Of a run that is only read (`located`) nothing is kept.
    InputError where a likelihood is not finite.
    """
    measuring = _Measuring(run, settings, split, seed, last, device, megabytes)
    if is_only_read(run.folder):
        scores = measuring.scores(progress)
        return Evaluation(scores, measuring.examples, measuring.result(scores, [*run.record.commands, command]))
    check_target(latest(run.folder, split))
    kept = measuring.kept()
    scores = measuring.scores(progress, kept)
    result = measuring.result(scores, [*run.record.commands, command])
    distributed.on_first(lambda: keep_latest(run.folder, result))
    kept.clear()
    return Evaluation(scores, measuring.examples, result)


def evaluate_others(
    run: RunFolder,
    examples: Examples,
    settings: EvaluationSettings,
    *,
    seed: int,
    last: bool,
    device: str | None = None,
    megabytes: int | float = 64,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Score a run's model on examples that are not of its data, as `evaluate` does; nothing is kept, and no result."""
    measuring = _Measuring(run, settings, "given", seed, last, device, megabytes, examples)
    return Evaluation(measuring.scores(progress), measuring.examples)


def others(run: RunFolder) -> Examples | None:
    """The examples at the run's `data_at`, if these are not the data that it was trained on but others of their form.

    The test data of a data set by name, else all that lie there.
    """
    at = run.data_at
    if at is None or not (at in names() or Path(at).exists()):
        return None
    with suppress(InputError):  # too few to be split, or none as yet
        if run.record.data in (None, run.data.digest()):
            return None
    if at in names():
        return run.recipe.check_data(load(at, run.data_dir)).examples("test")
    trained = run.model(not (run.folder / "best.safetensors").exists())
    found = examples_in(at, trained.reading, trained.shape)
    check_categories(found.x, trained.model, at)
    return found


def again(
    run: RunFolder, result: Result, device: str | None = None, progress: Progress = lambda done, total: None
) -> Result:
    """The evaluation that gave a result made again from the run's model, by itself: the run's folder is only read.

    Draws are the same where they are split alike (`Result.made`): then scores differ by rounding alone. InputError for
    a result that does not say how it was scored, or says what cannot be, and as `evaluate`.
    """
    effort = result.evaluation
    if effort is None:
        raise InputError(f"the result of {result.recipe} does not say how it was scored, as those of now do")
    try:
        settings = EvaluationSettings(**effort.model_dump(exclude={"model"}))
    except ValidationError as error:
        raise InputError(f"the result of {result.recipe} cannot be scored so again: {complaint(error)}") from None
    megabytes = 64 if result.made is None else result.made.megabytes
    last = effort.model == "last"
    measuring = _Measuring(run, settings, result.split, result.evaluation_seed, last, device, megabytes)
    values = measuring.result(measuring.scores(progress), result.commands)
    return check_result(values, f"the scores of {run.folder} are none")


@dataclass(frozen=True)
class _Measuring:
    """A run's model about to be scored."""

    run: RunFolder
    settings: EvaluationSettings
    split: str
    seed: int
    last: bool
    device: str | None
    megabytes: int | float
    others: Examples | None = None
    """In place of the run's own."""

    def __post_init__(self) -> None:
        if self.others is None:
            step_in(self.run.folder / CHECKPOINT)  # a damaged one is told before all is scored

    @cached_property
    def trained(self) -> TrainedModel:
        """The model, its log Z found anew, by draws of its own; InputError where the data are not its own."""
        trained, settings = self.run.model(self.last, self.device), self.settings
        if self.others is None:
            self.run.data_for(trained)
        elif self.others.shape != trained.shape:
            held = f"holds examples of shape {self.others.shape}"
            raise InputError(f"{self.run.data_at} {held}, the run's model {trained.shape}")
        torch.manual_seed(stream_seed("log Z of the evaluation", self.seed))
        shared_log_partition(
            trained.model.prior,
            temperatures=settings.temperatures,
            chains=settings.chains,
            repeats=settings.repeats,
            thorough=settings.thorough,
        )
        return trained

    @cached_property
    def examples(self) -> Examples:
        """Those of the split, or those that are given in their place; or a random subset."""
        every = self.others or self.run.data_for(self.trained).examples(self.split)
        if self.settings.examples is None or self.settings.examples >= len(every.x):
            return every
        generator = torch.Generator().manual_seed(self.seed)  # the subset that results so far were measured on
        return every.at(torch.randperm(len(every.x), generator=generator)[: self.settings.examples])

    @property
    def log_z(self) -> LogPartition:
        """That of the model."""
        return self.trained.model.prior.known_log_partition()

    def kept(self) -> KeptScores:
        """Where scores so far lie, those of this very evaluation."""
        about = {
            "recipe": self.run.recipe.model_dump(mode="json"),
            "seed": self.run.seed,
            "data": self.trained.data,
            "step": self.trained.step,
            "split": self.split,
            "evaluation_seed": self.seed,
            "samples": self.settings.samples,
            "examples": len(self.examples.x),
            "log_z": self.log_z.value,
            "megabytes": self.megabytes,
        }
        name = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]
        return KeptScores(self.run.folder / f"scores-so-far-{name}.safetensors", about)

    def scores(self, progress: Progress, kept: KeptScores | None = None) -> Scores:
        """Score every example; InputError where a likelihood is not finite."""
        x = self.examples.x.float().to(self.trained.device)
        how: dict[str, Any] = {"megabytes": self.megabytes, "progress": progress, "kept": kept}
        scores = score(self.trained.model, x, self.settings.samples, seed=self.seed, **how)
        if bad := int((~scores.examples.log_likelihood.isfinite()).sum()):
            raise InputError(
                f"the likelihood of {bad} of {len(x)} {self.split} examples is no finite number: no scores are kept"
            )
        return scores

    def result(self, scores: Scores, commands: list[str]) -> dict[str, Any]:
        """The JSON object of a result."""
        run, trained, log_z = self.run, self.trained, self.log_z
        model = {"model": "last" if self.last else "best", "examples": len(self.examples.x)}
        diagnosis = {name: value for name, value in log_z.diagnosis.items() if math.isfinite(value)}
        return {
            "recipe": run.recipe.name,
            "settings": run.record.recipe,
            "seed": run.seed,
            "steps": trained.step,
            "trained": trained.step if self.last else max(trained.step, step_in(run.folder / CHECKPOINT)),
            "scores": scores.numbers(),
            "log_partition": {"method": log_z.method, "trusted": log_z.trusted, "diagnosis": diagnosis},
            "split": self.split,
            "evaluation_seed": self.seed,
            "evaluation": self.settings.model_dump() | model,
            "made": {
                "device": trained.device.type,
                "processes": distributed.world(),
                "megabytes": self.megabytes,
            },
            "data": {"name": run.data.name, "protocol": run.data.protocol, "digest": trained.data},
            "commands": commands,
        }
