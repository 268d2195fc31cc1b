"""The baseline C(context) of Mnih & Gregor (2014): what f is expected to be, before the bits are drawn."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.networks.dense import centring, dense
from dvaepp.numerics import whole


class Baseline(nn.Module):
    """C(context), one hidden tanh layer on context - mean; without a context size 0, whatever the context.

    >>> import torch
    >>> Baseline(12)(torch.zeros(5, 12), torch.zeros(5, 3)).shape
    torch.Size([5])
    """

    def __init__(self, context_size: int | None, mean: Float[Tensor, " features"] | None = None, hidden: int = 100):
        super().__init__()
        self.context_size = None if context_size is None else whole("context_size", context_size)
        if mean is not None and (mean.ndim != 1 or len(mean) != context_size):
            raise InputError(f"mean must have context_size={context_size} entries, not the shape {tuple(mean.shape)}")
        self.network: nn.Module | None = None
        self.centre: nn.Module = nn.Identity() if mean is None else centring(mean, 0)
        if self.context_size is not None:
            self.network = dense(self.context_size, 1, (whole("hidden", hidden),))

    def forward(
        self, context: Float[Tensor, "batch features"] | None, logits: Float[Tensor, "batch bits"]
    ) -> Float[Tensor, " batch"]:
        """C for each row of the logits; InputError where the context is missing or of another shape."""
        if self.network is None:
            return logits.new_zeros(len(logits))
        value: Tensor = self.network(self.centred(context, logits))
        return value[:, 0]

    def centred(
        self, context: Float[Tensor, "batch features"] | None, logits: Float[Tensor, "batch bits"]
    ) -> Float[Tensor, "batch features"]:
        """context - mean, without gradient; InputError where it does not fit."""
        expected, like = (len(logits), self.context_size), next(self.parameters())
        if context is None or context.shape != expected or context.dtype != like.dtype:
            given = "missing" if context is None else f"{context.dtype} of shape {tuple(context.shape)}"
            raise InputError(f"context must be {like.dtype} of shape {expected} here, and is {given}")
        centred: Tensor = self.centre(context.detach())
        return centred
