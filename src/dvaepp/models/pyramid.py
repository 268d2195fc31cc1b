"""The conditional decoder: pixels at 4 x 4, then those that 8 x 8 adds, and so on (Sec. 6.1, Appendix G.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from dvaepp.errors import InputError
from dvaepp.likelihoods.base import Likelihood
from dvaepp.models.grid import Grid
from dvaepp.networks.precision import full, reduced
from dvaepp.networks.residual import ONE_CELL, Cells, output


class PixelPyramid(nn.Module):
    """p(x | zeta, h) = p(x_0 | zeta, h) prod_i p(x_i | zeta, h, x_<i), exactly: x_i are pixels, each in one factor.

    x_0 is x at every (size / base)-th row and column. In each square of 2 x 2 pixels of the next scale one is known,
    and one network, at the resolution of what is known, gives the parameters of the other three.
    """

    def __init__(
        self,
        grid: Grid,
        likelihood: Likelihood,
        channels: Mapping[int, int],
        base: int,
        *,
        cells: Cells = ONE_CELL,
        precision: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.likelihood, self.base, self.precision = grid, likelihood, base, precision
        self.scales = [base << i for i in range((grid.size // base).bit_length() - 1)]
        self.first = output(channels[base], likelihood.width, 3, likelihood.start)
        self.see = nn.ModuleList(nn.Conv2d(grid.values, channels[s], 3, padding=1, bias=False) for s in self.scales)
        self.cells = nn.ModuleList(cells.one(channels[s], channels[s]) for s in self.scales)
        three = likelihood.start.repeat(3)
        self.others = nn.ModuleList(output(channels[s], len(three), 3, three) for s in self.scales)

    def forward(self, features: dict[int, Float[Tensor, "batch channels size size"]]) -> PyramidLikelihood:
        """p(x | zeta, h), given features at every scale from the base to half the image's."""
        return PyramidLikelihood(self, features)

    def coarsest(self, features: dict[int, Tensor]) -> Float[Tensor, "batch width base base"]:
        """Parameters of x_0."""
        with reduced(self.precision, features[self.base]):
            return full(self.first(features[self.base]))

    def finer(
        self, step: int, features: dict[int, Tensor], known: Float[Tensor, "batch values scale scale"]
    ) -> Float[Tensor, "batch three scale scale"]:
        """Parameters of the three pixels beside each known one (standardised), one after the other in channels."""
        with reduced(self.precision, known):
            seen = features[self.scales[step]] + self.see[step](known)
            return full(self.others[step](self.cells[step](seen)))


def split_squares(image: Float[Tensor, "batch values size size"]) -> Float[Tensor, "batch values 4 half half"]:
    """Each square of 2 x 2 pixels: upper left, which the coarser scale knows, upper right, lower left, lower right."""
    return torch.unflatten(F.pixel_unshuffle(image, 2), 1, (image.shape[1], 4))


def join_squares(squares: Float[Tensor, "batch values 4 half half"]) -> Float[Tensor, "batch values size size"]:
    """The image of such squares."""
    return F.pixel_shuffle(squares.flatten(1, 2), 2)


class PyramidLikelihood(Distribution):
    """p(x | zeta, h) of a PixelPyramid: log_prob is teacher-forced and parallel over scales, samples are ancestral."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, pyramid: PixelPyramid, features: dict[int, Tensor]) -> None:
        self.pyramid, self.features = pyramid, features
        grid = pyramid.grid
        batch = next(iter(features.values())).shape[:1]
        super().__init__(batch, torch.Size([grid.height * grid.width * grid.values]))

    def log_prob(self, value: Float[Tensor, "batch pixels"]) -> Float[Tensor, " batch"]:
        """log p(x_0 | zeta, h) + sum_i log p(x_i | zeta, h, x_<i), nats."""
        pyramid, grid = self.pyramid, self.pyramid.grid
        if value.shape != self.batch_shape + self.event_shape:
            expected = tuple(self.batch_shape + self.event_shape)
            raise InputError(f"x has shape {tuple(value.shape)}, expected {expected}, one example for each zeta and h")
        if self._validate_args:
            pyramid.likelihood.check(value)
        image, inside = grid.image(value), grid.inside
        known = grid.standardised(image)
        total = self._sites(
            pyramid.coarsest(self.features)[:, None],
            grid.at(pyramid.base, image)[:, :, None],
            grid.at(pyramid.base, inside)[:, :, None],
        )
        for step, scale in enumerate(pyramid.scales):
            parameters = pyramid.finer(step, self.features, grid.at(scale, known))
            x, counted = (split_squares(grid.at(2 * scale, each))[:, :, 1:] for each in (image, inside))
            total = total + self._sites(torch.unflatten(parameters, 1, (3, -1)), x, counted)
        return total

    def _sites(
        self,
        parameters: Float[Tensor, "batch pixels width height width_"],
        x: Float[Tensor, "batch values pixels height width_"],
        counted: Float[Tensor, "1 values pixels height width_"],
    ) -> Float[Tensor, " batch"]:
        """log p of these pixels, those outside the image left out."""
        log_prob = self.pyramid.likelihood.log_prob(
            parameters.permute(0, 1, 3, 4, 2).flatten(1, 3), x.permute(0, 2, 3, 4, 1).flatten(1, 3)
        )
        return (log_prob * counted[:, 0].flatten(1)).sum(1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*shape pixels"]:
        """x_0, then every finer scale given the coarser ones, of shape (*sample_shape, batch, pixels)."""
        drawn, _ = self._ancestral(math.prod(sample_shape))
        return torch.unflatten(drawn, 0, (*sample_shape, *self.batch_shape))

    @property
    def mean(self) -> Float[Tensor, "batch pixels"]:
        """The mean of every pixel given one draw of the coarser scales: E[x | zeta, h], estimated without bias."""
        with torch.no_grad():
            return self._ancestral(1)[1]

    @property
    def variance(self) -> Float[Tensor, "batch pixels"]:
        """InputError: it has no closed form, since finer scales depend on coarser pixels."""
        raise InputError("pixels of a conditional decoder have no variance in closed form: take that of samples")

    def _ancestral(self, repeats: int) -> tuple[Tensor, Tensor]:
        """Draws and their pixels' means, `repeats` for each example, (repeats * batch, pixels)."""
        pyramid, grid = self.pyramid, self.pyramid.grid
        features = {s: f.repeat(repeats, 1, 1, 1) for s, f in self.features.items()}
        drawn, mean = (each[:, :, 0] for each in self._draw(pyramid.coarsest(features)[:, None]))
        for step in range(len(pyramid.scales)):
            parameters = pyramid.finer(step, features, grid.standardised(drawn))
            new = self._draw(torch.unflatten(parameters, 1, (3, -1)))
            drawn, mean = (
                join_squares(torch.cat([old[:, :, None], three], 2))
                for old, three in zip((drawn, mean), new, strict=True)
            )
        return grid.sites(drawn).flatten(1), grid.sites(mean).flatten(1)

    def _draw(
        self, parameters: Float[Tensor, "batch pixels width height width_"]
    ) -> tuple[Float[Tensor, "batch values pixels height width_"], Float[Tensor, "batch values pixels height width_"]]:
        """A draw of these pixels, and their means."""
        sites = parameters.permute(0, 1, 3, 4, 2)
        likelihood = self.pyramid.likelihood
        both = (likelihood.sample(sites.flatten(1, 3)), likelihood.mean(sites.flatten(1, 3)))
        shape = sites.shape[1:4]
        draw, mean = (torch.unflatten(each, 1, shape).permute(0, 4, 1, 2, 3) for each in both)
        return draw, mean
