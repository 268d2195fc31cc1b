"""What series say of chains, against series whose correlation is known and sums written out."""

import math

import numpy as np
import pytest
import torch
from registry import RING, WHEEL, draw_states, log_boltzmann, machine, sparse_machine
from scipy.signal import lfilter
from torch import Tensor

from dvaepp.boltzmann.diagnostics import (
    autocorrelation_time,
    chain_diagnostics,
    effective_inverse_temperature,
    effective_sample_size,
    r_hat,
)
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError


def autoregressive(a: float, chains: int, steps: int, seed: int = 0) -> Tensor:
    """x_t = a x_{t-1} + noise, stationary with variance 1: rho_t = a^t, tau = (1 + a) / (1 - a)."""
    noise = np.random.default_rng(seed).standard_normal((chains, steps))
    noise[:, 1:] *= math.sqrt(1 - a**2)
    return torch.from_numpy(lfilter([1.0], [1.0, -a], noise, axis=1))


# --- R-hat ---


@pytest.mark.parametrize(("chains", "steps"), [(1, 4), (3, 4), (3, 7), (5, 50), (2, 101)])
def test_r_hat_is_the_ratio_written_out(chains: int, steps: int) -> None:
    series = autoregressive(0.6, chains, steps) + torch.arange(chains)[:, None]
    rows = series.tolist()
    n = steps // 2
    halves = [row[:n] for row in rows] + [row[steps - n :] for row in rows]
    means = [sum(half) / n for half in halves]
    within = sum(sum((x - mean) ** 2 for x in half) / (n - 1) for half, mean in zip(halves, means, strict=True)) / len(
        halves
    )
    grand = sum(means) / len(means)
    between = n * sum((mean - grand) ** 2 for mean in means) / (len(means) - 1)
    expected = math.sqrt(((n - 1) / n * within + between / n) / within)
    assert r_hat(series) == pytest.approx(expected, rel=1e-9)
    assert r_hat(3.0 - 100 * series) == pytest.approx(expected, rel=1e-6)


def test_r_hat_is_one_for_chains_that_agree_and_large_for_those_that_do_not() -> None:
    series = autoregressive(0.3, 20, 500)
    assert 0.99 < r_hat(series) < 1.01
    apart = series + 3.0 * (torch.arange(20)[:, None] % 2)
    assert r_hat(apart) > 1.5
    drifting = series + torch.linspace(0, 5, 500)
    assert r_hat(drifting) > 1.3
    stuck = torch.arange(4.0)[:, None].expand(4, 50)
    assert r_hat(stuck) == math.inf


# --- autocorrelation ---


@pytest.mark.parametrize("a", [0.0, 0.5, 0.9, 0.97])
def test_tau_of_an_autoregression_is_known(a: float) -> None:
    tau = (1 + a) / (1 - a)
    found = torch.tensor([autocorrelation_time(autoregressive(a, 10, 5000, seed)) for seed in range(10)])
    assert float(found.mean()) == pytest.approx(tau, rel=0.05)
    assert float(found.std()) < 0.2 * tau


def test_tau_is_at_least_one_and_at_most_the_length() -> None:
    assert autocorrelation_time(autoregressive(-0.7, 10, 1000)) == 1.0
    stuck = torch.arange(4.0)[:, None].expand(4, 50)
    assert autocorrelation_time(stuck) == 50.0
    trend = torch.arange(100.0)[None] + autoregressive(0.0, 1, 100)
    assert 30 < autocorrelation_time(trend) <= 100


def test_chains_that_stay_apart_are_slow_though_each_moves_fast() -> None:
    series = autoregressive(0.0, 10, 400)
    assert autocorrelation_time(series) < 1.5
    assert autocorrelation_time(series + 10.0 * (torch.arange(10)[:, None] % 2)) > 200


def test_tau_of_short_series_is_the_sum_written_out() -> None:
    for chains, steps in ((1, 5), (2, 8), (3, 12)):
        series = autoregressive(0.7, chains, steps, seed=steps)
        x = (series - series.mean()).numpy()
        rho = [np.mean(x[:, : steps - t] * x[:, t:]) for t in range(steps)]
        total = 0.0
        for t in range(0, steps - 1, 2):
            pair = (rho[t] + rho[t + 1]) / rho[0]
            if pair <= 0:
                break
            total += pair
        assert autocorrelation_time(series) == pytest.approx(min(max(1.0, 2 * total - 1), steps), rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -123.456, 7.7e5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_series_is_of_chains_that_agree(value: float, dtype: torch.dtype) -> None:
    for chains, steps in ((1, 4), (3, 5), (4, 50), (17, 101), (3, 1000)):
        series = torch.full((chains, steps), value, dtype=dtype)
        assert r_hat(series) == 1.0
        assert autocorrelation_time(series) == 1.0
        assert effective_sample_size(series) == chains * steps


@pytest.mark.parametrize("a", [0.0, 0.8])
def test_the_mean_of_a_series_has_the_variance_of_its_effective_sample_size(a: float) -> None:
    means, sizes = [], []
    for seed in range(400):
        series = autoregressive(a, 4, 500, seed)
        means.append(float(series.mean()))
        sizes.append(effective_sample_size(series))
    variance, sizes_mean = float(np.var(means)), float(np.mean(sizes))
    assert variance * sizes_mean == pytest.approx(1.0, abs=5 * math.sqrt(2 / 400) + 0.05)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (3, 0), (2, 2, 9), (0, 9)])
def test_series_of_another_shape_are_refused(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    for measure in (r_hat, autocorrelation_time, effective_sample_size):
        with pytest.raises(InputError, match="at least 4 steps"):
            measure(torch.zeros(shape))


# --- temperature ---

every_machine = {
    "rbm": machine(3, 3),
    "three-blocks": machine(2, 3, 2),
    "single-bits": machine(1, 1, 1, 1, 1),
    "ring": sparse_machine(3, 3, pairs=RING),
    "wheel": sparse_machine(3, 2, 1, pairs=WHEEL),
}


@pytest.mark.parametrize("name", list(every_machine))
@pytest.mark.parametrize("beta", [-0.5, 1.0, 2.0])
def test_the_inverse_temperature_of_samples_is_found(name: str, beta: float) -> None:
    m = every_machine[name]
    log_p = log_boltzmann(m, beta)
    found = torch.tensor([effective_inverse_temperature(m, draw_states(log_p, 4000)) for _ in range(12)])
    assert abs(float(found.mean()) - beta) < 6 * float(found.std()) / math.sqrt(12)
    assert float(found.std()) < 0.1 * max(1.0, abs(beta) ** 2)


def test_the_inverse_temperature_is_where_the_pseudolikelihood_is_largest() -> None:
    m = machine(3, 2, sd=1.2)
    z = draw_states(log_boltzmann(m, 0.7), 200)
    energies = {}
    for bit in range(5):
        flipped = z.clone()
        flipped[:, bit] = 1 - flipped[:, bit]
        energies[bit] = (m.energy(flipped) - m.energy(z)).detach()

    def log_pseudolikelihood(beta: float) -> float:
        return sum(float(torch.nn.functional.logsigmoid(beta * gap).sum()) for gap in energies.values())

    found = effective_inverse_temperature(m, z)
    assert log_pseudolikelihood(found) > max(log_pseudolikelihood(found + step) for step in (-1e-3, 1e-3))


def test_states_that_no_temperature_explains_are_far_off() -> None:
    m = BoltzmannMachine(2, 2).double()
    with torch.no_grad():
        m.bias.fill_(1.0)
    assert 500 < effective_inverse_temperature(m, torch.ones(5, 4, dtype=torch.float64)) <= 1000
    assert -1000 <= effective_inverse_temperature(m, torch.zeros(5, 4, dtype=torch.float64)) < -500


def test_a_machine_without_a_field_is_at_its_own_temperature() -> None:
    assert effective_inverse_temperature(BoltzmannMachine(2, 2), torch.ones(5, 4)) == 1.0


# --- the health of chains ---


def test_health_is_that_of_the_energies_of_the_next_sweeps() -> None:
    m = machine(3, 3)
    states = draw_states(log_boltzmann(m), 40)
    torch.manual_seed(5)
    found = chain_diagnostics(m, states, sweeps=60)
    torch.manual_seed(5)
    z, energies = states, []
    for _ in range(60):
        z = m.gibbs(z, 1)
        energies.append(m.energy(z).detach())
    series = torch.stack(energies, 1)
    assert found.autocorrelation_time == autocorrelation_time(series)
    assert found.effective_sample_size == 40 * 60 / found.autocorrelation_time
    assert found.r_hat == r_hat(series)
    assert found.effective_inverse_temperature == effective_inverse_temperature(m, states)
    assert 0.97 < found.r_hat < 1.03
    assert abs(found.effective_inverse_temperature - 1) < 0.5


def test_the_first_chains_are_watched_and_all_states_tell_the_temperature() -> None:
    m = machine(3, 3)
    states = draw_states(log_boltzmann(m), 50)
    found = chain_diagnostics(m, states, sweeps=20, watched=7)
    assert found.effective_sample_size * found.autocorrelation_time == pytest.approx(7 * 20)
    assert found.effective_inverse_temperature == effective_inverse_temperature(m, states)


def test_watching_chains_moves_nothing() -> None:
    m = machine(3, 3)
    states = draw_states(log_boltzmann(m), 40)
    before, parameters = states.clone(), [p.detach().clone() for p in m.parameters()]
    chain_diagnostics(m, states, sweeps=10)
    assert torch.equal(states, before)
    assert all(torch.equal(p, b) and p.grad is None for p, b in zip(m.parameters(), parameters, strict=True))


def test_chains_caught_in_two_wells_are_unhealthy() -> None:
    m = BoltzmannMachine(6, 6).double()
    with torch.no_grad():
        m.couplings[0].fill_(4.0)
        m.bias.fill_(-12.0)
        m.bias[0] += 3.0
    states = torch.arange(20)[:, None].remainder(2).double().expand(20, 12)
    found = chain_diagnostics(m, states, sweeps=100)
    assert found.r_hat > 1.1
    assert found.autocorrelation_time > 50
    assert found.effective_sample_size < 40
