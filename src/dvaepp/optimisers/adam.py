"""Adam (Kingma & Ba 2015) as the paper's TensorFlow has it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.optim import Optimizer

from dvaepp.errors import InputError
from dvaepp.numerics import check_above, is_number, keep_plain
from dvaepp.optimisers.base import Optimiser, parameter_groups


@dataclass(frozen=True)
class Adam(Optimiser):
    """w <- w - lr m / (sqrt(v) + epsilon / sqrt(1 - beta2^t)), m and v the means of g and g^2 without their bias.

    `epsilon` > 0 is TensorFlow's, which lies inside the bias correction of step t: torch's is rescaled at every step.
    `beta2` is how slowly v forgets; m forgets by .9 a step.

    >>> list(Adam()(nn.Linear(3, 2), l2=0.0))
    ['optimizer']
    """

    name: ClassVar[str] = "adam"
    epsilon: float = 1e-3
    beta2: float = 0.999

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("epsilon", self.epsilon)
        if not (is_number(self.beta2) and 0 <= self.beta2 < 1):
            raise InputError(f"beta2 of Adam must lie in [0, 1), not {self.beta2!r}")

    def __call__(self, model: nn.Module, l2: float) -> dict[str, Optimizer]:
        """Adam of all parameters."""
        return {"optimizer": torch.optim.Adam(parameter_groups(model, l2), betas=(0.9, self.beta2), fused=True)}

    def set_rate(self, optimizers: dict[str, Optimizer], rate: float, step: int) -> None:
        """The rate, and torch's epsilon for this step."""
        set_adam_rate(optimizers["optimizer"], rate, self.epsilon, step)


def set_adam_rate(optimizer: Optimizer, rate: float, epsilon: float, step: int) -> None:
    """Set torch's Adam to a rate and to TensorFlow's epsilon, for a step counted from 1."""
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["eps"] = epsilon / math.sqrt(1 - group["betas"][1] ** step)
