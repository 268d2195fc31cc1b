"""The Boltzmann machine against sums over its pairs, tables of all its states, and quadrature over zeta."""

import itertools
import math

import pytest
import torch
from registry import (
    all_states,
    assert_mean,
    errors_off,
    exponential,
    flat_gradient,
    gauss_legendre,
    log_bernoulli,
    log_boltzmann,
    machine,
    pair_by_pair_energy,
)
from scipy import stats
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.latent.boltzmann import BoltzmannMachine
from dvaepp.latent.posterior import Posterior

every_shape = [(3, 2), (2, 3, 2), (1, 1, 1, 1, 1), (5,), (4, 1), (1, 2, 1, 2)]
shapes = pytest.mark.parametrize("blocks", every_shape, ids=str)


# --- energy ---


@shapes
def test_couplings_join_different_blocks_only_and_count_pairs_once(blocks: tuple[int, ...]) -> None:
    couplings = machine(*blocks).coupling_matrix()
    block = [k for k, size in enumerate(blocks) for _ in range(size)]
    for i, j in itertools.product(range(sum(blocks)), repeat=2):
        assert bool(couplings[i, j] != 0) == (block[i] < block[j])


@shapes
def test_energy_is_the_sum_over_bits_and_pairs(blocks: tuple[int, ...]) -> None:
    m = machine(*blocks)
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


@shapes
def test_field_is_the_log_odds_of_a_bit_given_the_other_blocks(blocks: tuple[int, ...]) -> None:
    m = machine(*blocks)
    z = all_states(m.bits)
    for block, s in enumerate(m.slices):
        field = m.field(z, block)
        for column, bit in enumerate(range(s.start, s.stop)):
            on, off = z.clone(), z.clone()
            on[:, bit], off[:, bit] = 1.0, 0.0
            odds = pair_by_pair_energy(m, off) - pair_by_pair_energy(m, on)
            torch.testing.assert_close(field[:, column], odds, rtol=1e-12, atol=1e-12)


@shapes
def test_log_marginal_sums_the_largest_block_out(blocks: tuple[int, ...]) -> None:
    m = machine(*blocks)
    z = all_states(m.bits)
    s = m.slices[m.summed]
    assert s.stop - s.start == max(blocks)
    settings = all_states(max(blocks))
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


# --- Gibbs sampling ---


def state_counts(z: Tensor) -> Tensor:
    """How many rows are each state, in the order of all_states."""
    bits = z.shape[-1]
    code = (z.reshape(-1, bits).double() @ (2.0 ** torch.arange(bits - 1, -1, -1, dtype=torch.float64))).long()
    return torch.bincount(code, minlength=2**bits)


def assert_distributed(z: Tensor, log_p: Tensor) -> None:
    """Chi-square over all states at the tail probability of five sigma; states rarer than 5 counts are pooled."""
    counts, expected = state_counts(z).double(), len(z) * log_p.detach().exp()
    rare = expected < 5
    pooled = [torch.cat([v[~rare], v[rare].sum()[None]]) if rare.any() else v for v in (counts, expected)]
    if rare.any() and pooled[1][-1] < 5:
        pooled = [torch.cat([v[:-2], v[-2:].sum()[None]]) for v in pooled]
    statistic = float(((pooled[0] - pooled[1]) ** 2 / pooled[1]).sum())
    assert stats.chi2.sf(statistic, len(pooled[0]) - 1) > 5.7e-7, f"chi-square {statistic} of {len(pooled[0])} cells"


def draw_states(log_p: Tensor, count: int) -> Tensor:
    index = torch.multinomial(log_p.detach().exp(), count, replacement=True)
    return all_states(int(math.log2(len(log_p))))[index]


@shapes
@pytest.mark.parametrize("inverse_temperature", [1.0, 0.4])
def test_gibbs_converges_to_the_enumerated_distribution(blocks: tuple[int, ...], inverse_temperature: float) -> None:
    m = machine(*blocks)
    z = m.gibbs(torch.zeros(20_000, m.bits, dtype=torch.float64), 40, inverse_temperature)
    assert_distributed(z, log_boltzmann(m, inverse_temperature))


@shapes
def test_one_sweep_leaves_the_distribution_as_it_is(blocks: tuple[int, ...]) -> None:
    m = machine(*blocks, sd=1.5)
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


# --- expected energy ---


SMOOTHING = exponential(4.0)


def hierarchy(groups: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Base logits of every bit, and how later logits depend on earlier zeta."""
    generator = torch.Generator().manual_seed(5)
    bits = sum(groups)
    base = torch.randn(bits, generator=generator, dtype=torch.float64)
    feed = 2.0 * torch.randn(bits, bits, generator=generator, dtype=torch.float64)
    return base, feed


def group_slices(groups: tuple[int, ...]) -> list[slice]:
    ends = list(itertools.accumulate(groups))
    return [slice(end - size, end) for end, size in zip(ends, groups, strict=True)]


def draw(groups: tuple[int, ...], base: Tensor, feed: Tensor) -> Posterior:
    """One pass for every row of base (batch, bits)."""
    dists, zetas = [], []
    for s in group_slices(groups):
        earlier = torch.cat(zetas, -1) if zetas else base[..., :0]
        dists.append(SMOOTHING.smoothing(base[..., s] + earlier @ feed[: s.start, s]))
        zetas.append(dists[-1].rsample())
    return Posterior(tuple(dists), tuple(zetas))


def exact_expected_energy(m: BoltzmannMachine, groups: tuple[int, ...], base: Tensor, feed: Tensor) -> Tensor:
    """sum_z E(z) q(z), q(z) = integral over zeta of the product of q(z_k | zeta_<k) r(zeta_k | z_k), by quadrature."""
    points, weights = gauss_legendre(0, 1, 1, {1: 12, 2: 40, 3: 14}.get(sum(groups[:-1]), 8))
    dims = sum(groups[:-1])
    zeta = torch.cartesian_prod(*[points] * dims).reshape(-1, dims) if dims else torch.zeros(1, 0).double()
    mass = torch.cartesian_prod(*[weights] * dims).reshape(-1, dims).prod(-1) if dims else torch.ones(1).double()
    r1, r0 = SMOOTHING.pdf(zeta, 1), SMOOTHING.pdf(zeta, 0)
    logits = torch.cat([(base[s] + zeta[:, : s.start] @ feed[: s.start, s]) for s in group_slices(groups)], -1)
    total = torch.zeros((), dtype=torch.float64)
    for z in all_states(sum(groups)):
        log_q = log_bernoulli(logits, z.expand_as(logits))
        density = torch.where(z[:dims] > 0.5, r1, r0).prod(-1)
        total = total + pair_by_pair_energy(m, z) * (mass * density * log_q.exp()).sum()
    return total


every_grouping = [
    ((3, 2), (5,)),
    ((3, 2), (3, 2)),
    ((3, 2), (2, 3)),
    ((2, 3), (1, 4)),
    ((2, 2), (1, 1, 1, 1)),
    ((1, 2, 1), (1, 2, 1)),
    ((1, 1, 1, 1), (1, 1, 2)),
    ((4,), (2, 2)),
    ((3, 3), (1, 2, 1, 2)),
]


@pytest.mark.parametrize(("blocks", "groups"), every_grouping, ids=str)
def test_expected_energy_and_its_gradient_are_those_of_enumeration(
    blocks: tuple[int, ...], groups: tuple[int, ...]
) -> None:
    m = machine(*blocks, sd=1.0)
    base, feed = (v.requires_grad_() for v in hierarchy(groups))
    exact = exact_expected_energy(m, groups, base, feed)
    parameters = [base, feed, *m.parameters()]
    rows = base.detach().expand(100_000, -1).clone().requires_grad_()
    energy = m.expected_energy(draw(groups, rows, feed.detach()))
    assert energy.shape == (100_000,)
    assert_mean(energy, exact)
    pathwise = torch.autograd.grad(energy.sum(), rows)[0]
    assert_mean(pathwise, torch.autograd.grad(exact, base, retain_graph=True)[0])
    chunks = [m.expected_energy(draw(groups, base.expand(1000, -1), feed)).mean() for _ in range(50)]
    gradients = torch.stack([flat_gradient(chunk, parameters) for chunk in chunks])
    assert_mean(gradients, flat_gradient(exact, parameters), sigmas=6)  # of 50 batches: Student's tails


@pytest.mark.parametrize("groups", [(3, 2), (2, 3), (1, 2, 2)])
def test_the_check_of_expected_energy_detects_mu_in_place_of_nu(groups: tuple[int, ...]) -> None:
    m = machine(3, 2, sd=1.0)
    base, feed = hierarchy(groups)
    q = draw(groups, base.expand(100_000, -1), feed)
    exact = exact_expected_energy(m, groups, base, feed)
    assert float(errors_off(m.expected_energy(q).detach(), exact.detach())) < 5
    q.__dict__["nu"] = q.mu
    assert float(errors_off(m.expected_energy(q).detach(), exact.detach())) > 10


def test_within_one_group_no_draw_is_needed() -> None:
    m = machine(3, 2)
    base, feed = hierarchy((5,))
    energy = m.expected_energy(draw((5,), base.expand(3, -1), feed))
    exact = exact_expected_energy(m, (5,), base, feed)
    torch.testing.assert_close(energy, exact.expand(3), rtol=1e-10, atol=1e-10)


def test_expected_energy_keeps_leading_dimensions_and_checks_bits() -> None:
    smoothing = SMOOTHING.smoothing
    q = smoothing(torch.zeros(2, 3, 5))
    m = BoltzmannMachine(3, 2)
    assert m.expected_energy(Posterior((q,), (q.rsample(),))).shape == (2, 3)
    with pytest.raises(InputError, match="4 bits"):
        BoltzmannMachine(2, 2).expected_energy(Posterior((q,), (q.rsample(),)))
