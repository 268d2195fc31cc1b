"""The contract of models, and what one pass of a model leaves behind: everything that an objective composes."""

from __future__ import annotations

import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from dvaepp.boltzmann.machine import BoltzmannMachine, check_state
from dvaepp.errors import InputError
from dvaepp.models.local import LocalGroup
from dvaepp.numerics import check_precision
from dvaepp.priors.base import Prior
from dvaepp.priors.normal import NormalPosterior
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.posterior import Posterior


@dataclass(frozen=True)
class Trace:
    """q(zeta | x) with a draw of zeta, p(x | zeta) for that draw, and the local groups between the two, if any.

    `likelihood.log_prob(x)` has shape (batch,).

    >>> import dvaepp
    >>> encoder, decoder = dvaepp.HierarchicalEncoder(nn.Linear(12, 4)), nn.Linear(4, 12)
    >>> trace = dvaepp.FeedForwardVAE(encoder, dvaepp.BernoulliPrior(4), decoder, dvaepp.hard)(torch.zeros(5, 12))
    >>> trace.posterior.logits.shape, trace.likelihood.log_prob(torch.zeros(5, 12)).shape
    (torch.Size([5, 4]), torch.Size([5]))
    """

    posterior: Posterior | NormalPosterior
    likelihood: Distribution
    local: tuple[LocalGroup, ...] = ()

    @property
    def reparameterised(self) -> bool:
        """Whether gradients flow from every draw to the encoder."""
        local = all(group.q.has_rsample for group in self.local)
        return self.posterior.reparameterised and local

    def local_kl_terms(self) -> Float[Tensor, "batch groups"]:
        """KL(q(h_j | x, zeta, h_<j) || p(h_j | zeta, h_<j)) for every local group j, nats, at the draw."""
        terms = [group.kl() for group in self.local]
        zeta = self.posterior.zeta
        return torch.stack(terms, -1) if terms else zeta.new_zeros(len(zeta), 0)

    def local_log_ratio(self) -> Float[Tensor, " batch"]:
        """sum_j log p(h_j | zeta, h_<j) - log q(h_j | x, zeta, h_<j), nats, at the draw."""
        total = self.posterior.zeta.new_zeros(len(self.posterior.zeta))
        for group in self.local:
            total = total + group.log_ratio()
        return total


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode; however the block ends, each is put back into the mode that it was in itself."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def check_input(model: nn.Module, name: str, given: object, *, single: bool = False) -> None:
    """InputError unless a tensor is (batch, _), or where `single` will do any vectors, in the model's dtype, not half.

    Networks compute in half precision under autocast, which leaves parameters as they are.
    """
    parameter = next(model.parameters())
    check_precision("parameters of a model", parameter)
    if not isinstance(given, Tensor):
        raise InputError(
            f"{name} must be a {parameter.dtype} tensor, not the {type(given).__name__} {reprlib.repr(given)}"
        )
    fits = given.ndim >= 1 and given.shape[-1] > 0 if single else given.ndim == 2 and len(given) > 0
    if not fits or given.dtype != parameter.dtype:
        axes = "(..., bits)" if single else f"(batch, {'pixels' if name == 'x' else 'bits'})"
        raise InputError(
            f"{name} must be a {parameter.dtype} tensor {axes}, not {given.dtype} of shape {tuple(given.shape)}"
        )


class Model(nn.Module, ABC):
    """A variational autoencoder, as objectives, training and evaluation see it.

    `FeedForwardVAE` (Fig. 2) and `ConvolutionalVAE` (Fig. 3). `prior` is over the global variables; `smoothing` may be
    replaced at any time.

    >>> import dvaepp
    >>> model = dvaepp.FeedForwardVAE(
    ...     dvaepp.HierarchicalEncoder(dvaepp.dense(12, 4)),
    ...     dvaepp.BernoulliPrior(4),
    ...     dvaepp.dense(4, 12),
    ...     dvaepp.OverlappingExponential(beta=8.0),
    ... )
    >>> model.generate(3).shape
    torch.Size([3, 12])
    """

    prior: Prior
    smoothing: Smoothing
    __call__: Callable[..., Trace]

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "batch pixels"],
        smoothing: Smoothing | None = None,
        draws: int = 1,
        noise: Float[Tensor, "2 rows bits"] | None = None,
    ) -> Trace:
        """One pass: draw zeta given x under the smoothing (the model's own by default), decode it.

        With several draws for each x the trace's batch is draws times as large, x by x; what x alone decides is
        computed once. Given `noise`, two uniform numbers for each variable of each draw, the pass is a function of its
        arguments that torch.func.vmap maps, once torch's checks of distribution arguments are off; InputError for a
        model that has draws it cannot make of it.
        """

    @abstractmethod
    def given(
        self,
        x: Float[Tensor, "batch pixels"],
        zeta: Float[Tensor, "rows bits"],
        smoothing: Smoothing | None = None,
        local: Sequence[Float[Tensor, "rows variables _ _"]] = (),
    ) -> Trace:
        """The pass at a zeta that the caller chooses, in place of a draw: q(zeta | x) and p(x | zeta) there.

        zeta has a row for each x, or equally many for each, x by x as `forward` lays out its draws:
        `model.given(x, model(x, draws=3).posterior.zeta)` is that pass again. For bits z, with `hard`, the encoder's
        logits are `posterior.logits`, log q(z | x) is `posterior.log_prob()`, and log p(x | z) `likelihood.log_prob(x)`
        (x repeated as zeta is); log p(z) is `model.prior.log_prob(z, hard)`. The groups of local variables are those of
        `local`, `h` of each; the ones that are not given are drawn. InputError for more than there are.
        """

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """torch's, but that a Boltzmann machine's blocks, labels and edges are compared before anything is loaded."""
        for name, module in self.named_modules():
            if isinstance(module, BoltzmannMachine):
                check_state(module, state_dict, f"{name}.")
        return super().load_state_dict(state_dict, *args, **kwargs)

    @property
    def numbers_per_draw(self) -> int:
        """About how many numbers a pass without gradients holds for each draw, where they are many more than x's."""
        return 0

    @abstractmethod
    def decode(self, zeta: Float[Tensor, "*batch bits"]) -> Distribution:
        """p(x | zeta); with local variables p(x | zeta, h), h drawn from p(h | zeta) in the binary limit."""

    @abstractmethod
    def code(self, x: Float[Tensor, "batch pixels"]) -> Float[Tensor, "batch bits"]:
        """Logits of every group given x and the likelier bits of the groups before it; of normals the means."""

    @torch.no_grad()
    def generate(self, num_samples: int) -> Float[Tensor, "samples pixels"]:
        """x drawn from p(x | z) p(z), in the binary limit and in evaluation mode."""
        with evaluation_mode(self):
            sample: Tensor = self.decode(self.prior.sample(num_samples)).sample()
        return sample


@contextmanager
def measuring(model: Model, seed: int) -> Iterator[None]:
    """Without gradients, in evaluation mode, from a random seed of its own.

    The caller's random state is kept, and so is the mode of each module.
    """
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), torch.no_grad(), evaluation_mode(model):
        torch.manual_seed(seed)
        yield


@contextmanager
def unchecked() -> Iterator[None]:
    """Without torch's checks of distribution arguments, which read values back: they are made elsewhere."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)
