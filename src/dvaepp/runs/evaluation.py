"""Scoring a run, and what is kept of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

import torch

from dvaepp import distributed
from dvaepp.errors import InputError
from dvaepp.evaluation.kept import KeptScores
from dvaepp.evaluation.likelihood import score, shared_log_partition
from dvaepp.evaluation.scores import Scores
from dvaepp.randomness import stream_seed
from dvaepp.recipes.settings import EvaluationSettings
from dvaepp.runs.archive import keep_latest, latest
from dvaepp.runs.records import Result, check_result
from dvaepp.runs.run import Run
from dvaepp.storage import check_target
from dvaepp.training.checkpoints import step_in
from dvaepp.training.trainer import CHECKPOINT


def evaluate(
    run: Run,
    settings: EvaluationSettings,
    *,
    split: str,
    seed: int,
    last: bool,
    device: str | None = None,
    command: str,
    megabytes: int | float = 64,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Scores, dict[str, Any]]:
    """Score a run's model on a split, with a fresh log Z; the JSON object is what scores.json and `results/` keep.

    What has been scored is kept in the run's folder until the end: a stopped evaluation goes on where it was. The
    result is then the latest there (`archive.keep_latest`). InputError where a likelihood is not finite.
    """
    check_target(latest(run.folder, split))
    how: dict[str, Any] = {"device": device, "command": command, "megabytes": megabytes, "progress": progress}
    scores, result, kept = _measured(run, settings, split, seed, last, **how)
    distributed.on_first(lambda: keep_latest(run.folder, result))
    kept.clear()
    return scores, result


def again(
    run: Run,
    result: Result,
    *,
    device: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Result:
    """The evaluation that gave a result made again from the run's model; nothing of the run's is replaced.

    Scores differ from those by rounding alone where it is made on the same kind of device. InputError as `evaluate`.
    """
    effort = result.evaluation
    if effort is None:
        raise InputError(f"a result of {result.recipe} does not say how it was scored, as those of now do")
    settings = EvaluationSettings(**effort.model_dump(exclude={"model"}))
    last, command = effort.model == "last", result.commands[-1]
    how: dict[str, Any] = {"device": device, "command": command, "megabytes": 64, "progress": progress}
    _, values, kept = _measured(run, settings, result.split, result.evaluation_seed, last, **how)
    kept.clear()
    return check_result(values, f"the scores of {run.folder} are none")


def _measured(
    run: Run,
    settings: EvaluationSettings,
    split: str,
    seed: int,
    last: bool,
    *,
    device: str | None,
    command: str,
    megabytes: int | float,
    progress: Callable[[int, int], None],
) -> tuple[Scores, dict[str, Any], KeptScores]:
    """Scores, the result that they make, and the file of those so far."""
    trained = run.model(last, device)
    examples = getattr(run.data_for(trained), split)
    if settings.examples is not None and settings.examples < len(examples):
        generator = torch.Generator().manual_seed(seed)  # the subset that results so far were measured on
        examples = examples[torch.randperm(len(examples), generator=generator)[: settings.examples]]
    torch.manual_seed(stream_seed("log Z of the evaluation", seed))
    log_z = shared_log_partition(
        trained.model.prior,
        temperatures=settings.temperatures,
        chains=settings.chains,
        repeats=settings.repeats,
        thorough=settings.thorough,
    )
    about = {
        "recipe": run.recipe.model_dump(mode="json"),
        "seed": run.seed,
        "data": trained.data,
        "step": trained.step,
        "split": split,
        "evaluation_seed": seed,
        "samples": settings.samples,
        "examples": len(examples),
        "log_z": log_z.value,
        "megabytes": megabytes,
    }
    name = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]
    kept = KeptScores(run.folder / f"scores-so-far-{name}.safetensors", about)
    x = examples.float().to(trained.device)
    scores = score(trained.model, x, settings.samples, seed=seed, megabytes=megabytes, progress=progress, kept=kept)
    if bad := int((~scores.examples.log_likelihood.isfinite()).sum()):
        raise InputError(
            f"the likelihood of {bad} of {len(x)} {split} examples is no finite number: no scores are kept"
        )
    effort = settings.model_dump() | {"model": "last" if last else "best", "examples": len(examples)}
    result = {
        "recipe": run.recipe.name,
        "settings": run.record.recipe,
        "seed": run.seed,
        "steps": trained.step,
        "trained": trained.step if last else max(trained.step, step_in(run.folder / CHECKPOINT)),
        "scores": scores.numbers(),
        "log_partition": {
            "method": log_z.method,
            "trusted": log_z.trusted,
            "diagnosis": {name: value for name, value in log_z.diagnosis.items() if math.isfinite(value)},
        },
        "split": split,
        "evaluation_seed": seed,
        "evaluation": effort,
        "data": {"name": run.data.name, "protocol": run.data.protocol, "digest": trained.data},
        "commands": [run.record.command, command],
    }
    return scores, result, kept
