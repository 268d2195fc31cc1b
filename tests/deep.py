"""Small convolutional models with random weights, and their exact twins by enumeration and quadrature."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from registry import all_states, gauss_legendre, log_prior
from torch import Tensor, nn
from torch.distributions import Normal

from dvaepp.models.convolutional import ConvolutionalVAE, convolutional_vae
from dvaepp.models.local import BernoulliVariables, LocalGroup, LocalVariables, NormalVariables
from dvaepp.models.sizes import ConvolutionalSizes
from dvaepp.priors.base import Prior
from dvaepp.priors.normal import NormalPrior
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.exponential import OverlappingExponential


def shake(module: nn.Module, seed: int = 0, strength: float = 1.0) -> Any:
    """The module in float64 and evaluation mode, with random numbers wherever it has any: where outputs start at 0, and
    in what batch norm has seen. Boltzmann machines and biases of priors keep theirs."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()

    def normal(like: Tensor, sd: float) -> Tensor:
        return sd * torch.randn(like.shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if {"prior", "grid"} & set(name.split(".")):
                continue
            if name.endswith("running_var"):
                tensor.copy_(torch.exp(normal(tensor, 0.3)))
            elif name.endswith("num_batches_tracked") or name.startswith("decoder.bias"):
                continue
            elif tensor.ndim > 1:
                tensor.copy_(normal(tensor, strength * (1.5 / tensor[0].numel()) ** 0.5))
            else:
                tensor.copy_(normal(tensor, 0.4) + name.endswith("weight"))
    return module


def deep_model(
    prior: Prior,
    bits: Sequence[int],
    kind: LocalVariables | None = None,
    *,
    shape: tuple[int, ...] = (4, 4),
    smoothing: Smoothing | None = None,
    seed: int = 0,
    strength: float = 1.0,
    likelihood: dict[str, Any] | None = None,
    conditional: bool = False,
    **sizes: Any,
) -> ConvolutionalVAE:
    """A model with one local group of one variable at scale 1, unless `sizes` say otherwise."""
    plain = {"local": 1, "top": 1, "channels": 3, "cells": 1, "groups": 1, "variables": 1, "hidden": (), **sizes}
    top = 255.0 if likelihood else 1.0
    made = convolutional_vae(
        shape,
        top * torch.linspace(0.2, 0.8, math.prod(shape)),
        prior=prior,
        global_groups=bits,
        local=kind or NormalVariables(),
        smoothing=smoothing or OverlappingExponential(6.0),
        conditional=conditional,
        scale=2 / top,
        sizes=ConvolutionalSizes(**plain),
        **(likelihood or {}),
    )
    model: ConvolutionalVAE = shake(made, seed, strength)
    model.prior.double()
    with torch.no_grad():  # local variables that matter, and importance weights of light tails
        for name, parameter in model.named_parameters():
            entries, encoder = name.startswith(("hierarchy.entries", "coarse.entries")), name.startswith("encoder")
            parameter *= 3.0 if entries else 0.25 if encoder else 1.0
    return model


class Prescribed(LocalVariables):
    """Local variables that are not drawn but given: bits themselves, normal ones as (h - mean) / sd."""

    def __init__(self, kind: LocalVariables, given: Iterator[Tensor]) -> None:
        self.kind, self.given, self.width = kind, given, kind.width
        self.log_slopes: list[Tensor] = []

    def distribution(self, parameters: Tensor, smoothing: Smoothing) -> Any:
        law, given = self.kind.distribution(parameters, smoothing), next(self.given)
        if isinstance(self.kind, BernoulliVariables):
            return _Given(law, given)
        self.log_slopes.append(law.stddev.log().flatten(1).sum(1))
        return _Given(law, law.mean + law.stddev * given)

    def reparameterised(self, smoothing: Smoothing) -> bool:
        return True

    def mean(self, distribution: Any) -> Tensor:
        raise NotImplementedError

    def divergence(self, q: Any, p: Any, h: Tensor) -> Tensor:
        raise NotImplementedError


class _Given:
    has_rsample = True

    def __init__(self, law: Any, value: Tensor) -> None:
        self.law, self.value = law, value

    def rsample(self) -> Tensor:
        return self.value

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob: Tensor = self.law.log_prob(value)
        return log_prob


def grid_of(nodes: Tensor, weights: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """Nodes and log weights of the product rule, (n, dimensions) and (n,)."""
    mesh = torch.cartesian_prod(*[nodes] * dimensions).reshape(-1, dimensions)
    log_weights = torch.cartesian_prod(*[weights.log()] * dimensions).reshape(-1, dimensions)
    return mesh, log_weights.sum(1)


def global_states(prior: Prior, nodes: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Every setting of the global variables, and log of the mass that stands there."""
    if isinstance(prior, NormalPrior):
        z, log_weights = grid_of(*nodes, len(prior.mean))
        return z, log_weights + Normal(0.0, 1.0).log_prob(z).sum(1)
    bits = prior.sample(1).shape[1]
    z = all_states(bits)
    return z, log_prior(prior, z, z).detach()


def descended(
    model: ConvolutionalVAE, zeta: Tensor, smoothing: Smoothing, features: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, tuple[LocalGroup, ...]]:
    """The state after all local groups and the groups, of the model's parts and not of its own way through them."""
    local, top = features or (None, None)
    state, coarse = model.coarse(model.upsampler.enter(zeta).view(-1, *model.upsampler.shape), smoothing, top)
    state, fine = model.hierarchy(model.upsampler.up(state), smoothing, local)
    return state, coarse + fine


@torch.no_grad()
def exact_log_likelihoods(model: ConvolutionalVAE, x: Tensor, pieces: int = 8) -> Tensor:
    """log p(x) of the binary model for every x: global states, local bits enumerated, normal ones integrated over."""
    hierarchies, nodes = [hierarchy for hierarchy, _ in model.hierarchies], gauss_legendre(-7.0, 7.0, pieces, nodes=5)
    kind, variables = model.hierarchy.kind, model.hierarchy.variables
    shapes = [(variables, size, size) for hierarchy, size in model.hierarchies for _ in hierarchy.cells]
    z, log_p = global_states(model.prior, nodes)
    bits = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    h, log_h = grid_of(*(bits if isinstance(kind, BernoulliVariables) else nodes), sum(map(math.prod, shapes)))
    parts = h.repeat(len(z), 1).split([*map(math.prod, shapes)], 1)
    prescribed = Prescribed(kind, iter([part.view(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]))
    for hierarchy in hierarchies:
        hierarchy.kind = prescribed
    try:
        state, drawn = descended(model, z.repeat_interleave(len(h), 0), hard)
    finally:
        for hierarchy in hierarchies:
            hierarchy.kind = kind
    log_local = torch.stack([*(g.p.log_prob(g.h).flatten(1).sum(1) for g in drawn), *prescribed.log_slopes]).sum(0)
    log_prior_mass = log_p.repeat_interleave(len(h)) + log_h.repeat(len(z)) + log_local
    assert abs(float(log_prior_mass.logsumexp(0))) < 1e-6, "p(z, h) does not sum to 1 on these nodes"
    likelihood = model.decoder(state)
    each = [log_prior_mass + likelihood.log_prob(image.expand(len(state), -1)) for image in x]
    return torch.stack(each).logsumexp(1)


def log_probs_of_all(likelihood_of: Callable[[int], Any], images: Tensor, batch: int = 4096) -> Tensor:
    """log p of every image, in batches; `likelihood_of(n)` is the same distribution n times."""
    with torch.no_grad():
        return torch.cat([likelihood_of(len(part)).log_prob(part) for part in images.split(batch)])
