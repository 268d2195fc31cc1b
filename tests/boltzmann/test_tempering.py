"""Parallel tempering against enumeration: what a sweep leaves as it is, Bennett's equation, and honest errors."""

import gc
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from registry import (
    RING,
    all_states,
    assert_distributed,
    assert_mean,
    brute_force_log_z,
    draw_states,
    exact_pair_moments,
    log_boltzmann,
    machine,
    pair_by_pair_energy,
    pair_moments,
    sparse_machine,
)
from torch import Tensor

from dvaepp.boltzmann import tempering
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.boltzmann.tempering import _bennett, parallel_tempering, respaced, temper, tempered_sweep
from dvaepp.errors import InputError

Make = Callable[..., BoltzmannMachine]
every_machine: dict[str, Make] = {
    **{str(blocks): partial(machine, *blocks) for blocks in [(3, 2), (2, 3), (2, 1, 2), (1, 1, 1, 1), (4,)]},
    "ring": partial(sparse_machine, 3, 3, pairs=RING),
}
machines = pytest.mark.parametrize("make", every_machine.values(), ids=every_machine)
parities = pytest.mark.parametrize("parity", [0, 1])


def log_marginal(m: BoltzmannMachine, beta: float, z: Tensor) -> Tensor:
    """log of the sum of exp(-beta E) over all settings of the largest block, the others being z's."""
    s = m.slices[m.summed]
    settings = all_states(s.stop - s.start)
    filled = z[..., None, :].repeat(*[1] * (z.ndim - 1), len(settings), 1)
    filled[..., s] = settings
    return torch.logsumexp(-beta * pair_by_pair_energy(m, filled), -1).detach()


def ladder_of(*betas: float) -> Tensor:
    return torch.tensor(betas, dtype=torch.float64)


# --- a sweep ---


@machines
@parities
def test_up_and_down_are_the_ratios_of_neighbouring_levels_before_the_sweep(make: Make, parity: int) -> None:
    m, betas = make(sd=1.5), (0.0, 0.3, 0.45, 1.0)
    states = torch.randint(0, 2, (4, 50, m.bits)).double()
    before = states.clone()
    _, up, down = tempered_sweep(m, states, ladder_of(*betas), parity)
    assert torch.equal(states, before)
    assert up.shape == down.shape == (3, 50)
    for k, (low, high) in enumerate(pairwise(betas)):
        expected = log_marginal(m, high, states[k]) - log_marginal(m, low, states[k])
        torch.testing.assert_close(up[k], expected, rtol=1e-9, atol=1e-9)
        expected = log_marginal(m, low, states[k + 1]) - log_marginal(m, high, states[k + 1])
        torch.testing.assert_close(down[k], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("bias", [1.0, 20.0, 400.0])
def test_up_and_down_of_large_energies_are_taken_before_the_sum_in_float32(bias: float) -> None:
    m = machine(5, 400, sd=0.5)
    with torch.no_grad():
        m.bias.add_(bias)
    m.float()
    states = torch.randint(0, 2, (20, 50, m.bits)).float()
    ladder = torch.linspace(0, 1, 20, dtype=torch.float64)
    with torch.no_grad():
        narrow = tempered_sweep(m, states, ladder, 0)[1:]
        wide = tempered_sweep(m.double(), states.double(), ladder.float().double(), 0)[1:]
    for found, exact in zip(narrow, wide, strict=True):
        assert found.dtype == torch.float64
        assert float((found - exact).abs().max()) < 2e-7 * float(exact.abs().max()) + 2e-5


@machines
@parities
def test_every_level_keeps_its_distribution_and_its_independence(make: Make, parity: int) -> None:
    m, betas = make(sd=2.0), (0.0, 0.4, 1.0)
    states = torch.stack([draw_states(log_boltzmann(m, beta), 30_000) for beta in betas])
    for _ in range(2):
        states, _, _ = tempered_sweep(m, states, ladder_of(*betas), parity)
    for z, beta in zip(states, betas, strict=True):
        assert_distributed(z, log_boltzmann(m, beta))
    for k in range(2):
        first, second = (pair_moments(states[level]) for level in (k, k + 1))
        exact = torch.outer(exact_pair_moments(m, betas[k]), exact_pair_moments(m, betas[k + 1]))
        errors = (exact * (1 - exact) / len(first)).sqrt()
        off = (first.T @ second / len(first) - exact).abs() / errors
        assert float(off[exact > 3e-3].max()) < 5


def sweep_kernel(m: BoltzmannMachine, beta: float, z: Tensor) -> Tensor:
    """p(next state | z) of one sweep at beta of a machine of blocks (2, 1), the first redrawn first; (8,)."""
    p = log_boltzmann(m, beta).detach().exp().view(4, 2)
    first = p[:, int(z[2])] / p[:, int(z[2])].sum()
    return (first[:, None] * p / p.sum(1, keepdim=True)).reshape(-1)


@parities
@pytest.mark.parametrize("betas", [(0.2, 0.7, 1.0), (0.0, 0.1, 0.8)], ids=str)
def test_a_sweep_from_given_states_swaps_with_the_right_probability(betas: tuple[float, ...], parity: int) -> None:
    m, ladder = machine(2, 1, sd=3.0, seed=7), ladder_of(*betas)
    probabilities = []
    for bits in ((1, 0, 1), (0, 1, 0)):
        z = torch.tensor([[0, 0, b] for b in bits], dtype=torch.float64)
        states, _, _ = tempered_sweep(m, z[:, None, :].expand(3, 40_000, 3).clone(), ladder, parity)
        low, high, idle = (0, 1, 2) if parity == 0 else (1, 2, 0)
        ratio = (
            log_marginal(m, betas[high], z[low])
            + log_marginal(m, betas[low], z[high])
            - log_marginal(m, betas[low], z[low])
            - log_marginal(m, betas[high], z[high])
        )
        swap = min(1.0, math.exp(float(ratio)))
        probabilities.append(swap)
        stay_low, stay_high = sweep_kernel(m, betas[low], z[low]), sweep_kernel(m, betas[high], z[high])
        swap_low, swap_high = sweep_kernel(m, betas[low], z[high]), sweep_kernel(m, betas[high], z[low])
        joint = (1 - swap) * torch.outer(stay_low, stay_high) + swap * torch.outer(swap_low, swap_high)
        assert_distributed(torch.cat([states[low], states[high]], 1), joint.flatten().log())
        assert_distributed(states[idle], sweep_kernel(m, betas[idle], z[idle]).log())
    assert min(probabilities) < 0.9
    assert max(probabilities) == 1.0


def test_levels_start_uniform() -> None:
    m = machine(2, 2)
    z = m.uniform(3, 5000)
    assert z.shape == (3, 5000, 4)
    assert z.dtype == m.bias.dtype
    assert_distributed(z.flatten(0, 1), torch.zeros(16).log_softmax(0))


# --- Bennett's equation ---


def gaussian_work(d: Tensor, sd: Tensor, sweeps: int, chains: int) -> tuple[Tensor, Tensor]:
    """Log ratios of two densities whose log Z differ by d, normal as Crooks' theorem asks: (sweeps, rungs, chains).

    p(down = -u) / p(up = u) = exp(u - d).
    """
    noise = torch.randn(2, sweeps, len(d), chains, dtype=torch.float64)
    d, sd = d[:, None], sd[:, None]
    return d - sd**2 / 2 + sd * noise[0], -d - sd**2 / 2 + sd * noise[1]


def test_bennetts_d_is_right_and_its_error_honest() -> None:
    d, sd = torch.tensor([3.0, -1.5, 40.0], dtype=torch.float64), torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    found = torch.tensor([_bennett(*gaussian_work(d, sd, 8, 40)) for _ in range(300)], dtype=torch.float64)
    assert_mean(found[:, 0], d.sum())
    scores = (found[:, 0] - d.sum()) / found[:, 1]
    assert 0.85 < float(scores.std()) < 1.15


def test_bennetts_error_counts_correlation_in_time_and_between_levels() -> None:
    d, sd = torch.tensor([3.0, -1.5], dtype=torch.float64), torch.tensor([0.5, 1.5], dtype=torch.float64)
    up, down = gaussian_work(d, sd, 1, 60)
    value, error = _bennett(up, down)
    often = _bennett(up.repeat(7, 1, 1), down.repeat(7, 1, 1))
    assert often[0] == pytest.approx(value)
    assert often[1] == pytest.approx(error)
    for rungs in (1, 2):
        same = _bennett(up[:, :1].repeat(1, rungs, 1), down[:, :1].repeat(1, rungs, 1))
        alone = _bennett(up[:, :1], down[:, :1])
        assert same[1] == pytest.approx(rungs * alone[1])
    opposite = _bennett(torch.cat([up[:, :1], down[:, :1]], 1), torch.cat([down[:, :1], up[:, :1]], 1))
    assert opposite[0] == pytest.approx(0.0, abs=1e-9)
    assert opposite[1] == pytest.approx(0.0, abs=1e-9)


def test_bennetts_d_solves_its_equation() -> None:
    up, down = torch.randn(2, 5, 1, 4, dtype=torch.float64) * 3 + 2
    value, _ = _bennett(up, down)
    left = sum(1 / (1 + math.exp(value - u)) for u in up.flatten().tolist())
    right = sum(1 / (1 + math.exp(-value - w)) for w in down.flatten().tolist())
    assert left == pytest.approx(right, rel=1e-9)


def test_levels_without_any_overlap_have_no_finite_error() -> None:
    far = torch.full((4, 1, 5), -5000.0, dtype=torch.float64)
    value, error = _bennett(far, far)
    assert math.isfinite(value)
    assert error == math.inf


# --- temperatures ---


def test_equal_rejections_leave_the_temperatures_as_they_are() -> None:
    ladder = ladder_of(0.0, 0.1, 0.15, 0.6, 1.0)
    for rejections in (torch.full((4,), 0.3), torch.zeros(4), torch.ones(4)):
        torch.testing.assert_close(respaced(ladder, rejections), ladder)


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_temperatures_move_to_where_equally_many_swaps_are_rejected(power: float) -> None:
    fine = torch.linspace(0, 1, 401, dtype=torch.float64)
    spaced = respaced(fine, (fine**power).diff())  # a barrier of beta^power, known nearly everywhere
    torch.testing.assert_close(spaced[1:], torch.linspace(0, 1, 401)[1:].double() ** (1 / power), rtol=0.01, atol=0.006)
    assert float(spaced[0]) == 0.0
    assert float(spaced[-1]) == 1.0
    assert bool((spaced.diff() > 0).all())


def test_temperatures_are_interpolated_within_a_rung() -> None:
    found = respaced(ladder_of(0.0, 0.2, 1.0), torch.tensor([0.1, 0.5]))
    # Half of the barrier of 0.6 is 0.3: 0.2 of the 0.5 into the rung from 0.2 to 1.
    torch.testing.assert_close(found, ladder_of(0.0, 0.2 + 0.8 * 0.4, 1.0), rtol=0, atol=1e-5)
    assert respaced(ladder_of(0.0, 1.0), torch.tensor([0.7])).tolist() == [0.0, 1.0]


# --- log Z ---


@machines
def test_log_z_is_that_of_enumeration(make: Make) -> None:
    m = make(sd=1.2)
    found = parallel_tempering(m, temperatures=3, chains=30, sweeps=80)
    assert found.trusted
    assert abs(found.value - brute_force_log_z(m).item()) < 5 * found.standard_error + 1e-9
    assert found.effective_sample_size is None


def test_its_error_is_honest() -> None:
    m = machine(6, 6, sd=1.2)
    log_z = brute_force_log_z(m).item()
    found = [parallel_tempering(m, temperatures=3, chains=16, sweeps=10) for _ in range(50)]
    scores = torch.tensor([(f.value - log_z) / f.standard_error for f in found])
    assert 0.6 < float(scores.std()) < 1.4
    assert abs(float(scores.mean())) < 5 * float(scores.std()) / math.sqrt(50)


def test_the_diagnosis_says_what_it_was_judged_by() -> None:
    found = parallel_tempering(machine(4, 4), temperatures=4, chains=20, sweeps=60)
    assert set(found.diagnosis) == {"lowest_swap_rate", "mean_swap_rate", "r_hat", "halves_apart"}
    assert 0 < found.diagnosis["lowest_swap_rate"] <= found.diagnosis["mean_swap_rate"] <= 1
    assert 0.9 < found.diagnosis["r_hat"] < 1.05
    assert "4 temperatures x 20 ensembles x 60 sweeps" in found.method


@pytest.mark.parametrize("temperatures", [2, 3])
def test_too_few_temperatures_for_a_strong_machine_are_not_trusted(temperatures: int) -> None:
    found = parallel_tempering(machine(12, 12, sd=2.5), temperatures=temperatures, chains=16, sweeps=100)
    assert not found.trusted
    assert found.diagnosis["lowest_swap_rate"] < 0.1


def two_wells(bits: int, coupling: float) -> BoltzmannMachine:
    """All bits alike, whichever value they have: the other well lies beyond states of far higher energy."""
    m = BoltzmannMachine(bits, bits).double()
    with torch.no_grad():
        m.couplings[0].fill_(coupling)
        m.bias.fill_(-coupling * bits / 2)
    return m


def test_ensembles_that_stay_apart_are_not_trusted() -> None:
    m = two_wells(6, 1.5)
    with torch.no_grad():
        m.bias[0] += 0.7  # the wells differ
    few = parallel_tempering(m, temperatures=2, chains=16, sweeps=100)
    assert not few.trusted
    enough = parallel_tempering(m, temperatures=10, chains=24, sweeps=200)
    assert enough.trusted
    assert abs(enough.value - brute_force_log_z(m).item()) < 5 * enough.standard_error


@pytest.mark.parametrize(("drift", "apart", "trusted"), [(0.0, 0.0, True), (1.0, 0.0, False), (0.0, 1.0, False)])
def test_halves_or_ensembles_that_disagree_are_not_trusted(
    drift: float, apart: float, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs made up: log Z drifts as they go, or ensembles see cold states of their own."""
    m = machine(3, 2)

    def made_up(
        machine: BoltzmannMachine, states: Tensor, ladder: Tensor, sweeps: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        up, down = gaussian_work(ladder_of(1.0), ladder_of(0.5), sweeps, 30)
        moved = drift * torch.linspace(0, 1, sweeps, dtype=torch.float64)[:, None, None]
        own = (torch.rand(1, 30, 1) < apart).double() * torch.randint(0, 2, (1, 30, 5))
        cold = torch.where(torch.rand(sweeps, 30, 5) < apart, own, torch.randint(0, 2, (sweeps, 30, 5)).double())
        return states, up + moved, down - moved, machine.log_marginal(cold), cold

    monkeypatch.setattr("dvaepp.boltzmann.tempering._run", made_up)
    found = parallel_tempering(m, temperatures=2, chains=30, sweeps=200)
    assert found.trusted == trusted
    assert (found.diagnosis["halves_apart"] > 4) == (drift > 0)
    assert (found.diagnosis["r_hat"] > 1.05) == (apart > 0)


def test_what_is_measured_begins_with_states_of_its_own_temperatures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the temperatures have last moved, states are swept at them before any counts."""
    begun, ladders, ended = [], [], []
    run = tempering._run

    def watched(m: BoltzmannMachine, states: Tensor, ladder: Tensor, sweeps: int) -> tuple[Tensor, ...]:
        begun.append(states)
        ladders.append(ladder)
        after = run(m, states, ladder, sweeps)
        ended.append(after[0])
        return after

    monkeypatch.setattr(tempering, "_run", watched)
    parallel_tempering(machine(6, 6, sd=2.0), temperatures=4, chains=8, sweeps=64)
    assert torch.equal(ladders[-1], ladders[-2])
    assert not torch.equal(ladders[-2], ladders[-3])
    assert begun[-1] is ended[-2]


def test_a_few_of_the_coldest_states_alone_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no views of them, which keep all: a thousand sweeps of 24 temperatures would take gigabytes."""
    views, kept = [], []

    def watched(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        coldest = [each for each in gc.get_objects() if type(each) is Tensor and each.shape == (7, 5)]
        views.append(sum(each.untyped_storage().nbytes() > each.nbytes for each in coldest))
        kept.append(len(coldest))
        return tempered_sweep(*arguments)

    monkeypatch.setattr(tempering, "tempered_sweep", watched)
    parallel_tempering(machine(3, 2), temperatures=3, chains=7, sweeps=400)
    assert len(views) >= 400
    assert max(views) <= 1
    assert 30 < max(kept) < 60


def test_a_machine_without_energy_has_n_log_2() -> None:
    found = parallel_tempering(BoltzmannMachine(3, 4), temperatures=3, chains=4, sweeps=8)
    assert found.value == pytest.approx(7 * math.log(2), rel=1e-6)
    assert found.diagnosis["lowest_swap_rate"] == 1.0


@pytest.mark.parametrize("name", ["(3, 2)", "(2, 1, 2)", "ring"])
def test_the_states_it_returns_are_of_the_machine(name: str) -> None:
    m = every_machine[name](sd=1.2)
    _, z = temper(m, 3, 150, 40)
    assert z.shape == (20 * 150, m.bits)
    ensembles = pair_moments(z.view(20, 150, m.bits)).transpose(0, 1).mean(1)
    exact = exact_pair_moments(m)
    off = (ensembles.mean(0) - exact).abs() - 5 * ensembles.std(0) / math.sqrt(150)
    assert float(off.max()) < 1e-3


def test_it_returns_the_states_of_some_32_moments() -> None:
    for sweeps, moments in ((8, 4), (64, 32), (130, 33)):
        assert len(temper(machine(2, 2), 2, 3, sweeps)[1]) == moments * 3


def test_it_is_set_by_the_seed_and_moves_nothing_else() -> None:
    m = machine(4, 3)
    before = [p.detach().clone() for p in m.parameters()]
    torch.manual_seed(3)
    first = parallel_tempering(m, temperatures=3, chains=4, sweeps=16)
    torch.manual_seed(3)
    assert parallel_tempering(m, temperatures=3, chains=4, sweeps=16) == first
    assert all(torch.equal(p, b) and p.grad is None for p, b in zip(m.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("setting", "values"), [("temperatures", (1, 0, True)), ("chains", (1, 0, True)), ("sweeps", (7, 0, True))]
)
def test_settings_that_are_too_small_are_refused_by_name(setting: str, values: tuple[int, ...]) -> None:
    for value in values:
        with pytest.raises(InputError, match=f"{setting} of parallel_tempering"):
            parallel_tempering(machine(2, 2), **{"temperatures": 2, "chains": 2, "sweeps": 8, setting: value})
