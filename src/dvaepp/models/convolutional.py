"""DVAE++: global latent variables, a hierarchy of local ones, and convolutional networks (Sec. 6, Fig. 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from dvaepp.models.local import LocalGroup, LocalVariables
from dvaepp.models.pyramid import PixelPyramid
from dvaepp.models.sizes import PAPER_SIZES, ConvolutionalSizes
from dvaepp.networks.backbone import Backbone, Upsampler
from dvaepp.networks.dense import dense, output_bias
from dvaepp.networks.precision import full, reduced
from dvaepp.numerics import whole
from dvaepp.priors.base import Prior, check_bits
from dvaepp.priors.normal import NormalPosterior, NormalPrior
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.posterior import Posterior


class ConvolutionalVAE(Model):
    """p(z) r(zeta | z) prod_j p(h_j | zeta, h_<j) p(x | zeta, h), with q of the same form (Sec. 6.1, Fig. 3).

    `grid` makes images of x (batch, pixels); `backbone` maps them to features at the local and at the top scale;
    `encoder` the latter, flattened, to zeta; `upsampler` zeta to the top scale, where `coarse` draws the first groups
    h_j (this library's addition, none by default), and up to the local one, where `hierarchy` draws the others;
    `decoder` its last state to p(x | zeta, h). `smoothing` may be replaced at any time, to anneal beta; local bits
    follow it too. `convolutional_vae` puts all of this together. With `precision`, such as torch.bfloat16, networks
    compute in it where autocast allows; distributions always take float32.

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
        coarse: LocalHierarchy,
        decoder: UpDecoder | ConditionalDecoder,
        smoothing: Smoothing,
        precision: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_kinds(encoder, prior)
        self.grid, self.backbone, self.encoder = grid, backbone, encoder
        self.prior, self.upsampler, self.hierarchy, self.decoder = prior, upsampler, hierarchy, decoder
        self.coarse, self.smoothing, self.precision = coarse, smoothing, precision

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
        local: Sequence[Float[Tensor, "rows variables _ _"]] = (),
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
                features = self._features(x)
                posterior = encoded(full(features[1].flatten(1)))
                local, top = (each.repeat_interleave(draws, 0) for each in features)
            state, groups = self._descend(posterior.zeta, smoothing, h, (local, top), frozen)
            return Trace(posterior, self.decoder(state), groups)

    def _descend(
        self,
        zeta: Tensor,
        smoothing: Smoothing,
        h: Sequence[Tensor],
        features: tuple[Tensor, Tensor] | None = None,
        frozen: bool = False,
    ) -> tuple[Tensor, tuple[LocalGroup, ...]]:
        """The state after all local groups, and the groups, coarse ones first; all as `LocalHierarchy` has it."""
        self._check_local(h, len(zeta))
        local, top = features or (None, None)
        split = len(self.coarse.cells)
        state, coarse = self.coarse(self.upsampler.start(zeta), smoothing, top, frozen, h[:split])
        state, fine = self.hierarchy(self.upsampler.up(state), smoothing, local, frozen, h[split:])
        return state, (*coarse, *fine)

    @property
    def hierarchies(self) -> tuple[tuple[LocalHierarchy, int], ...]:
        """All that local groups are in, in their order, and the height of their locations."""
        return (self.coarse, self.upsampler.shape[1]), (self.hierarchy, self.upsampler.size)

    @property
    def numbers_per_draw(self) -> int:
        """What q and p of all local groups keep, parameters of pixels, and eight tensors of the finest features."""
        grid, enter = self.grid, self.backbone.enter
        kept = sum(len(h.cells) * h.variables * (6 * h.kind.width + 1) * size**2 for h, size in self.hierarchies)
        parameters = 6 * grid.size**2 * self.decoder.likelihood.width
        return kept + parameters + 8 * enter.out_channels * (grid.size // self.backbone.stem) ** 2

    def decode(
        self, zeta: Float[Tensor, "batch bits"], local: Sequence[Float[Tensor, "batch variables _ _"]] = ()
    ) -> Distribution:
        """p(x | zeta, h), h being `local` and then drawn from p(h | zeta), local bits in the binary limit."""
        check_input(self, "zeta", zeta)
        check_bits("this model", self.upsampler.bits, zeta)
        with reduced(self.precision, zeta):
            state, _ = self._descend(zeta, hard, local)
            likelihood: Distribution = self.decoder(state)
            return likelihood

    def local_code(
        self, x: Float[Tensor, "batch pixels"], z: Float[Tensor, "batch bits"]
    ) -> tuple[Float[Tensor, "batch variables _ _"], ...]:
        """E[h_j | x, z, h_<j] of every local group, h_<j being those before; of local bits the likelier ones."""
        h: list[Tensor] = []
        for j in range(sum(len(each.cells) for each, _ in self.hierarchies)):
            group = self.given(x, z, hard, h).local[j]
            mean = group.variables.mean(group.q)
            h.append(mean if group.q.has_rsample else mean.round())
        return tuple(h)

    def code(self, x: Float[Tensor, "batch pixels"]) -> Float[Tensor, "batch bits"]:
        """Logits of every global group given x and the likelier bits of the groups before it; of normals the means."""
        self._check(x)
        return full(self.encoder.code(full(self._features(x)[1].flatten(1))))

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        local, top = self.backbone(self.grid.standardised(self.grid.image(x)))
        return local, top

    def _check_local(self, local: Sequence[Tensor], rows: int) -> None:
        shapes = [(rows, each.variables, size, size) for each, size in self.hierarchies for _ in each.cells]
        if len(local) > len(shapes):
            raise InputError(f"{len(local)} groups of local variables are given, and there are {len(shapes)}")
        for j, (h, expected) in enumerate(zip(local, shapes, strict=False), 1):
            if tuple(h.shape) != expected:
                raise InputError(f"h of group {j} has shape {tuple(h.shape)}, expected {expected}")

    def _check(self, x: Tensor) -> None:
        check_input(self, "x", x)
        pixels = self.grid.height * self.grid.width * self.grid.values
        if x.shape[1] != pixels:
            raise InputError(f"x must be a {x.dtype} tensor (batch, {pixels}), not of shape {tuple(x.shape)}")


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
    sizes: ConvolutionalSizes = PAPER_SIZES,
    precision: torch.dtype | None = None,
) -> ConvolutionalVAE:
    """DVAE++ for images of this shape, (height, width) or (height, width, values), and mean (Sec. 6.2).

    `prior` is over all global variables; `global_groups` are their encoder's; with a NormalPrior they are normal.
    The encoder sees scale (x - mean). `conditional` takes the decoder that conditions on coarser pixels.
    `signed` has what is made of zeta for h and x see 2 zeta - 1, -1 and 1 for bits; later global groups see zeta, and
    local bits stay 0 and 1.
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

    def hierarchy(groups: int, scale: int) -> LocalHierarchy:
        of = channels[scale]
        return LocalHierarchy(groups, sizes.variables, local, channels=of, features=of, cells=sizes.each_scale)

    return ConvolutionalVAE(
        grid,
        Backbone(grid.values, grid.size, channels, **steps, stem=sizes.stem),
        _global_encoder(channels[top] * top**2, global_groups, normal, sizes),
        prior,
        Upsampler(sum(global_groups), channels, **steps, signed=signed),
        hierarchy(sizes.groups, sizes.local),
        hierarchy(sizes.coarse, top),
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
