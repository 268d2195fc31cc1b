"""log Z found in several ways, and whether the judgement on them is right."""

import copy
import math
from typing import Any

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from registry import all_states, machine, pair_by_pair_energy
from torch import Tensor

from dvaepp.boltzmann.agreement import agreed, estimate_log_partition, exact
from dvaepp.boltzmann.enumeration import exact_log_partition
from dvaepp.boltzmann.graphs import machine_on_graph
from dvaepp.boltzmann.log_partition import LogPartition, rounding
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError


def test_small_machines_are_exact_by_enumeration_or_elimination() -> None:
    for m, how in ((machine(3, 4), "enumeration"), (machine_on_graph([(i, i + 1) for i in range(9)]).double(), "elim")):
        torch.nn.init.normal_(m.bias)
        found = estimate_log_partition(m)
        log_z = torch.logsumexp(-pair_by_pair_energy(m, all_states(m.bits)), 0)
        assert found.value == pytest.approx(float(log_z.detach()), abs=1e-7)
        assert (found.standard_error, found.trusted) == (0.0, True)
        assert how in found.method
        assert exact(m) == found


def test_a_larger_machine_is_found_in_three_ways_that_agree_with_the_exact_one() -> None:
    m = machine(21, 21, sd=0.7).float()
    found = estimate_log_partition(m, temperatures=200, chains=256, tempered=(12, 32, 256))
    assert found.trusted
    assert abs(found.value - exact(m).value) < 5 * found.standard_error
    d = found.diagnosis
    assert found.standard_error < min(d["forward_standard_error"], d["tempering_standard_error"])
    assert min(d["forward_log_z"], d["tempering_log_z"]) <= found.value <= max(d["forward_log_z"], d["tempering_log_z"])
    assert d["largest_distance_in_errors"] < 3
    assert {"lowest_swap_rate", "mean_swap_rate", "r_hat", "reverse_log_z"} <= set(d)


@pytest.mark.parametrize(("temperatures", "sweeps"), [(20, 1000), (1200, 1200)])
def test_more_temperatures_are_more_sweeps_of_tempering_too(temperatures: int, sweeps: int) -> None:
    found = estimate_log_partition(machine(21, 21).float(), temperatures=temperatures, chains=8, repeats=1)
    assert f"{temperatures} temperatures" in found.method
    assert f"24 temperatures x 64 ensembles x {sweeps} sweeps" in found.method


@pytest.mark.parametrize("tempered", [(), (1, 2)])
def test_tempering_is_of_three_numbers(tempered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no such checks
    with pytest.raises(InputError, match=r"tempered must be \(temperatures, ensembles, sweeps\), not \("):
        estimate_log_partition(machine(2, 2), tempered=tempered)


def test_too_short_an_effort_says_so() -> None:
    found = estimate_log_partition(
        machine(21, 21, sd=3.0).float(), temperatures=2, chains=64, repeats=1, tempered=(2, 8, 16)
    )
    assert not found.trusted


def independent(first: Tensor | float, second: Tensor | float) -> BoltzmannMachine:
    """Bits without couplings in blocks of 21 + 100, too many to enumerate: log Z = sum_i softplus(b_i)."""
    m = BoltzmannMachine(21, 100)
    with torch.no_grad():
        m.bias[:21], m.bias[21:] = first, second
    return m


EVEN = torch.linspace(-1, 1, 100)
every_independent = {
    "no biases": independent(0.0, 0.0),
    "equal biases": independent(0.0, -2.0),
    "equal and large": independent(0.0, 3.3e6),
    "many and small": independent(0.0, EVEN),
    "many and large": independent(0.0, 1e4 * EVEN),
    "many and huge": independent(0.0, 1e7 * EVEN),
    "fields that differ": independent(-2.0, 1e7 * EVEN),
    "float64": independent(0.0, 1e7 * EVEN).double(),
}


@pytest.mark.parametrize("name", every_independent)
def test_what_rounding_does_is_in_the_error_and_costs_no_trust(name: str) -> None:
    m = every_independent[name]
    exact = float(F.softplus(m.bias.detach().double(), threshold=50).sum())
    found = estimate_log_partition(m, temperatures=100, chains=100, tempered=(12, 20, 64))
    assert found.trusted
    assert found.diagnosis["largest_distance_in_errors"] < 3
    for way in ("forward", "tempering", "reverse"):
        off, error = found.diagnosis[f"{way}_log_z"] - exact, found.diagnosis[f"{way}_standard_error"]
        assert abs(off) < 4 * error
    eps = torch.finfo(m.bias.dtype).eps
    if not m.bias[:21].any():  # without chance, the error is of the order in which log Z itself can be told
        assert found.standard_error < 12 * eps * (exact + 121)


@pytest.mark.parametrize("size", [1e4, 1e7, 1e10])
def test_an_exact_value_is_that_of_float64_whatever_the_machine_s_precision(size: float) -> None:
    m = machine(3, 40).float()
    with torch.no_grad():
        m.bias.mul_(size)
        found, wide = exact(m), float(exact_log_partition(copy.deepcopy(m).double()))
    assert found.trusted
    assert found.standard_error == 0
    assert found.value == wide
    assert m.bias.dtype == torch.float32


@pytest.mark.parametrize("blocks", [(10_000,), (8, 10_000), (2000,)])
def test_an_exact_value_of_many_fair_bits_is_log_2_for_each(blocks: tuple[int, ...]) -> None:
    assert exact(BoltzmannMachine(*blocks)).value == pytest.approx(sum(blocks) * math.log(2), rel=1e-14)


def test_what_ways_share_of_an_error_is_not_averaged_away() -> None:
    ways = [estimate(value, 0.3) for value in (10.0, 10.1, 10.05)]
    assert agreed(*ways).standard_error == pytest.approx(0.3 / math.sqrt(2))
    assert agreed(*ways, rounded=0.3).standard_error == 0.3


def test_rounding_is_the_mean_size_of_what_is_summed() -> None:
    m = machine(2, 3, 1).float()
    z = torch.randint(0, 2, (50, 6)).float()
    sizes = copy.deepcopy(m).double()
    with torch.no_grad():
        for parameter in sizes.parameters():
            parameter.abs_()
        expected = float(-pair_by_pair_energy(sizes, z.double()).mean()) + 6 * math.log(2)
    assert rounding(m, z, steps=100) == pytest.approx(2**-24 * expected)
    assert rounding(m.double(), z.double(), steps=100) == pytest.approx(11 * 2**-53 * expected)
    with torch.no_grad():
        m.bias[0] = math.inf
    assert math.isnan(rounding(m, z.double(), steps=1))


def estimate(value: float, error: float, trusted: bool = True) -> LogPartition:
    return LogPartition(value, error, 500.0, trusted, "a way", {})


def test_estimates_are_weighed_by_their_errors() -> None:
    found = agreed(estimate(10.0, 0.1), estimate(10.2, 0.2), estimate(10.1, 0.1))
    assert found.value == pytest.approx(10.04)
    assert found.standard_error == pytest.approx((1 / (100 + 25)) ** 0.5)
    assert found.trusted


def test_estimates_that_are_apart_are_not_trusted_and_their_error_grows() -> None:
    for ways in (
        (estimate(10.0, 0.1), estimate(11.0, 0.1), estimate(10.5, 0.1)),
        (estimate(10.0, 0.1), estimate(10.1, 0.1), estimate(11.0, 0.1)),
    ):
        found = agreed(*ways)
        assert not found.trusted
        assert found.standard_error == pytest.approx(0.5)


def test_distrust_of_either_estimate_is_kept_and_a_check_from_samples_costs_no_trust() -> None:
    good, bad = estimate(10.0, 0.1), estimate(10.0, 0.1, trusted=False)
    assert agreed(good, good, bad).trusted
    assert not agreed(bad, good, good).trusted
    assert not agreed(good, bad, good).trusted
