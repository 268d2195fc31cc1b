"""How good samples from elsewhere are: their temperature, their moments, and the log Z that they lead to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.boltzmann.annealing import reverse_annealed_importance_sampling
from dvaepp.boltzmann.diagnostics import effective_inverse_temperature
from dvaepp.boltzmann.ising import to_qubo
from dvaepp.boltzmann.log_partition import LogPartition
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError


@dataclass(frozen=True)
class SampleQuality:
    """Samples of a Boltzmann machine against p(z).

    `inverse_temperature` is the beta at which they look drawn (`effective_inverse_temperature`): 1 for p(z), less for
    samples that are too hot. `bits` and `pairs` are the root mean squares, over bits and over pairs of bits that the
    machine joins, of the difference of E[z_i] and of E[z_i z_j] from the reference's; `bits_noise` and `pairs_noise`
    what independent samples of p(z), as many on both sides, would differ by. `log_partition` is log Z by reverse
    annealing from the samples: it is right, up to its error, if they are of p(z).
    """

    samples: int
    inverse_temperature: float
    bits: float
    bits_noise: float
    pairs: float
    pairs_noise: float
    log_partition: LogPartition


@torch.no_grad()
def sample_quality(
    machine: BoltzmannMachine,
    samples: Float[Tensor, "n bits"],
    reference: Float[Tensor, "m bits"],
    temperatures: int = 1000,
) -> SampleQuality:
    """How samples from anywhere compare with a reference: samples of p(z) by a sampler that is trusted.

    `temperatures` are those of the annealing.

    InputError where either holds other than states of the machine.

    >>> from dvaepp import exact_sample
    >>> machine = BoltzmannMachine(3, 2)
    >>> found = sample_quality(machine, exact_sample(machine, 500), exact_sample(machine, 500))
    >>> found.bits < 5 * found.bits_noise
    True
    """
    for states in (samples, reference):
        machine.check(states)
        if states.ndim != 2 or len(states) < 2 or not bool(((states == 0) | (states == 1)).all()):
            raise InputError(f"samples must be two states of bits 0 and 1 or more, not of shape {tuple(states.shape)}")
    first, second = torch.from_numpy(to_qubo(machine).pairs).T.to(samples.device)
    moments = [(z.double(), z.double()[:, first] * z.double()[:, second]) for z in (samples, reference)]
    (bits, bits_noise), (pairs, pairs_noise) = (_differences(*each) for each in zip(*moments, strict=True))
    return SampleQuality(
        len(samples),
        effective_inverse_temperature(machine, samples),
        bits,
        bits_noise,
        pairs,
        pairs_noise,
        reverse_annealed_importance_sampling(machine, samples=samples, temperatures=temperatures),
    )


def _differences(one: Tensor, other: Tensor) -> tuple[float, float]:
    """Root mean squares of the difference of the columns' means, and of its standard error."""
    if not one.shape[1]:
        return 0.0, 0.0
    noise = other.var(0) * (1 / len(one) + 1 / len(other))
    return float((one.mean(0) - other.mean(0)).square().mean().sqrt()), float(noise.mean().sqrt())
