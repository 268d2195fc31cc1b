"""The variational autoencoder of Fig. 2: hierarchical encoder, any prior, feed-forward decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from dvaepp.errors import InputError
from dvaepp.likelihoods.standard import bernoulli_likelihood
from dvaepp.models.base import Model, Trace, check_input
from dvaepp.models.encoders import Encoder, check_kinds
from dvaepp.networks.dense import at_flips, by_rows
from dvaepp.networks.precision import full
from dvaepp.numerics import whole
from dvaepp.priors.base import Prior
from dvaepp.priors.normal import NormalPosterior
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.posterior import Posterior


class FeedForwardVAE(Model):
    """p(x, z, zeta) = p(z) r(zeta | z) p(x | zeta) with q(z, zeta | x) from a hierarchical encoder (Fig. 2).

    `decoder` maps all groups' zeta, side by side, to the parameters that `likelihood` makes a distribution over x of.
    `smoothing` may be replaced at any time, to anneal beta. x: floats of shape (batch, pixels). While torch validates
    distribution arguments (its default), x outside the likelihood's support, or NaN, raises ValueError.

    >>> import torch
    >>> import dvaepp
    >>> model = FeedForwardVAE(
    ...     encoder=dvaepp.HierarchicalEncoder(dvaepp.dense(12, 4), dvaepp.dense(12 + 4, 4)),
    ...     prior=dvaepp.BoltzmannPrior(dvaepp.BoltzmannMachine(4, 4)),
    ...     decoder=dvaepp.dense(8, 12),
    ...     smoothing=dvaepp.OverlappingExponential(beta=8.0),
    ... )
    >>> dvaepp.joint_elbo(model, torch.zeros(5, 12)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        encoder: Encoder,
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

    def forward(
        self,
        x: Float[Tensor, "batch pixels"],
        smoothing: Smoothing | None = None,
        draws: int = 1,
        noise: Float[Tensor, "2 rows bits"] | None = None,
    ) -> Trace:
        """Encode x, draw zeta under `smoothing` (the model's own by default), decode it."""
        check_input(self, "x", x)
        return self._decoded(x, self.encoder(x, smoothing or self.smoothing, whole("draws", draws), noise))

    def given(
        self,
        x: Float[Tensor, "batch pixels"],
        zeta: Float[Tensor, "rows bits"],
        smoothing: Smoothing | None = None,
        local: Sequence[Float[Tensor, "rows variables _ _"]] = (),
    ) -> Trace:
        """Encode x at this zeta, decode it."""
        check_input(self, "x", x)
        if local:
            raise InputError("a FeedForwardVAE has no local variables that could be given")
        return self._decoded(x, self.encoder.given(x, zeta, smoothing or self.smoothing))

    def _decoded(self, x: Tensor, posterior: Posterior | NormalPosterior) -> Trace:
        likelihood = self.decode(posterior.zeta)
        if likelihood.event_shape != x.shape[1:]:
            raise InputError(
                f"the decoder gives {tuple(likelihood.event_shape)} pixels, but x has {tuple(x.shape[1:])}"
            )
        return Trace(posterior, likelihood)

    def decode(self, zeta: Float[Tensor, "*batch bits"]) -> Distribution:
        """p(x | zeta); give it bits for the model's binary limit."""
        check_input(self, "zeta", zeta, single=True)
        return self.likelihood(full(by_rows(self.decoder, zeta)))

    def decode_flips(self, z: Float[Tensor, "batch bits"]) -> Distribution:
        """p(x | z) with each bit of z flipped in turn, of batch shape (bits, batch): one pass by `at_flips`."""
        check_input(self, "z", z)
        return self.likelihood(full(at_flips(self.decoder, z)))

    def code(self, x: Float[Tensor, "batch pixels"]) -> Float[Tensor, "batch bits"]:
        """Logits of every group given x and the likelier bits of the groups before it."""
        check_input(self, "x", x)
        return full(self.encoder.code(x))
