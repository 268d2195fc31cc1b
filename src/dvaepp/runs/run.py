"""A run: a folder with a recipe, a seed, and all that came of them."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

import dvaepp
from dvaepp import distributed
from dvaepp.data import NAMES, Dataset
from dvaepp.errors import InputError
from dvaepp.evaluation.kept import KeptScores
from dvaepp.evaluation.likelihood import score, shared_log_partition
from dvaepp.evaluation.scores import Scores
from dvaepp.models.base import Model
from dvaepp.randomness import stream_seed
from dvaepp.recipes.build import DataSpec
from dvaepp.recipes.recipe import Recipe, recipe_from
from dvaepp.recipes.settings import EvaluationSettings
from dvaepp.runs.records import Number, Record, complaint, read_result
from dvaepp.storage import AnyPath, load_tensors, read_json, read_lines, write_json
from dvaepp.training.checkpoints import check_origin, load_model
from dvaepp.training.trainer import Metrics, Trainer

_RECORD = "run.json"
_OWN = (_RECORD, "metrics.jsonl", "checkpoint.safetensors", "best.safetensors", "scores.json")
_METRICS: TypeAdapter[Metrics] = TypeAdapter(dict[str, Number])


@dataclass(frozen=True)
class TrainedModel:
    """A model as a checkpoint left it, after `step` steps, for examples of this shape."""

    model: Model
    step: int
    shape: tuple[int, ...]
    device: torch.device
    data: str
    """The digest of the data it was trained on."""


@dataclass(frozen=True)
class Run:
    """A run folder: `run.json` (recipe, seed, device, threads, where the data is), checkpoints, metrics, scores."""

    folder: Path

    def __init__(self, folder: AnyPath) -> None:
        object.__setattr__(self, "folder", Path(folder))

    @staticmethod
    def create(
        recipe: Recipe, folder: Path, *, seed: int, device: str, threads: int, data_dir: str | None, command: str
    ) -> Run:
        """A new run in an empty or new folder; a path to data is made absolute. Nothing is written for bad input."""
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is not a folder, which a run needs")
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty: --out names another, and `dvaepp resume` goes on with a run")
        _device(device)
        distributed.share(recipe.training.batch, "training.batch")
        recipe.build(spec_of(recipe.load_data(data_dir)))
        if recipe.data.name not in NAMES:
            data = recipe.data.model_copy(update={"name": str(Path(recipe.data.name).resolve())})
            recipe = recipe.model_copy(update={"data": data})
        if recipe.model.graph is not None and recipe.model.graph.endswith(".csv"):
            model = recipe.model.model_copy(update={"graph": str(Path(recipe.model.graph).resolve())})
            recipe = recipe.model_copy(update={"model": model})
        record = Record(
            recipe=recipe.model_dump(mode="json"),
            seed=seed,
            device=device,
            threads=threads,
            data_dir=data_dir and str(Path(data_dir).resolve()),
            command=command,
            versions={"dvaepp": dvaepp.__version__, "torch": torch.__version__},
        )
        write_json(folder / _RECORD, record.model_dump(mode="json"))
        return Run(folder)

    @cached_property
    def record(self) -> Record:
        """What run.json says."""
        path = self.folder / _RECORD
        values = read_json(path, "the record of a run (is this a run folder?)")
        try:
            return Record.model_validate(values, strict=True)
        except ValidationError as error:
            raise InputError(f"{path} is not the record of a run: {complaint(error)}") from None

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe."""
        return recipe_from(self.record.recipe, str(self.folder / _RECORD))

    @cached_property
    def data(self) -> Dataset:
        """The recipe's data."""
        return self.recipe.load_data(self.record.data_dir)

    @property
    def seed(self) -> int:
        """The seed."""
        return self.record.seed

    @property
    def device(self) -> torch.device:
        """Where the run computes; InputError where this machine has no such device."""
        return _device(self.record.device)

    def trainer(self) -> Trainer:
        """The trainer, at the run's latest checkpoint, or at its start where there is none yet."""
        device, data = self.device, self.data
        torch.set_num_threads(self.record.threads)
        torch.manual_seed(stream_seed("weights", self.seed))
        model, objective = self.recipe.build(spec_of(data))
        trainer = Trainer(
            model.to(device), objective, data, self.recipe.training, self.folder, self.seed, self.origin()
        )
        if trainer.checkpoint.exists():
            trainer.restore()
        elif trainer.metrics.exists() or (self.folder / "best.safetensors").exists():
            raise InputError(f"{self.folder} holds results but no checkpoint.safetensors to go on from")
        return trainer

    def model(self, last: bool = False, device: str | None = None) -> TrainedModel:
        """The model with the best validation likelihood, or the last one, on any device; needs no data.

        Its smoothing is the one that the step which made its weights was taken with (`checkpoints.load_model`).
        """
        where = _device(device) if device else self.device
        path = self.folder / ("checkpoint.safetensors" if last else "best.safetensors")
        if not last and not path.exists():
            raise InputError(f"{self.folder} has no validated model yet: train on, or use --last")
        tensors, about = load_tensors(path, lambda name: name.startswith("model."))
        check_origin(path, about, self.origin())
        shape = tuple(about["shape"])
        ones = torch.ones(math.prod(shape))
        model, _ = self.recipe.build(DataSpec(shape, ones, ones, about.get("categories", 2)))
        load_model(model, path, tensors, about, self.recipe.training)
        return TrainedModel(model.to(where).eval(), about["step"], shape, where, about["data"])

    def data_for(self, trained: TrainedModel) -> Dataset:
        """The run's data; InputError where they are no longer those that the model was trained on."""
        if self.data.digest() != trained.data:
            raise InputError(f"{self.data.name} is no longer the data that {self.folder} was trained on")
        return self.data

    def origin(self) -> dict[str, Any]:
        return {"recipe": self.record.recipe, "seed": self.seed}

    def metrics(self) -> list[Metrics]:
        """The whole lines of metrics.jsonl; InputError unless they are JSON objects of numbers."""
        path = self.folder / "metrics.jsonl"
        try:
            lines = [json.loads(line) for line in read_lines(path)] if path.exists() else []
            return [_METRICS.validate_python(line, strict=True) for line in lines]
        except ValueError as error:
            raise InputError(
                f"{path} holds a line that is not an object of finite numbers: {complaint(error)}"
            ) from None

    def scores(self) -> dict[str, Any] | None:
        """What `evaluate` wrote last; InputError for anything else."""
        path = self.folder / "scores.json"
        if not path.exists():
            return None
        return read_result(path).model_dump()


def check_not_a_runs(path: Path) -> None:
    """InputError where a file to be written is one of those that make a run."""
    if path.name in _OWN and (path.parent / _RECORD).exists():
        raise InputError(f"{path} belongs to the run in {path.parent}, which would be lost: name another file")


def spec_of(data: Dataset) -> DataSpec:
    """What of the data a model is built for."""
    return DataSpec(data.shape, data.mean, data.sd, data.categories if data.kind == "categories" else 2)


def _device(name: str) -> torch.device:
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", name):
        raise InputError(f"device {name!r} is not one of cpu, cuda, cuda:0, cuda:1, ..., mps")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        raise InputError(f"device {name!r} cannot be used here: this machine or this PyTorch has none") from None


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

    What has been scored is kept in the run's folder until the end: a stopped evaluation goes on where it was.
    """
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
        **run.origin(),
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
    result = {
        "recipe": run.recipe.name,
        "settings": run.record.recipe,
        "seed": run.seed,
        "steps": trained.step,
        "scores": scores.numbers(),
        "log_partition": {
            "method": log_z.method,
            "trusted": log_z.trusted,
            "diagnosis": {name: value for name, value in log_z.diagnosis.items() if math.isfinite(value)},
        },
        "split": split,
        "evaluation_seed": seed,
        "data": {"name": run.data.name, "protocol": run.data.protocol},
        "commands": [run.record.command, command],
    }
    distributed.on_first(lambda: write_json(run.folder / "scores.json", result))
    kept.clear()
    return scores, result
