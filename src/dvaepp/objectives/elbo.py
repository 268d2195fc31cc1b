"""The evidence lower bound of bits themselves, its gradient by any estimator of `dvaepp.estimators` (Eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.components.registry import OF_DATA
from dvaepp.errors import InputError
from dvaepp.estimators.base import Estimator, EstimatorDesign
from dvaepp.estimators.straight_through import ReinMax
from dvaepp.models.base import Model, check_input
from dvaepp.models.encoders import HierarchicalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.numerics import check_noise
from dvaepp.objectives.base import BoundTerms, Objective
from dvaepp.objectives.nested import Drawn, Numbers, Pass, mean_at_draws
from dvaepp.priors.base import Prior
from dvaepp.priors.directed import DirectedPrior
from dvaepp.priors.normal import NormalPrior
from dvaepp.smoothings.base import Smoothing

_SAMPLED = "set analytic_kl=False (objective.analytic_kl=false)"


def elbo(
    model: Model,
    x: Float[Tensor, "batch pixels"],
    estimator: Estimator,
    analytic_kl: bool = True,
    kl_weight: float = 1.0,
    *,
    noise: Float[Tensor, "uniforms batch bits"] | None = None,
) -> Float[Tensor, " batch"]:
    """E_q(z|x)[log p(x | z)] - kl_weight KL(q(z | x) || p(z)) at the estimator's draws of z, with its gradient (Eq. 1).

    Nats, shape (batch,). The model's smoothing takes no part. The other arguments, and errors, are those of
    `elbo_terms`; a kl_weight other than 1 needs the analytic KL.

    >>> import dvaepp
    >>> encoder, prior = dvaepp.HierarchicalEncoder(dvaepp.dense(12, 4)), dvaepp.BernoulliPrior(4)
    >>> model = dvaepp.FeedForwardVAE(encoder, prior, dvaepp.dense(4, 12), dvaepp.hard)
    >>> elbo(model, torch.zeros(5, 12), dvaepp.estimators.LeaveOneOut()).shape
    torch.Size([5])
    """
    if not analytic_kl and kl_weight != 1:
        raise InputError(
            f"kl_weight={kl_weight} needs analytic_kl=True: without it the KL lies inside the estimator's f"
        )
    return elbo_terms(model, x, estimator, analytic_kl, noise=noise).bound(kl_weight)


def elbo_terms(
    model: Model,
    x: Float[Tensor, "batch pixels"],
    estimator: Estimator,
    analytic_kl: bool = True,
    *,
    noise: Float[Tensor, "uniforms batch bits"] | None = None,
) -> BoundTerms:
    """log p(x | z) and KL(q(z | x) || p(z)), with the estimator's gradient: `elbo_with_loss` without its loss."""
    return elbo_with_loss(model, x, estimator, analytic_kl, noise=noise)[0]


def elbo_with_loss(
    model: Model,
    x: Float[Tensor, "batch pixels"],
    estimator: Estimator,
    analytic_kl: bool = True,
    *,
    noise: Float[Tensor, "uniforms batch bits"] | None = None,
) -> tuple[BoundTerms, Float[Tensor, ""]]:
    """The terms of `elbo`, and the loss of what the estimator learns (`Estimator.with_loss`), whose context is x.

    With `analytic_kl` f(z) = log p(x | z) and the KL stands beside it in closed form, a later group's given the draws
    of the earlier ones. Without it f(z) = log p(x, z) - log q(z | x), all inside: the terms show log q - log p at the
    draws for the KL, without gradient, and only their `bound(1)` is meant. Of relaxed bits all probabilities are those
    of bits, evaluated off the corners (the Concrete objective of Tucker et al. 2017): a loss, and no bound.

    Several groups nest, E_1[f(z_1)] with f(z_1) = E_2[f(z_1, z_2)] as estimated, so that decoder evaluations are draws
    to the power of the groups. `noise`: `Elbo.uniforms` uniform numbers for each bit. Batch norm in training mode mixes
    rows, and makes an estimator approximate.

    InputError for a model that is no FeedForwardVAE of bits; for one that takes tangents or flips and a decoder with
    batch norm in training mode; for an estimator that does not nest and several groups; for VIMCO with the analytic
    KL, whose bound needs all inside; for the analytic KL of a Boltzmann prior over several groups, or of a directed
    prior over other groups than the encoder's, which have no closed form.
    """
    objective = Elbo(analytic_kl).with_estimator(estimator)
    objective.groups(model)
    assert isinstance(model, FeedForwardVAE)
    check_input(model, "x", x)
    if noise is not None:
        check_noise(noise)
        check_noise(noise, (objective.uniforms(model), len(x), noise.shape[-1]), x.dtype)
    numbers, nothing = Numbers(estimator.uniforms, len(x), noise), Drawn.nothing(model, x)
    main = Pass(model, estimator.with_loss, analytic_kl, numbers)
    value = main.expectation(nothing)
    beside = main.kl(nothing) if analytic_kl else torch.zeros_like(value)
    within = _kl_within(main, estimator, nothing)
    return BoundTerms(value + within, beside + within, x.new_zeros(len(x), 0)), torch.stack(main.losses).sum()


def _kl_within(main: Pass, estimator: Estimator, nothing: Drawn) -> Float[Tensor, " batch"]:
    """What of the KL lies inside f: if it is analytic that of later groups, else all, at the draws, without gradient.

    That of later groups is estimated once more, for KL weights other than 1: without a baseline, which is f's.
    """
    again = replace(main, likelihood=False, losses=[], kl_terms=[])
    if not main.analytic_kl:
        with torch.no_grad():
            return -replace(again, estimate=mean_at_draws(estimator)).expectation(nothing)
    if main.is_last(nothing):
        return nothing.x.new_zeros(len(nothing.x))
    return -replace(again, estimate=estimator.plain.with_loss).expectation(nothing)


@dataclass(frozen=True)
class Elbo(Objective):
    """E[log p(x | z)] - KL(q(z | x) || p(z)) of bits, its gradient an estimator's: `elbo` (Eq. 1, Table 1).

    `estimator` is plain settings, of which `build` makes the estimator; `with_estimator` takes one that is made.

    >>> from dvaepp.estimators import LeaveOneOut, NVILDesign
    >>> Elbo(estimator=NVILDesign()).build(bits=4, mean=torch.zeros(12)).learned is None
    False
    >>> Elbo().with_estimator(LeaveOneOut()).learned is None
    True
    """

    name: ClassVar[str] = "elbo"
    convolutional: ClassVar[bool] = False
    analytic_kl: bool = True
    estimator: EstimatorDesign = field(default_factory=ReinMax)
    built: Estimator | None = field(default=None, metadata=OF_DATA)

    def build(self, bits: int, mean: Float[Tensor, " pixels"]) -> Elbo:
        """With its estimator made."""
        return self.with_estimator(self.estimator.build(bits, mean))

    def with_estimator(self, estimator: Estimator) -> Elbo:
        """The same with this estimator."""
        return replace(self, built=estimator)

    @property
    def learned(self) -> nn.Module | None:
        """The estimator, where it learns."""
        return self.built if isinstance(self.built, nn.Module) else None

    def __call__(
        self, model: Model, x: Float[Tensor, "batch pixels"], noise: Float[Tensor, "uniforms batch bits"] | None = None
    ) -> BoundTerms:
        """`elbo_terms`."""
        return self.with_loss(model, x, noise)[0]

    def with_loss(
        self, model: Model, x: Float[Tensor, "batch pixels"], noise: Float[Tensor, "uniforms batch bits"] | None = None
    ) -> tuple[BoundTerms, Float[Tensor, ""]]:
        """`elbo_with_loss`."""
        return elbo_with_loss(model, x, self._estimator, self.analytic_kl, noise=noise)

    def uniforms(self, model: Model) -> int:
        """What the last group takes."""
        return self.drawn(None, self.groups(model) - 1)

    def drawn(self, q: Any, group: int) -> int:
        """The estimator's, times its draws for each group before."""
        return self._estimator.uniforms * int(self._estimator.draws**group)

    @property
    def weighs_kl(self) -> bool:
        """Where the KL stands beside f."""
        return self.analytic_kl

    def groups(self, model: Model) -> int:
        """The model's groups; InputError unless it is one whose bits this can draw."""
        if not (isinstance(model, FeedForwardVAE) and isinstance(model.encoder, HierarchicalEncoder)):
            raise InputError(
                f"the elbo objective is for a FeedForwardVAE of bits, not this {type(model).__name__}: use joint_elbo"
            )
        groups: int = len(model.encoder.levels)
        self.check(model.smoothing, model.prior, groups, reparameterised=True)
        beside = self._estimator.tangents or self._estimator.flips
        if beside and any(_trains_batch_norm(module) for module in model.decoder.modules()):
            raise InputError(
                f"{type(self._estimator).__name__} evaluates the decoder beside its draws, and batch norm that "
                "trains would count that: use a decoder without (model.batch_norm=false), or another estimator"
            )
        return groups

    def refusal(self, smoothing: Smoothing, prior: Prior, groups: int) -> str | None:
        """Several groups need an estimator that nests, and the analytic KL a closed form beside f."""
        if isinstance(prior, NormalPrior):
            return "the elbo objective is for bits, not for normal variables: use joint_elbo (the joint bound)"
        estimator = self.estimator.makes if self.built is None else type(self.built)
        if groups > 1 and not estimator.nests:
            return (
                f"{estimator.__name__} has no gradient for {groups} groups of bits: use one group, or a "
                "score-function estimator, such as LeaveOneOut (estimator.name=leave-one-out)"
            )
        return self._kl_refusal(estimator, prior, groups) if self.analytic_kl else None

    def _kl_refusal(self, estimator: type[Estimator], prior: Prior, groups: int) -> str | None:
        if estimator.importance:
            name = estimator.__name__
            return f"{name} is a bound of importance weights, beside which no KL can stand: {_SAMPLED}"
        if prior.joins_groups and groups > 1:
            return f"the KL of {groups} groups to a {type(prior).__name__} has no closed form: {_SAMPLED}"
        if isinstance(prior, DirectedPrior) and len(prior.networks) != groups - 1:
            return (
                f"the KL of {groups} groups of the encoder to a DirectedPrior of {len(prior.networks) + 1} has no "
                f"closed form: give both the same groups, or {_SAMPLED}"
            )
        return None

    def check(self, smoothing: Smoothing, prior: Prior, groups: int, reparameterised: bool) -> None:
        """InputError where there is a refusal; the smoothing takes no part."""
        if (why := self.refusal(smoothing, prior, groups)) is not None:
            raise InputError(why)

    @property
    def _estimator(self) -> Estimator:
        if self.built is None:
            raise InputError("the elbo objective needs its estimator: Elbo().with_estimator(LeaveOneOut()), say")
        return self.built


def _trains_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
