"""Every sampler on one contract: shapes, seeds, untouched inputs, and the machine's moments by enumeration."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from registry import RING, every_sampler, exact_pair_moments, machine, pair_moments, sparse_machine
from torch import Tensor

from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.boltzmann.samplers import AnnealedPopulation, ExactSamples, PersistentChains, Sampler, TemperedChains
from dvaepp.errors import InputError

samplers = pytest.mark.parametrize("sampler", every_sampler.values(), ids=every_sampler)
every_machine = {
    "rbm": machine(3, 3, sd=1.2),
    "three-blocks": machine(2, 3, 1, sd=1.2),
    "ring": sparse_machine(3, 3, pairs=RING, sd=1.2),
}


@samplers
def test_a_step_keeps_the_shape_and_leaves_its_state_as_it_is(sampler: Sampler) -> None:
    for dtype in (torch.float32, torch.float64):
        m = machine(3, 2).to(dtype)
        state = sampler.start(m)
        before = state.clone()
        after = sampler.advance(m, state)
        assert state.dtype == after.dtype == dtype
        assert after.shape == state.shape
        assert state.shape[-1] == 5
        assert torch.equal(state, before)
        assert not torch.equal(after, state)
        assert not after.requires_grad
        assert set(after.unique().tolist()) == {0.0, 1.0}
        samples = sampler.samples(after)
        assert samples.ndim == 2
        assert samples.shape[-1] == 5


@samplers
def test_the_seed_decides(sampler: Sampler) -> None:
    m, runs = machine(3, 2), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(sampler.advance(m, sampler.start(m)))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@samplers
def test_the_machine_is_not_moved(sampler: Sampler) -> None:
    m = machine(3, 2)
    before = [p.detach().clone() for p in m.parameters()]
    sampler.advance(m, sampler.start(m))
    assert all(torch.equal(p, b) and p.grad is None for p, b in zip(m.parameters(), before, strict=True))


def settled(sampler: Sampler, m: BoltzmannMachine) -> Tensor:
    state = sampler.start(m)
    for _ in range(1 if isinstance(sampler, AnnealedPopulation | ExactSamples) else 10):
        state = sampler.advance(m, state)
    return sampler.samples(state)


@samplers
@pytest.mark.parametrize("name", list(every_machine))
def test_samples_have_the_machines_moments(sampler: Sampler, name: str) -> None:
    m = every_machine[name]
    z = settled(sampler, m)
    exact = exact_pair_moments(m)
    # An annealed population's members are not independent: twice the error of as many that are.
    errors = (10 if isinstance(sampler, AnnealedPopulation) else 5) * (exact * (1 - exact) / len(z)).sqrt()
    off = (pair_moments(z).mean(0) - exact).abs()
    assert bool((off < errors + 1 / len(z)).all()), f"{off / errors}"


@pytest.mark.parametrize("sampler", every_sampler.values(), ids=every_sampler)
def test_a_sampler_says_how_many_numbers_it_takes(sampler: Sampler) -> None:
    model = machine(4)
    state = sampler.start(model)
    noise = torch.rand(sampler.uniforms or 1, *state.shape, dtype=state.dtype)
    if not sampler.uniforms:
        with pytest.raises(InputError, match="numbers of its own"):
            sampler.advance(model, state, noise)
        return
    assert torch.equal(sampler.advance(model, state, noise), sampler.advance(model, state, noise))
    assert not torch.equal(sampler.advance(model, state, noise), sampler.advance(model, state))


def test_the_first_states_of_chains_are_uniform() -> None:
    for sampler in (PersistentChains(4000, 1), TemperedChains(1000, 1, 4)):
        z = sampler.start(machine(3, 2, sd=3.0)).reshape(-1, 5)
        assert len(z) == 4000
        assert float((z.mean(0) - 0.5).abs().max()) < 5 * 0.5 / math.sqrt(4000)


def test_tempered_samples_are_the_coldest_states() -> None:
    sampler = TemperedChains(7, 1, temperatures=4)
    state = sampler.start(machine(3, 2))
    assert state.shape == (4, 7, 5)
    assert torch.equal(sampler.samples(state), state[3])


@pytest.mark.parametrize("sweeps", [1, 3])
def test_states_reach_the_coldest_temperature_from_the_hottest_however_few_the_sweeps(sweeps: int) -> None:
    """Two wells that a cold chain never leaves: only swaps all the way up and down cross between them."""
    m = BoltzmannMachine(4, 4).double()
    with torch.no_grad():
        m.couplings[0].fill_(5.0)
        m.bias.fill_(-10.0)
    cold = torch.ones(200, 8, dtype=torch.float64)
    assert float(m.gibbs(cold, 200).mean()) > 0.99
    sampler = TemperedChains(200, sweeps, temperatures=6)
    state = cold.expand(6, 200, 8).clone()
    for _ in range(150 // sweeps):
        state = sampler.advance(m, state)
    ones = float(sampler.samples(state).mean())
    assert abs(ones - 0.5) < 5 * 0.5 / math.sqrt(200)


@samplers
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "3", None])
def test_settings_that_are_no_counts_are_refused_by_name(
    sampler: Any, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    for setting in fields(sampler):
        with pytest.raises(InputError, match=f"{setting.name} of {type(sampler).__name__}"):
            replace(sampler, **{setting.name: value})


def test_tempering_needs_two_temperatures() -> None:
    with pytest.raises(InputError, match="temperatures of TemperedChains must be .* at least 2, not 1"):
        TemperedChains(10, 1, temperatures=1)
    assert TemperedChains(10, 1).temperatures == 10
    assert PersistentChains(1, 1).num_chains == ExactSamples(1).num_samples == 1


def test_settings_are_plain_values_that_compare() -> None:
    assert PersistentChains(10, 2) == PersistentChains(num_chains=10, sweeps=2)
    assert TemperedChains(10, 2) != TemperedChains(10, 2, 5)
    assert len({ExactSamples(3), ExactSamples(3), AnnealedPopulation(3, 4)}) == 2
    with pytest.raises(AttributeError):
        ExactSamples(3).num_samples = 4  # type: ignore[misc]
