"""A run: a folder with a recipe, a seed, and all that came of them."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

import dvaepp
from dvaepp import distributed
from dvaepp.components.registry import ENVIRONMENT
from dvaepp.data import Dataset, names
from dvaepp.data.archives import save_dataset
from dvaepp.data.reading import Reading
from dvaepp.errors import InputError
from dvaepp.likelihoods.base import DataSpec
from dvaepp.models.base import Model
from dvaepp.numerics import whole
from dvaepp.objectives.base import Objective
from dvaepp.randomness import stream_seed
from dvaepp.recipes.build import spec_of
from dvaepp.recipes.recipe import Recipe, override, recipe_from, same_recipe
from dvaepp.runs.devices import device_named
from dvaepp.runs.located import run_at
from dvaepp.runs.records import DATA, RECORD, Number, Record, complaint, read_record, read_result
from dvaepp.storage import AnyPath, check_target, load_tensors, read_lines, write_json
from dvaepp.training.averages import AVERAGE, averaged
from dvaepp.training.checkpoints import TakenOver, check_origin, load_model, schema_in, spec_in, step_in, take_over
from dvaepp.training.journal import Metrics
from dvaepp.training.trainer import CHECKPOINT, Trainer

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
    reading: Reading
    """How other data are read as examples of the run."""


class RunFolder:
    """A run folder: `run.json` (recipe, seed, device, threads, where the data is), checkpoints, metrics, scores.

    What run.json says of paths is where they led when the run was made. Data and a graph's file of edges that were
    moved together with the folder are found, and others where they are said to lie now: the data at `data_at`, a path
    or a data set's name, data sets by name in `data_dir`, the prior's file of edges at `graph`. The checkpoint's digest
    of the data, and its bits, say whether they are the run's. InputError for an empty path. `planned` is what run.json
    is to say, of a run that is not written yet, and `held` its data where they lie in memory alone until then.
    """

    def __init__(
        self,
        folder: AnyPath,
        data_at: str | None = None,
        data_dir: str | None = None,
        graph: str | None = None,
        planned: Record | None = None,
        held: Dataset | None = None,
    ) -> None:
        for name, path in (("data_at", data_at), ("data_dir", data_dir), ("graph", graph)):
            if path == "":
                raise InputError(f"{name} must say where something lies, and is empty")
        self.folder, self.planned, self.held = Path(folder), planned, held
        self.data_at, self.data_dir, self.graph = data_at, data_dir, graph
        self.taken: TakenOver | None = None
        """What the trainer began with that was another run's."""

    @staticmethod
    def plan(
        recipe: Recipe,
        folder: Path,
        *,
        seed: int,
        device: str,
        threads: int,
        data_dir: str | None,
        command: str,
        held: Dataset | None = None,
        start: AnyPath | None = None,
    ) -> RunFolder:
        """A new run for an empty or new folder, in which nothing is written until `write`; paths are made absolute.

        Data that are `held` in memory will lie in the folder, whatever the recipe calls them. `start` is a
        run (`located`), from whose best weights this one begins, as far as they fit.
        """
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is not a folder, which a run needs")
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty: --out names another, and `dvaepp resume` goes on with a run")
        check_target(folder / RECORD)
        device_named(device)
        distributed.share(recipe.training.batch, "training.batch")
        if held is not None:
            recipe = recipe.on(str(folder.resolve() / DATA))
        threads, seed = whole("threads of a run", threads), whole("seed of a run", seed, least=0)
        record = Record(
            recipe=recipe.absolute().model_dump(mode="json"),
            seed=seed,
            device=device,
            threads=threads,
            data_dir=data_dir and str(Path(data_dir).expanduser().resolve()),
            command=command,
            versions={"dvaepp": dvaepp.__version__, "torch": torch.__version__},
            folder=str(folder.resolve()),
            start=None if start is None else str(run_at(start)),
        )
        return RunFolder(folder, planned=record, held=held)

    @staticmethod
    def create(
        recipe: Recipe, folder: Path, *, seed: int, device: str, threads: int, data_dir: str | None, command: str
    ) -> RunFolder:
        """A new run in an empty or new folder. Data and model are tried; nothing is written for bad input."""
        run = RunFolder.plan(
            recipe, folder, seed=seed, device=device, threads=threads, data_dir=data_dir, command=command
        )
        run._build(spec_of(run.data))
        run.write()
        return RunFolder(folder)

    def write(self) -> None:
        """Write run.json of a planned run, and data that are held; InputError where another is there by now."""
        path = self.folder / RECORD
        if path.exists():
            raise InputError(f"{path} was written meanwhile: another process trains there")
        columns = self.data.columns and list(self.data.columns)
        record = self.record.model_copy(update={"data": self.data.digest(), "columns": columns})
        if self.held is not None:
            save_dataset(self.folder / DATA, self.held)
        write_json(path, record.model_dump(mode="json"))

    @cached_property
    def record(self) -> Record:
        """What run.json says, or is to say."""
        if self.planned is not None:
            return self.planned
        return read_record(self.folder / RECORD)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe."""
        return recipe_from(self.record.recipe, str(self.folder / RECORD))

    @cached_property
    def data(self) -> Dataset:
        """The recipe's data, where they lie now; InputError where they are not there."""
        if self.held is not None:
            return self.held
        name = self.data_at or self.recipe.data.name
        if name not in names() and self.planned is None:  # that of a planned run may be a name that is wrong
            name = self._existing(self.data_at or self._now(name), "data", "--data")
        known = self.record.data_dir and self._now(self.record.data_dir)
        data_dir = self.data_dir or (known if known and Path(known).is_dir() else None)
        others = {"valid": self.recipe.data.valid, "test": self.recipe.data.test}
        led = {split: path and self._now(path) for split, path in others.items()}
        return self.recipe.on(name, **led).load_data(data_dir)

    def _build(self, spec: DataSpec) -> tuple[Model, Objective]:
        """Model and objective, on the graph where it lies now."""
        recipe, file = self.recipe, self.recipe.model.prior.file
        if file is None and self.graph is not None:
            raise InputError(f"--graph says where a file of edges lies, and the prior of {self.folder} has none")
        if file is not None and self.planned is None:
            recipe = recipe.with_file(self._existing(self.graph or self._now(file), "graph", "--graph"))
        return recipe.build(spec)

    def _existing(self, path: str, what: str, option: str) -> str:
        """The path of a file of the run; InputError, naming the option, where there is none."""
        if not Path(path).expanduser().exists():
            holds = f"which holds the {what} of {self.folder}"
            named = what == "data" and Path(path).name == path and not Path(path).suffix
            hint = f", or {ENVIRONMENT} names the module that defines a data set of that name" if named else ""
            raise InputError(f"{path}, {holds}, does not exist: {option} says where it lies now{hint}")
        return path

    def _now(self, recorded: str) -> str:
        """A path in run.json as it is now: where it was, or else as far from the run folder as it was."""
        own = self.folder / Path(recorded).name
        if self.record.folder is not None and Path(recorded).parent == Path(self.record.folder) and own.exists():
            return str(own)  # what lies in a run's folder goes with it, whatever is at the former place
        if self.record.folder is None or Path(recorded).exists():
            return recorded
        moved = (self.folder.resolve() / os.path.relpath(recorded, self.record.folder)).resolve()
        return str(moved) if moved.exists() else recorded

    @property
    def seed(self) -> int:
        """The seed."""
        return self.record.seed

    @property
    def device(self) -> torch.device:
        """Where the run computes; InputError where this machine has no such device."""
        return device_named(self.record.device)

    def trainer(self, device: str | None = None) -> Trainer:
        """The trainer, at the run's latest checkpoint, or at its start where there is none yet.

        On another `device` than so far it goes on from there with another generator's numbers, not bit for bit.
        """
        where = device_named(device) if device else self.device
        distributed.on_first(lambda: self.data.name)  # the first alone downloads what is not there
        data = self.data
        torch.set_num_threads(self.record.threads)
        torch.backends.cudnn.deterministic = True  # or a resumed convolutional run is another in its last bits
        torch.manual_seed(stream_seed("weights", self.seed))
        model, objective = self._build(spec_of(data))
        trainer = Trainer(
            model.to(where), objective, data, self.recipe.training, self.folder, self.seed, self.origin(), same_recipe
        )
        if self.record.data not in (None, trainer.about["data"]):
            raise self._other_data()
        if trainer.checkpoint.exists():
            trainer.restore()
        elif trainer.journal.path.exists() or (self.folder / "best.safetensors").exists():
            raise InputError(f"{self.folder} holds results but no checkpoint.safetensors to go on from")
        elif self.record.start is not None:
            self.taken = take_over(model, Path(self.record.start) / "best.safetensors")
        return trainer

    def extend(self, steps: int) -> None:
        """Let the training last so many steps, over which schedules stretch; `keep` writes that, and the command."""
        taken = step_in(self.folder / CHECKPOINT)
        if steps <= taken:
            raise InputError(f"--steps is {steps:,}, and {self.folder} has taken {taken:,} steps: expected more")
        if steps == self.recipe.training.steps:
            return
        recipe = override(self.recipe, [f"training.steps={steps}"]).model_dump(mode="json")
        resumed = f"dvaepp resume {shlex.quote(str(self.folder))} --steps {steps}  # after {taken:,} steps"
        record = self.record.model_copy(update={"recipe": recipe, "resumed": [*self.record.resumed, resumed]})
        self.__dict__.update(record=record, recipe=recipe_from(recipe, str(self.folder / RECORD)))

    def keep(self) -> None:
        """Write run.json as the record is now."""
        write_json(self.folder / RECORD, self.record.model_dump(mode="json"))

    def model(self, last: bool = False, device: str | None = None) -> TrainedModel:
        """The model with the best validation likelihood, or the last one, on any device; needs no data.

        Its smoothing is the one that the step which made its weights was taken with (`checkpoints.load_model`).
        """
        where = device_named(device) if device else self.device
        path = self.folder / ("checkpoint.safetensors" if last else "best.safetensors")
        if not last and not path.exists():
            raise InputError(f"{self.folder} has no validated model yet: train on, or use --last")
        tensors, about = load_tensors(path, lambda name: name.startswith(("model.", "data.", AVERAGE)))
        check_origin(path, about, self.origin(), same_recipe)
        spec = spec_in(path, tensors, about)
        model, _ = self._build(spec)
        load_model(model, path, averaged(tensors), about, self.recipe.training)
        names = None if self.record.columns is None else tuple(self.record.columns)
        reading = replace(self.recipe.reading, names=names, known=schema_in(path, about))
        return TrainedModel(model.to(where).eval(), about["step"], spec.shape, where, about["data"], reading)

    def data_for(self, trained: TrainedModel) -> Dataset:
        """The run's data; InputError where they are not those that the model was trained on."""
        if self.data.digest() != trained.data:
            raise self._other_data()
        return self.data

    def _other_data(self) -> InputError:
        if self.data_at:
            return InputError(f"{self.data_at} is not the data that {self.folder} was trained on")
        return InputError(
            f"{self.data.name} is no longer the data that {self.folder} was trained on; --data says where those lie now"
        )

    def origin(self) -> dict[str, Any]:
        return {"recipe": self.record.recipe, "seed": self.seed}

    def metrics(self) -> list[Metrics]:
        """The whole lines of metrics.jsonl; InputError unless they are JSON objects of numbers."""
        path = self.folder / "metrics.jsonl"
        try:
            lines = [json.loads(line) for line in read_lines(path)] if path.exists() else []
            return [_METRICS.validate_python(line, strict=True) for line in lines]
        except ValueError as error:
            raise InputError(f"{path} holds a line that is no object of finite numbers: {complaint(error)}") from None

    def scores(self) -> dict[str, Any] | None:
        """What `evaluate` wrote last of test data; InputError for anything else."""
        path = self.folder / "scores.json"
        if not path.exists():
            return None
        return read_result(path).model_dump()
