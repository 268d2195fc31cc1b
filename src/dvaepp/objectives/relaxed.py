"""Relaxed Boltzmann priors: DVAE# (Vahdat et al. 2018b) and GumBolt (Khoshaman & Amin 2018), importance-weighted too.

Both train on K >= 1 weights for each example, log 1/K sum_k exp(log p(x | zeta_k) - kl_weight (log q - log p)(zeta_k)).
Their values rest on log Z as last estimated, as those of `bounds` do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.models.base import Model, Trace
from dvaepp.numerics import keep_plain, whole
from dvaepp.objectives.base import BoundTerms, Objective
from dvaepp.priors.base import Prior
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.priors.relaxed import mean_field_log_partition
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.concrete import Concrete
from dvaepp.smoothings.overlapping import Overlapping
from dvaepp.smoothings.posterior import Posterior


def mean_field_terms(
    model: Model,
    x: Float[Tensor, "batch pixels"],
    draws: int = 1,
    sweeps: int = 5,
    *,
    noise: Float[Tensor, "uniforms batch bits"] | None = None,
) -> BoundTerms:
    """log p(x | zeta) and log q(zeta | x) - log p(zeta), log p(zeta) >= -log Z + `mean_field_log_partition`.

    The marginal bound (Eq. 5), or the importance-weighted one of several draws, from below: equal but for the mean
    field's gap, which closes as smoothings sharpen. In float32 zeta ends 6e-8 below 1, so that power functions say at
    most 16 nats for z = 1: where a bit's field in the prior is beyond -16 and q still says 1, the difference is too
    small. `noise`: 2 `draws` uniform numbers for each bit. Raises InputError
    for a prior that is no Boltzmann machine, and for a smoothing that is no pair of densities.
    """
    trace = _trace(MeanFieldBound(draws, sweeps), model, x, noise)
    prior, smoothing, zeta = model.prior, model.smoothing, trace.posterior.zeta
    assert isinstance(prior, BoltzmannPrior)
    assert isinstance(smoothing, Overlapping)
    of_zeta = mean_field_log_partition(prior.machine, smoothing.log_prob0(zeta), smoothing.log_prob1(zeta), sweeps)
    return _weighted(trace, x, trace.posterior.log_prob() - (of_zeta - prior.log_z()), draws)


def gumbolt_terms(
    model: Model,
    x: Float[Tensor, "batch pixels"],
    draws: int = 1,
    *,
    noise: Float[Tensor, "uniforms batch bits"] | None = None,
) -> BoundTerms:
    """log p(x | zeta) and sum_k [zeta_k l_k - softplus(l_k)] - (-E(zeta) - log Z), zeta Concrete, l_k q's logits.

    Log-probabilities of bits, evaluated off the corners. Since E is multilinear the integral of exp(-E(zeta)) over the
    cube is at most Z (Khoshaman & Amin 2018), even Z / 2^bits, so that the prior's part is a log density from below, by
    log 2 for each bit or more; q's is none, so that the value is a loss and no bound. `noise`: 2 `draws` uniform
    numbers for each bit. Raises InputError for a prior that is no Boltzmann machine, and for other smoothings.
    """
    trace = _trace(GumBolt(draws), model, x, noise)
    q, prior = trace.posterior, model.prior
    assert isinstance(q, Posterior)
    assert isinstance(prior, BoltzmannPrior)
    log_q = (q.zeta * F.logsigmoid(q.logits) + (1 - q.zeta) * F.logsigmoid(-q.logits)).sum(-1)
    return _weighted(trace, x, log_q + prior.machine.energy(q.zeta) + prior.log_z(), draws)


def _trace(objective: _Weighted, model: Model, x: Tensor, noise: Tensor | None) -> Trace:
    """A pass with the objective's draws for each example; InputError where the model has no such bound."""
    rows = objective.draws * len(x)
    given = None if noise is None else noise.reshape(2, rows, noise.shape[-1])
    trace = model(x, draws=objective.draws, noise=given)
    objective.check_trace(trace, model)
    if trace.local:
        raise InputError(
            f"the {objective.name} bound is for models without local variables: use joint_elbo (the joint bound)"
        )
    return trace


def _weighted(trace: Trace, x: Tensor, kl: Tensor, draws: int) -> BoundTerms:
    log_likelihood = trace.likelihood.log_prob(x.repeat_interleave(draws, 0))
    return BoundTerms(log_likelihood, kl, kl.new_zeros(len(kl), 0), draws)


class _Weighted(Objective):
    """A loss of `draws` importance weights for each example, of feed-forward models."""

    convolutional: ClassVar[bool] = False
    draws: int

    def uniforms(self, model: Model) -> int:
        """Two for each draw."""
        return 2 * self.draws

    def drawn(self, q: Any, group: int) -> int:
        """Those of a draw, for each."""
        return self.draws * super().drawn(q, group)


@dataclass(frozen=True)
class MeanFieldBound(_Weighted):
    """E[log 1/K sum_k p(x | zeta_k) p(zeta_k) / q(zeta_k | x)], log p(zeta) by mean field: DVAE# (Vahdat et al. 2018b).

    K is `draws`, and `sweeps` are those of mean field.
    """

    name: ClassVar[str] = "mean-field"
    draws: int = 1
    sweeps: int = 5

    def __post_init__(self) -> None:
        keep_plain(self)
        whole("draws", self.draws)
        whole("sweeps", self.sweeps)

    def __call__(
        self, model: Model, x: Float[Tensor, "batch pixels"], noise: Float[Tensor, "uniforms batch bits"] | None = None
    ) -> BoundTerms:
        """`mean_field_terms`."""
        return mean_field_terms(model, x, self.draws, self.sweeps, noise=noise)

    def refusal(self, smoothing: Smoothing, prior: Prior, groups: int) -> str | None:
        """The prior must be a Boltzmann machine, and the smoothing a pair of densities."""
        if not isinstance(prior, BoltzmannPrior):
            return (
                f"the mean-field bound is for a BoltzmannPrior, not a {type(prior).__name__}: use marginal_elbo (the "
                "marginal bound)"
            )
        if not isinstance(smoothing, Overlapping):
            return (
                f"the mean-field bound needs densities r(zeta | z) that overlap, which {smoothing} has not: use "
                "another smoothing, such as PowerFunction(30) (power)"
            )
        return None


@dataclass(frozen=True)
class GumBolt(_Weighted):
    """log 1/K sum_k p(x | zeta_k) p(zeta_k) / q(zeta_k | x) with p and q of bits: GumBolt (Khoshaman & Amin 2018).

    K is `draws`. For Concrete smoothing, its temperature 1/7 in work on annealers.
    """

    name: ClassVar[str] = "gumbolt"
    draws: int = 1

    def __post_init__(self) -> None:
        keep_plain(self)
        whole("draws", self.draws)

    def __call__(
        self, model: Model, x: Float[Tensor, "batch pixels"], noise: Float[Tensor, "uniforms batch bits"] | None = None
    ) -> BoundTerms:
        """`gumbolt_terms`."""
        return gumbolt_terms(model, x, self.draws, noise=noise)

    def refusal(self, smoothing: Smoothing, prior: Prior, groups: int) -> str | None:
        """The prior must be a Boltzmann machine, and its bits be relaxed by Concrete."""
        if not isinstance(prior, BoltzmannPrior):
            return (
                f"GumBolt is for a BoltzmannPrior, not a {type(prior).__name__}: use marginal_elbo (the marginal bound)"
            )
        if not isinstance(smoothing, Concrete):
            return f"GumBolt is for the smoothing Concrete(1 / 7) (concrete), not {smoothing}"
        return None
