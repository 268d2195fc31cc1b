"""Straight-through estimators: f at bits, its derivative in b carried on by a surrogate's, shared with `smoothings`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dvaepp.estimators.base import Function, PlainEstimator, evaluate_through
from dvaepp.gradients import replace_gradient
from dvaepp.numerics import check_above, check_counts, keep_plain, off_ends
from dvaepp.smoothings import binary


class Surrogate(PlainEstimator, ABC):
    """g = f'(b) ds/dl, b the draw, s a surrogate of it; biased unless f is as the surrogate takes it.

    One evaluation of f with its derivative in b. The value is f(b).
    """

    differentiable: ClassVar[bool] = True
    unbiased: ClassVar[bool] = False
    draws: ClassVar[int] = 1

    @property
    def uniforms(self) -> int:
        """One, for b."""
        return 1

    @abstractmethod
    def surrogate(
        self, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, "batch bits"]:
        """A function of the logits whose derivative stands for that of the draw."""

    def value(
        self, f: Function, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, " batch"]:
        """f(b)."""
        b = self.sample(logits, uniform)[0]
        return evaluate_through(f, replace_gradient(b, self.surrogate(logits, uniform)))


@dataclass(frozen=True)
class StraightThrough(Surrogate):
    """g = f'(b) q (1 - q): the derivative of the mean (Bengio et al. 2013).

    Biased unless f is linear in each bit given the others; one evaluation of f with its derivative in b.

    >>> StraightThrough()(lambda b: b.square().sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    name: ClassVar[str] = "straight-through"

    def surrogate(
        self, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, "batch bits"]:
        """The smoothing's of this name."""
        return binary.StraightThrough().surrogate(logits, uniform[0])


@dataclass(frozen=True)
class StraightThroughGumbel(Surrogate):
    """g = f'(b) s (1 - s) / T, s = sigmoid((l - logit u) / T) of b = 1[u < q] (Jang et al. 2017).

    Biased; one evaluation of f with its derivative in b. Less `temperature` T is less bias and more variance.

    >>> StraightThroughGumbel(temperature=0.5)(lambda b: b.square().sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    name: ClassVar[str] = "straight-through-gumbel"
    temperature: float | Tensor = 0.5

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("temperature", self.temperature)

    def surrogate(
        self, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, "batch bits"]:
        """The smoothing's of this name."""
        return binary.StraightThroughGumbel(self.temperature).surrogate(logits, uniform[0])


@dataclass(frozen=True)
class GumbelRao(Surrogate):
    """g = f'(b) E[s (1 - s) / T given b], the mean over R `samples` of u given b (Paulus et al. 2021).

    StraightThroughGumbel's expectation given b: its bias, and less variance. One evaluation of f with its derivative in
    b, and R numbers more for each bit. l - logit u given b = 1 is softplus(l + log(1 - v)) - log v, v uniform.

    >>> GumbelRao(temperature=0.5, samples=10)(lambda b: b.square().sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    name: ClassVar[str] = "gumbel-rao"
    temperature: float | Tensor = 0.5
    samples: int = 10

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("temperature", self.temperature)
        check_counts("GumbelRao", samples=self.samples)

    @property
    def uniforms(self) -> int:
        """One for b, and R."""
        return 1 + self.samples

    def surrogate(
        self, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, "batch bits"]:
        """The mean over R draws of the sigmoid, each moved along the logits."""
        side, v = 2 * self.sample(logits, uniform)[0] - 1, off_ends(uniform[1:])
        distance = F.softplus(side * logits.detach() + torch.log1p(-v)) - torch.log(v)
        slack = side * distance + (logits - logits.detach())
        return torch.sigmoid(slack / self.temperature).mean(0)


@dataclass(frozen=True)
class ReinMax(Surrogate):
    """g = f'(b) (2 s (1 - s) - q (1 - q) / 2), s = (b + sigmoid(l / T)) / 2 (Liu et al. 2023).

    With `temperature` T = 1 the trapezoidal rule, f'(b) (1 - q) / 2 where b = 1 and f'(b) q / 2 where b = 0: no bias
    where f is quadratic in each bit. One evaluation of f with its derivative in b.

    >>> ReinMax()(lambda b: b.square().sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    name: ClassVar[str] = "reinmax"
    temperature: float | Tensor = 1.0

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("temperature", self.temperature)

    def surrogate(
        self, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, "batch bits"]:
        """The smoothing's of this name."""
        return binary.ReinMax(self.temperature).surrogate(logits, uniform[0])


@dataclass(frozen=True)
class DARN(Surrogate):
    """g = f'(b) (b - 1/2) (b - q): the 1/2-estimator (Gregor et al. 2014), which is ReinMax at T = 1, draw by draw.

    f(b) less its tangent's value at 1/2 as a baseline. Biased unless f is quadratic in each bit; one evaluation of f
    with its derivative in b.

    >>> DARN()(lambda b: b.square().sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    name: ClassVar[str] = "darn"

    def surrogate(
        self, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, "batch bits"]:
        """ReinMax's."""
        return binary.ReinMax(1.0).surrogate(logits, uniform[0])
