"""The contract of smoothing transformations r(zeta | z), and of the distributions q(zeta | x) that they make of logits.

A smoothing is a frozen dataclass of plain numbers. Called with logits (the log odds of z = 1) it gives a
`torch.distributions.Distribution` over zeta.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, constraints

from dvaepp.components.registry import Component
from dvaepp.errors import InputError
from dvaepp.gradients import replace_gradient
from dvaepp.numerics import check_noise, check_precision


class BitDistribution(Distribution, ABC):
    """q(zeta | x) of independent bits z with the given logits, seen through a smoothing; zeta has their shape.

    A draw is a function of the logits and of two uniform numbers in [0, 1) for each entry. Those can be given, `noise`
    of shape (2, *sample_shape, *logits.shape): then it is deterministic, and torch.func.vmap maps it, once torch's
    checks of distribution arguments are off, which read values back. What needs one number takes the first.
    """

    uniforms: ClassVar[int] = 2
    """How many uniform numbers a draw is made of."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"logits": constraints.real}
    logits: Tensor

    def __init__(self, logits: Float[Tensor, "*shape"], validate_args: bool | None = None) -> None:
        if not logits.is_floating_point():
            raise InputError(f"logits must be a floating-point tensor, not {logits.dtype}")
        check_precision("logits", logits)
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    @property
    def bits(self) -> Bernoulli:
        """q(z | x), the distribution of the bits themselves."""
        return Bernoulli(logits=self.logits)

    @property
    def probs(self) -> Float[Tensor, "*shape"]:
        """q(z = 1 | x)."""
        return torch.sigmoid(self.logits)

    @abstractmethod
    def posterior(self, zeta: Float[Tensor, "*shape"]) -> Bernoulli:
        """q(z | x, zeta), by Bayes' rule."""

    def _validate_probability(self, rho: Tensor) -> None:
        if self._validate_args and not bool(((rho >= 0) & (rho <= 1)).all()):
            raise InputError("icdf takes probabilities rho in [0, 1]")

    @abstractmethod
    def _draw(self, uniform: Tensor) -> Tensor:
        """The draws made of uniform numbers (uniforms, *sample_shape, *logits.shape), with what gradient they carry."""

    @torch.no_grad()
    def sample(self, sample_shape: Any = (), noise: Float[Tensor, "numbers=2 *shape"] | None = None) -> Tensor:
        """Draws of zeta, shape sample_shape + logits.shape, without gradient."""
        return self._draw(self._uniform(sample_shape, noise))

    def rsample(self, sample_shape: Any = (), noise: Float[Tensor, "numbers=2 *shape"] | None = None) -> Tensor:
        """Draws of zeta, shape sample_shape + logits.shape, differentiable in the logits; refused where none are."""
        if not self.has_rsample:
            raise NotImplementedError(f"a {type(self).__name__} has no reparameterised draws")
        return self._draw(self._uniform(sample_shape, noise))

    def relaxed_sample(self, noise: Float[Tensor, "numbers=2 *shape"] | None = None) -> Float[Tensor, "*shape"]:
        """One draw of zeta, reparameterised where that can be."""
        draw = self.rsample if self.has_rsample else self.sample
        return draw() if noise is None else draw(noise=noise)

    def _uniform(self, sample_shape: Any, noise: Tensor | None) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        if noise is None:
            return torch.rand((self.uniforms, *shape), dtype=self.logits.dtype, device=self.logits.device)
        check_noise(noise, (2, *shape), self.logits.dtype)
        return noise[: self.uniforms]


class ImplicitBernoulli(BitDistribution):
    """q(zeta | x) of a smoothing, whose draws carry the implicit gradient -(dF / d logit) / (dF / d zeta).

    F is the CDF of the mixture, dF / d logit = -q (1 - q) (R(zeta | 0) - R(zeta | 1)): the gradient of the inverse CDF
    at the draw, however the draw was made (Figurnov et al. 2018). No gradient flows to the smoothing's parameters.
    """

    has_rsample = True
    smoothing: Any

    def __init__(self, smoothing: Any, logits: Float[Tensor, "*shape"], validate_args: bool | None = None) -> None:
        self.smoothing = smoothing
        super().__init__(logits, validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """Where zeta lies: the smoothing's support."""
        support: constraints.Constraint = self.smoothing.support
        return support

    def expand(self, batch_shape: Any, _instance: Any = None) -> ImplicitBernoulli:
        """The same distribution with a larger batch shape."""
        return type(self)(self.smoothing, self.logits.expand(torch.Size(batch_shape)), self._validate_args)

    def icdf(self, value: Tensor) -> Tensor:
        """The least zeta with F(zeta) >= rho (Eq. 3), differentiable in the logits and in rho."""
        self._validate_probability(value)
        with torch.no_grad():
            zeta = self._quantile(value)
        draw = self._reparameterise(zeta)
        if value.requires_grad:
            with torch.no_grad():
                slope = self._slope_in_rho(zeta)
            draw = replace_gradient(draw, draw + slope * (value - value.detach()))
        return draw

    @abstractmethod
    def _quantile(self, rho: Tensor) -> Tensor:
        """The least zeta with F(zeta) >= rho."""

    @abstractmethod
    def _slope(self, zeta: Tensor) -> Tensor:
        """d zeta / d logit at a draw."""

    @abstractmethod
    def _slope_in_rho(self, zeta: Tensor) -> Tensor:
        """d zeta / d rho."""

    def _reparameterise(self, zeta: Tensor) -> Tensor:
        if not self.logits.requires_grad:
            return zeta
        with torch.no_grad():
            slope = self._slope(zeta)
        return replace_gradient(zeta, slope * (self.logits - self.logits.detach()))


class Smoothing(Component, ABC):
    """A map from logits to a distribution over zeta that tends to the bits themselves as it sharpens.

    q(zeta | x) = sum_z q(z | x) r(zeta | z) (Eq. 2), but for those that are no mixture, which say so in
    `shared_conditional`.

    >>> from dvaepp import OverlappingExponential
    >>> q = OverlappingExponential(beta=8.0)(torch.zeros(3))  # any Smoothing
    >>> q.posterior(q.rsample()).logits.shape
    torch.Size([3])
    """

    kind: ClassVar[str] = "smoothing"
    folder: ClassVar[str] = "dvaepp.smoothings"

    binary: ClassVar[bool] = False
    """zeta is z itself, 0 or 1 (hard, straight-through)."""

    reparameterised: ClassVar[bool] = True
    """Gradients flow from draws of zeta to the logits."""

    has_atom: ClassVar[bool] = False
    """zeta is exactly 0 with positive probability: q(z | x, zeta) is a step, and the gradient through nu is lost."""

    shared_conditional: ClassVar[bool] = True
    """r(zeta | z) is the same in q and in p, so that it cancels in KL(q(z, zeta) || p(z, zeta))."""

    @abstractmethod
    def __call__(self, logits: Float[Tensor, "*shape"]) -> BitDistribution:
        """The distribution q(zeta | x) of bits with these logits."""

    @property
    def sharpness(self) -> float | Tensor | None:
        """The inverse temperature, which `with_beta` sets; None where there is none."""
        return getattr(self, "beta", None)

    def with_beta(self, beta: float | Tensor) -> Smoothing:
        """The same smoothing at inverse temperature beta; InputError where there is none."""
        if "beta" not in getattr(self, "__dataclass_fields__", {}):
            raise InputError(f"{type(self).__name__} has no inverse temperature that could be set to {beta}")
        return cast(Smoothing, replace(cast(Any, self), beta=beta))
