"""Samples of a Boltzmann machine from D-Wave's samplers, in software or hardware, by dimod's interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from dvaepp.boltzmann.diagnostics import effective_inverse_temperature
from dvaepp.boltzmann.ising import QuadraticModel, to_bqm, to_ising
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.boltzmann.samplers import Sampler
from dvaepp.errors import InputError
from dvaepp.numerics import check_above, check_counts, keep_plain

_MOST_SEED = 2**31 - 1
_MOST_BETA = 100.0


@dataclass(frozen=True)
class DimodSampler(Sampler):
    """`num_reads` draws from p(z) = exp(-E(z)) / Z at each step, by a dimod sampler: annealer, processor or mock.

    A sampler that is given the energies F draws from exp(-inverse_temperature F(z)); so it is given E divided by
    `inverse_temperature`, which `calibrated` finds where it is not known. E is submitted as an Ising model over
    `machine.labels`. `parameters` go to `sampler.sample`; besides them only what the sampler declares is passed:
    `num_reads`, a `seed` from torch's generator, so that a resumed run is the uninterrupted one, and `auto_scale` off,
    since a processor that rescales problems has another temperature for each.

    Should there be more samples than asked for, a random choice of them is kept; should there be fewer, but half at
    least (chains of qubits that broke and were discarded), some are drawn again. A sampler that takes no `num_reads`
    and returns every state once, as dimod.ExactSolver does, is drawn from with weights exp(-E(z)). Nothing is kept from
    step to step.

    >>> import dimod
    >>> sampler = DimodSampler(dimod.ExactSolver(), num_reads=100)
    >>> sampler.start(BoltzmannMachine(3, 2)).shape
    torch.Size([100, 5])
    """

    sampler: Any
    num_reads: int
    inverse_temperature: float = 1.0
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        declared = getattr(self.sampler, "parameters", None)
        if not isinstance(declared, Mapping) or not callable(getattr(self.sampler, "sample", None)):
            raise InputError(f"sampler of DimodSampler must be a dimod sampler, not a {type(self.sampler).__name__}")
        keep_plain(self)
        check_counts("DimodSampler", num_reads=self.num_reads)
        check_above("inverse_temperature of DimodSampler", self.inverse_temperature)
        if "num_reads" in self.parameters:
            raise InputError("num_reads is a setting of DimodSampler itself, and not among its parameters")
        strange = [name for name in self.parameters if name not in declared]
        if strange:
            raise InputError(f"{self._name} takes no parameter {strange[0]!r} (but {', '.join(sorted(declared))})")

    def start(self, machine: BoltzmannMachine) -> Float[Tensor, "reads bits"]:
        """New draws."""
        return self._draw(machine)

    def calibrated(self, machine: BoltzmannMachine, rounds: int = 3) -> DimodSampler:
        """A copy at the inverse temperature that the sampler's own samples of a machine speak of.

        Each round draws samples, finds the beta of p_beta(z) they look drawn from, by pseudo-likelihood
        (`effective_inverse_temperature`), and multiplies `inverse_temperature` by it: a fixed point where beta = 1. It
        holds for this machine, and for others as far as the sampler's temperature does not depend on the problem; a
        processor's does, so calibrate anew as training goes on. The last round's samples alone determine the
        result: its error is that of `num_reads` draws. Raises InputError where the samples do not favour low energies.
        """
        check_counts("calibrated", rounds=rounds)
        found = self
        for _ in range(rounds):
            beta = effective_inverse_temperature(machine, found._draw(machine))
            if not 0 < beta < _MOST_BETA:
                why = "do not favour low energies" if beta <= 0 else "are minima rather than draws"
                raise InputError(
                    f"samples of {self._name} look drawn at inverse temperature {beta:.3g}: they {why}, so it cannot "
                    "be calibrated"
                )
            found = replace(found, inverse_temperature=found.inverse_temperature * beta)
        return found

    @property
    def _name(self) -> str:
        return type(self.sampler).__name__

    def _draw(self, machine: BoltzmannMachine) -> Float[Tensor, "reads bits"]:
        declared = self.sampler.parameters
        passed: dict[str, Any] = {"auto_scale": False, "num_reads": self.num_reads}
        if "seed" in declared and "seed" not in self.parameters:
            passed["seed"] = int(torch.randint(_MOST_SEED, ()))
        passed = {name: value for name, value in passed.items() if name in declared} | dict(self.parameters)
        model = to_ising(machine).scaled(1 / self.inverse_temperature)
        found = self._ask(model, passed)
        rows = self._in_order(machine, found)
        if "num_reads" not in declared and len(rows) == 2.0**machine.bits == len(np.unique(rows, axis=0)):
            log_weights = torch.from_numpy(-self.inverse_temperature * model.energy(2.0 * rows - 1))
            chosen = torch.multinomial(torch.softmax(log_weights, 0), self.num_reads, replacement=True).numpy()
        else:
            chosen = self._choose(np.repeat(np.arange(len(rows)), found.record.num_occurrences))
        return torch.from_numpy(rows[chosen]).to(machine.bias)

    def _ask(self, model: QuadraticModel, parameters: Mapping[str, Any]) -> Any:
        """The sampler's sample set; InputError where its graph is not the model's."""
        bqm = to_bqm(model)
        from dimod.exceptions import BinaryQuadraticModelStructureError

        try:
            return self.sampler.sample(bqm, **parameters)
        except BinaryQuadraticModelStructureError as error:
            raise InputError(
                f"the machine's graph is not part of that of {self._name} ({error}): make the machine on the sampler's "
                "graph (machine_on_graph), or wrap the sampler in an embedding"
            ) from None

    def _in_order(self, machine: BoltzmannMachine, found: Any) -> Shaped[np.ndarray, "rows bits"]:
        """Whether each bit is 1 in each of a sample set's rows, columns in the machine's order."""
        place = {label: column for column, label in enumerate(found.variables)}
        missing = [label for label in machine.labels if label not in place]
        if missing:
            raise InputError(f"samples of {self._name} lack {len(missing)} bits of the machine, such as {missing[0]!r}")
        rows: np.ndarray = found.record.sample[:, [place[label] for label in machine.labels]] > 0
        return rows

    def _choose(self, rows: Shaped[np.ndarray, " drawn"]) -> Shaped[np.ndarray, " reads"]:
        """As many of the rows drawn as were asked for."""
        drawn, wanted = len(rows), self.num_reads
        if drawn == wanted:
            return rows
        if 2 * drawn < wanted:
            raise InputError(f"{self._name} returned {drawn} samples of the {wanted} that it was asked for")
        if drawn > wanted:
            return np.asarray(rows[torch.randperm(drawn)[:wanted].numpy()])
        return np.concatenate([rows, rows[torch.randint(drawn, (wanted - drawn,)).numpy()]])


def simulated_annealing(num_reads: int, sweeps: int) -> DimodSampler:
    """D-Wave's simulated annealing, set to sample p(z): half its sweeps anneal from 0 to 1, the others stay at 1.

    It draws each spin given the others (Gibbs): sequential Metropolis updates, the sampler's default, need not be
    ergodic, and an anneal that only ends at 1 is hotter than p(z) by as much as it lags behind. Raises InputError where
    dwave-samplers is not installed.
    """
    check_counts("simulated_annealing", sweeps=sweeps)
    try:
        from dwave.samplers import SimulatedAnnealingSampler
    except ImportError:
        raise InputError("simulated annealing needs dwave-samplers: pip install 'dvaepp[dwave]'") from None
    rising = sweeps // 2
    schedule = [*(step / (rising + 1) for step in range(1, rising + 1)), *[1.0] * (sweeps - rising)]
    parameters = {
        "beta_schedule_type": "custom",
        "beta_schedule": tuple(schedule),
        "proposal_acceptance_criteria": "Gibbs",
    }
    return DimodSampler(SimulatedAnnealingSampler(), num_reads, parameters=parameters)


@dataclass(frozen=True)
class SimulatedAnnealer(Sampler):
    """`num_reads` anneals of D-Wave's simulated annealing at each step, as `simulated_annealing` sets it.

    Each begins anew: it needs some 40 `sweeps` where chains that go on from step to step take 5.

    >>> SimulatedAnnealer(num_reads=100).start(BoltzmannMachine(3, 2)).shape
    torch.Size([100, 5])
    """

    name: ClassVar[str] = "annealer"
    num_reads: int = 1000
    sweeps: int = 40

    def __post_init__(self) -> None:
        keep_plain(self)
        check_counts("SimulatedAnnealer", num_reads=self.num_reads, sweeps=self.sweeps)

    def start(self, machine: BoltzmannMachine) -> Float[Tensor, "reads bits"]:
        """New draws; InputError where dwave-samplers is not installed."""
        return simulated_annealing(self.num_reads, self.sweeps).start(machine)
