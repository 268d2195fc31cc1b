"""A value with another expression's gradient: the trick of the implicit reparameterisation and of log Z."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def replace_gradient(value: Float[Tensor, "*shape"], surrogate: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """value, with d(surrogate) as its gradient: value.detach() + surrogate - surrogate.detach().

    The value is that of `value` up to rounding; no gradient flows into `value`.
    """
    return value.detach() + (surrogate - surrogate.detach())


def finite_exp(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """exp(x), or the largest number of its precision where that overflows: slopes of inverse CDFs between two bits."""
    return torch.exp(x).clamp(max=torch.finfo(x.dtype).max)


def add_gradient(
    value: Float[Tensor, "*batch"], x: Float[Tensor, "*batch n"], gradient: Float[Tensor, "*batch n"]
) -> Float[Tensor, "*batch"]:
    """value, with `gradient` added to its gradient in x: value + gradient . (x - x.detach()); none in the gradient."""
    return value + (gradient.detach() * (x - x.detach())).sum(-1)
