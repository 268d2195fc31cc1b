"""Bits, real numbers, categories and counts: p(x | zeta), site by site."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent

from dvaepp.components.registry import OF_DATA
from dvaepp.errors import InputError
from dvaepp.likelihoods.base import DataSpec, Likelihood, Placement, refuse_unless
from dvaepp.numerics import check_counts, check_precision, is_number, keep_plain

_LEAST_SD = 0.01
"""Convolutional decoders give log s in the unit of x: for data of a smaller sd its floor of -7 would be felt."""


@dataclass(frozen=True)
class BernoulliLikelihood(Likelihood):
    """p(x; logit) = sigmoid(logit)^x sigmoid(-logit)^(1-x), x in {0, 1}: the binary data sets of Tables 1 to 3.

    >>> BernoulliLikelihood()(torch.zeros(5, 784)).mean[0, 0]
    tensor(0.5000)
    """

    name: ClassVar[str] = "bernoulli"
    data_kind: ClassVar[str] = "bits"
    standardised: ClassVar[bool] = False

    def placed(self, spec: DataSpec) -> tuple[Likelihood, Placement]:
        """logit(clip(mean, .001, .999)) is added: an untrained decoder predicts the mean image."""
        return self, Placement(torch.logit(spec.mean.clamp(0.001, 0.999)))

    @property
    def width(self) -> int:
        """The logit."""
        return 1

    def log_prob(
        self, parameters: Float[Tensor, "*batch sites width"], x: Float[Tensor, "*batch sites values"]
    ) -> Float[Tensor, "*batch sites"]:
        """x logit - softplus(logit), nats a site."""
        return -F.binary_cross_entropy_with_logits(parameters, x.to(parameters), reduction="none").squeeze(-1)

    def sample(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """Bits."""
        return torch.bernoulli(torch.sigmoid(parameters.detach()))

    def mean(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """sigmoid(logit)."""
        return torch.sigmoid(parameters)

    def variance(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """sigmoid(logit) sigmoid(-logit)."""
        return torch.sigmoid(parameters) * torch.sigmoid(-parameters)

    def check(self, x: Tensor) -> None:
        """InputError unless x holds bits."""
        refuse_unless((x == 0) | (x == 1), x, "0 or 1")

    def __call__(self, parameters: Float[Tensor, "*batch outputs"]) -> Distribution:
        """p(x | zeta) = prod_i Bernoulli(x_i; sigmoid(logit_i)): torch's own, which is the fastest."""
        check_precision("parameters of a likelihood", parameters)
        return Independent(_Bernoulli(logits=parameters), 1)


class _Bernoulli(Bernoulli):
    """torch's own, but that bits of another dtype, such as half precision, do not decide in which one nats add up."""

    def log_prob(self, value: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*batch"]:
        log_prob: Tensor = super().log_prob(value.to(self.logits))  # type: ignore[no-untyped-call]
        return log_prob


bernoulli_likelihood = BernoulliLikelihood()


@dataclass(frozen=True)
class NormalLikelihood(Likelihood):
    """p(x; m, log s) = exp(-((x - m) / s)^2 / 2) / (s sqrt(2 pi)), any finite x; log s is learned, kept above a floor.

    Without the floor the density of data that repeat a value is unbounded. Below it log s has no gradient. The floor is
    in the unit of x: the default is for x whose sd is about 1. Recipes take it relative to the sd of each column.

    >>> NormalLikelihood()(torch.zeros(5, 2 * 3)).mean.shape
    torch.Size([5, 3])
    """

    name: ClassVar[str] = "normal"
    log_scale_floor: float = -7.0

    def __post_init__(self) -> None:
        keep_plain(self)
        if not is_number(self.log_scale_floor) or math.isnan(self.log_scale_floor):
            raise InputError(f"log_scale_floor must be a number, not {self.log_scale_floor!r}")

    def for_data(self, spec: DataSpec) -> NormalLikelihood:
        """Itself; InputError where most values that vary do so by less than the floor of log s leaves room for."""
        varying = spec.sd[spec.sd != 1]
        if len(varying) and float(varying.median()) < _LEAST_SD:
            raise InputError(
                "model.likelihood=normal with model.convolutional takes images whose pixels have an sd of at least "
                f"{_LEAST_SD}, not {float(varying.median()):.3g}: rescale them"
            )
        return self

    def placed(self, spec: DataSpec) -> tuple[Likelihood, Placement]:
        """Means in units of sd about the mean, log s relative to log sd, and its floor too.

        So a table in another unit has the same model.
        """
        ones = torch.ones_like(spec.sd)
        least = torch.stack([-math.inf * ones, self.log_scale_floor * ones], 1).flatten()
        shift = torch.stack([spec.mean, spec.sd.log()], 1).flatten()
        scale = torch.stack([spec.sd, ones], 1).flatten()
        return replace(self, log_scale_floor=-math.inf), Placement(shift, scale, least)

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

    def variance(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """s^2."""
        return torch.exp(2 * self._moments(parameters)[1]).unsqueeze(-1)

    def check(self, x: Tensor) -> None:
        """InputError unless x is finite."""
        refuse_unless(x.isfinite(), x, "finite numbers")

    def _moments(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = parameters.unbind(-1)
        return mean, log_scale.clamp(min=self.log_scale_floor)


@dataclass(frozen=True)
class CategoricalLikelihood(Likelihood):
    """p(x = k; logits) = exp(logit_k) / sum_j exp(logit_j), x the index of a category: 0, 1, .., categories - 1.

    >>> CategoricalLikelihood(categories=4)(torch.zeros(5, 4 * 3)).sample().shape
    torch.Size([5, 3])
    """

    name: ClassVar[str] = "categorical"
    data_kind: ClassVar[str] = "categories"
    categories: int = field(default=2, metadata=OF_DATA)

    def for_data(self, spec: DataSpec) -> CategoricalLikelihood:
        """With the categories that the data have."""
        return replace(self, categories=spec.categories)

    def __post_init__(self) -> None:
        keep_plain(self)
        check_counts(type(self).__name__, least=2, categories=self.categories)

    @property
    def one_hot(self) -> int:
        """The categories."""
        return self.categories

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

    def variance(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """InputError: the indices of categories are names."""
        raise InputError("categories have no variance: their indices are names")

    def check(self, x: Tensor) -> None:
        """InputError unless x holds indices of categories."""
        inside = (x >= 0) & (x < self.categories) & (x == x.floor())
        refuse_unless(inside, x, f"whole numbers in 0..{self.categories - 1}")


@dataclass(frozen=True)
class PoissonLikelihood(Likelihood):
    """p(x; log r) = r^x exp(-r) / x!, x = 0, 1, 2, ..; in float32 finite up to log r = 88.

    >>> PoissonLikelihood()(torch.zeros(5, 3)).mean[0]
    tensor([1., 1., 1.])
    """

    name: ClassVar[str] = "poisson"
    data_kind: ClassVar[str] = "counts"

    def placed(self, spec: DataSpec) -> tuple[Likelihood, Placement]:
        """log of the mean is added: an untrained decoder gives each value its mean rate."""
        return self, Placement(spec.mean.clamp(min=1e-3).log())

    @property
    def width(self) -> int:
        """The log rate."""
        return 1

    def log_prob(
        self, parameters: Float[Tensor, "*batch sites width"], x: Float[Tensor, "*batch sites values"]
    ) -> Float[Tensor, "*batch sites"]:
        """x log r - r - log x!, nats a site; in float64, where these, up to 3e8 at x = 2^24, cancel to 1e-7."""
        count, log_rate = x.double(), parameters.double()
        log_prob = count * log_rate - log_rate.exp() - torch.lgamma(count + 1)
        return log_prob.squeeze(-1).to(torch.promote_types(x.dtype, parameters.dtype))

    def sample(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """Counts; a rate from 2^62 on, where draws would overflow, stands for itself: its sd is 2^-31 of it."""
        rate = parameters.detach().exp()
        return torch.where(rate < 2**62, torch.poisson(rate.clamp(max=2**62)), rate)

    def mean(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """r."""
        return parameters.exp()

    def variance(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """r."""
        return parameters.exp()

    def check(self, x: Tensor) -> None:
        """InputError unless x holds counts."""
        refuse_unless((x >= 0) & x.isfinite() & (x == x.floor()), x, "whole numbers of at least 0")
