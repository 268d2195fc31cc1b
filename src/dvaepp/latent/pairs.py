"""More pairs of overlapping densities: power functions, normals, exponentials with a floor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import clamp_probs

from dvaepp.errors import InputError
from dvaepp.latent.overlapping import OverlappingExponential
from dvaepp.latent.quantiles import quantile
from dvaepp.latent.scalars import check_above, log
from dvaepp.latent.smoothing import Overlapping


@dataclass(frozen=True)
class PowerFunction(Overlapping):
    """r(zeta | 0) = zeta^(1 / beta - 1) / beta on [0, 1], r(zeta | 1) its mirror image; beta > 1.

    The densities are infinite at 0 and at 1, near which most mass lies when beta is large. zeta is kept between tiny
    and 1 - eps / 2 of its dtype, in draws and inside the formulas: everything is finite, but the float nearest to 1
    stands for all that lies beyond. In float32 the log-ratio thus ends at 16.6 (1 - 1 / beta) above and at
    -87 (1 - 1 / beta) below; at beta 8 (30) a share of .13 (.57) of r(zeta | 1) is moved to the upper end.
    """

    beta: float | Tensor
    support: ClassVar[constraints.Constraint] = constraints.unit_interval

    def __post_init__(self) -> None:
        check_above("beta", self.beta, 1.0)

    def log_prob0(self, zeta: Tensor) -> Tensor:
        """(1 / beta - 1) log zeta - log beta."""
        return (1 / self.beta - 1) * torch.log(_inside(zeta)) - log(self.beta)

    def log_prob1(self, zeta: Tensor) -> Tensor:
        """(1 / beta - 1) log(1 - zeta) - log beta."""
        return (1 / self.beta - 1) * torch.log1p(-_inside(zeta)) - log(self.beta)

    def log_ratio(self, zeta: Tensor) -> Tensor:
        """(1 - 1 / beta) logit(zeta)."""
        return (1 - 1 / self.beta) * torch.logit(_inside(zeta))

    def cdf0(self, zeta: Tensor) -> Tensor:
        """zeta^(1 / beta); constant outside [0, 1]."""
        return zeta.clamp(0, 1) ** (1 / self.beta)

    def cdf1(self, zeta: Tensor) -> Tensor:
        """1 - (1 - zeta)^(1 / beta), without cancellation near 0."""
        return -torch.expm1(torch.log1p(-zeta.clamp(0, 1)) / self.beta)

    def cdf_gap(self, zeta: Tensor) -> Tensor:
        """zeta (zeta^a - 1) + (1 - zeta) ((1 - zeta)^a - 1), a = 1 / beta - 1: two positive terms."""
        zeta, a = _inside(zeta), 1 / self.beta - 1
        return zeta * torch.expm1(a * torch.log(zeta)) + (1 - zeta) * torch.expm1(a * torch.log1p(-zeta))

    def icdf0(self, rho: Tensor) -> Tensor:
        """rho^beta."""
        return _inside(rho**self.beta)

    def icdf1(self, rho: Tensor) -> Tensor:
        """1 - (1 - rho)^beta."""
        return _inside(-torch.expm1(self.beta * torch.log1p(-rho)))

    @property
    def mean0(self) -> float | Tensor:
        """1 / (1 + beta)."""
        return 1 / (1 + self.beta)

    @property
    def variance0(self) -> float | Tensor:
        """beta^2 / ((1 + 2 beta) (1 + beta)^2)."""
        return self.beta**2 / ((1 + 2 * self.beta) * (1 + self.beta) ** 2)


def _inside(zeta: Tensor) -> Tensor:
    info = torch.finfo(zeta.dtype)
    return zeta.clamp(info.tiny, 1 - info.eps / 2)


@dataclass(frozen=True)
class UniformExponential(Overlapping):
    """r(zeta | z) = (1 - epsilon) e(zeta | z) + epsilon on [0, 1], e the pair of `OverlappingExponential`.

    The floor bounds the log-ratio by log(1 + (1 - epsilon) beta / (epsilon (1 - exp(-beta)))) instead of beta.
    """

    beta: float | Tensor
    epsilon: float = 0.05
    support: ClassVar[constraints.Constraint] = constraints.unit_interval

    def __post_init__(self) -> None:
        check_above("beta", self.beta)
        if not 0 < self.epsilon < 1:
            raise InputError(f"epsilon must be a share between 0 and 1, not {self.epsilon!r}")

    def log_prob0(self, zeta: Tensor) -> Tensor:
        """log((1 - epsilon) e(zeta | 0) + epsilon)."""
        exponential = self._exponential.log_prob0(zeta) + math.log1p(-self.epsilon)
        return torch.logaddexp(exponential, torch.full_like(exponential, math.log(self.epsilon)))

    def cdf0(self, zeta: Tensor) -> Tensor:
        """(1 - epsilon) E(zeta | 0) + epsilon zeta."""
        return (1 - self.epsilon) * self._exponential.cdf0(zeta) + self.epsilon * zeta.clamp(0, 1)

    def cdf_gap(self, zeta: Tensor) -> Tensor:
        """(1 - epsilon) (E(zeta | 0) - E(zeta | 1)): the floor has no part in it."""
        return (1 - self.epsilon) * self._exponential.cdf_gap(zeta)

    def icdf0(self, rho: Tensor) -> Tensor:
        """The zeta with cdf0(zeta) = rho, by bisection between the exponential's quantile and rho, the uniform's."""
        return quantile(self.cdf0, rho, self._exponential.icdf0(rho), rho)

    def draw0(self, rho: Tensor) -> Tensor:
        """rho / epsilon below epsilon, else the quantile of the exponential at (rho - epsilon) / (1 - epsilon)."""
        rest = (rho - self.epsilon).clamp(min=0) / (1 - self.epsilon)
        return torch.where(rho < self.epsilon, rho / self.epsilon, self._exponential.icdf0(rest))

    def draw1(self, rho: Tensor) -> Tensor:
        """The mirror image of a draw from r(zeta | 0)."""
        return 1 - self.draw0(rho)

    @property
    def mean0(self) -> float | Tensor:
        """(1 - epsilon) m + epsilon / 2, m the exponential's."""
        return (1 - self.epsilon) * self._exponential.mean0 + self.epsilon / 2

    @property
    def variance0(self) -> float | Tensor:
        """(1 - epsilon) v + epsilon / 12 + epsilon (1 - epsilon) (m - 1/2)^2."""
        share, between = 1 - self.epsilon, (self._exponential.mean0 - 0.5) ** 2
        return share * self._exponential.variance0 + self.epsilon / 12 + self.epsilon * share * between

    @property
    def _exponential(self) -> OverlappingExponential:
        return OverlappingExponential(self.beta)


@dataclass(frozen=True)
class OverlappingNormal(Overlapping):
    """r(zeta | z) normal with mean z and standard deviation 1 / beta, on the real line."""

    beta: float | Tensor
    support: ClassVar[constraints.Constraint] = constraints.real

    def __post_init__(self) -> None:
        check_above("beta", self.beta)

    def log_prob0(self, zeta: Tensor) -> Tensor:
        """log(beta) - log(2 pi) / 2 - (beta zeta)^2 / 2."""
        return log(self.beta) - math.log(2 * math.pi) / 2 - (self.beta * zeta) ** 2 / 2

    def log_ratio(self, zeta: Tensor) -> Tensor:
        """beta^2 (zeta - 1/2)."""
        return self.beta**2 * (zeta - 0.5)

    def cdf0(self, zeta: Tensor) -> Tensor:
        """Phi(beta zeta)."""
        return _phi(self.beta * zeta)

    def cdf1(self, zeta: Tensor) -> Tensor:
        """Phi(beta (zeta - 1)), which one minus its mirror image would lose in the lower tail."""
        return _phi(self.beta * (zeta - 1))

    def cdf_gap(self, zeta: Tensor) -> Tensor:
        """Phi(beta (1/2 - d)) - Phi(-beta (1/2 + d)), d = |zeta - 1/2|: both are lower tails, so nothing cancels."""
        distance = (zeta - 0.5).abs()
        return _phi(self.beta * (0.5 - distance)) - _phi(-self.beta * (0.5 + distance))

    def icdf0(self, rho: Tensor) -> Tensor:
        """Phi^-1(rho) / beta, finite at rho = 0 and 1 too."""
        standard: Tensor = torch.special.ndtri(clamp_probs(rho))
        return standard / self.beta

    @property
    def mean0(self) -> float:
        """0."""
        return 0.0

    @property
    def variance0(self) -> float | Tensor:
        """1 / beta^2."""
        return self.beta**-2


def _phi(x: Tensor) -> Tensor:
    # torch.special.ndtr cancels in the lower tail
    return torch.erfc(x * -math.sqrt(0.5)) / 2
