"""A pair of densities that a user writes down, normalised and inverted numerically."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from dvaepp.errors import InputError
from dvaepp.numerics import is_number, keep_plain
from dvaepp.smoothings.overlapping import Overlapping

CELLS = 1024
_NODES, _WEIGHTS = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(8))
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2  # of the interval [0, 1]


class _Table(NamedTuple):
    """What is known of one normalised density: the masses before and behind each edge of the cells, float64."""

    log_mass: float
    before: Tensor
    behind: Tensor
    mean: float
    variance: float


@dataclass(frozen=True)
class DensityPair(Overlapping):
    """r(zeta | z) = exp(log_density_z(zeta)) / mass_z on [low, high]: any two densities, mirrored or not.

    Each is a function of a tensor that returns the logarithm elementwise, up to a constant, finite between low and high
    and smooth on the scale of (high - low) / 1024. Masses, CDFs, quantiles and moments are quadrature in float64; no
    gradient flows to parameters of the functions. A draw costs a few hundred evaluations of them.

    >>> beta_law = DensityPair(lambda t: 4 * torch.log1p(-t), lambda t: t.log() * 3 + torch.log1p(-t) / 2)
    >>> beta_law(torch.tensor([2.0, -1.0])).rsample().shape
    torch.Size([2])
    """

    log_density0: Callable[[Tensor], Tensor]
    log_density1: Callable[[Tensor], Tensor]
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        keep_plain(self)
        if not (is_number(self.low) and is_number(self.high) and -math.inf < self.low < self.high < math.inf):
            raise InputError(f"low must be a finite number below high, not {self.low!r} and {self.high!r}")
        _ = self._tables  # refuses bad densities now rather than at the first draw

    @property
    def support(self) -> constraints.Constraint:
        """[low, high]."""
        return constraints.interval(self.low, self.high)  # type: ignore[no-untyped-call]

    def log_prob0(self, zeta: Tensor) -> Tensor:
        """log_density0(zeta) - log mass_0."""
        return self.log_density0(zeta) - self._tables[0].log_mass

    def log_prob1(self, zeta: Tensor) -> Tensor:
        """log_density1(zeta) - log mass_1."""
        return self.log_density1(zeta) - self._tables[1].log_mass

    def cdf0(self, zeta: Tensor) -> Tensor:
        """The mass of r(zeta | 0) up to zeta; constant outside [low, high]."""
        return self._mass_before(0, zeta.double()).to(zeta.dtype)

    def cdf1(self, zeta: Tensor) -> Tensor:
        """The mass of r(zeta | 1) up to zeta; constant outside [low, high]."""
        return self._mass_before(1, zeta.double()).to(zeta.dtype)

    def cdf_gap(self, zeta: Tensor) -> Tensor:
        """R(zeta | 0) - R(zeta | 1), from the masses before zeta or from those behind it, whichever are smaller."""
        at = zeta.double()
        before0, before1 = self._mass_before(0, at), self._mass_before(1, at)
        gap_behind = self._mass_behind(1, at) - self._mass_behind(0, at)
        return torch.where(before0 + before1 < 1, before0 - before1, gap_behind).to(zeta.dtype)

    def icdf0(self, rho: Tensor) -> Tensor:
        """The zeta at which cdf0 is rho: the table's cell, then Newton's method inside it."""
        return self._inside(self._quantile(0, rho.double()).to(rho.dtype))

    def icdf1(self, rho: Tensor) -> Tensor:
        """The zeta at which cdf1 is rho."""
        return self._inside(self._quantile(1, rho.double()).to(rho.dtype))

    @property
    def mean0(self) -> float:
        """The integral of zeta r(zeta | 0)."""
        return self._tables[0].mean

    @property
    def mean1(self) -> float:
        """The integral of zeta r(zeta | 1)."""
        return self._tables[1].mean

    @property
    def variance0(self) -> float:
        """The integral of (zeta - m_0)^2 r(zeta | 0)."""
        return self._tables[0].variance

    @property
    def variance1(self) -> float:
        """The integral of (zeta - m_1)^2 r(zeta | 1)."""
        return self._tables[1].variance

    @property
    def _width(self) -> float:
        return (self.high - self.low) / CELLS

    @cached_property
    def _tables(self) -> tuple[_Table, _Table]:
        return self._table("log_density0", self.log_density0), self._table("log_density1", self.log_density1)

    @torch.no_grad()
    def _table(self, name: str, log_density: Callable[[Tensor], Tensor]) -> _Table:
        cells = torch.arange(CELLS, dtype=torch.float64)[:, None]
        zeta = self.low + self._width * (cells + _NODES)
        log_r = _evaluate(name, log_density, zeta)
        top = log_r.max()
        r = torch.exp(log_r - top) * _WEIGHTS * self._width
        mass = r.sum()
        _check_resolved(name, log_density, self.low, self.high, float(mass), float(top))
        r = r / mass
        masses, zero = r.sum(1), torch.zeros(1, dtype=torch.float64)
        before = torch.cat([zero, masses.cumsum(0)])
        behind = torch.cat([masses.flip(0).cumsum(0).flip(0), zero])
        mean = (r * zeta).sum()
        variance = (r * (zeta - mean) ** 2).sum()
        return _Table(float(top + mass.log()), before, behind, float(mean), float(variance))

    def _density(self, z: int, zeta: Tensor) -> Tensor:
        return torch.exp(self.log_prob1(zeta) if z else self.log_prob0(zeta))

    def _cell(self, zeta: Tensor) -> Tensor:
        return ((zeta.detach() - self.low) / self._width).long().clamp(0, CELLS - 1)

    def _edge(self, cell: Tensor) -> Tensor:
        return self.low + self._width * cell.double()

    def _between(self, z: int, start: Tensor, end: Tensor) -> Tensor:
        """The mass between two points of one cell, by Gauss-Legendre quadrature."""
        zeta = start[..., None] + (end - start)[..., None] * _NODES.to(start)
        return (end - start) * (self._density(z, zeta) * _WEIGHTS.to(start)).sum(-1)

    def _mass_before(self, z: int, zeta: Tensor) -> Tensor:
        zeta = zeta.clamp(self.low, self.high)
        cell = self._cell(zeta)
        return self._tables[z].before.to(zeta.device)[cell] + self._between(z, self._edge(cell), zeta)

    def _mass_behind(self, z: int, zeta: Tensor) -> Tensor:
        zeta = zeta.clamp(self.low, self.high)
        cell = self._cell(zeta) + 1
        return self._tables[z].behind.to(zeta.device)[cell] + self._between(z, zeta, self._edge(cell))

    def _quantile(self, z: int, rho: Tensor) -> Tensor:
        before = self._tables[z].before.to(rho.device)
        cell = (torch.searchsorted(before, rho) - 1).clamp(0, CELLS - 1)
        start, wanted = self._edge(cell), rho - before[cell]
        low, high = start, start + self._width
        mass = before[cell + 1] - before[cell]
        share = torch.where(mass > 0, wanted / mass, 0.0).clamp(0, 1)
        zeta = self._inside(start + self._width * share)
        for _ in range(12):
            excess = self._between(z, start, zeta) - wanted
            low, high = torch.where(excess < 0, zeta, low), torch.where(excess < 0, high, zeta)
            newton = zeta - excess / self._density(z, zeta)
            zeta = self._inside(torch.where((newton >= low) & (newton <= high), newton, (low + high) / 2))
        return zeta

    def _inside(self, zeta: Tensor) -> Tensor:
        """zeta kept off the ends by one float, for densities that are infinite or zero there."""
        low, high = zeta.new_tensor(self.low), zeta.new_tensor(self.high)
        lowest, highest = torch.nextafter(low, high), torch.nextafter(high, low)
        tiny = torch.finfo(zeta.dtype).tiny  # what is smaller may be taken for 0
        lowest, highest = torch.where(low == 0, tiny, lowest), torch.where(high == 0, -tiny, highest)
        return zeta.clamp(lowest, highest)


def _evaluate(name: str, log_density: Callable[[Tensor], Tensor], zeta: Tensor) -> Tensor:
    log_r = log_density(zeta)
    if not isinstance(log_r, Tensor) or log_r.shape != zeta.shape or not log_r.is_floating_point():
        got = tuple(log_r.shape) if isinstance(log_r, Tensor) else type(log_r).__name__
        raise InputError(f"{name} must return real numbers of its argument's shape {tuple(zeta.shape)}, not {got}")
    log_r = log_r.double()
    if bool((log_r == -math.inf).all()):
        raise InputError(f"{name} is minus infinity everywhere: the density has no mass")
    if not bool(log_r.isfinite().all()):
        worst = int((~log_r.isfinite()).flatten().nonzero()[0])
        value, at = float(log_r.flatten()[worst]), float(zeta.flatten()[worst])
        raise InputError(f"{name} must be finite between low and high, but is {value} at zeta = {at:.6g}")
    return log_r


def _check_resolved(
    name: str, log_density: Callable[[Tensor], Tensor], low: float, high: float, mass: float, top: float
) -> None:
    """The mass by cells of twice the width must agree: what lies between the nodes is not seen."""
    cells = torch.arange(CELLS // 2, dtype=torch.float64)[:, None]
    width = (high - low) / (CELLS // 2)
    again = torch.exp(_evaluate(name, log_density, low + width * (cells + _NODES)) - top) * _WEIGHTS * width
    if not abs(float(again.sum()) / mass - 1) < 1e-5:
        raise InputError(
            f"{name} is too sharp: its mass on {CELLS} cells between low and high is not determined; nor is that of a "
            "density that is infinite at an end"
        )
