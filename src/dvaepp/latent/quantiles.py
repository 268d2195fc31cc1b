"""Inverses of cumulative distribution functions that have no closed form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def quantile(cdf: Callable[[Tensor], Tensor], rho: Tensor, end: Tensor, other_end: Tensor) -> Tensor:
    """The smallest zeta between two ends with cdf(zeta) >= rho, elementwise, to the last bit.

    Bisection runs over the floating-point numbers themselves, not over their values: as many steps as they have bits
    reach every zeta, however close to 0 it lies. One of the ends if the CDF does not reach rho between them.
    """
    low, high = _rank(torch.minimum(end, other_end)), _rank(torch.maximum(end, other_end))
    for _ in range(8 * rho.element_size()):
        middle = (low & high) + ((low ^ high) >> 1)  # their mean, which cannot overflow
        below = cdf(_number(middle, rho.dtype)) < rho
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return _number(high, rho.dtype)


def _rank(zeta: Tensor) -> Tensor:
    """An integer that rises with the float: its bits, those of negative numbers other than the sign inverted."""
    return _flip(zeta.view(_INTEGERS[zeta.element_size()]))


def _number(rank: Tensor, dtype: torch.dtype) -> Tensor:
    return _flip(rank).view(dtype)


def _flip(bits: Tensor) -> Tensor:
    return torch.where(bits < 0, bits ^ torch.iinfo(bits.dtype).max, bits)
