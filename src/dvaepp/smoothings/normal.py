"""Normal densities on the real line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from dvaepp.numerics import check_above, keep_plain, log, off_ends
from dvaepp.smoothings.overlapping import Overlapping

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)
_UNIT_INTERVAL = [((1 + node) / 2, weight / 2) for node, weight in zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True)]


@dataclass(frozen=True)
class OverlappingNormal(Overlapping):
    """r(zeta | z) normal with mean z and standard deviation 1 / beta, on the real line.

    `beta` > 0, a number or a 0-d tensor. One of the pairs that Sec. 3 leaves open.

    >>> q = OverlappingNormal(beta=8.0)(torch.tensor([2.0, -1.0]))
    >>> q.rsample().shape
    torch.Size([2])
    """

    name: ClassVar[str] = "normal"
    beta: float | Tensor = 10.0
    support: ClassVar[constraints.Constraint] = constraints.real

    def __post_init__(self) -> None:
        keep_plain(self)
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
        """Phi(beta min(zeta, 1 - zeta)) - Phi(-beta max(zeta, 1 - zeta)): outside [0, 1] both are lower tails.

        Below beta .1, where the two cancel, the integral of r(. | 0) over the unit interval that ends at zeta.
        """
        below, above = torch.minimum(zeta, 1 - zeta), torch.maximum(zeta, 1 - zeta)
        tails = _phi(self.beta * below) - _phi(-self.beta * above)
        if not isinstance(self.beta, Tensor) and self.beta >= 0.1:
            return tails
        parts = [weight * torch.exp(self.log_prob0(zeta - node)) for node, weight in _UNIT_INTERVAL]
        return torch.where(torch.as_tensor(self.beta, device=zeta.device) < 0.1, torch.stack(parts).sum(0), tails)

    def icdf0(self, rho: Tensor) -> Tensor:
        """Phi^-1(rho) / beta, finite at rho = 0 and 1 too."""
        standard: Tensor = torch.special.ndtri(off_ends(rho))
        return standard / self.beta

    def icdf1(self, rho: Tensor) -> Tensor:
        """1 + Phi^-1(rho) / beta."""
        return 1 + self.icdf0(rho)

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
