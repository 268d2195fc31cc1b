"""The two things that Gibbs sampling spends its time on: products without gradient, and uniform random numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_LEAST_PRODUCTS = 2**21
_ONEDNN_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def linear(
    x: Float[Tensor, "rows inputs"], weight: Float[Tensor, "inputs outputs"], bias: Float[Tensor, " outputs"]
) -> Callable[[], Float[Tensor, "rows outputs"]]:
    """A function that gives x weight + bias for whatever x holds when it is called; for inference only.

    Large products on the CPU take oneDNN's kernel, which torch.compile uses too: twice as fast as the default one
    where MKL does not use AVX-512, as on AMD. The others write into one buffer, which the next call overwrites.
    """
    large = x.numel() * weight.shape[1] >= _LEAST_PRODUCTS
    if _ONEDNN_LINEAR is not None and large and x.device.type == "cpu" and x.dtype == torch.float32:
        kernel, transposed = _ONEDNN_LINEAR, weight.T.contiguous()
        return lambda: kernel(x, transposed, bias, "none", [], "")
    out = x.new_empty(len(x), weight.shape[1])
    return lambda: torch.addmm(bias, x, weight, out=out)


def uniform_filler(like: Tensor) -> Callable[[Tensor], object]:
    """A function that fills tensors on this one's device with uniform numbers in [0, 1).

    On the CPU they are u = (i + v) / 2^16: i of 16 random bits each, v in {0, 1/256, ..., 255/256} drawn once a call.
    So each number is uniform to 24 bits, as torch's are; two of a call share what lies below 2^-16, which changes the
    probability of any pair of outcomes by at most 2^-32. They take a fifth of the time. The bits come from numpy's
    SFC64 seeded by torch's generator, whose state therefore decides them all.
    """
    if like.device.type != "cpu" or torch.finfo(like.dtype).bits < 32:
        return lambda tensor: tensor.uniform_()
    bits = np.random.SFC64(int(torch.randint(2**63 - 1, ())))

    def fill(tensor: Tensor) -> None:
        count = tensor.numel()
        words = bits.random_raw(count // 4 + 1)
        high = torch.from_numpy(words[: -1 if count % 4 == 0 else None].view(np.int16)[:count]).view_as(tensor)
        low = int(words[-1] >> np.uint64(56)) / 256
        torch.add(high, 2**15 + low, out=tensor).mul_(2**-16)

    return fill
