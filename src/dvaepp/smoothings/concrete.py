"""The binary Concrete relaxation (Maddison et al. 2016): a baseline of Table 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Bernoulli, constraints
from torch.distributions.utils import clamp_probs

from dvaepp.numerics import check_above, keep_plain, log, off_ends, plain
from dvaepp.smoothings.base import BitDistribution, Smoothing


@dataclass(frozen=True)
class Concrete(Smoothing):
    """zeta = sigmoid((l + logit(u)) / T), u uniform; z = 1[zeta > 1/2] = 1[l + logit(u) > 0], which has exactly q.

    q(zeta | x) is no mixture of two fixed densities: r(zeta | z) depends on the logits, so it differs between q and p,
    and zeta tells z for certain. `temperature` T > 0, a number or a 0-d tensor; 2/3 is typical (Maddison et al. 2016;
    Appendix C compares).

    >>> q = Concrete(temperature=2 / 3)(torch.tensor([2.0, -1.0]))
    >>> q.rsample().shape
    torch.Size([2])
    """

    name: ClassVar[str] = "concrete"
    temperature: float | Tensor = 0.1
    shared_conditional: ClassVar[bool] = False

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("temperature", self.temperature)

    def __call__(self, logits: Float[Tensor, "*shape"], validate_args: bool | None = None) -> ConcreteBernoulli:
        """q(zeta | x) with these logits."""
        return ConcreteBernoulli(self.temperature, logits, validate_args)

    @property
    def sharpness(self) -> float | Tensor:
        """1 / temperature."""
        return 1 / self.temperature

    def with_beta(self, beta: float | Tensor) -> Concrete:
        """Temperature 1 / beta."""
        check_above("beta", beta)
        return Concrete(1 / plain(beta))


class ConcreteBernoulli(BitDistribution):
    """q(zeta | x) = T s (1 - s) / (zeta (1 - zeta)), s = sigmoid(T logit(zeta) - l), which is uniform.

    zeta is kept between sqrt(tiny) and 1 - eps / 2 of its dtype, in draws and in log_prob, so that the density and its
    slopes are finite. In float32 logit(zeta) thus ends at -44 and 17: a draw beyond counts as one at the end.
    """

    has_rsample = True
    uniforms = 1
    support = constraints.unit_interval

    def __init__(
        self, temperature: float | Tensor, logits: Float[Tensor, "*shape"], validate_args: bool | None = None
    ) -> None:
        self.temperature = temperature
        super().__init__(logits, validate_args)

    @property
    def mean(self) -> Tensor:
        """E[zeta], by quadrature; differentiable in the logits."""
        s, weight, _ = self._quadrature(self.logits)
        return (weight * s).sum(-1).to(self.logits.dtype)

    @property
    def variance(self) -> Tensor:
        """Var[s] + (1 - a) E[s (1 - s)], s and a as in the quadrature.

        E[zeta] (1 - E[zeta]) - E[zeta (1 - zeta)], with E[zeta (1 - zeta)] = T d E[zeta] / d l, which cancels.
        """
        s, weight, slope = self._quadrature(-self.logits.abs())  # symmetric in l; 1 - s does not cancel here
        mean = (weight * s).sum(-1, keepdim=True)
        return (weight * ((s - mean) ** 2 + (1 - slope) * s * (1 - s))).sum(-1).to(self.logits.dtype)

    def expand(self, batch_shape: Any, _instance: Any = None) -> ConcreteBernoulli:
        """The same distribution with a larger batch shape."""
        return ConcreteBernoulli(self.temperature, self.logits.expand(torch.Size(batch_shape)), self._validate_args)

    def _draw(self, uniform: Tensor) -> Tensor:
        """sigmoid((l + logit(u)) / T); d zeta / d l = zeta (1 - zeta) / T."""
        return self._relax(torch.logit(clamp_probs(uniform[0])))

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(zeta | x), nats, elementwise."""
        if self._validate_args:
            self._validate_sample(value)
        zeta = _inside(value)
        noise = self.temperature * torch.logit(zeta) - self.logits
        log_noise = F.logsigmoid(noise) + F.logsigmoid(-noise)
        return log(self.temperature) + log_noise - torch.log(zeta) - torch.log1p(-zeta)

    def cdf(self, value: Tensor) -> Tensor:
        """sigmoid(T logit(zeta) - l); 0 up to 0 and 1 from 1 on."""
        inside = torch.sigmoid(self.temperature * torch.logit(_inside(value)) - self.logits)
        return torch.where(value <= 0, 0.0, torch.where(value >= 1, 1.0, inside))

    def icdf(self, value: Tensor) -> Tensor:
        """sigmoid((l + logit(rho)) / T), differentiable in the logits and in rho."""
        self._validate_probability(value)
        return self._relax(torch.logit(off_ends(value)))

    def posterior(self, zeta: Tensor) -> Bernoulli:
        """q(z | x, zeta) = 1[z = 1[zeta > 1/2]]; no gradient."""
        return Bernoulli(probs=(zeta > 0.5).to(zeta.dtype))

    def _relax(self, noise: Tensor) -> Tensor:
        return _inside(torch.sigmoid((self.logits + noise) / self.temperature))

    def _quadrature(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """s = sigmoid((l - a x) / m) on a new last axis, weights, a; E[zeta] = E[s], a = min(T, 1), m = max(T, 1).

        In float64. E[zeta] = P(T x + y < l) for two logistic numbers x and y; the one that stays sharp is integrated
        over. The trapezoidal rule of step 3/8 is exact to 1e-16, as the integrand is analytic to pi off the real line.
        """
        x = torch.arange(-294, 295, dtype=torch.float64, device=logits.device) * 0.375
        weight = 0.375 * torch.sigmoid(x) * torch.sigmoid(-x)
        temperature = torch.as_tensor(self.temperature, dtype=torch.float64, device=logits.device)
        slope, width = temperature.clamp(max=1), temperature.clamp(min=1)
        return torch.sigmoid((logits.double()[..., None] - slope * x) / width), weight, slope


def _inside(zeta: Tensor) -> Tensor:
    """zeta at least sqrt(tiny) from 0, so that 1 / zeta is finite with room to spare, and not rounded to 1."""
    info = torch.finfo(zeta.dtype)
    return zeta.clamp(info.tiny**0.5, 1 - info.eps / 2)
