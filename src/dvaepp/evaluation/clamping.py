"""Samples of a prior some of whose bits are given: p(z_free | z_given)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.numerics import whole
from dvaepp.priors.base import Prior
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.priors.directed import BernoulliPrior


@torch.no_grad()
def clamped_sample(
    prior: Prior, z: Float[Tensor, "n bits"], given: Bool[Tensor, "n bits"], sweeps: int = 1000
) -> Float[Tensor, "n bits"]:
    """z ~ p(z_free | z_given), one for each row; what z holds where bits are free is of no account.

    Of a Boltzmann machine by so many sweeps of block Gibbs sampling from a sample of the prior, in which the given bits
    stay; of independent bits exactly. InputError for other priors, and for given values other than 0 and 1.
    """
    if not isinstance(prior, BoltzmannPrior | BernoulliPrior):
        raise InputError(f"bits of a {type(prior).__name__} cannot be clamped, only of a Boltzmann or Bernoulli prior")
    start = prior.sample(len(z))
    if start.shape != z.shape or given.shape != z.shape:
        raise InputError(f"clamped bits must be (n, {start.shape[1]}), not of shape {tuple(z.shape)}")
    if not bool(((z == 0) | (z == 1) | ~given).all()):
        raise InputError("clamped bits must be 0 or 1 where they are given")
    start = torch.where(given, z, start)
    if isinstance(prior, BernoulliPrior):
        return start
    return prior.machine.gibbs(start, whole("sweeps", sweeps), clamped=given)
