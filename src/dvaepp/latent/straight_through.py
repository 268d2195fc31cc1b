"""Bits with the gradient of something smooth in place of their own: straight-through estimators, biased."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.latent.hard import HardBernoulli
from dvaepp.latent.scalars import check_above
from dvaepp.latent.smoothing import Smoothing


@dataclass(frozen=True)
class StraightThrough(Smoothing):
    """zeta = z, d zeta / d logit := q (1 - q), the gradient of E[z] (Bengio et al. 2013).

    >>> q = StraightThrough()(torch.tensor([0.0, 3.0], requires_grad=True))
    >>> q.rsample().requires_grad
    True
    """

    binary: ClassVar[bool] = True

    def __call__(self, logits: Float[Tensor, "*shape"], validate_args: bool | None = None) -> HardBernoulli:
        """q(z | x), whose draws carry the gradient of their mean."""
        return HardBernoulli(logits, validate_args, self.surrogate)

    def surrogate(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """q = sigmoid(logit), for every draw."""
        return torch.sigmoid(logits).expand_as(uniform)


@dataclass(frozen=True)
class StraightThroughGumbel(Smoothing):
    """zeta = z = 1[l + logit(u) > 0], d zeta / d l := s (1 - s) / T, s = sigmoid((l + logit(u)) / T).

    s is Concrete's zeta of the same noise (Jang et al. 2017). `temperature` T > 0, a number or a 0-d tensor.
    """

    temperature: float | Tensor
    binary: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_above("temperature", self.temperature)

    def __call__(self, logits: Float[Tensor, "*shape"], validate_args: bool | None = None) -> HardBernoulli:
        """q(z | x), whose draws carry the gradient of the Concrete variable that they round."""
        return HardBernoulli(logits, validate_args, self.surrogate)

    def surrogate(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """sigmoid((logit - logit(u)) / T): above 1/2 where u < q, and -logit(u) is as good a logistic number."""
        return torch.sigmoid((logits - torch.logit(uniform)) / self.temperature)

    def sharpened(self, beta: float | Tensor) -> StraightThroughGumbel:
        """Temperature 1 / beta."""
        check_above("beta", beta)
        return StraightThroughGumbel(1 / beta)
