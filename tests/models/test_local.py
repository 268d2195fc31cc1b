"""Local variables and normal ones against integrals: divergences, their gradients, densities and draws."""

import itertools
import math
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from registry import SmoothingCase, assert_mean, exponential, gauss_legendre, logistic, randomise
from scipy import integrate, stats
from torch import Tensor, nn
from torch.distributions import Normal

from dvaepp.errors import InputError
from dvaepp.models.base import Trace
from dvaepp.models.encoders import HierarchicalEncoder, NormalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.models.local import BernoulliVariables, LocalGroup, LocalVariables, NormalVariables
from dvaepp.objectives.bounds import joint_elbo, marginal_elbo
from dvaepp.objectives.importance import log_weight
from dvaepp.priors.directed import BernoulliPrior
from dvaepp.priors.normal import NormalPosterior, NormalPrior, normal
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.concrete import Concrete
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.smoothings.posterior import Posterior
from dvaepp.smoothings.spike import SpikeExponential, SpikeGaussian

SMOOTH = {"exponential": exponential(6.0), "logistic": logistic(5.0)}


def maps(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def group_of(kind: LocalVariables, q: Tensor, p: Tensor, smoothing: Any) -> LocalGroup:
    """A group with these parameters, and a draw of it."""
    posterior, prior = kind.distribution(q, smoothing), kind.distribution(p, smoothing)
    h = posterior.rsample() if posterior.has_rsample else posterior.sample()
    return LocalGroup(kind, posterior, prior, h)


# --- normal local variables -------------------------------------------------------------------------------------------


def test_the_first_half_of_the_channels_are_means_and_the_second_log_sds() -> None:
    parameters = maps(2, 6, 3, 3)
    law = NormalVariables().distribution(parameters, hard)
    assert torch.equal(law.mean, parameters[:, :3])
    assert law.stddev.shape == (2, 3, 3, 3)
    moved = parameters.clone()
    moved[:, 3:] += 1
    ratio = NormalVariables().distribution(moved, hard).stddev / law.stddev
    assert bool(((ratio > 1) & (ratio < math.e + 1e-9)).all())


def test_a_standard_deviation_is_near_the_exponential_and_within_five_of_it_in_logarithm() -> None:
    small = torch.linspace(-0.5, 0.5, 11, dtype=torch.float64)
    torch.testing.assert_close(normal(small, small).stddev, small.exp(), rtol=5e-3, atol=0)
    for dtype in (torch.float32, torch.float64):
        huge = torch.tensor([-1e30, -60.0, 60.0, 1e30], dtype=dtype).requires_grad_()
        sd = normal(torch.zeros(4, dtype=dtype), huge).stddev
        assert bool((sd.log().abs() <= 5.0001).all())
        (slope,) = torch.autograd.grad(sd.log().sum(), huge)
        assert bool(slope.isfinite().all())
    rising = normal(torch.zeros(99), torch.linspace(-20, 20, 99)).stddev
    assert bool((rising.diff() >= 0).all())


def test_the_divergence_of_normals_is_the_integral() -> None:
    q, p = maps(2, 4, 1, 2), maps(2, 4, 1, 2)
    group = group_of(NormalVariables(), q, p, hard)
    expected = []
    for example in range(2):
        total = 0.0
        for variable, column in itertools.product(range(2), range(2)):
            where = (example, variable, 0, column)
            a = stats.norm(float(group.q.mean[where]), float(group.q.stddev[where]))
            b = stats.norm(float(group.p.mean[where]), float(group.p.stddev[where]))
            total += integrate.quad(
                lambda h, a=a, b=b: a.pdf(h) * (a.logpdf(h) - b.logpdf(h)), a.ppf(1e-15), a.isf(1e-15), limit=200
            )[0]
        expected.append(total)
    torch.testing.assert_close(group.kl(), torch.tensor(expected, dtype=torch.float64), rtol=1e-8, atol=1e-8)


def test_the_log_ratio_of_normals_is_scipys_and_averages_to_minus_the_divergence() -> None:
    q, p = maps(1, 4, 2, 1), maps(1, 4, 2, 1)
    group = group_of(NormalVariables(), q.expand(20_000, -1, -1, -1), p.expand(20_000, -1, -1, -1), hard)
    ratios = group.log_ratio()
    means, sds = ([getattr(law, n)[0].numpy() for law in (group.p, group.q)] for n in ("mean", "stddev"))
    h = group.h[0].numpy()
    expected = (stats.norm.logpdf(h, means[0], sds[0]) - stats.norm.logpdf(h, means[1], sds[1])).sum()
    assert float(ratios[0]) == pytest.approx(float(expected))
    assert_mean(ratios, -group.kl()[0])


def divergences_of_normals(q: Normal, p: Normal) -> Tensor:
    """By moments, with 60 digits."""
    found, moments = [], (each.flatten().tolist() for each in (q.loc, q.scale, p.loc, p.scale))
    with mpmath.workdps(60):
        for a, s, b, t in zip(*(map(mpmath.mpf, each) for each in moments), strict=True):
            found.append(float(((a - b) ** 2 + s**2 - t**2) / (2 * t**2) - mpmath.log(s / t)))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("sd", [math.exp(-5), 1.0, math.exp(5)])
def test_the_divergence_of_nearly_equal_normals_is_exact_and_not_negative(sd: float) -> None:
    shift, stretch = torch.cartesian_prod(
        torch.tensor([0.0, 1e-6, -1e-4, 0.1, 3.0]), torch.tensor([0.0, 1e-6, -1e-4, 0.01, -0.5, 20.0])
    ).unbind(1)
    pairs = [(Normal(2 + shift * sd, sd * (1 + stretch)), Normal(torch.full((30,), 2.0), torch.full((30,), sd)))]
    found = [NormalVariables().divergence(*pairs[0], pairs[0][0].loc)]
    if sd == 1:
        q = Normal(shift, 1 + stretch)
        pairs.append((q, Normal(torch.zeros(30), torch.ones(30))))
        each = (Normal(*moments) for moments in zip(q.loc.split(1), q.scale.split(1), strict=True))
        found.append(NormalPrior(30).kl_terms(NormalPosterior(tuple(each), q.loc.split(1))))
    for kl, (q, p) in zip(found, pairs, strict=True):
        exact = divergences_of_normals(q, p)
        assert bool((kl >= 0).all())
        assert bool(((kl - exact).abs() <= 1e-6 * exact + 3e-7 * stretch.abs().clamp(max=1)).all())


def test_what_many_nearly_equal_normals_differ_by_is_not_lost() -> None:
    shifts = 3e-4 * torch.randn(1, 100_000)
    q, p = (torch.cat([mean, torch.zeros_like(mean)]).view(1, 200_000, 1, 1) for mean in (shifts[0], 0 * shifts[0]))
    group = group_of(NormalVariables(), q, p, hard)
    assert float(group.kl()) == pytest.approx(float((shifts.double() ** 2).sum() / 2), rel=1e-4)


# --- bits seen through a smoothing ------------------------------------------------------------------------------------


def divergence(case: SmoothingCase, q: Tensor, p: Tensor) -> Tensor:
    """The integral of q(zeta) (log q(zeta) - log p(zeta)), bit by bit, by scipy's densities; differentiable."""
    zeta, weight = case.quadrature()
    zero, one = case.pdf(zeta, 0), case.pdf(zeta, 1)

    def density(logit: Tensor) -> Tensor:
        chance = torch.sigmoid(logit)[..., None]
        return (1 - chance) * zero + chance * one

    fq, fp = density(q), density(p)
    kept = (fq > 0) & (fp > 0)
    terms = torch.where(kept, fq * (fq.clamp(min=1e-300).log() - fp.clamp(min=1e-300).log()), 0.0)
    return (weight * terms).sum(-1)


@pytest.mark.parametrize("name", SMOOTH)
def test_the_divergence_of_smoothed_bits_averages_to_the_integral_and_so_does_its_gradient(name: str) -> None:
    case, kind, n = SMOOTH[name], BernoulliVariables(), 20_000
    logits = [(1.5 * maps(3)).requires_grad_() for _ in range(2)]
    exact = divergence(case, *logits)
    slopes = torch.autograd.grad(exact.sum(), logits)
    spread = [v.detach().expand(n, 3).reshape(n, 3, 1, 1).clone().requires_grad_() for v in logits]
    group = group_of(kind, *spread, case.smoothing)
    estimate = group.kl()
    assert_mean(estimate, exact.sum())
    torch.testing.assert_close(group.log_ratio(), -estimate)
    for slope, found in zip(slopes, torch.autograd.grad(estimate.sum(), spread), strict=True):
        assert_mean(found.flatten(1), slope)


def test_hard_bits_have_the_divergence_of_bernoullis_on_average() -> None:
    q, p = 1.5 * maps(1, 3, 1, 1), 1.5 * maps(1, 3, 1, 1)
    group = group_of(BernoulliVariables(), q.expand(20_000, -1, -1, -1), p.expand(20_000, -1, -1, -1), hard)
    a, b = torch.sigmoid(q.flatten()), torch.sigmoid(p.flatten())
    exact = float((a * (a / b).log() + (1 - a) * ((1 - a) / (1 - b)).log()).sum())
    assert_mean(group.log_ratio(), -exact)
    assert_mean(group.kl(), exact)
    assert set(group.h.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(group.mean_shift()[0], a - b)


def test_the_shift_of_a_groups_mean_is_that_of_its_draws_and_0_where_q_is_p() -> None:
    q, p = (maps(1, 4, 1, 2).expand(20_000, -1, -1, -1) for _ in range(2))
    for kind, smoothing in ((NormalVariables(), hard), (BernoulliVariables(), exponential(200.0).smoothing)):
        group, prior = group_of(kind, q, p, smoothing), group_of(kind, p, p, smoothing)
        assert not bool(prior.mean_shift().any())
        sharp = (lambda h: h) if isinstance(kind, NormalVariables) else (lambda h: (h > 0.5).to(h))
        assert_mean((sharp(group.h) - sharp(prior.h)).flatten(1), group.mean_shift()[0])


@pytest.mark.parametrize("smoothing", [SpikeExponential(5.0), SpikeGaussian(3.0)])
def test_bits_refuse_an_atom_and_normals_do_not_care(smoothing: Any) -> None:
    with pytest.raises(InputError, match="atom"):
        BernoulliVariables().distribution(maps(1, 2, 1, 1), smoothing)
    NormalVariables().distribution(maps(1, 2, 1, 1), smoothing)


def test_whether_draws_carry_gradients() -> None:
    for kind, smoothing, expected in (
        (NormalVariables(), hard, True),
        (BernoulliVariables(), hard, False),
        (BernoulliVariables(), OverlappingExponential(5.0), True),
        (BernoulliVariables(), Concrete(0.5), True),
    ):
        assert kind.reparameterised(smoothing) == expected
        assert kind.distribution(maps(1, 2, 1, 1), smoothing).has_rsample == expected


# --- traces -----------------------------------------------------------------------------------------------------------


def trace(*kinds: LocalVariables, smoothing: Any = None) -> Trace:
    smoothing = smoothing or OverlappingExponential(5.0)
    bits = smoothing(maps(3, 2))
    posterior = Posterior((bits,), (bits.relaxed_sample(),))
    groups = tuple(group_of(k, maps(3, 2, 1, 1), maps(3, 2, 1, 1), smoothing) for k in kinds)
    return Trace(posterior, torch.distributions.Independent(torch.distributions.Bernoulli(torch.rand(3, 4)), 1), groups)


def test_a_trace_lists_its_groups_divergences_and_sums_their_ratios() -> None:
    made = trace(NormalVariables(), BernoulliVariables(), NormalVariables())
    terms = made.local_kl_terms()
    assert terms.shape == (3, 3)
    for j, group in enumerate(made.local):
        assert torch.equal(terms[:, j], group.kl())
    torch.testing.assert_close(made.local_log_ratio(), sum(group.log_ratio() for group in made.local))


def test_a_trace_without_local_groups_has_none_of_their_terms() -> None:
    made = trace()
    assert made.local_kl_terms().shape == (3, 0)
    assert made.local_log_ratio().tolist() == [0.0] * 3
    assert made.reparameterised


def test_a_trace_is_reparameterised_when_all_of_it_is() -> None:
    assert trace(NormalVariables(), BernoulliVariables()).reparameterised
    assert not trace(NormalVariables(), smoothing=hard).reparameterised
    assert not trace(BernoulliVariables(), smoothing=hard).reparameterised


# --- normal global variables ------------------------------------------------------------------------------------------


def normal_posterior() -> NormalPosterior:
    groups = tuple(normal(maps(4, size), 0.5 * maps(4, size)) for size in (2, 3))
    return NormalPosterior(groups, tuple(group.rsample() for group in groups))


def test_a_normal_posterior_lays_its_groups_side_by_side() -> None:
    q = normal_posterior()
    assert q.sizes == (2, 3)
    assert torch.equal(q.zeta, torch.cat(q.zetas, 1))
    assert q.zeta.shape == q.mu.shape == (4, 5)
    mean, sd = (torch.cat([getattr(g, n) for g in q.groups], 1).numpy() for n in ("mean", "stddev"))
    expected = stats.norm.logpdf(q.zeta.numpy(), mean, sd).sum(1)
    torch.testing.assert_close(q.log_prob(), torch.from_numpy(expected))


def test_the_normal_priors_terms_are_integrals_and_its_density_scipys() -> None:
    prior, q = NormalPrior(5).double(), normal_posterior()
    terms = prior.kl_terms(q)
    assert terms.shape == (4, 2)
    for example, k in itertools.product(range(4), range(2)):
        total = 0.0
        for mean, sd in zip(q.groups[k].mean[example].tolist(), q.groups[k].stddev[example].tolist(), strict=True):
            z, weight = gauss_legendre(mean - 12 * sd, mean + 12 * sd)
            density = stats.norm.pdf(z.numpy(), mean, sd)
            ratio = stats.norm.logpdf(z.numpy(), mean, sd) - stats.norm.logpdf(z.numpy())
            total += float(np.sum(weight.numpy() * density * ratio))
        assert float(terms[example, k]) == pytest.approx(total, abs=1e-9)
    torch.testing.assert_close(prior.kl(q), terms.sum(1))
    z = 2 * maps(6, 5)
    for smoothing in (hard, OverlappingExponential(5.0)):
        torch.testing.assert_close(prior.log_prob(z, smoothing), torch.from_numpy(stats.norm.logpdf(z.numpy()).sum(1)))


def test_the_normal_prior_samples_standard_normals_and_is_normalised() -> None:
    prior = NormalPrior(3)
    drawn = prior.sample(20_000)
    assert drawn.shape == (20_000, 3)
    assert drawn.dtype == torch.float32
    assert stats.kstest(drawn.flatten().numpy(), "norm").pvalue > 1e-6
    assert_mean(drawn[:, :1] * drawn[:, 1:], 0.0)
    assert prior.estimate_log_partition().value == 0
    assert prior.log_partition_is_current
    assert not list(prior.parameters())


@pytest.mark.parametrize("variables", [0, -1, True])
def test_a_normal_prior_of_no_whole_number_is_refused(variables: Any) -> None:
    with pytest.raises(InputError, match="whole number of at least 1"):
        NormalPrior(variables)


def encoder(*sizes: int, sd: float = 0.6) -> NormalEncoder:
    starts = [4 + sum(sizes[:k]) for k in range(len(sizes))]
    levels = [
        nn.Sequential(nn.Linear(s, 6), nn.Tanh(), nn.Linear(6, 2 * n)) for s, n in zip(starts, sizes, strict=True)
    ]
    made: NormalEncoder = randomise(NormalEncoder(*levels), sd)
    return made


def test_a_normal_group_sees_x_and_the_earlier_draws_as_they_are() -> None:
    made, x = encoder(2, 1, 3), maps(5, 4).requires_grad_()
    q = made(x, hard)
    assert q.sizes == (2, 1, 3)
    for k, group in enumerate(q.groups):
        for law in (group.mean, group.stddev):
            assert bool(torch.autograd.grad(law.sum(), x, retain_graph=True)[0].any())
            for j, z in enumerate(q.zetas):
                (slope,) = torch.autograd.grad(law.sum(), z, retain_graph=True, allow_unused=True)
                assert (slope is not None and bool(slope.any())) == (j < k)
    # What was drawn is what the next level was given.
    again = made.levels[1](torch.cat([x, q.zetas[0]], 1))
    torch.testing.assert_close(q.groups[1].mean, again[:, :1])


def test_the_code_of_normals_is_their_means_given_means() -> None:
    made, x = encoder(2, 1), maps(5, 4)
    code = made.code(x)
    first = made.levels[0](x)[:, :2]
    torch.testing.assert_close(code, torch.cat([first, made.levels[1](torch.cat([x, first], 1))[:, :1]], 1))


def test_an_encoder_without_levels_is_refused() -> None:
    with pytest.raises(InputError, match="at least one level"):
        NormalEncoder()


def test_a_feed_forward_model_of_normals_has_the_exact_likelihood_and_bounds_below_it() -> None:
    """Two normal variables, integrated over; with them the joint bound has the marginal one's mean."""
    decoder = randomise(nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 4)), 0.8)
    model = FeedForwardVAE(encoder(1, 1, sd=0.2), NormalPrior(2).double(), decoder, OverlappingExponential(5.0))
    x = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    nodes, weights = gauss_legendre(-8.0, 8.0, 10, 8)
    z = torch.cartesian_prod(nodes, nodes)
    mass = torch.cartesian_prod(weights, weights).prod(1) * torch.from_numpy(stats.norm.pdf(z.numpy()).prod(1))
    n = 10_000
    with torch.no_grad():
        exact = torch.stack([(mass * model.decode(z).log_prob(image).exp()).sum() for image in x]).log()
        for smoothing in (hard, OverlappingExponential(3.0)):
            weight = log_weight(model, x, smoothing, n).view(2, n).T
            assert_mean((weight - exact).exp(), 1.0)
        joint, marginal = (f(model, x.repeat_interleave(n, 0)).view(2, n).T for f in (joint_elbo, marginal_elbo))
    assert bool((joint.mean(0) < exact).all())
    error = (joint.var(0) / n + marginal.var(0) / n) ** 0.5
    assert bool(((joint.mean(0) - marginal.mean(0)).abs() < 5 * error).all())


def test_bits_and_normals_are_not_mixed_up() -> None:
    decoder, smoothing = nn.Linear(2, 4), OverlappingExponential(5.0)
    bits, normals = HierarchicalEncoder(nn.Linear(4, 2)), NormalEncoder(nn.Linear(4, 4))
    for encoder, prior in ((bits, NormalPrior(2)), (normals, BernoulliPrior(2))):
        with pytest.raises(InputError, match="are not of one kind"):
            FeedForwardVAE(encoder, prior, decoder, smoothing)
    with pytest.raises(InputError, match="this NormalPrior has 3 bits"):
        joint_elbo(FeedForwardVAE(normals, NormalPrior(3), decoder, smoothing), torch.zeros(1, 4))
