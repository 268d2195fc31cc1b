"""What one pass of a model leaves behind: everything that an objective composes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from dvaepp.latent.posterior import Posterior
from dvaepp.latent.priors import Prior
from dvaepp.latent.smoothing import Smoothing


@dataclass(frozen=True)
class Trace:
    """q(zeta | x) with a draw of zeta, and p(x | zeta) for that draw; `likelihood.log_prob(x)` has shape (batch,)."""

    posterior: Posterior
    likelihood: Distribution


class Model(nn.Module, ABC):
    """A variational autoencoder, as objectives, training and evaluation see it."""

    prior: Prior
    smoothing: Smoothing
    __call__: Callable[..., Trace]

    @abstractmethod
    def forward(self, x: Float[Tensor, "batch pixels"], smoothing: Smoothing | None = None) -> Trace:
        """One pass: draw zeta given x under the smoothing (the model's own by default), decode it."""

    @abstractmethod
    def decode(self, zeta: Float[Tensor, "*batch bits"]) -> Distribution:
        """p(x | zeta)."""
