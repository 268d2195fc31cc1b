"""What one pass of a model leaves behind: everything that an objective composes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from dvaepp.latent.posterior import Posterior
from dvaepp.latent.priors import Prior
from dvaepp.latent.smoothing import Smoothing


@dataclass(frozen=True)
class Trace:
    """q(zeta | x) with a draw of zeta, and p(x | zeta) for that draw; `likelihood.log_prob(x)` has shape (batch,)."""

    posterior: Posterior
    likelihood: Distribution


@runtime_checkable
class Model(Protocol):
    """What objectives and evaluation ask of a variational autoencoder."""

    prior: Prior
    smoothing: Smoothing

    def __call__(self, x: Float[Tensor, "batch pixels"], smoothing: Smoothing | None = None) -> Trace:
        """One pass: draw zeta given x under the smoothing (the model's own by default), decode it."""
        ...

    def decode(self, zeta: Float[Tensor, "*batch bits"]) -> Distribution:
        """p(x | zeta)."""
        ...
