"""Power functions on [0, 1] (DVAE#)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from dvaepp.numerics import check_above, keep_plain, log, off_ends
from dvaepp.smoothings.overlapping import Overlapping


@dataclass(frozen=True)
class PowerFunction(Overlapping):
    """r(zeta | 0) = zeta^(1 / beta - 1) / beta on [0, 1], r(zeta | 1) its mirror image; beta > 1.

    The densities are infinite at 0 and at 1, near which most mass lies when beta is large. zeta is kept between tiny
    and 1 - eps / 2 of its dtype, in draws and inside the formulas: everything is finite, but the float nearest to 1
    stands for all that lies beyond. In float32 the log-ratio thus ends at 16.6 (1 - 1 / beta) above and at
    -87 (1 - 1 / beta) below; at beta 8 (30) a share of .13 (.57) of r(zeta | 1) is moved to the upper end.

    `beta` is a number or a 0-d tensor; about 30 is typical (Vahdat et al. 2018b, DVAE#).

    >>> q = PowerFunction(beta=30.0)(torch.tensor([2.0, -1.0]))
    >>> q.rsample().shape
    torch.Size([2])
    """

    name: ClassVar[str] = "power"
    beta: float | Tensor = 10.0
    support: ClassVar[constraints.Constraint] = constraints.unit_interval

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("beta", self.beta, 1.0)

    def log_prob0(self, zeta: Tensor) -> Tensor:
        """(1 / beta - 1) log zeta - log beta."""
        return self._power * torch.log(off_ends(zeta)) - log(self.beta)

    def log_prob1(self, zeta: Tensor) -> Tensor:
        """(1 / beta - 1) log(1 - zeta) - log beta."""
        return self._power * torch.log1p(-off_ends(zeta)) - log(self.beta)

    def log_ratio(self, zeta: Tensor) -> Tensor:
        """(1 - 1 / beta) logit(zeta)."""
        return -self._power * torch.logit(off_ends(zeta))

    def cdf0(self, zeta: Tensor) -> Tensor:
        """zeta^(1 / beta); constant outside [0, 1]."""
        return zeta.clamp(0, 1) ** (1 / self.beta)

    def cdf1(self, zeta: Tensor) -> Tensor:
        """1 - (1 - zeta)^(1 / beta), without cancellation near 0."""
        return -torch.expm1(torch.log1p(-zeta.clamp(0, 1)) / self.beta)

    def cdf_gap(self, zeta: Tensor) -> Tensor:
        """zeta^(1 / beta) (1 - zeta^(1 - 1 / beta)), and the same of 1 - zeta: two positive terms."""
        zeta = off_ends(zeta)
        lower, upper = (
            -torch.exp(log_zeta / self.beta) * torch.expm1(-self._power * log_zeta)
            for log_zeta in (torch.log(zeta), torch.log1p(-zeta))
        )
        return lower + upper

    def icdf0(self, rho: Tensor) -> Tensor:
        """rho^beta."""
        return off_ends(rho**self.beta)

    def icdf1(self, rho: Tensor) -> Tensor:
        """1 - (1 - rho)^beta."""
        return off_ends(-torch.expm1(self.beta * torch.log1p(-rho)))

    @property
    def mean0(self) -> float | Tensor:
        """1 / (1 + beta)."""
        return 1 / (1 + self.beta)

    @property
    def variance0(self) -> float | Tensor:
        """beta^2 / ((1 + 2 beta) (1 + beta)^2)."""
        return self.beta**2 / ((1 + 2 * self.beta) * (1 + self.beta) ** 2)

    @property
    def _power(self) -> float | Tensor:
        """1 / beta - 1, which cancels near beta 1."""
        return (1 - self.beta) / self.beta
