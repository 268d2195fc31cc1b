"""The variational bounds of Sections 4 and 5: one number per example, whose gradient is the estimator's.

With a Boltzmann prior too large to enumerate the value rests on `model.prior.estimate_log_partition()`. Objectives of
training, joint_elbo and marginal_elbo, take log Z as last estimated: before and between estimates they are losses, with
the same gradient. Likelihoods, log_weight and importance_weighted, are refused unless it is that of the parameters as
they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.models.base import Model, Trace
from dvaepp.objectives.balancing import balancing_weights
from dvaepp.priors.base import Prior
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.smoothings.base import Smoothing


@dataclass(frozen=True)
class BoundTerms:
    """A bound in parts, log_likelihood - global_kl - sum_j local_kl_terms_j, nats, at one draw for every example.

    log_likelihood (batch,): log p(x | zeta). global_kl (batch,): the KL of the global variables, or log q - log p at
    the draw, whose mean it is. local_kl_terms (batch, groups): the same of every local group. Of means, no batch axis.
    """

    log_likelihood: Float[Tensor, "*batch"]
    global_kl: Float[Tensor, "*batch"]
    local_kl_terms: Float[Tensor, "*batch groups"]

    def bound(self, kl_weight: float = 1.0, weights: Float[Tensor, " groups"] | None = None) -> Float[Tensor, "*batch"]:
        """log_likelihood - kl_weight kl(weights): the bound where both are 1, else what a warm-up trains on."""
        return self.log_likelihood - kl_weight * self.kl(weights)

    def kl(self, weights: Float[Tensor, " groups"] | None = None) -> Float[Tensor, "*batch"]:
        """global_kl + sum_j weights_j local_kl_terms_j; without weights each is 1, and with them it is no bound's."""
        return self.global_kl + (self.local_kl_terms if weights is None else weights * self.local_kl_terms).sum(-1)

    def of_batch(self, kl_weight: float, balanced: bool) -> Float[Tensor, "*batch"]:
        """The bound with this KL weight, its local groups balanced by this batch alone if they are to be."""
        return self.bound(kl_weight, self.balancing(kl_weight) if balanced else None)

    def balancing(
        self, kl_weight: float, average: Callable[[Tensor], Tensor] = lambda mean: mean
    ) -> Float[Tensor, " groups"] | None:
        """`balancing_weights` of the batch while kl_weight < 1; from 1 on None, so that a bound is a bound.

        `average` makes the means of the whole batch of this batch's, where several processes share it.
        """
        return balancing_weights(average(self.local_kl_terms.detach().mean(0))) if kl_weight < 1 else None

    def mean(self, average: Callable[[Tensor], Tensor] = lambda mean: mean) -> BoundTerms:
        """The mean of every term over the batch; `average` as in `balancing`."""
        parts = (self.log_likelihood, self.global_kl, self.local_kl_terms)
        return BoundTerms(*(average(part.mean(0)) for part in parts))


Objective = Callable[[Model, Tensor], BoundTerms]
"""What trains a model: the terms of a bound, from a batch."""


def joint_elbo(
    model: Model,
    x: Float[Tensor, "batch pixels"],
    kl_weight: float = 1.0,
    *,
    balanced: bool = False,
    noise: Float[Tensor, "2 batch bits"] | None = None,
) -> Float[Tensor, " batch"]:
    """E_q(zeta|x)[log p(x | zeta)] - kl_weight KL(q(z, zeta | x) || p(z, zeta)), from one draw of zeta (Eq. 4; Sec. 5).

    Nats, shape (batch,). Local variables h join zeta, and their KL the KL; `balanced` weighs their groups by
    `balancing_weights` of this batch while kl_weight < 1. `noise`: the uniform numbers that zeta is made of, as in
    `Model.forward`. Raises InputError as `joint_terms` does.
    """
    return joint_terms(model, x, noise=noise).of_batch(kl_weight, balanced)


def joint_terms(
    model: Model, x: Float[Tensor, "batch pixels"], *, noise: Float[Tensor, "2 batch bits"] | None = None
) -> BoundTerms:
    """log p(x | zeta) and KL(q(z, zeta | x) || p(z, zeta)), from one draw of zeta: the terms of `joint_elbo`.

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
    trace = model(x, noise=noise)
    _check_gradient("joint_elbo", trace, model.smoothing)
    if model.smoothing.has_atom and model.prior.joins_groups and len(trace.posterior.groups) > 1:
        raise InputError(
            f"joint_elbo has no gradient through q(z | x, zeta) of {model.smoothing}, which a Boltzmann prior of "
            "several groups needs: use rolfe_elbo"
        )
    kl = model.prior.kl(trace.posterior)
    return BoundTerms(trace.likelihood.log_prob(x), kl, trace.local_kl_terms())


def marginal_elbo(
    model: Model,
    x: Float[Tensor, "batch pixels"],
    kl_weight: float = 1.0,
    *,
    balanced: bool = False,
    noise: Float[Tensor, "2 batch bits"] | None = None,
) -> Float[Tensor, " batch"]:
    """E_q(zeta|x)[log p(x | zeta) - kl_weight (log q(zeta | x) - log p(zeta))], z summed out, from one draw (Eq. 5).

    Nats, shape (batch,). Tighter than `joint_elbo`; `balanced` and `noise` as there. Raises InputError as
    `marginal_terms` does.
    """
    return marginal_terms(model, x, noise=noise).of_batch(kl_weight, balanced)


def marginal_terms(
    model: Model, x: Float[Tensor, "batch pixels"], *, noise: Float[Tensor, "2 batch bits"] | None = None
) -> BoundTerms:
    """log p(x | zeta) and log q(zeta | x) - log p(zeta), z summed out, from one draw: the terms of `marginal_elbo`.

    Raises InputError for a Boltzmann prior too large to enumerate: its p(zeta) has no tractable density under a soft
    smoothing; for a smoothing with an atom, whose log q(zeta | x) jumps there, so that its gradient is lost; and for
    `hard` as in joint_terms.
    """
    if model.smoothing.has_atom:
        raise InputError(
            f"marginal_elbo has no gradient at the atom of {model.smoothing}: use joint_elbo or rolfe_elbo"
        )
    trace = model(x, noise=noise)
    _check_gradient("marginal_elbo", trace, model.smoothing)
    kl = trace.posterior.log_prob() - _log_prior(model.prior, trace.posterior.zeta, model.smoothing)
    return BoundTerms(trace.likelihood.log_prob(x), kl, trace.local_kl_terms())


def _log_prior(prior: Prior, zeta: Float[Tensor, "batch bits"], smoothing: Smoothing) -> Float[Tensor, " batch"]:
    """log p(zeta), of bits with log Z as last estimated: a loss goes on where a likelihood is refused."""
    if isinstance(prior, BoltzmannPrior) and smoothing.binary:
        return -prior.machine.energy(zeta) - prior.log_z()
    return prior.log_prob(zeta, smoothing)


def _check_gradient(bound: str, trace: Trace, smoothing: Smoothing) -> None:
    """InputError where the encoder would be trained on half an estimator."""
    if torch.is_grad_enabled() and not trace.reparameterised:
        raise InputError(
            f"{bound} has no gradient to the encoder through {smoothing}: take its value under torch.no_grad(), or "
            "train with another smoothing, such as StraightThrough()"
        )
