"""Samplers of a Boltzmann machine: what they do is visible, and nothing moves unless it is asked to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.latent.boltzmann import BoltzmannMachine
from dvaepp.latent.partition import enumerated_log_marginals, enumerated_states


@dataclass(frozen=True)
class PersistentChains:
    """Markov chains that go on from step to step of training, `sweeps` Gibbs sweeps a step (Tieleman 2008).

    Holds the settings; the states are the prior's visible buffer.
    """

    num_chains: int
    sweeps: int

    def __post_init__(self) -> None:
        for name, value in (("num_chains", self.num_chains), ("sweeps", self.sweeps)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} of PersistentChains must be a positive whole number, not {value!r}")

    def start(self, machine: BoltzmannMachine) -> Float[Tensor, "chains bits"]:
        """Uniform random states to start from."""
        return torch.randint(0, 2, (self.num_chains, machine.bits), device=machine.bias.device).to(machine.bias.dtype)

    def advance(self, machine: BoltzmannMachine, states: Float[Tensor, "chains bits"]) -> Float[Tensor, "chains bits"]:
        """The states after one step's sweeps."""
        return machine.gibbs(states, self.sweeps)


@torch.no_grad()
def exact_sample(machine: BoltzmannMachine, num_samples: int) -> Float[Tensor, "samples bits"]:
    """Independent draws from p(z): the enumerated bits from their marginal, then the summed-out block given them."""
    probabilities = torch.softmax(enumerated_log_marginals(machine).double(), 0)
    z = enumerated_states(machine)[torch.multinomial(probabilities, num_samples, replacement=True)]
    field = machine.field(z, machine.summed)
    z[:, machine.slices[machine.summed]] = (torch.rand_like(field) < torch.sigmoid(field)).to(z.dtype)
    return z
