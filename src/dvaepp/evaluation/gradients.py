"""How good gradients are: bias, variance and cost of methods side by side, on one model and one batch (Table 1)."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.evaluation.estimated import Estimated, squared_mean, total_variance
from dvaepp.evaluation.logit_gradients import (
    Counted,
    GradientMethod,
    single_draws,
    single_group,
    true_gradient,
    with_logits,
)
from dvaepp.models.base import Model, evaluation_mode, unchecked
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.numerics import whole
from dvaepp.objectives.elbo import Elbo
from dvaepp.randomness import Purpose, stream_seed

FIT_STEPS = 500
_FIT_RATE = 1e-2
_REPEATS = 9
_KNOWN = 5.0
"""Standard errors within which a number is taken for 0."""

Batches = Callable[[int], Tensor]
"""x of a step."""
Tell = Callable[[int, int, str], None]
"""What is told of how work goes: done, of how many, and what comes next."""


@dataclass(frozen=True)
class Cost:
    """What one draw for each example of the batch costs."""

    evaluations: float
    """States decoded, for each example."""
    milliseconds: float
    """Processor time of one thread for value and gradient in the model's parameters, the median over repeats."""


@dataclass(frozen=True)
class GradientQuality:
    """How one method fares; squares are nats^2, summed over the bits and averaged over the examples."""

    method: GradientMethod
    bias: Estimated
    """|E g - truth|^2, the truth being the gradient of the bound of bits."""
    variance: Estimated
    """E |g - E g|^2 of a single draw g."""
    signal: Estimated
    """|E g|^2."""
    product: float
    """E g . truth."""
    truth: float
    """|truth|^2."""
    cost: Cost

    @property
    def relative_bias(self) -> Estimated:
        """|E g - truth|^2 / |truth|^2; the error is that of the numerator."""
        return self.bias.over(self.truth)

    @property
    def relative_variance(self) -> Estimated:
        """E |g - E g|^2 / |truth|^2."""
        return self.variance.over(self.truth)

    @property
    def signal_to_noise(self) -> float:
        """|E g|^2 / E |g - E g|^2."""
        return max(0.0, self.signal.value) / self.variance.value if self.variance.value else math.inf

    @property
    def cosine(self) -> float | None:
        """E g . truth / (|E g| |truth|), at most 1; None unless |E g|^2 is five standard errors from 0."""
        if self.signal.value <= _KNOWN * self.signal.error:
            return None
        return min(1.0, self.product / math.sqrt(self.signal.value * self.truth))

    @property
    def holds(self) -> bool | None:
        """Whether a method that claims to be unbiased is, within five standard errors; None for one that does not."""
        return self.bias.value < _KNOWN * self.bias.error if self.method.unbiased else None


@dataclass(frozen=True)
class GradientComparison:
    """What `gradient_quality` found, a row for each method, and what the numbers rest on."""

    rows: tuple[GradientQuality, ...]
    truth: Estimated
    """|truth|^2, nats^2, the mean over the examples."""
    truth_noise: float
    """The mean squared error of the truth over |truth|^2; 0 where all states were summed over."""
    examples: int
    draws: int
    seed: int
    fit_steps: int


def gradient_quality(
    model: Model,
    x: Float[Tensor, "batch pixels"],
    methods: Sequence[GradientMethod],
    *,
    draws: int = 500,
    seed: int = 0,
    batches: Batches | None = None,
    fit_steps: int = FIT_STEPS,
    costs: Sequence[Cost] | None = None,
    tell: Tell = lambda done, total, text: None,
) -> GradientComparison:
    """bias^2 = |E g - d ELBO / d logits|^2 and E |g - E g|^2 of each method's single draws g = d value / d logits.

    ELBO = E_q[log p(x | z)] - KL(q(z | x) || p(z)) of bits is what every method's bias is against, also of those that
    have another target: its gradient is exact for at most 12 bits, and else the mean of as many local expectations as
    `draws`, which is allowed for in bias and errors. Gradients are of each example by itself, nats. All methods are
    measured from the same `seed`, so that none depends on the others; the model is in evaluation mode and is not
    moved. A method to be fitted has what it learns trained on `batches(step)` for `fit_steps` steps of Adam, the model
    held. `costs`: those of `gradient_costs`, if they are known.

    InputError for a model that is not feed-forward or has several groups of bits, for fewer than 10 draws, for a method
    to be fitted without batches, and where an objective refuses the model.

    >>> import dvaepp
    >>> encoder, prior = dvaepp.HierarchicalEncoder(dvaepp.dense(12, 4)), dvaepp.BernoulliPrior(4)
    >>> model = dvaepp.FeedForwardVAE(encoder, prior, dvaepp.dense(4, 12), dvaepp.hard)
    >>> methods = [GradientMethod("DisARM", Elbo().with_estimator(dvaepp.estimators.DisARM()))]
    >>> found = gradient_quality(model, torch.zeros(5, 12), methods, draws=100)
    >>> found.rows[0].cost.evaluations, found.rows[0].holds
    (2.0, True)
    """
    vae = single_group(model, x)
    whole("draws", draws, least=10)
    with _measuring(vae):
        fitted = [_fitted(vae, each, batches, fit_steps, seed) if each.fit else each for each in methods]
        if costs is None:
            costs = gradient_costs(vae, x, methods)
        _seeded("true gradients", seed)
        tell(0, len(methods) + 1, "the true gradient")
        truth = true_gradient(vae, x, draws).flatten(1).double() / math.sqrt(len(x))
        rows = []
        for k, (method, cost) in enumerate(zip(fitted, costs, strict=True), 1):
            tell(k, len(methods) + 1, method.label)
            _seeded("gradients", seed)
            found = single_draws(vae, x, method, draws, cost.evaluations).flatten(1).double() / math.sqrt(len(x))
            rows.append(_quality(method, found, truth, cost))
        tell(len(methods) + 1, len(methods) + 1, "")
    return GradientComparison(tuple(rows), *_known(truth), len(x), draws, seed, fit_steps)


def gradient_costs(
    model: Model, x: Float[Tensor, "batch pixels"], methods: Sequence[GradientMethod], repeats: int = _REPEATS
) -> list[Cost]:
    """What each method costs on this batch; repeats are taken in turns, so that other load falls on all of them.

    InputError as `gradient_quality` raises it.
    """
    vae = single_group(model, x)
    with _measuring(vae), _one_thread():
        evaluations = [_evaluations(vae, x, method) for method in methods]
        times = [[_seconds(vae, x, method) for method in methods] for _ in range(repeats)]
    medians = [1000 * statistics.median(each) for each in zip(*times, strict=True)]
    return [Cost(count, median) for count, median in zip(evaluations, medians, strict=True)]


def _quality(
    method: GradientMethod, draws: Float[Tensor, "draws n"], truth: Float[Tensor, "#draws n"], cost: Cost
) -> GradientQuality:
    """The row: a draw and one of the truth make a draw of the bias, all examples' logits lying side by side."""
    product, length = float(draws.mean(0) @ truth.mean(0)), _known(truth)[0].value
    return GradientQuality(
        method, squared_mean(draws - truth), total_variance(draws), squared_mean(draws), product, length, cost
    )


def _known(truth: Float[Tensor, "draws n"]) -> tuple[Estimated, float]:
    """|truth|^2, and the mean squared error of the truth over it; InputError where draws leave it unknown."""
    if len(truth) == 1:
        return Estimated(float(truth.square().sum()), 0.0), 0.0
    length = squared_mean(truth)
    if length.value <= _KNOWN * length.error:
        raise InputError(f"draws={len(truth)} are too few to tell the true gradient from 0: take more")
    return length, total_variance(truth).value / len(truth) / length.value


def _fitted(
    model: FeedForwardVAE, method: GradientMethod, batches: Batches | None, steps: int, seed: int
) -> GradientMethod:
    """The method, what it learns fitted to this model: Adam, whose rate falls to 0, on its own loss."""
    objective = method.objective
    if not (isinstance(objective, Elbo) and isinstance(objective.built, nn.Module)):
        return method
    if batches is None:
        raise InputError(f"{method.label!r} is to be fitted, which needs batches")
    estimator = copy.deepcopy(objective.built).train()
    objective, own = objective.with_estimator(estimator), list(estimator.parameters())
    adam = torch.optim.Adam(own, _FIT_RATE)
    _seeded("fitted estimators", seed)
    for step in range(steps):
        adam.param_groups[0]["lr"] = _FIT_RATE * (1 - step / steps)
        x = batches(step)
        loss = objective.with_loss(with_logits(model, model.code(x).detach()), x)[1]
        for parameter, slope in zip(own, torch.autograd.grad(loss, own), strict=True):
            parameter.grad = slope
        adam.step()
    estimator.eval()
    return replace(method, objective=objective)


def _evaluations(model: FeedForwardVAE, x: Float[Tensor, "batch pixels"], method: GradientMethod) -> float:
    counted = Counted(model.likelihood)
    method.objective(FeedForwardVAE(model.encoder, model.prior, model.decoder, method.smoothing, counted), x)
    return counted.states / len(x)


def _seconds(model: FeedForwardVAE, x: Float[Tensor, "batch pixels"], method: GradientMethod) -> float:
    smoothed = FeedForwardVAE(model.encoder, model.prior, model.decoder, method.smoothing, model.likelihood)
    parameters = [each for each in smoothed.parameters() if each.requires_grad]
    start = time.process_time()
    bound = method.objective(smoothed, x).bound().mean()
    torch.autograd.grad(bound, parameters, allow_unused=True)
    return time.process_time() - start


@contextmanager
def _measuring(model: Model) -> Iterator[None]:
    """In evaluation mode, with gradients, without checks that read values; the caller's random state is kept."""
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), torch.enable_grad(), evaluation_mode(model), unchecked():
        yield


def _seeded(purpose: Purpose, seed: int) -> None:
    torch.manual_seed(stream_seed(purpose, seed))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(threads)
