"""Control variates from the derivative of f: its tangent at the mean, or at another draw."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vjp

from dvaepp.errors import InputError
from dvaepp.estimators.base import (
    Estimator,
    EstimatorDesign,
    Function,
    LearnedEstimator,
    SeveralDraws,
    evaluate,
    score,
)
from dvaepp.estimators.baseline import Baseline
from dvaepp.estimators.score_function import leave_one_out
from dvaepp.gradients import add_gradient
from dvaepp.numerics import check_counts, is_number, keep_plain


def with_slope(
    f: Function, b: Float[Tensor, "*draws bits"]
) -> tuple[Float[Tensor, "*draws"], Float[Tensor, "*draws bits"]]:
    """f(b) and df / db, both differentiable in what f holds and in b."""
    value: Tensor
    pull: Callable[[Tensor], tuple[Tensor]]
    value, pull = vjp(lambda at: evaluate(f, at), b)  # type: ignore[misc]
    return value, pull(torch.ones_like(value))[0]


class MuProp(LearnedEstimator):
    """g = (f(b) - eta_0 f(q) - eta_1 f'(q)'(b - q) - C(x)) (b - q) + eta_1 f'(q) q (1 - q) (Gu et al. 2016).

    Unbiased; f at the draw and at the mean q, with its derivative there. Both eta = 2 sigmoid(w), w = 0 at first, and
    C, 0 without a `context_size`, are learned by the square of what stands in brackets (Tucker et al. 2017).

    >>> MuProp()(lambda b: b.square().sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    relaxed: ClassVar[bool] = True
    differentiable: ClassVar[bool] = True
    tangents: ClassVar[bool] = True
    unbiased: ClassVar[bool] = True
    draws: ClassVar[int] = 1
    uniforms: ClassVar[int] = 1

    def __init__(
        self, context_size: int | None = None, mean: Float[Tensor, " features"] | None = None, hidden: int = 100
    ) -> None:
        super().__init__()
        self.baseline = Baseline(context_size, mean, hidden)
        self.weights = nn.Parameter(torch.zeros(2))

    def estimate(
        self,
        f: Function,
        logits: Float[Tensor, "batch bits"],
        context: Float[Tensor, "batch features"] | None,
        uniform: Float[Tensor, "uniforms batch bits"],
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, ""]]:
        """f(b), and the mean square of the brackets."""
        b = self.sample(logits, uniform)[0]
        value, off_mean = evaluate(f, b), score(logits, b)
        at_mean, slope = (each.detach() for each in with_slope(f, torch.sigmoid(logits.detach())))
        level, tilt = 2 * torch.sigmoid(self.weights)
        control = level * at_mean + tilt * (slope * off_mean).sum(-1)
        surprise = value.detach() - control - self.baseline(context, logits)
        known = tilt * slope * torch.sigmoid(logits) * torch.sigmoid(-logits)
        return add_gradient(value, logits, surprise[:, None] * off_mean + known), surprise.square().mean()


@dataclass(frozen=True)
class MuPropDesign(EstimatorDesign):
    """g = (f(b) - its tangent at the mean - C(x)) (b - q) + the tangent's (Gu et al. 2016): MuProp."""

    name: ClassVar[str] = "muprop"
    makes: ClassVar[type[Estimator]] = MuProp
    hidden: int = 100

    def __post_init__(self) -> None:
        keep_plain(self)
        check_counts("MuProp", hidden=self.hidden)

    def build(self, bits: int, mean: Float[Tensor, " pixels"]) -> MuProp:
        """MuProp whose baseline sees x - mean."""
        return MuProp(len(mean), mean, self.hidden)


@dataclass(frozen=True)
class DoubleControlVariates(SeveralDraws):
    """g = LeaveOneOut of f(b_k) - alpha m_k'(b_k - q), plus alpha mean_k f'(b_k) q (1 - q) (Titsias & Shi 2022).

    m_k is the mean of f'(b_j) over the other draws. Unbiased for any `alpha`: 1 takes the tangents for f's, 0 is
    LeaveOneOut. K `samples`, each an evaluation of f with its derivative in b. The value is the mean of f(b_k).

    >>> DoubleControlVariates()(lambda b: b.square().sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    name: ClassVar[str] = "double-control-variates"
    alpha: float = 1.0
    differentiable: ClassVar[bool] = True
    tangents: ClassVar[bool] = True
    unbiased: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.alpha) and math.isfinite(self.alpha)):
            raise InputError(f"alpha must be a finite number, not {self.alpha!r}")

    def value(
        self, f: Function, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, " batch"]:
        """mean_k f(b_k)."""
        b = self.sample(logits, uniform)
        values, slopes = with_slope(f, b)
        off_mean, slopes = score(logits, b), self.alpha * slopes.detach()
        others = (slopes.sum(0) - slopes) / (self.samples - 1)
        rest = values.detach() - (others * off_mean).sum(-1)
        known = slopes.mean(0) * torch.sigmoid(logits) * torch.sigmoid(-logits)
        return add_gradient(values.mean(0), logits, (leave_one_out(rest)[..., None] * off_mean).mean(0) + known)
