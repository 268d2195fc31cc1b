"""Bounds of several draws: importance-weighted, tighter than the expectation of one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.estimators.base import Function, SeveralDraws, evaluate, score
from dvaepp.gradients import add_gradient


@dataclass(frozen=True)
class VIMCO(SeveralDraws):
    """L = log 1/K sum_k exp f(b_k), g = sum_k (L - L_-k) (b_k - q), f_k in L_-k being the mean of the other f_j.

    Unbiased for E[L], which with f = log p(x, b) - log q(b | x) is the bound of Burda et al. (2015) with K `samples`; f
    is weighed by exp f / sum exp f in the gradient of what it holds. K evaluations of f, no derivative in b
    (Mnih & Rezende 2016). The value is L. f needs the whole log-weight: a KL cannot stand beside it.

    >>> VIMCO(samples=3)(lambda b: b.sum(-1), torch.zeros(2, 4)).shape
    torch.Size([2])
    """

    name: ClassVar[str] = "vimco"
    samples: int = 5
    target: ClassVar[str] = "E[log 1/K sum_k exp f(b_k)]"
    unbiased: ClassVar[bool] = True
    importance: ClassVar[bool] = True

    def value(
        self, f: Function, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, " batch"]:
        """L."""
        b = self.sample(logits, uniform)
        values = evaluate(f, b)
        bound = torch.logsumexp(values, 0) - math.log(self.samples)
        signal = (bound - self._without_each(values)).detach()
        return add_gradient(bound, logits, (signal[..., None] * score(logits, b)).sum(0))

    def _without_each(self, values: Float[Tensor, "draws batch"]) -> Float[Tensor, "draws batch"]:
        """L_-k for every k."""
        others = (values.sum(0) - values) / (self.samples - 1)
        own = torch.eye(self.samples, device=values.device)[..., None] > 0
        return torch.logsumexp(torch.where(own, others, values), 1) - math.log(self.samples)
