"""The contract of gradient estimators: of use with any function of bits, with or without a VAE."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.components.registry import Component
from dvaepp.errors import InputError
from dvaepp.numerics import check_counts, check_noise, check_precision, keep_plain

Function = Callable[[Tensor], Tensor]
"""f: bits (*, batch, bits) to floats (*, batch).

It may hold parameters, and the logits themselves. Rows must not mix, and the bits it is given must stay as they are.
"""


class Estimator(ABC):
    """value = f at draws of b ~ Bernoulli(sigmoid(logits)), independent bits; its gradient is that of `target`.

    Called with f, logits (batch, bits) and, where a baseline sees one, context (batch, features) it gives the value
    (batch,), in the unit of f: the mean of f over its draws, or the bound that `target` is. Autograd takes the value's
    gradient in the logits and in all that f holds. `noise` (uniforms, batch, bits), uniform numbers in [0, 1), makes it
    a function that torch.func.vmap maps. The estimators that share b = 1[u < q] take b from the first number.
    InputError for logits that are no (batch, bits) of float32 or float64, noise of another shape, and an f that does
    not give one number for each row.

    >>> from dvaepp.estimators import LeaveOneOut
    >>> logits = torch.zeros(5, 3, requires_grad=True)
    >>> value = LeaveOneOut()(lambda b: (b.sum(-1) - 1) ** 2, logits)  # any Estimator
    >>> value.shape, torch.autograd.grad(value.mean(), logits)[0].shape
    (torch.Size([5]), torch.Size([5, 3]))
    """

    target: ClassVar[str] = "E[f(b)]"
    """What the gradient is of."""
    relaxed: ClassVar[bool] = False
    """f is evaluated off the corners of the cube too."""
    differentiable: ClassVar[bool] = False
    """df / db is taken."""
    tangents: ClassVar[bool] = False
    """df / db is taken inside, by torch.func.vjp: f may change nothing in place, as batch norm that trains does."""
    flips: ClassVar[bool] = False
    """f is evaluated at the flips of its draw too, which batch norm that trains would count."""
    nests: ClassVar[bool] = False
    """f may itself be a random, unbiased estimate: what several groups of bits need."""
    importance: ClassVar[bool] = False
    """exp f are importance weights, so that f must hold all of a bound: a KL cannot stand beside it."""

    @property
    @abstractmethod
    def unbiased(self) -> bool:
        """Whether the gradient's expectation is that of `target`."""

    @property
    @abstractmethod
    def draws(self) -> int:
        """Draws at which f is evaluated; evaluations elsewhere come on top."""

    @property
    @abstractmethod
    def uniforms(self) -> int:
        """How many uniform numbers a call takes for each bit."""

    @abstractmethod
    def estimate(
        self,
        f: Function,
        logits: Float[Tensor, "batch bits"],
        context: Float[Tensor, "batch features"] | None,
        uniform: Float[Tensor, "uniforms batch bits"],
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, ""]]:
        """The value, and the loss of what is learned: `with_loss` without its checks."""

    def __call__(
        self,
        f: Function,
        logits: Float[Tensor, "batch bits"],
        context: Float[Tensor, "batch features"] | None = None,
        *,
        noise: Float[Tensor, "uniforms batch bits"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """The value, with the estimator's gradient; a score or a bound is maximised, a cost minimised by it."""
        return self.with_loss(f, logits, context, noise=noise)[0]

    def with_loss(
        self,
        f: Function,
        logits: Float[Tensor, "batch bits"],
        context: Float[Tensor, "batch features"] | None = None,
        *,
        noise: Float[Tensor, "uniforms batch bits"] | None = None,
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, ""]]:
        """The value, and a loss to minimise in `parameters()` alone: torch.autograd.grad(loss, parameters()).

        0 where nothing is learned. The value's gradient never reaches those parameters, so that its sign is free.
        """
        if not isinstance(logits, Tensor):
            raise InputError(f"logits must be a tensor (batch, bits), not a {type(logits).__name__}")
        if logits.ndim != 2 or not logits.is_floating_point():
            raise InputError(f"logits must be floats of shape (batch, bits), not {logits.dtype} {tuple(logits.shape)}")
        check_precision("logits", logits)
        return self.estimate(f, logits, context, self._uniform(logits, noise))

    def _uniform(
        self, logits: Float[Tensor, "batch bits"], noise: Float[Tensor, "uniforms batch bits"] | None = None
    ) -> Float[Tensor, "uniforms batch bits"]:
        """The uniform numbers of a call: the noise, or fresh ones."""
        shape = (self.uniforms, *logits.shape)
        if noise is None:
            return torch.rand(shape, dtype=logits.dtype, device=logits.device)
        check_noise(noise, shape, logits.dtype)
        return noise

    def sample(
        self, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, "draws batch bits"]:
        """The draws at which f is evaluated."""
        return draw(logits, uniform[: self.draws])

    def parameters(self) -> Iterator[nn.Parameter]:
        """What `with_loss`'s loss is minimised in."""
        return iter(())

    @property
    def plain(self) -> Estimator:
        """The same without anything learned: for a second function of the same draws, which no baseline knows."""
        return self


class EstimatorDesign(Component, ABC):
    """An estimator in plain settings, as recipes name it: `build` makes it for so many bits and data of this mean.

    >>> from dvaepp.estimators import NVILDesign
    >>> NVILDesign().build(bits=4, mean=torch.zeros(12)).draws  # any EstimatorDesign
    1
    """

    kind: ClassVar[str] = "estimator"
    folder: ClassVar[str] = "dvaepp.estimators"

    @property
    @abstractmethod
    def makes(self) -> type[Estimator]:
        """The class of what it builds, which says what that can do."""

    @abstractmethod
    def build(self, bits: int, mean: Float[Tensor, " pixels"]) -> Estimator:
        """The estimator; a baseline's network sees x - mean."""


class PlainEstimator(Estimator, EstimatorDesign):
    """An estimator that learns nothing: a frozen dataclass of plain settings, its own design.

    >>> from dvaepp.estimators import Reinforce
    >>> Reinforce().build(bits=4, mean=torch.zeros(12)) == Reinforce()  # any PlainEstimator
    True
    """

    @abstractmethod
    def value(
        self, f: Function, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, " batch"]:
        """The value, with the estimator's gradient."""

    def estimate(
        self,
        f: Function,
        logits: Float[Tensor, "batch bits"],
        context: Float[Tensor, "batch features"] | None,
        uniform: Float[Tensor, "uniforms batch bits"],
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, ""]]:
        """The value, and 0."""
        return self.value(f, logits, uniform), logits.new_zeros(())

    @property
    def makes(self) -> type[Estimator]:
        """Its own class."""
        return type(self)

    def build(self, bits: int, mean: Float[Tensor, " pixels"]) -> Estimator:
        """Itself."""
        return self


@dataclass(frozen=True)
class SeveralDraws(PlainEstimator):
    """An estimator of K `samples`, at least two, each made of one uniform number for each bit.

    >>> from dvaepp.estimators import LeaveOneOut
    >>> LeaveOneOut(samples=4).draws  # any SeveralDraws
    4
    """

    samples: int = 2

    def __post_init__(self) -> None:
        keep_plain(self)
        check_counts(type(self).__name__, least=2, samples=self.samples)

    @property
    def draws(self) -> int:
        """K."""
        return self.samples

    @property
    def uniforms(self) -> int:
        """K."""
        return self.samples


class LearnedEstimator(nn.Module, Estimator):
    """An estimator with parameters of its own, a module: what it learns lies in its state dict.

    >>> from dvaepp.estimators import NVIL
    >>> estimator = NVIL(context_size=12)  # any LearnedEstimator
    >>> logits, context = torch.zeros(5, 3), torch.zeros(5, 12)
    >>> value, loss = estimator.with_loss(lambda b: b.sum(-1), logits, context)
    >>> len(torch.autograd.grad(loss, list(estimator.parameters())))
    4
    """

    def forward(
        self,
        f: Function,
        logits: Float[Tensor, "batch bits"],
        context: Float[Tensor, "batch features"] | None = None,
        *,
        noise: Float[Tensor, "uniforms batch bits"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """`with_loss`'s value."""
        return self.with_loss(f, logits, context, noise=noise)[0]


def draw(logits: Float[Tensor, "*batch bits"], uniform: Float[Tensor, "*draws bits"]) -> Float[Tensor, "*draws bits"]:
    """b = 1[u < q], q = sigmoid(logits); no gradient."""
    return (uniform < torch.sigmoid(logits)).to(logits.dtype)


def score(logits: Float[Tensor, "*batch bits"], b: Float[Tensor, "*draws bits"]) -> Float[Tensor, "*draws bits"]:
    """d log q(b) / d logits = b - q, without cancellation; no gradient."""
    logits = logits.detach()
    return torch.where(b > 0.5, torch.sigmoid(-logits), -torch.sigmoid(logits))


def evaluate(f: Function, b: Float[Tensor, "*draws bits"]) -> Float[Tensor, "*draws"]:
    """f(b); InputError unless it is one float for each row."""
    value: object = f(b)
    if not (isinstance(value, Tensor) and value.is_floating_point()):
        given = value.dtype if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InputError(f"f must give a tensor of floats, one for each row of bits, not {given}")
    if value.shape != b.shape[:-1]:
        raise InputError(f"f must map bits {tuple(b.shape)} to {tuple(b.shape[:-1])}, not to {tuple(value.shape)}")
    return value


def evaluate_through(f: Function, b: Float[Tensor, "*draws bits"]) -> Float[Tensor, "*draws"]:
    """f(b), of bits that carry a gradient; InputError where f(b) carries none, as this is all that the logits get."""
    value = evaluate(f, b)
    if b.requires_grad and torch.is_grad_enabled() and not value.requires_grad:
        raise InputError("f must be differentiable in b for this estimator, and what it gives has no gradient")
    return value
