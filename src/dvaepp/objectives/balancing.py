"""KL balancing: local groups that say little pay less for it during warm-up (Appendix H)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from dvaepp import distributed
from dvaepp.models.base import Trace


def local_kl(trace: Trace, balanced: bool = False) -> Float[Tensor, " batch"]:
    """sum_j KL_j of the local groups, nats, or with `balanced` sum_j alpha_j KL_j: then it is no bound's."""
    terms = trace.local_kl_terms()
    return (balancing_weights(terms) * terms if balanced else terms).sum(-1)


def balancing_weights(kl_terms: Float[Tensor, "batch groups"]) -> Float[Tensor, " groups"]:
    """alpha_j = N a_j / sum_k a_k, a_j = mean over the whole batch of KL_j, + .1 nats; no gradient (Appendix H).

    A mean below 0, as estimates can have, counts as 0.

    Groups that say little pay less for it, and those that say much pay more, so that all of the N come to be used.
    """
    size = distributed.mean(kl_terms.detach().mean(0)).clamp(min=0) + 0.1
    return len(size) * size / size.sum()
