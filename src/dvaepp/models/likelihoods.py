"""p(x | zeta): what the decoder's output means."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent


def bernoulli_likelihood(logits: Float[Tensor, "*batch pixels"]) -> Distribution:
    """p(x | zeta) = prod_i Bernoulli(x_i; sigmoid(logit_i)): log_prob sums over pixels, nats."""
    return Independent(Bernoulli(logits=logits), 1)
