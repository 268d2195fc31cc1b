"""The variational bounds of Sections 4 and 5: one number per example, whose gradient is the estimator's.

With a Boltzmann prior too large to enumerate the value rests on `model.prior.estimate_log_partition()`. Objectives of
training, joint_elbo and marginal_elbo, take log Z as last estimated: before and between estimates they are losses, with
the same gradient. Likelihoods, log_weight and importance_weighted, are refused unless it is that of the parameters as
they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from dvaepp.models.base import Model
from dvaepp.objectives.base import BoundTerms, Objective
from dvaepp.priors.base import Prior
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.smoothings.base import Smoothing


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
    trace = model(x, noise=noise)
    JointBound().check_trace(trace, model)
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
    trace = model(x, noise=noise)
    MarginalBound().check_trace(trace, model)
    kl = trace.posterior.log_prob() - log_prior(model.prior, trace.posterior.zeta, model.smoothing)
    return BoundTerms(trace.likelihood.log_prob(x), kl, trace.local_kl_terms())


def log_prior(prior: Prior, zeta: Float[Tensor, "*batch bits"], smoothing: Smoothing) -> Float[Tensor, "*batch"]:
    """log p(zeta), of bits with log Z as last estimated: a loss goes on where a likelihood is refused."""
    if isinstance(prior, BoltzmannPrior) and smoothing.binary:
        return -prior.machine.energy(zeta) - prior.log_z()
    return prior.log_prob(zeta, smoothing)


@dataclass(frozen=True)
class JointBound(Objective):
    """E[log p(x | zeta)] - KL(q(z, zeta | x) || p(z, zeta)): `joint_elbo` (Eq. 4, 6)."""

    name: ClassVar[str] = "joint"

    def __call__(
        self, model: Model, x: Float[Tensor, "batch pixels"], noise: Float[Tensor, "2 batch bits"] | None = None
    ) -> BoundTerms:
        """`joint_terms`."""
        return joint_terms(model, x, noise=noise)

    def refusal(self, smoothing: Smoothing, prior: Prior, groups: int) -> str | None:
        """r(zeta | z) must be the same in q and p; an atom must lose no gradient that a Boltzmann prior needs."""
        if not smoothing.shared_conditional:
            return (
                f"{smoothing} has no joint bound, as its r(zeta | z) differs between q and p: use marginal_elbo (the "
                "marginal bound), with a directed prior"
            )
        if smoothing.has_atom and prior.joins_groups and groups > 1:
            return (
                f"the joint bound has no gradient through q(z | x, zeta) of {smoothing}, which a Boltzmann prior of "
                "several groups needs: use rolfe_elbo (the rolfe bound)"
            )
        return None


@dataclass(frozen=True)
class MarginalBound(Objective):
    """E[log p(x | zeta) - log q(zeta | x) + log p(zeta)], z summed out: `marginal_elbo` (Eq. 5)."""

    name: ClassVar[str] = "marginal"

    def __call__(
        self, model: Model, x: Float[Tensor, "batch pixels"], noise: Float[Tensor, "2 batch bits"] | None = None
    ) -> BoundTerms:
        """`marginal_terms`."""
        return marginal_terms(model, x, noise=noise)

    def refusal(self, smoothing: Smoothing, prior: Prior, groups: int) -> str | None:
        """log q(zeta | x) must not jump at an atom, and p(zeta) must have a density that can be had."""
        if smoothing.has_atom:
            return f"the marginal bound has no gradient at the atom of {smoothing}: use joint_elbo or rolfe_elbo"
        if not prior.has_density(smoothing):
            return (
                f"the marginal bound needs p(zeta), and under {smoothing} this {type(prior).__name__} has no tractable "
                "density: use joint_elbo (the joint bound), or a directed prior"
            )
        return None
