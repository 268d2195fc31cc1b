"""What an estimate of a partition function says of itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float

from dvaepp.boltzmann.machine import BoltzmannMachine

_STATES = 256


@dataclass(frozen=True)
class LogPartition:
    """log Z (nats), how it was found and how far to trust it.

    `standard_error` counts what `rounding` may do; it is 0 for an exact value, unless that shows. The
    `effective_sample_size` is that of the importance weights, None where there are none. `trusted` is False where the
    estimate's own diagnosis says that its error may be larger than stated; `diagnosis` holds what else it was judged
    by, as numbers by name.

    >>> print(LogPartition(12.5, 0.01, 800.0, True, "annealed importance sampling"))
    12.500 ± 0.010 nats (annealed importance sampling)
    """

    value: float
    standard_error: float
    effective_sample_size: float | None
    trusted: bool
    method: str
    diagnosis: dict[str, float] = field(default_factory=dict)

    @property
    def interval(self) -> tuple[float, float]:
        """value -+ 2 standard errors."""
        return self.value - 2 * self.standard_error, self.value + 2 * self.standard_error

    def __str__(self) -> str:
        """For people: value, error, method."""
        error = f" ± {self.standard_error:.3f}" if self.standard_error else ""
        return f"{self.value:.3f}{error} nats ({self.method}{'' if self.trusted else '; not to be trusted'})"


def widened(error: float, rounding: float) -> float:
    """sqrt(error^2 + rounding^2); the error as it is where rounding is less than a hundredth of it."""
    return error if rounding < error / 100 else math.hypot(error, rounding)


@torch.no_grad()
def rounding(machine: BoltzmannMachine, states: Float[torch.Tensor, "samples bits"], steps: int) -> float:
    """u (n log 2 + E[sum_i |b_i| z_i + sum_ij |J_ij| z_i z_j]), nats: an allowance for what rounding does to log Z.

    A parameter that is off by d puts log Z off by d times the mean of what it multiplies, and rounding is by at most
    half the machine's eps of a number: so is each softplus that is summed, log 2 to begin with. Errors of one sign, as
    of equal biases, add up; along a path from beta 0 to 1 they cancel, but for those of its ends. Its `steps` are added
    up in float64, each with an error of its own: u = eps / 2 + sqrt(steps) 2^-53. `states` are of p(z), of which some
    are looked at. It is no bound: where all terms are equal their sum may drift further. NaN where parameters are not
    finite.
    """
    z = states[:: max(1, len(states) // _STATES)].double()
    terms = z @ machine.bias.abs().double()
    for s, coupling in machine.interactions():
        terms = terms + ((z[:, : s.start] @ coupling.abs().double()) * z[:, s]).sum(1)
    size = float(terms.mean()) + machine.bits * math.log(2)
    unit = torch.finfo(machine.bias.dtype).eps / 2 + math.sqrt(steps) * 2**-53
    return unit * size if math.isfinite(size) else math.nan
