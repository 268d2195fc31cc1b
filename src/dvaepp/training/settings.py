"""What changes from step to step of training: rates, weights, temperatures."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, PositiveFloat, field_validator, model_validator

from dvaepp.components.fields import Named, Settings
from dvaepp.optimisers.adam import Adam
from dvaepp.optimisers.base import Optimiser

_Count = Annotated[int, Field(ge=1, le=1_000_000)]


class TrainingSettings(Settings):
    """How long and how fast. Schedules run over the fraction of training done, whatever the number of steps."""

    steps: int = Field(ge=1, le=10**12)
    batch: _Count = 100
    learning_rate: tuple[tuple[float, float], ...] = ((1.0, 1e-3),)
    """(until this fraction of training, rate), the last fraction being 1."""
    cosine_to: float | None = Field(default=None, ge=0)
    """The rate falls along half a cosine from its one stage's value to this; None leaves it as the stages say."""
    estimator_rate: float = Field(default=10.0, gt=0)
    """What an estimator learns goes at so many times the learning rate (Tucker et al. 2017)."""
    optimiser: Annotated[Optimiser, Named(Optimiser)] = Adam()
    l2: float = Field(default=0.0, ge=0)
    """The loss holds (l2 / 2) |w|^2 for every weight matrix, batch-norm gain and coupling."""
    kl_warmup: float = Field(default=0.3, ge=0, le=1)
    """The KL weight rises linearly from 0 to 1 over this fraction of training."""
    balance_kl: bool = False
    """Weigh the KL of local groups while the KL weight is below 1, so that all of them come to be used (Appendix H)."""
    beta: tuple[PositiveFloat, PositiveFloat] | None = None
    """The smoothing's beta, linearly from the first value to the second; None leaves it as it is."""
    average: float | None = Field(default=None, gt=0, lt=1)
    """Validate and keep a moving average of the weights with this decay, such as 0.999; None keeps them as they are."""
    compile: bool = False
    """Compile a feed-forward model's whole step, faster once that has taken its ten seconds, or else residual cells.

    Their first step takes a minute or two. On a GPU a convolutional model's whole step is a CUDA graph instead. Of
    several processes feed-forward models take it for false."""
    log_every: int = Field(default=100, ge=1, le=10**12)
    validate_every: int = Field(default=1000, ge=1, le=10**12)
    """Steps between validations and between checkpoints."""
    validation_samples: _Count = 10
    validation_examples: _Count = 1000
    validation_temperatures: _Count = 200
    validation_chains: _Count = 256

    @field_validator("learning_rate")
    @classmethod
    def _ordered(cls, stages: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        ends = [end for end, _ in stages]
        if ends != sorted(ends) or not ends or ends[-1] != 1 or any(rate <= 0 for _, rate in stages):
            raise ValueError("learning_rate must be pairs (fraction, rate > 0) with rising fractions, the last being 1")
        return stages

    @model_validator(mode="after")
    def _one_rate(self) -> TrainingSettings:
        if self.cosine_to is not None and len(self.learning_rate) > 1:
            raise ValueError("cosine_to goes with a learning_rate of one stage, such as [[1.0, 0.002]]")
        return self

    def learning_rate_at(self, fraction: float) -> float:
        """The rate at this fraction of training."""
        if self.cosine_to is not None:
            start = self.learning_rate[0][1]
            return self.cosine_to + (start - self.cosine_to) * (1 + math.cos(math.pi * fraction)) / 2
        return next(rate for end, rate in self.learning_rate if fraction < end or end == 1)

    def kl_weight_at(self, fraction: float) -> float:
        """The KL weight at this fraction of training."""
        return min(1.0, fraction / self.kl_warmup) if self.kl_warmup else 1.0

    def beta_at(self, fraction: float) -> float | None:
        """The smoothing's beta at this fraction of training; None where it is not annealed."""
        if self.beta is None:
            return None
        start, end = self.beta
        return start + (end - start) * fraction

    def fraction_before(self, step: int) -> float:
        """(step - 1) / steps, the fraction of training done before step number `step`, counted from 1; 0 at step 0.

        Rates, weights and temperatures of a step are those at this fraction.
        """
        return max(step - 1, 0) / self.steps
