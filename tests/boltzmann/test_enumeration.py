"""log Z and draws against sums over every state and an independent library."""

import math

import dimod
import pytest
import torch
from dwave.samplers import TreeDecompositionSampler
from registry import (
    RING,
    WHEEL,
    all_states,
    assert_distributed,
    brute_force_log_z,
    log_boltzmann,
    machine,
    sparse_machine,
)
from torch import Tensor

from dvaepp.boltzmann.enumeration import (
    can_be_sampled_exactly,
    enumerated_log_marginals,
    enumerated_states,
    exact_log_partition,
    exact_log_partition_weighted,
    exact_sample,
)
from dvaepp.boltzmann.log_partition import LogPartition
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError
from dvaepp.numerics import check_counts

every_shape = [(3, 2), (2, 3), (2, 3, 2), (3, 2, 2), (2, 2, 3), (1, 1, 1, 1, 1), (5,), (1,), (4, 4)]
shapes = pytest.mark.parametrize("blocks", every_shape, ids=str)


def log_z_by_tree_decomposition(m: BoltzmannMachine) -> float:
    """log Z by dwave-samplers, which knows nothing of blocks."""
    couplings = m.coupling_matrix().detach()
    linear = {i: -b for i, b in enumerate(m.bias.tolist())}
    quadratic = {(int(i), int(j)): -float(couplings[i, j]) for i, j in couplings.nonzero()}
    model = dimod.BinaryQuadraticModel(linear, quadratic, 0.0, "BINARY")
    found = TreeDecompositionSampler().sample(model, num_reads=1, beta=1.0, marginals=False)
    return float(found.info["log_partition_function"])


# --- exact ---


@shapes
@pytest.mark.parametrize("sd", [0.0, 0.8, 5.0])
def test_exact_log_z_is_the_sum_over_all_states(blocks: tuple[int, ...], sd: float) -> None:
    m = machine(*blocks, sd=sd)
    log_z = exact_log_partition(m)
    assert log_z.shape == ()
    # torch's softplus is linear beyond 20: up to 2e-9 a bit.
    torch.testing.assert_close(log_z, brute_force_log_z(m), rtol=1e-12, atol=1e-8)


@shapes
def test_the_gradient_of_log_z_is_the_expected_statistics(blocks: tuple[int, ...]) -> None:
    m = machine(*blocks)
    z, p = all_states(m.bits), log_boltzmann(m).detach().exp()
    moments = torch.einsum("n,ni,nj->ij", p, z, z)
    log_z = exact_log_partition(m)
    by_bias, *by_couplings = torch.autograd.grad(log_z, list(m.parameters()))
    torch.testing.assert_close(by_bias, moments.diagonal(), rtol=1e-9, atol=1e-9)
    for s, gradient in zip(m.slices[1:], by_couplings, strict=True):
        torch.testing.assert_close(gradient, moments[: s.start, s], rtol=1e-9, atol=1e-9)


def test_a_free_machine_has_n_log_2() -> None:
    assert exact_log_partition(BoltzmannMachine(7, 9)).item() == pytest.approx(16 * math.log(2), rel=1e-6)


def test_independent_bits_have_the_sum_of_softplus() -> None:
    m = machine(17, 2, sd=1.0)
    with torch.no_grad():
        m.couplings[0].zero_()
    expected = sum(math.log1p(math.exp(b)) for b in m.bias.tolist())
    assert exact_log_partition(m).item() == pytest.approx(expected, abs=1e-8)


def test_more_than_sixteen_enumerated_bits_are_summed_in_chunks() -> None:
    m = machine(*[1] * 18, sd=0.4)
    assert m.enumerated_bits == 17
    log_z = exact_log_partition(m)
    assert log_z.item() == pytest.approx(log_z_by_tree_decomposition(m), abs=1e-9)
    by_bias = torch.autograd.grad(log_z, m.bias)[0]
    with torch.no_grad():
        step = torch.zeros_like(m.bias)
        step[[0, 17]] = 1e-4
        m.bias.add_(step)
        up = exact_log_partition(m)
        m.bias.sub_(2 * step)
        down = exact_log_partition(m)
    assert float(by_bias[[0, 17]].sum()) == pytest.approx(float(up - down) / 2e-4, rel=1e-6)


@pytest.mark.parametrize("blocks", [(17, 2), (2, 17), (9, 2, 8)], ids=str)
def test_wide_machines_need_few_states(blocks: tuple[int, ...]) -> None:
    m = machine(*blocks, sd=0.5)
    assert exact_log_partition(m).item() == pytest.approx(log_z_by_tree_decomposition(m), abs=1e-8)


@pytest.mark.parametrize("sd", [0.1, 0.5, 1.0, 2.0])
def test_an_rbm_of_twelve_by_twelve_agrees_with_tree_decomposition(sd: float) -> None:
    m = machine(12, 12, sd=sd, seed=3)
    assert exact_log_partition(m).item() == pytest.approx(log_z_by_tree_decomposition(m), abs=1e-7)


def test_float32_agrees_with_float64() -> None:
    m = machine(8, 8, sd=1.0)
    wide = exact_log_partition(m).item()
    assert exact_log_partition(m.float()).item() == pytest.approx(wide, rel=1e-5)


def test_too_many_bits_are_refused_before_any_work() -> None:
    for blocks in ((26, 26), (30, 40), tuple([1] * 27)):
        with pytest.raises(InputError, match="estimate_log_partition"):
            exact_log_partition(BoltzmannMachine(*blocks))


@shapes
def test_enumerated_states_are_all_different_and_leave_the_summed_block_empty(blocks: tuple[int, ...]) -> None:
    m = machine(*blocks)
    z = enumerated_states(m)
    assert len(z.unique(dim=0)) == len(z) == 2 ** (sum(blocks) - max(blocks))
    assert float(z[:, m.slices[m.summed]].abs().sum()) == 0
    torch.testing.assert_close(torch.logsumexp(enumerated_log_marginals(m), 0), brute_force_log_z(m))


@shapes
def test_log_z_given_extra_biases_is_that_of_the_machine_so_biased(blocks: tuple[int, ...]) -> None:
    m = machine(*blocks)
    extra = torch.randn(2, 3, m.bits, dtype=torch.float64)
    found = exact_log_partition_weighted(m, torch.zeros_like(extra), extra)
    assert found.shape == (2, 3)
    for i, j in ((0, 0), (1, 2)):
        biased = machine(*blocks)
        with torch.no_grad():
            biased.bias.add_(extra[i, j])
        torch.testing.assert_close(found[i, j], brute_force_log_z(biased))


def test_log_z_does_not_depend_on_mode_grad_or_default_dtype() -> None:
    m = machine(4, 3)
    value = exact_log_partition(m).item()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.no_grad():
            assert float(exact_log_partition(m.eval())) == value
    finally:
        torch.set_default_dtype(torch.float32)


def test_log_z_draws_nothing_and_moves_nothing() -> None:
    m = machine(4, 3)
    before, generator = [p.detach().clone() for p in m.parameters()], torch.get_rng_state()
    exact_log_partition(m)
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(p, b) and p.grad is None for p, b in zip(m.parameters(), before, strict=True))


every_sparse = {
    "ring": ((3, 3), RING),  # eliminated
    "wheel": ((3, 2, 1), WHEEL),  # enumerated
    "no-pairs": ((2, 2), ()),
    "one-pair": ((1, 2, 3), ((5, 0),)),
}
sparse = pytest.mark.parametrize(("blocks", "pairs"), every_sparse.values(), ids=every_sparse)


@sparse
def test_sparse_machines_have_the_sums_of_their_own_pairs(
    blocks: tuple[int, ...], pairs: tuple[tuple[int, int], ...]
) -> None:
    m = sparse_machine(*blocks, pairs=pairs, sd=1.2)
    exact = brute_force_log_z(m)
    torch.testing.assert_close(exact_log_partition(m), exact, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.logsumexp(enumerated_log_marginals(m), 0), exact, rtol=1e-9, atol=1e-9)
    extra = torch.randn(2, m.bits, dtype=torch.float64)
    found = exact_log_partition_weighted(m, torch.zeros_like(extra), extra)
    for row, value in zip(extra, found, strict=True):
        with torch.no_grad():
            m.bias.add_(row)
            torch.testing.assert_close(value, brute_force_log_z(m))
            m.bias.sub_(row)


# --- exact samples ---


@sparse
def test_draws_of_sparse_machines_have_the_enumerated_distribution(
    blocks: tuple[int, ...], pairs: tuple[tuple[int, int], ...]
) -> None:
    m = sparse_machine(*blocks, pairs=pairs, sd=1.2)
    assert_distributed(exact_sample(m, 40_000), log_boltzmann(m))


@shapes
def test_draws_have_the_enumerated_distribution(blocks: tuple[int, ...]) -> None:
    m = machine(*blocks, sd=1.2)
    z = exact_sample(m, 40_000)
    assert z.dtype == m.bias.dtype
    assert not z.requires_grad
    assert_distributed(z, log_boltzmann(m))


def test_machines_too_large_to_be_sampled_are_refused_by_name() -> None:
    large, small = BoltzmannMachine(21, 30), BoltzmannMachine(20, 3)
    assert can_be_sampled_exactly(small)
    assert not can_be_sampled_exactly(large)
    with pytest.raises(InputError, match=r"2\^21 .*\(21, 30\).*TemperedChains"):
        exact_sample(large, 3)


def test_settings_that_are_no_counts_are_refused_by_name() -> None:
    check_counts("owner", chains=1)
    check_counts("owner", least=4, chains=4, sweeps=5)
    for least, value in ((1, 0), (1, -1), (1, True), (4, 3)):
        with pytest.raises(InputError, match=f"chains of owner must be .*{least}, not {value}"):
            check_counts("owner", least=least, chains=value)


def test_settings_that_are_no_whole_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    for value in (1.5, "3", None):
        with pytest.raises(InputError, match="chains of owner"):
            check_counts("owner", chains=value)


# --- the result ---


def test_the_interval_is_two_standard_errors_either_side() -> None:
    found = LogPartition(10.0, 0.25, 300.0, True, "some method")
    assert found.interval == (9.5, 10.5)
    assert "10.000" in str(found)
    assert "0.250" in str(found)
    assert "some method" in str(found)
    exact = LogPartition(10.0, 0.0, None, True, "exact")
    assert exact.interval == (10.0, 10.0)
    assert "±" not in str(exact)
    assert exact.diagnosis == {}
    assert "not to be trusted" not in str(exact)
    assert "not to be trusted" in str(LogPartition(10.0, 0.0, None, False, "exact"))


@pytest.mark.parametrize("blocks", [(3, 2), (2, 3, 1), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("numbers", [1, 12, 2**21])
def test_exact_samples_and_log_z_are_the_same_in_pieces(
    blocks: tuple[int, ...], numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = machine(*blocks)
    torch.manual_seed(0)
    whole = exact_sample(m, 20_000)
    monkeypatch.setattr("dvaepp.boltzmann.enumeration._PIECE_NUMBERS", numbers)
    torch.manual_seed(0)
    z = exact_sample(m, 20_000)
    assert torch.equal(z, whole)
    assert_distributed(z, log_boltzmann(m))
    with torch.no_grad():
        torch.testing.assert_close(exact_log_partition(m), brute_force_log_z(m))


def test_no_more_states_are_held_at_once_than_fit_into_some_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    held, compute = [], BoltzmannMachine.log_marginal

    def watched(self: BoltzmannMachine, z: Tensor) -> Tensor:
        held.append(z.numel())
        return compute(self, z)

    monkeypatch.setattr(BoltzmannMachine, "log_marginal", watched)
    m = machine(17, 40).float()
    assert exact_sample(m, 5).shape == (5, 57)
    with torch.no_grad():
        exact_log_partition(m)
    assert max(held) <= 2**21
    assert sum(held) == 2 * 2**17 * 57
