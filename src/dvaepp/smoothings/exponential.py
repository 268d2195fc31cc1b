"""Exponentials on [0, 1], the paper's smoothing (Sec. 3, Appendix A), and the same with a floor (DVAE#)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from dvaepp.errors import InputError
from dvaepp.numerics import (
    check_above,
    double,
    exp,
    expm1,
    is_number,
    keep_plain,
    log,
    log_root,
    quantile,
    rounded,
    where,
)
from dvaepp.smoothings.overlapping import Overlapping


@dataclass(frozen=True)
class OverlappingExponential(Overlapping):
    """r(zeta | 0) = exp(-beta zeta) / Z_beta, r(zeta | 1) = exp(beta (zeta - 1)) / Z_beta on [0, 1] (Sec. 3).

    Z_beta = (1 - exp(-beta)) / beta. `beta` > 0, a number or a 0-d tensor, is the inverse temperature.

    >>> q = OverlappingExponential(beta=8.0)(torch.tensor([2.0, -1.0]))
    >>> q.rsample().shape
    torch.Size([2])
    """

    name: ClassVar[str] = "exponential"
    beta: float | Tensor = 10.0
    support: ClassVar[constraints.Constraint] = constraints.unit_interval

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("beta", self.beta)

    def log_prob0(self, zeta: Tensor) -> Tensor:
        """-beta zeta - log Z_beta."""
        return log(-self.beta / expm1(-self.beta)) - self.beta * zeta

    def log_ratio(self, zeta: Tensor) -> Tensor:
        """beta (2 zeta - 1)."""
        return self.beta * (2 * zeta - 1)

    def cdf0(self, zeta: Tensor) -> Tensor:
        """(1 - exp(-beta zeta)) / (1 - exp(-beta)); constant outside [0, 1]."""
        return torch.expm1(-self.beta * zeta.clamp(0, 1)) / expm1(-self.beta)

    def cdf1(self, zeta: Tensor) -> Tensor:
        """exp(-beta (1 - zeta)) (1 - exp(-beta zeta)) / (1 - exp(-beta)), which does not cancel near 0."""
        zeta = zeta.clamp(0, 1)
        return torch.exp(self.beta * (zeta - 1)) * torch.expm1(-self.beta * zeta) / expm1(-self.beta)

    def cdf_gap(self, zeta: Tensor) -> Tensor:
        """(1 - exp(-beta zeta)) (1 - exp(-beta (1 - zeta))) / (1 - exp(-beta)), which does not cancel at the ends."""
        return torch.expm1(-self.beta * zeta) * torch.expm1(self.beta * (zeta - 1)) / -expm1(-self.beta)

    def icdf0(self, rho: Tensor) -> Tensor:
        """-log(1 - rho (1 - exp(-beta))) / beta."""
        fall = rho * -expm1(-self.beta)
        rest = (1 - rho) + rho * exp(-self.beta)  # 1 - fall, which cancels
        return (torch.where(fall < 0.5, torch.log1p(-fall), torch.log(rest)) / -self.beta).clamp(0, 1)

    def icdf1(self, rho: Tensor) -> Tensor:
        """1 + log(e + rho (1 - e)) / beta, e = exp(-beta)."""
        rise, e = rho * -expm1(-self.beta), exp(-self.beta)
        far = 1 + torch.log(e + rise) / self.beta
        return torch.where(rise < e, torch.log1p(rise / e) / self.beta, far).clamp(0, 1)

    def draw0(self, rho: Tensor) -> Tensor:
        """icdf0 by its first form alone: uniform numbers know 1 - rho no better."""
        return (torch.log1p(rho * expm1(-self.beta)) / -self.beta).clamp(0, 1)

    def draw1(self, rho: Tensor) -> Tensor:
        """The mirror image of a draw from r(zeta | 0)."""
        return 1 - self.draw0(1 - rho)

    @property
    def mean0(self) -> float | Tensor:
        """1 / beta - 1 / (exp(beta) - 1)."""
        beta = double(self.beta)
        near = 0.5 - beta * _langevin(beta) / 4
        return rounded(where(beta < 2, near, 1 / beta + exp(-beta) / expm1(-beta)), self.beta)

    @property
    def variance0(self) -> float | Tensor:
        """1 / beta^2 - exp(-beta) / (1 - exp(-beta))^2."""
        beta = double(self.beta)
        slope = _langevin(beta)
        near = (1 - 2 * slope - (beta * slope / 2) ** 2) / 4
        return rounded(where(beta < 2, near, beta**-2 - exp(-beta) / expm1(-beta) ** 2), self.beta)

    def icdf(self, logits: Tensor, rho: Tensor) -> Tensor:
        """-log(m) / beta, where (1 - q) m^2 + B m - q e = 0, e = exp(-beta), B = rho - (1 - q) + e (q - rho) (Eq. 3).

        Eq. 3 divides by 1 - q and cancels. Here m comes from B <= 0, or where it puts zeta below 1/2, else
        exp(-beta (1 - zeta)) from the mirrored equation; near 0, where m rounds to 1, 1 - m from its own.
        """
        dtype = torch.result_type(logits, rho)
        beta, logits, rho = double(self.beta), logits.double(), rho.double()
        q, p, e, rise = torch.sigmoid(logits), torch.sigmoid(-logits), exp(-beta), rho * -expm1(-beta)
        b = torch.where(rho < 0.5, rho - p + e * (q - rho), q - (1 - rho) + e * (1 - rho - p))
        root = torch.hypot(b, 2 * torch.sqrt(p * q) * exp(-beta / 2))
        fall = 2 * rise / (p + q * e + rise + root)  # 1 - m
        low = -log_root(b / (2 * p), (logits - beta) / 2) / beta
        high = 1 + log_root(-b / (2 * q), (-logits - beta) / 2) / beta
        zeta = torch.where(fall < 0.5, -torch.log1p(-fall) / beta, torch.where((b <= 0) | (low < 0.5), low, high))
        return zeta.clamp(0, 1).to(dtype)


def _langevin(beta: float | Tensor) -> float | Tensor:
    """(coth x - 1 / x) / x at x = beta / 2, by Lambert's continued fraction 1 / (3 + x^2 / (5 + ...)); for beta < 2."""
    square = beta * beta / 4
    fraction: float | Tensor = 19.0
    for odd in range(17, 1, -2):
        fraction = odd + square / fraction
    return 1 / fraction


@dataclass(frozen=True)
class UniformExponential(Overlapping):
    """r(zeta | z) = (1 - epsilon) e(zeta | z) + epsilon on [0, 1], e the pair of `OverlappingExponential`.

    The floor bounds the log-ratio by log(1 + (1 - epsilon) beta / (epsilon (1 - exp(-beta)))) instead of beta.

    `beta` > 0, a number or a 0-d tensor; `epsilon` between 0 and 1 is the floor's share (Vahdat et al. 2018b, DVAE#).

    >>> q = UniformExponential(beta=8.0)(torch.tensor([2.0, -1.0]))
    >>> q.rsample().shape
    torch.Size([2])
    """

    name: ClassVar[str] = "uniform-exponential"
    beta: float | Tensor = 10.0
    epsilon: float = 0.05
    support: ClassVar[constraints.Constraint] = constraints.unit_interval

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("beta", self.beta)
        if not (is_number(self.epsilon) and 0 < self.epsilon < 1):
            raise InputError(f"epsilon must be a share between 0 and 1, not {self.epsilon!r}")

    def log_prob0(self, zeta: Tensor) -> Tensor:
        """log((1 - epsilon) e(zeta | 0) + epsilon)."""
        exponential = self._exponential.log_prob0(zeta) + math.log1p(-self.epsilon)
        return torch.logaddexp(exponential, torch.full_like(exponential, math.log(self.epsilon)))

    def cdf0(self, zeta: Tensor) -> Tensor:
        """(1 - epsilon) E(zeta | 0) + epsilon zeta."""
        return (1 - self.epsilon) * self._exponential.cdf0(zeta) + self.epsilon * zeta.clamp(0, 1)

    def cdf1(self, zeta: Tensor) -> Tensor:
        """(1 - epsilon) E(zeta | 1) + epsilon zeta."""
        return (1 - self.epsilon) * self._exponential.cdf1(zeta) + self.epsilon * zeta.clamp(0, 1)

    def cdf_gap(self, zeta: Tensor) -> Tensor:
        """(1 - epsilon) (E(zeta | 0) - E(zeta | 1)): the floor has no part in it."""
        return (1 - self.epsilon) * self._exponential.cdf_gap(zeta)

    def icdf0(self, rho: Tensor) -> Tensor:
        """The zeta with cdf0(zeta) = rho, by bisection between the exponential's quantile and rho, the uniform's."""
        return quantile(self.cdf0, rho, self._exponential.icdf0(rho), rho)

    def icdf1(self, rho: Tensor) -> Tensor:
        """The zeta with cdf1(zeta) = rho, likewise."""
        return quantile(self.cdf1, rho, self._exponential.icdf1(rho), rho)

    def draw0(self, rho: Tensor) -> Tensor:
        """rho / epsilon below epsilon, else the quantile of the exponential at (rho - epsilon) / (1 - epsilon)."""
        rest = (rho - self.epsilon).clamp(min=0) / (1 - self.epsilon)
        return torch.where(rho < self.epsilon, rho / self.epsilon, self._exponential.draw0(rest))

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
