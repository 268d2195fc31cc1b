"""Importance weights, and the bound that tends to log p(x) (Burda et al. 2015)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.models.base import Model
from dvaepp.numerics import whole
from dvaepp.priors.normal import NormalPrior
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.posterior import Posterior


def log_weight(
    model: Model,
    x: Float[Tensor, "batch pixels"],
    smoothing: Smoothing,
    draws: int = 1,
    *,
    unnormalised: bool = False,
    noise: Float[Tensor, "2 weights bits"] | None = None,
) -> Float[Tensor, " weights"]:
    """log p(x | zeta) + log p(zeta) - log q(zeta | x) for each draw zeta ~ q(zeta | x) under the smoothing.

    Nats, shape (batch * draws,), x by x; with local variables log p(h | zeta) - log q(h | x, zeta) is in it. With
    `hard`, zeta = z, and no gradient reaches the encoder: there is no reparameterisation. Where p(zeta) is intractable
    (a soft smoothing, a large Boltzmann prior), or the smoothing has an atom, it is the joint weight, without gradient.
    `unnormalised` adds log Z to each, which then need not be known; gradients stay. `noise`: the uniform numbers that
    zeta is made of, as in `Model.forward`. Raises InputError for Concrete with a Boltzmann prior, which has neither,
    where log Z is missing or that of other parameters, and for the joint weight with noise, since it draws z too.
    """
    draws = whole("draws", draws)
    joint = smoothing.shared_conditional and (smoothing.has_atom or not model.prior.has_density(smoothing))
    if joint and not isinstance(model.prior, NormalPrior):
        if noise is not None:
            raise InputError(f"log_weight draws z as well as zeta under {smoothing} with this prior: it takes no noise")
        return _joint_log_weight(model, x, smoothing, draws, unnormalised)
    trace = model(x, smoothing, draws, noise)
    log_q = trace.posterior.log_prob()
    if not trace.posterior.reparameterised:
        log_q = log_q.detach()
    log_p = model.prior.log_prob(trace.posterior.zeta, smoothing, unnormalised=unnormalised)
    log_likelihood = trace.likelihood.log_prob(x.repeat_interleave(draws, 0))
    return log_likelihood + log_p - log_q + trace.local_log_ratio()


@torch.no_grad()
def _joint_log_weight(
    model: Model, x: Float[Tensor, "batch pixels"], smoothing: Smoothing, draws: int, unnormalised: bool
) -> Float[Tensor, " weights"]:
    """log p(x | zeta) + log p(z) - log q(z | x, zeta_<), (z, zeta) ~ q(z, zeta | x): r(zeta | z) cancels."""
    trace = model(x, smoothing, draws)
    q = trace.posterior
    assert isinstance(q, Posterior)
    z = torch.bernoulli(q.nu)
    log_p = model.prior.log_prob_bits(z, q.zeta, unnormalised=unnormalised)
    log_q = hard(q.logits).log_prob(z).sum(-1)
    log_likelihood = trace.likelihood.log_prob(x.repeat_interleave(draws, 0))
    return log_likelihood + log_p - log_q + trace.local_log_ratio()


def importance_weighted(
    model: Model,
    x: Float[Tensor, "batch pixels"],
    num_samples: int,
    smoothing: Smoothing = hard,
    *,
    unnormalised: bool = False,
    noise: Float[Tensor, "2 weights bits"] | None = None,
) -> Float[Tensor, " batch"]:
    """E[log (1/K) sum_k w_k], w_k = p(x, zeta_k) / q(zeta_k | x): a bound, tends to log p(x) as K grows.

    Nats, shape (batch,). `hard` gives the likelihood of the binary model, which is what tables report. Its gradient
    reaches the prior and the decoder; none reaches the encoder through `hard`, which cannot be reparameterised. With an
    overlapping smoothing the bound is the smoothed model's and its gradient is whole; but for a Boltzmann prior too
    large to enumerate it has none (Burda et al. 2015). Such a prior's log Z must be that of its parameters as they are,
    else InputError is raised; `unnormalised` gives the bound + log Z, a loss with the bound's gradient, without it.
    `noise` as in `log_weight`, num_samples rows for each x, x by x.
    """
    num_samples = whole("num_samples", num_samples)
    log_weights = log_weight(model, x, smoothing, num_samples, unnormalised=unnormalised, noise=noise)
    return torch.logsumexp(log_weights.view(len(x), num_samples), 1) - math.log(num_samples)
