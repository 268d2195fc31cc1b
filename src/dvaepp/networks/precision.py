"""Networks in half precision, distributions in full: where one ends and the other begins."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def reduced(precision: torch.dtype | None, x: Tensor) -> torch.autocast:
    """A context in which matrix products and convolutions compute in `precision`, on x's device; None changes none."""
    return torch.autocast(x.device.type, precision, enabled=precision is not None)


def full(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """x in float32 where it has fewer bits, else x itself."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
