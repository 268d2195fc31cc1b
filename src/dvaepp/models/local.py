"""Groups of local latent variables h_j: what a hierarchy p(h_j | zeta, h_<j) is made of (Sec. 6.1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal

from dvaepp.components.registry import Component
from dvaepp.errors import InputError
from dvaepp.priors.normal import normal, normal_divergence
from dvaepp.smoothings.base import BitDistribution, Smoothing


class LocalVariables(Component, ABC):
    """The kind of local variables: distributions made of `width` numbers a variable, and their divergence."""

    kind: ClassVar[str] = "kind of local variables"
    folder: ClassVar[str] = "dvaepp.models"
    width: ClassVar[int]

    def check(self, smoothing: Smoothing) -> None:
        """InputError where the variables cannot be seen through this smoothing."""

    @abstractmethod
    def distribution(self, parameters: Float[Tensor, "batch channels height width"], smoothing: Smoothing) -> Any:
        """The distribution of channels / width variables at every location."""

    @abstractmethod
    def reparameterised(self, smoothing: Smoothing) -> bool:
        """Whether gradients flow from a draw to its distribution."""

    @abstractmethod
    def mean(self, distribution: Any) -> Tensor:
        """The mean of every variable; of bits that of z."""

    @abstractmethod
    def divergence(self, q: Any, p: Any, h: Tensor) -> Tensor:
        """KL(q || p) of every variable, nats, or an estimate from the draw h that is unbiased in value and gradient."""


@dataclass(frozen=True)
class NormalVariables(LocalVariables):
    """Normal variables; the first half of the parameters are means, the second log standard deviations.

    The local variables of DVAE++ (Sec. 6.1).

    >>> import torch
    >>> from dvaepp import hard
    >>> NormalVariables().distribution(torch.zeros(5, 2 * 3, 4, 4), hard).mean.shape
    torch.Size([5, 3, 4, 4])
    """

    name: ClassVar[str] = "normal"
    width: ClassVar[int] = 2

    def distribution(self, parameters: Float[Tensor, "batch channels height width"], smoothing: Smoothing) -> Normal:
        """`normal` of the two halves; the smoothing takes no part."""
        return normal(*parameters.chunk(2, 1))

    def reparameterised(self, smoothing: Smoothing) -> bool:
        """Always."""
        return True

    def mean(self, distribution: Normal) -> Tensor:
        """Its mean."""
        return distribution.loc

    def divergence(self, q: Normal, p: Normal, h: Tensor) -> Tensor:
        """KL(q || p) in closed form."""
        return normal_divergence(q, p)


@dataclass(frozen=True)
class BernoulliVariables(LocalVariables):
    """Bits seen through the model's smoothing, their z summed out: q(zeta), p(zeta) of Sec. 4.2; parameters: logits.

    >>> import torch
    >>> from dvaepp import OverlappingExponential
    >>> BernoulliVariables().distribution(torch.zeros(5, 3, 4, 4), OverlappingExponential(beta=8.0)).rsample().shape
    torch.Size([5, 3, 4, 4])
    """

    name: ClassVar[str] = "bernoulli"
    width: ClassVar[int] = 1

    def check(self, smoothing: Smoothing) -> None:
        """InputError for a smoothing with an atom, where the density's gradient is lost."""
        if smoothing.has_atom:
            raise InputError(f"local bits take a smoothing without an atom, not {smoothing}")

    def distribution(
        self, parameters: Float[Tensor, "batch channels height width"], smoothing: Smoothing
    ) -> BitDistribution:
        """sum_z r(zeta | z) p(z)."""
        self.check(smoothing)
        return smoothing(parameters)

    def reparameterised(self, smoothing: Smoothing) -> bool:
        """As the smoothing's draws are."""
        return smoothing.reparameterised

    def mean(self, distribution: BitDistribution) -> Tensor:
        """The probability of 1."""
        return distribution.probs

    def divergence(self, q: BitDistribution, p: BitDistribution, h: Tensor) -> Tensor:
        """log q(zeta) - log p(zeta) at the draw (Eq. 5)."""
        return q.log_prob(h) - p.log_prob(h)


@dataclass(frozen=True)
class LocalGroup:
    """q(h_j | x, zeta, h_<j), p(h_j | zeta, h_<j), and h_j drawn from q; tensors (batch, variables, height, width)."""

    variables: LocalVariables
    q: Any
    p: Any
    h: Float[Tensor, "batch variables height width"]

    def kl(self) -> Float[Tensor, " batch"]:
        """KL(q(h_j | x, zeta, h_<j) || p(h_j | zeta, h_<j)), nats, given the draws of earlier groups."""
        return self.variables.divergence(self.q, self.p, self.h).flatten(1).sum(1)

    def log_ratio(self) -> Float[Tensor, " batch"]:
        """log p(h_j | zeta, h_<j) - log q(h_j | x, zeta, h_<j), nats, at the draw."""
        ratio: Tensor = self.p.log_prob(self.h) - self.q.log_prob(self.h)
        return ratio.flatten(1).sum(1)

    def mean_shift(self) -> Float[Tensor, "batch dimensions"]:
        """E_q[h_j] - E_p[h_j]: what x adds to the mean that zeta and h_<j give; of bits the z of both."""
        mean = self.variables.mean
        return (mean(self.q) - mean(self.p)).flatten(1)
