"""The variational bounds of Sections 4 and 5: one number per example, whose gradient is the estimator's.

With a Boltzmann prior too large to enumerate the value is a bound only after `model.prior.estimate_log_partition()`;
before it is a loss, with the same gradient.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp import distributed
from dvaepp.errors import InputError
from dvaepp.latent.hard import hard
from dvaepp.latent.normal import NormalPrior
from dvaepp.latent.posterior import Posterior
from dvaepp.latent.smoothing import Smoothing
from dvaepp.models.trace import Model, Trace


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


def local_kl(trace: Trace, balanced: bool = False) -> Float[Tensor, " batch"]:
    """sum_j KL_j of the local groups, nats, or with `balanced` sum_j alpha_j KL_j: then it is no bound's."""
    terms = trace.local_kl_terms()
    return (balancing_weights(terms) * terms if balanced else terms).sum(-1)


def balancing_weights(kl_terms: Float[Tensor, "batch groups"]) -> Float[Tensor, " groups"]:
    """alpha_j = N a_j / sum_k a_k, a_j = mean over the whole batch of KL_j, + .1 nats; no gradient (Appendix H).

    A mean below 0, as estimates can have, counts as 0.

    Groups that say little pay less for it, and those that say much pay more, so that all of the N come to be used.
    """
    size = distributed.mean(kl_terms.detach().mean(0)).clamp(min=0) + 0.1
    return len(size) * size / size.sum()


def _check_gradient(bound: str, trace: Trace, smoothing: Smoothing) -> None:
    """InputError where the encoder would be trained on half an estimator."""
    if torch.is_grad_enabled() and not trace.reparameterised:
        raise InputError(
            f"{bound} has no gradient to the encoder through {smoothing}: take its value under torch.no_grad(), or "
            "train with another smoothing, such as StraightThrough()"
        )


def log_weight(
    model: Model, x: Float[Tensor, "batch pixels"], smoothing: Smoothing, draws: int = 1
) -> Float[Tensor, " weights"]:
    """log p(x | zeta) + log p(zeta) - log q(zeta | x) for each draw zeta ~ q(zeta | x) under the smoothing.

    Nats, shape (batch * draws,), x by x; with local variables log p(h | zeta) - log q(h | x, zeta) is in it. With
    `hard`, zeta = z, and no gradient reaches the encoder: there is no reparameterisation. Where p(zeta) is intractable
    (a soft smoothing, a large Boltzmann prior), or the smoothing has an atom, it is the joint weight, without gradient.
    Raises InputError for Concrete with a Boltzmann prior, which has neither.
    """
    joint = smoothing.shared_conditional and (smoothing.has_atom or not model.prior.has_density(smoothing))
    if joint and not isinstance(model.prior, NormalPrior):
        return _joint_log_weight(model, x, smoothing, draws)
    trace = model(x, smoothing, draws)
    log_q = trace.posterior.log_prob()
    if not trace.posterior.reparameterised:
        log_q = log_q.detach()
    log_p = model.prior.log_prob(trace.posterior.zeta, smoothing)
    log_likelihood = trace.likelihood.log_prob(x.repeat_interleave(draws, 0))
    return log_likelihood + log_p - log_q + trace.local_log_ratio()


@torch.no_grad()
def _joint_log_weight(
    model: Model, x: Float[Tensor, "batch pixels"], smoothing: Smoothing, draws: int
) -> Float[Tensor, " weights"]:
    """log p(x | zeta) + log p(z) - log q(z | x, zeta_<), (z, zeta) ~ q(z, zeta | x): r(zeta | z) cancels."""
    trace = model(x, smoothing, draws)
    q = trace.posterior
    assert isinstance(q, Posterior)
    z = torch.bernoulli(q.nu)
    log_p = model.prior.log_prob_bits(z, q.zeta)
    log_q = hard(q.logits).log_prob(z).sum(-1)
    log_likelihood = trace.likelihood.log_prob(x.repeat_interleave(draws, 0))
    return log_likelihood + log_p - log_q + trace.local_log_ratio()


def importance_weighted(
    model: Model, x: Float[Tensor, "batch pixels"], num_samples: int, smoothing: Smoothing = hard
) -> Float[Tensor, " batch"]:
    """E[log (1/K) sum_k w_k], w_k = p(x, zeta_k) / q(zeta_k | x): a bound, tends to log p(x) as K grows.

    Nats, shape (batch,); a loss before log Z has been estimated. `hard` gives the likelihood of the binary model,
    which is what tables report. Its gradient reaches the prior and the decoder; none reaches the encoder through
    `hard`, which cannot be reparameterised. With an overlapping smoothing the bound is the smoothed model's and its
    gradient is whole; but for a Boltzmann prior too large to enumerate it has none (Burda et al. 2015).
    """
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 1:
        raise InputError(f"num_samples must be a positive whole number, not {num_samples!r}")
    log_weights = log_weight(model, x, smoothing, num_samples)
    return torch.logsumexp(log_weights.view(len(x), num_samples), 1) - math.log(num_samples)
