"""The contract of objectives: a bound in parts, and what it needs of a model."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.components.registry import Component
from dvaepp.errors import InputError
from dvaepp.models.base import Model, Trace
from dvaepp.objectives.balancing import balancing_weights
from dvaepp.priors.base import Prior
from dvaepp.smoothings.base import BitDistribution, Smoothing


@dataclass(frozen=True)
class BoundTerms:
    """A bound in parts, log_likelihood - global_kl - sum_j local_kl_terms_j, nats, at one draw for every example.

    log_likelihood (rows,): log p(x | zeta). global_kl (rows,): the KL of the global variables, or log q - log p at
    the draw, whose mean it is. local_kl_terms (rows, groups): the same of every local group. Of means, no axis of rows.
    An importance-weighted bound has `draws` rows for each example, x by x, else one.
    """

    log_likelihood: Float[Tensor, "*batch"]
    global_kl: Float[Tensor, "*batch"]
    local_kl_terms: Float[Tensor, "*batch groups"]
    draws: int = 1

    def bound(
        self, kl_weight: float | Tensor = 1.0, weights: Float[Tensor, " groups"] | None = None
    ) -> Float[Tensor, "*examples"]:
        """log 1/K sum_k exp(log_likelihood - kl_weight kl(weights)) over the K draws of each example.

        The bound where both are 1, else what a warm-up trains on. Of one draw it is the exponent.
        """
        log_weights = self.log_likelihood - kl_weight * self.kl(weights)
        if self.draws == 1:
            return log_weights
        return log_weights.view(-1, self.draws).logsumexp(1) - math.log(self.draws)

    def kl(self, weights: Float[Tensor, " groups"] | None = None) -> Float[Tensor, "*batch"]:
        """global_kl + sum_j weights_j local_kl_terms_j; without weights each is 1, and with them it is no bound's."""
        return self.global_kl + (self.local_kl_terms if weights is None else weights * self.local_kl_terms).sum(-1)

    def of_batch(self, kl_weight: float, balanced: bool) -> Float[Tensor, "*examples"]:
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
        log_likelihood, kl, local = (
            average(part.mean(0)) for part in (self.log_likelihood, self.global_kl, self.local_kl_terms)
        )
        return BoundTerms(log_likelihood, kl, local)


Terms = Callable[[Model, Tensor], BoundTerms]
"""What trains a model: the terms of a bound, from a batch."""


class Objective(Component, ABC):
    """A bound that recipes name: called with a model and a batch it gives `BoundTerms`; what it needs is `refusal`.

    >>> from dvaepp import BernoulliPrior, OverlappingExponential
    >>> from dvaepp.objectives.bounds import JointBound
    >>> JointBound().refusal(OverlappingExponential(), BernoulliPrior(3), groups=1)  # any Objective
    """

    kind: ClassVar[str] = "objective"
    folder: ClassVar[str] = "dvaepp.objectives"
    convolutional: ClassVar[bool] = True
    """Convolutional models may have it."""

    @abstractmethod
    def __call__(
        self, model: Model, x: Float[Tensor, "batch pixels"], noise: Float[Tensor, "uniforms batch bits"] | None = None
    ) -> BoundTerms:
        """The terms, from the draws of every example; InputError for a model that has no such bound.

        `noise`: the uniform numbers that the draws are made of, `uniforms(model)` for each bit.
        """

    def with_loss(
        self, model: Model, x: Float[Tensor, "batch pixels"], noise: Float[Tensor, "uniforms batch bits"] | None = None
    ) -> tuple[BoundTerms, Float[Tensor, ""]]:
        """The terms, and a loss to minimise in the parameters of `learned` alone: 0 where there is nothing."""
        return self(model, x, noise), x.new_zeros(())

    def uniforms(self, model: Model) -> int:
        """How many uniform numbers for each bit the noise has."""
        return 2

    def drawn(self, q: Any, group: int) -> int:
        """How many of them a call without noise draws for each bit of a group, counted from 0, q its distribution."""
        return q.uniforms if isinstance(q, BitDistribution) else 2

    @property
    def learned(self) -> nn.Module | None:
        """What `with_loss`'s loss is minimised in the parameters of; None where nothing is learned."""
        return None

    def build(self, bits: int, mean: Float[Tensor, " pixels"]) -> Objective:
        """The objective for a model of so many bits and data of this mean, with what it learns."""
        return self

    @property
    def weighs_kl(self) -> bool:
        """Whether the terms are right for any KL weight, as a warm-up needs."""
        return True

    @abstractmethod
    def refusal(self, smoothing: Smoothing, prior: Prior, groups: int) -> str | None:
        """Why a model with this smoothing and prior and so many groups of bits has no such bound; None where it has."""

    def check(self, smoothing: Smoothing, prior: Prior, groups: int, reparameterised: bool) -> None:
        """InputError where there is a refusal, or where the encoder would be trained on half an estimator."""
        if (why := self.refusal(smoothing, prior, groups)) is not None:
            raise InputError(why)
        if not reparameterised:
            raise InputError(
                f"the {self.name} bound has no gradient to the encoder through {smoothing}: train with another "
                "smoothing, such as StraightThrough() (straight-through), or take its value under torch.no_grad()"
            )

    def check_trace(self, trace: Trace, model: Model) -> None:
        """`check` of a pass of a model."""
        reparameterised = trace.reparameterised or not torch.is_grad_enabled()
        self.check(model.smoothing, model.prior, len(trace.posterior.groups), reparameterised)
