"""The mean-field bound on sums over all states against the sums themselves."""

import itertools
import math

import pytest
import torch
from registry import all_states, flat_gradient, machine, pair_by_pair_energy, sparse_machine
from torch import Tensor

from dvaepp.boltzmann.enumeration import exact_log_partition_weighted
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError
from dvaepp.priors.relaxed import mean_field_log_partition, mean_field_logits

MACHINES = {
    "3+3": machine(3, 3),
    "4+2, strong": machine(4, 2, sd=2.5, seed=1),
    "2+2+2": machine(2, 2, 2, seed=2),
    "fully connected": machine(1, 1, 1, 1, 1, seed=3),
    "sparse": sparse_machine(2, 3, pairs=[(0, 2), (1, 3), (1, 4)], sd=1.5),
    "one block": machine(4),
}


def weights(bits: int, spread: float, rows: int = 50) -> tuple[Tensor, Tensor]:
    """log w(0) and log w(1) of so many rows."""
    generator = torch.Generator().manual_seed(7)
    both = spread * torch.randn(2, rows, bits, generator=generator, dtype=torch.float64)
    return both[0], both[1]


@pytest.mark.parametrize("spread", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("name", MACHINES)
def test_it_is_the_variational_bound_of_its_means_and_below_the_sum(name: str, spread: float) -> None:
    m, (zero, one) = MACHINES[name], weights(MACHINES[name].bits, spread)
    with torch.no_grad():
        bound = mean_field_log_partition(m, zero, one)
        logits = mean_field_logits(m, one - zero)
        states = all_states(m.bits)[:, None, :]
        log_q = torch.where(states > 0.5, torch.nn.functional.logsigmoid(logits), -torch.nn.functional.softplus(logits))
        log_q = log_q.sum(-1)
        log_target = -pair_by_pair_energy(m, states) + torch.where(states > 0.5, one, zero).sum(-1)
        by_hand = (log_q.exp() * (log_target - log_q)).sum(0)
        exact = torch.logsumexp(log_target, 0)
    torch.testing.assert_close(bound, by_hand, rtol=1e-9, atol=1e-9)
    assert bool((bound <= exact + 1e-9).all())


def test_bits_that_do_not_interact_are_summed_exactly() -> None:
    m, (zero, one) = machine(3, 2), weights(5, 2.0)
    with torch.no_grad():
        m.couplings[0].zero_()
        torch.testing.assert_close(
            mean_field_log_partition(m, zero, one, 1), exact_log_partition_weighted(m, zero, one)
        )


@pytest.mark.parametrize("name", MACHINES)
def test_it_rises_with_each_sweep_and_closes_as_weights_sharpen(name: str) -> None:
    m = MACHINES[name]
    with torch.no_grad():
        zero, one = weights(m.bits, 1.0)
        bounds = [mean_field_log_partition(m, zero, one, sweeps) for sweeps in (1, 2, 3, 5, 20)]
        for fewer, more in itertools.pairwise(bounds):
            assert bool((more >= fewer - 1e-12).all())
        gaps = []
        for by in (1, 10, 100):
            sharper = zero * by, one * by
            gaps.append(
                float((exact_log_partition_weighted(m, *sharper) - mean_field_log_partition(m, *sharper)).mean())
            )
    assert gaps[0] + 1e-9 >= gaps[1] >= gaps[2] - 1e-9
    assert gaps[2] < 0.02


@pytest.mark.parametrize("name", ["3+3", "2+2+2", "sparse"])
def test_its_gradient_at_fixed_means_is_that_of_the_optimum(name: str) -> None:
    """Where the means are at their optimum a change of them changes nothing (the envelope theorem)."""
    m, (zero, one) = MACHINES[name], weights(MACHINES[name].bits, 1.0, rows=2)
    leaves = [*m.parameters(), zero.requires_grad_(), one.requires_grad_()]
    found = flat_gradient(mean_field_log_partition(m, zero, one, 60).sum(), leaves)
    by_differences, step = [], 1e-5
    with torch.no_grad():
        for leaf in leaves:
            flat = leaf.data.view(-1)
            for i in range(len(flat)):
                middle, values = float(flat[i]), []
                for sign in (1, -1):
                    flat[i] = middle + sign * step
                    values.append(float(mean_field_log_partition(m, zero, one, 60).sum()))
                flat[i] = middle
                by_differences.append((values[0] - values[1]) / (2 * step))
    torch.testing.assert_close(found, torch.tensor(by_differences, dtype=torch.float64), rtol=1e-5, atol=1e-6)


def test_weights_that_are_nothing_and_huge_ones_leave_it_finite_in_float32() -> None:
    m = BoltzmannMachine(2, 2)
    zero = torch.tensor([[-math.inf, 0.0, -3e38, 60.0], [1e30, -1e30, 0.0, -60.0]], requires_grad=True)
    one = torch.tensor([[0.0, -math.inf, 2.0, -60.0], [-1e30, 1e30, -math.inf, 60.0]], requires_grad=True)
    bound = mean_field_log_partition(m, zero, one)
    assert float(bound[0].detach()) == pytest.approx(62.0)
    assert bool(bound.isfinite().all())
    assert bool(flat_gradient(bound.sum(), [*m.parameters(), zero, one]).isfinite().all())


@pytest.mark.parametrize("sweeps", [0, -1])
def test_sweeps_that_are_no_positive_number_are_refused(sweeps: int) -> None:
    with pytest.raises(InputError, match="sweeps of mean field"):
        mean_field_logits(machine(2, 2), torch.zeros(4).double(), sweeps)
