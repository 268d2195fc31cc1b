"""Logistic densities on the real line (Sec. 3, Appendix B)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import clamp_probs

from dvaepp.numerics import check_above, exp, expm1, log
from dvaepp.smoothings.overlapping import Overlapping


@dataclass(frozen=True)
class OverlappingLogistic(Overlapping):
    """r(zeta | z) logistic with mean z and scale 1 / beta, on the real line (Sec. 3, Appendix B)."""

    beta: float | Tensor
    support: ClassVar[constraints.Constraint] = constraints.real

    def __post_init__(self) -> None:
        check_above("beta", self.beta)

    def log_prob0(self, zeta: Tensor) -> Tensor:
        """log(beta) - |beta zeta| - 2 log(1 + exp(-|beta zeta|))."""
        distance = (self.beta * zeta).abs()
        return log(self.beta) - distance - 2 * F.softplus(-distance)

    def cdf0(self, zeta: Tensor) -> Tensor:
        """sigmoid(beta zeta)."""
        return torch.sigmoid(self.beta * zeta)

    def cdf_gap(self, zeta: Tensor) -> Tensor:
        """(1 - exp(-beta)) sigmoid(beta zeta) sigmoid(beta (1 - zeta)), which does not cancel in the tails."""
        return -expm1(-self.beta) * torch.sigmoid(self.beta * zeta) * torch.sigmoid(self.beta * (1 - zeta))

    def icdf0(self, rho: Tensor) -> Tensor:
        """logit(rho) / beta."""
        return torch.logit(rho) / self.beta

    @property
    def mean0(self) -> float:
        """0."""
        return 0.0

    @property
    def variance0(self) -> float | Tensor:
        """pi^2 / (3 beta^2)."""
        return math.pi**2 / 3 * self.beta**-2

    def icdf(self, logits: Tensor, rho: Tensor) -> Tensor:
        """-log(m) / beta, where rho m^2 + B m - (1 - rho) a = 0, a = exp(-beta), B = rho - (1 - q) + a (rho - q)."""
        rho = clamp_probs(rho)  # zeta is finite at rho = 0 and 1 too
        q, p, a = torch.sigmoid(logits), torch.sigmoid(-logits), exp(-self.beta)
        b = rho - p + a * (rho - q)
        root = torch.sqrt(b * b + 4 * rho * (1 - rho) * a)
        # For b > 0 the root carries a factor a = exp(-beta), taken out as the 1 that it contributes to zeta.
        m = torch.where(b > 0, 2 * (1 - rho), root - b) / torch.where(b > 0, b + root, 2 * rho)
        return (b > 0).to(m.dtype) - torch.log(m) / self.beta
