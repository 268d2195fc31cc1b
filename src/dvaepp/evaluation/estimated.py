"""Squares of a mean, and variances, estimated without bias from independent draws of a vector, with their errors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Estimated(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float

    def over(self, other: float) -> Estimated:
        """Both divided by a number."""
        return Estimated(self.value / other, self.error / other)

    def __str__(self) -> str:
        """The error in two digits; what lies below 0 as ~0; what is exact alone."""
        if self.error == 0:
            return f"{self.value:.4g}"
        value = "~0" if self.value < 0 else f"{self.value:,.{decimals(self.error)}f}"
        return f"{value} ± {self.error:,.{decimals(self.error)}f}"


def decimals(error: float) -> int:
    """So many that an error shows two digits."""
    return max(0, 1 - _magnitude(error))


def _magnitude(error: float) -> int:
    return int(f"{error:e}".partition("e")[2]) if 0 < error < float("inf") else 0


def squared_mean(draws: Float[Tensor, "draws dimensions"]) -> Estimated:
    """|E d|^2 = |mean|^2 - tr S / n, unbiased, S being the covariance of a draw; below 0 by chance alone.

    Its variance is 4 m'S m / n + 2 tr S^2 / n^2, m = E d; with the mean for m the first part is too large by twice the
    second. tr S^2 = E (c_1'c_2)^2 for two independent draws less their mean, of which each draw and the next are a
    pair. Where m is 0 and a single direction has most of the variance the error is up to a third too large.
    """
    n, mean = len(draws), draws.mean(0)
    centred = draws - mean
    along = (centred @ mean).square().sum() / (n - 1)
    pairs = (centred * centred.roll(1, 0)).sum(1).square().mean()
    squared_error = torch.maximum(4 * along / n - 2 * pairs / n**2, 2 * pairs / n**2)
    value = mean.square().sum() - centred.square().sum() / (n * (n - 1))
    return Estimated(float(value), float(squared_error.sqrt()))


def total_variance(draws: Float[Tensor, "draws dimensions"]) -> Estimated:
    """tr S, the sum of the variances of a draw's numbers, unbiased."""
    n = len(draws)
    squares = (draws - draws.mean(0)).square().sum(1) * (n / (n - 1))
    return Estimated(float(squares.mean()), float(squares.std() / n**0.5))
