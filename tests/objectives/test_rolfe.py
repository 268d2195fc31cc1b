"""Rolfe's bound against exact sums: bits enumerated, zeta by quadrature with its atom as a node of its own."""

import itertools
import math

import numpy as np
import pytest
import torch
from registry import (
    assert_mean,
    errors_off,
    every_prior,
    exponential,
    flat_gradient,
    images,
    log_bernoulli,
    log_pixels,
    log_prior,
    tiny_model,
)
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.objectives.bounds import joint_elbo, marginal_elbo
from dvaepp.objectives.importance import importance_weighted
from dvaepp.objectives.rolfe import lost_gradient, rolfe_elbo
from dvaepp.smoothings.concrete import Concrete
from dvaepp.smoothings.spike import SpikeExponential, SpikeGaussian

BETA, NODES = 3.0, 6


def bit_nodes() -> tuple[Tensor, Tensor, Tensor]:
    """z, zeta and the weight of zeta given z, (nodes,): the atom of z = 0, Gauss-Legendre on r(zeta | 1) of z = 1."""
    x, w = np.polynomial.legendre.leggauss(NODES)
    zeta = torch.from_numpy((x + 1) / 2)
    density = BETA * torch.exp(BETA * zeta) / (math.exp(BETA) - 1)
    z = torch.cat([torch.zeros(1), torch.ones(NODES)]).double()
    return (
        z,
        torch.cat([torch.zeros(1).double(), zeta]),
        torch.cat([torch.ones(1).double(), density * torch.from_numpy(w) / 2]),
    )


def exact_bound(model: FeedForwardVAE, groups: tuple[int, ...], x: Tensor) -> Tensor:
    """sum_z integral q(z, zeta | x) [log p(x | zeta) + log p(z) - log q(z | x, zeta_<)], (batch,), differentiable."""
    z1, zeta1, weight1 = bit_nodes()
    bits = sum(groups)
    grid = torch.tensor(list(itertools.product(range(NODES + 1), repeat=bits)))
    z, zeta, weight = z1[grid], zeta1[grid], weight1[grid].prod(1)
    log_p = log_prior(model.prior, z, zeta)
    values = []
    for row in x:
        pixels, log_q, start = row.expand(len(grid), -1), torch.zeros(len(grid)).double(), 0
        for level in model.encoder.levels:
            logits = level(torch.cat([pixels, zeta[:, :start]], 1))
            log_q = log_q + log_bernoulli(logits, z[:, start : start + logits.shape[1]])
            start += logits.shape[1]
        values.append((weight * log_q.exp() * (log_pixels(model, zeta, pixels) + log_p - log_q)).sum())
    return torch.stack(values)


def spiked(name: str, groups: tuple[int, ...]) -> FeedForwardVAE:
    return tiny_model(every_prior[name].make(), groups, SpikeExponential(BETA))


def sampled(model: FeedForwardVAE, objective, rows: int, batches: int) -> tuple[Tensor, Tensor]:
    """Means over batches of the bound of two images and of its gradient, (batches, ...)."""
    x, parameters = images().repeat(rows, 1), list(model.parameters())
    values, gradients = [], []
    for _ in range(batches):
        bound = objective(model, x)
        values.append(bound.detach().view(-1, 2).mean(0))
        gradients.append(flat_gradient(bound.sum() / rows, parameters))
    return torch.stack(values), torch.stack(gradients)


@pytest.mark.parametrize(
    ("name", "groups"), [("rbm-2-groups", (3, 3)), ("rbm-4-groups", (1, 2, 2, 1)), ("full", (3, 3))], ids=str
)
def test_value_and_gradient_are_exact_in_expectation_on_three_plus_three_bits(name, groups) -> None:
    model = spiked(name, groups)
    exact = exact_bound(model, groups, images())
    values, gradients = sampled(model, rolfe_elbo, rows=500, batches=100)
    assert_mean(values, exact, sigmas=5.5)  # of 100 batches: Student's tails
    apart = gradients.mean(0) - flat_gradient(exact.sum(), list(model.parameters()))
    # Some entries need no draws: they have the quadrature's error alone.
    assert bool((apart.abs() < 5.5 * gradients.std(0) / 10 + 1e-5).all())


def test_the_check_detects_a_gradient_without_the_correction() -> None:
    model = spiked("rbm-2-groups", (3, 3))
    exact = exact_bound(model, (3, 3), images())
    encoder = slice(0, sum(p.numel() for p in model.encoder.levels[0].parameters()))

    def uncorrected(model: FeedForwardVAE, x: Tensor) -> Tensor:
        trace = model(x)
        return trace.likelihood.log_prob(x) - model.prior.kl(trace.posterior)

    values, gradients = sampled(model, uncorrected, rows=500, batches=100)
    assert_mean(values, exact, sigmas=5.5)
    assert errors_off(gradients, flat_gradient(exact.sum(), list(model.parameters())))[encoder].max() > 10


def test_one_group_is_the_mean_field_bound_that_joint_elbo_gives_too() -> None:
    model = spiked("rbm-1-group", (6,))
    found = []
    for objective in (rolfe_elbo, joint_elbo):
        torch.manual_seed(3)
        bound = objective(model, images())
        found.append((bound.detach(), flat_gradient(bound.sum(), list(model.parameters()))))
    torch.testing.assert_close(found[0], found[1])


def test_the_kl_weight_scales_the_kl_alone() -> None:
    model, bounds = spiked("rbm-2-groups", (3, 3)), []
    for weight in (0.0, 0.5, 1.0):
        torch.manual_seed(5)
        bounds.append(rolfe_elbo(model, images(), weight).detach())
    torch.testing.assert_close(bounds[1], (bounds[0] + bounds[2]) / 2)
    assert bool((bounds[0] > bounds[2]).all())


def test_the_lost_gradient_is_of_every_z_that_is_0() -> None:
    model, x = spiked("rbm-2-groups", (3, 3)), images().repeat(50, 1)
    q = model(x).posterior
    nu = lost_gradient(q)
    assert set(nu.detach().unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(nu.detach(), (q.zeta.detach() > 0).double())
    (slope,) = torch.autograd.grad(nu.sum(), q.logits)
    torch.testing.assert_close(slope, torch.where(q.zeta > 0, 0.0, torch.sigmoid(q.logits)).detach())


def test_extreme_logits_stay_finite_in_float32() -> None:
    model = spiked("rbm-2-groups", (3, 3)).float()
    model.smoothing = SpikeExponential(40.0)
    for level in model.encoder.levels:
        level[-1].bias.data = torch.tensor([-60.0, 0.0, 60.0])
    bound = rolfe_elbo(model, images().float().repeat(200, 1))
    assert bool(bound.isfinite().all())
    assert bool(flat_gradient(bound.sum(), list(model.parameters())).isfinite().all())


def test_a_gaussian_spike_is_exact_in_expectation_too() -> None:
    """By the score function of ancestral draws, bits first."""
    model = tiny_model(every_prior["rbm-2-groups"].make(), (3, 3), SpikeGaussian(4.0))
    values, gradients = sampled(model, rolfe_elbo, rows=500, batches=100)
    generator, twin_values, twin_gradients = torch.Generator().manual_seed(1), [], []
    x, rows = images().repeat(2000, 1), 2000
    for _ in range(100):
        zs, zetas, log_q = [], [], torch.zeros(len(x)).double()
        for level in model.encoder.levels:
            logits = level(torch.cat([x, *zetas], 1))
            z = torch.bernoulli(torch.sigmoid(logits).detach(), generator=generator)
            noise = torch.randn(z.shape, generator=generator, dtype=torch.float64)
            zs.append(z)
            zetas.append(z * (1 + noise / 4))
            log_q = log_q + log_bernoulli(logits, z)
        z, zeta = torch.cat(zs, 1), torch.cat(zetas, 1)
        plain = log_pixels(model, zeta, x) + log_prior(model.prior, z, zeta) - log_q
        centred = plain.detach() - plain.detach().view(-1, 2).mean(0).repeat(rows)
        twin_values.append(plain.detach().view(-1, 2).mean(0))
        twin_gradients.append(flat_gradient((centred * log_q + plain).sum() / rows, list(model.parameters())))
    for found, twin in ((values, torch.stack(twin_values)), (gradients, torch.stack(twin_gradients))):
        error = (found.var(0) + twin.var(0)).div(100).sqrt() + 1e-12
        assert float(((found.mean(0) - twin.mean(0)).abs() / error).max()) < 5.5


def test_what_cannot_be_is_refused_with_the_way_out() -> None:
    x = images()
    several = spiked("rbm-2-groups", (3, 3))
    with pytest.raises(InputError, match="rolfe_elbo"):
        joint_elbo(several, x)
    with pytest.raises(InputError, match="atom"):
        marginal_elbo(several, x)
    with pytest.raises(InputError, match="joint_elbo"):
        rolfe_elbo(spiked("directed-2", (3, 3)), x)
    with pytest.raises(InputError, match="SpikeExponential"):
        rolfe_elbo(tiny_model(every_prior["rbm-2-groups"].make(), (3, 3), exponential(6.0).smoothing), x)
    with pytest.raises(InputError, match="marginal_elbo"):
        joint_elbo(tiny_model(every_prior["directed-2"].make(), (3, 3), Concrete(0.5)), x)


@pytest.mark.parametrize("name", ["directed-2", "rbm-2-groups"])
def test_importance_weighting_with_a_spike_takes_joint_weights_without_gradient(name: str) -> None:
    model = spiked(name, (3, 3))
    exact = exact_bound(model, (3, 3), images())
    x = images().repeat(2000, 1)
    with torch.no_grad():
        draws = torch.cat([importance_weighted(model, x, 1, model.smoothing).view(-1, 2) for _ in range(100)])
    assert_mean(draws, exact)
    assert not importance_weighted(model, images(), 2, model.smoothing).requires_grad
