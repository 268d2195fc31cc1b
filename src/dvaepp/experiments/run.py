"""A run: a folder with a recipe, a seed, and all that came of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import dvaepp
from dvaepp.data import NAMES, Dataset
from dvaepp.errors import InputError
from dvaepp.evaluation import Scores, score
from dvaepp.experiments.recipe import EvaluationSettings, Recipe, recipe_from
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.storage import load_tensors, read_json, write_json
from dvaepp.training import Metrics, Trainer, load_model

_RECORD = "run.json"


@dataclass(frozen=True)
class TrainedModel:
    """A model as a checkpoint left it, after `step` steps, for examples of this shape."""

    model: FeedForwardVAE
    step: int
    shape: tuple[int, ...]
    device: torch.device


@dataclass(frozen=True)
class Run:
    """A run folder: `run.json` (recipe, seed, device, threads, where the data is), checkpoints, metrics, scores."""

    folder: Path

    @staticmethod
    def create(
        recipe: Recipe, folder: Path, *, seed: int, device: str, threads: int, data_dir: str | None, command: str
    ) -> Run:
        """A new run in an empty or new folder; a path to data is made absolute. Nothing is written for bad input."""
        if (folder / _RECORD).exists():
            raise InputError(
                f"{folder} already holds a run: `dvaepp resume {folder}` goes on with it, --out names another"
            )
        recipe.load_data(data_dir)
        _device(device)
        if recipe.data.name not in NAMES:
            data = recipe.data.model_copy(update={"name": str(Path(recipe.data.name).resolve())})
            recipe = recipe.model_copy(update={"data": data})
        record = {
            "recipe": recipe.model_dump(mode="json"),
            "seed": seed,
            "device": device,
            "threads": threads,
            "data_dir": data_dir and str(Path(data_dir).resolve()),
            "command": command,
            "versions": {"dvaepp": dvaepp.__version__, "torch": torch.__version__},
        }
        write_json(folder / _RECORD, record)
        return Run(folder)

    @cached_property
    def record(self) -> dict[str, Any]:
        """What run.json says."""
        record = read_json(self.folder / _RECORD, "the record of a run (is this a run folder?)")
        missing = {"recipe", "seed", "device", "threads", "data_dir", "command"} - set(record)
        if missing:
            raise InputError(
                f"{self.folder / _RECORD} is not the record of a run: it lacks {', '.join(sorted(missing))}"
            )
        return dict(record)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe."""
        return recipe_from(self.record["recipe"], str(self.folder / _RECORD))

    @cached_property
    def data(self) -> Dataset:
        """The recipe's data."""
        return self.recipe.load_data(self.record["data_dir"])

    @property
    def seed(self) -> int:
        """The seed."""
        return int(self.record["seed"])

    @property
    def device(self) -> torch.device:
        """Where the run computes; InputError where this machine has no such device."""
        return _device(self.record["device"])

    def trainer(self) -> Trainer:
        """The trainer, at the run's latest checkpoint, or at its start where there is none yet."""
        device, data = self.device, self.data
        torch.set_num_threads(self.record["threads"])
        torch.manual_seed(self.seed)
        model, objective = self.recipe.build(data.mean)
        about = {"recipe": self.record["recipe"], "seed": self.seed, "shape": list(data.shape)}
        trainer = Trainer(model.to(device), objective, data, self.recipe.training, self.folder, self.seed, about)
        if trainer.checkpoint.exists():
            trainer.restore()
        else:
            trainer.metrics.unlink(missing_ok=True)
        return trainer

    def model(self, last: bool = False, device: str | None = None) -> TrainedModel:
        """The model with the best validation likelihood, or the last one, on any device; needs no data."""
        where = _device(device) if device else self.device
        path = self.folder / ("checkpoint.safetensors" if last else "best.safetensors")
        if not last and not path.exists():
            raise InputError(f"{self.folder} has no validated model yet: train on, or use --last")
        tensors, about = load_tensors(path, lambda name: name.startswith("model."))
        shape = tuple(about["shape"])
        model, _ = self.recipe.build(torch.zeros(int(torch.tensor(shape).prod())))
        load_model(model, path, tensors, about)
        return TrainedModel(model.to(where).eval(), about["step"], shape, where)

    def metrics(self) -> list[Metrics]:
        """The whole lines of metrics.jsonl; one that is being written, or was when the run was killed, is left out."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def scores(self) -> dict[str, Any] | None:
        """What `evaluate` wrote last."""
        path = self.folder / "scores.json"
        return read_json(path, "scores of a run") if path.exists() else None


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None


def evaluate(
    run: Run,
    settings: EvaluationSettings,
    *,
    split: str,
    seed: int,
    last: bool,
    device: str | None = None,
    command: str,
    **progress: Any,
) -> tuple[Scores, dict[str, Any]]:
    """Score a run's model on a split, with a fresh log Z; also as the JSON object that `results/` keeps."""
    trained, examples = run.model(last, device), getattr(run.data, split)
    if settings.examples is not None and settings.examples < len(examples):
        generator = torch.Generator().manual_seed(seed)
        examples = examples[torch.randperm(len(examples), generator=generator)[: settings.examples]]
    torch.manual_seed(seed)
    log_z = trained.model.prior.estimate_log_partition(
        temperatures=settings.temperatures, chains=settings.chains, repeats=settings.repeats
    )
    scores = score(trained.model, examples.float().to(trained.device), settings.samples, seed=seed, **progress)
    result = {
        "recipe": run.recipe.name,
        "seed": run.seed,
        "steps": trained.step,
        "scores": scores.numbers(),
        "log_partition": {"method": log_z.method, "trusted": log_z.trusted},
        "split": split,
        "evaluation_seed": seed,
        "data": {"name": run.data.name, "protocol": run.data.protocol},
        "commands": [run.record["command"], command],
    }
    return scores, result
