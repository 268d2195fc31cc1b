"""The contract of all estimators, on an f that is no VAE: nonlinear in bits, with parameters, holding the logits."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from registry import FEATURES, all_states, every_estimator, log_bernoulli
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from dvaepp.errors import InputError
from dvaepp.estimators import (
    VIMCO,
    Estimator,
    GumbelRao,
    LearnedEstimator,
    PiecewiseLinear,
    RelaxedBernoulli,
    StraightThroughGumbel,
)

BITS, ROWS = 8, 60_000
names = pytest.mark.parametrize("name", every_estimator)


def made(name: str, bits: int = BITS) -> Estimator:
    return every_estimator[name](bits)


class Example:
    """f(b) = 2 tanh(theta_0 W b) v + a' sin(2 b) + theta_1 b_0 b_3 - log q(b) / 2; theta and logits may have rows."""

    def __init__(self, bits: int = BITS) -> None:
        generator = torch.Generator().manual_seed(3)
        self.bits = bits
        self.w, self.v, self.a, self.logits = (
            torch.randn(shape, generator=generator, dtype=torch.float64)
            for shape in ((bits, 3), (3,), (bits,), (bits,))
        )
        self.theta = torch.tensor([0.7, -1.3], dtype=torch.float64)

    def f(self, theta: Tensor, logits: Tensor) -> Callable[[Tensor], Tensor]:
        def f(b: Tensor) -> Tensor:
            curved = 2 * torch.tanh(theta[..., :1] * ((b - 0.5) @ self.w)) @ self.v + torch.sin(2 * b) @ self.a
            log_q = (
                b * torch.nn.functional.logsigmoid(logits) + (1 - b) * torch.nn.functional.logsigmoid(-logits)
            ).sum(-1)
            return curved - self.a.sum() / 2 + theta[..., 1] * b[..., 0] * b[..., 3] - 0.5 * log_q

        return f

    def leaves(self, rows: int) -> tuple[Tensor, Tensor]:
        return self.theta.repeat(rows, 1).requires_grad_(), self.logits.repeat(rows, 1).requires_grad_()

    def exact(self, samples: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The target and its gradients in theta and logits, by enumeration; of that many draws the bound of VIMCO."""
        theta, logits = self.theta.clone().requires_grad_(), self.logits.clone().requires_grad_()
        states = all_states(self.bits)
        values, log_q = self.f(theta, logits)(states), log_bernoulli(logits, states)
        if samples is not None:
            chosen = torch.tensor(list(itertools.product(range(len(states)), repeat=samples)))
            log_q = log_q[chosen].sum(1)
            values = torch.log(values[chosen].exp().mean(1))
        value = (log_q.exp() * values).sum()
        return value.detach(), *torch.autograd.grad(value, (theta, logits))


def context(rows: int) -> Tensor:
    return torch.linspace(-1, 1, FEATURES, dtype=torch.float64).expand(rows, -1)


def assert_exact(samples: Tensor, exact: Tensor, scale: Tensor) -> None:
    """Within five standard errors, which are small beside the gradient."""
    error = samples.std(0) / math.sqrt(len(samples))
    assert float(error.norm()) < 0.02 * float(scale), f"standard error {float(error.norm())} of {float(scale)}"
    assert float(((samples.mean(0) - exact).abs() / (error + 1e-12)).max()) < 5


@names
def test_value_and_gradient_average_to_enumeration_or_are_labelled_biased(name: str) -> None:
    estimator = made(name)
    example = Example(4 if isinstance(estimator, VIMCO) else BITS)
    estimator = made(name, example.bits)
    value, of_theta, of_logits = example.exact(estimator.draws if estimator.importance else None)
    theta, logits = example.leaves(ROWS * (4 if name in ("reinforce", "nvil") else 1))
    estimate = estimator(example.f(theta, logits), logits, context(len(logits)))
    in_theta, in_logits = torch.autograd.grad(estimate.sum(), (theta, logits))
    if not estimator.relaxed or estimator.target == "E[f(b)]":
        error = estimate.detach().std() / math.sqrt(len(estimate))
        assert abs(float(estimate.detach().mean() - value)) < 5 * float(error)
        assert_exact(in_theta, of_theta, of_theta.norm())
    if estimator.unbiased and estimator.target != "E[f(relaxed b)]":
        assert_exact(in_logits, of_logits, of_logits.norm())
    else:  # against E[f(b)]: what the bias is, and that it is one
        error = (in_logits.std(0) / math.sqrt(len(in_logits))).norm()
        bias = (in_logits.mean(0) - of_logits).norm()
        assert 5 * float(error) < float(bias) < float(of_logits.norm())


@pytest.mark.parametrize("estimator", [RelaxedBernoulli(0.6), RelaxedBernoulli(2.0), PiecewiseLinear(3.0)], ids=repr)
def test_the_target_of_a_relaxation_is_its_own_and_its_bias_for_that_is_known(estimator: Estimator) -> None:
    """One bit, all uniform numbers: the mean over them is an integral, and its slope is taken by differences."""
    noise = ((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000)[None, :, None]

    def mean(logit: Tensor) -> Tensor:
        logits = logit.expand(noise.shape[1], 1)
        return estimator(lambda b: torch.sin(3 * b[..., 0]) + logits[:, 0] * b[..., 0], logits, noise=noise).mean()

    assert estimator.target == "E[f(relaxed b)]"
    for start in (-2.0, 0.3):
        logit = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        gradient = torch.autograd.grad(mean(logit), logit)[0]
        slope = (mean(logit.detach() + 1e-3) - mean(logit.detach() - 1e-3)) / 2e-3
        bias = abs(float(gradient - slope))
        assert bias < 1e-4 if estimator.unbiased else 3e-3 < bias < 0.3


@names
def test_what_an_estimator_says_of_itself_holds(name: str) -> None:
    estimator, example, rows = made(name), Example(), 50
    theta, logits = example.leaves(rows)
    noise, seen = torch.rand(estimator.uniforms, rows, BITS, dtype=torch.float64), []

    def gradient(f: Callable[[Tensor], Tensor]) -> Tensor:
        seen.clear()
        estimate = estimator(f, logits, context(rows), noise=noise)
        return torch.autograd.grad(estimate.sum(), logits)[0]

    def recorded(b: Tensor) -> Tensor:
        seen.append(b.detach())
        return example.f(theta, logits)(b)

    def without_slope(b: Tensor) -> Tensor:
        return example.f(theta, logits)(b.detach())

    whole = gradient(example.f(theta, logits))
    assert torch.equal(whole, gradient(without_slope)) == (not estimator.differentiable)
    if not estimator.tangents:  # what torch.func shows to f has no values that could be looked at
        gradient(recorded)
        corners = all(bool(((b == 0) | (b == 1)).all()) for b in seen)
        assert corners == (not estimator.relaxed)
        at_draws = [b for b in seen if b.shape != (BITS, rows, BITS)]
        assert sum(b[..., 0].numel() for b in at_draws) == estimator.draws * rows
    draws = estimator.sample(logits, noise)
    assert draws.shape == (estimator.draws, rows, BITS)
    mean_at_draws = example.f(theta, logits)(draws).mean(0)
    value = estimator(example.f(theta, logits), logits, context(rows), noise=noise)
    assert torch.allclose(value, mean_at_draws) == (not estimator.importance)


@names
def test_the_loss_is_for_the_estimator_s_own_parameters_and_the_value_for_all_others(name: str) -> None:
    estimator, example = made(name), Example()
    theta, logits = example.leaves(20)
    value, loss = estimator.with_loss(example.f(theta, logits), logits, context(20))
    own = list(estimator.parameters())
    assert value.shape == (20,)
    assert loss.shape == ()
    assert loss.requires_grad == isinstance(estimator, LearnedEstimator) == bool(own)
    if own:
        assert all(float(g.abs().sum()) > 0 for g in torch.autograd.grad(loss, own, retain_graph=True))
        assert all(g is None for g in torch.autograd.grad(value.sum(), own, allow_unused=True))
    else:
        assert float(loss) == 0


@names
def test_without_gradients_there_is_a_value(name: str) -> None:
    estimator, example = made(name), Example()
    theta, logits = example.leaves(20)
    noise = torch.rand(estimator.uniforms, 20, BITS, dtype=torch.float64)
    with torch.no_grad():
        value = estimator(example.f(theta, logits), logits, context(20), noise=noise)
    assert not value.requires_grad
    assert torch.allclose(value, estimator(example.f(theta, logits), logits, context(20), noise=noise))


@names
def test_vmap_over_stacked_replicas_gives_what_each_gives_alone(name: str) -> None:
    replicas, rows = 3, 6
    estimators, example = [made(name) for _ in range(replicas)], Example()
    noise = torch.rand(replicas, estimators[0].uniforms, rows, BITS, dtype=torch.float64)
    theta = torch.randn(replicas, rows, 2, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(replicas, rows, BITS, dtype=torch.float64, requires_grad=True)
    for seed, estimator in enumerate(estimators):
        generator = torch.Generator().manual_seed(seed)
        for parameter in estimator.parameters():
            torch.nn.init.normal_(parameter, std=0.4, generator=generator)

    def called(estimator: Estimator, theta: Tensor, logits: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        return estimator.with_loss(example.f(theta, logits), logits, context(rows), noise=noise)

    class Skeleton(torch.nn.Module):
        def __init__(self, estimator: Estimator) -> None:
            super().__init__()
            self.estimator = estimator

        def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
            return called(self.estimator, *given)

    own, buffers = stack_module_state([Skeleton(estimator) for estimator in estimators])
    own = {key: parameter.detach().requires_grad_() for key, parameter in own.items()}
    skeleton = Skeleton(made(name))
    run = vmap(lambda own, buffers, *given: functional_call(skeleton, (own, buffers), given))
    value, loss = run(own, buffers, theta, logits, noise)
    together = torch.autograd.grad(value.sum(), (theta, logits), retain_graph=True)
    learned = torch.autograd.grad(loss.sum(), list(own.values())) if own else ()
    for replica, estimator in enumerate(estimators):
        alone, alone_loss = called(estimator, theta[replica], logits[replica], noise[replica])
        torch.testing.assert_close(value[replica], alone)
        torch.testing.assert_close(loss[replica], alone_loss)
        for stacked, single in zip(
            together, torch.autograd.grad(alone.sum(), (theta, logits), retain_graph=True), strict=True
        ):
            torch.testing.assert_close(stacked[replica], single[replica])
        if own:
            expected = torch.autograd.grad(alone_loss, list(estimator.parameters()))
            for stacked, single in zip(learned, expected, strict=True):
                torch.testing.assert_close(stacked[replica], single)


@names
def test_no_value_is_read_back(name: str) -> None:
    """The meta device's tensors have shapes and no values."""
    estimator = made(name)
    if isinstance(estimator, LearnedEstimator):
        estimator.to("meta")
    logits = torch.zeros(5, BITS, dtype=torch.float64, device="meta", requires_grad=True)
    value, loss = estimator.with_loss(lambda b: b.square().sum(-1), logits, context(5).to("meta"))
    assert torch.autograd.grad(value.sum(), logits, retain_graph=True)[0].shape == logits.shape
    if loss.requires_grad:
        torch.autograd.grad(loss, list(estimator.parameters()), allow_unused=True)


@names
def test_extreme_logits_stay_finite_in_float32(name: str) -> None:
    estimator = every_estimator[name](3)
    if isinstance(estimator, LearnedEstimator):
        estimator.float()
    logits = torch.tensor([[-60.0, 60.0, 0.0], [60.0, -60.0, 20.0], [-20.0, 1e-3, -60.0]]).repeat(5000, 1)
    noise = torch.rand(estimator.uniforms, *logits.shape)
    noise[:, :9] = torch.tensor([0.0, 1 - 2.0**-24, 0.5]).repeat_interleave(3)[:, None]
    logits.requires_grad_()
    held = logits.detach()

    def f(b: Tensor) -> Tensor:
        return torch.cos(3 * b).sum(-1) + (b * held / 10).sum(-1)

    value, loss = estimator.with_loss(f, logits, context(len(logits)).float(), noise=noise)
    assert bool(value.isfinite().all())
    assert bool(torch.autograd.grad(value.sum(), logits, retain_graph=True)[0].isfinite().all())
    if loss.requires_grad:
        assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(loss, list(estimator.parameters())))


@names
def test_a_certain_bit_has_no_gradient(name: str) -> None:
    """float32, logits of 60 either way: the exact gradient is below 1e-25."""
    estimator = every_estimator[name](2)
    if isinstance(estimator, LearnedEstimator):
        estimator.float()
    logits = torch.tensor([[60.0, -60.0]]).repeat(1000, 1).requires_grad_()
    value = estimator(lambda b: 3 * b[..., 0] - 2 * b[..., 1] + b.sum(-1) ** 2, logits, context(1000).float())
    gradient = torch.autograd.grad(value.sum(), logits)[0]
    assert float(gradient.abs().max()) < (1e-6 if estimator.relaxed or estimator.differentiable else 1e-20)


def test_gumbel_rao_is_the_expectation_of_straight_through_gumbel_given_the_bit() -> None:
    rows, temperature = 200_000, 0.4
    logits = torch.tensor([-1.5, 0.4], dtype=torch.float64).repeat(rows, 1).requires_grad_()
    f = lambda b: 3 * b[..., 0] + b[..., 1]  # noqa: E731
    of_gumbel, of_rao = (
        torch.autograd.grad(estimator(f, logits).sum(), logits)[0]
        for estimator in (StraightThroughGumbel(temperature), GumbelRao(temperature, samples=20))
    )
    error = torch.sqrt((of_gumbel.var(0) + of_rao.var(0)) / rows)
    assert bool(((of_gumbel.mean(0) - of_rao.mean(0)).abs() < 5 * error).all())
    assert bool((of_rao.var(0) < 0.9 * of_gumbel.var(0)).all())


@names
def test_what_does_not_fit_is_refused(name: str) -> None:
    estimator = made(name)
    logits, f = torch.zeros(5, BITS, dtype=torch.float64), lambda b: b.sum(-1)
    for wrong in (torch.zeros(BITS), torch.zeros(5, BITS, dtype=torch.long), torch.zeros(2, 5, BITS)):
        with pytest.raises((InputError, TypeError), match="logits"):
            estimator(f, wrong)
    with pytest.raises((InputError, TypeError), match="precision|logits|float16"):
        estimator(f, logits.half())
    with pytest.raises(InputError, match="noise must be"):
        estimator(f, logits, noise=torch.rand(estimator.uniforms + 1, 5, BITS, dtype=torch.float64))
    with pytest.raises(InputError, match="f must map bits"):
        estimator(lambda b: b, logits, context(5))
