"""The interface to dimod's samplers against mocks that draw exactly, in other orders and at other temperatures."""

import builtins
import math
from collections.abc import Mapping
from typing import Any

import dimod
import numpy as np
import pytest
import torch
from registry import all_states, assert_mean, errors_off, log_boltzmann, machine, randomise

from dvaepp.boltzmann.diagnostics import effective_inverse_temperature
from dvaepp.boltzmann.dimod_sampler import DimodSampler, simulated_annealing
from dvaepp.boltzmann.graphs import hardware_graph, machine_on_graph
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError
from dvaepp.priors.boltzmann import BoltzmannPrior


class Drawing(dimod.Sampler):
    """Draws exactly from exp(-beta E), by enumeration; hands variables back in another order, rows aggregated."""

    properties: Mapping[str, Any] = {}

    def __init__(self, beta: float = 1.0, vartype: str = "SPIN", lost: int = 0, **declared: Any) -> None:
        self.beta, self.answer, self.lost = beta, vartype, lost
        self.declared = {"num_reads": [], "seed": [], **declared}
        self.calls: list[dict[str, Any]] = []
        self.problems: list[dimod.BinaryQuadraticModel] = []

    @property
    def parameters(self) -> Any:
        return self.declared

    def sample(self, bqm: dimod.BinaryQuadraticModel, **parameters: Any) -> dimod.SampleSet:
        assert set(parameters) <= set(self.declared)
        self.calls.append(parameters)
        self.problems.append(bqm)
        generator = np.random.default_rng(parameters.get("seed"))
        labels = list(bqm.variables)
        order = np.random.default_rng(5).permutation(len(labels))
        spins = 2 * all_states(len(labels)).numpy() - 1
        weights = -self.beta * bqm.energies((spins, labels))
        weights = np.exp(weights - weights.max())
        count = generator.multinomial(parameters["num_reads"] - self.lost, weights / weights.sum())
        found = dimod.SampleSet.from_samples_bqm(
            (spins[count > 0][:, order].astype(np.int8), [labels[i] for i in order]),
            bqm,
            num_occurrences=count[count > 0],
        )
        return found.change_vartype(self.answer, inplace=False)


def on_graph() -> BoltzmannMachine:
    edges = [("a", 7), (7, (1, "x")), ((1, "x"), "d"), ("d", "a"), ("a", (1, "x")), ("d", 2)]
    made: BoltzmannMachine = randomise(machine_on_graph(edges), 0.8)
    return made


def pair_products(z: torch.Tensor) -> torch.Tensor:
    """Every bit and every product of two bits."""
    i, j = torch.triu_indices(z.shape[-1], z.shape[-1])
    return z[..., i] * z[..., j]


def exact_moments(m: BoltzmannMachine) -> torch.Tensor:
    return log_boltzmann(m).detach().exp() @ pair_products(all_states(m.bits))


def assert_samples_p(m: BoltzmannMachine, z: torch.Tensor) -> None:
    """All first and second moments are those of p(z), to five standard errors."""
    assert_mean(pair_products(z.double()), exact_moments(m))


# --- order, variables, counts ---


@pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])
@pytest.mark.parametrize("make", [lambda: machine(3, 3), on_graph], ids=["rbm", "graph"])
def test_samples_come_back_in_the_machines_order_as_bits(make: Any, vartype: str) -> None:
    m = make()
    z = DimodSampler(Drawing(vartype=vartype), 20_000).start(m)
    assert z.shape == (20_000, m.bits)
    assert z.dtype == m.bias.dtype
    assert bool(((z == 0) | (z == 1)).all())
    assert_samples_p(m, z)


def test_a_problem_is_the_machines_energy_over_its_labels_divided_by_the_inverse_temperature() -> None:
    m, drawing = on_graph(), Drawing()
    DimodSampler(drawing, 10, inverse_temperature=4.0).start(m)
    (bqm,) = drawing.problems
    z = all_states(m.bits)
    assert bqm.vartype is dimod.SPIN
    energies = torch.from_numpy(bqm.energies(((2 * z - 1).numpy(), list(m.labels))))
    torch.testing.assert_close(4 * energies, m.energy(z).detach(), rtol=1e-12, atol=1e-12)


def test_more_samples_than_asked_for_are_thinned_at_random() -> None:
    m = machine(3, 3)
    z = DimodSampler(Drawing(lost=-20_000), 10_000).start(m)
    assert len(z) == 10_000
    assert_samples_p(m, z)


def test_fewer_samples_than_asked_for_are_filled_up_from_themselves() -> None:
    m = machine(3, 3)
    torch.manual_seed(7)
    z = DimodSampler(Drawing(lost=5), 10).start(m)
    first, again = z[:5], z[5:]
    assert all(any(torch.equal(row, other) for other in first) for row in again)


def test_a_handful_of_the_samples_asked_for_is_refused() -> None:
    for lost in (6, 10):
        with pytest.raises(InputError, match=f"Drawing returned {10 - lost} samples of the 10 that it was asked for"):
            DimodSampler(Drawing(lost=lost), 10).start(machine(3, 3))


def test_samples_without_a_bit_are_refused_by_its_label() -> None:
    class Forgetful(Drawing):
        def sample(self, bqm: dimod.BinaryQuadraticModel, **parameters: Any) -> dimod.SampleSet:
            return dimod.SampleSet.from_samples([{"a": 1}] * 10, "SPIN", 0.0)

    with pytest.raises(InputError, match="Forgetful lack 4 bits of the machine, such as"):
        DimodSampler(Forgetful(), 10).start(on_graph())


def test_an_exact_solver_is_drawn_from_with_the_machines_probabilities() -> None:
    m = on_graph()
    for temperature in (1.0, 2.5):
        z = DimodSampler(dimod.ExactSolver(), 20_000, temperature).start(m)
        assert_samples_p(m, z)


def test_a_solver_that_returns_one_best_state_is_refused() -> None:
    class Solver(Drawing):
        def sample(self, bqm: dimod.BinaryQuadraticModel, **parameters: Any) -> dimod.SampleSet:
            return dimod.ExactSolver().sample(bqm).truncate(1)

    solver = Solver()
    solver.declared = {}
    with pytest.raises(InputError, match="Solver returned 1 samples of the 100"):
        DimodSampler(solver, 100).start(machine(2, 2))


def test_composed_samplers_serve() -> None:
    m = on_graph()
    structured = dimod.StructureComposite(Drawing(), list(m.labels), list(to_edges(m)))
    assert_samples_p(m, DimodSampler(structured, 20_000).start(m))
    tracked = dimod.TrackingComposite(dimod.TruncateComposite(Drawing(), 10**6))
    assert_samples_p(m, DimodSampler(tracked, 20_000).start(m))


def test_a_machine_on_another_graph_than_the_samplers_is_refused() -> None:
    structured = dimod.StructureComposite(Drawing(), [0, 1, 2], [(0, 1)])
    with pytest.raises(InputError, match="graph is not part of that of StructureComposite.*machine_on_graph"):
        DimodSampler(structured, 10).start(machine(2, 1))


def to_edges(m: BoltzmannMachine) -> list[tuple[Any, Any]]:
    assert m.mask is not None
    return [(m.labels[i], m.labels[j]) for i, j in m.mask.nonzero().tolist()]


# --- parameters and seeds ---


def test_only_declared_parameters_are_passed() -> None:
    drawing = Drawing(annealing_time=[])
    DimodSampler(drawing, 10, parameters={"annealing_time": 20}).start(machine(2, 2))
    del drawing.declared["seed"]
    DimodSampler(drawing, 10).start(machine(2, 2))
    assert set(drawing.calls[0]) == {"num_reads", "seed", "annealing_time"}
    assert drawing.calls[0]["annealing_time"] == 20
    assert drawing.calls[1] == {"num_reads": 10}


def test_processors_are_not_left_to_rescale_problems_unless_they_are_told_to() -> None:
    drawing = Drawing(auto_scale=[])
    DimodSampler(drawing, 10).start(machine(2, 2))
    DimodSampler(drawing, 10, parameters={"auto_scale": True}).start(machine(2, 2))
    assert [call["auto_scale"] for call in drawing.calls] == [False, True]


def test_seeds_come_from_torch_unless_one_is_given() -> None:
    drawing, m = Drawing(), machine(2, 2)
    sampler = DimodSampler(drawing, 50)
    torch.manual_seed(1)
    first, second = sampler.start(m), sampler.advance(m, sampler.start(m))
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(sampler.start(m), first)
    assert len({call["seed"] for call in drawing.calls}) == 3
    DimodSampler(drawing, 50, parameters={"seed": 11}).start(m)
    assert drawing.calls[-1]["seed"] == 11


def test_bad_settings_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(InputError, match="must be a dimod sampler, not a int"):
        DimodSampler(3, 10)
    with pytest.raises(InputError, match="num_reads of DimodSampler must be a whole number of at least 1, not 0"):
        DimodSampler(Drawing(), 0)
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="inverse_temperature of DimodSampler must be a finite number above 0"):
            DimodSampler(Drawing(), 10, temperature)
    with pytest.raises(InputError, match="Drawing takes no parameter 'sweeps' \\(but num_reads, seed\\)"):
        DimodSampler(Drawing(), 10, parameters={"sweeps": 3})
    with pytest.raises(InputError, match="num_reads is a setting of DimodSampler itself"):
        DimodSampler(Drawing(), 10, parameters={"num_reads": 3})
    with pytest.raises(InputError, match="sweeps of simulated_annealing must be a whole number"):
        simulated_annealing(10, 0)
    with pytest.raises(InputError, match="rounds of calibrated"):
        DimodSampler(Drawing(), 10).calibrated(machine(2, 2), 0)


# --- unknown temperatures ---


@pytest.mark.parametrize("beta", [2.5, 0.3])
def test_a_samplers_temperature_is_found_and_its_samples_are_then_of_p(beta: float) -> None:
    m = machine(4, 4, sd=0.5)
    uncalibrated = DimodSampler(Drawing(beta), 4000)
    found = torch.tensor([uncalibrated.calibrated(m).inverse_temperature for _ in range(20)], dtype=torch.float64)
    assert_mean(found, beta)
    assert float(found.std()) < 0.05 * beta
    assert float(errors_off(pair_products(uncalibrated.start(m)), exact_moments(m)).max()) > 5
    assert_samples_p(m, DimodSampler(Drawing(beta), 4000, float(found.mean())).start(m))


def test_a_known_temperature_needs_no_calibration() -> None:
    m = machine(3, 3)
    assert_samples_p(m, DimodSampler(Drawing(2.5), 20_000, inverse_temperature=2.5).start(m))


def test_samples_that_favour_high_energies_cannot_be_calibrated() -> None:
    with pytest.raises(
        InputError, match="samples of Drawing look drawn at inverse temperature -0.9.*cannot be calibra"
    ):
        DimodSampler(Drawing(-1.0), 4000).calibrated(machine(3, 3))


# --- simulated annealing ---


@pytest.mark.parametrize("sd", [0.3, 1.0])
def test_simulated_annealing_samples_p_up_to_half_a_percent(sd: float) -> None:
    """With 20 sweeps what bias there is is below the noise of 200,000 samples: 0.0056 is five standard errors."""
    m = machine(8, 8, sd=sd, seed=3)
    z, states = simulated_annealing(200_000, 20).start(m), all_states(m.bits)
    error = z.T @ z / len(z) - states.T @ (log_boltzmann(m).detach().exp()[:, None] * states)
    assert float(error.abs().max()) < 0.0056
    assert float(error.square().mean().sqrt()) < 0.002
    assert abs(effective_inverse_temperature(m, z) - 1) < 0.02


def test_simulated_annealing_repeats_itself_from_the_same_seed() -> None:
    m = machine_on_graph(hardware_graph("zephyr-1"))
    with torch.no_grad():
        m.bias.normal_()
    sampler = simulated_annealing(20, 4)
    torch.manual_seed(3)
    state = sampler.start(m)
    then = torch.get_rng_state()
    following = sampler.advance(m, state)
    assert not torch.equal(state, following)
    torch.set_rng_state(then)
    assert torch.equal(sampler.advance(m, state), following)


def test_the_schedule_ends_at_p() -> None:
    for sweeps in (1, 2, 5, 20):
        schedule = simulated_annealing(10, sweeps).parameters["beta_schedule"]
        assert len(schedule) == sweeps
        assert list(schedule) == sorted(schedule)
        assert 0 < schedule[0]
        assert sum(beta == 1 for beta in schedule) == sweeps - sweeps // 2


def test_a_prior_trains_on_its_samples() -> None:
    prior = BoltzmannPrior(machine(3, 3).float(), simulated_annealing(50, 4), exact_bits=0)
    before = prior.states.clone()
    prior.refresh()
    assert prior.states.shape == before.shape == (50, 6)
    assert not torch.equal(prior.states, before)
    prior.log_z().backward()
    assert prior.machine.bias.grad is not None


def test_without_dwave_samplers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def without_samplers(name: str, *rest: Any, **more: Any) -> Any:
        if name == "dwave.samplers":
            raise ImportError(name)
        return load(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_samplers)
    with pytest.raises(InputError, match=r"pip install 'dvaepp\[dwave\]'"):
        simulated_annealing(10, 4)
