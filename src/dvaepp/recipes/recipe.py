"""A recipe is plain values, JSON both ways, from which data, model and objective are built."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, cast, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator
from torch import Tensor

from dvaepp.data import NAMES, Binarise, Dataset, Plain, load, read_examples
from dvaepp.errors import InputError, nearest
from dvaepp.models.base import Model
from dvaepp.objectives.bounds import Objective
from dvaepp.recipes import build
from dvaepp.recipes.build import DataSpec
from dvaepp.recipes.settings import DataSettings, EvaluationSettings, ModelSettings, Settings
from dvaepp.storage import read_json
from dvaepp.training.settings import TrainingSettings


class Recipe(Settings):
    """Everything that makes a result but the seed and the machine."""

    name: str = Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")
    about: str = ""
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    objective: Literal["joint", "marginal", "rolfe"] = "joint"
    training: TrainingSettings
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _possible(self) -> Recipe:
        if self.objective == "marginal" and self.model.boltzmann:
            raise ValueError("objective 'marginal' needs a directed or bernoulli prior; an rbm takes 'joint'")
        if (self.objective == "rolfe") > (self.model.boltzmann and self.model.smoothing.startswith("spike")):
            raise ValueError("objective 'rolfe' needs an rbm or graph prior and a smoothing with a spike")
        if self.objective == "marginal" and self.model.smoothing.startswith("spike"):
            raise ValueError("objective 'marginal' needs a smoothing without a spike, which takes 'joint'")
        if self.objective == "joint" and self.model.smoothing == "concrete":
            raise ValueError("smoothing 'concrete' has no joint bound; it takes objective 'marginal'")
        several = len(self.model.groups) > 1 and self.model.boltzmann
        if self.objective == "joint" and several and self.model.smoothing.startswith("spike"):
            raise ValueError("a spike smoothing with a Boltzmann prior of several groups takes objective 'rolfe'")
        if self.data.binarise != "auto" and self.model.likelihood != "bernoulli":
            raise ValueError(
                f"data.binarise makes bits, and likelihood {self.model.likelihood!r} takes data as they are"
            )
        if self.training.beta is not None and self.model.smoothing == "straight-through":
            raise ValueError("training.beta anneals a smoothing's beta, and 'straight-through' has none")
        if self.training.beta is not None and self.model.smoothing == "power" and min(self.training.beta) <= 1:
            raise ValueError("smoothing 'power' needs a training.beta above 1")
        if self.training.beta is not None and not 1e-3 <= min(self.training.beta) <= max(self.training.beta) <= 1e4:
            raise ValueError("training.beta must lie between .001 and 10,000")
        if self.model.convolutional is None:
            if self.model.prior == "normal":
                raise ValueError("prior 'normal' needs model.convolutional")
            if self.training.balance_kl:
                raise ValueError("training.balance_kl weighs local groups, which only model.convolutional has")
        elif self.model.prior in ("directed", "graph"):
            raise ValueError("model.convolutional takes the prior 'rbm', 'bernoulli' or 'normal'")
        elif self.model.convolutional.local_variables == "bernoulli" and self.model.smoothing.startswith("spike"):
            raise ValueError("local_variables 'bernoulli' need a smoothing without a spike")
        if self.training.batch < 2 and self.model.convolutional is not None:
            raise ValueError("training.batch must be at least 2 with batch norm, which model.convolutional has")
        if self.model.batch_norm and self.model.hidden and self.training.batch < 2:
            raise ValueError(
                "training.batch must be at least 2 with batch norm, which model.batch_norm=false turns off"
            )
        return self

    def load_data(self, data_dir: str | Path | None = None) -> Dataset:
        """The data set that the recipe names."""
        binarise, kind = self._reading
        of = self.data
        if of.name in NAMES:
            data = load(of.name, data_dir, of.binarise, of.threshold)
        else:
            data = load(of.name, data_dir, binarise, of.threshold, kind, of.background, of.header)
        if data.kind != (expected := build.KINDS[self.model.likelihood]):
            raise InputError(
                f"model.likelihood={self.model.likelihood} is for {expected}, but {data.name} holds {data.kind}"
            )
        return data

    def read_examples(self, path: Path) -> tuple[Tensor, tuple[int, ...]]:
        """Every example at a path as the model takes them (n, pixels), and the shape of one."""
        binarise, kind = self._reading
        return read_examples(path, binarise, self.data.threshold, kind, self.data.background, self.data.header)

    @property
    def _reading(self) -> tuple[Binarise, Plain]:
        """How the user's own data become what the likelihood is for."""
        kind = build.KINDS[self.model.likelihood]
        return (self.data.binarise, "levels") if kind == "bits" else ("none", cast(Plain, kind))

    def build(self, spec: DataSpec) -> tuple[Model, Objective]:
        """The model for data of this spec, its weights drawn from torch's generator, and the objective."""
        return build.model(self.model, spec), build.OBJECTIVES[self.objective]


def recipe_from(values: Any, source: str) -> Recipe:
    """A recipe from JSON values; InputError naming the wrong setting, and the nearest right name of an unknown one."""
    if not isinstance(values, dict):
        raise InputError(f"{source} must hold a recipe, a JSON object, not {type(values).__name__}")
    try:
        return Recipe.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        if first["type"] == "extra_forbidden":
            raise InputError(f"{source} has an unknown setting {'.'.join(path)!r}{_nearest_setting(path)}") from None
        message = first["msg"].removeprefix("Value error, ")
        given = "" if first["type"] in ("missing", "value_error") else f", not {reprlib.repr(first['input'])}"
        where = f"setting {'.'.join(path)!r}: " if path else ""
        raise InputError(f"{source}: {where}{message}{given}") from None


def read_recipe(path: Path) -> Recipe:
    """The recipe in a JSON file, as `dvaepp show` prints it."""
    return recipe_from(read_json(path, "a recipe in JSON"), str(path))


def override(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """The recipe with settings `a.b=value` changed; values are JSON, or else taken as text."""
    values = recipe.model_dump(mode="json")
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set takes name=value, such as training.steps=3000, not {setting!r}")
        _assign(values, name.strip().split("."), _json_or_text(text.strip()))
    return recipe_from(values, "--set")


def _assign(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = values[part] = values.get(part) or {}
        if not isinstance(inner, dict):
            raise InputError(f"--set: {part!r} holds a value, not settings")
        values = inner
    values[path[-1]] = value


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _nearest_setting(path: list[str]) -> str:
    model: type[BaseModel] = Recipe
    for part in path[:-1]:
        annotation = model.model_fields[part].annotation
        annotation = next((each for each in get_args(annotation) if isinstance(each, type)), annotation)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        model = annotation
    close = nearest(path[-1], list(model.model_fields))
    return close or f"; it may be one of {', '.join(model.model_fields)}"
