"""Encoders: q(zeta_k | x, zeta_<k) group by group, of bits or of normal variables (Fig. 2d)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal

from dvaepp.errors import InputError
from dvaepp.networks.precision import full
from dvaepp.priors.base import Prior
from dvaepp.priors.normal import NormalPosterior, NormalPrior, normal
from dvaepp.smoothings.base import BitDistribution, Smoothing
from dvaepp.smoothings.posterior import Posterior


class HierarchicalEncoder(nn.Module):
    """q(z_k | x, zeta_<k): level k is a network from [x, zeta_1, ..., zeta_k-1], side by side, to logits (Fig. 2d).

    `levels` are the networks, one for each group.

    >>> from dvaepp import OverlappingExponential
    >>> encoder = HierarchicalEncoder(nn.Linear(12, 4), nn.Linear(12 + 4, 3))
    >>> encoder(torch.zeros(5, 12), OverlappingExponential(beta=8.0)).sizes
    (4, 3)
    """

    def __init__(self, *levels: nn.Module) -> None:
        super().__init__()
        if not levels:
            raise InputError(
                "HierarchicalEncoder needs at least one level, a network from x to the first group's logits"
            )
        self.levels = nn.ModuleList(levels)

    def forward(self, x: Float[Tensor, "*batch pixels"], smoothing: Smoothing) -> Posterior:
        """A draw of every group's zeta in turn, and the distributions that it came from."""
        groups: list[BitDistribution] = []
        zetas: list[Tensor] = []
        for level in self.levels:
            groups.append(smoothing(full(level(torch.cat([x, *zetas], -1) if zetas else x))))
            zetas.append(groups[-1].relaxed_sample())
        return Posterior(tuple(groups), tuple(zetas))

    def code(self, x: Float[Tensor, "*batch pixels"]) -> Float[Tensor, "*batch bits"]:
        """Logits of every group given x and the likelier bits of the groups before it: a code without chance."""
        groups: list[Tensor] = []
        for level in self.levels:
            groups.append(level(torch.cat([x, *((logits > 0).to(x.dtype) for logits in groups)], -1)))
        return torch.cat(groups, -1)

    def reparameterised(self, smoothing: Smoothing) -> bool:
        """Whether gradients flow from draws under this smoothing to the levels."""
        return smoothing.reparameterised


class NormalEncoder(nn.Module):
    """q(z_k | x, z_<k) of normal variables: level k maps [x, z_1, ..., z_k-1] to means and log standard deviations.

    `levels` are the networks, one for each group, with two outputs for each of its variables (Table 3, all continuous).

    >>> from dvaepp import hard
    >>> NormalEncoder(nn.Linear(12, 2 * 4))(torch.zeros(5, 12), hard).sizes
    (4,)
    """

    def __init__(self, *levels: nn.Module) -> None:
        super().__init__()
        if not levels:
            raise InputError("NormalEncoder needs at least one level, a network from x to the first group's parameters")
        self.levels = nn.ModuleList(levels)

    def forward(self, x: Float[Tensor, "*batch pixels"], smoothing: Smoothing) -> NormalPosterior:
        """A draw of every group in turn, and the distributions that it came from; the smoothing takes no part."""
        groups: list[Normal] = []
        zetas: list[Tensor] = []
        for level in self.levels:
            groups.append(normal(*full(level(torch.cat([x, *zetas], -1))).chunk(2, -1)))
            zetas.append(groups[-1].rsample())
        return NormalPosterior(tuple(groups), tuple(zetas))

    def code(self, x: Float[Tensor, "*batch pixels"]) -> Float[Tensor, "*batch variables"]:
        """Means of every group given x and the means of the groups before it."""
        means: list[Tensor] = []
        for level in self.levels:
            means.append(level(torch.cat([x, *means], -1)).chunk(2, -1)[0])
        return torch.cat(means, -1)

    def reparameterised(self, smoothing: Smoothing) -> bool:
        """Always."""
        return True


def check_kinds(encoder: HierarchicalEncoder | NormalEncoder, prior: Prior) -> None:
    """InputError unless encoder and prior are both of bits or both of normal variables."""
    if isinstance(encoder, NormalEncoder) != isinstance(prior, NormalPrior):
        raise InputError(
            f"a {type(encoder).__name__} and a {type(prior).__name__} are not of one kind: normal variables take "
            "NormalEncoder and NormalPrior, bits take neither"
        )
