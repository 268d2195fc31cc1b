"""Logistic densities on the real line (Sec. 3, Appendix B)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from dvaepp.numerics import check_above, double, exp, expm1, keep_plain, log, log_root, off_ends, softplus
from dvaepp.smoothings.overlapping import Overlapping


@dataclass(frozen=True)
class OverlappingLogistic(Overlapping):
    """r(zeta | z) logistic with mean z and scale 1 / beta, on the real line (Sec. 3, Appendix B).

    `beta` > 0, a number or a 0-d tensor, is the inverse temperature.

    >>> q = OverlappingLogistic(beta=8.0)(torch.tensor([2.0, -1.0]))
    >>> q.rsample().shape
    torch.Size([2])
    """

    name: ClassVar[str] = "logistic"
    beta: float | Tensor = 10.0
    support: ClassVar[constraints.Constraint] = constraints.real

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("beta", self.beta)

    def log_prob0(self, zeta: Tensor) -> Tensor:
        """log(beta) - |beta zeta| - 2 log(1 + exp(-|beta zeta|))."""
        distance = (self.beta * zeta).abs()
        return log(self.beta) - distance - 2 * softplus(-distance)

    def cdf0(self, zeta: Tensor) -> Tensor:
        """sigmoid(beta zeta)."""
        return torch.sigmoid(self.beta * zeta)

    def cdf1(self, zeta: Tensor) -> Tensor:
        """sigmoid(beta (zeta - 1)), without cancellation in the lower tail."""
        return torch.sigmoid(self.beta * (zeta - 1))

    def cdf_gap(self, zeta: Tensor) -> Tensor:
        """(1 - exp(-beta)) sigmoid(beta zeta) sigmoid(beta (1 - zeta)), which does not cancel in the tails."""
        return -expm1(-self.beta) * torch.sigmoid(self.beta * zeta) * torch.sigmoid(self.beta * (1 - zeta))

    def icdf0(self, rho: Tensor) -> Tensor:
        """logit(rho) / beta."""
        return torch.logit(rho) / self.beta

    def icdf1(self, rho: Tensor) -> Tensor:
        """1 + logit(rho) / beta."""
        return 1 + self.icdf0(rho)

    @property
    def mean0(self) -> float:
        """0."""
        return 0.0

    @property
    def variance0(self) -> float | Tensor:
        """pi^2 / (3 beta^2)."""
        return math.pi**2 / 3 * self.beta**-2

    def icdf(self, logits: Tensor, rho: Tensor) -> Tensor:
        """-log(m) / beta, where rho m^2 + B m - (1 - rho) a = 0, a = exp(-beta), B = rho - (1 - q) + a (rho - q).

        For B > 0, exp(-beta (1 - zeta)) from the mirrored equation. Finite at rho = 0 and 1 too.
        """
        dtype = torch.result_type(logits, rho)
        beta, logits, rho = double(self.beta), logits.double(), off_ends(rho).double()
        q, p, a = torch.sigmoid(logits), torch.sigmoid(-logits), exp(-beta)
        b = torch.where(rho < 0.5, rho - p + a * (rho - q), q - (1 - rho) + a * (p - (1 - rho)))
        odds = torch.logit(rho)
        low = -log_root(b / (2 * rho), (-odds - beta) / 2) / beta
        high = 1 + log_root(-b / (2 * (1 - rho)), (odds - beta) / 2) / beta
        return torch.where((b <= 0) | (low < 0.5), low, high).to(dtype)
