"""The laws of smoothings in as many digits as mpmath is set to: twins where float64 is none.

They are definitions: a density, its integral from each end, a mixture of two. Each knows r(zeta | 0) alone; r(zeta | 1)
is its mirror image.
"""

from __future__ import annotations

import math
from typing import ClassVar

import mpmath
from mpmath import mpf


class Law:
    """A mirrored pair of densities, given by that for z = 0 and both lower tails; `low` is where the support begins."""

    low: ClassVar[float] = 0.0

    def __init__(self, beta: float) -> None:
        self.beta = mpf(beta)
        self.log_beta = mpmath.log(beta)

    def log_pdf(self, z: int, zeta: mpf) -> mpf:
        """log r(zeta | z)."""
        return self.log_pdf0(1 - zeta if z else zeta)

    def cdf(self, z: int, zeta: mpf) -> mpf:
        """The integral of r(zeta | z) up to zeta."""
        zeta = min(max(zeta, mpf(self.low)), 1 - mpf(self.low))
        return self.cdf1(zeta) if z else self.cdf0(zeta)

    def sf(self, z: int, zeta: mpf) -> mpf:
        """The integral of r(zeta | z) from zeta on."""
        return self.cdf(1 - z, 1 - zeta)

    def gap(self, zeta: mpf) -> mpf:
        """R(zeta | 0) - R(zeta | 1)."""
        return self.cdf(0, zeta) - self.cdf(1, zeta)

    def log_pdf0(self, zeta: mpf) -> mpf:
        raise NotImplementedError

    def cdf0(self, zeta: mpf) -> mpf:
        raise NotImplementedError

    def cdf1(self, zeta: mpf) -> mpf:
        raise NotImplementedError


class ExponentialLaw(Law):
    def __init__(self, beta: float) -> None:
        super().__init__(beta)
        self.mass = -mpmath.expm1(-self.beta)
        self.log_top = self.log_beta - mpmath.log(self.mass)

    def log_pdf0(self, zeta: mpf) -> mpf:
        return self.log_top - self.beta * zeta

    def cdf0(self, zeta: mpf) -> mpf:
        return -mpmath.expm1(-self.beta * zeta) / self.mass

    def cdf1(self, zeta: mpf) -> mpf:
        return mpmath.exp(self.beta * (zeta - 1)) * -mpmath.expm1(-self.beta * zeta) / self.mass


class FlooredLaw(ExponentialLaw):
    floor = mpf(0.05)

    def log_pdf0(self, zeta: mpf) -> mpf:
        return mpmath.log((1 - self.floor) * mpmath.exp(super().log_pdf0(zeta)) + self.floor)

    def cdf0(self, zeta: mpf) -> mpf:
        return (1 - self.floor) * super().cdf0(zeta) + self.floor * zeta

    def cdf1(self, zeta: mpf) -> mpf:
        return (1 - self.floor) * super().cdf1(zeta) + self.floor * zeta


class PowerLaw(Law):
    def log_pdf0(self, zeta: mpf) -> mpf:
        return (1 / self.beta - 1) * mpmath.log(zeta) - self.log_beta

    def cdf0(self, zeta: mpf) -> mpf:
        return zeta ** (1 / self.beta)

    def cdf1(self, zeta: mpf) -> mpf:
        return -mpmath.expm1(mpmath.log1p(-zeta) / self.beta) if zeta < 1 else mpf(1)


class LogisticLaw(Law):
    low = -math.inf

    def log_pdf0(self, zeta: mpf) -> mpf:
        return self.log_beta - self.beta * zeta - 2 * mpmath.log1p(mpmath.exp(-self.beta * zeta))

    def cdf0(self, zeta: mpf) -> mpf:
        return 1 / (1 + mpmath.exp(-self.beta * zeta))

    def cdf1(self, zeta: mpf) -> mpf:
        return self.cdf0(zeta - 1)


class NormalLaw(LogisticLaw):
    def log_pdf0(self, zeta: mpf) -> mpf:
        return self.log_beta - mpmath.log(2 * mpmath.pi) / 2 - (self.beta * zeta) ** 2 / 2

    def cdf0(self, zeta: mpf) -> mpf:
        return mpmath.erfc(-self.beta * zeta / mpmath.sqrt(2)) / 2


class Mixture:
    """sum_z q(z) r(zeta | z); at logits of plus or minus infinity one of the two alone."""

    def __init__(self, law: Law, logit: float) -> None:
        self.law, self.logit = law, logit
        self.q = [1 / (1 + mpmath.exp(mpf(sign * logit))) for sign in (1, -1)]

    def cdf(self, zeta: mpf) -> mpf:
        return sum(q * self.law.cdf(z, zeta) for z, q in enumerate(self.q))

    def sf(self, zeta: mpf) -> mpf:
        return sum(q * self.law.sf(z, zeta) for z, q in enumerate(self.q))

    def log_pdf(self, zeta: mpf) -> mpf:
        return mpmath.log(sum(q * mpmath.exp(self.law.log_pdf(z, zeta)) for z, q in enumerate(self.q)))

    def by_logit(self, zeta: mpf) -> mpf:
        """d zeta / d logit at fixed rho, -(dF / d logit) / f."""
        return self.q[0] * self.q[1] * self.law.gap(zeta) * self.by_rho(zeta)

    def by_rho(self, zeta: mpf) -> mpf:
        """d zeta / d rho, 1 / f."""
        return mpmath.exp(-self.log_pdf(zeta))


class Spiked(Mixture):
    """(1 - q) delta(zeta) + q r(zeta | 1)."""

    def cdf(self, zeta: mpf) -> mpf:
        return self.q[0] * (zeta >= 0) + self.q[1] * self.law.cdf(1, zeta)

    def sf(self, zeta: mpf) -> mpf:
        return self.q[0] * (zeta < 0) + self.q[1] * self.law.sf(1, zeta)

    def log_pdf(self, zeta: mpf) -> mpf:
        return mpmath.log(self.q[1]) + self.law.log_pdf(1, zeta) if zeta else mpmath.log(self.q[0])

    def by_logit(self, zeta: mpf) -> mpf:
        gap = self.law.sf(1, zeta) if zeta > 0 else -self.law.cdf(1, zeta)
        return self.q[0] * gap * mpmath.exp(-self.law.log_pdf(1, zeta)) if zeta else mpf(0)

    def by_rho(self, zeta: mpf) -> mpf:
        """0 at the atom."""
        return super().by_rho(zeta) if zeta else mpf(0)


class ConcreteLaw:
    """zeta = sigmoid((logit + logistic noise) / temperature)."""

    def __init__(self, temperature: float, logit: float) -> None:
        self.temperature, self.logit = mpf(temperature), mpf(logit)

    def cdf(self, zeta: mpf) -> mpf:
        if not 0 < zeta < 1:
            return mpf(zeta >= 1)
        return 1 / (1 + mpmath.exp(self.logit) * ((1 - zeta) / zeta) ** self.temperature)

    def sf(self, zeta: mpf) -> mpf:
        return 1 / (1 + mpmath.exp(-self.logit) * (zeta / (1 - zeta)) ** self.temperature) if zeta < 1 else mpf(0)

    def log_pdf(self, zeta: mpf) -> mpf:
        return mpmath.log(self.temperature * self.cdf(zeta) * self.sf(zeta) / (zeta * (1 - zeta)))
