"""What a report is about: a run, and what of it is worth loading once."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.recipes.settings import ConvolutionalSettings
from dvaepp.report import page
from dvaepp.report.plots import Curve
from dvaepp.runs.run import Run, TrainedModel
from dvaepp.training.trainer import Metrics

_VALIDATION_EXAMPLES = 500


@dataclass(frozen=True)
class Subject:
    """A run, and what of it is worth loading once."""

    run: Run

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
    def valid(self) -> Float[Tensor, "n pixels"]:
        """Some of the validation data, where the model is."""
        valid = self.run.data_for(self.trained).valid
        return valid[:_VALIDATION_EXAMPLES].float().to(self.trained.device)

    @property
    def local(self) -> ConvolutionalSettings | None:
        """The settings of local variables, where the model has them."""
        return self.run.recipe.model.convolutional

    @property
    def levels(self) -> bool:
        """Whether x is levels, whose likelihood is usually given in bits per dimension."""
        return self.run.recipe.model.likelihood.data_kind == "levels"

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
        return page.code(f"dvaepp {name} {shlex.quote(str(self.run.folder))}{options}")


def number(value: float) -> str:
    """With two decimals and a true minus."""
    return f"{value:.2f}".replace("-", "−")


def estimate(scores: dict[str, float], name: str) -> str:
    """value ± standard error, or the value alone where it is exact."""
    error = scores[f"{name}_standard_error"]
    return f"{number(scores[name])} ± {number(error)}" if error else number(scores[name])
