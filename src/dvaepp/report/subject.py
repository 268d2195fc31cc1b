"""What a report is about: a run, and what of it is worth loading once."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.data import Dataset, Examples, Kind
from dvaepp.data.kinds import DTYPES
from dvaepp.errors import InputError
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.recipes.settings import ConvolutionalSettings
from dvaepp.report import changes
from dvaepp.report.plots import Curve
from dvaepp.runs.evaluation import others
from dvaepp.runs.folder import RunFolder, TrainedModel
from dvaepp.training.journal import Metrics

_VALIDATION_EXAMPLES = 500


@dataclass(frozen=True)
class Subject:
    """A run, and what of it is worth loading once."""

    run: RunFolder

    @cached_property
    def scores(self) -> dict[str, Any] | None:
        """What `evaluate` wrote, if it did."""
        return self.run.scores()

    @cached_property
    def metrics(self) -> list[Metrics]:
        """The lines of metrics.jsonl."""
        return self.run.metrics()

    @cached_property
    def trained(self) -> TrainedModel:
        """The model that was scored if it is still there, else the best one, else the last."""
        try:
            best = self.run.model()
        except InputError:
            return self.run.model(last=True)
        if self.scores is None or best.step == self.scores["steps"]:
            return best
        last = self.run.model(last=True)
        return last if last.step == self.scores["steps"] else best

    @cached_property
    def origin(self) -> changes.Origin | None:
        """The catalogue's recipe of the run's name, and what was changed; None where there is none."""
        return changes.origin(self.run.recipe)

    @cached_property
    def given(self) -> Examples | None:
        """Examples that the run is said to have now (`--data`), and that are not of the data of its training."""
        return others(self.run)

    @cached_property
    def data(self) -> Dataset:
        """The data that the model was trained on, InputError where they are gone; or, in each split, those given."""
        if self.given is None:
            return self.run.data_for(self.trained)
        kind = self.run.recipe.model.likelihood.data_kind
        x, known = self.given.x.to(DTYPES[kind]), self.trained.reading
        columns, about = known.names if len(self.given.shape) == 1 else None, str(self.run.data_at)
        return Dataset(about, self.given.shape, x, x, x, False, about, cast(Kind, kind), columns, known.known)

    @cached_property
    def valid(self) -> Float[Tensor, "n pixels"]:
        """Some of the validation data, where the model is."""
        return self.data.valid[:_VALIDATION_EXAMPLES].float().to(self.trained.device)

    @property
    def called(self) -> str:
        """What the examples in `valid` are."""
        return "validation examples" if self.given is None else f"examples of {Path(str(self.run.data_at)).name}"

    @cached_property
    def parameters(self) -> dict[str, int]:
        """The numbers that training moves, by part of the model."""
        return {name: _count(part) for name, part in self.trained.model.named_children() if _count(part)}

    @property
    def seconds(self) -> float | None:
        """What the steps so far took, validations included and what a stop lost left out; None where it is unknown."""
        known = [line["seconds"] for line in self.metrics if "seconds" in line]
        return sum(known) if known and len(known) == len(self.metrics) else None

    @property
    def local(self) -> ConvolutionalSettings | None:
        """The settings of local variables, where the model has them."""
        return self.run.recipe.model.convolutional

    @property
    def levels(self) -> bool:
        """Whether x is levels, whose likelihood is usually given in bits per dimension."""
        return self.run.recipe.model.likelihood.data_kind == "levels"

    @property
    def prior(self) -> str:
        """The prior's name in recipes."""
        return self.run.recipe.model.prior.name

    @property
    def normal(self) -> bool:
        """Whether global variables are normal, not bits."""
        return self.run.recipe.model.prior.normal

    def curve(self, name: str) -> Curve:
        """A quantity of metrics.jsonl, with its standard errors where it has them."""
        lines = [line for line in self.metrics if name in line]
        error = f"{name}_standard_error"
        errors = [line[error] for line in lines if error in line]
        return Curve([float(line["step"]) for line in lines], [line[name] for line in lines], errors)

    def command(self, name: str, options: str = "") -> str:
        """A command about the run, to copy."""
        return f"dvaepp {name} {shlex.quote(str(self.run.folder))}{options}"


def _count(part: nn.Module) -> int:
    """Its parameters, but for couplings of pairs that a machine's graph does not join."""
    if isinstance(part, BoltzmannPrior) and part.machine.mask is not None:
        return part.machine.bits + int(part.machine.mask.sum())
    return sum(parameter.numel() for parameter in part.parameters())


def number(value: float) -> str:
    """With two decimals and a true minus; a dash for what is not defined."""
    return "–" if math.isnan(value) else f"{value:.2f}".replace("-", "−")


def short(value: float) -> str:
    """With four digits and a true minus; a dash for what is not defined."""
    return "–" if math.isnan(value) else f"{value:.4g}".replace("-", "−")


def duration(seconds: float) -> str:
    """In the two largest units that it fills."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 60:
        return f"{seconds:.1f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def estimate(scores: dict[str, float], name: str) -> str:
    """value ± standard error, or the value alone where it has none."""
    error = scores[f"{name}_standard_error"]
    return f"{number(scores[name])} {spread(error)}" if error else number(scores[name])


def spread(error: float) -> str:
    """± a standard error, or what it lies below."""
    return f"± {number(error)}" if error >= 0.005 else "± less than 0.01"
