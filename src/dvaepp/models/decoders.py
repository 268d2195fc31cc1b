"""From the local state to p(x | zeta, h): factorial over pixels, or scale by scale (Sec. 6.2)."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from dvaepp.likelihoods.base import Likelihood
from dvaepp.models.grid import Grid
from dvaepp.models.pyramid import PixelPyramid
from dvaepp.networks.backbone import ResidualStages
from dvaepp.networks.precision import full
from dvaepp.networks.residual import ONE_CELL, Cells, output


class UpDecoder(nn.Module):
    """p(x | zeta, h) factorial over pixels, from the local state up to the image, the last step by a pixel shuffle."""

    def __init__(
        self,
        grid: Grid,
        likelihood: Likelihood,
        channels: Mapping[int, int],
        bias: nn.Module,
        *,
        local: int,
        cells: Cells = ONE_CELL,
        stem: int = 1,
    ) -> None:
        super().__init__()
        self.grid, self.likelihood, self.bias = grid, likelihood, bias
        self.up = ResidualStages(channels, local, grid.size // stem, cells)
        self.parameters_of_pixels = output(
            channels[grid.size // stem], likelihood.width * stem**2, 3, likelihood.start.repeat_interleave(stem**2)
        )
        self.shuffle = nn.PixelShuffle(stem)

    def forward(self, state: Float[Tensor, "batch channels local local"]) -> Distribution:
        """p(x | zeta, h)."""
        parameters = self.grid.sites(self.shuffle(full(self.parameters_of_pixels(self.up(state)))))
        return self.likelihood(self.bias(parameters.flatten(1)))


class ConditionalDecoder(nn.Module):
    """p(x | zeta, h) scale by scale, each given the coarser pixels: a PixelPyramid and the features that it needs."""

    def __init__(
        self,
        pyramid: PixelPyramid,
        channels: Mapping[int, int],
        *,
        local: int,
        cells: Cells = ONE_CELL,
    ) -> None:
        super().__init__()
        self.pyramid, self.local, self.likelihood = pyramid, local, pyramid.likelihood

        def stages(start: int, end: int) -> nn.Module:
            return ResidualStages(channels, start, end, cells)

        scales = [*pyramid.scales, pyramid.base]
        higher, lower = sorted({s for s in scales if s > local}), sorted({s for s in scales if s < local}, reverse=True)
        self.up = nn.ModuleDict({str(s): stages(s // 2, s) for s in higher})
        self.down = nn.ModuleDict({str(s): stages(2 * s, s) for s in lower})

    def forward(self, state: Float[Tensor, "batch channels local local"]) -> Distribution:
        """p(x | zeta, h)."""
        features = {self.local: state}
        for scale, stages in self.up.items():
            features[int(scale)] = stages(features[int(scale) // 2])
        for scale, stages in self.down.items():
            features[int(scale)] = stages(features[2 * int(scale)])
        likelihood: Distribution = self.pyramid(features)
        return likelihood
