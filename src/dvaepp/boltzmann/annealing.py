"""log Z by annealing along exp(-beta E): importance sampling forward and backward, and populations that resample.

All weights are *marginal*: p*_beta(r) = sum_s exp(-beta E(s, r)) sums out the largest block s, which halves their
spread against full states (Salakhutdinov & Murray 2008).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dvaepp.boltzmann.enumeration import can_be_sampled_exactly, exact_sample
from dvaepp.boltzmann.log_partition import LogPartition, rounding, widened
from dvaepp.boltzmann.machine import BoltzmannMachine, log_marginal_growth
from dvaepp.errors import InputError
from dvaepp.numerics import check_counts

LEAST_FAMILIES = 100
"""An estimate by weighted chains is trusted from this many effective ones on."""


def annealed_importance_sampling(
    machine: BoltzmannMachine,
    *,
    temperatures: int = 1000,
    chains: int = 1024,
    repeats: int = 3,
    sweeps: int = 1,
) -> LogPartition:
    """log Z = n log 2 + log E[w], log w = sum_t log p*_t+1(r_t) - log p*_t(r_t), from beta 0 to 1 (Neal 2001).

    E[Z estimate] = Z, so the logarithm is low on average. The standard error is the larger of the weights' own and of
    the spread between the independent `repeats`, each of `chains` chains, and counts rounding; it is trusted where the
    effective sample size is at least 100 and no repeat lies further off than chance and rounding allow.
    """
    check_counts("annealing", temperatures=temperatures, chains=chains, repeats=repeats, sweeps=sweeps)
    annealed = _anneal(machine, machine.uniform(repeats * chains), repeats, _ladder(temperatures), sweeps, False)
    method = f"annealed importance sampling, {temperatures} temperatures x {chains} chains x {repeats} repeats"
    return annealed.log_partition(machine.bits * math.log(2), method, rounding(machine, annealed.states, temperatures))


def reverse_annealed_importance_sampling(
    machine: BoltzmannMachine,
    *,
    samples: Float[Tensor, "samples bits"] | None = None,
    temperatures: int = 1000,
    chains: int = 1024,
    repeats: int = 3,
    sweeps: int = 1,
) -> LogPartition:
    """log Z = n log 2 - log E[w], log w = sum_t log p*_t(r_t+1) - log p*_t+1(r_t+1), from beta 1 to 0 (Grosse 2015).

    The chains start from exact samples where they can be had; then E[1 / Z estimate] = 1 / Z, and the logarithm is high
    on average: in expectation it and the forward estimate bracket log Z. Else give `samples` (of p, by any sampler),
    from which starts are drawn: the result is then a consistency check and no bound, and its own error counts as if
    they were exact. It is never `trusted` by itself: states that matter at beta 0 and that no chain met leave no trace
    in its weights. `method` says where the samples came from. Raises InputError where there are none.
    """
    check_counts("annealing", temperatures=temperatures, chains=chains, repeats=repeats, sweeps=sweeps)
    if samples is None:
        if not can_be_sampled_exactly(machine):
            raise InputError(
                f"a machine of blocks {machine.blocks} cannot be sampled exactly: reverse annealing needs samples, "
                "such as those of a TemperedChains sampler"
            )
        start, origin = exact_sample(machine, repeats * chains), "exact samples"
    else:
        machine.check(samples)
        if samples.ndim != 2 or not len(samples) or not bool(((samples == 0) | (samples == 1)).all()):
            raise InputError(f"samples must be at least one state of bits 0 and 1, not {tuple(samples.shape)}")
        rows = torch.randint(len(samples), (repeats * chains,), device=samples.device)
        start, origin = samples[rows], "given samples"
    annealed = _anneal(machine, start, repeats, _ladder(temperatures).flip(0), sweeps, False)
    method = f"reverse annealing from {origin}, {temperatures} temperatures x {chains} chains x {repeats} repeats"
    found = annealed.log_partition(-machine.bits * math.log(2), method, rounding(machine, start, temperatures))
    return replace(found, value=-found.value, trusted=False)


def population_annealing(
    machine: BoltzmannMachine,
    *,
    temperatures: int = 1000,
    population: int = 1024,
    repeats: int = 3,
    sweeps: int = 1,
) -> LogPartition:
    """log Z = n log 2 + sum of log mean w between resamplings, from beta 0 to 1 (Hukushima & Iba 2003).

    As `annealed_importance_sampling`, but each of the `repeats` independent populations is resampled (systematically)
    whenever its effective sample size falls below half: chains in unlikely places die, those in likely ones multiply.
    E[Z estimate] = Z. The effective sample size counts *families*, the descendants of one start, whose members are not
    independent (Wang, Machta & Katzgraber 2015); it bounds the standard error as it does for annealed importance
    sampling, beside the spread between repeats.
    """
    check_counts("annealing", temperatures=temperatures, population=population, repeats=repeats, sweeps=sweeps)
    annealed = _anneal(machine, machine.uniform(repeats * population), repeats, _ladder(temperatures), sweeps, True)
    method = f"population annealing, {temperatures} temperatures x {population} chains x {repeats} repeats"
    return annealed.log_partition(machine.bits * math.log(2), method, rounding(machine, annealed.states, temperatures))


@torch.no_grad()
def annealed_population(
    machine: BoltzmannMachine, population: int, temperatures: int, sweeps: int = 1
) -> Float[Tensor, "population bits"]:
    """States from p(z), in the limit of many: a population annealed from beta 0 to 1 and resampled at the end."""
    annealed = _anneal(machine, machine.uniform(population), 1, _ladder(temperatures), sweeps, True)
    rows = _systematic(torch.softmax(annealed.log_weights, 1))[0]
    return machine.gibbs(annealed.states[rows], sweeps)


@dataclass(frozen=True)
class _Annealed:
    """Where chains ended.

    Log weights since the last resampling, the log mean weight of each repeat before it, the first ancestor of each
    chain, and their states.
    """

    log_weights: Float[Tensor, "repeats chains"]
    log_means: Float[Tensor, " repeats"]
    families: Int[Tensor, "repeats chains"]
    states: Float[Tensor, "_ bits"]

    def log_partition(self, log_base: float, method: str, rounding: float) -> LogPartition:
        """log mean w over repeats, its error by the weights of families, by repeats and by rounding, its diagnosis."""
        repeats, chains = self.log_weights.shape
        each = self.log_means + torch.logsumexp(self.log_weights, 1) - math.log(chains)
        shares = torch.softmax((self.log_means[:, None] + self.log_weights).flatten(), 0)
        families = torch.zeros_like(shares).index_add_(0, self.families.flatten(), shares)
        size = float(1 / (families**2).sum())
        by_weights = math.sqrt(max(1 / size - 1 / families.numel(), 0))
        by_repeats = float(each.std() / math.sqrt(repeats)) if repeats > 1 else 0.0
        consistent = by_repeats <= 4 * math.hypot(by_weights, rounding)
        return LogPartition(
            value=log_base + float(torch.logsumexp(each, 0)) - math.log(repeats),
            standard_error=widened(max(by_weights, by_repeats), rounding),
            effective_sample_size=size,
            trusted=math.isfinite(size) and size >= LEAST_FAMILIES and consistent,
            method=method,
        )


@torch.no_grad()
def _anneal(
    machine: BoltzmannMachine,
    z: Float[Tensor, "chains bits"],
    repeats: int,
    ladder: Float[Tensor, " temperatures"],
    sweeps: int,
    resample: bool,
) -> _Annealed:
    """Chains from one end of the ladder of inverse temperatures to the other, weighed at each step, then swept."""
    log_weights = z.new_zeros(repeats, len(z) // repeats, dtype=torch.float64)
    log_means = log_weights.new_zeros(repeats)
    families = torch.arange(len(z), device=z.device).view_as(log_weights)
    betas = ladder.tolist()
    for step, (here, there) in enumerate(pairwise(betas)):
        log_weights = log_weights + log_marginal_growth(*machine.marginal_terms(z), here, there).view_as(log_weights)
        if step + 2 == len(betas):  # the last weights are taken; where the states go from here counts no more
            break
        if resample:
            rows, log_weights, log_means = _resampled(log_weights, log_means)
            families = families.flatten()[rows].view_as(families)
            z = z[rows]
        z = machine.gibbs(z, sweeps, inverse_temperature=there)
    return _Annealed(log_weights, log_means, families, z)


def _resampled(
    log_weights: Float[Tensor, "repeats chains"], log_means: Float[Tensor, " repeats"]
) -> tuple[Int[Tensor, " all"], Float[Tensor, "repeats chains"], Float[Tensor, " repeats"]]:
    """Which chains go on, with what weights, where populations with an effective size below half are resampled."""
    repeats, chains = log_weights.shape
    weights = torch.softmax(log_weights, 1)
    poor = 1 / (weights**2).sum(1) < chains / 2
    stay = torch.arange(repeats * chains, device=weights.device).view(repeats, chains)
    starts = chains * torch.arange(repeats, device=weights.device)[:, None]
    rows = torch.where(poor[:, None], _systematic(weights) + starts, stay)
    gained = torch.logsumexp(log_weights, 1) - math.log(chains)
    return (
        rows.flatten(),
        torch.where(poor[:, None], torch.zeros_like(log_weights), log_weights),
        torch.where(poor, log_means + gained, log_means),
    )


def _systematic(weights: Float[Tensor, "repeats chains"]) -> Int[Tensor, "repeats chains"]:
    """Systematic resampling: chain i is taken floor or ceil of (chains x its weight) times, rightly on average."""
    repeats, chains = weights.shape
    offset = torch.rand(repeats, 1, dtype=weights.dtype, device=weights.device)
    points = (torch.arange(chains, device=weights.device) + offset) / chains
    return torch.searchsorted(weights.cumsum(1), points).clamp(max=chains - 1)


def _ladder(temperatures: int) -> Float[Tensor, " temperatures"]:
    return torch.linspace(0, 1, temperatures + 1, dtype=torch.float64)
