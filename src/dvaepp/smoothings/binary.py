"""Bits themselves: the limit of every smoothing, where likelihoods are measured; with a surrogate, straight-through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Bernoulli, constraints

from dvaepp.gradients import replace_gradient
from dvaepp.numerics import check_above, keep_plain, plain
from dvaepp.smoothings.base import BitDistribution, Smoothing


@dataclass(frozen=True)
class Hard(Smoothing):
    """zeta = z: the limit beta -> infinity of every smoothing, in which likelihoods are measured."""

    name: ClassVar[str] = "hard"
    binary: ClassVar[bool] = True
    reparameterised: ClassVar[bool] = False

    def __call__(self, logits: Float[Tensor, "*shape"], validate_args: bool | None = None) -> HardBernoulli:
        """q(z | x) itself."""
        return HardBernoulli(logits, validate_args)


class HardBernoulli(BitDistribution):
    """zeta = z ~ Bernoulli(logits), as z = 1[u < q] of a uniform number u. There is no density over zeta.

    Without a surrogate there is no reparameterisation. With one, a function of (logits, u), draws are bits that carry
    its gradient in place of their own, which is 0 almost everywhere.
    """

    support = constraints.boolean
    uniforms = 1

    def __init__(
        self,
        logits: Float[Tensor, "*shape"],
        validate_args: bool | None = None,
        surrogate: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.surrogate = surrogate
        self.has_rsample = surrogate is not None
        super().__init__(logits, validate_args)

    @property
    def mean(self) -> Tensor:
        """E[z] = q."""
        return self.probs

    @property
    def variance(self) -> Tensor:
        """Var[z] = q (1 - q)."""
        return self.probs * torch.sigmoid(-self.logits)

    def expand(self, batch_shape: Any, _instance: Any = None) -> HardBernoulli:
        """The same distribution with a larger batch shape."""
        return HardBernoulli(self.logits.expand(torch.Size(batch_shape)), self._validate_args, self.surrogate)

    def _draw(self, uniform: Tensor) -> Tensor:
        """1[u < q] with the surrogate's gradient, if there is one."""
        z = (uniform[0] < self.probs).to(self.logits.dtype)
        if self.surrogate is None or not self.logits.requires_grad:
            return z
        return replace_gradient(z, self.surrogate(self.logits, uniform[0]))

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(z | x) = z log q + (1 - z) log(1 - q), nats, elementwise."""
        if self._validate_args:
            self._validate_sample(value)
        return value * F.logsigmoid(self.logits) + (1 - value) * F.logsigmoid(-self.logits)

    def cdf(self, value: Tensor) -> Tensor:
        """0 below 0, 1 - q in [0, 1), 1 from 1 on."""
        return torch.sigmoid(-self.logits) * (value >= 0) + self.probs * (value >= 1)

    def icdf(self, value: Tensor) -> Tensor:
        """1[rho > 1 - q]; no gradient."""
        self._validate_probability(value)
        return (value > torch.sigmoid(-self.logits)).to(self.logits.dtype)

    def posterior(self, zeta: Tensor) -> Bernoulli:
        """q(z | x, zeta) = 1[z = zeta]; what gradient zeta carries flows through its probs."""
        return Bernoulli(probs=zeta)


hard = Hard()


@dataclass(frozen=True)
class StraightThrough(Smoothing):
    """zeta = z, d zeta / d logit := q (1 - q), the gradient of E[z] (Bengio et al. 2013).

    >>> q = StraightThrough()(torch.tensor([0.0, 3.0], requires_grad=True))
    >>> q.rsample().requires_grad
    True
    """

    name: ClassVar[str] = "straight-through"
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

    >>> q = StraightThroughGumbel(temperature=0.5)(torch.tensor([60.0, -60.0]))
    >>> q.rsample()
    tensor([1., 0.])
    """

    name: ClassVar[str] = "straight-through-gumbel"
    temperature: float | Tensor = 0.1
    binary: ClassVar[bool] = True

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("temperature", self.temperature)

    def __call__(self, logits: Float[Tensor, "*shape"], validate_args: bool | None = None) -> HardBernoulli:
        """q(z | x), whose draws carry the gradient of the Concrete variable that they round."""
        return HardBernoulli(logits, validate_args, self.surrogate)

    def surrogate(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """sigmoid((logit - logit(u)) / T): above 1/2 where u < q, and -logit(u) is as good a logistic number."""
        return torch.sigmoid((logits - torch.logit(uniform)) / self.temperature)

    @property
    def sharpness(self) -> float | Tensor:
        """1 / temperature."""
        return 1 / self.temperature

    def with_beta(self, beta: float | Tensor) -> StraightThroughGumbel:
        """Temperature 1 / beta."""
        check_above("beta", beta)
        return StraightThroughGumbel(1 / plain(beta))


@dataclass(frozen=True)
class ReinMax(Smoothing):
    """zeta = z, d zeta / d l := 2 s (1 - s) - q (1 - q) / 2, s = (z + sigmoid(l / T)) / 2 (Liu et al. 2023).

    At `temperature` T = 1 it is (1 - q) / 2 where z = 1 and q / 2 where z = 0, the trapezoidal rule: right for an f
    that is quadratic in each bit. T > 0, a number or a 0-d tensor; larger ones have less variance and more bias.

    >>> q = ReinMax()(torch.tensor([0.0, 3.0], requires_grad=True))
    >>> q.rsample().requires_grad
    True
    """

    name: ClassVar[str] = "reinmax"
    temperature: float | Tensor = 1.0
    binary: ClassVar[bool] = True

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("temperature", self.temperature)

    def __call__(self, logits: Float[Tensor, "*shape"], validate_args: bool | None = None) -> HardBernoulli:
        """q(z | x), whose draws carry this gradient."""
        return HardBernoulli(logits, validate_args, self.surrogate)

    def surrogate(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """The logits times d zeta / d l, which depends on the draw z = 1[u < q]."""
        with torch.no_grad():
            q, other = torch.sigmoid(logits), torch.sigmoid(-logits)
            tempered, opposite = torch.sigmoid(logits / self.temperature), torch.sigmoid(-logits / self.temperature)
            z = (uniform < q).to(logits.dtype)
            slope = ((z + tempered) * (1 - z + opposite) - q * other) / 2
        return slope * logits
