"""The discrete variational autoencoder of Rolfe (2016): a spike at zeta = 0, and the gradient that is lost in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from dvaepp.gradients import replace_gradient
from dvaepp.models.base import Model
from dvaepp.objectives.base import BoundTerms, Objective
from dvaepp.priors.base import Prior
from dvaepp.priors.boltzmann import BoltzmannPrior, expected_energy
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.posterior import Posterior


def rolfe_elbo(
    model: Model,
    x: Float[Tensor, "batch pixels"],
    kl_weight: float = 1.0,
    *,
    balanced: bool = False,
    noise: Float[Tensor, "2 batch bits"] | None = None,
) -> Float[Tensor, " batch"]:
    """E[log p(x | zeta)] - kl_weight (log Z - H(q) + E[E(z)]), the energy's gradient by hand (Rolfe 2016, Eq. 11, 12).

    Nats, shape (batch,). The value is the bound's, as `joint_elbo`'s is, and so are `balanced` and `noise`. Raises
    InputError as `rolfe_terms` does.
    """
    return rolfe_terms(model, x, noise=noise).of_batch(kl_weight, balanced)


def rolfe_terms(
    model: Model, x: Float[Tensor, "batch pixels"], *, noise: Float[Tensor, "2 batch bits"] | None = None
) -> BoundTerms:
    """log p(x | zeta) and log Z - H(q) + E[E(z)], from one draw of zeta: the terms of `rolfe_elbo`.

    For a Boltzmann prior and a smoothing with an atom at zeta = 0, such as SpikeExponential, where z = 1[zeta != 0] is
    known and the energy of groups before the last is a step function of zeta: `lost_gradient`. Every other term is
    reparameterised. Raises InputError for other priors and smoothings, which joint_terms serves.
    """
    trace = model(x, noise=noise)
    RolfeBound().check_trace(trace, model)
    q = trace.posterior
    assert isinstance(q, Posterior)
    assert isinstance(model.prior, BoltzmannPrior)
    energy = expected_energy(model.prior.machine, q, nu=lost_gradient(q))
    kl = model.prior.log_z() - q.entropy() + energy
    return BoundTerms(trace.likelihood.log_prob(x), kl, trace.local_kl_terms())


def lost_gradient(q: Posterior) -> Float[Tensor, "*batch bits"]:
    """z = 1[zeta != 0] in value, with (1 - z) / (1 - q) dq as its gradient: the one that makes z f(zeta) unbiased.

    For one bit and any f that is continuous in zeta, E[z f(zeta)] = q E[f(zeta) | z = 1], so d/dq is E[f | z = 1]. The
    reparameterised f(zeta), weighted by z, contributes E[z df/dzeta dzeta/dq] = E[f | z = 1] - f(0), since zeta stays
    at 0 wherever z = 0. What is missing is f(0) = E[(1 - z) / (1 - q) f(zeta)], and with dq = q (1 - q) dlogit the
    weight is (1 - z) q dlogit, finite for every q. In E[E(z)] each z stands once, times the mean of a later bit.
    """
    z = q.nu.detach()
    return replace_gradient(z, ((1 - z) * q.mu).detach() * q.logits)


@dataclass(frozen=True)
class RolfeBound(Objective):
    """E[log p(x | zeta)] - log Z + H(q) - E[E(z)], the energy's gradient by hand: `rolfe_elbo` (Rolfe 2016)."""

    name: ClassVar[str] = "rolfe"

    def __call__(
        self, model: Model, x: Float[Tensor, "batch pixels"], noise: Float[Tensor, "2 batch bits"] | None = None
    ) -> BoundTerms:
        """`rolfe_terms`."""
        return rolfe_terms(model, x, noise=noise)

    def refusal(self, smoothing: Smoothing, prior: Prior, groups: int) -> str | None:
        """The prior must be a Boltzmann machine, and the smoothing have an atom at 0."""
        if not isinstance(prior, BoltzmannPrior):
            return (
                f"the rolfe bound is for a BoltzmannPrior, not a {type(prior).__name__}: use joint_elbo (the joint "
                "bound)"
            )
        if not smoothing.has_atom:
            return f"the rolfe bound is for a smoothing with an atom, such as SpikeExponential, not {smoothing}"
        return None
