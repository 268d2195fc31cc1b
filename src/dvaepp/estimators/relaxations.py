"""Relaxations: f off the corners of the cube, at numbers that are functions of the logits. Their own target, biased."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.estimators.base import Function, PlainEstimator, evaluate_through
from dvaepp.numerics import check_above, keep_plain, off_ends


@dataclass(frozen=True)
class RelaxedBernoulli(PlainEstimator):
    """g = d/dl f(s), s = sigmoid((l - logit u) / T): the binary Concrete (Maddison et al. 2017; Jang et al. 2017).

    Unbiased for E[f(s)], which is E[f(b)] as `temperature` T falls; one evaluation of f with its derivative, at s. With
    `muprop` T / (T + 1) l is added to the argument, as Tucker et al. (2017) have it: s is q as T grows.
    `elbo` with analytic_kl=False makes of it the Concrete objective of Tucker et al. (2017).

    >>> RelaxedBernoulli(temperature=0.5)(lambda b: b.square().sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    name: ClassVar[str] = "relaxed-bernoulli"
    temperature: float | Tensor = 0.1
    muprop: bool = False
    target: ClassVar[str] = "E[f(relaxed b)]"
    unbiased: ClassVar[bool] = True
    relaxed: ClassVar[bool] = True
    differentiable: ClassVar[bool] = True
    draws: ClassVar[int] = 1
    uniforms: ClassVar[int] = 1

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("temperature", self.temperature)

    def sample(
        self, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, "draws batch bits"]:
        """s, with its derivative in the logits."""
        slack = (logits - torch.logit(off_ends(uniform))) / self.temperature
        return torch.sigmoid(slack + self.temperature / (self.temperature + 1) * logits if self.muprop else slack)

    def value(
        self, f: Function, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, " batch"]:
        """f(s)."""
        return evaluate_through(f, self.sample(logits, uniform)[0])


@dataclass(frozen=True)
class PiecewiseLinear(PlainEstimator):
    """g = f'(s) a q (1 - q) where 0 < s < 1, s = clip(1/2 + a (q - u), 0, 1), a = (beta / 4) / (q (1 - q) + .01).

    The piecewise-linear relaxation of Andriyash et al. (2018): s is b = 1[u < q] but near u = q. No gradient is taken
    of the slope a, so that it is biased for E[f(s)] too, and less so for E[f(b)]. One evaluation of f with its
    derivative, at s.

    >>> PiecewiseLinear(beta=5.0)(lambda b: b.square().sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    name: ClassVar[str] = "piecewise-linear"
    beta: float | Tensor = 10.0
    target: ClassVar[str] = "E[f(relaxed b)]"
    unbiased: ClassVar[bool] = False
    relaxed: ClassVar[bool] = True
    differentiable: ClassVar[bool] = True
    draws: ClassVar[int] = 1
    uniforms: ClassVar[int] = 1

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("beta", self.beta)

    def sample(
        self, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, "draws batch bits"]:
        """s, with its derivative in the logits, the slope held."""
        q = torch.sigmoid(logits)
        slope = self.beta / 4 / (q * (1 - q) + 0.01).detach()
        return (0.5 + slope * (q - uniform)).clamp(0, 1)

    def value(
        self, f: Function, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, " batch"]:
        """f(s)."""
        return evaluate_through(f, self.sample(logits, uniform)[0])
