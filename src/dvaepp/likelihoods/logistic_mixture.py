"""Mixtures of discretized logistic distributions over the 256 levels of a pixel (Salimans et al. 2017, PixelCNN++)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dvaepp.components.registry import OF_DATA
from dvaepp.errors import InputError
from dvaepp.likelihoods.base import DataSpec, Likelihood, refuse_unless
from dvaepp.numerics import check_counts, keep_plain, softplus

_TOP = 255
_HALF = _TOP / 2
"""Levels to a unit: means and log scales are in the units in which levels 0..255 are -1..1."""


def log_mass(
    x: Float[Tensor, "*#shape"], mean: Float[Tensor, "*#shape"], log_scale: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """log(F(x + 1/2) - F(x - 1/2)), F the logistic distribution; level 0 has all below, level 255 all above; nats.

    With a = (x + 1/2 - mean) / s and b = (x - 1/2 - mean) / s it is sigmoid(a) sigmoid(-b) (1 - exp(-1/s)), which is a
    difference of distribution functions without a difference. x and mean are in levels, so that the a of one level is
    the b of the next to the last bit and the masses sum to one; log_scale is log s, s in levels.
    """
    inverse = torch.exp(-log_scale)
    above = F.logsigmoid((x + 0.5 - mean) * inverse)
    below = F.logsigmoid((mean - (x - 0.5)) * inverse)
    width = torch.log(-torch.expm1(-inverse))
    zero = torch.zeros_like(above)
    inner = torch.where((x > 0) & (x < _TOP), width, zero)
    return torch.where(x < _TOP, above, zero) + torch.where(x > 0, below, zero) + inner


@dataclass(frozen=True)
class DiscretizedLogisticMixture(Likelihood):
    """p(x) = sum_k w_k prod_c P(x_c; m_kc, s_kc), x in 0..255: P is a logistic's mass within half a level of x_c.

    Levels 0 and 255 take the tails. The channels of a colour pixel (values = 3) are coupled linearly, as in PixelCNN++:
    m_k1 gains a_k x_0 and m_k2 gains b_k x_0 + c_k x_1, with coefficients in (-1, 1). Grey is values = 1.
    Parameters of a site, `components` of each: logits of w; means, channel by channel; log scales, likewise; tanh^-1 of
    a, b, c. Means, scales and the x that couple are in units in which levels 0..255 are -1..1. Log scales are kept
    in -7..7, beyond which they have no gradient.

    The likelihood of CIFAR-10 in Table 3 (Salimans et al. 2017).

    >>> likelihood = DiscretizedLogisticMixture(values=3)
    >>> likelihood(torch.zeros(5, 4 * likelihood.width)).sample().shape  # 4 pixels in colour
    torch.Size([5, 12])
    """

    name: ClassVar[str] = "logistic-mixture"
    data_kind: ClassVar[str] = "levels"
    image_scale: ClassVar[float] = 2 / _TOP
    white: ClassVar[float] = float(_TOP)
    components: int = 10
    values: int = field(default=3, metadata=OF_DATA)

    def __post_init__(self) -> None:
        keep_plain(self)
        check_counts(type(self).__name__, components=self.components)
        if self.values not in (1, 3):
            raise InputError(f"values is {self.values}, expected 1 (grey) or 3 (colour)")

    def for_data(self, spec: DataSpec) -> DiscretizedLogisticMixture:
        """With the values of a pixel that the data have."""
        return replace(self, values=spec.shape[2] if len(spec.shape) == 3 else 1)

    @property
    def start(self) -> Float[Tensor, " width"]:
        """Means apart, or all components would have one gradient for ever; scales that let them overlap."""
        k = self.components
        means = (torch.arange(k) + 0.5) * (2 / k) - 1
        log_scales = torch.full((self.values * k,), math.log(1 / k))
        coefficients = torch.zeros(self.width - (1 + 2 * self.values) * k)
        return torch.cat([torch.zeros(k), means.repeat(self.values), log_scales, coefficients])

    @property
    def width(self) -> int:
        """100 for ten components in colour."""
        return self.components * (10 if self.values == 3 else 3)

    def log_prob(
        self, parameters: Float[Tensor, "*batch sites width"], x: Float[Tensor, "*batch sites values"]
    ) -> Float[Tensor, "*batch sites"]:
        """logsumexp_k(log w_k + sum_c log P(x_c; m_kc, s_kc)), nats a pixel."""
        logits, means, log_scales, coefficients = self._split(parameters)
        known = x.unsqueeze(-1)
        total = logits.log_softmax(-1)
        for channel in range(self.values):
            mean = _coupled(means, coefficients, known[..., :channel, :])
            total = total + log_mass(known[..., channel, :], mean, log_scales[..., channel, :])
        return total.logsumexp(-1)

    @torch.no_grad()
    def sample(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """Levels: a component, then each channel given the levels of those before it."""
        logits, *rest = self._split(parameters)
        component = logits.softmax(-1).reshape(-1, self.components).multinomial(1).reshape(*logits.shape[:-1], 1, 1)
        means, log_scales, coefficients = (part.gather(-1, component.expand(*part.shape[:-1], 1)) for part in rest)
        known = means[..., :0, :]
        for channel in range(self.values):
            noise = torch.logit(torch.rand_like(means[..., channel, :]), eps=torch.finfo(means.dtype).tiny)
            level = _coupled(means, coefficients, known) + noise * log_scales[..., channel, :].exp()
            known = torch.cat([known, level.round().clamp(0, _TOP).unsqueeze(-2)], -2)
        return known.squeeze(-1)

    def mean(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """E[x_c] in 0..255, grey and the first channel to half a level: mixed means of logistics cut off at 0 and 255.

        Within a component later channels couple to the means of earlier ones, as if nothing were cut off.
        """
        logits, means, log_scales, coefficients = self._split(parameters)
        known = means[..., :0, :]
        for channel in range(self.values):
            scale = log_scales[..., channel, :].exp()
            location = _coupled(means, coefficients, known)
            gap = softplus((_TOP - location) / scale) - softplus(-location / scale)
            known = torch.cat([known, (_TOP - scale * gap).clamp(0, _TOP).unsqueeze(-2)], -2)
        return (known * logits.softmax(-1).unsqueeze(-2)).sum(-1)

    def variance(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """Var[x_c], exact for grey and the first channel: E[Var[x_c given k]] + Var[E[x_c given k]] over components.

        Within a component the channels after it add what they couple to: a^2 Var[x_0] to Var[x_1], and
        (b + a c)^2 Var[x_0] + c^2 Var[x_1 given x_0] to Var[x_2], as if that moved nothing beyond 0 or 255.
        """
        logits, means, log_scales, coefficients = self._split(parameters)
        weights = logits.softmax(-1)
        known, own = means[..., :0, :], means[..., :0, :]
        for channel in range(self.values):
            moments = _level_moments(_coupled(means, coefficients, known), log_scales[..., channel, :])
            known, own = (
                torch.cat([old, new[..., None, :]], -2) for old, new in zip((known, own), moments, strict=True)
            )
        within = own + _coupled_variance(own, coefficients)
        centred = known - (known * weights[..., None, :]).sum(-1, keepdim=True)
        return ((within + centred.square()) * weights[..., None, :]).sum(-1)

    def check(self, x: Tensor) -> None:
        """InputError unless x holds levels."""
        refuse_unless((x >= 0) & (x <= _TOP) & (x == x.floor()), x, "whole numbers in 0..255")

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (.., k), then means and log scales in levels (.., values, k), coefficients (.., 0 or 3, k)."""
        parts = parameters.reshape(*parameters.shape[:-1], -1, self.components)
        logits, means = parts[..., 0, :], parts[..., 1 : 1 + self.values, :]
        log_scales = parts[..., 1 + self.values : 1 + 2 * self.values, :].clamp(-7, 7) + math.log(_HALF)
        return logits, (means + 1) * _HALF, log_scales, parts[..., 1 + 2 * self.values :, :].tanh()


def _coupled(means: Tensor, coefficients: Tensor, known: Tensor) -> Tensor:
    """The means of the next channel given the levels (.., channels, k or 1) of those before it."""
    channel = known.shape[-2]
    # The coefficients of channels 1 and 2 are numbers 0, and 1 and 2.
    first = (0, 0, 1)[channel]
    shift = coefficients[..., first : first + channel, :] * (known - _HALF)
    return means[..., channel, :] + shift.sum(-2)


def _level_moments(mean: Float[Tensor, "*shape"], log_scale: Float[Tensor, "*shape"]) -> tuple[Tensor, Tensor]:
    """E[x] and Var[x] of a level, by sums of P(x > j) over levels j from a level e near the mean on, P(x <= j) below.

    E[x - e] adds and subtracts these, E[(x - e)^2] adds up each |2 (j - e) + 1| times: nothing large cancels.
    """
    inverse, centre = torch.exp(-log_scale), mean.detach().round().clamp(0, _TOP)
    first, second = torch.zeros_like(mean), torch.zeros_like(mean)
    for level in range(_TOP):
        side = torch.where(level >= centre, 1.0, -1.0).to(mean)
        tail = torch.sigmoid(side * (mean - level - 0.5) * inverse)
        first = first + side * tail
        second = second + (2 * (level - centre) + 1).abs() * tail
    return centre + first, second - first.square()


def _coupled_variance(own: Tensor, coefficients: Tensor) -> Tensor:
    """What the channels add to each other's variances (.., channels, k), given each one's own."""
    if own.shape[-2] == 1:
        return torch.zeros_like(own)
    first, second, _ = own.unbind(-2)
    a, b, c = coefficients.unbind(-2)
    added = (torch.zeros_like(first), a.square() * first, (b + a * c).square() * first + c.square() * second)
    return torch.stack(added, -2)
