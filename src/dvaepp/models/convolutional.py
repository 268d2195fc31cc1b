"""DVAE++: global latent variables, a hierarchy of local ones, and convolutional networks (Sec. 6, Fig. 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from dvaepp.errors import InputError
from dvaepp.likelihoods.base import Likelihood
from dvaepp.likelihoods.standard import BernoulliLikelihood, bernoulli_likelihood
from dvaepp.models.base import Model, Trace, check_input
from dvaepp.models.decoders import ConditionalDecoder, UpDecoder
from dvaepp.models.encoders import Encoder, HierarchicalEncoder, NormalEncoder, check_kinds, draws_for_each
from dvaepp.models.grid import Grid
from dvaepp.models.hierarchy import LocalHierarchy
from dvaepp.models.local import LocalVariables
from dvaepp.models.pyramid import PixelPyramid
from dvaepp.networks.backbone import Backbone, Upsampler
from dvaepp.networks.dense import dense, output_bias
from dvaepp.networks.precision import full, reduced
from dvaepp.networks.residual import Cells
from dvaepp.numerics import check_counts, keep_plain, plain, whole
from dvaepp.priors.base import Prior, check_bits
from dvaepp.priors.normal import NormalPosterior, NormalPrior
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.posterior import Posterior


class ConvolutionalVAE(Model):
    """p(z) r(zeta | z) prod_j p(h_j | zeta, h_<j) p(x | zeta, h), with q of the same form (Sec. 6.1, Fig. 3).

    `grid` makes images of x (batch, pixels); `backbone` maps them to features (for local variables, for global ones);
    `encoder` the latter, flattened, to zeta; `upsampler` zeta to the state that `hierarchy` goes on from; `decoder` the
    hierarchy's last state to p(x | zeta, h). `smoothing` may be replaced at any time, to anneal beta; local bits follow
    it too. `convolutional_vae` puts all of this together. With `precision`, such as torch.bfloat16, networks compute in
    it where autocast allows; distributions always take float32.

    >>> import dvaepp
    >>> model = convolutional_vae(
    ...     (8, 8),
    ...     torch.full((64,), 0.5),
    ...     prior=dvaepp.BoltzmannPrior(dvaepp.BoltzmannMachine(4, 4)),
    ...     global_groups=(4, 4),
    ...     local=dvaepp.NormalVariables(),
    ...     smoothing=dvaepp.OverlappingExponential(beta=8.0),
    ...     sizes=ConvolutionalSizes(local=4, top=2, channels=4, cells=1, groups=2, variables=2, hidden=(8,)),
    ... )
    >>> dvaepp.joint_elbo(model, torch.zeros(5, 64)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        grid: Grid,
        backbone: Backbone,
        encoder: Encoder,
        prior: Prior,
        upsampler: Upsampler,
        hierarchy: LocalHierarchy,
        decoder: UpDecoder | ConditionalDecoder,
        smoothing: Smoothing,
        precision: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_kinds(encoder, prior)
        self.grid, self.backbone, self.encoder = grid, backbone, encoder
        self.prior, self.upsampler, self.hierarchy, self.decoder = prior, upsampler, hierarchy, decoder
        self.smoothing = smoothing
        self.precision = precision

    def forward(
        self,
        x: Float[Tensor, "batch pixels"],
        smoothing: Smoothing | None = None,
        draws: int = 1,
        noise: Float[Tensor, "2 rows bits"] | None = None,
    ) -> Trace:
        """Encode x, draw zeta and h under `smoothing` (the model's own by default), decode them.

        Features of x are computed once, however many draws there are. InputError for any `noise`.
        """
        if noise is not None:
            raise InputError("a ConvolutionalVAE draws local variables too, and takes no noise")
        smoothing, draws = smoothing or self.smoothing, whole("draws", draws)
        return self._pass(x, smoothing, draws, lambda top: self.encoder(top, smoothing, draws))

    def given(
        self,
        x: Float[Tensor, "batch pixels"],
        zeta: Float[Tensor, "rows bits"],
        smoothing: Smoothing | None = None,
        local: Sequence[Float[Tensor, "rows variables height width"]] = (),
    ) -> Trace:
        """Encode x at this zeta, draw h where it is not given, decode both."""
        smoothing, draws = smoothing or self.smoothing, draws_for_each(x, zeta)
        return self._pass(x, smoothing, draws, lambda top: self.encoder.given(top, zeta, smoothing), local)

    def _pass(
        self,
        x: Tensor,
        smoothing: Smoothing,
        draws: int,
        encoded: Callable[[Tensor], Posterior | NormalPosterior],
        h: Sequence[Tensor] = (),
    ) -> Trace:
        self._check(x)
        frozen = not (self.encoder.reparameterised(smoothing) and self.hierarchy.kind.reparameterised(smoothing))
        with reduced(self.precision, x):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                local, top = self._features(x)
                local, posterior = local.repeat_interleave(draws, 0), encoded(top)
            state, groups = self.hierarchy(self.upsampler(posterior.zeta), smoothing, local, frozen, h)
            return Trace(posterior, self.decoder(state), groups)

    @property
    def numbers_per_draw(self) -> int:
        """What q and p of all local groups keep, parameters of pixels, and eight tensors of the finest features."""
        hierarchy, grid = self.hierarchy, self.grid
        enter, locations = self.backbone.enter, self.upsampler.size**2
        kept = len(hierarchy.cells) * hierarchy.variables * (6 * hierarchy.kind.width + 1) * locations
        parameters = 6 * grid.size**2 * self.decoder.likelihood.width
        return kept + parameters + 8 * enter.out_channels * (grid.size // self.backbone.stem) ** 2

    def decode(
        self, zeta: Float[Tensor, "batch bits"], local: Sequence[Float[Tensor, "batch variables height width"]] = ()
    ) -> Distribution:
        """p(x | zeta, h), h being `local` and then drawn from p(h | zeta), local bits in the binary limit."""
        check_input(self, "zeta", zeta)
        check_bits("this model", self.upsampler.bits, zeta)
        with reduced(self.precision, zeta):
            state, _ = self.hierarchy(self.upsampler(zeta), hard, given=local)
            likelihood: Distribution = self.decoder(state)
            return likelihood

    def local_code(
        self, x: Float[Tensor, "batch pixels"], z: Float[Tensor, "batch bits"]
    ) -> tuple[Float[Tensor, "batch variables height width"], ...]:
        """E[h_j | x, z, h_<j] of every local group, h_<j being those before; of local bits the likelier ones."""
        h: list[Tensor] = []
        for j in range(len(self.hierarchy.cells)):
            group = self.given(x, z, hard, h).local[j]
            mean = group.variables.mean(group.q)
            h.append(mean if group.q.has_rsample else mean.round())
        return tuple(h)

    def code(self, x: Float[Tensor, "batch pixels"]) -> Float[Tensor, "batch bits"]:
        """Logits of every global group given x and the likelier bits of the groups before it; of normals the means."""
        self._check(x)
        return full(self.encoder.code(self._features(x)[1]))

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        local, top = self.backbone(self.grid.standardised(self.grid.image(x)))
        return local, full(top.flatten(1))

    def _check(self, x: Tensor) -> None:
        check_input(self, "x", x)
        pixels = self.grid.height * self.grid.width * self.grid.values
        if x.shape[1] != pixels:
            raise InputError(f"x must be a {x.dtype} tensor (batch, {pixels}), not of shape {tuple(x.shape)}")


@dataclass(frozen=True)
class ConvolutionalSizes:
    """Plain numbers that make DVAE++'s networks: scales are heights in cells, and so powers of two.

    local, top: the scales of local variables and of what global ones are read from. channels: at the local scale;
    twice as many at half the height. cells: residual cells at every scale, or how many. groups, variables: of local
    variables, at every location. hidden: layers of the encoder of global variables. stem: pixels a side that share one
    location at the finest scale.

    The defaults are Table 3's sizes (Sec. 6.2), as far as the paper tells them.

    >>> ConvolutionalSizes(local=8, channels=32).channels_at(32)
    {1: 256, 2: 128, 4: 64, 8: 32, 16: 16, 32: 8}
    """

    local: int = 8
    top: int = 4
    channels: int = 64
    cells: Cells | int = field(default_factory=Cells)
    groups: int = 16
    variables: int = 32
    hidden: tuple[int, ...] = (256,)
    stem: int = 1

    def __post_init__(self) -> None:
        keep_plain(self)
        object.__setattr__(self, "hidden", tuple(map(plain, self.hidden)))
        counts = {
            name: value for name, value in vars(self).items() if name != "hidden" and value is not self.each_scale
        }
        check_counts("ConvolutionalSizes", **counts, **{f"hidden[{i}]": size for i, size in enumerate(self.hidden)})

    @property
    def each_scale(self) -> Cells:
        """The cells that stand at every scale."""
        return self.cells if isinstance(self.cells, Cells) else Cells(self.cells)

    def channels_at(self, size: int) -> dict[int, int]:
        """Channels at every scale of an image of this size."""
        scales = [1 << i for i in range(size.bit_length())]
        return {scale: max(1, self.channels * self.local // scale) for scale in scales}


def convolutional_vae(
    shape: tuple[int, ...],
    mean: Float[Tensor, " pixels"],
    *,
    prior: Prior,
    global_groups: Sequence[int],
    local: LocalVariables,
    smoothing: Smoothing,
    likelihood: Likelihood = bernoulli_likelihood,
    conditional: bool = False,
    signed: bool = False,
    scale: float = 1.0,
    sizes: ConvolutionalSizes = ConvolutionalSizes(),
    precision: torch.dtype | None = None,
) -> ConvolutionalVAE:
    """DVAE++ for images of this shape, (height, width) or (height, width, values), and mean (Sec. 6.2).

    `prior` is over all global variables; `global_groups` are their encoder's; with a NormalPrior they are normal.
    The encoder sees scale (x - mean). `conditional` takes the decoder that conditions on coarser pixels.
    `signed` has all that follows from zeta see 2 zeta - 1, -1 and 1 for bits.
    Raises InputError where the sizes do not fit the images, and for `signed` without bits.
    """
    normal = isinstance(prior, NormalPrior)
    if signed and normal:
        raise InputError("signed is for bits, which a NormalPrior is not over")
    grid, top = Grid(shape, mean, scale), sizes.top
    _check_fit(grid, likelihood, sizes)
    channels = sizes.channels_at(grid.size)
    steps: Any = {"local": sizes.local, "top": top, "cells": sizes.each_scale}
    decoder = _decoder(grid, likelihood, mean, conditional, sizes, precision)
    return ConvolutionalVAE(
        grid,
        Backbone(grid.values, grid.size, channels, **steps, stem=sizes.stem),
        _global_encoder(channels[top] * top**2, global_groups, normal, sizes),
        prior,
        Upsampler(sum(global_groups), channels, **steps, signed=signed),
        LocalHierarchy(
            sizes.groups,
            sizes.variables,
            local,
            channels=channels[sizes.local],
            features=channels[sizes.local],
            cells=sizes.each_scale,
        ),
        decoder,
        smoothing,
        precision,
    )


def _decoder(
    grid: Grid,
    likelihood: Likelihood,
    mean: Float[Tensor, " pixels"],
    conditional: bool,
    sizes: ConvolutionalSizes,
    precision: torch.dtype | None,
) -> UpDecoder | ConditionalDecoder:
    channels = sizes.channels_at(grid.size)
    if conditional:
        base = min(4, sizes.local, grid.size // 2)
        pyramid = PixelPyramid(grid, likelihood, channels, base, cells=sizes.each_scale, precision=precision)
        return ConditionalDecoder(pyramid, channels, local=sizes.local, cells=sizes.each_scale)
    bias = output_bias(mean) if isinstance(likelihood, BernoulliLikelihood) else nn.Identity()
    return UpDecoder(grid, likelihood, channels, bias, local=sizes.local, cells=sizes.each_scale, stem=sizes.stem)


def _check_fit(grid: Grid, likelihood: Likelihood, sizes: ConvolutionalSizes) -> None:
    local, top, stem = sizes.local, sizes.top, sizes.stem
    powers = all(n > 0 and n.bit_count() == 1 for n in (local, top, stem))
    if not powers or not grid.size // stem >= local >= top:
        raise InputError(
            f"local={local}, top={top} and stem={stem} must be powers of two with {grid.size} / stem >= local >= top "
            f"for images of {grid.height} x {grid.width} pixels"
        )
    if likelihood.values != grid.values:
        raise InputError(f"{likelihood} is for {likelihood.values} values a pixel, but the images have {grid.values}")


def _global_encoder(features: int, groups: Sequence[int], normal: bool, sizes: ConvolutionalSizes) -> Encoder:
    starts = [features + sum(groups[:k]) for k in range(len(groups))]
    levels = [
        dense(start, 2 * size if normal else size, sizes.hidden, activation=nn.ELU)
        for start, size in zip(starts, groups, strict=True)
    ]
    return NormalEncoder(*levels) if normal else HierarchicalEncoder(*levels)
