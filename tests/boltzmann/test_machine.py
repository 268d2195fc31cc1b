"""The Boltzmann machine against sums over its pairs, tables of all its states, and quadrature over zeta."""

import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from registry import (
    all_states,
    assert_distributed,
    draw_states,
    every_machine,
    every_mask,
    every_shape,
    flat_gradient,
    log_boltzmann,
    machine,
    pair_by_pair_energy,
    sparse_machine,
)
from torch import Tensor

from dvaepp.boltzmann.enumeration import exact_log_partition
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError

shapes = pytest.mark.parametrize("blocks", every_shape, ids=str)
masks = pytest.mark.parametrize(("blocks", "pairs"), every_mask.values(), ids=every_mask)
machines = pytest.mark.parametrize("make", every_machine.values(), ids=every_machine)
Make = Callable[..., BoltzmannMachine]


# --- energy ---


@shapes
def test_couplings_join_different_blocks_only_and_count_pairs_once(blocks: tuple[int, ...]) -> None:
    couplings = machine(*blocks).coupling_matrix()
    block = [k for k, size in enumerate(blocks) for _ in range(size)]
    for i, j in itertools.product(range(sum(blocks)), repeat=2):
        assert bool(couplings[i, j] != 0) == (block[i] < block[j])


@machines
def test_energy_is_the_sum_over_bits_and_pairs(make: Make) -> None:
    m = make()
    z = all_states(m.bits)
    torch.testing.assert_close(m.energy(z), pair_by_pair_energy(m, z), rtol=1e-12, atol=1e-12)
    soft = torch.rand(4, 3, m.bits, dtype=torch.float64)
    torch.testing.assert_close(m.energy(soft), pair_by_pair_energy(m, soft), rtol=1e-12, atol=1e-12)


def test_an_rbm_is_the_energy_of_the_paper() -> None:
    m = machine(3, 2)
    z1, z2 = all_states(3)[5], all_states(2)[3]
    a1, a2, w = m.bias[:3], m.bias[3:], m.couplings[0]
    expected = -(a1 @ z1) - (a2 @ z2) - z1 @ w @ z2
    torch.testing.assert_close(m.energy(torch.cat([z1, z2])), expected)


@shapes
def test_every_parameter_takes_part_in_the_energy(blocks: tuple[int, ...]) -> None:
    m = machine(*blocks)
    gradient = flat_gradient(m.energy(torch.ones(m.bits, dtype=torch.float64)), list(m.parameters()))
    torch.testing.assert_close(gradient, -torch.ones_like(gradient))
    pairs = sum(a * b for a, b in itertools.combinations(blocks, 2))
    assert len(gradient) == sum(blocks) + pairs


@machines
def test_field_is_the_log_odds_of_a_bit_given_the_other_blocks(make: Make) -> None:
    m = make()
    z = all_states(m.bits)
    for block, s in enumerate(m.slices):
        field = m.field(z, block)
        for column, bit in enumerate(range(s.start, s.stop)):
            on, off = z.clone(), z.clone()
            on[:, bit], off[:, bit] = 1.0, 0.0
            odds = pair_by_pair_energy(m, off) - pair_by_pair_energy(m, on)
            torch.testing.assert_close(field[:, column], odds, rtol=1e-12, atol=1e-12)


@machines
def test_log_marginal_sums_the_largest_block_out(make: Make) -> None:
    m = make()
    z = all_states(m.bits)
    s = m.slices[m.summed]
    assert s.stop - s.start == max(m.blocks)
    settings = all_states(max(m.blocks))
    filled = z[:, None, :].repeat(1, len(settings), 1)
    filled[..., s] = settings
    exact = torch.logsumexp(-pair_by_pair_energy(m, filled), 1)
    torch.testing.assert_close(m.log_marginal(z), exact, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("blocks", [(), (0, 2), (-1,), (2, 1.5), (True, 2)])
def test_blocks_that_are_no_sizes_are_refused(blocks: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises((InputError, TypeError)):
        BoltzmannMachine(*blocks)


def test_states_of_another_size_are_refused_by_name() -> None:
    m = BoltzmannMachine(3, 2)
    for call in (m.energy, lambda z: m.gibbs(z, 1)):
        with pytest.raises(InputError, match=r"\(3, 2\).*5 bits.*\(4, 6\)"):
            call(torch.zeros(4, 6))


# --- masks and labels ---


@masks
def test_only_the_masks_pairs_interact_whatever_the_raw_couplings(
    blocks: tuple[int, ...], pairs: tuple[tuple[int, int], ...]
) -> None:
    m = sparse_machine(*blocks, pairs=pairs)
    joined = {(min(pair), max(pair)) for pair in pairs}
    assert m.mask is not None
    assert {(i, j) for i, j in m.mask.nonzero().tolist()} == joined
    couplings, z = m.coupling_matrix(), all_states(m.bits)
    assert {(i, j) for i, j in couplings.nonzero().tolist()} == joined
    columns = [torch.cat([c, c.new_zeros(m.bits - len(c), c.shape[1])]) for c in m.couplings]
    raw = torch.cat([torch.zeros(m.bits, blocks[0]), *columns], 1)
    energy = -(z @ m.bias) - sum((raw[i, j] * z[:, i] * z[:, j] for i, j in joined), torch.zeros(len(z)))
    torch.testing.assert_close(m.energy(z), energy, rtol=1e-12, atol=1e-12)
    assert bool((raw != 0).sum() > len(joined))


@masks
def test_no_gradient_reaches_pairs_that_do_not_interact(
    blocks: tuple[int, ...], pairs: tuple[tuple[int, int], ...]
) -> None:
    m = sparse_machine(*blocks, pairs=pairs)
    joined = {(min(pair), max(pair)) for pair in pairs}
    ones = torch.ones(m.bits, dtype=torch.float64)
    values = {
        "energy": m.energy(ones),
        "log_marginal": m.log_marginal(ones),
        "log_partition": exact_log_partition(m),
        "coupling_matrix": m.coupling_matrix().sum(),
        "fields": sum(m.field(ones, block).sum() for block in range(len(blocks))),
    }
    for name, value in values.items():
        by_couplings = torch.autograd.grad(value, list(m.couplings), retain_graph=True, allow_unused=True)
        for s, gradient in zip(m.slices[1:], by_couplings, strict=True):
            found = {(i, s.start + j) for i, j in gradient.nonzero().tolist()} if gradient is not None else set()
            assert found == {(i, j) for i, j in joined if s.start <= j < s.stop}, name


def test_the_mask_is_no_parameter_and_goes_where_the_machine_goes() -> None:
    m = sparse_machine(3, 2, pairs=[(0, 3)])
    assert set(m.state_dict()) == {"mask", *machine(3, 2).state_dict()}
    assert dict(m.named_parameters()).keys() == dict(machine(3, 2).named_parameters()).keys()
    m.labels = tuple("abcde")
    for other in (copy.deepcopy(m), m.float(), m.to(torch.float64)):
        assert other.mask is not None
        assert other.mask.dtype == torch.bool
        assert other.mask.nonzero().tolist() == [[0, 3]]
        assert other.labels == tuple("abcde")
    assert m.to("meta").mask.is_meta
    fresh = sparse_machine(3, 2, pairs=[(0, 3)], seed=5)
    z = all_states(5)
    fresh.load_state_dict(sparse_machine(3, 2, pairs=[(0, 3)]).state_dict())
    torch.testing.assert_close(fresh.energy(z), sparse_machine(3, 2, pairs=[(0, 3)]).energy(z))
    assert machine(3, 2).mask is None


def square(bits: int, *pairs: tuple[int, int]) -> Tensor:
    mask = torch.zeros(bits, bits, dtype=torch.bool)
    for i, j in pairs:
        mask[i, j] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (square(4), "5 x 5"),
        (torch.zeros(5, 4, dtype=torch.bool), "5 x 5"),
        (torch.zeros(5, dtype=torch.bool), "5 x 5"),
        (torch.zeros(5, 5), "boolean"),
        (square(5, (0, 3), (0, 1)), "one block"),
        (square(5, (4, 3)), "one block"),
        (square(5, (2, 2)), "one block"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask: Tensor, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises(InputError, match=message):
        BoltzmannMachine(3, 2, mask=mask)


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "c", "c", "d"], [], list("abcdef"), list("abcda")])
def test_labels_name_every_bit_once(labels: list[str]) -> None:
    with pytest.raises(InputError, match="5 different names"):
        BoltzmannMachine(3, 2, labels=labels)
    assert BoltzmannMachine(3, 2).labels == (0, 1, 2, 3, 4)
    assert BoltzmannMachine(3, 2, labels="vwxyz").labels == tuple("vwxyz")


def test_its_text_says_how_many_pairs_interact() -> None:
    assert "3 x 2, 2 couplings" in repr(sparse_machine(3, 2, pairs=[(0, 3), (4, 1)]))
    assert "couplings)" not in repr(machine(3, 2)).splitlines()[0]


# --- Gibbs sampling ---


@machines
@pytest.mark.parametrize("inverse_temperature", [1.0, 0.4])
def test_gibbs_converges_to_the_enumerated_distribution(make: Make, inverse_temperature: float) -> None:
    m = make()
    z = m.gibbs(torch.zeros(20_000, m.bits, dtype=torch.float64), 40, inverse_temperature)
    assert_distributed(z, log_boltzmann(m, inverse_temperature))


@machines
def test_one_sweep_leaves_the_distribution_as_it_is(make: Make) -> None:
    m = make(sd=1.5)
    log_p = log_boltzmann(m)
    assert_distributed(m.gibbs(draw_states(log_p, 40_000), 1), log_p)


def test_the_check_of_distributions_has_the_power_to_fail() -> None:
    m, other = machine(3, 2), machine(3, 2)
    with torch.no_grad():
        other.couplings[0][0, 0] += 0.3
    with pytest.raises(AssertionError, match="chi-square"):
        assert_distributed(draw_states(log_boltzmann(other), 20_000), log_boltzmann(m))


def test_one_sweep_redraws_each_block_given_all_the_others() -> None:
    m = machine(2, 1, sd=1.5)
    log_p, start = log_boltzmann(m).exp(), torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    table = log_p.view(4, 2)
    by_order = []
    for first_block_first in (True, False):
        if first_block_first:
            first = table[:, 1] / table[:, 1].sum()
            by_order.append((first[:, None] * table / table.sum(1, keepdim=True)).reshape(-1))
        else:
            second = table[2] / table[2].sum()
            by_order.append((second * table / table.sum(0, keepdim=True)).reshape(-1))
    z = m.gibbs(start.expand(40_000, 3), 1)
    fits = []
    for p in by_order:
        try:
            assert_distributed(z, p.log())
            fits.append(True)
        except AssertionError:
            fits.append(False)
    assert fits.count(True) == 1  # the order of the blocks is the machine's choice; a sweep has one


def test_gibbs_leaves_its_argument_and_any_leading_dimensions_alone() -> None:
    m = machine(3, 2)
    z = torch.zeros(2, 4, 5, dtype=torch.float64)
    moved = m.gibbs(z, 3)
    assert moved.shape == (2, 4, 5)
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    assert float(z.abs().sum()) == 0
    assert not moved.requires_grad
    single = m.gibbs(torch.zeros(5, dtype=torch.float64), 1)
    assert single.shape == (5,)
    expanded = torch.zeros(5, dtype=torch.float64).expand(7, 5)
    assert len(m.gibbs(expanded, 3).unique(dim=0)) > 1


def test_no_sweeps_change_nothing() -> None:
    z = all_states(5)
    torch.testing.assert_close(machine(3, 2).gibbs(z, 0), z, rtol=0, atol=0)


# --- clamped bits and temperatures of their own ---


def log_conditional(m: BoltzmannMachine, held: Tensor, values: Tensor) -> Tensor:
    """log p(z | the held bits are these values), by enumeration."""
    log_p = log_boltzmann(m).detach()
    fits = (all_states(m.bits)[:, held] == values[held]).all(1)
    return torch.log_softmax(log_p.masked_fill(~fits, -math.inf), 0)


@pytest.mark.parametrize("held", [(0,), (3,), (1, 4), (0, 1, 2), (3, 4), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("name", ["(3, 2)", "(1, 1, 1, 1, 1)", "masked-single-bits"])
def test_the_free_bits_follow_their_distribution_given_the_clamped_ones(name: str, held: tuple[int, ...]) -> None:
    m = every_machine[name](sd=1.2)
    clamped = torch.zeros(5, dtype=torch.bool)
    clamped[list(held)] = True
    start = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    z = m.gibbs(start.expand(20_000, 5), 25, clamped=clamped)
    assert_distributed(z, log_conditional(m, clamped, start))


@machines
def test_clamping_bits_of_its_own_in_each_chain_leaves_the_distribution_as_it_is(make: Make) -> None:
    m = make(sd=1.5)
    log_p = log_boltzmann(m)
    z = draw_states(log_p, 40_000)
    clamped = torch.rand(z.shape) < 0.4
    moved = m.gibbs(z, 1, clamped=clamped)
    assert torch.equal(moved[clamped], z[clamped])
    assert not torch.equal(moved, z)
    assert_distributed(moved, log_p)


def test_chains_with_masks_of_their_own_each_follow_theirs() -> None:
    m = machine(2, 3, 1, sd=1.2)
    clamped = torch.tensor([[0, 1, 0, 0, 0, 1], [1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 1, 1]])[:, None] > 0
    z = torch.randint(0, 2, (3, 1, 6)).double().repeat(1, 20_000, 1)
    moved = m.gibbs(z, 25, clamped=clamped)
    for states, held, start in zip(moved, clamped[:, 0], z[:, 0], strict=True):
        assert_distributed(states, log_conditional(m, held, start))


def test_when_all_bits_are_clamped_nothing_moves() -> None:
    z = all_states(5)
    assert torch.equal(machine(3, 2).gibbs(z, 3, clamped=torch.ones(5, dtype=torch.bool)), z)


@machines
def test_each_state_may_have_an_inverse_temperature_of_its_own(make: Make) -> None:
    m = make(sd=1.2)
    betas = torch.tensor([0.0, 0.3, 1.0, 1.7], dtype=torch.float64)
    z = m.gibbs(torch.zeros(8000, 4, m.bits, dtype=torch.float64), 30, betas.expand(8000, 4))
    for level, beta in enumerate(betas.tolist()):
        assert_distributed(z[:, level], log_boltzmann(m, beta))


def test_clamped_bits_and_temperatures_go_together() -> None:
    m, beta = machine(3, 2, sd=1.2), 0.6
    clamped = torch.tensor([False, True, False, False, True])
    start = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    z = m.gibbs(start.expand(20_000, 5), 25, torch.full((20_000,), beta, dtype=torch.float64), clamped)
    with torch.no_grad():
        for parameter in m.parameters():
            parameter.mul_(beta)
    assert_distributed(z, log_conditional(m, clamped, start))


@shapes
def test_a_tensor_of_one_inverse_temperature_is_that_number(blocks: tuple[int, ...]) -> None:
    m, z = machine(*blocks), torch.zeros(7, 3, sum(blocks), dtype=torch.float64)
    torch.manual_seed(1)
    by_number = m.gibbs(z, 4, 0.5)
    torch.manual_seed(1)
    assert torch.equal(m.gibbs(z, 4, torch.full((7, 3), 0.5, dtype=torch.float64)), by_number)
    torch.manual_seed(1)
    assert torch.equal(m.gibbs(z, 4, 0.5, torch.zeros(sum(blocks), dtype=torch.bool)), by_number)
