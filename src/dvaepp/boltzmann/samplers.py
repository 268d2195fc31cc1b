"""Samplers of a Boltzmann machine: what they do is visible, and nothing moves unless it is asked to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.boltzmann.annealing import annealed_population
from dvaepp.boltzmann.enumeration import exact_sample
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.boltzmann.tempering import tempered_sweep
from dvaepp.components.registry import Component
from dvaepp.errors import InputError
from dvaepp.numerics import check_counts, keep_plain


class Sampler(Component, ABC):
    """Where samples of p(z) come from: plain settings; what a sampler goes on from is a tensor that the prior holds.

    >>> machine = BoltzmannMachine(3, 2)
    >>> sampler = PersistentChains(100, sweeps=5)  # any Sampler
    >>> state = sampler.advance(machine, sampler.start(machine))
    >>> sampler.samples(state).shape
    torch.Size([100, 5])
    """

    kind: ClassVar[str] = "sampler"
    folder: ClassVar[str] = "dvaepp.boltzmann"

    @property
    def uniforms(self) -> int:
        """How many uniform numbers `advance` takes as `noise` for each bit of its state; 0 where it takes none."""
        return 0

    @abstractmethod
    def start(self, machine: BoltzmannMachine) -> Float[Tensor, "*_ bits"]:
        """The state to begin with."""

    def advance(
        self,
        machine: BoltzmannMachine,
        state: Float[Tensor, "*_ bits"],
        noise: Float[Tensor, "sweeps *_ bits"] | None = None,
    ) -> Float[Tensor, "*_ bits"]:
        """The state after one step of training, of the same shape; `state` is left as it is.

        A start anew, unless the sampler goes on from its state. `noise`: the uniform numbers that it is drawn with;
        InputError for a sampler that draws its own.
        """
        if noise is not None:
            raise InputError(f"{type(self).__name__} draws with numbers of its own and takes no noise")
        return self.start(machine)

    def samples(self, state: Float[Tensor, "*_ bits"]) -> Float[Tensor, "samples bits"]:
        """The samples of p(z) that a state holds: all of it, unless the sampler says otherwise."""
        return state


@dataclass(frozen=True)
class _Settings(Sampler):
    """A sampler whose settings are all counts."""

    def __post_init__(self) -> None:
        keep_plain(self)
        check_counts(type(self).__name__, **{f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(frozen=True)
class PersistentChains(_Settings):
    """Markov chains that go on from step to step of training, `sweeps` Gibbs sweeps a step (Tieleman 2008).

    Holds the settings; the states are the prior's visible buffer.

    `num_chains` chains; `sweeps` of block Gibbs sampling a step.

    >>> machine = BoltzmannMachine(3, 2)
    >>> chains = PersistentChains(num_chains=100, sweeps=5)
    >>> chains.advance(machine, chains.start(machine)).shape
    torch.Size([100, 5])
    """

    name: ClassVar[str] = "gibbs"
    num_chains: int = 1000
    sweeps: int = 40

    @property
    def uniforms(self) -> int:
        """One a sweep; of a class derived from this one, with an `advance` of its own, none."""
        return self.sweeps if type(self).advance is PersistentChains.advance else 0

    def start(self, machine: BoltzmannMachine) -> Float[Tensor, "chains bits"]:
        """Uniform random states."""
        return machine.uniform(self.num_chains)

    def advance(
        self,
        machine: BoltzmannMachine,
        state: Float[Tensor, "chains bits"],
        noise: Float[Tensor, "sweeps chains bits"] | None = None,
    ) -> Float[Tensor, "chains bits"]:
        """The states after one step's sweeps, with the uniform numbers of `noise` as in `BoltzmannMachine.gibbs`."""
        return machine.gibbs(state, self.sweeps, noise=noise)


@dataclass(frozen=True)
class TemperedChains(_Settings):
    """Chains at `temperatures` evenly spaced inverse temperatures from 0 to 1 that swap states (parallel tempering).

    Samples are the states at 1: `num_chains`, each fed by hotter ones that cross what it cannot. A step costs as much
    as temperatures x num_chains persistent chains (Hukushima & Nemoto 1996).

    >>> machine = BoltzmannMachine(3, 2)
    >>> chains = TemperedChains(num_chains=20, sweeps=2, temperatures=4)
    >>> state = chains.advance(machine, chains.start(machine))
    >>> state.shape, chains.samples(state).shape
    (torch.Size([4, 20, 5]), torch.Size([20, 5]))
    """

    name: ClassVar[str] = "tempering"
    num_chains: int = 1000
    sweeps: int = 5
    temperatures: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts("TemperedChains", least=2, temperatures=self.temperatures)

    def start(self, machine: BoltzmannMachine) -> Float[Tensor, "temperatures chains bits"]:
        """Uniform random states at every temperature."""
        return machine.uniform(self.temperatures, self.num_chains)

    def advance(
        self,
        machine: BoltzmannMachine,
        state: Float[Tensor, "temperatures chains bits"],
        noise: Float[Tensor, "sweeps temperatures chains bits"] | None = None,
    ) -> Float[Tensor, "temperatures chains bits"]:
        """The states after one step's sweeps, each after swaps of the even or the odd neighbours in turn.

        Raises InputError for `noise`, as swaps need more.
        """
        if noise is not None:
            raise InputError("TemperedChains draws with numbers of its own and takes no noise")
        ladder = torch.linspace(0, 1, self.temperatures, dtype=torch.float64)
        first = int(torch.randint(2, ()))  # at random, so that all swap however few the sweeps of a step
        for sweep in range(first, first + self.sweeps):
            state, _, _ = tempered_sweep(machine, state, ladder, sweep % 2)
        return state

    def samples(self, state: Float[Tensor, "temperatures chains bits"]) -> Float[Tensor, "chains bits"]:
        """The states at inverse temperature 1."""
        return state[-1]


@dataclass(frozen=True)
class AnnealedPopulation(_Settings):
    """`population` chains annealed anew at each step through `temperatures`, and resampled (population annealing).

    Nothing is kept from step to step (Hukushima & Iba 2003).

    >>> AnnealedPopulation(population=50, temperatures=10).start(BoltzmannMachine(3, 2)).shape
    torch.Size([50, 5])
    """

    name: ClassVar[str] = "population"
    population: int = 1000
    temperatures: int = 10

    def start(self, machine: BoltzmannMachine) -> Float[Tensor, "population bits"]:
        """A population."""
        return annealed_population(machine, self.population, self.temperatures)


@dataclass(frozen=True)
class ExactSamples(_Settings):
    """`num_samples` independent exact draws at each step, for machines that can be summed exactly.

    By enumeration, or by elimination in a sparse graph (`exact_sample`): enough for Table 3's RBM of 8 + 8 bits.

    >>> ExactSamples(num_samples=50).start(BoltzmannMachine(3, 2)).shape
    torch.Size([50, 5])
    """

    name: ClassVar[str] = "exact"
    num_samples: int = 1000

    def start(self, machine: BoltzmannMachine) -> Float[Tensor, "samples bits"]:
        """New draws."""
        return exact_sample(machine, self.num_samples)
