"""DVAE#'s bound against the exact one, and GumBolt against quadrature of its own definition."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from deep import deep_model
from registry import (
    all_states,
    assert_mean,
    directed,
    flat_gradient,
    gauss_legendre,
    images,
    log_pixels,
    machine,
    pair_by_pair_energy,
    tiny_model,
)
from torch import Tensor

import dvaepp
from dvaepp.data.dataset import Dataset
from dvaepp.errors import InputError
from dvaepp.models.base import measuring
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.objectives.bounds import marginal_terms
from dvaepp.objectives.importance import importance_weighted
from dvaepp.objectives.relaxed import GumBolt, MeanFieldBound, gumbolt_terms, mean_field_terms
from dvaepp.randomness import stream_seed
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.concrete import Concrete
from dvaepp.smoothings.exponential import UniformExponential
from dvaepp.training.batches import BatchOrder

SMOOTHINGS = {
    "exponential": dvaepp.OverlappingExponential(6.0),
    "power": dvaepp.PowerFunction(8.0),
    "normal": dvaepp.OverlappingNormal(4.0),
    "uniform + exponential": UniformExponential(6.0, 0.05),
}
smoothings = pytest.mark.parametrize("smoothing", SMOOTHINGS.values(), ids=SMOOTHINGS.keys())


def model(smoothing: Smoothing, groups: tuple[int, ...] = (2, 2), coupled: bool = True) -> FeedForwardVAE:
    prior = dvaepp.BoltzmannPrior(machine(2, 2, sd=1.2))
    if not coupled:
        torch.nn.init.zeros_(prior.machine.couplings[0])
        prior.machine.couplings[0].requires_grad_(False)
    return tiny_model(prior, groups, smoothing)


def uniforms(draws: int, rows: int = 2, bits: int = 4) -> Tensor:
    return torch.rand(2 * draws, rows, bits, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def test_the_objective_takes_its_own_draws_and_sweeps() -> None:
    vae, x, u = model(SMOOTHINGS["power"]), images(), uniforms(2)
    one, five = (MeanFieldBound(2, sweeps)(vae, x, u).bound() for sweeps in (1, 5))
    torch.testing.assert_close(one, mean_field_terms(vae, x, 2, 1, noise=u).bound())
    assert bool((one < five - 1e-9).any())


@smoothings
@pytest.mark.parametrize("draws", [1, 3])
def test_the_mean_field_bound_is_below_the_exact_one_draw_by_draw(smoothing: Smoothing, draws: int) -> None:
    vae, x, noise = model(smoothing), images().repeat(200, 1), uniforms(draws, 400)
    with torch.no_grad():
        bound = mean_field_terms(vae, x, draws, noise=noise).bound()
        exact = importance_weighted(vae, x, draws, smoothing, noise=noise.view(2, -1, 4))
        few = mean_field_terms(vae, x, draws, 1, noise=noise).bound()
    assert bound.shape == (400,)
    assert bool((bound <= exact + 1e-9).all())
    assert bool((few <= bound + 1e-12).all())
    assert 0 < float((exact - bound).mean()) < 0.5
    if draws == 1:
        torch.testing.assert_close(exact, marginal_terms(vae, x, noise=noise).bound())


@smoothings
@pytest.mark.parametrize("draws", [1, 3])
def test_without_couplings_it_is_the_exact_bound_with_its_gradient(smoothing: Smoothing, draws: int) -> None:
    vae, x, noise = model(smoothing, coupled=False), images(), uniforms(draws)
    moved = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    bound = mean_field_terms(vae, x, draws, noise=noise).bound()
    exact = importance_weighted(vae, x, draws, smoothing, noise=noise.view(2, -1, 4))
    torch.testing.assert_close(bound, exact)
    torch.testing.assert_close(flat_gradient(bound.sum(), moved), flat_gradient(exact.sum(), moved))


@pytest.mark.parametrize("kl_weight", [0.0, 0.3, 1.0])
def test_a_kl_weight_weighs_the_kl_of_each_draw(kl_weight: float) -> None:
    vae, x = model(SMOOTHINGS["power"]), images()
    terms = mean_field_terms(vae, x, 5, noise=uniforms(5))
    each = (terms.log_likelihood - kl_weight * terms.global_kl).view(2, 5)
    torch.testing.assert_close(terms.bound(kl_weight), each.exp().mean(1).log())
    assert (terms.draws, len(terms.log_likelihood), terms.local_kl_terms.shape) == (5, 10, (10, 0))
    mean = terms.mean()
    torch.testing.assert_close(mean.bound(kl_weight), each.mean())


def test_the_loss_that_is_logged_is_that_of_the_weighted_draws(tmp_path: Path) -> None:
    vae, objective = model(SMOOTHINGS["power"]), MeanFieldBound(draws=4)
    bits = torch.randint(0, 2, (20, 4), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    data = Dataset("bits", (4,), bits, bits, bits, False, "by hand")
    settings = dvaepp.TrainingSettings(steps=2, batch=20, kl_warmup=1.0, log_every=1, validation_samples=1)
    seen: list[dict[str, Any]] = []

    def look(metrics: dict[str, Any]) -> None:
        if "loss" in metrics:
            with measuring(vae, stream_seed("loss", 3, metrics["step"])):
                x = bits[BatchOrder(20, 20, 3).indices(metrics["step"] - 1)].double()
                terms = objective(vae, x)
                log_w = (terms.log_likelihood - metrics["kl_weight"] * terms.global_kl).view(20, 4)
                seen.append(metrics | {"expected": float(-log_w.exp().mean(1).log().mean())})

    dvaepp.Trainer(vae, objective, data, settings, tmp_path, 3).fit(look)
    assert [line["kl_weight"] for line in seen] == [0.0, 0.5]
    for line in seen:
        assert line["loss"] == pytest.approx(line["expected"])
        assert line["loss"] < line["distortion"] + line["kl_weight"] * line["kl"] - 1e-3


TEMPERATURE = 0.6
NOISES, MASSES = gauss_legendre(-20.0, 20.0, 8, 8)


def by_quadrature(vae: FeedForwardVAE, row: Tensor, draws: int) -> Tensor:
    """E log 1/K sum_k w_k over two bits, K 1 or 2: zeta = sigmoid((l + e) / T), e logistic, group after group."""
    noise, mass = torch.cartesian_prod(NOISES, NOISES), torch.cartesian_prod(MASSES, MASSES).prod(1)
    mass = mass * (torch.sigmoid(noise) * torch.sigmoid(-noise)).prod(1)
    zeta, logits = noise[:, :0], noise[:, :0]
    pixels = row.expand(len(noise), -1)
    for level in vae.encoder.levels:
        new = level(torch.cat([pixels, zeta], 1))
        first, last = zeta.shape[1], zeta.shape[1] + new.shape[1]
        zeta = torch.cat([zeta, torch.sigmoid((new + noise[:, first:last]) / TEMPERATURE)], 1)
        logits = torch.cat([logits, new], 1)
    log_q = (zeta * logits - torch.log1p(logits.exp())).sum(1)
    assert isinstance(vae.prior, dvaepp.BoltzmannPrior)
    log_z = torch.logsumexp(-pair_by_pair_energy(vae.prior.machine, all_states(2)), 0)
    log_p = -pair_by_pair_energy(vae.prior.machine, zeta) - log_z
    log_w = log_pixels(vae, zeta, pixels) + log_p - log_q
    assert float(mass.sum()) == pytest.approx(1, abs=1e-5)
    if draws == 1:
        return mass @ log_w
    return mass @ torch.logaddexp(log_w[:, None], log_w[None, :]).sub(math.log(2)) @ mass


@pytest.mark.parametrize(("groups", "draws"), [((2,), 1), ((1, 1), 1), ((1, 1), 2)])
def test_gumbolt_is_the_integral_that_defines_it(groups: tuple[int, ...], draws: int) -> None:
    vae, x = tiny_model(dvaepp.BoltzmannPrior(machine(1, 1, sd=1.5)), groups, Concrete(TEMPERATURE)), images()
    torch.manual_seed(0)
    with torch.no_grad():
        bounds = gumbolt_terms(vae, x.repeat(100_000, 1), draws).bound().view(-1, 2)
        exact = torch.stack([by_quadrature(vae, row, draws) for row in x])
    assert_mean(bounds, exact)


def test_gumbolt_s_gradient_is_that_of_the_integral() -> None:
    vae, x = tiny_model(dvaepp.BoltzmannPrior(machine(1, 1, sd=1.5)), (1, 1), Concrete(TEMPERATURE)), images()[:1]
    parameters = list(vae.parameters())
    exact = flat_gradient(by_quadrature(vae, x[0], 1), parameters)
    torch.manual_seed(1)
    batches = [flat_gradient(gumbolt_terms(vae, x.expand(500, -1)).bound().mean(), parameters) for _ in range(300)]
    assert_mean(torch.stack(batches), exact)


@pytest.mark.parametrize("seed", range(5))
def test_a_relaxed_machine_s_integral_is_at_most_its_sum(seed: int) -> None:
    """Khoshaman & Amin's theorem, on which the prior's part of GumBolt rests."""
    m = machine(1, 2, sd=2.0, seed=seed)
    points, mass = gauss_legendre(0.0, 1.0, 1, 20)
    zeta, weight = torch.cartesian_prod(*[points] * 3), torch.cartesian_prod(*[mass] * 3).prod(1)
    with torch.no_grad():
        integral = (weight * (-m.energy(zeta)).exp()).sum()
        assert float(integral) <= float((-pair_by_pair_energy(m, all_states(3))).exp().sum())


@pytest.mark.parametrize("objective", [MeanFieldBound(draws=3), GumBolt(draws=3)], ids=["mean-field", "gumbolt"])
def test_examples_do_not_mix_and_every_parameter_is_trained(objective: MeanFieldBound | GumBolt) -> None:
    smoothing = SMOOTHINGS["power"] if isinstance(objective, MeanFieldBound) else Concrete(1 / 7)
    vae = model(smoothing)
    pixels = images().requires_grad_()
    gradient = torch.autograd.grad(objective(vae, pixels.clone()).bound()[0], pixels)[0]
    assert float(gradient[0].abs().max()) > 0
    assert float(gradient[1].abs().max()) == 0
    objective(vae, images().repeat(10, 1)).bound().sum().backward()
    assert all(float(parameter.grad.abs().max()) > 0 for parameter in vae.parameters())


def test_what_has_no_such_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    x = images()
    for smoothing, of, why in (
        (dvaepp.StraightThrough(), MeanFieldBound(), "densities r"),
        (Concrete(0.5), MeanFieldBound(), "densities r"),
        (dvaepp.SpikeExponential(5.0), MeanFieldBound(), "densities r"),
        (SMOOTHINGS["power"], GumBolt(), "GumBolt is for the smoothing Concrete"),
    ):
        with pytest.raises(InputError, match=why):
            of(model(smoothing), x)
    for each, smoothing in ((MeanFieldBound(), SMOOTHINGS["power"]), (GumBolt(), Concrete(0.5))):
        with pytest.raises(InputError, match="for a BoltzmannPrior"):
            each(tiny_model(directed(1, 1), (1, 1), smoothing), x)
    for each, smoothing in ((MeanFieldBound(), SMOOTHINGS["power"]), (GumBolt(), Concrete(0.5))):
        with pytest.raises(InputError, match="without local variables"):
            each(
                deep_model(dvaepp.BoltzmannPrior(machine(2, 2)), (2, 2), smoothing=smoothing),
                torch.zeros(2, 16).double(),
            )
    for draws, kind in itertools.product((0, -2), (MeanFieldBound, GumBolt)):
        with pytest.raises(InputError, match="draws"):
            kind(draws=draws)
    with pytest.raises(InputError, match="sweeps"):
        MeanFieldBound(sweeps=0)
