"""Scores in the binary limit: importance-weighted likelihoods with what is known of their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp import distributed
from dvaepp.boltzmann.log_partition import LogPartition
from dvaepp.errors import InputError
from dvaepp.evaluation.kept import Found, KeptScores
from dvaepp.evaluation.scores import ExampleScores, Scores, covariance, moments_of
from dvaepp.models.base import Model, measuring, unchecked
from dvaepp.numerics import whole
from dvaepp.objectives.importance import log_weight
from dvaepp.priors.base import Prior
from dvaepp.randomness import stream_seed
from dvaepp.smoothings.binary import hard


def shared_log_partition(prior: Prior, **settings: Any) -> LogPartition:
    """`prior.estimate_log_partition(**settings)`, which the first of several processes does for all."""
    log_partition = distributed.on_first(lambda: prior.estimate_log_partition(**settings))
    if distributed.world() > 1:
        prior.log_partition = log_partition
    return log_partition


def score(
    model: Model,
    x: Float[Tensor, "n pixels"],
    num_samples: int,
    *,
    seed: int = 0,
    megabytes: int | float = 64,
    progress: Callable[[int, int], None] = lambda done, total: None,
    kept: KeptScores | None = None,
) -> Scores:
    """Score every example with `num_samples` importance samples each, K and examples in pieces of about `megabytes`.

    The prior's `log_partition` must have been estimated for its parameters as they are. `seed` decides the draws. What
    `kept` holds is not scored again. Of several processes each scores a part, with draws of its own; all return the
    scores of all examples, in order.
    """
    num_samples = whole("num_samples", num_samples)
    if len(x) < 1:
        raise InputError("score needs at least one example")
    log_partition = model.prior.known_log_partition()
    rows = max(1, int(megabytes * 2**20 / (4 * max(8 * x.shape[1], model.numbers_per_draw))))
    part, found = distributed.own(x), kept.load() if kept else Found()
    with measuring(model, stream_seed("scores", seed, distributed.rank())):
        for piece in torch.split(part[found.count :], max(1, rows // num_samples)) if len(part) > found.count else ():
            torch.manual_seed(_stream(seed, found.count))
            found.add(*_score_piece(model, piece, num_samples, max(1, rows // len(piece))))
            progress(found.count, len(part))
            if kept:
                kept.save(found)
        shown = model(x[:1], hard)
    everyone = [each for each in distributed.gather(found) if each.count]
    joined = map(torch.cat, zip(*(each.examples for each in everyone), strict=True))
    moments = torch.stack([each.moments for each in everyone]).sum(0)
    sizes = tuple(group.h[0].numel() for group in shown.local)
    return Scores(
        ExampleScores(*joined),
        num_samples,
        log_partition,
        shown.posterior.sizes,
        torch.split(covariance(moments, len(x)), list(sizes)),
        x.shape[1],
    )


def _stream(seed: int, start: int) -> int:
    """A seed for the draws of the examples from `start` on: their own, whatever was scored before."""
    return stream_seed("scores", seed, distributed.rank(), start)


def _score_piece(
    model: Model, x: Float[Tensor, "n pixels"], num_samples: int, most: int
) -> tuple[ExampleScores, Float[Tensor, "3 dimensions"]]:
    """Scores of a few examples, at most `most` importance samples at a time, and moments of local variables' means."""
    first, second, total = (x.new_full((len(x),), start, dtype=torch.float64) for start in (-math.inf, -math.inf, 0))
    for start in range(0, num_samples, most):
        count = min(most, num_samples - start)
        with unchecked():  # the two passes below are checked
            log_w = log_weight(model, x, hard, count).view(len(x), count).double()
        first = torch.logaddexp(first, log_w.logsumexp(1))
        second = torch.logaddexp(second, (2 * log_w).logsumexp(1))
        total = total + log_w.sum(1)
    trace, again = model(x, hard), model(x, hard)
    scores = ExampleScores(
        log_likelihood=first - math.log(num_samples),
        elbo=total / num_samples,
        effective_sample_size=torch.exp(2 * first - second),
        distortion=-trace.likelihood.log_prob(x),
        kl_terms=model.prior.kl_terms(trace.posterior),
        local_kl_terms=trace.local_kl_terms(),
        mu=torch.stack([trace.posterior.mu, again.posterior.mu], 1),
    )
    shifts = [[x.new_zeros(len(x), 0), *(group.mean_shift() for group in each.local)] for each in (trace, again)]
    return scores, moments_of(*(torch.cat(shift, 1).double() for shift in shifts))
