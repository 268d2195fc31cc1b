"""The variational autoencoder of Fig. 2: hierarchical encoder, any prior, feed-forward decoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

from dvaepp.errors import InputError
from dvaepp.latent.normal import NormalPosterior, NormalPrior, normal
from dvaepp.latent.posterior import Posterior
from dvaepp.latent.priors import Prior
from dvaepp.latent.smoothing import BitDistribution, Smoothing
from dvaepp.models.likelihoods import bernoulli_likelihood
from dvaepp.models.trace import Model, Trace
from dvaepp.networks.precision import full


class HierarchicalEncoder(nn.Module):
    """q(z_k | x, zeta_<k): level k is a network from [x, zeta_1, ..., zeta_k-1], side by side, to logits (Fig. 2d)."""

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
    """q(z_k | x, z_<k) of normal variables: level k maps [x, z_1, ..., z_k-1] to means and log standard deviations."""

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


class FeedForwardVAE(Model):
    """p(x, z, zeta) = p(z) r(zeta | z) p(x | zeta) with q(z, zeta | x) from a hierarchical encoder (Fig. 2).

    `decoder` maps all groups' zeta, side by side, to the parameters that `likelihood` makes a distribution over x of.
    `smoothing` may be replaced at any time, to anneal beta. x: floats of shape (batch, pixels). While torch validates
    distribution arguments (its default), x outside the likelihood's support, or NaN, raises ValueError.
    """

    def __init__(
        self,
        encoder: HierarchicalEncoder | NormalEncoder,
        prior: Prior,
        decoder: nn.Module,
        smoothing: Smoothing,
        likelihood: Callable[[Tensor], Distribution] = bernoulli_likelihood,
    ) -> None:
        super().__init__()
        check_kinds(encoder, prior)
        self.encoder = encoder
        self.prior = prior
        self.decoder = decoder
        self.smoothing = smoothing
        self.likelihood = likelihood

    def forward(self, x: Float[Tensor, "batch pixels"], smoothing: Smoothing | None = None, draws: int = 1) -> Trace:
        """Encode x, draw zeta under `smoothing` (the model's own by default), decode it."""
        dtype = next(self.parameters()).dtype
        if x.ndim != 2 or not len(x) or x.dtype != dtype:
            raise InputError(f"x must be a {dtype} tensor (batch, pixels), not {x.dtype} of shape {tuple(x.shape)}")
        posterior = self.encoder(x.repeat_interleave(draws, 0), smoothing or self.smoothing)
        likelihood = self.decode(posterior.zeta)
        if likelihood.event_shape != x.shape[1:]:
            raise InputError(
                f"the decoder gives {tuple(likelihood.event_shape)} pixels, but x has {tuple(x.shape[1:])}"
            )
        return Trace(posterior, likelihood)

    def decode(self, zeta: Float[Tensor, "*batch bits"]) -> Distribution:
        """p(x | zeta); give it bits for the model's binary limit."""
        return self.likelihood(self.decoder(zeta))

    def code(self, x: Float[Tensor, "batch pixels"]) -> Float[Tensor, "batch bits"]:
        """Logits of every group given x and the likelier bits of the groups before it."""
        return self.encoder.code(x)
