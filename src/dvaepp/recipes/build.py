"""What the settings of a recipe make: strings end here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import nn

from dvaepp.data import Dataset
from dvaepp.data.columns import kinds_of
from dvaepp.likelihoods.base import DataSpec, Likelihood
from dvaepp.models.base import Model
from dvaepp.models.convolutional import ConvolutionalVAE, convolutional_vae
from dvaepp.models.encoders import HierarchicalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.models.sizes import ConvolutionalSizes
from dvaepp.networks.dense import Affine, OneHot, centring, dense, signs
from dvaepp.priors.base import Prior
from dvaepp.recipes.settings import ConvolutionalSettings, ModelSettings


def model(settings: ModelSettings, spec: DataSpec) -> Model:
    """The model for data of this spec, its weights drawn from torch's generator."""
    if settings.convolutional is None:
        return _feed_forward(settings, spec)
    return _convolutional(settings, settings.convolutional, spec)


def prior(settings: ModelSettings) -> Prior:
    """The prior over all groups, its parameters drawn from torch's generator."""
    return settings.prior(
        settings.groups, lambda inputs, outputs: dense(inputs, outputs, settings.hidden, settings.batch_norm)
    )


def _feed_forward(settings: ModelSettings, spec: DataSpec) -> FeedForwardVAE:
    likelihood, placement = settings.likelihood.placed(spec)
    starts = [0, *accumulate(settings.groups)]
    levels = []
    for start, size in zip(starts[:-1], settings.groups, strict=True):
        entrance, inputs = _entrance(likelihood, spec, start)
        levels.append(nn.Sequential(entrance, dense(inputs, size, settings.hidden, settings.batch_norm)))
    outputs = len(spec.mean) // likelihood.values * likelihood.width
    network = dense(starts[-1], outputs, settings.hidden, settings.batch_norm)
    signed = [signs(starts[-1])] if settings.signed else []
    decoder = nn.Sequential(*signed, network, Affine(*placement))
    return FeedForwardVAE(HierarchicalEncoder(*levels), prior(settings), decoder, settings.smoothing, likelihood)


def _entrance(likelihood: Likelihood, spec: DataSpec, latents: int) -> tuple[nn.Module, int]:
    """What stands before a network that sees [x, zeta], and how many numbers leave it: x moved, or in columns."""
    laws = likelihood.of_values(len(spec.mean))
    categories = [law.one_hot for law in laws]
    outputs = sum(max(k, 1) for k in categories) + latents
    if all(categories):
        return OneHot(categories), outputs
    moved = _moved(laws, spec, latents)
    return (nn.Sequential(moved, OneHot(categories)) if any(categories) else moved), outputs


def _moved(laws: Sequence[Likelihood], spec: DataSpec, latents: int) -> Affine:
    """[x, zeta] -> [(x - mean) / sd, zeta], x - mean or x, as the law of each value has it."""
    named = torch.tensor([law.one_hot > 0 for law in laws])
    scaled = torch.tensor([law.standardised for law in laws]) & ~named
    if not scaled.any() and not named.any():
        return centring(spec.mean, latents)
    mean, sd = torch.where(named, 0.0, spec.mean), torch.where(scaled, spec.sd, 1.0)
    zeros, ones = spec.mean.new_zeros(latents), spec.mean.new_ones(latents)
    return Affine(torch.cat([-mean / sd, zeros]), torch.cat([1 / sd, ones]))


def _convolutional(settings: ModelSettings, c: ConvolutionalSettings, spec: DataSpec) -> ConvolutionalVAE:
    likelihood = settings.likelihood.for_data(spec)
    sizes = ConvolutionalSizes(
        local=c.local,
        top=c.top,
        channels=c.channels,
        cells=c.cells,
        groups=c.local_groups,
        variables=c.variables,
        coarse=c.coarse_groups,
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
        signed=settings.signed,
        scale=likelihood.image_scale,
        sizes=sizes,
        precision=torch.bfloat16 if c.precision == "bfloat16" else None,
    )


def spec_of(data: Dataset) -> DataSpec:
    """What of the data a model is built for."""
    categories = data.categories if data.kind == "categories" else 2
    return DataSpec(data.shape, data.mean, data.sd, categories, kinds_of(data.schema))
