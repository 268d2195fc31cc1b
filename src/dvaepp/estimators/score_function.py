"""Score-function estimators: f(b) d log q(b), with what takes variance away. f need have no derivative in b."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.estimators.base import (
    Estimator,
    EstimatorDesign,
    Function,
    LearnedEstimator,
    PlainEstimator,
    SeveralDraws,
    evaluate,
    score,
)
from dvaepp.estimators.baseline import Baseline
from dvaepp.gradients import add_gradient
from dvaepp.numerics import check_counts, keep_plain


@dataclass(frozen=True)
class Reinforce(PlainEstimator):
    """g = f(b) (b - q): REINFORCE, the score function alone (Williams 1992).

    Unbiased; one evaluation of f, no derivative in b. Its variance grows with f's level: subtract a constant.

    >>> Reinforce()(lambda b: b.sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    name: ClassVar[str] = "reinforce"
    unbiased: ClassVar[bool] = True
    nests: ClassVar[bool] = True
    draws: ClassVar[int] = 1
    uniforms: ClassVar[int] = 1

    def value(
        self, f: Function, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, " batch"]:
        """f(b)."""
        b = self.sample(logits, uniform)[0]
        value = evaluate(f, b)
        return add_gradient(value, logits, value[:, None] * score(logits, b))


@dataclass(frozen=True)
class LeaveOneOut(SeveralDraws):
    """g = 1/K sum_k (f(b_k) - mean_{j != k} f(b_j)) (b_k - q), K `samples` (Salimans & Knowles 2014; Kool et al. 2019).

    Unbiased; K evaluations of f, no derivative in b. The value is the mean of f(b_k).

    >>> LeaveOneOut(samples=4)(lambda b: b.sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    name: ClassVar[str] = "leave-one-out"
    unbiased: ClassVar[bool] = True
    nests: ClassVar[bool] = True

    def value(
        self, f: Function, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, " batch"]:
        """mean_k f(b_k)."""
        b = self.sample(logits, uniform)
        values = evaluate(f, b)
        gradient = leave_one_out(values)[..., None] * score(logits, b)
        return add_gradient(values.mean(0), logits, gradient.mean(0))


def leave_one_out(values: Float[Tensor, "draws batch"]) -> Float[Tensor, "draws batch"]:
    """f_k - mean_{j != k} f_j = K / (K - 1) (f_k - mean_j f_j)."""
    return (values - values.mean(0)) * (len(values) / (len(values) - 1))


class NVIL(LearnedEstimator):
    """g = (f(b) - C(x)) (b - q), C a network of the context x - mean, fitted by (f - C)^2 (Mnih & Gregor 2014).

    Unbiased; one evaluation of f, no derivative in b. C has one hidden tanh layer of `hidden` units (Tucker et al.
    2017). With `normalise` g = (f - C - c) / max(1, sqrt(v)) (b - q), c and v the mean and variance of f - C that
    training has met so far, kept at a rate of .2 a batch: the gradient is then that of the target times a number at
    most 1, so `unbiased` is False. Batches move c and v in training mode only, and after they were used, since a c that
    has seen the batch would depend on its draws.

    >>> NVIL(context_size=12)(lambda b: b.sum(-1), torch.zeros(2, 3), torch.zeros(2, 12)).shape
    torch.Size([2])
    """

    nests: ClassVar[bool] = True
    draws: ClassVar[int] = 1
    uniforms: ClassVar[int] = 1

    def __init__(
        self,
        context_size: int,
        mean: Float[Tensor, " features"] | None = None,
        hidden: int = 100,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.baseline = Baseline(context_size, mean, hidden)
        self.normalise = normalise
        self.centre: Tensor
        self.variance: Tensor
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("variance", torch.ones(()))

    @property
    def unbiased(self) -> bool:
        """Unless normalised."""
        return not self.normalise

    @property
    def plain(self) -> Reinforce:
        """REINFORCE: C is fitted to one function."""
        return Reinforce()

    def estimate(
        self,
        f: Function,
        logits: Float[Tensor, "batch bits"],
        context: Float[Tensor, "batch features"] | None,
        uniform: Float[Tensor, "uniforms batch bits"],
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, ""]]:
        """f(b), and the mean of (f - C)^2."""
        b = self.sample(logits, uniform)[0]
        value = evaluate(f, b)
        surprise = value.detach() - self.baseline(context, logits)
        signal = self._normalised(surprise.detach()) if self.normalise else surprise
        return add_gradient(value, logits, signal[:, None] * score(logits, b)), surprise.square().mean()

    @torch.no_grad()
    def _normalised(self, surprise: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """(f - C - c) / max(1, sqrt(v)), then c and v moved on."""
        signal = (surprise - self.centre) / self.variance.sqrt().clamp(min=1)
        if self.training:
            self.centre.lerp_(surprise.mean(), 0.2)
            self.variance.lerp_(surprise.var(correction=0), 0.2)
        return signal


@dataclass(frozen=True)
class NVILDesign(EstimatorDesign):
    """g = (f(b) - C(x)) (b - q), C(x) a learned network of x (Mnih & Gregor 2014): NVIL."""

    name: ClassVar[str] = "nvil"
    makes: ClassVar[type[Estimator]] = NVIL
    hidden: int = 100
    normalise: bool = False

    def __post_init__(self) -> None:
        keep_plain(self)
        check_counts("NVIL", hidden=self.hidden)

    def build(self, bits: int, mean: Float[Tensor, " pixels"]) -> NVIL:
        """NVIL whose baseline sees x - mean."""
        return NVIL(len(mean), mean, self.hidden, self.normalise)
