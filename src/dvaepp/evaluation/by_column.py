"""What a model knows of each value of x."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Independent

from dvaepp.errors import InputError
from dvaepp.likelihoods.base import Factorial
from dvaepp.models.base import Model, measuring
from dvaepp.randomness import stream_seed
from dvaepp.smoothings.binary import hard

_PIECE = 1000


def distortion_by_column(model: Model, x: Float[Tensor, "n pixels"], *, seed: int = 0) -> Float[Tensor, " pixels"]:
    """-E_q(z | x)[log p(x_c | z)] of each value x_c, nats, a mean over x by one draw of z for each.

    Their sum is an estimate of the distortion that `score` gives. InputError where p(x | z) is no product over values.
    """
    with measuring(model, stream_seed("reconstructions", seed)):
        total = torch.zeros_like(x[0])
        for piece in torch.split(x, _PIECE):
            law = model(piece, hard).likelihood
            if isinstance(law, Factorial):
                total -= law.by_value(piece).sum(0)
            elif isinstance(law, Independent):
                total -= law.base_dist.log_prob(piece).sum(0)
            else:
                raise InputError(f"p(x | z) is a {type(law).__name__}, whose values depend on each other given z")
        return total / len(x)
