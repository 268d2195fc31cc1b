"""log Z by every way that is open, judged by whether they agree."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import torch

from dvaepp.boltzmann.annealing import annealed_importance_sampling, reverse_annealed_importance_sampling
from dvaepp.boltzmann.enumeration import bits_to_sum, can_be_sampled_exactly, exact_log_partition
from dvaepp.boltzmann.log_partition import LogPartition, rounding
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.boltzmann.tempering import ENSEMBLES, LEAST_SWEEPS, TEMPERATURES, temper
from dvaepp.errors import InputError
from dvaepp.numerics import check_precision

MOST_ERRORS_APART = 3.0
_SHOWN = 0.0005
"""What rounds to a digit of log Z as it is printed, nats."""


def estimate_log_partition(
    machine: BoltzmannMachine,
    *,
    temperatures: int = 1000,
    chains: int = 1024,
    repeats: int = 3,
    tempered: tuple[int, int, int] | None = None,
) -> LogPartition:
    """log Z: exact where at most 20 bits have to be summed over jointly, else found in three ways that must agree.

    Annealed importance sampling (`temperatures`, `chains`, `repeats`) and parallel tempering (`tempered`: its
    temperatures, ensembles and sweeps; 24, 64 and as many as `temperatures`, at least 1000) are independent; the value
    is their mean, weighted by 1 / error^2. Reverse annealing starts from the tempered states: a consistency check. The
    result is trusted where both estimates are and no two of the three lie further apart than 3 combined errors, each of
    which counts rounding; else its standard error is at least half of how far they do. `diagnosis` holds each value and
    error, swap rates, R-hat, and the largest distance in combined errors. InputError for impossible numbers.
    """
    if tempered is not None and len(tempered) != 3:
        raise InputError(f"tempered must be (temperatures, ensembles, sweeps), not {tempered!r}")
    if can_be_sampled_exactly(machine):
        return exact(machine)
    forward = annealed_importance_sampling(machine, temperatures=temperatures, chains=chains, repeats=repeats)
    tempering, states = temper(machine, *(tempered or (TEMPERATURES, ENSEMBLES, max(LEAST_SWEEPS, temperatures))))
    reverse = reverse_annealed_importance_sampling(
        machine, samples=states, temperatures=temperatures, chains=chains, repeats=1
    )
    return agreed(forward, tempering, reverse, rounding(machine, states, temperatures))


def exact(machine: BoltzmannMachine) -> LogPartition:
    """log Z by `exact_log_partition`, in float64; its error is what rounding may do, 0 below .0005 nats."""
    check_precision("parameters of a Boltzmann machine", machine.bias)
    wide = copy.deepcopy(machine).double()
    with torch.no_grad():
        value = float(exact_log_partition(wide))
    most = rounding(wide, torch.ones_like(wide.bias)[None], steps=0)
    how = "enumeration" if bits_to_sum(machine) == machine.enumerated_bits else "elimination"
    return LogPartition(value, most if most >= _SHOWN else 0.0, None, math.isfinite(value), f"exact, by {how}")


def agreed(forward: LogPartition, tempering: LogPartition, reverse: LogPartition, rounded: float = 0.0) -> LogPartition:
    """The weighted mean of the first two, and how far the three lie apart.

    `rounded` is the part of their errors that they share: averaging does not make it less.
    """
    weights = [1 / found.standard_error**2 for found in (forward, tempering)]
    value = (weights[0] * forward.value + weights[1] * tempering.value) / sum(weights)
    pairs = ((forward, tempering), (forward, reverse), (tempering, reverse))
    gaps = [(abs(a.value - b.value), math.hypot(a.standard_error, b.standard_error)) for a, b in pairs]
    apart = max(gap / error for gap, error in gaps)
    together = apart <= MOST_ERRORS_APART
    error = max(1 / math.sqrt(sum(weights)), rounded)
    ways = {"forward": forward, "tempering": tempering, "reverse": reverse}
    return replace(
        forward,
        value=value,
        standard_error=error if together else max(error, max(gap for gap, _ in gaps) / 2),
        trusted=together and forward.trusted and tempering.trusted,
        method=f"{forward.method}; {tempering.method}; checked by {reverse.method}",
        diagnosis={
            **tempering.diagnosis,
            **{f"{name}_log_z": found.value for name, found in ways.items()},
            **{f"{name}_standard_error": found.standard_error for name, found in ways.items()},
            "largest_distance_in_errors": apart,
        },
    )
