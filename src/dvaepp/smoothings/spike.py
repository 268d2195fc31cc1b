"""Smoothings with an atom: z = 0 gives exactly zeta = 0, z = 1 a density r(zeta | 1) (Rolfe 2016)."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Bernoulli, constraints
from torch.distributions.utils import clamp_probs

from dvaepp.errors import InputError
from dvaepp.gradients import finite_exp
from dvaepp.numerics import check_above, is_number, keep_plain
from dvaepp.smoothings.base import ImplicitBernoulli, Smoothing
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.smoothings.normal import OverlappingNormal


class Spike(Smoothing):
    """r(zeta | 0) = delta(zeta) and a density r(zeta | 1). All methods act elementwise on tensors.

    >>> q = SpikeExponential(beta=5.0)(torch.tensor([-60.0]))  # any Spike
    >>> q.rsample()
    tensor([0.])
    """

    has_atom: ClassVar[bool] = True
    support: ClassVar[constraints.Constraint]

    @abstractmethod
    def log_prob1(self, zeta: Tensor) -> Tensor:
        """log r(zeta | z = 1), nats."""

    @abstractmethod
    def cdf1(self, zeta: Tensor) -> Tensor:
        """R(zeta | z = 1), the integral of the density up to zeta."""

    @abstractmethod
    def icdf1(self, rho: Tensor) -> Tensor:
        """The zeta at which cdf1 is rho."""

    @property
    @abstractmethod
    def mean1(self) -> float | Tensor:
        """E[zeta | z = 1]."""

    @property
    @abstractmethod
    def variance1(self) -> float | Tensor:
        """Var[zeta | z = 1]."""

    def sf1(self, zeta: Tensor) -> Tensor:
        """1 - R(zeta | z = 1)."""
        return 1 - self.cdf1(zeta)

    def cdf_gap(self, zeta: Tensor) -> Tensor:
        """R(zeta | 0) - R(zeta | 1): minus R(zeta | 1) below the atom, 1 - R(zeta | 1) above."""
        return torch.where(zeta < 0, -self.cdf1(zeta), self.sf1(zeta))

    def __call__(self, logits: Float[Tensor, "*shape"], validate_args: bool | None = None) -> SpikedBernoulli:
        """q(zeta | x) = (1 - q) delta(zeta) + q r(zeta | 1)."""
        return SpikedBernoulli(self, logits, validate_args)


class SpikedBernoulli(ImplicitBernoulli):
    """q(zeta | x) = (1 - q) delta(zeta) + q r(zeta | 1), elementwise.

    Draws are ancestral and carry the implicit gradient
    d zeta / d logit = (1 - q) (R(zeta | 0) - R(zeta | 1)) / r(zeta | 1)
    off the atom, 0 at it. As the inverse CDF is continuous in q, this is exact for E[f(zeta)] if f is continuous. For a
    function of z = 1[zeta != 0], which jumps at the atom, it is not.
    """

    smoothing: Spike

    @property
    def mean(self) -> Tensor:
        """E[zeta] = q m_1."""
        return self.probs * self.smoothing.mean1

    @property
    def variance(self) -> Tensor:
        """Var[zeta] = q v_1 + q (1 - q) m_1^2."""
        r, q = self.smoothing, self.probs
        return q * r.variance1 + q * torch.sigmoid(-self.logits) * r.mean1**2

    def _draw(self, uniform: Tensor) -> Tensor:
        """z of the first number, zeta given z of the second: 0 exactly where z = 0."""
        with torch.no_grad():
            zeta = self._place(uniform[0] < self.probs, self.smoothing.icdf1(clamp_probs(uniform[1])))
        return self._reparameterise(zeta)

    def log_prob(self, value: Tensor) -> Tensor:
        """log(1 - q) at zeta = 0, log q + log r(zeta | 1) elsewhere, nats, elementwise.

        The density is with respect to Lebesgue measure plus a unit point mass at 0: the two are of different kinds.
        """
        if self._validate_args:
            self._validate_sample(value)
        off = F.logsigmoid(self.logits) + self.smoothing.log_prob1(value)
        return torch.where(value == 0, F.logsigmoid(-self.logits), off)

    def cdf(self, value: Tensor) -> Tensor:
        """F(zeta) = (1 - q) 1[zeta >= 0] + q R(zeta | 1)."""
        return torch.sigmoid(-self.logits) * (value >= 0) + self.probs * self.smoothing.cdf1(value)

    def posterior(self, zeta: Tensor) -> Bernoulli:
        """q(z | x, zeta) = 1[z = 1[zeta != 0]]: one-sided Bayes, as only z = 1 leaves 0; no gradient.

        The true probability jumps at the atom. Gradients through it are lost; objectives for spikes add them by hand.
        """
        return Bernoulli(probs=(zeta != 0).to(zeta.dtype))

    def _place(self, z: Tensor, zeta: Tensor) -> Tensor:
        """0 for z = 0; zeta for z = 1, moved off the atom should it have been rounded to 0."""
        return torch.where(z, torch.where(zeta == 0, torch.finfo(zeta.dtype).tiny, zeta), 0.0)

    def _quantile(self, rho: Tensor) -> Tensor:
        """0 from rho = q R(0 | 1) to 1 - q more, R^-1(rho / q | 1) below, R^-1((rho - 1 + q) / q | 1) above."""
        dtype, rho, logits = torch.result_type(rho, self.logits), rho.double(), self.logits.double()
        q, p = torch.sigmoid(logits), torch.sigmoid(-logits)
        start = q * self.smoothing.cdf1(torch.zeros_like(q))
        excess = torch.where(rho < 0.5, rho - p, q - (1 - rho))
        below, above = rho < start, excess > start
        share = (torch.where(below, rho, excess) / q).clamp(0, 1)
        return self._place(below | above, self.smoothing.icdf1(share).to(dtype))

    def _slope(self, zeta: Tensor) -> Tensor:
        log_weight = F.logsigmoid(-self.logits) - self.smoothing.log_prob1(zeta)
        return torch.where(zeta == 0, 0.0, self.smoothing.cdf_gap(zeta) * finite_exp(log_weight))

    def _slope_in_rho(self, zeta: Tensor) -> Tensor:
        return torch.where(zeta == 0, 0.0, finite_exp(-self.log_prob(zeta)))


@dataclass(frozen=True)
class SpikeExponential(Spike):
    """r(zeta | 1) = beta exp(beta zeta) / (exp(beta) - 1) on [0, 1] (Rolfe 2016): half of `OverlappingExponential`.

    `beta` > 0, a number or a 0-d tensor, is the inverse temperature.

    >>> q = SpikeExponential(beta=5.0)(torch.tensor([2.0, -1.0]))
    >>> q.rsample().shape
    torch.Size([2])
    """

    name: ClassVar[str] = "spike-exponential"
    beta: float | Tensor = 10.0
    support: ClassVar[constraints.Constraint] = constraints.unit_interval

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("beta", self.beta)

    def log_prob1(self, zeta: Tensor) -> Tensor:
        """beta (zeta - 1) - log((1 - exp(-beta)) / beta)."""
        return self._pair.log_prob1(zeta)

    def cdf1(self, zeta: Tensor) -> Tensor:
        """(exp(beta zeta) - 1) / (exp(beta) - 1), both over exp(beta); constant outside [0, 1]."""
        return self._pair.cdf1(zeta)

    def sf1(self, zeta: Tensor) -> Tensor:
        """(1 - exp(beta (zeta - 1))) / (1 - exp(-beta)), without cancellation near 1."""
        return self._pair.cdf0(1 - zeta)

    def icdf1(self, rho: Tensor) -> Tensor:
        """log(1 + (exp(beta) - 1) rho) / beta."""
        return self._pair.icdf1(rho)

    @property
    def mean1(self) -> float | Tensor:
        """1 - 1 / beta + 1 / (exp(beta) - 1)."""
        return self._pair.mean1

    @property
    def variance1(self) -> float | Tensor:
        """1 / beta^2 - exp(-beta) / (1 - exp(-beta))^2."""
        return self._pair.variance1

    @property
    def _pair(self) -> OverlappingExponential:
        return OverlappingExponential(self.beta)


@dataclass(frozen=True)
class SpikeGaussian(Spike):
    """r(zeta | 1) normal with the given mean and standard deviation 1 / beta, on the real line (Rolfe 2016).

    `beta` > 0, a number or a 0-d tensor; `mean` a number.

    >>> q = SpikeGaussian(beta=5.0)(torch.tensor([2.0, -1.0]))
    >>> q.rsample().shape
    torch.Size([2])
    """

    name: ClassVar[str] = "spike-gaussian"
    beta: float | Tensor = 10.0
    mean: float = 1.0
    support: ClassVar[constraints.Constraint] = constraints.real

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("beta", self.beta)
        if not (is_number(self.mean) and math.isfinite(self.mean)):
            raise InputError(f"mean must be a finite number, not {self.mean!r}")

    def log_prob1(self, zeta: Tensor) -> Tensor:
        """log(beta) - log(2 pi) / 2 - (beta (zeta - mean))^2 / 2."""
        return self._normal.log_prob0(zeta - self.mean)

    def cdf1(self, zeta: Tensor) -> Tensor:
        """Phi(beta (zeta - mean))."""
        return self._normal.cdf0(zeta - self.mean)

    def sf1(self, zeta: Tensor) -> Tensor:
        """Phi(beta (mean - zeta)), without cancellation in the upper tail."""
        return self._normal.cdf0(self.mean - zeta)

    def icdf1(self, rho: Tensor) -> Tensor:
        """mean + Phi^-1(rho) / beta, finite at rho = 0 and 1 too."""
        return self.mean + self._normal.icdf0(rho)

    @property
    def mean1(self) -> float:
        """The mean."""
        return self.mean

    @property
    def variance1(self) -> float | Tensor:
        """1 / beta^2."""
        return self._normal.variance0

    @property
    def _normal(self) -> OverlappingNormal:
        return OverlappingNormal(self.beta)
