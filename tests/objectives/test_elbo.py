"""The bound of bits with any estimator: against enumeration of small models, in value and in the gradient of all."""

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from deep import deep_model
from registry import (
    PIXELS,
    all_states,
    assert_mean,
    boltzmann_prior,
    case_model,
    every_estimator,
    every_prior,
    exact_log_likelihood,
    exact_log_q,
    flat_gradient,
    images,
    log_pixels,
    log_prior,
    network,
    prior_bits,
    randomise,
    tiny_model,
)
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, kl_divergence
from torch.func import functional_call, grad, stack_module_state, vmap

from dvaepp.errors import InputError
from dvaepp.estimators import NVIL, VIMCO, DisARM, Estimator, LeaveOneOut, LocalExpectation, MuProp, RelaxedBernoulli
from dvaepp.likelihoods.standard import NormalLikelihood
from dvaepp.models.encoders import HierarchicalEncoder, NormalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.models.local import NormalVariables
from dvaepp.networks.dense import Affine, at_flips, dense, flipped
from dvaepp.objectives.bounds import JointBound, joint_elbo
from dvaepp.objectives.elbo import Elbo, elbo, elbo_terms, elbo_with_loss
from dvaepp.priors.directed import BernoulliPrior, DirectedPrior
from dvaepp.priors.normal import NormalPrior
from dvaepp.smoothings.binary import ReinMax, hard

BATCHES, ROWS = 40, 500


def eight_bits() -> FeedForwardVAE:
    return tiny_model(randomise(BernoulliPrior(8), 0.8), (8,))


def four_bits() -> FeedForwardVAE:
    return tiny_model(boltzmann_prior(2, 2), (4,))


def exact_bound(model: FeedForwardVAE, kl_weight: float = 1.0, samples: int | None = None) -> Tensor:
    """E_q[log p(x, z) - log q(z | x)], the KL weighted; of that many draws the importance-weighted bound. (images,)"""
    x, z = images(), all_states(prior_bits(model.prior))
    log_q = exact_log_q(model, x)
    log_likelihood = torch.stack([log_pixels(model, z, row.expand(len(z), -1)) for row in x])
    weight = log_likelihood + kl_weight * (log_prior(model.prior, z, z) - log_q)
    if samples is None:
        return (log_q.exp() * weight).sum(1)
    chosen = torch.tensor(list(itertools.product(range(len(z)), repeat=samples)))
    return (log_q[:, chosen].sum(-1).exp() * torch.log(weight[:, chosen].exp().mean(-1))).sum(1)


def estimates(
    model: FeedForwardVAE, estimator: Estimator, analytic_kl: bool, kl_weight: float = 1.0, rows: int = ROWS
) -> tuple[Tensor, Tensor]:
    """Values of both images, and gradients of their sum in all parameters, of independent batches."""
    values, gradients, parameters = [], [], list(model.parameters())
    for _ in range(BATCHES):
        bound = elbo(model, images().repeat(rows, 1), estimator, analytic_kl, kl_weight)
        values.append(bound.detach().view(rows, 2).mean(0))
        gradients.append(flat_gradient(bound.sum() / rows, parameters))
    return torch.stack(values), torch.stack(gradients)


def assert_exact(gradients: Tensor, exact: Tensor) -> None:
    error = (gradients.std(0) / len(gradients) ** 0.5).norm()
    assert float(error) < 0.02 * float(exact.norm()), f"standard error {float(error)} of {float(exact.norm())}"
    assert_mean(gradients, exact)


@pytest.mark.parametrize("analytic_kl", [True, False])
@pytest.mark.parametrize("name", every_estimator)
def test_value_and_gradient_of_all_parameters_average_to_enumeration(name: str, analytic_kl: bool) -> None:
    estimator = every_estimator[name](8)
    model = four_bits() if estimator.importance else eight_bits()
    if estimator.importance and analytic_kl:
        with pytest.raises(InputError, match="set analytic_kl=False"):
            elbo(model, images(), estimator)
        return
    exact = exact_bound(model, samples=estimator.draws if estimator.importance else None)
    rows = ROWS * (8 if name in ("reinforce", "nvil") else 1)
    values, gradients = estimates(model, estimator, analytic_kl, rows=rows)
    gradient = flat_gradient(exact.sum(), list(model.parameters()))
    if not estimator.relaxed or (estimator.unbiased and estimator.target == "E[f(b)]"):
        assert_mean(values, exact)
    if (estimator.unbiased and estimator.target == "E[f(b)]") or estimator.importance:
        assert_exact(gradients, gradient)
    else:  # the bias against the bound of bits
        error = float((gradients.std(0) / BATCHES**0.5).norm())
        bias = float((gradients.mean(0) - gradient).norm())
        assert error < 0.02 * float(gradient.norm())
        assert error < bias < 0.4 * float(gradient.norm())


@pytest.mark.parametrize("prior", ["bernoulli", "rbm-1-group", "directed-2", "directed-3"])
def test_the_kl_beside_f_may_be_weighed(prior: str) -> None:
    model, kl_weight = case_model(prior), 0.3
    exact = exact_bound(model, kl_weight)
    for estimator in (LeaveOneOut(), NVIL(PIXELS, hidden=5).double()):
        values, gradients = estimates(
            model, estimator, True, kl_weight, 500 if isinstance(estimator, LeaveOneOut) else 4000
        )
        assert_mean(values, exact)
        assert_exact(gradients, flat_gradient(exact.sum(), list(model.parameters())))


@pytest.mark.parametrize("name", [name for name, make in every_estimator.items() if make(6).nests])
@pytest.mark.parametrize(
    ("prior", "analytic_kl"), [("directed-2", True), ("directed-2", False), ("rbm-2-groups", False)]
)
def test_several_groups_nest(prior: str, analytic_kl: bool, name: str) -> None:
    model, estimator = case_model(prior), every_estimator[name](6)
    exact = exact_bound(model)
    rows = 4000 if name in ("reinforce", "nvil") else ROWS // 2 * 2 // estimator.draws
    values, gradients = estimates(model, estimator, analytic_kl, rows=rows)
    assert_mean(values, exact)
    assert_exact(gradients, flat_gradient(exact.sum(), list(model.parameters())))


def test_no_baseline_of_the_bound_takes_part_in_its_kl() -> None:
    """C(x) is fitted to the bound: where the KL is estimated for its own sake, it would be nothing but noise."""
    model, noise, gradients = case_model("directed-2"), torch.rand(1, 2, 6, dtype=torch.float64), []
    for level in (0.0, 1000.0):
        estimator = NVIL(PIXELS, hidden=5).double()
        nn.init.constant_(estimator.baseline.network[-1].bias, level)
        kl = elbo_terms(model, images(), estimator, noise=noise).global_kl
        gradients.append(flat_gradient(kl.sum(), list(model.parameters())))
    torch.testing.assert_close(*gradients)


def test_the_terms_are_the_likelihood_and_the_divergence() -> None:
    model, x = case_model("directed-2"), images().repeat(4000, 1)
    z = all_states(6)
    log_q = exact_log_q(model, images())
    likelihood = torch.stack([log_pixels(model, z, row.expand(len(z), -1)) for row in images()])
    expected = (log_q.exp() * likelihood).sum(1), (log_q.exp() * (log_q - log_prior(model.prior, z, z))).sum(1)
    for analytic_kl in (True, False):
        terms = elbo_terms(model, x, LeaveOneOut(), analytic_kl)
        for term, exact in zip((terms.log_likelihood, terms.global_kl), expected, strict=True):
            assert_mean(term.detach().view(-1, 2), exact)
        assert terms.local_kl_terms.shape == (len(x), 0)
        assert terms.global_kl.requires_grad == analytic_kl


def test_the_terms_of_one_draw_are_those_at_the_draw() -> None:
    model, x = case_model("bernoulli"), images()
    noise = torch.rand(2, 2, 6, dtype=torch.float64)
    logits = model.encoder.levels[0](x)
    z = (noise < torch.sigmoid(logits)).double()
    log_q = (z * nn.functional.logsigmoid(logits) + (1 - z) * nn.functional.logsigmoid(-logits)).sum(-1)
    terms = elbo_terms(model, x, LeaveOneOut(), False, noise=noise)
    torch.testing.assert_close(terms.global_kl, (log_q - log_prior(model.prior, z, z)).mean(0))
    torch.testing.assert_close(terms.log_likelihood, torch.stack([log_pixels(model, each, x) for each in z]).mean(0))


def test_it_is_the_joint_bound_where_the_gradient_is_the_smoothing_s() -> None:
    """ReinMax both ways: as an estimator, and as a smoothing."""
    noise = torch.rand(2, 2, 6, dtype=torch.float64)
    for prior in ("bernoulli", "rbm-1-group"):
        model = case_model(prior, ReinMax())
        parameters, estimator = list(model.parameters()), every_estimator["reinmax"](6)
        ours, theirs = elbo(model, images(), estimator, noise=noise[:1]), joint_elbo(model, images(), noise=noise)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(flat_gradient(ours.sum(), parameters), flat_gradient(theirs.sum(), parameters))


def test_the_concrete_objective_is_discrete_probabilities_at_relaxed_bits() -> None:
    model, x = case_model("bernoulli"), images()
    noise = torch.rand(1, 2, 6, dtype=torch.float64)
    logits, bias = model.encoder.levels[0](x), model.prior.bias
    y = torch.sigmoid((logits - torch.logit(noise[0])) / 0.3)

    def log_bits(logits: Tensor) -> Tensor:
        return (y * torch.log(torch.sigmoid(logits)) + (1 - y) * torch.log(1 - torch.sigmoid(logits))).sum(-1)

    expected = log_pixels(model, y, x) + log_bits(bias) - log_bits(logits)
    ours, parameters = elbo(model, x, RelaxedBernoulli(0.3), False, noise=noise), list(model.parameters())
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(flat_gradient(ours.sum(), parameters), flat_gradient(expected.sum(), parameters))


def test_vimco_is_no_more_than_the_likelihood_and_more_than_the_bound() -> None:
    model = four_bits()
    bound = elbo(model, images().repeat(4000, 1), VIMCO(8), False).detach().view(-1, 2).mean(0)
    assert bool((bound < exact_log_likelihood(model, images())).all())
    assert bool((bound > exact_bound(model)).all())


# --- flips ------------------------------------------------------------------------------------------------------------


def plain_decoder(model: FeedForwardVAE) -> FeedForwardVAE:
    """The same with a decoder that cannot be taken apart."""
    model = copy.deepcopy(model)
    model.decoder.register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize("analytic_kl", [True, False])
@pytest.mark.parametrize("entrance", [None, Affine(torch.full((6,), -1.0), 2.0), Affine(torch.zeros(6), torch.rand(6))])
def test_the_model_flips_each_bit_as_the_decoder_would(analytic_kl: bool, entrance: nn.Module | None) -> None:
    model, x = case_model("rbm-1-group"), images()
    decoder = dense(6, PIXELS, (5, 5)) if entrance is None else nn.Sequential(entrance, dense(6, PIXELS))
    model.decoder = nn.Sequential(decoder, Affine(torch.ones(PIXELS))).double()
    noise, parameters = torch.rand(1, 2, 6, dtype=torch.float64), list(model.parameters())
    ours, theirs = (
        elbo(each, x, LocalExpectation(), analytic_kl, noise=noise) for each in (model, plain_decoder(model))
    )
    torch.testing.assert_close(ours, theirs)
    states = flipped(torch.ones(2, 6).double())
    torch.testing.assert_close(
        model.decode_flips(torch.ones(2, 6).double()).log_prob(x), model.decode(states).log_prob(x)
    )
    torch.testing.assert_close(
        flat_gradient(ours.sum(), parameters),
        flat_gradient(elbo(model, x, LocalExpectation(), analytic_kl, noise=noise).sum(), parameters),
    )


def test_at_flips_sees_the_first_layer_once() -> None:
    layers = dense(6, 5, (7,)).double()
    z, seen = torch.bernoulli(torch.full((3, 6), 0.5)).double(), []
    expected = layers(flipped(z))
    torch.testing.assert_close(at_flips(layers, z), expected)
    layers[2].register_forward_hook(lambda *given: seen.append(given[1][0].shape))
    torch.testing.assert_close(at_flips(layers, z), expected)
    assert seen == [(18, 7)]
    layers[0].register_forward_hook(lambda *given: seen.append(given[1][0].shape))
    torch.testing.assert_close(at_flips(layers, z), expected)
    assert seen[1:] == [(18, 6), (18, 7)]


# --- one interface for training ---------------------------------------------------------------------------------------


def test_objectives_are_called_alike() -> None:
    model, x = case_model("directed-2"), images()
    nvil = NVIL(PIXELS, hidden=5).double()
    objectives = JointBound(), Elbo().with_estimator(DisARM()), Elbo(analytic_kl=False).with_estimator(nvil)
    for objective, uniforms in zip(objectives, (2, 2, 1), strict=True):
        assert objective.uniforms(model) == uniforms
        noise = torch.rand(uniforms, 2, 6, dtype=torch.float64)
        terms, loss = objective.with_loss(model, x, noise)
        assert torch.equal(terms.bound(), objective(model, x, noise).bound())
        own = list((objective.learned or nn.Module()).parameters())
        assert loss.requires_grad == bool(own)
        assert objective.weighs_kl == (objective != objectives[2])
    assert own == list(nvil.parameters())
    assert all(g is not None for g in torch.autograd.grad(loss, own, allow_unused=True))
    with pytest.raises(InputError, match="needs its estimator"):
        Elbo()(model, x)


@pytest.mark.parametrize("prior", ["bernoulli", "directed-2", "directed-3", "rbm-2-groups"])
def test_given_noise_is_all_that_there_is_of_chance(prior: str) -> None:
    model, x = case_model(prior), images()
    for objective in (Elbo(False).with_estimator(LeaveOneOut(3)), Elbo(False).with_estimator(DisARM())):
        rows = objective.uniforms(model)
        noise = torch.rand(rows, 2, 6, dtype=torch.float64)
        assert torch.equal(objective(model, x, noise).bound(), objective(model, x, noise).bound())
        for wrong in (noise[:, :, :5], torch.cat([noise, noise], 2), noise.float(), torch.cat([noise, noise])):
            with pytest.raises(InputError, match="noise"):
                objective(model, x, wrong)


@pytest.fixture
def _validation_off() -> Callable[[], None]:
    Distribution.set_default_validate_args(False)
    yield
    Distribution.set_default_validate_args(True)


@pytest.mark.usefixtures("_validation_off")
@pytest.mark.parametrize("name", every_estimator)
def test_stacked_models_give_what_each_gives_alone(name: str) -> None:
    several = every_estimator[name](6).nests
    models = [case_model("directed-2" if several else "bernoulli") for _ in range(3)]
    for seed, model in enumerate(models):
        randomise(model, 0.7, seed)
    estimator, x = every_estimator[name](6), images()
    objective = Elbo(not estimator.importance).with_estimator(estimator)
    noise = torch.rand(3, objective.uniforms(models[0]), 2, 6, dtype=torch.float64)

    class Skeleton(nn.Module):
        def __init__(self, model: FeedForwardVAE) -> None:
            super().__init__()
            self.model = model

        def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
            terms, loss = objective.with_loss(self.model, x, noise)
            return terms.bound(), loss

    parameters, buffers = stack_module_state([Skeleton(model) for model in models])
    parameters = {key: value.detach().requires_grad_() for key, value in parameters.items()}
    skeleton = Skeleton(copy.deepcopy(models[0]))
    run = vmap(lambda own, buffers, noise: functional_call(skeleton, (own, buffers), (noise,)))
    bound, loss = run(parameters, buffers, noise)
    together = torch.autograd.grad(bound.sum(), list(parameters.values()))
    within = vmap(grad(lambda own, buffers, noise: functional_call(skeleton, (own, buffers), (noise,))[0].sum()))
    inside = within({key: value.detach() for key, value in parameters.items()}, buffers, noise)
    torch.testing.assert_close(tuple(inside.values()), together)
    for replica, model in enumerate(models):
        terms, alone = objective.with_loss(model, x, noise[replica])
        torch.testing.assert_close(bound[replica], terms.bound())
        torch.testing.assert_close(loss[replica], alone)
        single = torch.autograd.grad(terms.bound().sum(), list(model.parameters()))
        for stacked, one in zip(together, single, strict=True):
            torch.testing.assert_close(stacked[replica], one)


@pytest.mark.usefixtures("_validation_off")
@pytest.mark.parametrize("name", every_estimator)
@pytest.mark.parametrize("prior", ["bernoulli", "rbm-1-group", "directed-2", "rbm-chains"])
def test_a_training_step_reads_no_value_back(prior: str, name: str) -> None:
    """On the meta device, whose tensors have none."""
    estimator = every_estimator[name](6)
    if len(every_prior[prior].groups) > 1 and not estimator.nests:
        return
    objective = Elbo(prior != "rbm-chains" and not estimator.importance).with_estimator(estimator)
    model = case_model(prior).to("meta")
    if isinstance(estimator, nn.Module):
        estimator.to("meta")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.autocast", _NoAutocast)
        terms, _ = objective.with_loss(model, images().to("meta"))
        torch.autograd.backward(-terms.bound().mean())
    assert all(parameter.grad is not None for parameter in model.encoder.parameters())


class _NoAutocast(torch.autocast):
    """The meta device knows no autocast."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, make in every_estimator.items() if not make(6).nests])
def test_estimators_that_do_not_nest_refuse_several_groups(name: str) -> None:
    with pytest.raises(InputError, match="has no gradient for 2 groups of bits: use one group"):
        elbo(case_model("directed-2"), images(), every_estimator[name](6), analytic_kl=False)


def test_what_has_no_closed_form_is_refused() -> None:
    with pytest.raises(
        InputError, match="KL of 2 groups to a BoltzmannPrior has no closed form: set analytic_kl=False"
    ):
        elbo(case_model("rbm-2-groups"), images(), LeaveOneOut())
    prior = every_prior["directed-2"].make()
    for groups in ((6,), (2, 2, 2), (2, 4)):
        with pytest.raises(InputError, match="no closed form"):
            elbo(tiny_model(prior, groups), images(), LeaveOneOut())
        assert elbo(tiny_model(prior, groups), images(), LeaveOneOut(), analytic_kl=False).shape == (2,)


def test_a_kl_inside_f_cannot_be_weighed() -> None:
    with pytest.raises(InputError, match=r"kl_weight=0.5 needs analytic_kl=True"):
        elbo(case_model("bernoulli"), images(), LeaveOneOut(), analytic_kl=False, kl_weight=0.5)


def test_models_without_bits_or_with_local_variables_are_refused() -> None:
    normal = FeedForwardVAE(NormalEncoder(network(PIXELS, 6)), NormalPrior(3), network(3, PIXELS), hard).double()
    deep = deep_model(BernoulliPrior(4), (4,), NormalVariables())
    for model in (normal, deep):
        with pytest.raises(InputError, match="is for a FeedForwardVAE of bits, not this"):
            elbo(model, images(), LeaveOneOut())
    assert Elbo().refusal(hard, NormalPrior(3), 1) is not None


def test_tangents_and_flips_of_a_decoder_that_mixes_rows_are_refused() -> None:
    model = case_model("bernoulli")
    model.decoder = dense(6, PIXELS, (5,), batch_norm=True).double()
    for estimator in (MuProp().double(), LocalExpectation()):
        with pytest.raises(InputError, match=f"{type(estimator).__name__} evaluates the decoder beside its draws"):
            elbo(model, images(), estimator)
    assert elbo(model, images(), LeaveOneOut()).shape == (2,)
    assert elbo(model.eval(), images(), MuProp().double()).shape == (2,)


def test_a_decoder_of_other_pixels_is_refused() -> None:
    model = case_model("bernoulli")
    model.decoder = network(6, PIXELS + 1).double()
    with pytest.raises(InputError, match="the decoder gives"):
        elbo(model, images(), LeaveOneOut())


def test_any_likelihood_and_an_encoder_of_any_networks_will_do() -> None:
    encoder = HierarchicalEncoder(network(PIXELS, 3), nn.Linear(PIXELS + 3, 2))
    model = FeedForwardVAE(
        encoder, DirectedPrior(3, nn.Linear(3, 2)), network(5, 2 * PIXELS), hard, NormalLikelihood()
    ).double()
    terms, loss = elbo_with_loss(model, torch.randn(7, PIXELS).double(), NVIL(PIXELS).double())
    (-terms.bound().mean()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert loss.requires_grad


def test_a_baseline_is_fitted_to_the_f_of_every_group() -> None:
    model, x, u = case_model("directed-2"), images(), torch.rand(1, 2, 6, dtype=torch.float64)
    estimator = randomise(NVIL(PIXELS, hidden=5), 0.5, 3)
    z, logits = x[:, :0], []
    for k, level in enumerate(model.encoder.levels):
        logits.append(level(torch.cat([x, z], 1)))
        z = torch.cat([z, (u[0, :, 3 * k : 3 * k + 3] < torch.sigmoid(logits[-1])).double()], 1)
    of_second = kl_divergence(Bernoulli(logits=logits[1]), Bernoulli(logits=model.prior.networks[0](z[:, :3]))).sum(1)
    last = Bernoulli(logits=model.decoder(z)).log_prob(x).sum(1)
    expected = sum((f.detach() - estimator.baseline(x, logits[0])).square().mean() for f in (last, last - of_second))
    _, loss = elbo_with_loss(model, x, estimator, noise=u)
    torch.testing.assert_close(loss, expected)
