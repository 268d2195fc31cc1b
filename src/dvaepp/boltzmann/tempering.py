"""Parallel tempering: chains at many inverse temperatures that swap states, and the log Z of what they saw."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dvaepp.boltzmann.diagnostics import r_hat
from dvaepp.boltzmann.log_partition import LogPartition, rounding, widened
from dvaepp.boltzmann.machine import BoltzmannMachine, log_marginal_growth
from dvaepp.numerics import check_counts

States = Float[Tensor, "temperatures chains bits"]
Work = Float[Tensor, "rungs chains"]

TEMPERATURES, ENSEMBLES, LEAST_SWEEPS = 24, 64, 1000
"""What is taken where nothing is said; `estimate_log_partition` takes more sweeps where it takes more temperatures."""
LEAST_SWAP_RATE = 0.1
"""Parallel tempering is trusted where neighbouring temperatures swap at least this often, ..."""
MOST_R_HAT = 1.05
"""... and where the energies of its independent ensembles at beta 1 agree to this."""
_MOMENTS = 32
"""How often, about, the coldest states are kept while it is measured."""


@torch.no_grad()
def parallel_tempering(
    machine: BoltzmannMachine, *, temperatures: int = TEMPERATURES, chains: int = ENSEMBLES, sweeps: int = LEAST_SWEEPS
) -> LogPartition:
    """log Z = n log 2 + sum_k D_k over neighbouring inverse temperatures, D_k by Bennett's acceptance ratio (1976).

    `chains` independent ensembles hold one state at each of `temperatures` inverse temperatures from 0 to 1 and are
    swept and swapped `sweeps` times. The first half also moves the temperatures to where all swap equally often (Syed
    et al. 2022); the second is measured. D solves sum sigmoid(up - D) = sum sigmoid(down + D), with up and down the
    log ratios p*_k+1 / p*_k of states at k and p*_k / p*_k+1 of states at k + 1. The standard error is that between
    ensembles, so correlation in time is counted, and what rounding may do. It is trusted where swaps are frequent
    enough, the ensembles agree (R-hat of log p*_1) and so do the earlier and the later half of what was measured.
    """
    return temper(machine, temperatures, chains, sweeps)[0]


@torch.no_grad()
def temper(
    machine: BoltzmannMachine, temperatures: int, chains: int, sweeps: int
) -> tuple[LogPartition, Float[Tensor, "samples bits"]]:
    """What `parallel_tempering` finds, and the states at beta 1 at some 32 moments while it was measured."""
    check_counts("parallel_tempering", least=2, temperatures=temperatures, chains=chains)
    check_counts("parallel_tempering", least=8, sweeps=sweeps)
    ladder = torch.linspace(0, 1, temperatures, dtype=torch.float64)
    states = machine.uniform(temperatures, chains)
    for share in (32, 16, 8, 4):  # each run is twice as long: rejections measured on poor spacing need not be exact
        states, up, down, *_ = _run(machine, states, ladder, max(1, sweeps // share))
        ladder = respaced(ladder, 1 - _acceptance(up, down).mean((0, 2)).cpu())
    states, *_ = _run(machine, states, ladder, max(1, sweeps // 16))  # they were drawn at other temperatures
    _, up, down, energies, cold = _run(machine, states, ladder, max(4, sweeps // 2))
    value, error = _bennett(up, down)
    # States that still drift from where they began give another value early than late, which no error bar shows.
    early, late = (_bennett(*part) for part in zip(up.tensor_split(2), down.tensor_split(2), strict=True))
    rounded = rounding(machine, cold[-1], temperatures)
    apart = abs(early[0] - late[0]) / math.hypot(early[1], late[1], rounded)
    swaps = _acceptance(up, down).mean((0, 2))
    diagnosis = {
        "lowest_swap_rate": float(swaps.min()),
        "mean_swap_rate": float(swaps.mean()),
        "r_hat": 1.0 if energies.max() - energies.min() <= rounded else r_hat(energies.T),  # not that of rounding
        "halves_apart": apart,
    }
    healthy = diagnosis["lowest_swap_rate"] >= LEAST_SWAP_RATE and diagnosis["r_hat"] <= MOST_R_HAT and apart <= 4
    log_partition = LogPartition(
        value=machine.bits * math.log(2) + value,
        standard_error=widened(error, rounded),
        effective_sample_size=None,
        trusted=healthy and math.isfinite(value) and math.isfinite(error),
        method=f"parallel tempering, {temperatures} temperatures x {chains} ensembles x {sweeps} sweeps, Bennett",
        diagnosis=diagnosis,
    )
    return log_partition, cold.flatten(0, 1)


def tempered_sweep(
    machine: BoltzmannMachine, states: States, ladder: Float[Tensor, " temperatures"], parity: int
) -> tuple[States, Work, Work]:
    """Swaps of every other pair of neighbours, then a sweep at every temperature; up and down as they were before.

    Swaps are of the marginal distribution and leave a state with the summed-out block of another temperature: the
    Gibbs sweep comes after them because it redraws that block first.
    """
    temperatures, chains, _ = states.shape
    betas = ladder.to(states)[:, None]
    rest_energy, field = machine.marginal_terms(states)
    up = log_marginal_growth(rest_energy[:-1], field[:-1], betas[:-1], betas[1:])
    down = log_marginal_growth(rest_energy[1:], field[1:], betas[1:], betas[:-1])
    # min(1, p*_k+1(r) p*_k(r') / p*_k(r) p*_k+1(r')), the ratio of the pair with its states exchanged
    accept = torch.rand_like(up).log() < up + down
    accept[1 - parity :: 2] = False
    source = torch.arange(temperatures, device=states.device)[:, None].repeat(1, chains)
    source[:-1] += accept.long()
    source[1:] -= accept.long()
    swapped = states[source, torch.arange(chains, device=states.device)]
    return machine.gibbs(swapped, 1, inverse_temperature=betas.expand(temperatures, chains)), up, down


def respaced(
    ladder: Float[Tensor, " temperatures"], rejections: Float[Tensor, " rungs"]
) -> Float[Tensor, " temperatures"]:
    """Inverse temperatures between which equally many swaps would be rejected, by linear interpolation."""
    barrier = F.pad((rejections.double() + 1e-6).cumsum(0), (1, 0))
    wanted = torch.linspace(0, 1, len(ladder), dtype=torch.float64) * barrier[-1]
    right = torch.searchsorted(barrier, wanted).clamp(1, len(ladder) - 1)
    share = (wanted - barrier[right - 1]) / (barrier[right] - barrier[right - 1])
    spaced = torch.lerp(ladder[right - 1], ladder[right], share)
    spaced[0], spaced[-1] = 0, 1
    return spaced


def _run(
    machine: BoltzmannMachine, states: States, ladder: Float[Tensor, " temperatures"], sweeps: int
) -> tuple[
    States,
    Float[Tensor, "sweeps rungs chains"],
    Float[Tensor, "sweeps rungs chains"],
    Float[Tensor, "sweeps chains"],
    Float[Tensor, "moments chains bits"],
]:
    """Sweeps in a row: the states after them; at each sweep up, down and log p* of the coldest; some 32 times those.

    The states of every sweep would take .2 GB for each 1,000 of 200 + 200 bits.
    """
    ups, downs, energies, colds = [], [], [], []
    for sweep in range(sweeps):
        states, up, down = tempered_sweep(machine, states, ladder, sweep % 2)
        ups.append(up)
        downs.append(down)
        energies.append(machine.log_marginal(states[-1]))
        if sweep % max(1, sweeps // _MOMENTS) == 0:
            colds.append(states[-1].clone())  # a view would keep the states of every temperature
    return states, torch.stack(ups), torch.stack(downs), torch.stack(energies), torch.stack(colds)


def _acceptance(up: Tensor, down: Tensor) -> Tensor:
    return torch.exp((up + down).clamp(max=0))


def _bennett(
    up: Float[Tensor, "sweeps rungs chains"], down: Float[Tensor, "sweeps rungs chains"]
) -> tuple[float, float]:
    """sum_k D_k by bisection, and its standard error from the chains' shares in the equations (the delta method).

    Infinite where no state of one temperature has any weight at the next.
    """
    # The left side of the equation falls in D and the right one rises. At the smallest log ratio every term on the left
    # is at least 1/2 and none on the right is more, at the largest it is the other way round: the root lies between.
    low = torch.minimum(up, -down).amin((0, 2), keepdim=True)
    high = torch.maximum(up, -down).amax((0, 2), keepdim=True)
    for _ in range(50):
        d = (low + high) / 2
        rising = (torch.sigmoid(up - d) - torch.sigmoid(down + d)).sum((0, 2), keepdim=True) > 0
        low, high = torch.where(rising, d, low), torch.where(rising, high, d)
    forward, backward = torch.sigmoid(up - d), torch.sigmoid(down + d)
    slope = (forward * (1 - forward) + backward * (1 - backward)).sum((0, 2))
    # One ensemble's sweeps are correlated, ensembles are not: each one's part of the excess, over the slope, is an
    # independent draw of the error in D, summed over neighbours since the same states serve both.
    shares = ((forward - backward).sum(0) / slope[:, None]).sum(0)
    chains = len(shares)
    error = math.sqrt(float((shares**2).sum()) * chains / (chains - 1))
    return float(d.sum()), math.inf if math.isnan(error) else error
