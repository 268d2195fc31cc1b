"""KL balancing: local groups that say little pay less for it during warm-up (Appendix H)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def balancing_weights(mean_kl: Float[Tensor, " groups"]) -> Float[Tensor, " groups"]:
    """alpha_j = N a_j / sum_k a_k, a_j = KL_j, its mean over the whole batch, + .1 nats; no gradient (Appendix H).

    A mean below 0, as estimates can have, counts as 0.

    Groups that say little pay less for it, and those that say much pay more, so that all of the N come to be used.
    A group counts by its nats, however many variables it has.
    """
    size = mean_kl.detach().clamp(min=0) + 0.1
    return len(size) * size / size.sum()
