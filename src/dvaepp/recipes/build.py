"""What the settings of a recipe make: strings end here."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import nn

from dvaepp.data import Dataset
from dvaepp.likelihoods.base import DataSpec, Likelihood
from dvaepp.models.base import Model
from dvaepp.models.convolutional import ConvolutionalSizes, ConvolutionalVAE, convolutional_vae
from dvaepp.models.encoders import HierarchicalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.networks.dense import Affine, OneHot, centring, dense
from dvaepp.priors.base import Prior
from dvaepp.recipes.settings import ConvolutionalSettings, ModelSettings


def model(settings: ModelSettings, spec: DataSpec) -> Model:
    """The model for data of this spec, its weights drawn from torch's generator."""
    if settings.convolutional is None:
        return _feed_forward(settings, spec)
    return _convolutional(settings, settings.convolutional, spec)


def prior(settings: ModelSettings) -> Prior:
    """The prior over all groups, its parameters drawn from torch's generator."""

    def network(inputs: int, outputs: int) -> nn.Module:
        return dense(inputs, outputs, settings.hidden, settings.batch_norm)

    return settings.prior(settings.groups, network)


def _feed_forward(settings: ModelSettings, spec: DataSpec) -> FeedForwardVAE:
    likelihood, placement = settings.likelihood.placed(spec)
    starts = [0, *accumulate(settings.groups)]
    levels = []
    for start, size in zip(starts[:-1], settings.groups, strict=True):
        entrance, inputs = _entrance(likelihood, spec, start)
        levels.append(nn.Sequential(entrance, dense(inputs, size, settings.hidden, settings.batch_norm)))
    outputs = len(spec.mean) // likelihood.values * likelihood.width
    network = dense(starts[-1], outputs, settings.hidden, settings.batch_norm)
    signs = [Affine(torch.full((starts[-1],), -1.0), 2.0)] if settings.signed else []
    decoder = nn.Sequential(*signs, network, Affine(*placement))
    return FeedForwardVAE(HierarchicalEncoder(*levels), prior(settings), decoder, settings.smoothing, likelihood)


def _entrance(likelihood: Likelihood, spec: DataSpec, latents: int) -> tuple[nn.Module, int]:
    """What stands before a network that sees [x, zeta], and how many numbers leave it: x moved, or in columns."""
    if likelihood.one_hot:
        return OneHot(len(spec.mean), spec.categories), len(spec.mean) * spec.categories + latents
    inputs = len(spec.mean) + latents
    if not likelihood.standardised:
        return centring(spec.mean, latents), inputs
    zeros, ones = spec.mean.new_zeros(latents), spec.mean.new_ones(latents)
    return Affine(torch.cat([-spec.mean / spec.sd, zeros]), torch.cat([1 / spec.sd, ones])), inputs


def _convolutional(settings: ModelSettings, c: ConvolutionalSettings, spec: DataSpec) -> ConvolutionalVAE:
    likelihood = settings.likelihood.for_data(spec)
    sizes = ConvolutionalSizes(
        local=c.local,
        top=c.top,
        channels=c.channels,
        cells=c.cells,
        groups=c.local_groups,
        variables=c.variables,
        hidden=settings.hidden,
        stem=c.stem,
    )
    return convolutional_vae(
        spec.shape,
        spec.mean,
        prior=prior(settings),
        global_groups=settings.groups,
        local=c.local_variables,
        smoothing=settings.smoothing,
        likelihood=likelihood,
        conditional=c.conditional,
        scale=likelihood.image_scale,
        sizes=sizes,
        precision=torch.bfloat16 if c.precision == "bfloat16" else None,
    )


def spec_of(data: Dataset) -> DataSpec:
    """What of the data a model is built for."""
    return DataSpec(data.shape, data.mean, data.sd, data.categories if data.kind == "categories" else 2)
