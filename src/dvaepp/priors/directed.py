"""Priors that are normalised by construction: independent bits, and directed groups (Sec. 4, Fig. 2c)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.networks.dense import by_rows
from dvaepp.numerics import check_precision, whole
from dvaepp.priors.base import NORMALISED, Prior, PriorDesign, check_bits
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.posterior import Posterior, bernoulli_divergence


class _DirectedByLogits(Prior, ABC):
    """A prior that is normalised by construction, given by the logits of every bit given the zeta of earlier groups."""

    log_partition = NORMALISED

    @abstractmethod
    def logits(self, zeta: Float[Tensor, "*batch bits"]) -> Float[Tensor, "*batch bits"]:
        """log odds of p(z_k = 1 | zeta_<k), for all groups side by side."""

    def kl_terms(self, q: Posterior) -> Float[Tensor, "*batch groups"]:
        """KL(q(z_k | x, zeta_<k) || p(z_k | zeta_<k)) for every group k of q (Eq. 4)."""
        groups = torch.split(bernoulli_divergence(q.logits, self.logits(q.zeta)), list(q.sizes), -1)
        return torch.stack([kl.sum(-1) for kl in groups], -1)

    def log_prob_bits(
        self, z: Float[Tensor, "*batch bits"], zeta: Float[Tensor, "*batch bits"], *, unnormalised: bool = False
    ) -> Float[Tensor, "*batch"]:
        """sum_k log p(z_k | zeta_<k)."""
        return hard(self.logits(zeta)).log_prob(z).sum(-1)

    def log_prob(
        self, zeta: Float[Tensor, "*batch bits"], smoothing: Smoothing, *, unnormalised: bool = False
    ) -> Float[Tensor, "*batch"]:
        """sum_k log p(zeta_k | zeta_<k), p(zeta | ...) = sum_z r(zeta | z) p(z | ...) (Eq. 5)."""
        return smoothing(self.logits(zeta)).log_prob(zeta).sum(-1)


class BernoulliPrior(_DirectedByLogits):
    """p(z) = prod_i Bernoulli(z_i), with learned logits that start at 0.

    `bits` is how many. The prior of Table 1, and of Table 3's row without an RBM.

    >>> BernoulliPrior(3).sample(2).shape
    torch.Size([2, 3])
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(whole("bits of a BernoulliPrior", bits)))

    def logits(self, zeta: Float[Tensor, "*batch bits"]) -> Float[Tensor, "*batch bits"]:
        """The learned logits, whatever zeta is."""
        check_bits("a BernoulliPrior", self.bias.numel(), zeta)
        check_precision("parameters of a prior", self.bias)
        return self.bias.expand_as(zeta)

    @torch.no_grad()
    def sample(self, num_samples: int) -> Float[Tensor, "samples bits"]:
        """Independent bits."""
        check_precision("parameters of a prior", self.bias)
        num_samples = whole("num_samples", num_samples, least=0)
        return torch.bernoulli(torch.sigmoid(self.bias).expand(num_samples, -1))


class DirectedPrior(_DirectedByLogits):
    """p(z_1) prod_k p(z_k | zeta_<k) (Fig. 2c).

    `bits` learned logits for z_1; then, for each further group, a network from zeta_<k, side by side, to its logits,
    which are taken in the precision of the first.

    >>> DirectedPrior(3, nn.Linear(3, 2)).sample(2).shape
    torch.Size([2, 5])
    """

    def __init__(self, bits: int, *networks: nn.Module) -> None:
        super().__init__()
        self.first = BernoulliPrior(bits)
        self.networks = nn.ModuleList(networks)

    def logits(self, zeta: Float[Tensor, "*batch bits"]) -> Float[Tensor, "*batch bits"]:
        """Learned logits of the first group, then each network's of what comes before its group."""
        if not zeta.ndim:
            raise InputError("this DirectedPrior takes tensors (..., bits), but was given a single number")
        logits = self.first.logits(zeta[..., : self.first.bias.numel()])
        for network in self.networks:
            logits = torch.cat([logits, by_rows(network, zeta[..., : logits.shape[-1]]).to(logits)], -1)
        check_bits("this DirectedPrior", logits.shape[-1], zeta)
        return logits

    @torch.no_grad()
    def sample(self, num_samples: int) -> Float[Tensor, "samples bits"]:
        """Ancestral, in the binary limit zeta = z."""
        z = self.first.sample(num_samples)
        for network in self.networks:
            z = torch.cat([z, torch.bernoulli(torch.sigmoid(network(z).to(z)))], -1)
        return z


@dataclass(frozen=True)
class BernoulliDesign(PriorDesign):
    """p(z) = prod_i Bernoulli(z_i): independent bits."""

    name: ClassVar[str] = "bernoulli"

    def __call__(self, groups: tuple[int, ...], network: Callable[[int, int], nn.Module]) -> BernoulliPrior:
        """A BernoulliPrior over all the bits."""
        return BernoulliPrior(sum(groups))


@dataclass(frozen=True)
class DirectedDesign(PriorDesign):
    """p(z_1) prod_k p(z_k | zeta_<k): each group given the earlier ones (Fig. 2c)."""

    name: ClassVar[str] = "directed"
    convolutional: ClassVar[bool] = False

    def __call__(self, groups: tuple[int, ...], network: Callable[[int, int], nn.Module]) -> DirectedPrior:
        """A DirectedPrior with a network for each group but the first."""
        following = zip(accumulate(groups), groups[1:], strict=False)
        return DirectedPrior(groups[0], *(network(before, size) for before, size in following))
