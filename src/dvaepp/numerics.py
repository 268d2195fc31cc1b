"""Numbers: scalar parameters, functions that do not cancel, inverses of CDFs; what is refused of counts and dtypes."""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dvaepp.errors import InputError


def check_above(name: str, value: float | Tensor, bound: float = 0.0) -> None:
    """InputError unless the value is a finite number above the bound, or a 0-d tensor without gradient.

    What a tensor holds is not read: that would wait for a device, and cannot be where torch.func.vmap maps over it.
    """
    if isinstance(value, Tensor):
        if value.ndim or value.requires_grad:
            raise InputError(f"{name} must be a number or a 0-d tensor without gradient, not {value}")
        return
    if not (is_number(value) and math.isfinite(value) and value > bound):
        raise InputError(f"{name} must be a finite number above {bound:g}, not {reprlib.repr(value)}")


def is_number(value: object) -> bool:
    """Whether it is a number of Python's or numpy's, which True and False are not, nor what no float can hold."""
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return False
    return isinstance(value, float | int | np.floating | np.integer) and not isinstance(value, bool)


def is_count(value: object, least: int = 1) -> bool:
    """Whether it is a whole number of Python's or numpy's, the least or larger; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


def whole(name: str, value: int, least: int = 1) -> int:
    """The value as Python's int; InputError unless it is a whole number, the least or larger."""
    if not is_count(value, least):
        raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return int(value)


def check_counts(owner: str, least: int = 1, **counts: int) -> None:
    """InputError unless every setting of its owner is a whole number, the least or larger."""
    for name, count in counts.items():
        whole(f"{name} of {owner}", count, least)


def plain(value: Any) -> Any:
    """A number of numpy's as Python's, all else as it is: what is computed or kept is then one kind of number."""
    return value.item() if isinstance(value, np.generic) else value


def keep_plain(settings: Any) -> None:
    """Numbers of numpy's among a frozen dataclass's fields become Python's: call it in __post_init__."""
    for field in fields(settings):
        object.__setattr__(settings, field.name, plain(getattr(settings, field.name)))


def double(x: float | Tensor) -> float | Tensor:
    """x in float64."""
    return x.double() if isinstance(x, Tensor) else float(x)


def rounded(x: float | Tensor, like: float | Tensor) -> float | Tensor:
    """x in the floating-point precision of another scalar."""
    return x.to(torch.result_type(like, 1.0)) if isinstance(x, Tensor) and isinstance(like, Tensor) else x


def where(condition: bool | Tensor, yes: float | Tensor, no: float | Tensor) -> float | Tensor:
    """The first where the condition holds, else the second; a tensor's value is not read back."""
    if isinstance(condition, Tensor):
        return torch.where(condition, yes, no)
    return yes if condition else no


def exp(x: float | Tensor) -> float | Tensor:
    """e^x."""
    return torch.exp(x) if isinstance(x, Tensor) else math.exp(x)


def expm1(x: float | Tensor) -> float | Tensor:
    """e^x - 1, without cancellation."""
    return torch.expm1(x) if isinstance(x, Tensor) else math.expm1(x)


def log(x: float | Tensor) -> float | Tensor:
    """The natural logarithm."""
    return torch.log(x) if isinstance(x, Tensor) else math.log(x)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), to the last digits of float64 too: torch's own takes x for it from 20 on, 2e-9 too little."""
    return F.softplus(x, threshold=50.0)


def log_root(b: Tensor, log_t: Tensor) -> Tensor:
    """log of the root m > 0 of m^2 + 2 b m = t^2; where t^2 underflows minus infinity for b > 0, right for b <= 0."""
    t = torch.exp(log_t)
    larger = b.abs() + torch.hypot(b, t)
    return torch.where(b == 0, log_t, torch.log(torch.where(b > 0, t * t / larger, larger)))


_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def quantile(cdf: Callable[[Tensor], Tensor], rho: Tensor, end: Tensor, other_end: Tensor) -> Tensor:
    """The smallest zeta between two ends with cdf(zeta) >= rho, elementwise, to the last bit; cdf is given float64.

    Bisection runs over the floating-point numbers themselves, not over their values: as many steps as they have bits
    reach every zeta, however close to 0 it lies. One of the ends if the CDF does not reach rho between them.
    """
    low, high = _rank(torch.minimum(end, other_end)), _rank(torch.maximum(end, other_end))
    for _ in range(8 * rho.element_size()):
        middle = (low & high) + ((low ^ high) >> 1)  # their mean, which cannot overflow
        below = cdf(_number(middle, rho.dtype).double()) < rho
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return _number(high, rho.dtype)


def off_ends(rho: Tensor) -> Tensor:
    """rho at least tiny and at most 1 - eps / 2, the largest float below 1."""
    info = torch.finfo(rho.dtype)
    return rho.clamp(info.tiny, 1 - info.eps / 2)


def _rank(zeta: Tensor) -> Tensor:
    """An integer that rises with the float: its bits, those of negative numbers other than the sign inverted."""
    return _flip(zeta.view(_INTEGERS[zeta.element_size()]))


def _number(rank: Tensor, dtype: torch.dtype) -> Tensor:
    return _flip(rank).view(dtype)


def _flip(bits: Tensor) -> Tensor:
    return torch.where(bits < 0, bits ^ torch.iinfo(bits.dtype).max, bits)


def check_precision(name: str, x: Tensor) -> None:
    """InputError where x is in half precision, in which sums of log-probabilities are wrong by nats."""
    if x.is_floating_point() and torch.finfo(x.dtype).bits < 32:
        raise InputError(
            f"{name} must be float32 or float64, not {x.dtype}, in which sums of log-probabilities are wrong by nats"
        )


def check_noise(noise: object, shape: Sequence[int] | None = None, dtype: torch.dtype | None = None) -> None:
    """InputError unless the uniform numbers that draws are made of are a tensor of this shape and dtype (None: any).

    What it holds is not read back, which would wait for a device: numbers outside [0, 1) and NaN pass.
    """
    if not (isinstance(noise, Tensor) and noise.ndim):
        raise InputError(f"noise must be a tensor of uniform numbers, not {reprlib.repr(noise)}")
    if shape is not None and noise.shape != torch.Size(shape):
        raise InputError(f"noise must be uniform numbers of shape {tuple(shape)}, not {tuple(noise.shape)}")
    if dtype is not None and noise.dtype != dtype:
        raise InputError(f"noise must be uniform numbers in {dtype}, not {noise.dtype}")
