"""A recipe is plain values, JSON both ways, from which data, model and objective are built."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, ValidationError, model_validator

from dvaepp.components.fields import Named, Settings, complaint
from dvaepp.components.registry import components, settings_of
from dvaepp.data import Dataset, load, names
from dvaepp.data.reading import Reading
from dvaepp.errors import InputError, nearest
from dvaepp.likelihoods.base import DataSpec
from dvaepp.models.base import Model
from dvaepp.objectives.base import Objective
from dvaepp.objectives.bounds import JointBound
from dvaepp.priors.base import Prior
from dvaepp.recipes import build
from dvaepp.recipes.formats import MOVED, as_now, optimiser
from dvaepp.recipes.settings import DataSettings, EvaluationSettings, ModelSettings, check_sharpness
from dvaepp.storage import read_json
from dvaepp.training.settings import TrainingSettings


class Recipe(Settings):
    """Everything that makes a result but the seed and the machine."""

    name: str = Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")
    about: str = ""
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    objective: Annotated[Objective, Named(Objective)] = JointBound()
    training: TrainingSettings
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _possible(self) -> Recipe:
        if self.data.binarise != "auto" and not self._bits:
            raise ValueError(
                f"data.binarise makes bits, and likelihood {self.model.likelihood.name!r} takes data as they are"
            )
        for beta in self.training.beta or ():
            check_sharpness(self.model.smoothing.with_beta(beta))
        if self.training.kl_warmup and not self.objective.weighs_kl:
            raise ValueError("training.kl_warmup must be 0 where objective.analytic_kl is false: the KL lies inside f")
        if self.model.convolutional is None and self.training.balance_kl:
            raise ValueError("training.balance_kl weighs local groups, which only model.convolutional has")
        if self.training.batch < 2 and self.model.convolutional is not None:
            raise ValueError("training.batch must be at least 2 with batch norm, which model.convolutional has")
        if self.model.batch_norm and self.model.hidden and self.training.batch < 2:
            raise ValueError(
                "training.batch must be at least 2 with batch norm, which model.batch_norm=false turns off"
            )
        return self

    def check(self) -> Recipe:
        """Itself; InputError where the model has no such bound, or its prior cannot be over its groups."""
        outline = self.model.model_copy(update={"prior": self.model.prior.outline()})
        with torch.random.fork_rng(devices=[]):
            self._check_bound(build.prior(outline))
        return self

    def _check_bound(self, prior: Prior) -> None:
        model, smoothing = self.model, self.model.smoothing
        if model.convolutional is not None and not self.objective.convolutional:
            raise InputError(f"objective {self.objective.name!r} is for feed-forward models, and not for convolutional")
        local = model.convolutional is None or model.convolutional.local_variables.reparameterised(smoothing)
        reparameterised = local and (smoothing.reparameterised or model.prior.normal)
        self.objective.check(smoothing, prior, len(model.groups), reparameterised)

    def on(self, data: str, **others: str | None) -> Recipe:
        """The recipe on the data of this name or path, valid and test of `others` lying there."""
        return self.model_copy(update={"data": self.data.model_copy(update={"name": data, **others})})

    def with_file(self, path: str) -> Recipe:
        """The recipe, the file of its prior being there."""
        model = self.model.model_copy(update={"prior": self.model.prior.with_file(path)})
        return self.model_copy(update={"model": model})

    def absolute(self) -> Recipe:
        """The recipe, whose paths to data and to a graph lead there from anywhere."""

        def led(path: str) -> str:
            return str(Path(path).expanduser().resolve())

        name, file, others = self.data.name, self.model.prior.file, {"valid": self.data.valid, "test": self.data.test}
        here = name not in names() and Path(name).expanduser().exists()
        recipe = self.on(led(name) if here else name, **{split: path and led(path) for split, path in others.items()})
        return recipe if file is None else recipe.with_file(led(file))

    def check_data(self, data: Dataset) -> Dataset:
        """The data themselves; InputError where they are of another kind than the likelihood is for."""
        if data.kind != (expected := self.model.likelihood.data_kind):
            raise InputError(
                f"model.likelihood={self.model.likelihood.name} is for {expected}, but {data.name} holds {data.kind}"
            )
        return data

    def load_data(self, data_dir: str | Path | None = None) -> Dataset:
        """The data set that the recipe names."""
        of = self.data
        if of.name in names():
            return self.check_data(load(of.name, data_dir, of.binarise, of.threshold))
        return self.check_data(load(of.name, data_dir, **self.reading.options))

    @property
    def _bits(self) -> bool:
        """Whether x is bits."""
        return self.model.likelihood.data_kind == "bits"

    @property
    def reading(self) -> Reading:
        """How the user's own data become what the likelihood is for."""
        of = self.data
        binarise, kind = (of.binarise, "levels") if self._bits else ("none", self.model.likelihood.data_kind)
        same = {name: value for name, value in of if name not in ("name", "binarise")}
        return Reading(binarise, kind=kind, **same)

    def build(self, spec: DataSpec) -> tuple[Model, Objective]:
        """The model for data of this spec, its weights drawn from torch's generator, and the objective.

        InputError where they do not go together.
        """
        model = build.model(self.model, spec)
        self._check_bound(model.prior)
        return model, self.objective.build(sum(self.model.groups), spec.mean)


def recipe_from(values: Any, source: str) -> Recipe:
    """A recipe from JSON values; InputError naming the wrong setting, and the nearest right name of an unknown one.

    Values of the form of before are converted (`formats.as_now`).
    """
    if not isinstance(values, dict):
        raise InputError(f"{source} must hold a recipe, a JSON object, not {type(values).__name__}")
    try:
        return Recipe.model_validate_json(json.dumps(as_now(values)), strict=True)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        path, text = complaint(first, Recipe)
        if text.startswith("is unknown"):
            hint = text.removeprefix("is unknown")
            raise InputError(f"{source} has an unknown setting {'.'.join(path)!r}{hint}") from None
        where = f"setting {'.'.join(path)!r}: " if path else ""
        raise InputError(f"{source}: {where}{text}") from None


def same_recipe(one: Any, other: Any) -> bool:
    """Whether two recipes in JSON are one but for the number of steps, whichever of a recipe's forms each has."""
    if one == other:
        return True
    try:
        now = [recipe_from(each, "a recipe").model_dump(mode="json") for each in (one, other)]
    except InputError:
        return False
    for each in now:
        del each["training"]["steps"]
    return bool(now[0] == now[1])


def read_recipe(path: Path) -> Recipe:
    """The recipe in a JSON file, as `dvaepp show` prints it; InputError where it is none, or impossible."""
    return recipe_from(read_json(path, "a recipe in JSON"), str(path)).check()


def override(recipe: Recipe, settings: Iterable[str], source: str = "--set") -> Recipe:
    """The recipe with settings `a.b=value` changed; values are JSON, or else taken as text; InputError as above.

    A component's name replaces it with all its settings: `model.smoothing=power`, then `model.smoothing.beta=30`.
    Settings that have moved are taken by the names that they had (`formats.MOVED`). `source` is where they were given.
    """
    values = recipe.model_dump(mode="json")
    known, given = list(_paths(values)), list[str]()
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"{source} takes name=value, such as training.steps=3000, not {setting!r}")
        path, value = _where_now(name.strip()), json_or_text(text.strip())
        if path.endswith(".name") and path != "data.name":  # a component's, which stands for all of it
            path = path.removesuffix(".name")
        if path.split(".")[0] not in Recipe.model_fields:
            raise InputError(f"{source} has an unknown setting {path!r}{_nearest_path(path, known)}")
        if path == "objective" and any(earlier.startswith("objective.") for earlier in given):
            raise InputError(f"{source} objective would undo what is said of its estimator before it: give it first")
        if path.startswith("objective.estimator") and not _has_estimator(values["objective"]):
            raise InputError(f"{source} {name.strip()} is of objective=elbo, which must come before it")
        given.append(path)
        if path == "training.muon":
            path, value = "training.optimiser", optimiser(value, _epsilon(values))
        _assign(values, path.split("."), value, source)
    return recipe_from(values, source).check()


def _has_estimator(objective: Any) -> bool:
    """Whether a bound, by its name or written out, is one that an estimator gives the gradient of."""
    name = objective.get("name") if isinstance(objective, dict) else objective
    known = components(Objective).get(str(name))
    return known is not None and any(field.name == "estimator" for field in settings_of(known))


def _assign(values: dict[str, Any], path: list[str], value: Any, source: str) -> None:
    for depth, part in enumerate(path[:-1]):
        inner = values.get(part, {})
        if inner is None:
            whole = ".".join(path[: depth + 1])
            raise InputError(
                f"{source} {'.'.join(path)} is of {whole}, which is null; '{whole}={{}}' before it sets that"
            )
        if isinstance(inner, str) and (depth or part == "objective"):  # a component by its name alone
            inner = {"name": inner}
        if not isinstance(inner, dict):
            raise InputError(f"{source}: {part!r} holds a value, not settings")
        values[part] = inner
        values = inner
    values[path[-1]] = value


def _where_now(path: str) -> str:
    """A setting's name today, and in full."""
    names = MOVED | {"estimator": "objective.estimator"}
    moved = (now + path.removeprefix(before) for before, now in names.items() if f"{path}.".startswith(f"{before}."))
    return next(moved, path)


def _epsilon(values: dict[str, Any]) -> Any:
    chosen = values["training"]["optimiser"]
    return chosen.get("epsilon", 1e-3) if isinstance(chosen, dict) else 1e-3


def json_or_text(text: str) -> Any:
    """The value that JSON is, or else the text itself: a setting as the command line gives it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _paths(values: dict[str, Any], before: str = "") -> Iterator[str]:
    """The dotted names of all settings."""
    for name, value in values.items():
        yield before + name
        if isinstance(value, dict):
            yield from _paths(value, f"{before}{name}.")


def _nearest_path(given: str, known: list[str]) -> str:
    """The setting that ends in what was given, else the nearest."""
    ending = [path for path in known if path.endswith(f".{given}")]
    return f"; did you mean {ending[0]!r}?" if ending else nearest(given, known)
