"""Normal latent variables: the global ones of Table 3's all-continuous row, on the interface of bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal

from dvaepp.boltzmann.log_partition import LogPartition
from dvaepp.errors import InputError
from dvaepp.numerics import check_precision, whole
from dvaepp.priors.base import NORMALISED, Prior, PriorDesign, check_bits
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.posterior import Posterior

MOST_LOG_SD = 5.0


def normal(mean: Float[Tensor, "*shape"], log_sd: Float[Tensor, "*shape"]) -> Normal:
    """N(mean, exp(5 tanh(log_sd / 5))^2): near exp(log_sd), and never beyond exp(5) or below exp(-5).

    Raises InputError for half precision.
    """
    check_precision("means of normal variables", mean)
    check_precision("log standard deviations of normal variables", log_sd)
    return Normal(mean, torch.exp(MOST_LOG_SD * torch.tanh(log_sd / MOST_LOG_SD)))


def normal_divergence(q: Normal, p: Normal) -> Tensor:
    """KL(N(a, s^2) || N(b, t^2)) = (v - 1 - log v + ((a - b) / t)^2) / 2, v = (s / t)^2, nats, elementwise.

    In this order of terms: what is small beside 1 is added to what is small.
    """
    ratio = (q.scale / p.scale).square()
    return 0.5 * (ratio - 1 - ratio.log() + ((q.loc - p.loc) / p.scale).square())


@dataclass(frozen=True)
class NormalPosterior:
    """q(z_k | z_<k, x) for every group k of normal variables, and the draw from it; zeta is z itself.

    The global variables of Table 3's all-continuous row; `groups` and `zetas` as in `Posterior`.

    >>> q = normal(torch.zeros(10, 3), torch.zeros(10, 3))
    >>> NormalPosterior((q,), (q.rsample(),)).log_prob().shape
    torch.Size([10])
    """

    groups: tuple[Normal, ...]
    zetas: tuple[Float[Tensor, "*batch _"], ...]
    reparameterised = True

    @property
    def sizes(self) -> tuple[int, ...]:
        """Variables in each group."""
        return tuple(q.mean.shape[-1] for q in self.groups)

    @cached_property
    def zeta(self) -> Float[Tensor, "*batch variables"]:
        """The draw."""
        return torch.cat(self.zetas, -1)

    @cached_property
    def mu(self) -> Float[Tensor, "*batch variables"]:
        """E[z_k | x, z_<k]."""
        return torch.cat([q.mean for q in self.groups], -1)

    def log_prob(self) -> Float[Tensor, "*batch"]:
        """log q(z | x) = sum_k log q(z_k | x, z_<k), nats."""
        each: list[Tensor] = [q.log_prob(z).sum(-1) for q, z in zip(self.groups, self.zetas, strict=True)]  # type: ignore[no-untyped-call]
        return torch.stack(each).sum(0)


class NormalPrior(Prior):
    """p(z) = prod_i N(z_i; 0, 1).

    `variables` is how many. The prior of Table 3's all-continuous row.

    >>> NormalPrior(3).sample(2).shape
    torch.Size([2, 3])
    """

    log_partition: LogPartition | None = NORMALISED

    def __init__(self, variables: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(whole("variables of a NormalPrior", variables)))

    def kl_terms(self, q: NormalPosterior | Posterior) -> Float[Tensor, "*batch groups"]:
        """KL(q(z_k | x, z_<k) || N(0, 1)) for every group k, nats, in closed form given the draw of earlier groups."""
        if not isinstance(q, NormalPosterior):
            raise InputError(f"a NormalPrior needs an encoder of normal variables, not a {type(q).__name__}")
        check_bits("this NormalPrior", self.mean.numel(), q.zeta)
        standard = Normal(torch.zeros_like(self.mean[0]), torch.ones_like(self.mean[0]))
        return torch.stack([normal_divergence(group, standard).sum(-1) for group in q.groups], -1)

    def log_prob(
        self, zeta: Float[Tensor, "*batch variables"], smoothing: Smoothing, *, unnormalised: bool = False
    ) -> Float[Tensor, "*batch"]:
        """sum_i log N(z_i; 0, 1), nats, whatever the smoothing."""
        check_bits("this NormalPrior", self.mean.numel(), zeta)
        check_precision("normal variables", zeta)
        return -0.5 * (zeta.square() + math.log(2 * math.pi)).sum(-1)

    @torch.no_grad()
    def sample(self, num_samples: int) -> Float[Tensor, "samples variables"]:
        """Standard normal numbers."""
        check_precision("parameters of a prior", self.mean)
        return torch.randn_like(self.mean.expand(whole("num_samples", num_samples, least=0), -1))


@dataclass(frozen=True)
class NormalDesign(PriorDesign):
    """p(z) = prod_i N(z_i; 0, 1): normal variables in place of bits."""

    name: ClassVar[str] = "normal"
    normal: ClassVar[bool] = True
    feed_forward: ClassVar[bool] = False

    def __call__(self, groups: tuple[int, ...], network: Callable[[int, int], nn.Module]) -> NormalPrior:
        """A NormalPrior over all the variables."""
        return NormalPrior(sum(groups))
