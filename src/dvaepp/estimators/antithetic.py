"""Antithetic draws: bits that repel each other, so that differences of f say more. f need have no derivative in b."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dvaepp.estimators.base import Function, PlainEstimator, SeveralDraws, draw, evaluate, score
from dvaepp.estimators.score_function import leave_one_out
from dvaepp.gradients import add_gradient
from dvaepp.numerics import off_ends


class Antithetic(PlainEstimator):
    """An estimator of a pair, 1[u < q] and 1[1 - u < q] of one number for each bit; its value is f's mean there."""

    unbiased: ClassVar[bool] = True
    nests: ClassVar[bool] = True
    draws: ClassVar[int] = 2
    uniforms: ClassVar[int] = 1

    @abstractmethod
    def slope(
        self, logits: Float[Tensor, "batch bits"], u: Float[Tensor, "batch bits"], b: Float[Tensor, "2 batch bits"]
    ) -> Float[Tensor, "batch bits"]:
        """g / (f(b_1) - f(b_2))."""

    def sample(
        self, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, "draws batch bits"]:
        """The pair."""
        return torch.stack([draw(logits, uniform[0]), draw(logits, 1 - uniform[0])])

    def value(
        self, f: Function, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, " batch"]:
        """(f(b_1) + f(b_2)) / 2."""
        b = self.sample(logits, uniform)
        values = evaluate(f, b)
        gradient = (values[0] - values[1])[:, None] * self.slope(logits, uniform[0], b)
        return add_gradient(values.mean(0), logits, gradient)


@dataclass(frozen=True)
class ARM(Antithetic):
    """g = (f(b_1) - f(b_2)) (1/2 - u), b_1 = 1[u < q], b_2 = 1[1 - u < q] (Yin & Zhou 2019).

    Unbiased; two evaluations of f, no derivative in b. The value is the mean of the two. DisARM has its two evaluations
    and less variance.

    >>> ARM()(lambda b: b.sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    name: ClassVar[str] = "arm"

    def slope(
        self, logits: Float[Tensor, "batch bits"], u: Float[Tensor, "batch bits"], b: Float[Tensor, "2 batch bits"]
    ) -> Float[Tensor, "batch bits"]:
        """1/2 - u."""
        return 0.5 - u


@dataclass(frozen=True)
class DisARM(Antithetic):
    """g = 1/2 (f(b_1) - f(b_2)) (-1)^b_2 1[b_1 != b_2] sigmoid(|l|), b_1 and b_2 as ARM's (Dong et al. 2020).

    ARM's expectation given the pair, U2G of Yin et al. (2020): unbiased, and of no more variance. Two evaluations of f,
    no derivative in b. The value is the mean of the two.

    >>> DisARM()(lambda b: b.sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    name: ClassVar[str] = "disarm"

    def slope(
        self, logits: Float[Tensor, "batch bits"], u: Float[Tensor, "batch bits"], b: Float[Tensor, "2 batch bits"]
    ) -> Float[Tensor, "batch bits"]:
        """(b_1 - b_2) sigmoid(|l|) / 2."""
        return (b[0] - b[1]) * torch.sigmoid(logits.abs()) / 2


@dataclass(frozen=True)
class ARMS(SeveralDraws):
    """g = 1/(K-1) sum_k (f(b_k) - mean f) (b_k - q) q (1 - q) / (q - P(b_i = b_j = 1)) (Dimitriev & Zhou 2021).

    K `samples` whose bits are q each and repel each other: b_k = 1[d_k > 1 - q^(1/n)], d of a flat Dirichlet law and
    n = K - 1, mirrored where q > 1/2. P(b_i = b_j = 1) = max(2 q^(1/n) - 1, 0)^n up to q = 1/2. With K = 2 it is
    DisARM. Unbiased; K evaluations of f, no derivative in b. The value is their mean.

    >>> ARMS(samples=4)(lambda b: b.sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    name: ClassVar[str] = "arms"
    samples: int = 4
    unbiased: ClassVar[bool] = True
    nests: ClassVar[bool] = True

    def sample(
        self, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, "draws batch bits"]:
        """The K draws that repel each other."""
        waits = -torch.log(off_ends(uniform))  # exponential numbers: their shares of the sum are Dirichlet
        total = waits.sum(0)
        rarer = ((total - waits) / total < self._root(logits)).to(logits.dtype)
        return torch.where(logits > 0, 1 - rarer, rarer)

    def value(
        self, f: Function, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, " batch"]:
        """mean_k f(b_k)."""
        b = self.sample(logits, uniform)
        values = evaluate(f, b)
        together = (2 - 1 / self._root(logits)).clamp(min=0) ** (self.samples - 1)  # P(b_j rarer | b_i rarer)
        repelled = torch.sigmoid(logits.abs()) / (1 - together)  # (1 - p) / (1 - together)
        gradient = (leave_one_out(values)[..., None] * score(logits, b)).mean(0) * repelled
        return add_gradient(values.mean(0), logits, gradient)

    def _root(self, logits: Float[Tensor, "batch bits"]) -> Float[Tensor, "batch bits"]:
        """p^(1 / n)."""
        return torch.exp(F.logsigmoid(-logits.detach().abs()) / (self.samples - 1))
