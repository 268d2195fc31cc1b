"""Ways from one code to another."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dvaepp.randomness import stream_seed


def straight(
    first: Float[Tensor, "n variables"], second: Float[Tensor, "n variables"], steps: int
) -> Float[Tensor, "{steps} n variables"]:
    """(1 - t) a + t b for t from 0 to 1, equally spaced."""
    return torch.lerp(first, second, torch.linspace(0, 1, steps)[:, None, None])


def by_flips(
    first: Float[Tensor, "n bits"], second: Float[Tensor, "n bits"], steps: int, seed: int = 0
) -> Float[Tensor, "{steps} n bits"]:
    """The bits in which two codes differ flipped one after the other in a random order, equally many at each step."""
    turns = _turns(first != second, seed)
    return torch.where(turns <= torch.linspace(0, 1, steps)[:, None, None], second, first)


def _turns(differ: Bool[Tensor, "n bits"], seed: int) -> Float[Tensor, "n bits"]:
    """When each of the bits that differ is flipped, in (0, 1], spaced evenly in a random order; 2 for the others."""
    generator = torch.Generator().manual_seed(stream_seed("interpolation", seed))
    order = torch.rand(differ.shape, generator=generator).masked_fill(~differ, 2.0).argsort(1).argsort(1)
    return torch.where(differ, (order + 1) / differ.sum(1, keepdim=True), 2.0)
