"""Gradients in the encoder's logits: single draws of any objective's, and the true one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from dvaepp.errors import InputError
from dvaepp.estimators.base import Estimator
from dvaepp.estimators.local_expectation import LocalExpectation
from dvaepp.models.base import Model, check_input
from dvaepp.models.encoders import HierarchicalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.objectives.base import Objective
from dvaepp.objectives.elbo import Elbo
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import hard

MOST_ENUMERATED = 12
"""Bits whose states are all summed over for the true gradient."""
_NUMBERS = 2**22
"""About how many numbers one piece of work holds in a layer."""


@dataclass(frozen=True)
class GradientMethod:
    """A way to take the gradient of a bound in the logits: an objective, under a smoothing where it sees one.

    `label` is what it is called. What the objective learns is as it stands, or with `fit` it is fitted first.

    >>> from dvaepp.estimators import ReinMax
    >>> GradientMethod("ReinMax", Elbo().with_estimator(ReinMax())).unbiased
    False
    """

    label: str
    objective: Objective
    smoothing: Smoothing = hard
    fit: bool = False

    @property
    def unbiased(self) -> bool:
        """Whether its mean claims to be the gradient of the bound of bits, E_q[log p(x | z)] - KL."""
        estimator = self.objective.built if isinstance(self.objective, Elbo) else None
        return estimator is not None and estimator.unbiased and estimator.target == Estimator.target


TRUTH = GradientMethod("the true gradient", Elbo().with_estimator(LocalExpectation()))
"""What the true gradient of many bits is the mean of."""


class _Given(nn.Module):
    """An encoder's level whose logits are given, whatever x is."""

    def __init__(self, logits: Float[Tensor, "rows bits"]) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Float[Tensor, "rows pixels"]) -> Float[Tensor, "rows bits"]:
        """The logits."""
        return self.logits


def with_logits(
    model: FeedForwardVAE, logits: Float[Tensor, "rows bits"], smoothing: Smoothing = hard
) -> FeedForwardVAE:
    """The model, its encoder giving these logits, so that they are what a gradient is taken in."""
    return FeedForwardVAE(HierarchicalEncoder(_Given(logits)), model.prior, model.decoder, smoothing, model.likelihood)


def single_group(model: Model, x: Float[Tensor, "batch pixels"]) -> FeedForwardVAE:
    """The model; InputError unless it is feed-forward, of one group of bits, and x of its dtype."""
    if not (isinstance(model, FeedForwardVAE) and isinstance(model.encoder, HierarchicalEncoder)):
        kind = type(model.encoder).__name__ if isinstance(model, FeedForwardVAE) else type(model).__name__
        raise InputError(f"gradients are compared on a FeedForwardVAE of bits, not on one with this {kind}")
    if len(model.encoder.levels) > 1:
        raise InputError(f"gradients are compared on one group of bits, and this model has {len(model.encoder.levels)}")
    check_input(model, "x", x)
    return model


def single_draws(
    model: FeedForwardVAE,
    x: Float[Tensor, "batch pixels"],
    method: GradientMethod,
    draws: int,
    evaluations: float = 1.0,
) -> Float[Tensor, "draws batch bits"]:
    """The gradient in each example's logits that one draw gives, for so many draws, from torch's generator.

    Each example's value is differentiated by itself, nats; examples are repeated along the batch, in pieces whose size
    follows from how often the decoder is evaluated for each.
    """
    code = model.code(x).detach()
    numbers = evaluations * x.shape[1] + method.objective.uniforms(model) * code.shape[1]
    piece = max(1, int(_NUMBERS / (numbers * len(x))))
    return torch.cat([_repeated(model, x, code, method, n) for n in _pieces(draws, piece)])


def _pieces(draws: int, piece: int) -> Iterator[int]:
    return (min(piece, draws - start) for start in range(0, draws, piece))


def _repeated(
    model: FeedForwardVAE,
    x: Float[Tensor, "batch pixels"],
    code: Float[Tensor, "batch bits"],
    method: GradientMethod,
    n: int,
) -> Float[Tensor, "draws batch bits"]:
    logits = code.repeat(n, 1).requires_grad_()
    value = method.objective(with_logits(model, logits, method.smoothing), x.repeat(n, 1)).bound()
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    return gradient.view(n, *code.shape)


def true_gradient(model: FeedForwardVAE, x: Float[Tensor, "batch pixels"], draws: int) -> Float[Tensor, "_ batch bits"]:
    """The gradient of E_q[log p(x | z)] - KL in the logits: exact, one draw, of few bits; else draws whose mean it is.

    The latter are local expectations with the analytic KL (Titias & Lazaro-Gredilla 2015): of all that is unbiased here
    they have the least variance.
    """
    logits = model.code(x).detach().requires_grad_()
    bits = logits.shape[1]
    if bits > MOST_ENUMERATED:
        return single_draws(model, x, TRUTH, draws, 1.0 + bits)
    with torch.no_grad():
        states = ((torch.arange(2**bits)[:, None] >> torch.arange(bits)) & 1).to(logits)
        likelihood = model.decode(states)
        log_joint = torch.stack([likelihood.log_prob(row) for row in x])
        log_joint = log_joint + model.prior.log_prob(states, hard, unnormalised=True)
    log_q = hard(logits[:, None]).log_prob(states).sum(-1)
    (gradient,) = torch.autograd.grad((log_q.exp() * (log_joint - log_q)).sum(), logits)
    return gradient[None]


class Counted:
    """A likelihood that counts how many states it is asked about."""

    def __init__(self, likelihood: Callable[[Tensor], Distribution]) -> None:
        self.likelihood, self.states = likelihood, 0

    def __call__(self, parameters: Float[Tensor, "*batch outputs"]) -> Distribution:
        """The likelihood."""
        self.states += parameters.shape[:-1].numel()
        return self.likelihood(parameters)
