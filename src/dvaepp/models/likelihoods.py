"""p(x | zeta): what the decoder's output means.

A likelihood is a frozen dataclass of plain numbers that says how one site of x (a pixel, a column of a table) is
distributed given `width` parameters. Called with a decoder's output it gives a `torch.distributions.Distribution` over
whole examples. Discretized logistics, for images of 8 bits, are in logistic_mixture.py.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, constraints

from dvaepp.errors import InputError


@dataclass(frozen=True)
class Likelihood(ABC):
    """p(x | zeta) = prod_s p(x_s; parameters_s) over sites s, each of `values` numbers with `width` parameters.

    x is laid out site by site, (sites * values), and the decoder's output too, (sites * width): an image is listed
    row by row, pixel by pixel, channel by channel.
    """

    @property
    def values(self) -> int:
        """Numbers of x at each site: 3 for a colour pixel."""
        return 1

    @property
    @abstractmethod
    def width(self) -> int:
        """Parameters that the decoder gives for each site."""

    @property
    def start(self) -> Float[Tensor, " width"]:
        """Parameters of a site from which training can begin: 0, unless that would be a saddle."""
        return torch.zeros(self.width)

    @abstractmethod
    def log_prob(
        self, parameters: Float[Tensor, "*batch sites width"], x: Float[Tensor, "*batch sites values"]
    ) -> Float[Tensor, "*batch sites"]:
        """log p(x_s; parameters_s), nats a site; x is taken to lie in the support."""

    @abstractmethod
    def sample(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """x_s ~ p(x_s; parameters_s) from torch's global generator, without gradients."""

    @abstractmethod
    def mean(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """E[x_s], or what stands for it."""

    @abstractmethod
    def check(self, x: Tensor) -> None:
        """InputError naming a value of x outside the support, and what was expected."""

    def __call__(self, parameters: Float[Tensor, "*batch outputs"]) -> Distribution:
        """p(x | zeta) of a decoder's output, with outputs = sites * width: log_prob sums over sites, nats."""
        if parameters.shape[-1] % self.width:
            raise InputError(
                f"the decoder gives {parameters.shape[-1]} outputs, expected a multiple of {self.width}, "
                f"the parameters of a site of {type(self).__name__}"
            )
        return Factorial(self, parameters.reshape(*parameters.shape[:-1], -1, self.width))


class Factorial(Distribution):
    """p(x) = prod_s p(x_s; parameters_s) for any likelihood, x of shape (sites * values).

    While torch validates arguments, log_prob refuses x outside the support, or NaN, by InputError.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"parameters": constraints.real}

    def __init__(
        self,
        likelihood: Likelihood,
        parameters: Float[Tensor, "*batch sites width"],
        validate_args: bool | None = None,
    ) -> None:
        self.likelihood = likelihood
        self.parameters = parameters
        event = torch.Size([parameters.shape[-2] * likelihood.values])
        super().__init__(parameters.shape[:-2], event, validate_args)

    def log_prob(self, value: Float[Tensor, "*shape values"]) -> Float[Tensor, "*batch"]:
        """log p(x), nats: the sum over sites."""
        if value.shape[-1:] != self.event_shape:
            expected = self.event_shape[0]
            raise InputError(f"x has shape {tuple(value.shape)}, expected {expected} values in its last dimension")
        if self._validate_args:
            self.likelihood.check(value)
        x = value.reshape(*value.shape[:-1], -1, self.likelihood.values)
        batch = np.broadcast_shapes(self.batch_shape, value.shape[:-1])
        parameters = self.parameters.expand(*batch, -1, -1)
        return self.likelihood.log_prob(parameters, x.expand(*batch, -1, -1)).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*shape values"]:
        """x ~ p(x), of shape (*sample_shape, *batch, sites * values)."""
        parameters = self.parameters.expand(*sample_shape, *self.parameters.shape)
        return self.likelihood.sample(parameters).flatten(-2)

    @property
    def mean(self) -> Float[Tensor, "*shape values"]:
        """The likelihood's mean at every site."""
        return self.likelihood.mean(self.parameters).flatten(-2)


def refuse_unless(inside: Tensor, x: Tensor, expected: str) -> None:
    """InputError with the first value of x that is not inside."""
    if not bool(inside.all()):
        raise InputError(f"x holds the value {x[~inside][0].item():g} outside the support, expected {expected}")


@dataclass(frozen=True)
class BernoulliLikelihood(Likelihood):
    """p(x; logit) = sigmoid(logit)^x sigmoid(-logit)^(1-x), x in {0, 1}."""

    @property
    def width(self) -> int:
        """The logit."""
        return 1

    def log_prob(
        self, parameters: Float[Tensor, "*batch sites width"], x: Float[Tensor, "*batch sites values"]
    ) -> Float[Tensor, "*batch sites"]:
        """x logit - softplus(logit), nats a site."""
        return -F.binary_cross_entropy_with_logits(parameters, x, reduction="none").squeeze(-1)

    def sample(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """Bits."""
        return torch.bernoulli(torch.sigmoid(parameters.detach()))

    def mean(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """sigmoid(logit)."""
        return torch.sigmoid(parameters)

    def check(self, x: Tensor) -> None:
        """InputError unless x holds bits."""
        refuse_unless((x == 0) | (x == 1), x, "0 or 1")

    def __call__(self, parameters: Float[Tensor, "*batch outputs"]) -> Distribution:
        """p(x | zeta) = prod_i Bernoulli(x_i; sigmoid(logit_i)): torch's own, which is the fastest."""
        return Independent(Bernoulli(logits=parameters), 1)


bernoulli_likelihood = BernoulliLikelihood()


@dataclass(frozen=True)
class NormalLikelihood(Likelihood):
    """p(x; m, log s) = exp(-((x - m) / s)^2 / 2) / (s sqrt(2 pi)), any finite x; log s is learned, kept above a floor.

    Without the floor the density of data that repeat a value is unbounded. Below it log s has no gradient.
    """

    log_scale_floor: float = -7.0

    @property
    def width(self) -> int:
        """The mean and the log scale."""
        return 2

    def log_prob(
        self, parameters: Float[Tensor, "*batch sites width"], x: Float[Tensor, "*batch sites values"]
    ) -> Float[Tensor, "*batch sites"]:
        """-((x - m) / s)^2 / 2 - log s - log(2 pi) / 2, nats a site."""
        mean, log_scale = self._moments(parameters)
        standard = (x.squeeze(-1) - mean) * torch.exp(-log_scale)
        return -0.5 * standard.square() - log_scale - 0.5 * math.log(2 * math.pi)

    def sample(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """m + s times a standard normal number."""
        mean, log_scale = self._moments(parameters.detach())
        return torch.addcmul(mean, log_scale.exp(), torch.randn_like(mean)).unsqueeze(-1)

    def mean(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """m."""
        return parameters[..., :1]

    def check(self, x: Tensor) -> None:
        """InputError unless x is finite."""
        refuse_unless(x.isfinite(), x, "finite numbers")

    def _moments(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = parameters.unbind(-1)
        return mean, log_scale.clamp(min=self.log_scale_floor)


@dataclass(frozen=True)
class CategoricalLikelihood(Likelihood):
    """p(x = k; logits) = exp(logit_k) / sum_j exp(logit_j), x the index of a category: 0, 1, .., categories - 1."""

    categories: int

    def __post_init__(self) -> None:
        if self.categories < 2:
            raise InputError(f"categories is {self.categories}, expected at least 2")

    @property
    def width(self) -> int:
        """A logit for each category."""
        return self.categories

    def log_prob(
        self, parameters: Float[Tensor, "*batch sites width"], x: Float[Tensor, "*batch sites values"]
    ) -> Float[Tensor, "*batch sites"]:
        """logit_x - logsumexp(logits), nats a site."""
        return parameters.log_softmax(-1).gather(-1, x.long()).squeeze(-1)

    def sample(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """Indices of categories."""
        probs = parameters.detach().softmax(-1).reshape(-1, self.categories)
        return probs.multinomial(1).reshape(*parameters.shape[:-1], 1).to(parameters.dtype)

    def mean(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """The likeliest category, not an average: between the indices of categories there is nothing."""
        return parameters.argmax(-1, keepdim=True).to(parameters.dtype)

    def check(self, x: Tensor) -> None:
        """InputError unless x holds indices of categories."""
        inside = (x >= 0) & (x < self.categories) & (x == x.floor())
        refuse_unless(inside, x, f"whole numbers in 0..{self.categories - 1}")


@dataclass(frozen=True)
class PoissonLikelihood(Likelihood):
    """p(x; log r) = r^x exp(-r) / x!, x = 0, 1, 2, ..; in float32 finite up to log r = 88."""

    @property
    def width(self) -> int:
        """The log rate."""
        return 1

    def log_prob(
        self, parameters: Float[Tensor, "*batch sites width"], x: Float[Tensor, "*batch sites values"]
    ) -> Float[Tensor, "*batch sites"]:
        """x log r - r - log x!, nats a site."""
        return (x * parameters - parameters.exp() - torch.lgamma(x + 1)).squeeze(-1)

    def sample(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """Counts."""
        return torch.poisson(parameters.detach().exp())

    def mean(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """r."""
        return parameters.exp()

    def check(self, x: Tensor) -> None:
        """InputError unless x holds counts."""
        refuse_unless((x >= 0) & x.isfinite() & (x == x.floor()), x, "whole numbers of at least 0")
