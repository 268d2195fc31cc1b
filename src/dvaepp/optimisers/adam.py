"""Adam (Kingma & Ba 2015) as the paper's TensorFlow has it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dvaepp.errors import InputError
from dvaepp.numerics import check_above, is_number, keep_plain
from dvaepp.optimisers.base import Optimiser, Rule, parameter_groups

_BETA1 = 0.9


@dataclass(frozen=True)
class AdamRule(Rule):
    """w <- w - rate m / (sqrt(v) + epsilon), rate = lr sqrt(1 - beta2^t) / (1 - .9^t): TensorFlow's form of Adam.

    m <- .9 m + .1 g, v <- beta2 v + (1 - beta2) g^2 (Kingma & Ba 2015, the end of Section 2).
    """

    kept: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq")
    counted: ClassVar[bool] = True
    epsilon: float
    beta2: float

    def rate(self, learning_rate: float, step: int) -> float:
        """lr sqrt(1 - beta2^t) / (1 - .9^t)."""
        return learning_rate * math.sqrt(1 - self.beta2**step) / (1 - _BETA1**step)

    def __call__(self, parameter: Tensor, gradient: Tensor, kept: dict[str, Tensor], rate: Tensor) -> Tensor:
        """w - rate m / (sqrt(v) + epsilon)."""
        m, v = (kept[name] for name in self.kept)
        m.lerp_(gradient, 1 - _BETA1)
        v.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        return parameter - rate * (m / (v.sqrt() + self.epsilon))


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
        return {"optimizer": torch.optim.Adam(parameter_groups(model, l2), betas=(_BETA1, self.beta2), fused=True)}

    @property
    def rules(self) -> dict[str, Rule]:
        """`AdamRule` for all."""
        return {"optimizer": AdamRule(self.epsilon, self.beta2)}

    def set_rate(self, optimizers: dict[str, Optimizer], rate: float, step: int) -> None:
        """The rate, and torch's epsilon for this step."""
        set_adam_rate(optimizers["optimizer"], rate, self.epsilon, step)


def set_adam_rate(optimizer: Optimizer, rate: float, epsilon: float, step: int) -> None:
    """Set torch's Adam to a rate and to TensorFlow's epsilon, for a step counted from 1."""
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["eps"] = epsilon / math.sqrt(1 - group["betas"][1] ** step)
