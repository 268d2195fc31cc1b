"""Scores in the binary limit: importance-weighted likelihoods with what is known of their uncertainty."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp import distributed
from dvaepp.errors import InputError
from dvaepp.latent.hard import hard
from dvaepp.latent.partition import LogPartition
from dvaepp.latent.priors import BoltzmannPrior, Prior
from dvaepp.models.trace import Model
from dvaepp.objectives.bounds import log_weight
from dvaepp.storage import load_tensors, save_tensors

ACTIVE_VARIANCE = 0.01
"""A bit is active when the variance over x of E[q(z = 1 | x)] is above this (Burda et al. 2015)."""


@dataclass(frozen=True, repr=False)
class ExampleScores:
    """Scores of n examples, nats, all with z binary.

    log_likelihood (n,): log (1/K) sum_k w_k. elbo (n,): the mean of log w_k. effective_sample_size (n,): (sum w)^2 /
    sum w^2, of K. distortion (n,): -log p(x | z) at one draw. kl_terms (n, terms): the prior's, at that draw.
    local_kl_terms (n, groups): those of local groups, there too. mu (n, 2, bits): q(z = 1 | x, z_<k) at two independent
    draws; of normal variables their means.
    """

    log_likelihood: Float[Tensor, " n"]
    elbo: Float[Tensor, " n"]
    effective_sample_size: Float[Tensor, " n"]
    distortion: Float[Tensor, " n"]
    kl_terms: Float[Tensor, "n terms"]
    local_kl_terms: Float[Tensor, "n groups"]
    mu: Float[Tensor, "n 2 bits"]


@dataclass(frozen=True)
class Scores:
    """Scores of a set of examples; `log_partition` is the log Z they rest on."""

    examples: ExampleScores
    num_samples: int
    log_partition: LogPartition
    group_sizes: tuple[int, ...]
    local_variances: tuple[Float[Tensor, " dimensions"], ...] = ()
    """For every local group, the variance over x of what x adds to each variable's mean, 0 where q is p."""
    values: int = 0
    """Numbers in an example, for bits per dimension."""

    def numbers(self) -> dict[str, float]:
        """By name: nats, but for counts and effective sample sizes. The NLL is given at both ends of log Z too."""
        e, log_z = self.examples, self.log_partition
        n, nll = len(e.log_likelihood), -float(e.log_likelihood.mean())
        low, high = (nll + end - log_z.value for end in log_z.interval)
        terms, local = e.kl_terms.mean(0), e.local_kl_terms.mean(0)
        active = torch.split(unit_variances(e.mu) > ACTIVE_VARIANCE, list(self.group_sizes))
        return {
            "nll": nll,
            "nll_standard_error": float(e.log_likelihood.std()) / math.sqrt(n) if n > 1 else 0.0,
            "nll_at_low_log_z": low,
            "nll_at_high_log_z": high,
            "elbo": float(e.elbo.mean()),
            "distortion": float(e.distortion.mean()),
            "kl": float(terms.sum() + local.sum()),
            **({"kl_global": float(terms.sum())} if len(local) else {}),
            **({f"kl_{k + 1}": float(term) for k, term in enumerate(terms)} if len(terms) > 1 else {}),
            **{f"kl_local_{j + 1}": float(term) for j, term in enumerate(local)},
            **{f"active_units_{k + 1}": float(units.sum()) for k, units in enumerate(active)},
            **{
                f"active_local_{j + 1}": float((variances > ACTIVE_VARIANCE).sum())
                for j, variances in enumerate(self.local_variances)
            },
            **({"bits_per_dimension": nll / (self.values * math.log(2))} if self.values else {}),
            "effective_sample_size": float(e.effective_sample_size.mean()),
            "log_z": log_z.value,
            "log_z_standard_error": log_z.standard_error,
            "log_z_trusted": float(log_z.trusted),
            "samples": float(self.num_samples),
            "examples": float(n),
        }


def unit_variances(mu: Float[Tensor, "n 2 bits"]) -> Float[Tensor, " bits"]:
    """Var_x(E[q(z = 1 | x, z_<k)]), the expectation being over the earlier groups' draws, from two draws for every x.

    The covariance over x of two independent draws is an unbiased estimate of that variance; one draw's own variance
    would count the draws' noise too.
    """
    return _covariance(_moments(*mu.double().unbind(1)), len(mu))


@contextmanager
def measuring(model: Model, seed: int) -> Iterator[None]:
    """Without gradients, in evaluation mode, from a random seed of its own; the caller's random state is kept."""
    training = model.training
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), torch.no_grad():
        torch.manual_seed(seed)
        model.eval()
        try:
            yield
        finally:
            model.train(training)


def estimate_log_partition(prior: Prior, **settings: Any) -> LogPartition:
    """`prior.estimate_log_partition(**settings)`, which the first of several processes does for all."""
    log_partition = distributed.on_first(lambda: prior.estimate_log_partition(**settings))
    if isinstance(prior, BoltzmannPrior):
        prior.restore_log_partition(log_partition)
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
    if not isinstance(num_samples, int) or num_samples < 1:
        raise InputError(f"num_samples must be a positive whole number, not {num_samples!r}")
    if len(x) < 1:
        raise InputError("score needs at least one example")
    if model.prior.log_partition is None or not model.prior.log_partition_is_current:
        raise InputError(
            "a likelihood needs log Z as it is now: call model.prior.estimate_log_partition() before score()"
        )
    rows = max(1, int(megabytes * 2**20 / (4 * max(8 * x.shape[1], model.numbers_per_draw))))
    part, found = distributed.own(x), kept.load() if kept else _Found()
    with measuring(model, seed):
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
        model.prior.log_partition,
        shown.posterior.sizes,
        torch.split(_covariance(moments, len(x)), list(sizes)),
        x.shape[1],
    )


def _stream(seed: int, start: int) -> int:
    """A seed for the draws of the examples from `start` on: their own, whatever was scored before."""
    return int(np.random.SeedSequence([seed, distributed.rank(), start]).generate_state(1, np.uint64)[0] >> 1)


def _moments(first: Float[Tensor, "n dimensions"], second: Float[Tensor, "n dimensions"]) -> Float[Tensor, "3 _"]:
    """The sums of two variables and of their products, all that `_covariance` needs of n examples."""
    return torch.stack([first.sum(0), second.sum(0), (first * second).sum(0)])


def _covariance(moments: Float[Tensor, "3 dimensions"], n: int) -> Float[Tensor, " dimensions"]:
    """The covariance over n examples."""
    first, second, product = moments
    return torch.div(product - first * second / n, max(n - 1, 1))


class _Found:
    """Scores of the first examples of a part, and sums of what is not kept for each example."""

    def __init__(self) -> None:
        self.examples: list[Tensor] = []
        self.moments = torch.zeros(3, 0, dtype=torch.float64)

    @property
    def count(self) -> int:
        """How many examples have been scored."""
        return len(self.examples[0]) if self.examples else 0

    def add(self, examples: ExampleScores, moments: Float[Tensor, "3 dimensions"]) -> None:
        """Add the scores of those that follow."""
        new = [getattr(examples, f.name).cpu() for f in fields(ExampleScores)]
        self.examples = list(map(torch.cat, zip(self.examples, new, strict=True))) if self.examples else new
        self.moments = self.moments + moments.cpu() if self.moments.numel() else moments.cpu()


@dataclass
class KeptScores:
    """A file that holds the scores of the first examples while the others are scored, at most every `seconds`.

    `about` is plain JSON that says what is scored and how; a file about anything else is begun anew. Each of several
    processes has a file of its own.
    """

    path: Path
    about: dict[str, Any]
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if distributed.world() > 1:
            self.path = self.path.with_stem(f"{self.path.stem}.{distributed.rank()}of{distributed.world()}")
        self._saved = time.monotonic()

    def load(self) -> _Found:
        """What the file holds, or nothing."""
        found = _Found()
        with suppress(InputError, KeyError):  # a damaged file, or an older version's, is begun anew as well
            tensors, about = load_tensors(self.path)
            if about == self.about:
                examples = [tensors[f.name] for f in fields(ExampleScores)]
                found.examples, found.moments = examples, tensors["moments"]
        return found

    def save(self, found: _Found) -> None:
        """Replace the file, unless that was done just now."""
        if time.monotonic() - self._saved >= self.seconds:
            names = [f.name for f in fields(ExampleScores)]
            tensors = {**dict(zip(names, found.examples, strict=True)), "moments": found.moments}
            save_tensors(self.path, tensors, self.about)
            self._saved = time.monotonic()

    def clear(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def _score_piece(
    model: Model, x: Float[Tensor, "n pixels"], num_samples: int, most: int
) -> tuple[ExampleScores, Float[Tensor, "3 dimensions"]]:
    """Scores of a few examples, at most `most` importance samples at a time, and moments of local variables' means."""
    first, second, total = (x.new_full((len(x),), start, dtype=torch.float64) for start in (-math.inf, -math.inf, 0))
    for start in range(0, num_samples, most):
        count = min(most, num_samples - start)
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
    return scores, _moments(*(torch.cat(shift, 1).double() for shift in shifts))
