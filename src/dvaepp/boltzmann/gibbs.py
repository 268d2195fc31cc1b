"""Block Gibbs sampling: what one block's redraw is made of, in place, or of uniform numbers that are given.

In place it spends its time on two things: products without gradient, and uniform random numbers.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.numerics import check_noise, is_number, whole

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
    probability of any pair of outcomes by at most 2^-32. They take about a quarter of the time. The bits come from
    numpy's SFC64 seeded by torch's generator, whose state therefore decides them all.
    """
    if like.device.type != "cpu" or torch.finfo(like.dtype).bits < 32:
        return lambda tensor: tensor.uniform_()
    return partial(_fill, np.random.SFC64(int(torch.randint(2**63 - 1, ()))))


def _fill(bits: Any, tensor: Tensor) -> None:
    """Fill a tensor with the next numbers of numpy's generator, as `uniform_filler` says."""
    count = tensor.numel()
    words = bits.random_raw(count // 4 + 1)
    high = torch.from_numpy(words[: -1 if count % 4 == 0 else None].view(np.int16)[:count]).view_as(tensor)
    low = int(words[-1] >> np.uint64(56)) / 256
    torch.add(high, 2**15 + low, out=tensor).mul_(2**-16)


def redrawing(
    states: Float[Tensor, "chains bits"],
    block: slice,
    weights: tuple[Float[Tensor, "before size"], Float[Tensor, "after size"]],
    bias: Float[Tensor, " size"],
    inverse_temperature: float | Tensor,
    held: Bool[Tensor, "chains bits"] | None,
    fill_uniform: Callable[[Tensor], object],
) -> Callable[[], None]:
    """A function that redraws a block of the states in place: z_i = 1[u_i < sigmoid(beta field_i)], given the others.

    `weights` are the block's couplings to the bits before it and after it. Bits that are `held` keep what they are.
    Whatever does not change from sweep to sweep is made here, once: scaled weights, views of the states, buffers.
    """
    # A temperature that all chains share goes into the weights; one for each chain has to wait for the field.
    rows = inverse_temperature.reshape(-1, 1) if isinstance(inverse_temperature, Tensor) else None
    scale = inverse_temperature if rows is None else 1.0
    before, after = (scale * weight for weight in weights)
    earlier, later = states[:, : block.start], states[:, block.stop :]
    if not block.start:  # so that the product that brings the bias along is never the empty one
        earlier, before, later, after = later, after, earlier, before
    field_given = linear(earlier, before, scale * bias)
    bits = states[:, block]
    kept = None if held is None else (held[:, block], bits.clone())
    uniform = torch.empty_like(bits, memory_format=torch.contiguous_format)

    def redraw() -> None:
        field = field_given()
        if later.shape[1]:
            field.addmm_(later, after)
        if rows is not None:
            field.mul_(rows)
        fill_uniform(uniform)
        torch.lt(uniform, field.sigmoid_(), out=bits)
        if kept is not None:
            bits.copy_(torch.where(*kept, bits))

    return redraw


def redrawn(
    states: Float[Tensor, "*batch bits"],
    block: slice,
    weights: tuple[Float[Tensor, "before size"], Float[Tensor, "after size"]],
    bias: Float[Tensor, " size"],
    inverse_temperature: float | Tensor,
    held: Bool[Tensor, "*#batch bits"] | None,
    uniform: Float[Tensor, "*batch bits"],
) -> Float[Tensor, "*batch bits"]:
    """What `redrawing` does to the states, as a function of them and of uniform numbers that torch.func.vmap maps."""
    earlier, later = states[..., : block.start], states[..., block.stop :]
    field = bias
    for others, weight in ((earlier, weights[0]), (later, weights[1])):
        field = field + others @ weight if others.shape[-1] else field
    beta = inverse_temperature
    probability = torch.sigmoid((beta[..., None] if isinstance(beta, Tensor) else beta) * field)
    bits = (uniform[..., block] < probability).to(states.dtype)
    if held is not None:
        bits = torch.where(held[..., block], states[..., block], bits)
    return torch.cat([earlier, bits, later], -1)


def check_sweeps(
    z: Float[Tensor, "*batch bits"],
    sweeps: int,
    inverse_temperature: float | Tensor,
    clamped: Tensor | None,
    noise: Tensor | None = None,
) -> None:
    """InputError unless states can be swept so; what a tensor of noise or temperatures holds is not read back."""
    sweeps = whole("sweeps", sweeps, least=0)
    if noise is not None:
        check_noise(noise, (sweeps, *z.shape), z.dtype)
    if isinstance(inverse_temperature, Tensor):
        if inverse_temperature.numel() != 1 and inverse_temperature.shape != z.shape[:-1]:
            raise InputError(
                f"inverse_temperature must be a number or one for each state, {tuple(z.shape[:-1])}, not "
                f"{tuple(inverse_temperature.shape)}"
            )
    elif not is_number(inverse_temperature) or not math.isfinite(inverse_temperature):
        raise InputError(f"inverse_temperature must be a finite number, not {reprlib.repr(inverse_temperature)}")
    if clamped is not None:
        fits = isinstance(clamped, Tensor) and clamped.dtype == torch.bool and clamped.shape[-1:] == z.shape[-1:]
        if not fits or not _broadcasts(clamped.shape, z.shape):
            raise InputError(
                f"clamped must be boolean, of shape {tuple(z.shape[-1:])} or {tuple(z.shape)}, not {clamped!r}"
            )


def _broadcasts(shape: torch.Size, target: torch.Size) -> bool:
    """Whether a tensor of this shape expands to the target's."""
    return len(shape) <= len(target) and all(
        a in (1, b) for a, b in zip(reversed(shape), reversed(target), strict=False)
    )
