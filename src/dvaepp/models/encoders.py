"""Encoders: q(zeta_k | x, zeta_<k) group by group, of bits or of normal variables (Fig. 2d)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal
from torch.distributions.utils import clamp_probs

from dvaepp.errors import InputError
from dvaepp.networks.dense import at_draws
from dvaepp.networks.precision import full
from dvaepp.numerics import check_noise
from dvaepp.priors.base import Prior
from dvaepp.priors.normal import NormalPosterior, NormalPrior, normal
from dvaepp.smoothings.base import BitDistribution, Smoothing
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.posterior import Posterior


class Encoder(nn.Module, ABC):
    """q(zeta_k | x, zeta_<k): level k is a network from [x, zeta_1, ..., zeta_k-1], side by side, to parameters.

    `HierarchicalEncoder` for bits, `NormalEncoder` for normal variables; `levels` are the networks, one for each group.
    With several draws for each x the rows of zeta are draws times as many, x by x, and what x alone decides is computed
    once (`at_draws`).
    """

    posterior: Callable[[tuple[Any, ...], tuple[Tensor, ...]], Any]
    """What a pass leaves behind, of each group's distribution and draw."""

    def __init__(self, *levels: nn.Module) -> None:
        super().__init__()
        if not levels:
            raise InputError(
                f"{type(self).__name__} needs at least one level, a network from x to the first group's parameters"
            )
        self.levels = nn.ModuleList(levels)

    @abstractmethod
    def distribution(self, parameters: Float[Tensor, "*rows outputs"], smoothing: Smoothing) -> Any:
        """q(zeta_k | x, zeta_<k) of a level's outputs."""

    @abstractmethod
    def draw(self, q: Any, noise: Float[Tensor, "2 *rows _"] | None) -> Float[Tensor, "*rows _"]:
        """zeta_k from it, reparameterised where that can be, made of uniform numbers where they are given."""

    @abstractmethod
    def likeliest(self, parameters: Float[Tensor, "*rows outputs"]) -> tuple[Tensor, Tensor]:
        """What a code without chance keeps of a level's outputs, and what it shows to the levels after it."""

    @abstractmethod
    def reparameterised(self, smoothing: Smoothing) -> bool:
        """Whether gradients flow from draws under this smoothing to the levels."""

    def forward(
        self,
        x: Float[Tensor, "*batch pixels"],
        smoothing: Smoothing,
        draws: int = 1,
        noise: Float[Tensor, "2 *rows bits"] | None = None,
    ) -> Any:
        """A draw of every group's zeta in turn, and the distributions that it came from.

        `noise`: the uniform numbers that zeta is made of; InputError unless it has a pair for each.
        """
        if noise is not None:
            check_noise(noise)
        posterior = self._pass(
            x, smoothing, draws, lambda q, group: self.draw(q, None if noise is None else noise[..., group])
        )
        if noise is not None:
            check_noise(noise, (2, *posterior.zeta.shape), posterior.zeta.dtype)
        return posterior

    def given(self, x: Float[Tensor, "*batch pixels"], zeta: Float[Tensor, "*rows bits"], smoothing: Smoothing) -> Any:
        """The distributions of every group at a zeta that the caller chooses, in place of a draw.

        zeta: as many rows as x has, or several for each x, x by x. Raises InputError where it does not fit.
        """
        posterior = self._pass(x, smoothing, draws_for_each(x, zeta), lambda _, group: _of_group(zeta, group))
        if sum(posterior.sizes) != zeta.shape[-1]:
            raise _misfit(zeta)
        return posterior

    def code(self, x: Float[Tensor, "*batch pixels"]) -> Float[Tensor, "*batch bits"]:
        """Logits of every group given x and the likelier bits of the groups before it; of normals the means."""
        kept: list[Tensor] = []
        shown: list[Tensor] = []
        for level in self.levels:
            code, seen = self.likeliest(level(torch.cat([x, *shown], -1)))
            kept.append(code)
            shown.append(seen)
        return torch.cat(kept, -1)

    def _pass(self, x: Tensor, smoothing: Smoothing, draws: int, zeta_of: Callable[[Any, slice], Tensor]) -> Any:
        groups: list[Any] = []
        zetas: list[Tensor] = []
        start = 0
        for level in self.levels:
            q = self.distribution(full(at_draws(level, x, zetas, draws)), smoothing)
            stop = start + q.batch_shape[-1]
            groups.append(q)
            zetas.append(zeta_of(q, slice(start, stop)))
            start = stop
        return self.posterior(tuple(groups), tuple(zetas))


class HierarchicalEncoder(Encoder):
    """q(z_k | x, zeta_<k) of bits: level k is a network from [x, zeta_1, ..., zeta_k-1] to logits (Fig. 2d).

    `levels` are the networks, one for each group.

    >>> from dvaepp import OverlappingExponential
    >>> encoder = HierarchicalEncoder(nn.Linear(12, 4), nn.Linear(12 + 4, 3))
    >>> encoder(torch.zeros(5, 12), OverlappingExponential(beta=8.0)).sizes
    (4, 3)
    >>> encoder.logits(torch.zeros(5, 12), torch.ones(5, 7)).shape
    torch.Size([5, 7])
    """

    posterior = Posterior

    def distribution(self, parameters: Float[Tensor, "*rows bits"], smoothing: Smoothing) -> BitDistribution:
        """The smoothing's, with the outputs as logits."""
        return smoothing(parameters)

    def draw(self, q: BitDistribution, noise: Float[Tensor, "2 *rows bits"] | None) -> Float[Tensor, "*rows bits"]:
        """One relaxed sample."""
        return q.relaxed_sample(noise)

    def likeliest(self, parameters: Float[Tensor, "*rows bits"]) -> tuple[Tensor, Tensor]:
        """The logits, and the likelier bits."""
        return parameters, (parameters > 0).to(parameters.dtype)

    def reparameterised(self, smoothing: Smoothing) -> bool:
        """As the smoothing's draws are."""
        return smoothing.reparameterised

    def logits(
        self, x: Float[Tensor, "*batch pixels"], zeta: Float[Tensor, "*rows bits"]
    ) -> Float[Tensor, "*rows bits"]:
        """log odds of z = 1 given x and the earlier groups' zeta, chosen as in `given`."""
        logits: Tensor = self.given(x, zeta, hard).logits
        return logits


class NormalEncoder(Encoder):
    """q(z_k | x, z_<k) of normal variables: level k maps [x, z_1, ..., z_k-1] to means and log standard deviations.

    `levels` are the networks, one for each group, with two outputs for each of its variables (Table 3, all continuous).

    >>> from dvaepp import hard
    >>> NormalEncoder(nn.Linear(12, 2 * 4))(torch.zeros(5, 12), hard).sizes
    (4,)
    """

    posterior = NormalPosterior

    def distribution(self, parameters: Float[Tensor, "*rows outputs"], smoothing: Smoothing) -> Normal:
        """`normal` of the two halves; the smoothing takes no part."""
        return normal(*parameters.chunk(2, -1))

    def draw(self, q: Normal, noise: Float[Tensor, "2 *rows _"] | None) -> Float[Tensor, "*rows _"]:
        """mean + sd Phi^-1(u), u the first uniform number."""
        if noise is None:
            drawn: Tensor = q.rsample()
            return drawn
        check_noise(noise, (2, *q.batch_shape), q.loc.dtype)
        standard: Tensor = torch.special.ndtri(clamp_probs(noise[0]))
        return q.loc + q.scale * standard

    def likeliest(self, parameters: Float[Tensor, "*rows outputs"]) -> tuple[Tensor, Tensor]:
        """The means, for both."""
        mean = parameters.chunk(2, -1)[0]
        return mean, mean

    def reparameterised(self, smoothing: Smoothing) -> bool:
        """Always."""
        return True


def draws_for_each(x: Float[Tensor, "*batch pixels"], zeta: Float[Tensor, "*rows bits"]) -> int:
    """How many rows of zeta there are for each row of x; InputError where they are not equally many of its dtype."""
    if zeta.dtype != x.dtype:
        raise InputError(f"zeta must have x's dtype, {x.dtype}, not {zeta.dtype}")
    if zeta.shape[:-1] == x.shape[:-1]:
        return 1
    if x.ndim != 2 or zeta.ndim != 2 or not len(zeta) or len(zeta) % len(x):
        raise InputError(
            f"zeta must have a row for each row of x, or equally many, not the shape {tuple(zeta.shape)} beside "
            f"{tuple(x.shape)}"
        )
    return len(zeta) // len(x)


def _of_group(zeta: Float[Tensor, "*rows bits"], group: slice) -> Float[Tensor, "*rows _"]:
    """zeta_k; InputError where zeta ends before it does."""
    if group.stop > zeta.shape[-1]:
        raise _misfit(zeta)
    return zeta[..., group]


def _misfit(zeta: Float[Tensor, "*rows bits"]) -> InputError:
    return InputError(f"zeta must have as many variables as the levels give, not {zeta.shape[-1]}")


def check_kinds(encoder: Encoder, prior: Prior) -> None:
    """InputError unless encoder and prior are both of bits or both of normal variables."""
    if isinstance(encoder, NormalEncoder) != isinstance(prior, NormalPrior):
        raise InputError(
            f"a {type(encoder).__name__} and a {type(prior).__name__} are not of one kind: normal variables take "
            "NormalEncoder and NormalPrior, bits take neither"
        )
