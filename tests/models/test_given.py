"""A model at a zeta that the caller chooses: q and p there, against enumeration and against the model's own pass."""

import jaxtyping
import pytest
import torch
from deep import deep_model
from registry import (
    all_states,
    assert_mean,
    case_model,
    every_prior,
    exact_log_likelihood,
    exact_log_q,
    images,
    log_pixels,
    log_prior,
    network,
    randomise,
    tiny_model,
)
from torch import nn
from torch.distributions import Normal

from dvaepp.errors import InputError
from dvaepp.models.encoders import NormalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.networks.dense import dense
from dvaepp.objectives.bounds import joint_elbo
from dvaepp.objectives.importance import importance_weighted, log_weight
from dvaepp.priors.directed import BernoulliPrior
from dvaepp.priors.normal import NormalPrior
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.smoothings.spike import SpikeExponential

STATES = all_states(6)


@pytest.mark.parametrize("name", every_prior)
def test_log_probs_at_chosen_bits_are_those_of_every_state(name: str) -> None:
    model, x = case_model(name), images()
    z = STATES.repeat(len(x), 1)
    trace = model.given(x, z, hard)
    log_q = exact_log_q(model, x)
    torch.testing.assert_close(trace.posterior.log_prob().view(len(x), -1), log_q, rtol=1e-9, atol=1e-9)
    log_p = log_prior(model.prior, STATES, STATES)
    torch.testing.assert_close(model.prior.log_prob(z, hard), log_p.repeat(len(x)), rtol=1e-9, atol=1e-9)
    of_pixels = torch.stack([log_pixels(model, STATES, image.expand(64, -1)) for image in x])
    log_likelihood = trace.likelihood.log_prob(x.repeat_interleave(len(STATES), 0)).view(len(x), -1)
    torch.testing.assert_close(log_likelihood, of_pixels, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.encoder.logits(x, z), trace.posterior.logits)
    assert torch.equal(trace.posterior.zeta, z)


def test_the_score_function_gradient_of_chosen_bits_is_exact_over_all_states() -> None:
    model, x = case_model("rbm-2-groups"), images()
    z = STATES.repeat(len(x), 1)
    parameters = list(model.encoder.parameters())
    trace = model.given(x, z, hard)
    log_q = trace.posterior.log_prob()
    log_p = trace.likelihood.log_prob(x.repeat_interleave(64, 0)) + model.prior.log_prob(z, hard)
    weight = (log_q.exp() * (log_p - log_q)).detach()
    score = torch.autograd.grad((weight * log_q).sum(), parameters)
    exact_q = exact_log_q(model, x)
    elbo = (exact_q.exp() * (log_p.detach().view(2, -1) - exact_q)).sum()
    torch.testing.assert_close(score, torch.autograd.grad(elbo, parameters), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("smoothing", [OverlappingExponential(6.0), SpikeExponential(6.0), hard])
@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("dense_levels", [False, True])
def test_the_pass_at_its_own_draw_is_the_pass(smoothing, draws: int, dense_levels: bool) -> None:
    model, x = tiny_model(BernoulliPrior(6).double(), (1, 3, 2), smoothing), images()
    if dense_levels:
        starts = (4, 5, 8)
        model.encoder.levels = nn.ModuleList(map(dense, starts, (1, 3, 2), [(5,)] * 3)).double()
    trace = model(x, draws=draws)
    again = model.given(x, trace.posterior.zeta)
    assert trace.posterior.zeta.shape == (2 * draws, 6)
    torch.testing.assert_close(again.posterior.logits, trace.posterior.logits)
    torch.testing.assert_close(again.posterior.log_prob(), trace.posterior.log_prob())
    torch.testing.assert_close(again.posterior.nu, trace.posterior.nu)
    repeated = x.repeat_interleave(draws, 0)
    torch.testing.assert_close(again.likelihood.log_prob(repeated), trace.likelihood.log_prob(repeated))
    each = model.given(repeated, trace.posterior.zeta)
    torch.testing.assert_close(each.posterior.logits, trace.posterior.logits)


def test_noise_decides_the_pass_and_draws_lie_x_by_x() -> None:
    model, x = case_model("directed-3"), images()
    noise = torch.rand(2, 6, 6, dtype=torch.float64)
    whole = model(x, draws=3, noise=noise).posterior
    single = [model(x, noise=noise[:, [k, 3 + k]]).posterior for k in range(3)]
    torch.testing.assert_close(whole.zeta.view(2, 3, 6), torch.stack([each.zeta for each in single], 1))
    weights = log_weight(model, x, model.smoothing, 3, noise=noise)
    torch.testing.assert_close(
        importance_weighted(model, x, 3, model.smoothing, noise=noise),
        (weights.view(2, 3).logsumexp(1) - torch.tensor(3.0).log()),
    )
    drawn = joint_elbo(model, x, noise=noise[:, ::3])
    torch.testing.assert_close(drawn, joint_elbo(model, x, noise=noise[:, ::3]), rtol=0, atol=0)


def test_draws_of_noise_follow_the_law_and_weights_the_likelihood() -> None:
    model, x = case_model("rbm-2-groups"), images()
    noise = torch.rand(2, 2 * 20_000, 6, dtype=torch.float64)
    with torch.no_grad():
        weights = log_weight(model, x, hard, 20_000, noise=noise).view(2, -1).exp()
        assert_mean(weights.T, exact_log_likelihood(model, x).exp())


def test_normal_variables_are_the_inverse_cdf_of_the_first_number() -> None:
    levels = [network(4, 2 * 3), network(4 + 3, 2 * 2)]
    encoder = randomise(NormalEncoder(*levels))
    noise = torch.rand(2, 2 * 3, 5, dtype=torch.float64)
    q = encoder(images(), hard, 3, noise)
    cdf = torch.cat([group.cdf(z) for group, z in zip(q.groups, q.zetas, strict=True)], 1)
    torch.testing.assert_close(cdf, noise[0], rtol=1e-9, atol=1e-12)
    # torch.rand gives 0 too: no draw lies further out on one side than on the other.
    for dtype, most in ((torch.float32, 5.5), (torch.float64, 8.5)):
        standard = Normal(torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype))
        low, high = (encoder.draw(standard, torch.full((2, 3), end, dtype=dtype)) for end in (0.0, 1.0))
        torch.testing.assert_close(low, -high)
        assert 5 < float(high.max()) < most
    model = FeedForwardVAE(encoder, NormalPrior(5).double(), network(5, 4).double(), hard)
    trace = model.given(images(), q.zeta)
    torch.testing.assert_close(trace.posterior.log_prob(), q.log_prob())


def test_a_convolutional_model_takes_a_global_zeta_and_no_noise() -> None:
    model, x = deep_model(BernoulliPrior(4), (2, 2)), torch.bernoulli(torch.full((3, 16), 0.5)).double()
    torch.manual_seed(1)
    trace = model(x, draws=2)
    torch.manual_seed(1)
    torch.rand(2, 6, 2, dtype=torch.float64), torch.rand(2, 6, 2, dtype=torch.float64)  # what zeta was drawn with
    again = model.given(x, trace.posterior.zeta)
    torch.testing.assert_close(again.posterior.logits, trace.posterior.logits)
    torch.testing.assert_close(again.local_log_ratio(), trace.local_log_ratio())
    repeated = x.repeat_interleave(2, 0)
    torch.testing.assert_close(again.likelihood.log_prob(repeated), trace.likelihood.log_prob(repeated))
    with pytest.raises(InputError, match="takes no noise"):
        model(x, noise=torch.rand(2, 3, 4))


def test_a_zeta_or_noise_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no shape checks
    model, x = case_model("directed-2"), images()
    for shape in ((3, 6), (0, 6), (6,), (2, 2, 6), (2, 2), (2, 5), (2, 7)):
        with pytest.raises(InputError, match="zeta must have"):
            model.given(x, torch.zeros(shape, dtype=torch.float64))
    with pytest.raises(InputError, match="zeta must have x's dtype"):
        model.given(x, torch.zeros(2, 6, dtype=torch.bool))
    for shape in ((2, 2, 5), (2, 2, 7), (2, 3, 6)):
        with pytest.raises(InputError, match="noise must be uniform numbers of shape"):
            model(x, noise=torch.rand(shape, dtype=torch.float64))
    with pytest.raises(InputError, match="takes no noise"):
        log_weight(case_model("rbm-chains"), x, OverlappingExponential(6.0), noise=torch.rand(2, 2, 6).double())
