"""Normal densities on the real line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import clamp_probs

from dvaepp.numerics import check_above, log
from dvaepp.smoothings.overlapping import Overlapping


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
