"""The variational bounds of Sections 4 and 5: one number per example, whose gradient is the estimator's.

With a Boltzmann prior too large to enumerate the value is a bound only after `model.prior.estimate_log_partition()`;
before it is a loss, with the same gradient.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.models.base import Model, Trace
from dvaepp.objectives.balancing import local_kl
from dvaepp.smoothings.base import Smoothing


def joint_elbo(
    model: Model, x: Float[Tensor, "batch pixels"], kl_weight: float = 1.0, *, balanced: bool = False
) -> Float[Tensor, " batch"]:
    """E_q(zeta|x)[log p(x | zeta)] - kl_weight KL(q(z, zeta | x) || p(z, zeta)), from one draw of zeta (Eq. 4; Sec. 5).

    Nats, shape (batch,). Local variables h join zeta, and their KL the KL; `balanced` weighs their groups by
    `balancing_weights` while kl_weight < 1.
    For directed priors the KL is a sum of Bernoulli divergences, for Boltzmann priors Eq. 6.
    Raises InputError for Concrete, whose r(zeta | z) differs between q and p; for a smoothing with an atom under a
    Boltzmann prior of several groups, where gradients through nu are lost: `rolfe_elbo` has them; and for `hard`, which
    has no gradient to the encoder, unless none is asked for (`torch.no_grad()`).
    """
    if not model.smoothing.shared_conditional:
        raise InputError(
            f"{model.smoothing} has no joint bound: its r(zeta | z) differs between q and p (use marginal_elbo, "
            "with a directed prior)"
        )
    trace = model(x)
    _check_gradient("joint_elbo", trace, model.smoothing)
    if model.smoothing.has_atom and model.prior.joins_groups and len(trace.posterior.groups) > 1:
        raise InputError(
            f"joint_elbo has no gradient through q(z | x, zeta) of {model.smoothing}, which a Boltzmann prior of "
            "several groups needs: use rolfe_elbo"
        )
    kl = model.prior.kl(trace.posterior) + local_kl(trace, balanced and kl_weight < 1)
    return trace.likelihood.log_prob(x) - kl_weight * kl


def marginal_elbo(
    model: Model, x: Float[Tensor, "batch pixels"], kl_weight: float = 1.0, *, balanced: bool = False
) -> Float[Tensor, " batch"]:
    """E_q(zeta|x)[log p(x | zeta) - kl_weight (log q(zeta | x) - log p(zeta))], z summed out, from one draw (Eq. 5).

    Nats, shape (batch,). Tighter than `joint_elbo`. Raises InputError for a Boltzmann prior too large to enumerate: its
    p(zeta) has no tractable density under a soft smoothing; for a smoothing with an atom, whose log q(zeta | x) jumps
    there, so that its gradient is lost; and for `hard` as in joint_elbo.
    """
    if model.smoothing.has_atom:
        raise InputError(
            f"marginal_elbo has no gradient at the atom of {model.smoothing}: use joint_elbo or rolfe_elbo"
        )
    trace = model(x)
    _check_gradient("marginal_elbo", trace, model.smoothing)
    kl = trace.posterior.log_prob() - model.prior.log_prob(trace.posterior.zeta, model.smoothing)
    return trace.likelihood.log_prob(x) - kl_weight * (kl + local_kl(trace, balanced and kl_weight < 1))


def _check_gradient(bound: str, trace: Trace, smoothing: Smoothing) -> None:
    """InputError where the encoder would be trained on half an estimator."""
    if torch.is_grad_enabled() and not trace.reparameterised:
        raise InputError(
            f"{bound} has no gradient to the encoder through {smoothing}: take its value under torch.no_grad(), or "
            "train with another smoothing, such as StraightThrough()"
        )
