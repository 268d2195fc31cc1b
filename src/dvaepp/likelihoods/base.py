"""The contract of p(x | zeta), site by site."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints

from dvaepp.components.registry import Component
from dvaepp.errors import InputError
from dvaepp.numerics import check_precision


@dataclass(frozen=True)
class DataSpec:
    """What of the data a likelihood and a model are made for: an example's shape, mean and sd of each value."""

    shape: tuple[int, ...]
    mean: Float[Tensor, " pixels"]
    sd: Float[Tensor, " pixels"]
    """Where it is 0, and for bits, 1 stands for it."""
    categories: int = 2
    columns: tuple[tuple[str, int], ...] = ()
    """Of a table of several kinds that of each column, and how many categories it has."""


class Placement(NamedTuple):
    """scale max(y, least) + shift: from a decoder's output y to the parameters that training begins near."""

    shift: Float[Tensor, " outputs"]
    scale: float | Float[Tensor, " outputs"] = 1.0
    least: Float[Tensor, " outputs"] | None = None


@dataclass(frozen=True)
class Likelihood(Component, ABC):
    """p(x | zeta) = prod_s p(x_s; parameters_s) over sites s, each of `values` numbers with `width` parameters.

    x is laid out site by site, (sites * values), and the decoder's output too, (sites * width): an image is listed
    row by row, pixel by pixel, channel by channel.

    >>> from dvaepp import BernoulliLikelihood
    >>> p = BernoulliLikelihood()(torch.zeros(5, 784))  # any Likelihood, called with a decoder's output
    >>> p.log_prob(torch.zeros(5, 784)).shape
    torch.Size([5])
    """

    kind: ClassVar[str] = "likelihood"
    folder: ClassVar[str] = "dvaepp.likelihoods"
    data_kind: ClassVar[str] = "real"
    """The kind of data that it is for, of `dvaepp.data.Kind`."""
    standardised: ClassVar[bool] = True
    """Encoders see (x - mean) / sd; else x - mean."""
    image_scale: ClassVar[float] = 1.0
    """Convolutional encoders see this times x - mean."""
    white: ClassVar[float] = 1.0
    """The value of x that pictures show white, 0 being black."""

    def for_data(self, spec: DataSpec) -> Likelihood:
        """The likelihood of such data, of a decoder that gives its parameters as they are."""
        return self

    def placed(self, spec: DataSpec) -> tuple[Likelihood, Placement]:
        """The likelihood of such data, and where a decoder's output is moved to: by `start`, unless it says better."""
        likelihood = self.for_data(spec)
        return likelihood, Placement(likelihood.start.repeat(len(spec.mean) // likelihood.values))

    @property
    def values(self) -> int:
        """Numbers of x at each site: 3 for a colour pixel."""
        return 1

    @property
    def one_hot(self) -> int:
        """Categories of each value, for each of which encoders see a column; 0 where they see numbers."""
        return 0

    def of_values(self, count: int) -> tuple[Likelihood, ...]:
        """The law of each of so many values of x: itself, unless they differ."""
        return (self,) * count

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

    def by_value(
        self, parameters: Float[Tensor, "*batch sites width"], x: Float[Tensor, "*batch sites values"]
    ) -> Float[Tensor, "*batch sites values"]:
        """log p(x_i) of each value of x, nats; InputError where a site has several, which depend on each other."""
        if self.values != 1:
            raise InputError(f"the {self.values} values of a site of {type(self).__name__} depend on each other")
        return self.log_prob(parameters, x)[..., None]

    @abstractmethod
    def sample(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """x_s ~ p(x_s; parameters_s) from torch's global generator, without gradients."""

    @abstractmethod
    def mean(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """E[x_s], or what stands for it."""

    def variance(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """Var[x_s], in the unit of x squared; InputError where the likelihood has or gives none."""
        raise InputError(f"{type(self).__name__} gives no variance")

    @abstractmethod
    def check(self, x: Tensor) -> None:
        """InputError naming a value of x outside the support, and what was expected."""

    def __call__(self, parameters: Float[Tensor, "*batch outputs"]) -> Distribution:
        """p(x | zeta) of a decoder's output, with outputs = sites * width: log_prob sums over sites, nats.

        Raises InputError for half precision.
        """
        check_precision("parameters of a likelihood", parameters)
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
        return self.likelihood.log_prob(*self._by_site(value)).sum(-1)

    def by_value(self, value: Float[Tensor, "*shape values"]) -> Float[Tensor, "*batch values"]:
        """log p(x_i) of each value, nats; InputError where those of a site depend on each other."""
        return self.likelihood.by_value(*self._by_site(value)).flatten(-2)

    def _by_site(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters and x of all sites; InputError where x is of another shape, or not in the support."""
        if value.shape[-1:] != self.event_shape:
            expected = self.event_shape[0]
            raise InputError(f"x has shape {tuple(value.shape)}, expected {expected} values in its last dimension")
        if self._validate_args:
            self.likelihood.check(value)
        x = value.reshape(*value.shape[:-1], -1, self.likelihood.values)
        batch = np.broadcast_shapes(self.batch_shape, value.shape[:-1])
        return self.parameters.expand(*batch, -1, -1), x.expand(*batch, -1, -1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Float[Tensor, "*shape values"]:
        """x ~ p(x), of shape (*sample_shape, *batch, sites * values)."""
        parameters = self.parameters.expand(*sample_shape, *self.parameters.shape)
        return self.likelihood.sample(parameters).flatten(-2)

    @property
    def mean(self) -> Float[Tensor, "*shape values"]:
        """The likelihood's mean at every site."""
        return self.likelihood.mean(self.parameters).flatten(-2)

    @property
    def variance(self) -> Float[Tensor, "*shape values"]:
        """The likelihood's variance at every site; InputError where it has none, as categories."""
        return self.likelihood.variance(self.parameters).flatten(-2)


def refuse_unless(inside: Tensor, x: Tensor, expected: str) -> None:
    """InputError with the first value of x that is not inside."""
    if not bool(inside.all()):
        raise InputError(f"x holds the value {x[~inside][0].item():g} outside the support, expected {expected}")
