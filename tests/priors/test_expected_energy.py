"""E_q[E(z)] of Eq. 6 against enumeration and quadrature."""

import itertools

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
    machine,
    pair_by_pair_energy,
    sparse_machine,
)
from torch import Tensor

from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError
from dvaepp.priors.boltzmann import expected_energy
from dvaepp.smoothings.posterior import Posterior

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
    energy = expected_energy(m, draw(groups, rows, feed.detach()))
    assert energy.shape == (100_000,)
    assert_mean(energy, exact)
    pathwise = torch.autograd.grad(energy.sum(), rows)[0]
    assert_mean(pathwise, torch.autograd.grad(exact, base, retain_graph=True)[0])
    chunks = [expected_energy(m, draw(groups, base.expand(1000, -1), feed)).mean() for _ in range(50)]
    gradients = torch.stack([flat_gradient(chunk, parameters) for chunk in chunks])
    assert_mean(gradients, flat_gradient(exact, parameters), sigmas=6)  # of 50 batches: Student's tails


@pytest.mark.parametrize("groups", [(3, 2), (2, 3), (1, 2, 2)])
def test_the_check_of_expected_energy_detects_mu_in_place_of_nu(groups: tuple[int, ...]) -> None:
    m = machine(3, 2, sd=1.0)
    base, feed = hierarchy(groups)
    q = draw(groups, base.expand(100_000, -1), feed)
    exact = exact_expected_energy(m, groups, base, feed)
    assert float(errors_off(expected_energy(m, q).detach(), exact.detach())) < 5
    q.__dict__["nu"] = q.mu
    assert float(errors_off(expected_energy(m, q).detach(), exact.detach())) > 10


def test_within_one_group_no_draw_is_needed() -> None:
    m = machine(3, 2)
    base, feed = hierarchy((5,))
    energy = expected_energy(m, draw((5,), base.expand(3, -1), feed))
    exact = exact_expected_energy(m, (5,), base, feed)
    torch.testing.assert_close(energy, exact.expand(3), rtol=1e-10, atol=1e-10)


def test_expected_energy_keeps_leading_dimensions_and_checks_bits() -> None:
    smoothing = SMOOTHING.smoothing
    q = smoothing(torch.zeros(2, 3, 5))
    m = BoltzmannMachine(3, 2)
    assert expected_energy(m, Posterior((q,), (q.rsample(),))).shape == (2, 3)
    with pytest.raises(InputError, match="4 bits"):
        expected_energy(BoltzmannMachine(2, 2), Posterior((q,), (q.rsample(),)))


def test_no_gradient_reaches_pairs_that_do_not_interact() -> None:
    m = sparse_machine(2, 3, pairs=[(0, 2), (1, 4)])
    logits, feed = hierarchy((1, 4))
    (gradient,) = torch.autograd.grad(expected_energy(m, draw((1, 4), logits, feed)), list(m.couplings))
    assert gradient.nonzero().tolist() == [[0, 0], [1, 2]]
