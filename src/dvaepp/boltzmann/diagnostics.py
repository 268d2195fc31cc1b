"""How Markov chains are: what series of some quantity, a row for each chain, say of mixing and of agreement."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError
from dvaepp.numerics import check_counts


@torch.no_grad()
def r_hat(series: Float[Tensor, "chains steps"]) -> float:
    """sqrt(((n - 1) / n W + B / n) / W): spread of and within halves of chains; 1 where all see the same distribution.

    W is the mean variance within the m half chains of n steps, B / n the variance of their means (split R-hat, Gelman
    et al. 2013). 1 for a constant series; infinite where each half is constant at a value of its own.
    """
    series = _from_first(series)
    half = series.shape[1] // 2
    halves = torch.cat([series[:, :half], series[:, -half:]])
    within, between = halves.var(1).mean(), halves.mean(1).var()
    if not between:
        return 1.0
    return float(torch.sqrt((half - 1) / half + between / within))


@torch.no_grad()
def autocorrelation_time(series: Float[Tensor, "chains steps"]) -> float:
    """tau = 1 + 2 sum_t rho_t, in steps: how many make up for one independent draw.

    rho_t is pooled over chains, about their common mean, so that chains that stay apart count as slow. The sum ends
    where a pair rho_2t + rho_2t+1 is no longer positive (Geyer 1992). At least 1; at most the length of the series,
    which a longer tau cannot be told from.
    """
    series = _from_first(series)
    steps = series.shape[1]
    centred = series - series.mean()
    spectrum = torch.fft.rfft(centred, 2 * steps).abs() ** 2
    covariance = torch.fft.irfft(spectrum)[:, :steps].sum(0) / torch.arange(steps, 0, -1, device=series.device)
    if not covariance[0] > 0:
        return 1.0
    pairs = (covariance / covariance[0])[: steps // 2 * 2].view(-1, 2).sum(1)
    kept = (pairs > 0).cummin(0).values
    return min(max(1.0, float(2 * (pairs * kept).sum() - 1)), float(steps))


def effective_sample_size(series: Float[Tensor, "chains steps"]) -> float:
    """chains x steps / tau: how many independent draws the series are worth for the mean of their quantity."""
    return series.numel() / autocorrelation_time(series)


@dataclass(frozen=True)
class ChainDiagnostics:
    """How block Gibbs chains of a machine move, judged by their energy.

    `autocorrelation_time` is in sweeps. `effective_sample_size` is that of the chains and sweeps watched. `r_hat` is
    about 1 where all chains see the same energies, above 1.1 where they stay apart.
    `effective_inverse_temperature` is the inverse temperature at which the states look drawn: 1 for p(z) itself.

    Split R-hat is that of Gelman et al. (2013); the autocorrelation time ends as Geyer's (1992); the temperature is by
    pseudo-likelihood (Besag 1975).

    >>> machine = BoltzmannMachine(3, 2)
    >>> found = chain_diagnostics(machine, machine.uniform(50), sweeps=10)
    >>> found.effective_inverse_temperature  # a machine of zeros is the same at every temperature
    1.0
    """

    autocorrelation_time: float
    effective_sample_size: float
    r_hat: float
    effective_inverse_temperature: float


def chain_diagnostics(
    machine: BoltzmannMachine, states: Float[Tensor, "chains bits"], sweeps: int = 100, watched: int = 100
) -> ChainDiagnostics:
    """How chains are: the temperature of these states, and how the first of them move in the next sweeps.

    The states are left as they are.
    """
    check_counts("chain_diagnostics", least=4, sweeps=sweeps)
    check_counts("chain_diagnostics", watched=watched)
    machine.check(states)
    if states.ndim != 2 or not len(states):
        raise InputError(f"states must be (chains, bits) of at least one chain, not {tuple(states.shape)}")
    z, energies = states[:watched], []
    for _ in range(sweeps):
        z = machine.gibbs(z, 1)
        energies.append(machine.energy(z).detach())
    series = torch.stack(energies, 1)
    return ChainDiagnostics(
        autocorrelation_time(series),
        effective_sample_size(series),
        r_hat(series),
        effective_inverse_temperature(machine, states),
    )


@torch.no_grad()
def effective_inverse_temperature(machine: BoltzmannMachine, states: Float[Tensor, "samples bits"]) -> float:
    """The beta at which sum over samples and bits of log p_beta(z_i | other bits) is largest (Besag 1975).

    p_beta(z) is proportional to exp(-beta E(z)), so log p_beta(z_i | rest) = log sigmoid(beta (2 z_i - 1) field_i):
    concave in beta, maximised by bisection of its slope within [-1000, 1000]. A consistent estimate for samples of any
    p_beta. 1 for a machine without biases and couplings, which is the same at every temperature.
    """
    fields = torch.cat([machine.field(states, block) for block in range(len(machine.blocks))], -1).double()
    margins = (2 * states.double() - 1) * fields
    if not bool(margins.any()):
        return 1.0
    low, high = -1000.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        slope = float((margins * torch.sigmoid(-middle * margins)).sum())
        low, high = (middle, high) if slope > 0 else (low, middle)
    return (low + high) / 2


def _from_first(series: Tensor) -> Tensor:
    """The series less their first number, so that constant ones are exactly 0; InputError for too short ones."""
    if series.ndim != 2 or not len(series) or series.shape[1] < 4:
        raise InputError(f"series must be (chains, steps) of at least 4 steps, not {tuple(series.shape)}")
    return series.double() - series[0, 0].double()
