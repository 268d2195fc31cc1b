"""The convolutional DVAE++ against exact twins: bits enumerated, normal variables integrated over."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from deep import deep_model, descended, exact_log_likelihoods, shake
from registry import assert_mean, batch_gradients, boltzmann_prior, errors_off, forced_chains, gauss_legendre, randomise
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.evaluation.kept import KeptScores
from dvaepp.evaluation.likelihood import score
from dvaepp.likelihoods.logistic_mixture import DiscretizedLogisticMixture
from dvaepp.likelihoods.standard import NormalLikelihood
from dvaepp.models.convolutional import ConvolutionalVAE, convolutional_vae
from dvaepp.models.local import BernoulliVariables, NormalVariables
from dvaepp.models.sizes import ConvolutionalSizes
from dvaepp.networks.residual import Cells
from dvaepp.objectives.balancing import balancing_weights
from dvaepp.objectives.bounds import joint_elbo, marginal_elbo
from dvaepp.objectives.importance import importance_weighted, log_weight
from dvaepp.objectives.rolfe import rolfe_elbo
from dvaepp.priors.directed import BernoulliPrior
from dvaepp.priors.normal import NormalPrior
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.smoothings.spike import SpikeExponential


def bernoulli_prior() -> BernoulliPrior:
    prior: BernoulliPrior = randomise(BernoulliPrior(4), 0.8)
    return prior


rbm = partial(boltzmann_prior, 2, 2)
# Seeds are of models whose importance weights have light tails, so that 6,000 draws show their mean.
MODELS: dict[str, Any] = {
    "rbm-normal": lambda **k: deep_model(rbm(), (2, 2), NormalVariables(), variables=2, strength=0.7, **k),
    "rbm-normal-conditional": lambda **k: deep_model(
        rbm(), (2, 2), NormalVariables(), groups=2, conditional=True, strength=0.5, **k
    ),
    "rbm-normal-coarse": lambda **k: deep_model(rbm(), (2, 2), NormalVariables(), coarse=1, strength=0.8, seed=2, **k),
    "bernoulli-bernoulli-coarse": lambda **k: deep_model(
        bernoulli_prior(), (2, 2), BernoulliVariables(), coarse=2, local=2, strength=0.5, seed=4, **k
    ),
    "rbm-bernoulli-coarse-conditional": lambda **k: deep_model(
        rbm(), (2, 2), BernoulliVariables(), coarse=2, local=2, conditional=True, strength=0.8, seed=4, **k
    ),
    "rbm-bernoulli": lambda **k: deep_model(rbm(), (1, 3), BernoulliVariables(), variables=2, stem=2, **k),
    "bernoulli-bernoulli-conditional": lambda **k: deep_model(
        bernoulli_prior(), (2, 2), BernoulliVariables(), groups=2, conditional=True, seed=4, **k
    ),
    "chains-normal": lambda **k: deep_model(
        forced_chains(2, 2), (2, 2), NormalVariables(), strength=0.5, cells=Cells(1, squeeze_excite=False), **k
    ),
    "normal-bernoulli": lambda **k: deep_model(
        NormalPrior(2), (1, 1), BernoulliVariables(), hidden=(4,), strength=0.7, seed=1, **k
    ),
    "normal-normal-conditional": lambda **k: deep_model(
        NormalPrior(1), (1,), NormalVariables(), conditional=True, strength=0.7, **k
    ),
}
DRAWS = 6000


def images() -> Tensor:
    """Two images of 4 x 4 bits, float64."""
    generator = torch.Generator().manual_seed(3)
    return (torch.rand(2, 16, generator=generator) < 0.5).double()


def flat(gradients: dict[str, Tensor | None], *parts: str) -> list[Tensor | None]:
    found = [g for name, g in gradients.items() if name.startswith(parts)]
    assert found, parts
    return found


def gradients(value: Tensor, model: nn.Module) -> dict[str, Tensor | None]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    return dict(zip(names, found, strict=True))


def reaches(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.any())


# --- likelihoods ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_importance_weights_average_to_the_exact_likelihood(name: str) -> None:
    model, x = MODELS[name](), images()
    exact = exact_log_likelihoods(model, x)
    assert bool(((exact < -5) & (exact > -25)).all())
    weights = log_weight(model, x, hard, DRAWS).view(2, DRAWS).T
    ratio = (weights - exact).exp()
    assert_mean(ratio, 1.0)
    # It would see it if the local variables' part of the weights were left out.
    trace = model(x, hard, DRAWS)
    without = (trace.likelihood.log_prob(x.repeat_interleave(DRAWS, 0)) - trace.posterior.log_prob()).view(2, DRAWS).T
    without = (without + model.prior.log_prob(trace.posterior.zeta, hard).view(2, DRAWS).T - exact).exp()
    assert float(errors_off(without, 1.0).max()) > 7
    # The mean of log w is the bound, and below log p(x) by more than chance.
    assert_mean(weights - exact, (weights - exact).mean(0).clamp(max=0))
    bound = importance_weighted(model, x, DRAWS)
    torch.testing.assert_close(bound, exact, rtol=0, atol=5 * float(ratio.std(0).max()) / DRAWS**0.5)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_joint_bound_of_bits_is_a_bound_and_is_the_mean_log_weight(name: str) -> None:
    """In the binary limit log p - KL and log p + log p(z, h) - log q(z, h) have one mean, below log p(x)."""
    model, x = MODELS[name](smoothing=hard), images()
    exact, repeated = exact_log_likelihoods(model, x), x.repeat_interleave(DRAWS, 0)
    bounds = joint_elbo(model, repeated).view(2, DRAWS).T
    weights = log_weight(model, x, hard, DRAWS).view(2, DRAWS).T
    assert bool((bounds.mean(0) + 5 * bounds.std(0) / DRAWS**0.5 < exact).all())
    error = (bounds.var(0) / DRAWS + weights.var(0) / DRAWS) ** 0.5
    assert bool(((bounds.mean(0) - weights.mean(0)).abs() < 5 * error).all())


@pytest.mark.parametrize(
    ("name", "smoothing"),
    [
        *((name, OverlappingExponential(4.0)) for name in MODELS if not name.startswith("normal")),
        ("rbm-normal", SpikeExponential(4.0)),
        ("chains-normal", SpikeExponential(4.0)),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@torch.no_grad()
def test_the_smoothed_model_has_the_likelihood_of_its_own_draws(name: str, smoothing: Smoothing) -> None:
    """p(x) of the smoothed model from z ~ p, zeta ~ r(. | z), h ~ p(h | zeta), against weights from q."""
    model, x = MODELS[name](), images()
    z = model.prior.sample(4 * DRAWS)
    zeta = smoothing(40 * (2 * z - 1)).sample()
    state, _ = descended(model, zeta, smoothing)
    likelihood = model.decoder(state)
    plain = torch.stack([likelihood.log_prob(image.expand(len(z), -1)) for image in x], 1)
    weights = log_weight(model, x, smoothing, DRAWS).view(2, DRAWS).T
    scale = weights.max(0).values
    means, errors = [], []
    for log_w in (plain, weights):
        w = (log_w - scale).exp()
        means.append(w.mean(0))
        errors.append(w.var(0) / len(w))
    assert bool(((means[0] - means[1]).abs() < 5 * (errors[0] + errors[1]).sqrt()).all())
    model.smoothing = smoothing
    bound = rolfe_elbo if smoothing.has_atom else joint_elbo
    bounds = bound(model, x.repeat_interleave(DRAWS, 0)).view(2, DRAWS)
    assert bool((bounds.mean(1) - scale < means[0].log() + 5 * errors[0].sqrt() / means[0]).all())


@torch.no_grad()
def test_a_score_of_many_samples_is_the_exact_nll_with_the_kl_of_all_groups() -> None:
    model, x = MODELS["rbm-normal-conditional"](), images()
    model.prior.estimate_log_partition()
    numbers = score(model, x, DRAWS, seed=1).numbers()
    assert numbers["nll"] == pytest.approx(-float(exact_log_likelihoods(model, x).mean()), abs=0.05)
    parts = [numbers["kl_global"], numbers["kl_local_1"], numbers["kl_local_2"]]
    assert numbers["kl"] == pytest.approx(sum(parts))


@torch.no_grad()
def test_local_variances_are_those_of_the_means_that_x_alone_decides(tmp_path: Path) -> None:
    """In pieces, and again from what was kept of them; over images that are all the same there is no variance."""
    model = deep_model(rbm(), (2, 2), NormalVariables(), groups=2, variables=2, strength=0.8)
    model.prior.estimate_log_partition()
    x, n = images(), 1500
    shift = torch.cat([group.mean_shift() for group in model(x, hard, 20_000).local], 1).view(2, 20_000, -1)
    exact, errors, within = shift.mean(1).var(0, correction=0), shift.var(1) / 20_000, shift.var(1).mean(0)
    assert bool((within > 0.05).any()), "or one draw for both would pass too"
    small = 400 * 4 * max(8 * 16, model.numbers_per_draw) / 2**20
    kept = KeptScores(tmp_path / "so-far.safetensors", {}, seconds=0.0)
    whole = score(model, x.repeat(n, 1), 1, megabytes=small, kept=kept, seed=2)
    again = score(model, x.repeat(n, 1), 1, megabytes=small, kept=kept, seed=2)
    found = torch.cat(whole.local_variances)
    torch.testing.assert_close(torch.cat(again.local_variances), found)
    error = ((within**2 + 4 * exact * within) / (2 * n) + 2 * exact * errors.sum(0)).sqrt()
    assert float(((found - exact).abs() / (error + 1e-9)).max()) < 5
    same = torch.cat(score(model, x[:1].expand(2 * n, -1), 1, seed=1).local_variances)
    assert bool((same.abs() < 5 * shift.var(1)[0] / (2 * n) ** 0.5 + 1e-9).all())


@torch.no_grad()
def test_generated_images_have_the_frequencies_of_the_exact_model() -> None:
    """2 x 2 images: 16 in all, so that p(x) is a table."""
    model = deep_model(rbm(), (2, 2), BernoulliVariables(), shape=(2, 2), conditional=True, variables=2)
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4)
    exact = exact_log_likelihoods(model, every).exp()
    assert float(exact.sum()) == pytest.approx(1, abs=1e-9)
    drawn = model.generate(20_000)
    same = (drawn[:, None] == every).all(2).double()
    assert_mean(same, exact)


# --- who sees what ----------------------------------------------------------------------------------------------------


def test_a_global_group_sees_the_earlier_groups_zeta_and_no_later_one() -> None:
    model, x = MODELS["rbm-normal"](), images()
    zetas: list[Tensor] = []

    class Watched(OverlappingExponential):
        def __call__(self, logits: Tensor, validate_args: bool | None = None) -> Any:
            made = super().__call__(logits, validate_args)
            made.rsample = lambda: zetas.append(torch.rand(2, 2, dtype=torch.float64).requires_grad_()) or zetas[-1]
            return made

    groups = model(x, Watched(5.0)).posterior.groups
    first, second = groups[0].logits.sum(), groups[1].logits.sum()
    assert [g is None for g in torch.autograd.grad(first, zetas, allow_unused=True, retain_graph=True)] == [True, True]
    seen = torch.autograd.grad(second, zetas, allow_unused=True)
    assert reaches(seen[0])
    assert seen[1] is None


@torch.no_grad()
def test_the_code_is_the_logits_given_the_likelier_bits_before_them() -> None:
    model, x = MODELS["rbm-bernoulli"](), images()
    code = model.code(x)
    likelier = (code > 0).double()
    bits = iter([likelier[:, :1], likelier[:, 1:]])

    class Likelier(OverlappingExponential):
        def __call__(self, logits: Tensor, validate_args: bool | None = None) -> Any:
            made = super().__call__(logits, validate_args)
            made.rsample = lambda: next(bits)
            return made

    posterior = model.encoder(model.backbone(model.grid.standardised(model.grid.image(x)))[1].flatten(1), Likelier(5.0))
    torch.testing.assert_close(code, posterior.logits)
    assert float((code[0] - code[1]).abs().min()) > 0
    normals = MODELS["normal-bernoulli"]().code(x)
    assert normals.shape == (2, 2)


@pytest.mark.parametrize("prior", [True, False], ids=["p", "q"])
def test_a_local_group_depends_on_zeta_and_on_all_earlier_groups_only(prior: bool) -> None:
    model, x = deep_model(rbm(), (2, 2), coarse=2, groups=2, variables=2, local=2, top=1), images()
    zeta = torch.rand(2, 4, dtype=torch.float64).requires_grad_()
    groups = model.given(x, zeta).local
    assert [tuple(group.h.shape[2:]) for group in groups] == [(1, 1), (1, 1), (2, 2), (2, 2)]
    for j, group in enumerate(groups):
        law = group.p if prior else group.q
        for parameters in (law.mean, law.stddev):
            seen = torch.autograd.grad(parameters.sum(), [zeta], retain_graph=True)
            assert reaches(seen[0])
            for k, other in enumerate(groups):
                (to_h,) = torch.autograd.grad(parameters.sum(), other.h, retain_graph=True, allow_unused=True)
                assert reaches(to_h) == (k < j)


def test_q_of_local_groups_sees_x_and_p_does_not() -> None:
    model, x = deep_model(rbm(), (2, 2), coarse=2, groups=2, local=2, top=1), images().requires_grad_()
    drawn = model(x)
    h = [group.h.detach() for group in drawn.local]
    for group in model.given(x, drawn.posterior.zeta.detach(), local=h).local:
        assert reaches(torch.autograd.grad(group.q.mean.sum(), x, retain_graph=True)[0])
        assert torch.autograd.grad(group.p.mean.sum(), x, retain_graph=True, allow_unused=True)[0] is None


def test_coarse_groups_come_first_and_their_means_are_codes_too() -> None:
    model = deep_model(rbm(), (2, 2), NormalVariables(), coarse=2, groups=1, variables=3, local=2, top=1, channels=8)
    x, z = images(), torch.tensor([[0.0, 1, 1, 0], [1, 0, 0, 1]], dtype=torch.float64)
    code = model.local_code(x, z)
    assert [tuple(h.shape) for h in code] == [(2, 3, 1, 1), (2, 3, 1, 1), (2, 3, 2, 2)]
    decoded, seen = model.decode(z, code), model.given(x, z, hard, code).likelihood
    torch.testing.assert_close(decoded.log_prob(x), seen.log_prob(x))
    for j in range(3):
        moved = [h + 0.5 * (place == j) for place, h in enumerate(code)]
        assert not torch.allclose(model.decode(z, moved).log_prob(x), decoded.log_prob(x), atol=1e-3)
    with pytest.raises(InputError, match="4 groups of local variables are given, and there are 3"):
        model.decode(z, (*code, code[0]))
    with pytest.raises(InputError, match=r"h of group 3 has shape \(2, 3, 1, 1\), expected \(2, 3, 2, 2\)"):
        model.decode(z, code[:2] + code[:1])


@torch.no_grad()
def test_codes_of_local_bits_are_the_likelier_ones_given_those_before() -> None:
    model = deep_model(rbm(), (2, 2), BernoulliVariables(), groups=2, variables=3, local=2)
    x, z = images(), torch.tensor([[0.0, 1, 1, 0], [1, 0, 0, 1]], dtype=torch.float64)
    code = model.local_code(x, z)
    assert all(set(h.unique().tolist()) == {0.0, 1.0} for h in code)
    for h, group in zip(code, model.given(x, z, hard, code).local, strict=True):
        assert torch.equal(h, (group.q.logits > 0).double())


def test_q_begins_as_p() -> None:
    plain = convolutional_vae(
        (4, 4),
        torch.full((16,), 0.5),
        prior=rbm(),
        global_groups=(4,),
        local=NormalVariables(),
        smoothing=OverlappingExponential(5.0),
        sizes=ConvolutionalSizes(local=2, top=1, channels=3, cells=1, groups=2, variables=2, hidden=(), coarse=2),
    )
    with torch.no_grad():
        for output in (*plain.coarse.priors, *plain.hierarchy.priors):
            nn.init.normal_(output[-1].weight)
    assert float(plain(images().float()).local_kl_terms().detach().abs().max()) == 0


# --- gradients through importance weights -----------------------------------------------------------------------------

HIERARCHIES = ("coarse", "hierarchy")
INFERENCE = ("backbone.", "encoder.", *(f"{h}.{part}" for h in HIERARCHIES for part in ("meetings", "differences")))
GENERATION = (
    "upsampler.",
    *(f"{h}.{part}" for h in HIERARCHIES for part in ("priors", "entries", "cells")),
    "decoder.",
)


@pytest.mark.parametrize("name", MODELS)
def test_no_gradient_reaches_the_inference_networks_through_hard_bits(name: str) -> None:
    model = MODELS[name]()
    found = gradients(importance_weighted(model, images(), 3).sum(), model)
    if name == "normal-normal-conditional":  # nothing is a bit: all of it is reparameterised
        assert all(map(reaches, flat(found, *INFERENCE)))
    else:
        assert not any(map(reaches, flat(found, *INFERENCE)))
    weights = {n: g for n, g in found.items() if not n.endswith("bias")}
    assert all(map(reaches, flat(weights, *GENERATION)))


@pytest.mark.parametrize("name", [n for n in MODELS if "conditional" in n or "coarse" in n])
def test_with_a_smoothing_the_gradient_of_importance_weights_is_whole(name: str) -> None:
    model = MODELS[name]()
    found = gradients(importance_weighted(model, images(), 3, OverlappingExponential(5.0)).sum(), model)
    assert all(map(reaches, flat(found, *INFERENCE)))
    assert all(map(reaches, flat(found, *GENERATION)))


def test_the_gradient_of_the_frozen_weights_is_that_of_log_p_at_the_same_draws() -> None:
    """d/dt log p(x, z, h) by differences, the draws held: a model whose q alone is moved back to what it was."""
    model, x = MODELS["rbm-bernoulli"](), images()
    parameter = dict(model.named_parameters())["hierarchy.priors.0.2.bias"]
    (gradient,) = torch.autograd.grad(log_weight(model, x, hard, 500).mean(), parameter)
    torch.manual_seed(1)
    trace = model(x, hard, 500)
    (group,) = trace.local
    (by_hand,) = torch.autograd.grad(group.p.log_prob(group.h).sum() / len(group.h), parameter)
    p, h = torch.sigmoid(group.p.logits.detach()), group.h
    expected = (h - p).flatten(1)
    torch.testing.assert_close(by_hand, expected.mean(0))
    assert bool(((gradient - expected.mean(0)).abs() < 5 * (2 * expected.var(0) / len(h)).sqrt()).all())


@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
def test_the_gradient_through_normal_variables_is_that_of_the_value_at_fixed_noise(kl_weight: float) -> None:
    """All of it is reparameterised by smooth maps of noise: differences along a direction tell."""
    model, x = MODELS["normal-normal-conditional"](), images()
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def value(bound: Any) -> Tensor:
        torch.manual_seed(6)
        total: Tensor = bound(model).sum()
        return total

    for bound in (
        lambda m: joint_elbo(m, x, kl_weight),
        lambda m: marginal_elbo(m, x, kl_weight),
        lambda m: importance_weighted(m, x, 4),
    ):
        slopes = torch.autograd.grad(value(bound), parameters, allow_unused=True)
        expected = sum(float((g * d).sum()) for g, d in zip(slopes, direction, strict=True) if g is not None)
        ends = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                for p, d in zip(parameters, direction, strict=True):
                    p += step * d
                ends.append(float(value(bound)))
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += 1e-6 * d
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(expected, rel=1e-4)


class Fixed(OverlappingExponential):
    """The overlapping exponentials with draws that are given, one group after the other."""

    def with_draws(self, *draws: Tensor) -> "Fixed":
        object.__setattr__(self, "draws", iter(draws))
        return self

    def __call__(self, logits: Tensor, validate_args: bool | None = None) -> Any:
        made = super().__call__(logits, validate_args)
        made.rsample = lambda: next(self.draws).view(logits.shape)
        return made


@pytest.mark.parametrize("name", ["joint", "marginal", "joint-rbm", "joint-warm-up"])
def test_gradients_through_bits_average_to_that_of_the_exact_expectation(name: str) -> None:
    """E_q[f] by quadrature over zeta_1, zeta_2 and a local bit's h, its density differentiated too."""
    prior = boltzmann_prior(1, 1) if name == "joint-rbm" else randomise(BernoulliPrior(2), 0.8)
    model = deep_model(prior, (1, 1), BernoulliVariables(), shape=(2, 2), channels=2, strength=0.8)
    x = torch.tensor([[1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)
    kl_weight = 0.4 if name == "joint-warm-up" else 1.0
    bound = marginal_elbo if name == "marginal" else joint_elbo
    parameters = list(model.parameters())

    nodes, weights = gauss_legendre(0.0, 1.0, 3, 6)
    zeta = torch.cartesian_prod(nodes, nodes, nodes)
    many = x.expand(len(zeta), -1)
    trace = model(many, Fixed(4.0).with_draws(*zeta.unbind(1)))
    (group,) = trace.local
    log_q = trace.posterior.log_prob() + group.q.log_prob(group.h).flatten(1).sum(1)
    mass = torch.cartesian_prod(weights, weights, weights).prod(1) * log_q.exp()
    assert float(mass.detach().sum()) == pytest.approx(1, abs=1e-6)
    model.smoothing = Fixed(4.0).with_draws(*zeta.unbind(1))
    expectation = (mass * bound(model, many, kl_weight)).sum()
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(expectation, parameters)])

    model.smoothing = OverlappingExponential(4.0)
    batch = x.expand(300, -1)
    found = batch_gradients(lambda: bound(model, batch, kl_weight).mean(), parameters, 60)
    assert_mean(found, exact, sigmas=5.5)
    assert float(exact.abs().max()) > 20 * float(found.std(0).max()) / 60**0.5


# --- balancing --------------------------------------------------------------------------------------------------------


def test_balancing_weights_sum_to_the_number_of_groups_and_favour_no_equal_ones() -> None:
    means = torch.rand(5, dtype=torch.float64).requires_grad_()
    weights = balancing_weights(means)
    assert not weights.requires_grad
    assert float(weights.sum()) == pytest.approx(5)
    assert torch.equal(weights.argsort(), means.argsort())
    torch.testing.assert_close(balancing_weights(torch.full((4,), 2.5)), torch.ones(4))
    torch.testing.assert_close(balancing_weights(torch.zeros(4)), torch.ones(4))
    # Estimates of a KL can be negative: its weight never is.
    torch.testing.assert_close(balancing_weights(torch.tensor([-0.5, 0.9])), torch.tensor([0.2, 2.0]) / 1.1)
    # Means 0, .9 and 2 nats weigh as 1 : 10 : 21.
    given = balancing_weights(torch.tensor([0.0, 0.9, 2.0]))
    torch.testing.assert_close(given, torch.tensor([3 / 32, 30 / 32, 63 / 32]))


def soft(**changes: Any) -> ConvolutionalVAE:
    return deep_model(bernoulli_prior(), (2, 2), groups=3, local=2, top=1, **changes)


BALANCED = {
    "joint": (joint_elbo, soft),
    "marginal": (marginal_elbo, soft),
    "rolfe": (rolfe_elbo, lambda: deep_model(rbm(), (2, 2), groups=3, smoothing=SpikeExponential(5.0))),
}


@pytest.mark.parametrize("name", BALANCED)
def test_balancing_redistributes_the_local_kl_until_the_kl_weight_is_1(name: str) -> None:
    bound, make = BALANCED[name]
    model, x = make(), images()

    def run(**settings: Any) -> tuple[Tensor, dict[str, Tensor | None]]:
        torch.manual_seed(4)
        value = bound(model, x, **settings)
        return value.detach(), gradients(value.sum(), model)

    for settings in ({}, {"kl_weight": 1.0}):
        assert torch.equal(run(balanced=True, **settings)[0], run(**settings)[0])
    torch.manual_seed(4)
    terms = model(x).local_kl_terms()
    means = terms.detach().mean(0) + 0.1
    alpha = means / means.mean()
    assert float((alpha - 1).abs().max()) > 0.05
    (plain, slopes), (balanced, balanced_slopes) = run(kl_weight=0.4), run(kl_weight=0.4, balanced=True)
    torch.testing.assert_close(plain - balanced, 0.4 * ((alpha - 1) * terms).sum(1).detach())
    # No gradient goes through alpha.
    torch.manual_seed(4)
    difference = gradients((0.4 * (alpha - 1) * model(x).local_kl_terms()).sum(), model)
    for key, slope in difference.items():
        if slope is not None:
            torch.testing.assert_close(slopes[key] - balanced_slopes[key], slope, msg=key)


def test_a_model_without_local_groups_balances_nothing() -> None:
    assert balancing_weights(torch.zeros(0)).shape == (0,)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes",
    [
        {"local": 3},
        {"local": 8},
        {"local": 2, "top": 4},
        {"local": 2, "top": 3},
        {"local": 0},
        {"top": 0},
        {"local": 4, "stem": 2},
        {"stem": 3},
        {"stem": 8},
    ],
    ids=str,
)
@pytest.mark.parametrize("conditional", [True, False])
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, int], conditional: bool) -> None:
    with pytest.raises(InputError):
        deep_model(rbm(), (2, 2), conditional=conditional, **{"local": 2, "top": 1, **sizes})


@pytest.mark.parametrize("shape", [(16,), (4, 2, 2, 1), (0, 4)], ids=str)
def test_examples_that_are_no_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="images"):
        deep_model(rbm(), (2, 2), shape=shape)


def test_a_likelihood_of_grey_pixels_is_refused_for_colour() -> None:
    for likelihood in (DiscretizedLogisticMixture(2, values=1), NormalLikelihood()):
        with pytest.raises(InputError):
            deep_model(rbm(), (2, 2), shape=(4, 4, 3), likelihood={"likelihood": likelihood})


@pytest.mark.parametrize("name", ["rbm-normal", "rbm-normal-conditional"])
def test_x_of_another_shape_or_type_is_refused(name: str) -> None:
    model = MODELS[name]()
    for x in (images().float(), images()[:, :15], images()[:0]):
        with pytest.raises(InputError, match="x must be"):
            model(x)
        with pytest.raises(InputError, match="x must be"):
            model.code(x)


def test_local_bits_refuse_a_smoothing_with_an_atom() -> None:
    model = MODELS["rbm-bernoulli"](smoothing=SpikeExponential(5.0))
    with pytest.raises(InputError, match="atom"):
        rolfe_elbo(model, images())


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditional", [True, False])
@torch.no_grad()
def test_what_lies_around_the_image_never_matters(conditional: bool) -> None:
    model = deep_model(rbm(), (2, 2), shape=(3, 3), conditional=conditional)
    x = torch.randint(0, 2, (4, 9)).double()

    def outcome() -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(2)
        trace = model(x)
        return trace.likelihood.log_prob(x), trace.likelihood.sample(), trace.likelihood.mean

    before = outcome()
    model.grid.mean[:, :, 3:] = 7.0
    model.grid.mean[:, :, :, 3:] = -9.0
    for one, other in zip(before, outcome(), strict=True):
        assert torch.equal(one, other)


def float32_model(precision: torch.dtype | None = None, conditional: bool = True) -> ConvolutionalVAE:
    torch.manual_seed(1)
    made = convolutional_vae(
        (8, 8),
        torch.linspace(0.1, 0.9, 64),
        prior=boltzmann_prior(2, 2),
        global_groups=(2, 2),
        local=NormalVariables(),
        smoothing=OverlappingExponential(8.0),
        conditional=conditional,
        sizes=ConvolutionalSizes(local=4, top=2, channels=8, cells=1, groups=2, variables=3, hidden=(8,)),
        precision=precision,
    )
    model: ConvolutionalVAE = shake(made, strength=0.4).float()
    return model


@pytest.mark.parametrize("conditional", [True, False])
@torch.no_grad()
def test_bfloat16_networks_give_float32_distributions_and_nearly_the_same_bound(conditional: bool) -> None:
    x = torch.randint(0, 2, (40, 64)).float()
    whole, half = float32_model(None, conditional), float32_model(torch.bfloat16, conditional)
    bounds = []
    for model in (whole, half):
        torch.manual_seed(7)
        trace = model(x)
        assert trace.posterior.logits.dtype == torch.float32
        for group in trace.local:
            assert {group.q.mean.dtype, group.p.stddev.dtype, group.h.dtype} == {torch.float32}
        assert trace.likelihood.log_prob(x).dtype == torch.float32
        assert model.decode(model.prior.sample(3)).sample().dtype == torch.float32
        assert model.code(x).dtype == torch.float32
        torch.manual_seed(7)
        bounds.append(joint_elbo(model, x))
    assert not torch.equal(*bounds)
    difference = (bounds[1] - bounds[0]).double()
    assert float(difference.abs().mean()) < 0.02 * float(bounds[0].abs().mean())


@pytest.mark.parametrize("conditional", [True, False])
@torch.no_grad()
def test_every_convolution_computes_in_the_given_precision(conditional: bool) -> None:
    model, seen = float32_model(torch.bfloat16, conditional), set()
    convolutions = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    for name, module in convolutions.items():
        module.register_forward_hook(lambda m, given, out, name=name: seen.add((name, out.dtype)))
    joint_elbo(model, torch.randint(0, 2, (2, 64)).float())
    assert seen == {(name, torch.bfloat16) for name in convolutions}
    seen.clear()
    model.decode(model.prior.sample(2)).sample()
    assert {dtype for _, dtype in seen} == {torch.bfloat16}


@pytest.mark.parametrize("conditional", [True, False])
def test_bfloat16_trains_every_parameter_in_float32(conditional: bool) -> None:
    model = float32_model(torch.bfloat16, conditional).train()
    found = gradients(joint_elbo(model, torch.randint(0, 2, (6, 64)).float()).sum(), model)
    assert all(g is not None and g.dtype == torch.float32 and bool(g.isfinite().all()) for g in found.values())
    assert all(reaches(g) for name, g in found.items() if name.endswith("weight"))


@pytest.mark.parametrize("conditional", [True, False])
def test_weights_laid_out_in_another_order_are_the_same_model(conditional: bool) -> None:
    model, x = float32_model(None, conditional).double(), torch.randint(0, 2, (5, 64)).double()
    four = [p for p in model.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
    assert four
    other = float32_model(None, conditional).double().to(memory_format=torch.channels_last)
    other.load_state_dict(model.state_dict())
    assert not all(p.is_contiguous() for p in other.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    values = []
    for each in (model, other):
        torch.manual_seed(7)
        values.append(joint_elbo(each, x).detach())
    torch.testing.assert_close(values[0], values[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_a_float32_bound_and_its_gradient_stay_finite_when_features_are_huge(size: float) -> None:
    model = float32_model()
    with torch.no_grad():
        for output in (*model.hierarchy.priors, *model.hierarchy.differences):
            list(output.modules())[-1].weight.mul_(size)
        model.encoder.levels[-1][-1].weight.mul_(size)
    value = joint_elbo(model, torch.randint(0, 2, (6, 64)).float())
    assert bool(value.isfinite().all())
    assert all(bool(g.isfinite().all()) for g in gradients(value.sum(), model).values() if g is not None)


def test_several_draws_are_those_of_each_x_in_turn() -> None:
    model, x = MODELS["rbm-normal"](), images()
    trace = model(x, hard, 5)
    first = trace.posterior.groups[0].logits
    assert first.shape == (10, 2)
    assert torch.equal(first[:5], first[:1].expand(5, -1))
    torch.testing.assert_close(first[[0, 5]], model(x, hard).posterior.groups[0].logits)
    assert len(trace.local[0].h.flatten(1).unique(dim=0)) == 10


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_features_of_each_x_are_with_its_own_draws(name: str) -> None:
    model, x = MODELS[name](), images()
    several = model(x, hard, 4)
    h = [group.h for group in several.local]
    one_by_one = model.given(x.repeat_interleave(4, 0), several.posterior.zeta, hard, h)
    torch.testing.assert_close(several.local_log_ratio(), one_by_one.local_log_ratio())
    torch.testing.assert_close(several.posterior.log_prob(), one_by_one.posterior.log_prob())


@torch.no_grad()
def test_untrained_the_unconditional_decoder_gives_the_mean_image_and_nothing_is_said_of_x() -> None:
    mean = torch.linspace(0, 1, 12)
    fresh = convolutional_vae(
        (3, 4),
        mean,
        prior=BernoulliPrior(4),
        global_groups=(4,),
        local=BernoulliVariables(),
        smoothing=OverlappingExponential(5.0),
        sizes=ConvolutionalSizes(local=2, top=1, channels=3, cells=1, groups=2, variables=2, hidden=(), stem=2),
    )
    torch.testing.assert_close(fresh.decode(torch.rand(2, 4)).mean[1], mean.clip(0.001, 0.999))
    trace = fresh(torch.randint(0, 2, (3, 12)).float())
    assert not trace.local_kl_terms().any()
    for group in trace.local:
        torch.testing.assert_close(group.q.probs, torch.full((3, 2, 2, 2), 0.5))


@pytest.mark.parametrize("conditional", [True, False])
@torch.no_grad()
def test_untrained_every_colour_pixel_has_the_parameters_from_which_training_can_begin(conditional: bool) -> None:
    """Weights that leave 0 by chance of size alone: the same distribution at every pixel, its components apart."""
    mixture = DiscretizedLogisticMixture(4, values=3)
    fresh = convolutional_vae(
        (4, 4, 3),
        torch.full((48,), 100.0),
        prior=BernoulliPrior(4),
        global_groups=(4,),
        local=NormalVariables(),
        smoothing=OverlappingExponential(5.0),
        likelihood=mixture,
        conditional=conditional,
        scale=2 / 255,
        sizes=ConvolutionalSizes(local=2, top=1, channels=3, cells=1, groups=1, variables=2, hidden=(), stem=2),
    )
    x = torch.randint(0, 256, (3, 48)).float()
    alone = mixture(mixture.start.repeat(16).expand(3, -1))
    torch.testing.assert_close(fresh.decode(torch.rand(3, 4)).log_prob(x), alone.log_prob(x))
