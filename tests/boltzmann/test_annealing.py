"""Annealing against enumeration: unbiased however few the temperatures, honest about its error, rightly distrusted."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from registry import (
    RING,
    WHEEL,
    assert_mean,
    brute_force_log_z,
    draw_states,
    exact_pair_moments,
    log_boltzmann,
    machine,
    pair_moments,
    sparse_machine,
)
from torch import Tensor

from dvaepp.boltzmann.annealing import (
    _Annealed,
    _resampled,
    _systematic,
    annealed_importance_sampling,
    annealed_population,
    population_annealing,
    reverse_annealed_importance_sampling,
)
from dvaepp.boltzmann.enumeration import exact_log_partition
from dvaepp.boltzmann.log_partition import LogPartition
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError

Make = Callable[..., BoltzmannMachine]

every_machine: dict[str, Make] = {
    **{str(blocks): partial(machine, *blocks) for blocks in [(3, 2), (2, 1, 2), (1, 1, 1, 1), (4,)]},
    "ring": partial(sparse_machine, 3, 3, pairs=RING),
    "wheel": partial(sparse_machine, 3, 2, 1, pairs=WHEEL),
}
machines = pytest.mark.parametrize("make", every_machine.values(), ids=every_machine)


def small_population(
    m: BoltzmannMachine, *, temperatures: int, chains: int, repeats: int = 3, sweeps: int = 1
) -> LogPartition:
    return population_annealing(m, temperatures=temperatures, population=chains, repeats=repeats, sweeps=sweeps)


every_way: dict[str, Callable[..., LogPartition]] = {
    "forward": annealed_importance_sampling,
    "reverse": reverse_annealed_importance_sampling,
    "population": small_population,
}
ways = pytest.mark.parametrize("way", every_way)


# --- unbiased ---


def z_over_exact(way: str, m: BoltzmannMachine, calls: int, **settings: int) -> Tensor:
    """Z estimate / Z of independent calls, or for reverse annealing its inverse: each averages to 1."""
    log_z = brute_force_log_z(m).item()
    values = torch.tensor([every_way[way](m, **settings).value for _ in range(calls)], dtype=torch.float64)
    return torch.exp((log_z - values) if way == "reverse" else (values - log_z))


@ways
@machines
@pytest.mark.parametrize("temperatures", [1, 3])
def test_the_estimate_of_z_is_unbiased_however_few_the_temperatures(way: str, make: Make, temperatures: int) -> None:
    # 16 means of 300 x 20 chains each: small populations, so that every one of their resamplings counts.
    m = make(sd=1.5, seed=4)
    assert_mean(z_over_exact(way, m, 16, temperatures=temperatures, chains=20, repeats=300), 1.0, sigmas=6)


@pytest.mark.parametrize(("population", "sweeps"), [(5, 1), (20, 1), (20, 2)])
def test_populations_that_resample_again_and_again_are_unbiased(
    population: int, sweeps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resampled = []

    def watched(log_weights: Tensor, log_means: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = _resampled(log_weights, log_means)
        resampled.append((found[1] == 0).all(1))
        return found

    monkeypatch.setattr("dvaepp.boltzmann.annealing._resampled", watched)
    m = machine(*[1] * 6, sd=4.0, seed=1)
    settings = {"temperatures": 4, "chains": population, "repeats": 500, "sweeps": sweeps}
    assert_mean(z_over_exact("population", m, 25, **settings), 1.0, sigmas=6)
    times = torch.stack(resampled).view(25, 3, 500).sum(1)
    assert float((times > 1).double().mean()) > 0.05


def test_the_logarithm_of_an_unbiased_estimate_is_low_and_that_of_its_inverse_high() -> None:
    m = machine(4, 4, sd=2.5)
    settings = {"temperatures": 2, "chains": 2, "repeats": 1}
    for way, side in (("forward", -1), ("population", -1), ("reverse", 1)):
        logs = torch.tensor([every_way[way](m, **settings).value for _ in range(100)]) - brute_force_log_z(m).item()
        assert side * float(logs.mean()) > 3 * float(logs.std()) / math.sqrt(100)


# --- errors ---


@pytest.mark.parametrize(("way", "repeats"), [("forward", 4), ("reverse", 1), ("population", 1)])
def test_the_standard_error_is_the_spread_of_the_estimates(way: str, repeats: int) -> None:
    m = machine(6, 6, sd=1.0)
    log_z = brute_force_log_z(m).item()
    found = [every_way[way](m, temperatures=4, chains=600 // repeats, repeats=repeats) for _ in range(100)]
    scores = torch.tensor([(f.value - log_z) / f.standard_error for f in found])
    assert 0.6 < float(scores.std()) < 1.4
    assert abs(float(scores.mean())) < 0.6  # the bias of a logarithm, and 5 / sqrt(100)


def test_the_standard_error_counts_the_families_of_a_population_that_resamples() -> None:
    m = machine(6, 6, sd=2.0)
    log_z = brute_force_log_z(m).item()
    found = [small_population(m, temperatures=5, chains=600, repeats=1) for _ in range(100)]
    scores = torch.tensor([(f.value - log_z) / f.standard_error for f in found])
    assert 0.6 < float(scores.std()) < 1.4
    assert max(f.effective_sample_size for f in found) < 450


def annealed(weights: list[list[float]], families: list[list[int]], log_means: list[float]) -> _Annealed:
    log_weights = torch.tensor(weights, dtype=torch.float64).log()
    return _Annealed(
        log_weights, torch.tensor(log_means, dtype=torch.float64), torch.tensor(families), torch.zeros(1, 1)
    )


def test_the_effective_sample_size_is_that_of_families() -> None:
    # Shares of the families in repeats of mean 2 and 8: 2, 4 | 24, 8 of 38 in twelve chains' families 0 1 | 3 5.
    found = annealed([[0.5, 0.5, 2.0], [1.0, 2.0, 1.0]], [[0, 0, 1], [3, 5, 3]], [math.log(2), math.log(8)])
    result = found.log_partition(1.25, "some method", 0.0)
    shares = torch.tensor([2.0, 4.0, 16.0, 16.0]) / 38
    size = 1 / float((shares**2).sum())
    assert result.effective_sample_size == pytest.approx(size)
    assert result.value == pytest.approx(1.25 + math.log((2.0 + 32 / 3) / 2))
    by_weights = math.sqrt(1 / size - 1 / 6)
    each = torch.tensor([math.log(2.0), math.log(32 / 3)])
    assert result.standard_error == pytest.approx(max(by_weights, float(each.std()) / math.sqrt(2)))
    assert result.method == "some method"
    assert not result.trusted


def result_of(weights: Tensor, families: Tensor | None = None) -> LogPartition:
    repeats, chains = weights.shape
    families = torch.arange(repeats * chains).view(repeats, chains) if families is None else families
    return _Annealed(
        weights.double().log(), torch.zeros(repeats, dtype=torch.float64), families, torch.zeros(1, 1)
    ).log_partition(0.0, "", rounding=0.0)


def test_it_is_trusted_from_a_hundred_effective_families_on() -> None:
    generator = torch.Generator().manual_seed(0)
    noisy = torch.rand(2, 400, generator=generator) + 0.5
    assert result_of(noisy).trusted
    assert not result_of(noisy[:, :40]).trusted
    assert not result_of(noisy, torch.arange(800).view(2, 400) // 10).trusted
    noisy[0, 0] = 1e9
    assert not result_of(noisy).trusted
    assert not result_of(torch.full((1, 200), float("nan"))).trusted


def test_repeats_further_apart_than_chance_are_not_trusted() -> None:
    generator = torch.Generator().manual_seed(0)
    noisy = torch.rand(3, 400, generator=generator) + 0.5
    noisy[1:] *= 1.5
    found = result_of(noisy)
    assert found.effective_sample_size is not None
    assert found.effective_sample_size > 1000
    assert not found.trusted
    assert found.standard_error > 0.1


def test_equal_weights_have_no_error() -> None:
    found = result_of(torch.full((2, 100), 3.0))
    assert found.value == pytest.approx(math.log(3))
    assert found.standard_error < 1e-7
    assert found.effective_sample_size == pytest.approx(200)
    assert found.trusted


@ways
def test_one_chain_and_degenerate_weights_are_never_trusted(way: str) -> None:
    for repeats in (1, 3):
        found = every_way[way](machine(2, 2), temperatures=5, chains=1, repeats=repeats)
        assert not found.trusted
        assert math.isfinite(found.value)
    strong = every_way[way](machine(12, 12, sd=4.0), temperatures=3, chains=512)
    assert not strong.trusted
    assert strong.effective_sample_size is not None
    assert strong.effective_sample_size < 100
    assert "not to be trusted" in str(strong)


# --- reverse ---


def test_reverse_annealing_says_where_its_samples_came_from_and_trusts_none() -> None:
    m = machine(5, 4)
    own = reverse_annealed_importance_sampling(m, temperatures=50, chains=500)
    assert not own.trusted
    assert "exact samples" in own.method
    samples = draw_states(log_boltzmann(m), 5000)
    given = reverse_annealed_importance_sampling(m, samples=samples, temperatures=50, chains=500)
    assert not given.trusted
    assert "given samples" in given.method
    assert "exact samples" not in given.method
    for found in (own, given):
        assert found.effective_sample_size is not None
        assert found.effective_sample_size > 100
        assert abs(found.value - brute_force_log_z(m).item()) < 5 * found.standard_error


def test_reverse_annealing_from_states_in_one_place_is_high() -> None:
    m = machine(4, 4, sd=1.5)
    worst = torch.zeros(1, 8, dtype=torch.float64)
    best = draw_states(log_boltzmann(m, 20.0), 1)
    values = [
        reverse_annealed_importance_sampling(m, samples=z, temperatures=1, chains=10).value for z in (worst, best)
    ]

    def log_marginal(z: Tensor, beta: float) -> float:
        filled = z.repeat(16, 1)
        filled[:, m.slices[m.summed]] = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 4)
        return float(torch.logsumexp(-beta * m.energy(filled).detach(), 0))

    for value, z in zip(values, (worst, best), strict=True):
        assert value == pytest.approx(8 * math.log(2) + log_marginal(z, 1.0) - log_marginal(z, 0.0))


def test_reverse_annealing_of_a_large_machine_needs_samples() -> None:
    m = BoltzmannMachine(22, 22)
    with pytest.raises(InputError, match=r"\(22, 22\).*TemperedChains"):
        reverse_annealed_importance_sampling(m, temperatures=2, chains=2)
    samples = torch.randint(0, 2, (7, 44)).float()
    found = reverse_annealed_importance_sampling(m, samples=samples, temperatures=2, chains=200, repeats=1)
    assert found.value == pytest.approx(44 * math.log(2), rel=1e-5)
    assert not found.trusted


# --- resampling ---


def test_systematic_resampling_takes_each_chain_floor_or_ceil_times_and_rightly_on_average() -> None:
    generator = torch.Generator().manual_seed(2)
    weights = torch.rand(3, 7, generator=generator, dtype=torch.float64) ** 4
    weights[1, 2] = weights[2, 0] = weights[2, 6] = 0
    weights = weights / weights.sum(1, keepdim=True)
    counts = torch.stack([torch.nn.functional.one_hot(_systematic(weights), 7).sum(1).double() for _ in range(4000)])
    assert bool((counts.sum(-1) == 7).all())
    assert bool((counts >= (7 * weights).floor()).all())
    assert bool((counts <= (7 * weights).ceil()).all())
    share = 7 * weights - (7 * weights).floor()
    assert bool(((counts.mean(0) - 7 * weights).abs() <= 5 * (share * (1 - share) / 4000).sqrt()).all())
    assert len(counts[:, :2].flatten(1).unique(dim=0)) > len(counts[:, 0].unique(dim=0))  # offsets of their own


def test_only_populations_whose_effective_size_is_below_half_are_resampled() -> None:
    log_weights = torch.tensor([[0.0, 0.1, -0.1, 0.0], [9.0, 0.0, 0.0, 0.0], [0.0, 0.0, -50.0, -9.0]]).double()
    before = torch.tensor([0.5, 0.25, 0.0], dtype=torch.float64)
    rows, after, log_means = _resampled(log_weights, before)
    rows = rows.view(3, 4)
    assert rows[0].tolist() == [0, 1, 2, 3]
    assert rows[1].tolist() == [4, 4, 4, 4]
    assert rows[2].tolist() == [8, 9, 10, 11]  # an effective size of two is not below half of four, but for e^-9
    torch.testing.assert_close(after[0], log_weights[0])
    assert after[1].tolist() == [0.0] * 4
    torch.testing.assert_close(log_means[0], before[0])
    mean = math.log((math.exp(9.0) + 3) / 4)
    assert log_means[1].item() == pytest.approx(0.25 + mean)


@pytest.mark.parametrize("name", ["(2, 1, 2)", "(1, 1, 1, 1)", "ring"])
def test_an_annealed_population_has_the_machines_moments(name: str) -> None:
    m = every_machine[name](sd=1.2)
    draws = torch.stack([pair_moments(annealed_population(m, 1000, 4)).mean(0) for _ in range(25)])
    # The bias is of the order of 1 / 1000: added to six errors of the mean of 25.
    off = (draws.mean(0) - exact_pair_moments(m)).abs() - 6 * draws.std(0) / math.sqrt(25)
    assert float(off.max()) < 2e-3


@pytest.mark.parametrize("sweeps", [1, 4])
def test_an_annealed_population_is_right_even_where_each_temperature_is_far_from_the_next(sweeps: int) -> None:
    m = machine(3, 3, sd=2.0)
    z = annealed_population(m, 40_000, 2, sweeps)
    assert z.shape == (40_000, 6)
    torch.testing.assert_close(pair_moments(z).mean(0), exact_pair_moments(m), rtol=0, atol=0.02)


# --- annealed importance sampling ---


@pytest.mark.parametrize(("sd", "seed"), [(0.5, 0), (1.0, 1)])
def test_annealing_agrees_with_enumeration_within_its_error(sd: float, seed: int) -> None:
    m = machine(12, 12, sd=sd, seed=seed)
    found = annealed_importance_sampling(m, temperatures=150, chains=256, repeats=3)
    assert found.trusted
    assert 0 < found.standard_error < 0.2
    assert found.effective_sample_size is not None
    assert 100 <= found.effective_sample_size <= 768
    assert abs(found.value - exact_log_partition(m).item()) < 5 * found.standard_error


@pytest.mark.parametrize("sweeps", [1, 3])
def test_more_sweeps_a_temperature_estimate_the_same(sweeps: int) -> None:
    m = machine(4, 4, sd=1.0)
    found = annealed_importance_sampling(m, temperatures=30, chains=2000, repeats=3, sweeps=sweeps)
    assert abs(found.value - brute_force_log_z(m).item()) < 5 * found.standard_error


def test_estimating_touches_nothing_but_the_random_generator() -> None:
    m = machine(4, 3)
    before = [p.detach().clone() for p in m.parameters()]
    generator = torch.get_rng_state()
    first = annealed_importance_sampling(m, temperatures=10, chains=50)
    torch.set_rng_state(generator)
    assert annealed_importance_sampling(m, temperatures=10, chains=50) == first
    assert all(torch.equal(p, b) for p, b in zip(m.parameters(), before, strict=True))
    assert all(p.grad is None for p in m.parameters())


@ways
@pytest.mark.parametrize("setting", ["temperatures", "repeats", "sweeps", "chains"])
@pytest.mark.parametrize("value", [0, -1, True])
def test_settings_that_are_no_counts_are_refused_by_name(way: str, setting: str, value: int) -> None:
    name = "population" if way == "population" and setting == "chains" else setting
    with pytest.raises(InputError, match=f"{name} of annealing"):
        every_way[way](machine(2, 2), **{"temperatures": 2, "chains": 2, setting: value})
