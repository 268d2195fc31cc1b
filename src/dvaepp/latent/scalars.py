"""Parameters of smoothings: Python numbers, or 0-d tensors that a schedule may change in place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dvaepp.errors import InputError


def check_above(name: str, value: float | Tensor, bound: float = 0.0) -> None:
    """InputError unless the value is a finite number above the bound, or a 0-d tensor of such a number."""
    if isinstance(value, Tensor) and (value.ndim or value.requires_grad):
        raise InputError(f"{name} must be a number or a 0-d tensor without gradient, not {value}")
    if isinstance(value, Tensor) and value.device.type != "cpu":
        return  # reading its value would wait for the device
    if not (isinstance(value, float | int | Tensor) and math.isfinite(value) and value > bound):
        raise InputError(f"{name} must be a finite number above {bound:g}, not {value!r}")


def exp(x: float | Tensor) -> float | Tensor:
    """e^x."""
    return torch.exp(x) if isinstance(x, Tensor) else math.exp(x)


def expm1(x: float | Tensor) -> float | Tensor:
    """e^x - 1, without cancellation."""
    return torch.expm1(x) if isinstance(x, Tensor) else math.expm1(x)


def log(x: float | Tensor) -> float | Tensor:
    """The natural logarithm."""
    return torch.log(x) if isinstance(x, Tensor) else math.log(x)
