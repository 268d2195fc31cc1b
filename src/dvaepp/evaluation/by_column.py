"""What a model knows of each value of x."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Independent

from dvaepp.errors import InputError
from dvaepp.likelihoods.base import Factorial
from dvaepp.models.base import Model, measuring
from dvaepp.randomness import stream_seed
from dvaepp.smoothings.binary import hard


def distortion_by_column(model: Model, x: Float[Tensor, "n pixels"], *, seed: int = 0) -> Float[Tensor, " pixels"]:
    """-E_q(z | x)[log p(x_c | z)] of each value x_c, nats, a mean over x by one draw of z for each.

    Their sum is the distortion of `score`. InputError where p(x | z) is no product over values.
    """
    with measuring(model, stream_seed("reconstructions", seed)):
        law = model(x, hard).likelihood
        if isinstance(law, Factorial):
            each = law.by_value(x)
        elif isinstance(law, Independent):
            each = law.base_dist.log_prob(x)
        else:
            raise InputError(f"p(x | z) is a {type(law).__name__}, in which values of x are not independent given z")
        return -each.mean(0)
