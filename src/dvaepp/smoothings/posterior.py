"""One pass through the hierarchical inference model q(z, zeta | x) (Fig. 2d)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.numerics import softplus
from dvaepp.smoothings.base import BitDistribution


def bernoulli_entropy(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """H = softplus(-|l|) + |l| sigmoid(-|l|), nats, elementwise, without cancellation."""
    distance = logits.abs()
    return softplus(-distance) + distance * torch.sigmoid(-distance)


def bernoulli_divergence(
    q_logits: Float[Tensor, "*shape"], p_logits: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """KL = softplus(b) - softplus(a) - sigmoid(a) (b - a), nats, elementwise, of bits with logits a in q and b in p.

    Both are mirrored so that a <= 0: then no term is much larger than KL but where d = b - a is small, and there it is
    log(1 + sigmoid(a) (exp(d) - 1)) - sigmoid(a) d. Rounding moves it by some eps (KL + sigmoid(-|a|) |d|), and by
    nothing where the logits are equal.
    """
    sign = torch.where(q_logits > 0, -1.0, 1.0)
    a, b = sign * q_logits, sign * p_logits
    q, d = torch.sigmoid(a), b - a
    near = torch.log1p(q * torch.expm1(d.clamp(-1, 1)))
    return torch.where(d.abs() < 1, near, softplus(b) - softplus(a)) - q * d


@dataclass(frozen=True)
class Posterior:
    """q(zeta_k | zeta_<k, x) for every group k, and the zeta drawn from it.

    The properties lay the groups side by side: their last axis runs over all bits.

    `groups` are the distributions q(zeta_k | zeta_<k, x), `zetas` the draws (Sec. 2, Fig. 2d).

    >>> from dvaepp import OverlappingExponential
    >>> q = OverlappingExponential(beta=8.0)(torch.zeros(10, 3))
    >>> posterior = Posterior((q,), (q.rsample(),))
    >>> posterior.nu.shape, posterior.entropy()[0]
    (torch.Size([10, 3]), tensor(2.0794))
    """

    groups: tuple[BitDistribution, ...]
    zetas: tuple[Float[Tensor, "*batch _"], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bits in each group."""
        return tuple(q.logits.shape[-1] for q in self.groups)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Where each group's bits lie."""
        ends = accumulate(self.sizes)
        return tuple(slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True))

    @property
    def reparameterised(self) -> bool:
        """Whether gradients flow from zeta to the encoder."""
        return all(q.has_rsample for q in self.groups)

    @cached_property
    def logits(self) -> Float[Tensor, "*batch bits"]:
        """log odds of z = 1 given x and the earlier groups' zeta."""
        return torch.cat([q.logits for q in self.groups], -1)

    @cached_property
    def zeta(self) -> Float[Tensor, "*batch bits"]:
        """The draw."""
        return torch.cat(self.zetas, -1)

    @cached_property
    def mu(self) -> Float[Tensor, "*batch bits"]:
        """mu_k = q(z_k = 1 | x, zeta_<k) (Sec. 5)."""
        return torch.sigmoid(self.logits)

    @cached_property
    def nu(self) -> Float[Tensor, "*batch bits"]:
        """nu_k = q(z_k = 1 | x, zeta_<=k) (Sec. 5)."""
        posteriors = (q.posterior(zeta) for q, zeta in zip(self.groups, self.zetas, strict=True))
        return torch.cat([p.probs for p in posteriors], -1)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """sum_k H(q(z_k | x, zeta_<k)), nats: a one-draw estimate of the entropy terms of Eq. 6."""
        return bernoulli_entropy(self.logits).sum(-1)

    def log_prob(self) -> Float[Tensor, "*batch"]:
        """log q(zeta | x) = sum_k log q(zeta_k | x, zeta_<k), nats."""
        return torch.stack([q.log_prob(zeta).sum(-1) for q, zeta in zip(self.groups, self.zetas, strict=True)]).sum(0)
