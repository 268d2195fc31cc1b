"""Scores of examples and of a set of them, with what is known of their uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.boltzmann.log_partition import LogPartition

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
    local_variances: tuple[Float[Tensor, " _"], ...] = ()
    """For every local group, the variance over x of what x adds to each variable's mean, 0 where q is p."""
    values: int = 0
    """Numbers in an example, for bits per dimension."""

    def numbers(self) -> dict[str, float]:
        """By name: nats, but for counts and effective sample sizes. The NLL is given at both ends of log Z too.

        The standard error that one example alone does not tell is 0.
        """
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


def plus_minus(error: float, examples: float, decimals: int = 2) -> str:
    """A standard error over test examples as people read it: ' ± 0.12'; that there is none where one was scored."""
    return f" ± {error:.{decimals}f}" if examples > 1 else " (one example, so no standard error)"


def unit_variances(mu: Float[Tensor, "n 2 bits"]) -> Float[Tensor, " bits"]:
    """Var_x(E[q(z = 1 | x, z_<k)]), the expectation being over the earlier groups' draws, from two draws for every x.

    The covariance over x of two independent draws is an unbiased estimate of that variance; one draw's own variance
    would count the draws' noise too.
    """
    return covariance(moments_of(*mu.double().unbind(1)), len(mu))


def moments_of(first: Float[Tensor, "n dimensions"], second: Float[Tensor, "n dimensions"]) -> Float[Tensor, "3 _"]:
    """The sums of two variables and of their products, all that `covariance` needs of n examples."""
    return torch.stack([first.sum(0), second.sum(0), (first * second).sum(0)])


def covariance(moments: Float[Tensor, "3 dimensions"], n: int) -> Float[Tensor, " dimensions"]:
    """The covariance over n examples."""
    first, second, product = moments
    return torch.div(product - first * second / n, max(n - 1, 1))
