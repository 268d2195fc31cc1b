"""The bound of bits as f of an estimator: group by group, each group's expectation inside the f of the one before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from dvaepp.errors import InputError
from dvaepp.estimators.base import Estimator, Function, evaluate
from dvaepp.models.base import unchecked
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.networks.dense import by_rows, flipped
from dvaepp.networks.precision import full
from dvaepp.objectives.bounds import log_prior
from dvaepp.priors.directed import DirectedPrior
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.posterior import Posterior


@dataclass(frozen=True)
class Drawn:
    """Some groups' bits, and the logits of these and of the next: a row for each x and draw, later draws outermost."""

    x: Float[Tensor, "rows pixels"]
    zs: tuple[Float[Tensor, "rows _"], ...]
    logits: tuple[Float[Tensor, "rows _"], ...]

    @classmethod
    def nothing(cls, model: FeedForwardVAE, x: Float[Tensor, "batch pixels"]) -> Drawn:
        """Before the first group."""
        return cls(x, (), (_level(model, x),))

    def then(self, model: FeedForwardVAE, z: Float[Tensor, "*draws bits"]) -> Drawn:
        """With the next group drawn too."""
        x, *others = (each.expand(*z.shape[:-1], -1).flatten(0, -2) for each in (self.x, *self.zs, *self.logits))
        zs, logits = (*others[: len(self.zs)], z.flatten(0, -2)), others[len(self.zs) :]
        return Drawn(x, zs, (*logits, _level(model, x, *zs)))

    def and_last(self, z: Float[Tensor, "*draws bits"]) -> Float[Tensor, "*draws every"]:
        """All bits side by side."""
        return torch.cat([*(each.expand(*z.shape[:-1], -1) for each in self.zs), z], -1)


def _level(model: FeedForwardVAE, *inputs: Float[Tensor, "rows _"]) -> Float[Tensor, "rows bits"]:
    return full(by_rows(model.encoder.levels[len(inputs) - 1], torch.cat(inputs, -1)))


class Numbers:
    """The uniform numbers of each group, which all passes share: cut out of the noise, or drawn by the first."""

    def __init__(self, uniforms: int, batch: int, noise: Float[Tensor, "uniforms batch bits"] | None) -> None:
        self.uniforms, self.batch, self.noise = uniforms, batch, noise
        self.known: list[Tensor] = []

    def of(self, drawn: Drawn, last: bool) -> Float[Tensor, "uniforms rows bits"]:
        """Those of the next group; InputError where the noise has not as many bits as the groups."""
        if len(self.known) == len(drawn.zs):
            self.known.append(self._next(drawn, last))
        return self.known[len(drawn.zs)]

    def _next(self, drawn: Drawn, last: bool) -> Tensor:
        logits, start = drawn.logits[-1], sum(z.shape[-1] for z in drawn.zs)
        shape, stop = (self.uniforms, *logits.shape), start + logits.shape[-1]
        if self.noise is None:
            return torch.rand(shape, dtype=logits.dtype, device=logits.device)
        if stop > self.noise.shape[-1] or (last and stop < self.noise.shape[-1]):
            raise InputError(f"noise is for {self.noise.shape[-1]} bits, which are not as many as the model's")
        numbers = self.uniforms * len(logits) // self.batch
        return self.noise[:numbers, :, start:stop].reshape(shape)


Estimate = Callable[..., tuple[Tensor, Tensor]]
"""A value and a loss, of (f, logits, context, noise=...): `Estimator.with_loss`."""


@dataclass(frozen=True)
class Pass:
    """E_1[.. E_K[log p(x | z)] - KL_K ..], or with log p(x, z) - sum_k log q_k inside; each E_k an estimate.

    KL_k, of group k given the earlier ones, is subtracted where those are drawn; KL_1 is left to the caller. Without
    `likelihood` log p(x | z) is left out. `losses` and `kl_terms` are what the pass leaves behind.
    """

    model: FeedForwardVAE
    estimate: Estimate
    analytic_kl: bool
    numbers: Numbers
    likelihood: bool = True
    losses: list[Tensor] = field(default_factory=list)
    kl_terms: list[Tensor] = field(default_factory=list)

    def expectation(self, drawn: Drawn) -> Float[Tensor, " rows"]:
        """Of all that comes after the groups drawn."""
        last = self.is_last(drawn)
        if last and self.analytic_kl:
            self.kl_terms.append(_kl_terms(self.model, drawn))
        noise = self.numbers.of(drawn, last)
        value, loss = self.estimate(GroupFunction(self, drawn), drawn.logits[-1], drawn.x, noise=noise)
        self.losses.append(loss)
        return value

    def is_last(self, drawn: Drawn) -> bool:
        """Whether one group is left."""
        return len(drawn.logits) == len(self.model.encoder.levels)

    def kl(self, drawn: Drawn) -> Float[Tensor, " rows"]:
        """KL_k of the group after those drawn: the same for every draw of the later groups."""
        (terms,) = self.kl_terms
        return terms.reshape(-1, len(drawn.x), terms.shape[-1])[0, :, len(drawn.zs)]


@dataclass(frozen=True)
class GroupFunction:
    """f of the bits of one group: what the estimator is given."""

    run: Pass
    drawn: Drawn

    def __call__(self, z: Float[Tensor, "*draws bits"]) -> Float[Tensor, "*draws"]:
        """The expectation over the later groups; with a sampled KL, less log q of these bits."""
        if self.run.is_last(self.drawn):
            value = self._last(self.drawn.and_last(z), self.run.model.decode)
        else:
            drawn = self.drawn.then(self.run.model, z)
            value = self.run.expectation(drawn)
            value = (value - self.run.kl(drawn) if self.run.analytic_kl else value).view(z.shape[:-1])
        return self._less_log_q(value, z)

    def flips(self, z: Float[Tensor, "rows bits"]) -> Float[Tensor, "bits rows"]:
        """f with each bit flipped in turn, where there is one group: the decoder sees z once."""
        states = flipped(z)
        return self._less_log_q(self._last(states, lambda _: self.run.model.decode_flips(z)), states)

    def _last(self, z: Tensor, decode: Callable[[Tensor], Distribution]) -> Tensor:
        value = _log_likelihood(decode(z), self.drawn.x) if self.run.likelihood else z.new_zeros(z.shape[:-1])
        if self.run.analytic_kl:
            return value
        with unchecked():  # relaxed bits lie outside a Bernoulli's support
            return value + log_prior(self.run.model.prior, z, hard)

    def _less_log_q(self, value: Tensor, z: Tensor) -> Tensor:
        if self.run.analytic_kl:
            return value
        return value - hard(self.drawn.logits[-1], validate_args=False).log_prob(z).sum(-1)


def _log_likelihood(likelihood: Distribution, x: Float[Tensor, "rows pixels"]) -> Float[Tensor, "*draws"]:
    if likelihood.event_shape != x.shape[1:]:
        raise InputError(f"the decoder gives {tuple(likelihood.event_shape)} pixels, but x has {tuple(x.shape[1:])}")
    value: Tensor = likelihood.log_prob(x)
    return value


def _kl_terms(model: FeedForwardVAE, drawn: Drawn) -> Float[Tensor, "rows terms"]:
    """KL_k for every group; the bits of the last, which no term depends on, stand at 0."""
    zs = (*drawn.zs, torch.zeros_like(drawn.logits[-1]))
    first, prior = zs[0].shape[-1], model.prior
    if isinstance(prior, DirectedPrior) and prior.first.bias.numel() != first:
        raise InputError(
            f"the first group has {first} bits in the encoder and {prior.first.bias.numel()} in the prior: the KL has "
            "no closed form, set analytic_kl=False"
        )
    return prior.kl_terms(Posterior(tuple(hard(logits) for logits in drawn.logits), zs))


def mean_at_draws(estimator: Estimator) -> Estimate:
    """The mean of f at the estimator's draws, alone."""
    return partial(_mean_at_draws, estimator)


def _mean_at_draws(
    estimator: Estimator, f: Function, logits: Tensor, context: Tensor, *, noise: Tensor
) -> tuple[Tensor, Tensor]:
    return evaluate(f, estimator.sample(logits, noise)).mean(0), logits.new_zeros(())
