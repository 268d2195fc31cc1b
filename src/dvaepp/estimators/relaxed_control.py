"""Control variates through a relaxation of the bits: REBAR, and RELAX with a network beside it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.estimators.base import Estimator, EstimatorDesign, Function, LearnedEstimator, evaluate, score
from dvaepp.estimators.baseline import Baseline
from dvaepp.estimators.derivatives import with_slope
from dvaepp.gradients import add_gradient
from dvaepp.networks.dense import dense
from dvaepp.numerics import check_above, check_counts, keep_plain, off_ends, whole


class RelaxedControl(LearnedEstimator, ABC):
    """g = (f(b) - C(x) - c(s(v))) (b - q) + d/dl c(s(u)) - d/dl c(s(v)), for a control variate c of the relaxed bits.

    s(u) = sigmoid((l - logit u) / T + T / (T + 1) l), without the second term where `muprop` is off: with it s is q as
    T grows, and c's tangent at q MuProp's. v is a uniform number given b, v = q v' where b = 1 and q + (1 - q) v' where
    b = 0, with the v' for which v = u: s(u) and s(v) are one number with two derivatives in l, so that c is evaluated
    once, and ds(u) / dl - ds(v) / dl = s (1 - s) r / T with r = (1 - q) / (1 - u) where b = 1 and q / u where b = 0,
    which is at most 1. Unbiased; f at the draw and at s, with its derivative there.

    Everything is learned by the mean over the batch of |g|^2, through s too where the temperature T is learned: f must
    be twice differentiable then. Tucker et al. (2017) take the square of the gradient in all parameters and an eta for
    each of their tensors; here it is the gradient in each example's logits, through draws and score, and one eta. What
    f itself holds of the logits does not count.
    """

    relaxed: ClassVar[bool] = True
    differentiable: ClassVar[bool] = True
    tangents: ClassVar[bool] = True
    unbiased: ClassVar[bool] = True
    draws: ClassVar[int] = 1
    uniforms: ClassVar[int] = 1

    def __init__(
        self,
        context_size: int | None,
        mean: Float[Tensor, " features"] | None,
        hidden: int,
        temperature: float,
        learn_temperature: bool,
        muprop: bool,
    ) -> None:
        super().__init__()
        check_above("temperature", temperature)
        self.baseline = Baseline(context_size, mean, hidden)
        self.weight = nn.Parameter(torch.zeros(()))
        self.muprop = muprop
        self.log_temperature: Tensor
        start = torch.tensor(math.log(temperature))
        if learn_temperature:
            self.log_temperature = nn.Parameter(start)
        else:
            self.register_buffer("log_temperature", start)

    @abstractmethod
    def control(self, f: Function, context: Float[Tensor, "batch features"] | None) -> Function:
        """c, a function of the relaxed bits (batch, bits)."""

    @property
    def eta(self) -> Float[Tensor, ""]:
        """2 sigmoid(w): how much of f(s) is taken."""
        return 2 * torch.sigmoid(self.weight)

    def estimate(
        self,
        f: Function,
        logits: Float[Tensor, "batch bits"],
        context: Float[Tensor, "batch features"] | None,
        uniform: Float[Tensor, "uniforms batch bits"],
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, ""]]:
        """f(b), and the mean of |g|^2."""
        b = self.sample(logits, uniform)[0]
        value = evaluate(f, b)
        s, gap = self._relaxed(logits.detach(), b, uniform[0])
        control, slope = with_slope(self.control(f, context), s)
        surprise = value.detach() - self.baseline(context, logits) - control
        gradient = surprise[:, None] * score(logits, b) + slope * gap
        return add_gradient(value, logits, gradient), gradient.square().sum(-1).mean()

    def _relaxed(
        self, logits: Float[Tensor, "batch bits"], b: Float[Tensor, "batch bits"], u: Float[Tensor, "batch bits"]
    ) -> tuple[Float[Tensor, "batch bits"], Float[Tensor, "batch bits"]]:
        """s, and ds(u) / dl - ds(v) / dl."""
        u, temperature = off_ends(u), torch.exp(self.log_temperature)
        slack = (logits - torch.logit(u)) / temperature
        slack = slack + temperature / (temperature + 1) * logits if self.muprop else slack
        one = b > 0.5
        ratio = torch.sigmoid(torch.where(one, -logits, logits)) / torch.where(one, 1 - u, u)
        return torch.sigmoid(slack), torch.sigmoid(slack) * torch.sigmoid(-slack) * ratio / temperature


class REBAR(RelaxedControl):
    """g = (f(b) - C(x) - eta f(s(v))) (b - q) + eta (d/dl f(s(u)) - d/dl f(s(v))) (Tucker et al. 2017).

    `RelaxedControl` with c = eta f, eta = 2 sigmoid(w), w = 0 at first. Unbiased; f at the draw and at the relaxed
    bits, with its derivative there. `temperature` is where T begins, or stays; C is 0 without a `context_size`.

    >>> REBAR()(lambda b: b.square().sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    def __init__(
        self,
        context_size: int | None = None,
        mean: Float[Tensor, " features"] | None = None,
        hidden: int = 100,
        temperature: float = 0.5,
        learn_temperature: bool = True,
        muprop: bool = True,
    ) -> None:
        super().__init__(context_size, mean, hidden, temperature, learn_temperature, muprop)

    def control(self, f: Function, context: Float[Tensor, "batch features"] | None) -> Function:
        """eta f."""
        return lambda s: self.eta * evaluate(f, s)


class RELAX(RelaxedControl):
    """g = (f(b) - C(x) - c(s(v))) (b - q) + d/dl c(s(u)) - d/dl c(s(v)), c = eta f + r (Grathwohl et al. 2018).

    `RelaxedControl` with r a network of the relaxed bits and the centred context, whose last layer is 0 at first: it
    starts as REBAR, whose state dict it takes but for r. Unbiased; f at the draw and at the relaxed bits, with its
    derivative there. Units are tanh, as the loss is of r's slope, in which a ReLU jumps.

    >>> RELAX(bits=3)(lambda b: b.square().sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    def __init__(
        self,
        bits: int,
        context_size: int | None = None,
        mean: Float[Tensor, " features"] | None = None,
        hidden: int = 100,
        temperature: float = 0.5,
        learn_temperature: bool = True,
        muprop: bool = True,
        layers: Sequence[int] = (200, 200),
    ) -> None:
        super().__init__(context_size, mean, hidden, temperature, learn_temperature, muprop)
        self.bits = whole("bits", bits)
        self.network = dense(self.bits + (context_size or 0), 1, layers)
        nn.init.zeros_(self.network[-1].weight)  # type: ignore[arg-type]

    def control(self, f: Function, context: Float[Tensor, "batch features"] | None) -> Function:
        """eta f + r."""
        return partial(self._control, f, context)

    def _control(
        self, f: Function, context: Float[Tensor, "batch features"] | None, s: Float[Tensor, "batch bits"]
    ) -> Float[Tensor, " batch"]:
        if s.shape[-1] != self.bits:
            raise InputError(f"this RELAX was made for {self.bits} bits, and is given logits of {s.shape[-1]}")
        beside = [] if self.baseline.network is None else [self.baseline.centred(context, s)]
        free: Tensor = self.network(torch.cat([s, *beside], -1))
        return self.eta * evaluate(f, s) + free[:, 0]


@dataclass(frozen=True)
class REBARDesign(EstimatorDesign):
    """g = (f(b) - C(x) - eta f(s)) (b - q) + what f(s) is worth, s the relaxed bits (Tucker et al. 2017): REBAR."""

    name: ClassVar[str] = "rebar"
    makes: ClassVar[type[Estimator]] = REBAR
    hidden: int = 100
    temperature: float = 0.5
    learn_temperature: bool = True
    muprop: bool = True

    def __post_init__(self) -> None:
        keep_plain(self)
        check_counts("REBAR", hidden=self.hidden)
        check_above("temperature", self.temperature)

    def build(self, bits: int, mean: Float[Tensor, " pixels"]) -> REBAR:
        """REBAR whose baseline sees x - mean."""
        return REBAR(len(mean), mean, self.hidden, self.temperature, self.learn_temperature, self.muprop)


@dataclass(frozen=True)
class RELAXDesign(EstimatorDesign):
    """g = (f(b) - C(x) - eta f(s) - r(s)) (b - q) + what eta f(s) + r(s) is worth (Grathwohl et al. 2018): RELAX."""

    name: ClassVar[str] = "relax"
    makes: ClassVar[type[Estimator]] = RELAX
    hidden: int = 100
    temperature: float = 0.5
    learn_temperature: bool = True
    muprop: bool = True
    layers: tuple[int, ...] = (200, 200)

    def __post_init__(self) -> None:
        keep_plain(self)
        check_counts("RELAX", hidden=self.hidden)
        check_above("temperature", self.temperature)

    def build(self, bits: int, mean: Float[Tensor, " pixels"]) -> RELAX:
        """RELAX whose baseline sees x - mean."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        return RELAX(bits, len(mean), mean, **settings)
