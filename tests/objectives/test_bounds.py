"""Every bound against an exact twin: tables of all states, quadrature over zeta, plain ancestral definitions."""

import itertools
import math

import numpy as np
import pytest
import torch
from registry import (
    PIXELS,
    Objective,
    SmoothingCase,
    all_states,
    assert_mean,
    case_model,
    directed,
    every_objective,
    every_prior,
    exact_log_likelihood,
    exact_log_q,
    exponential,
    flat_gradient,
    gauss_legendre,
    images,
    log_bernoulli,
    log_pixels,
    log_prior,
    logistic,
    machine,
    randomise,
    tiny_model,
)
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.models.encoders import HierarchicalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.objectives.bounds import joint_elbo, marginal_elbo
from dvaepp.objectives.importance import importance_weighted, log_weight
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.priors.directed import BernoulliPrior, DirectedPrior
from dvaepp.smoothings.binary import hard

EXPONENTIAL, LOGISTIC = exponential(6.0), logistic(6.0)
exact_cases = [name for name in every_prior if name != "rbm-chains"]
exactly = pytest.mark.parametrize("name", exact_cases)


def entries(module: nn.Module) -> list[Tensor]:
    return list(module.parameters())


# --- twins of the binary model: tables of 64 states -------------------------------------------------------------------


def table(model: FeedForwardVAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x, z) and log q(z | x) of every state, (batch, states)."""
    z = all_states(6)
    log_p = log_prior(model.prior, z, z) + torch.stack([log_pixels(model, z, row.expand(64, -1)) for row in x])
    return log_p, exact_log_q(model, x)


def exact_importance_weighted(model: FeedForwardVAE, x: Tensor, num_samples: int) -> Tensor:
    """E[log mean w] over every tuple of states, with the gradient of the bound for decoder and prior."""
    log_p, log_q = table(model, x)
    log_w, log_q = log_p - log_q.detach(), log_q.detach()
    values = []
    for row_w, row_q in zip(log_w, log_q, strict=True):
        tuples = torch.cartesian_prod(*[torch.arange(64)] * num_samples).view(-1, num_samples)
        bound = torch.logsumexp(row_w[tuples], 1) - math.log(num_samples)
        values.append((row_q[tuples].sum(1).exp() * bound).sum())
    return torch.stack(values)


@pytest.mark.parametrize("name", list(every_prior))
def test_importance_weighting_tends_to_the_enumerated_likelihood(name: str) -> None:
    model, x = case_model(name), images()
    log_p, log_q = table(model, x)
    exact = exact_log_likelihood(model, x)
    torch.testing.assert_close(exact, torch.logsumexp(log_p, 1), rtol=1e-9, atol=1e-9)
    many = 40_000
    with torch.no_grad():
        found = importance_weighted(model, x, many)
    # The variance of log mean w is that of w / (K p(x)^2), known exactly from the table.
    spread = (torch.logsumexp(2 * log_p - log_q, 1) - 2 * exact).exp() - 1
    assert bool(((found - exact).abs() < 5 * (spread / many).sqrt()).all())


@pytest.mark.parametrize("name", list(every_prior))
@pytest.mark.parametrize("num_samples", [1, 2])
def test_importance_weighted_is_the_mean_over_all_tuples_of_states(name: str, num_samples: int) -> None:
    model, x = case_model(name), images()
    with torch.no_grad():
        found = importance_weighted(model, x.repeat(20_000, 1), num_samples).view(-1, 2)
    assert_mean(found, exact_importance_weighted(model, x, num_samples))


@pytest.mark.parametrize("num_samples", [3, 10])
@pytest.mark.parametrize("name", ["directed-2", "rbm-2-groups"])
def test_importance_weighted_of_more_samples_is_the_mean_over_drawn_tuples(name: str, num_samples: int) -> None:
    model, x = case_model(name), images()
    log_p, log_q = (v.detach() for v in table(model, x))
    index = torch.multinomial(log_q.exp(), 200_000 * num_samples, replacement=True)
    drawn = torch.logsumexp((log_p - log_q).gather(1, index).view(2, -1, num_samples), 2) - math.log(num_samples)
    with torch.no_grad():
        found = importance_weighted(model, x.repeat(20_000, 1), num_samples).view(-1, 2)
    twin = drawn.mean(1)
    error = drawn.std(1) / math.sqrt(200_000)
    assert bool(((found.mean(0) - twin).abs() < 5 * (error**2 + found.var(0) / len(found)).sqrt()).all())
    assert bool((found.mean(0) < exact_log_likelihood(model, x)).all())


@pytest.mark.parametrize("name", ["bernoulli", "directed-2", "directed-3", "rbm-2-groups", "three-blocks"])
@pytest.mark.parametrize("num_samples", [1, 2])
def test_importance_weighted_trains_decoder_and_prior_exactly_and_the_encoder_not(name: str, num_samples: int) -> None:
    model, x = case_model(name), images()
    trained = [*entries(model.decoder), *entries(model.prior)]
    exact = flat_gradient(exact_importance_weighted(model, x, num_samples).sum(), trained)
    rows = [importance_weighted(model, x.repeat(400, 1), num_samples).sum() / 400 for _ in range(100)]
    assert_mean(torch.stack([flat_gradient(row, trained) for row in rows]), exact, sigmas=5.5)  # of 100 batches
    assert float(flat_gradient(rows[0], entries(model.encoder)).abs().max()) == 0


def test_log_weight_of_the_binary_model_is_the_table_entry_of_the_state_drawn() -> None:
    model, x = case_model("rbm-2-groups", hard), images().repeat(100, 1)
    log_p, log_q = table(model, images())
    torch.manual_seed(3)
    q = model(x, hard).posterior
    torch.manual_seed(3)
    found = log_weight(model, x, hard)
    index = (q.zeta @ (2.0 ** torch.arange(5, -1, -1, dtype=torch.float64))).long()
    row = torch.arange(200) % 2
    torch.testing.assert_close(found, (log_p - log_q)[row, index], rtol=1e-7, atol=1e-7)


# --- twins of the smoothed model: quadrature over zeta, one bit a group -----------------------------------------------

POINTS, WEIGHTS = gauss_legendre(0, 1, 2, 20)


def small_prior(kind: str) -> BernoulliPrior | DirectedPrior | BoltzmannPrior:
    if kind == "bernoulli":
        return randomise(BernoulliPrior(2), 0.8)
    if kind == "directed":
        return directed(1, 1)
    return BoltzmannPrior(machine(1, 1, sd=1.5))


small_cases = [("bernoulli", (2,)), ("directed", (1, 1)), ("rbm", (2,)), ("rbm", (1, 1))]
smallest = pytest.mark.parametrize(("kind", "groups"), small_cases, ids=str)


class Quadrature:
    """The smoothed model over two bits, on a grid of zeta: densities by definition, integrals by Gauss-Legendre."""

    def __init__(self, kind: str, groups: tuple[int, ...]) -> None:
        self.model = tiny_model(small_prior(kind), groups, EXPONENTIAL.smoothing)
        self.zeta = torch.cartesian_prod(POINTS, POINTS)
        self.weight = torch.cartesian_prod(WEIGHTS, WEIGHTS).prod(1)
        pdf1, pdf0 = EXPONENTIAL.pdf(self.zeta, 1), EXPONENTIAL.pdf(self.zeta, 0)
        self.log_r = torch.stack([torch.where(z > 0.5, pdf1, pdf0).log().sum(1) for z in all_states(2)])

    def tables(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log q(z | zeta_<, x) and log p(z | zeta_<), (states, points), and log p(x | zeta), (points,); x one image."""
        logits, start = [], 0
        pixels = x.expand(len(self.zeta), -1)
        for level in self.model.encoder.levels:
            logits.append(level(torch.cat([pixels, self.zeta[:, :start]], 1)))
            start += logits[-1].shape[1]
        z = all_states(2)[:, None, :].expand(-1, len(self.zeta), -1)
        log_q = log_bernoulli(torch.cat(logits, 1).expand(4, -1, -1), z)
        log_p = log_prior(self.model.prior, z, self.zeta.expand(4, -1, -1))
        return log_q, log_p, log_pixels(self.model, self.zeta, pixels)

    def joint(self, x: Tensor, kl_weight: float = 1.0) -> Tensor:
        """sum_z integral q(z, zeta | x) [log p(x | zeta) + log p(z) - log q(z)]; r(zeta | z) cancels."""
        values = []
        for row in x:
            log_q, log_p, log_x = self.tables(row)
            mass = (log_q + self.log_r).exp() * self.weight
            values.append((mass * (log_x + kl_weight * (log_p - log_q))).sum())
        return torch.stack(values)

    def marginal_weights(self, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q(zeta | x) times the quadrature weight, log p(zeta) - log q(zeta | x), and log p(x | zeta)."""
        log_q, log_p, log_x = self.tables(row)
        log_q_zeta = torch.logsumexp(log_q + self.log_r, 0)
        log_p_zeta = torch.logsumexp(log_p + self.log_r, 0)
        return log_q_zeta.exp() * self.weight, log_p_zeta - log_q_zeta, log_x

    def marginal(self, x: Tensor, kl_weight: float = 1.0) -> Tensor:
        """integral q(zeta | x) [log p(x | zeta) + log p(zeta) - log q(zeta | x)]."""
        parts = [self.marginal_weights(row) for row in x]
        return torch.stack([(mass * (log_x + kl_weight * log_ratio)).sum() for mass, log_ratio, log_x in parts])

    def importance_weighted_2(self, x: Tensor) -> Tensor:
        """The double integral of log of the mean of two weights."""
        values = []
        for row in x:
            mass, log_ratio, log_x = self.marginal_weights(row)
            log_w = log_x + log_ratio
            pairs = torch.logaddexp(log_w[:, None], log_w[None, :]) - math.log(2)
            values.append(mass @ pairs @ mass)
        return torch.stack(values)

    def log_likelihood(self, x: Tensor) -> Tensor:
        """log p(x) of the smoothed model."""
        values = []
        for row in x:
            _, log_p, log_x = self.tables(row)
            values.append(((log_p + self.log_r).exp() * self.weight * log_x.exp()).sum().log())
        return torch.stack(values)


def assert_bound(model: FeedForwardVAE, objective: Objective, exact: Tensor, batches: int = 100) -> None:
    """Value and whole gradient of the objective are those of its exact twin for two images."""
    x, parameters = images().repeat(600, 1), entries(model)
    bounds = [objective(model, x) for _ in range(batches)]
    values = torch.stack([bound.view(-1, 2).mean(0) for bound in bounds])
    assert_mean(values, exact, sigmas=5.5)  # of 100 batches: Student's tails
    gradients = torch.stack([flat_gradient(bound.sum() / 600, parameters) for bound in bounds])
    assert_mean(gradients, flat_gradient(exact.sum(), parameters), sigmas=5.5)


@smallest
def test_the_quadrature_is_accurate_and_orders_the_bounds(kind: str, groups: tuple[int, ...]) -> None:
    twin, x = Quadrature(kind, groups), images()
    mass, _, _ = twin.marginal_weights(x[0])
    assert float(mass.sum().detach()) == pytest.approx(1, abs=1e-12)
    bounds = twin.joint(x), twin.marginal(x), twin.importance_weighted_2(x), twin.log_likelihood(x)
    for looser, tighter in itertools.pairwise(bounds):
        assert bool((looser < tighter).all())


@smallest
def test_joint_elbo_is_the_integral_in_value_and_gradient(kind: str, groups: tuple[int, ...]) -> None:
    twin = Quadrature(kind, groups)
    assert_bound(twin.model, joint_elbo, twin.joint(images()))


@smallest
def test_marginal_elbo_is_the_integral_in_value_and_gradient(kind: str, groups: tuple[int, ...]) -> None:
    twin = Quadrature(kind, groups)
    assert_bound(twin.model, marginal_elbo, twin.marginal(images()))


@smallest
def test_soft_importance_weighting_is_the_double_integral_in_value_and_gradient(
    kind: str, groups: tuple[int, ...]
) -> None:
    twin = Quadrature(kind, groups)

    def one(model: FeedForwardVAE, x: Tensor) -> Tensor:
        return importance_weighted(model, x, 1, EXPONENTIAL.smoothing)

    def two(model: FeedForwardVAE, x: Tensor) -> Tensor:
        return importance_weighted(model, x, 2, EXPONENTIAL.smoothing)

    assert_bound(twin.model, one, twin.marginal(images()))
    assert_bound(twin.model, two, twin.importance_weighted_2(images()))


@pytest.mark.parametrize("kl_weight", [0.0, 0.3])
def test_kl_weight_scales_the_whole_divergence(kl_weight: float) -> None:
    twin = Quadrature("rbm", (1, 1))
    assert_bound(twin.model, lambda m, x: joint_elbo(m, x, kl_weight), twin.joint(images(), kl_weight))
    assert_bound(twin.model, lambda m, x: marginal_elbo(m, x, kl_weight), twin.marginal(images(), kl_weight))


# --- twins of the smoothed model: ancestral draws, six bits -----------------------------------------------------------


class Ancestral:
    """Draws of (z, zeta) ~ q(z, zeta | x) by definition, bits first, and what the bounds average over them."""

    def __init__(self, model: FeedForwardVAE, smoothing: SmoothingCase, seed: int = 0) -> None:
        self.model, self.smoothing = model, smoothing
        self.upsampler = np.random.default_rng(seed)

    def draw(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z, zeta, the logits of q and log q(z | x, zeta_<)."""
        zs, zetas, logits = [], [], []
        for level in self.model.encoder.levels:
            logits.append(level(torch.cat([x, *zetas], 1)))
            with torch.no_grad():
                uniform = torch.from_numpy(self.upsampler.uniform(size=tuple(logits[-1].shape)))
                zs.append((uniform < torch.sigmoid(logits[-1])).double())
                zetas.append(self.smoothing.component_sample(zs[-1], self.upsampler))
        z, zeta, logit = torch.cat(zs, 1), torch.cat(zetas, 1), torch.cat(logits, 1)
        return z, zeta, logit, log_bernoulli(logit, z)

    def joint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x | zeta) + log p(z) - log q(z), and the log-probability of the draw."""
        z, zeta, _, log_q = self.draw(x)
        log_p = log_prior(self.model.prior, z, zeta)
        return log_pixels(self.model, zeta, x) + log_p - log_q, log_q

    def marginal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x | zeta) + log p(zeta) - log q(zeta), bits summed out by enumeration."""
        _, zeta, logits, log_q = self.draw(x)
        states = all_states(6)[:, None, :].expand(-1, len(x), -1)
        r1, r0 = self.smoothing.pdf(zeta, 1), self.smoothing.pdf(zeta, 0)
        log_r = torch.where(states > 0.5, r1, r0).log().sum(-1)
        log_q_zeta = torch.logsumexp(log_bernoulli(logits.expand(64, -1, -1), states) + log_r, 0)
        log_p_zeta = torch.logsumexp(log_prior(self.model.prior, states, zeta.expand(64, -1, -1)) + log_r, 0)
        return log_pixels(self.model, zeta, x) + log_p_zeta - log_q_zeta, log_q


def score_function(value: Tensor, log_q: Tensor) -> Tensor:
    """A scalar per image whose gradient is that of the mean of value, by the score of the draw's probability."""
    baseline = value.detach().view(-1, 2).mean(0).repeat(len(value) // 2)
    return ((value.detach() - baseline) * log_q + value).sum() / (len(value) // 2)


def assert_same_means(found: Tensor, twin: Tensor, sigmas: float) -> None:
    variance = found.var(0) / len(found) + twin.var(0) / len(twin)
    worst = ((found.mean(0) - twin.mean(0)).abs() / (variance.sqrt() + 1e-12)).max()
    assert worst < sigmas, f"{float(worst):.1f} standard errors apart"


def compare_with_ancestral(
    objective: Objective, twin: str, name: str, smoothing: SmoothingCase, rows: int, batches: int
) -> None:
    model = case_model(name, smoothing.smoothing)
    ancestral, x, parameters = Ancestral(model, smoothing), images().repeat(rows, 1), entries(model)
    values, gradients, twin_values, twin_gradients = [], [], [], []
    for _ in range(batches):
        bound = objective(model, x)
        values.append(bound.detach().view(-1, 2))
        gradients.append(flat_gradient(bound.sum() / rows, parameters))
        plain, log_q = getattr(ancestral, twin)(x)
        twin_values.append(plain.detach().view(-1, 2))
        twin_gradients.append(flat_gradient(score_function(plain, log_q), parameters))
    assert_same_means(torch.cat(values), torch.cat(twin_values), 5.0)
    assert_same_means(torch.stack(gradients), torch.stack(twin_gradients), 6.0)  # of 60 batches: Student's tails


@exactly
def test_joint_elbo_is_its_ancestral_definition_with_the_score_function_gradient(name: str) -> None:
    compare_with_ancestral(joint_elbo, "joint", name, EXPONENTIAL, 2000, 60)


@pytest.mark.parametrize("name", ["bernoulli", "directed-3", "rbm-4-groups"])
def test_joint_elbo_with_logistic_smoothing_is_its_ancestral_definition(name: str) -> None:
    compare_with_ancestral(joint_elbo, "joint", name, LOGISTIC, 2000, 60)


@pytest.mark.parametrize("name", ["bernoulli", "directed-2", "directed-3", "rbm-1-group", "rbm-2-groups-across"])
def test_marginal_elbo_is_its_ancestral_definition_with_the_score_function_gradient(name: str) -> None:
    compare_with_ancestral(marginal_elbo, "marginal", name, EXPONENTIAL, 400, 60)


def test_joint_elbo_of_a_large_machine_is_that_of_the_enumerated_one() -> None:
    chains, exact = case_model("rbm-chains"), case_model("rbm-2-groups")
    torch.manual_seed(1)
    found = joint_elbo(chains, images())
    torch.manual_seed(1)
    torch.testing.assert_close(found, joint_elbo(exact, images()), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num_samples", [1, 3])
def test_soft_importance_weighting_of_a_large_machine_takes_joint_weights(num_samples: int) -> None:
    model, x = case_model("rbm-chains"), images().repeat(20_000, 1)
    found = importance_weighted(model, x, num_samples, EXPONENTIAL.smoothing)
    assert not found.requires_grad
    ancestral = Ancestral(model, EXPONENTIAL)
    with torch.no_grad():
        weights = torch.stack([ancestral.joint(x)[0] for _ in range(num_samples)])
    twin = torch.logsumexp(weights, 0) - math.log(num_samples)
    assert_same_means(found.view(-1, 2), twin.view(-1, 2), 5.0)


# --- the gap of Appendix D --------------------------------------------------------------------------------------------


class Constant(nn.Module):
    """Logits that depend on nothing."""

    def __init__(self, value: float, size: int) -> None:
        super().__init__()
        self.value, self.size = value, size

    def forward(self, x: Tensor) -> Tensor:
        return x.new_full((*x.shape[:-1], self.size), self.value)


@pytest.mark.parametrize(
    ("q", "p", "beta", "gap"),
    [(0.9, 0.3, 5.0, 0.193962), (0.6, 0.5, 8.0, 0.001136), (0.99, 0.2, 12.0, 0.013854), (0.9, 0.3, 40.0, 0.0)],
)
def test_the_marginal_bound_is_tighter_by_the_gap_of_appendix_d(q: float, p: float, beta: float, gap: float) -> None:
    prior = BernoulliPrior(1).double()
    prior.bias.data.fill_(math.log(p / (1 - p)))
    encoder = HierarchicalEncoder(Constant(math.log(q / (1 - q)), 1))
    model = FeedForwardVAE(encoder, prior, Constant(0.0, PIXELS), exponential(beta).smoothing)
    x = images()[:1].expand(400_000, -1)
    with torch.no_grad():
        difference = marginal_elbo(model, x) - joint_elbo(model, x)  # the decoder ignores zeta: its term cancels
    assert abs(float(difference.mean()) - gap) < 5 * float(difference.std()) / math.sqrt(len(x)) + 1e-6


# --- the contract of every objective ----------------------------------------------------------------------------------


@pytest.fixture(params=every_objective.values(), ids=every_objective.keys())
def objective(request: pytest.FixtureRequest) -> Objective:
    return request.param


@pytest.mark.parametrize("name", ["bernoulli", "directed-2", "rbm-4-groups"])
def test_an_objective_is_one_finite_number_an_example(objective: Objective, name: str) -> None:
    model = case_model(name)
    for batch in (1, 2, 5):
        bound = objective(model, images()[:1].expand(batch, -1))
        assert bound.shape == (batch,)
        assert bound.dtype == torch.float64
        assert bool(bound.isfinite().all())


def test_examples_do_not_mix(objective: Objective) -> None:
    model = case_model("rbm-2-groups")
    pixels = images().requires_grad_()
    gradient = torch.autograd.grad(objective(model, pixels.clone())[0], pixels, allow_unused=True)[0]
    assert gradient is None or float(gradient[1].abs().max()) == 0


def test_an_objective_averages_to_no_more_than_its_model_s_likelihood(objective: Objective) -> None:
    twin, x = Quadrature("rbm", (1, 1)), images()
    with torch.no_grad():
        bound = objective(twin.model, x.repeat(5000, 1)).view(-1, 2)
        smooth = twin.log_likelihood(x)
        z = all_states(2)
        log_p = log_prior(twin.model.prior, z, z)
        binary = torch.stack([torch.logsumexp(log_p + log_pixels(twin.model, z, row.expand(4, -1)), 0) for row in x])
        ceiling = torch.maximum(smooth, binary)
    assert bool((bound.mean(0) < ceiling + 5 * bound.std(0) / math.sqrt(len(bound)) + 0.02).all())


@pytest.mark.parametrize("name", list(every_prior))
@pytest.mark.parametrize("bound", [joint_elbo, marginal_elbo])
def test_every_parameter_is_trained(name: str, bound: Objective) -> None:
    model = case_model(name)
    if bound is marginal_elbo and name == "rbm-chains":
        with pytest.raises(InputError, match="joint_elbo"):
            bound(model, images())
        return
    bound(model, images().repeat(20, 1)).sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert float(parameter.grad.abs().max()) > 0, parameter_name


def test_objectives_are_reproducible_from_the_seed(objective: Objective) -> None:
    model = case_model("rbm-chains" if objective is joint_elbo else "directed-2")
    torch.manual_seed(9)
    first = objective(model, images())
    torch.manual_seed(9)
    torch.testing.assert_close(objective(model, images()), first, rtol=0, atol=0)


def test_num_samples_must_be_positive() -> None:
    with pytest.raises(InputError, match="num_samples"):
        importance_weighted(case_model("bernoulli"), images(), 0)


def test_x_that_is_no_batch_of_pixels_or_no_bits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    model = case_model("bernoulli")
    for x in (images()[0], images()[None], images().long()):
        with pytest.raises(InputError, match="batch, pixels"):
            joint_elbo(model, x)
    for value in (0.5, math.nan):
        with pytest.raises(ValueError, match=r"support|NaN|nan|invalid"):
            joint_elbo(model, torch.full_like(images(), value))


def test_the_soft_default_of_a_model_is_its_own_smoothing_and_may_be_replaced() -> None:
    model = case_model("bernoulli")
    assert 0 < float(model(images()).posterior.zeta.detach().max()) < 1
    model.smoothing = hard
    assert set(model(images()).posterior.zeta.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("name", ["bernoulli", "directed-2", "rbm-2-groups"])
def test_generated_pixels_have_the_marginals_of_the_binary_model(name: str) -> None:
    model, z = case_model(name), all_states(6)
    p = log_prior(model.prior, z, z).detach().exp()
    assert_mean(model.generate(40_000), p @ torch.sigmoid(model.decoder(z)).detach())


# --- extreme values ---------------------------------------------------------------------------------------------------


class Extreme(nn.Module):
    """Logits of -60 or 60 at every output, still depending on the input."""

    def __init__(self, inputs: int, signs: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(len(signs), inputs))
        self.bias = nn.Parameter(60 * torch.tensor(signs))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


def extreme_model(kind: str, smoothing: SmoothingCase, sign: float, decoder_sign: float) -> FeedForwardVAE:
    encoder = HierarchicalEncoder(Extreme(PIXELS, [sign, -1.0, 1.0]), Extreme(PIXELS + 3, [1.0, sign, -1.0]))
    decoder = Extreme(6, [decoder_sign, 1.0, -1.0, 1.0])
    prior = DirectedPrior(3, Extreme(3, [-sign, 1.0, 1.0])) if kind == "directed" else BoltzmannPrior(machine(3, 3))
    if kind == "directed":
        prior.first.bias.data.fill_(-60 * sign)
    else:
        with torch.no_grad():
            prior.machine.bias.mul_(60)
            prior.machine.couplings[0].mul_(60)
    return FeedForwardVAE(encoder, prior, decoder, smoothing.smoothing).float()


@pytest.mark.parametrize("kind", ["directed", "rbm"])
@pytest.mark.parametrize("smoothing", [exponential(40.0), logistic(40.0)], ids=["exponential", "logistic"])
@pytest.mark.parametrize(("sign", "decoder_sign"), [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0)])
def test_extreme_logits_give_finite_bounds_and_gradients(
    kind: str, smoothing: SmoothingCase, sign: float, decoder_sign: float
) -> None:
    model = extreme_model(kind, smoothing, sign, decoder_sign)
    x = images().float().repeat(500, 1)
    for objective in (joint_elbo, marginal_elbo, lambda m, v: importance_weighted(m, v, 5)):
        model.zero_grad()
        bound = objective(model, x)
        assert bool(bound.isfinite().all())
        bound.sum().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert gradients
        assert all(bool(g.isfinite().all()) for g in gradients)


def test_float32_bounds_agree_with_float64_at_the_same_draw() -> None:
    for name in ("bernoulli", "directed-3", "rbm-2-groups"):
        model = case_model(name)
        q = model(images()).posterior
        wide = model.decode(q.zeta).log_prob(images()) - model.prior.kl(q)
        narrow_model = case_model(name).float()
        zetas = tuple(z.float() for z in q.zetas)
        groups, seen = [], images().float()
        for level, zeta in zip(narrow_model.encoder.levels, zetas, strict=True):
            groups.append(narrow_model.smoothing(level(seen)))
            seen = torch.cat([seen, zeta], 1)
        narrow_q = type(q)(tuple(groups), zetas)
        narrow = narrow_model.decode(narrow_q.zeta).log_prob(images().float()) - narrow_model.prior.kl(narrow_q)
        torch.testing.assert_close(narrow.double(), wide, rtol=1e-4, atol=1e-4)
