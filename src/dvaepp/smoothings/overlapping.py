"""Pairs of densities r(zeta | 0), r(zeta | 1) with one support, and their mixture q(zeta | x) (Sec. 3).

A pair is a few formulas for z = 0; density, CDF, posterior and gradient of the mixture are written once.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Bernoulli, constraints
from torch.distributions.utils import clamp_probs

from dvaepp.gradients import finite_exp
from dvaepp.numerics import quantile
from dvaepp.smoothings.base import ImplicitBernoulli, Smoothing


class Overlapping(Smoothing):
    """A pair of densities r(zeta | 0), r(zeta | 1) with the same support (Sec. 3).

    Only r(zeta | 0) need be given; r(zeta | 1) is its mirror image about zeta = 1/2 unless the methods ending in 1 are
    overridden too. All methods act elementwise on tensors.

    >>> from dvaepp import OverlappingExponential
    >>> r = OverlappingExponential(beta=8.0)  # any Overlapping
    >>> torch.equal(r.log_ratio(torch.tensor(0.25)), r.log_prob1(torch.tensor(0.25)) - r.log_prob0(torch.tensor(0.25)))
    True
    """

    @property
    @abstractmethod
    def support(self) -> constraints.Constraint:
        """Where both densities are positive."""

    @abstractmethod
    def log_prob0(self, zeta: Tensor) -> Tensor:
        """log r(zeta | z = 0), nats."""

    @abstractmethod
    def cdf0(self, zeta: Tensor) -> Tensor:
        """R(zeta | z = 0), the integral of the density up to zeta."""

    @abstractmethod
    def icdf0(self, rho: Tensor) -> Tensor:
        """The zeta at which cdf0 is rho."""

    @property
    @abstractmethod
    def mean0(self) -> float | Tensor:
        """E[zeta | z = 0]."""

    @property
    @abstractmethod
    def variance0(self) -> float | Tensor:
        """Var[zeta | z = 0]."""

    def icdf(self, logits: Tensor, rho: Tensor) -> Tensor:
        """The zeta at which the mixture's CDF is rho (its value; the gradient is SmoothedBernoulli's).

        It lies between the two components' quantiles; without a closed form it is found there by bisection.
        """
        rho = rho + torch.zeros_like(logits)
        q, p = torch.sigmoid(logits.double()), torch.sigmoid(-logits.double())
        ends = self.icdf0(rho), self.icdf1(rho)
        return quantile(lambda zeta: p * self.cdf0(zeta) + q * self.cdf1(zeta), rho, *ends)

    def draw0(self, rho: Tensor) -> Tensor:
        """A draw from r(zeta | 0) made of one uniform number; need not rise with it."""
        return self.icdf0(rho)

    def draw1(self, rho: Tensor) -> Tensor:
        """A draw from r(zeta | 1) made of one uniform number; need not rise with it."""
        return self.icdf1(rho)

    def log_prob1(self, zeta: Tensor) -> Tensor:
        """log r(zeta | z = 1), nats."""
        return self.log_prob0(1 - zeta)

    def cdf1(self, zeta: Tensor) -> Tensor:
        """R(zeta | z = 1)."""
        return 1 - self.cdf0(1 - zeta)

    def icdf1(self, rho: Tensor) -> Tensor:
        """The zeta at which cdf1 is rho."""
        return 1 - self.icdf0(1 - rho)

    @property
    def mean1(self) -> float | Tensor:
        """E[zeta | z = 1]."""
        return 1 - self.mean0

    @property
    def variance1(self) -> float | Tensor:
        """Var[zeta | z = 1]."""
        return self.variance0

    def log_ratio(self, zeta: Tensor) -> Tensor:
        """log r(zeta | 1) - log r(zeta | 0): what seeing zeta adds to the logit of z."""
        return self.log_prob1(zeta) - self.log_prob0(zeta)

    def cdf_gap(self, zeta: Tensor) -> Tensor:
        """R(zeta | 0) - R(zeta | 1): how the mixture's CDF falls as q rises."""
        return self.cdf0(zeta) - self.cdf1(zeta)

    def __call__(self, logits: Float[Tensor, "*shape"], validate_args: bool | None = None) -> SmoothedBernoulli:
        """q(zeta | x) = sum_z q(z | x) r(zeta | z) (Eq. 2)."""
        return SmoothedBernoulli(self, logits, validate_args)


class SmoothedBernoulli(ImplicitBernoulli):
    """q(zeta | x) = sum_z q(z | x) r(zeta | z), elementwise (Eq. 2).

    Draws are ancestral (z, then zeta given z) and carry the implicit gradient
    d zeta / d logit = q (1 - q) (R(zeta | 0) - R(zeta | 1)) / q(zeta | x),
    which is that of the inverse CDF of Eq. 3, and finite where its formula is not. No gradient flows to beta.
    """

    smoothing: Overlapping

    @property
    def mean(self) -> Tensor:
        """E[zeta] = q m_1 + (1 - q) m_0."""
        m0, m1 = self.smoothing.mean0, self.smoothing.mean1
        return m0 + self.probs * (m1 - m0)

    @property
    def variance(self) -> Tensor:
        """Var[zeta] = q v_1 + (1 - q) v_0 + q (1 - q) (m_1 - m_0)^2."""
        r, q, p = self.smoothing, self.probs, torch.sigmoid(-self.logits)
        return p * r.variance0 + q * r.variance1 + q * p * (r.mean1 - r.mean0) ** 2

    def _draw(self, uniform: Tensor) -> Tensor:
        """z of the first number, zeta given z of the second."""
        with torch.no_grad():
            z, rho = uniform[0] < self.probs, clamp_probs(uniform[1])
            zeta = torch.where(z, self.smoothing.draw1(rho), self.smoothing.draw0(rho))
        return self._reparameterise(zeta)

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(zeta | x), nats, elementwise."""
        if self._validate_args:
            self._validate_sample(value)
        return self._log_density(value)

    def cdf(self, value: Tensor) -> Tensor:
        """F(zeta) = (1 - q) R(zeta | 0) + q R(zeta | 1)."""
        return torch.sigmoid(-self.logits) * self.smoothing.cdf0(value) + self.probs * self.smoothing.cdf1(value)

    def posterior(self, zeta: Tensor) -> Bernoulli:
        """q(z | x, zeta): logit + log r(zeta | 1) - log r(zeta | 0) (Sec. 5, nu)."""
        return Bernoulli(logits=self.logits + self.smoothing.log_ratio(zeta))

    def _quantile(self, rho: Tensor) -> Tensor:
        return self.smoothing.icdf(self.logits, rho)

    def _slope(self, zeta: Tensor) -> Tensor:
        """(R(zeta | 0) - R(zeta | 1)) q (1 - q) / density, q (1 - q) / density = 1 / (r0 / q + r1 / (1 - q)).

        In logarithms: both underflow at large logits.
        """
        zero = self.smoothing.log_prob0(zeta) - F.logsigmoid(self.logits)
        one = self.smoothing.log_prob1(zeta) - F.logsigmoid(-self.logits)
        return self.smoothing.cdf_gap(zeta) * finite_exp(-torch.logaddexp(zero, one))

    def _slope_in_rho(self, zeta: Tensor) -> Tensor:
        return finite_exp(-self._log_density(zeta))

    def _log_density(self, zeta: Tensor) -> Tensor:
        zero = F.logsigmoid(-self.logits) + self.smoothing.log_prob0(zeta)
        one = F.logsigmoid(self.logits) + self.smoothing.log_prob1(zeta)
        return torch.logaddexp(zero, one)
