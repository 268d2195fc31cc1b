"""The contract of priors over all the latent bits."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.boltzmann.diagnostics import ChainDiagnostics
from dvaepp.boltzmann.log_partition import LogPartition
from dvaepp.components.registry import Component
from dvaepp.errors import InputError
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import hard

NORMALISED = LogPartition(0.0, 0.0, None, True, "normalised by construction")


class Prior(nn.Module, ABC):
    """p(z) over all the bits, whose log Z is `log_partition`: None until it has been estimated for the first time.

    `BernoulliPrior`, `DirectedPrior` (Sec. 4), `BoltzmannPrior` (Sec. 5), `NormalPrior`; docs/guides/prior.md adds one.

    >>> from dvaepp import BernoulliPrior, hard
    >>> prior = BernoulliPrior(3)  # any Prior
    >>> prior.log_prob(prior.sample(2), hard)
    tensor([-2.0794, -2.0794], grad_fn=<SumBackward1>)
    """

    log_partition: LogPartition | None
    joins_groups = False
    """Whether the KL joins bits of different groups, and so rests on nu (Sec. 5)."""

    @abstractmethod
    def kl_terms(self, q: Any) -> Float[Tensor, "*batch terms"]:
        """The terms of KL(q(z, zeta | x) || p(z, zeta)), nats, for the draw in q: one a group, or one in all."""

    def kl(self, q: Any) -> Float[Tensor, "*batch"]:
        """KL(q(z, zeta | x) || p(z, zeta)), nats: an estimate from q's one draw, unbiased in value and gradient."""
        return self.kl_terms(q).sum(-1)

    @abstractmethod
    def log_prob(
        self, zeta: Float[Tensor, "*batch bits"], smoothing: Smoothing, *, unnormalised: bool = False
    ) -> Float[Tensor, "*batch"]:
        """log p(zeta), nats, with z summed out; with `hard`, log p(z). `unnormalised`: plus log Z, as a constant."""

    def log_prob_bits(
        self, z: Float[Tensor, "*batch bits"], zeta: Float[Tensor, "*batch bits"], *, unnormalised: bool = False
    ) -> Float[Tensor, "*batch"]:
        """log p(z | zeta) = sum_k log p(z_k | zeta_<k), nats, for bits z; here zeta takes no part."""
        return self.log_prob(z, hard, unnormalised=unnormalised)

    def has_density(self, smoothing: Smoothing) -> bool:
        """Whether log_prob can be had for this smoothing."""
        return True

    @abstractmethod
    def sample(self, num_samples: int) -> Float[Tensor, "samples bits"]:
        """Bits drawn from p(z), in the binary limit. Moves no state but the random generator's."""

    def refresh(self, noise: Float[Tensor, "sweeps *_ bits"] | None = None) -> None:
        """Advance what the gradient of log Z is estimated from, if anything: call it once a training step.

        `noise`: the uniform numbers that a sampler draws with, where it takes them.
        """

    @property
    def chain_noise(self) -> tuple[int, ...] | None:
        """The shape of `refresh`'s noise, of no numbers where it draws its own; None where it does nothing."""
        return None if type(self).refresh is Prior.refresh else (0,)

    def restart(self) -> None:
        """Begin the chains anew from the random state as it is, if there are any."""

    def chain_diagnostics(self) -> ChainDiagnostics | None:
        """How the chains are that the gradient of log Z comes from; None where there are none. Moves no state."""
        return None

    def estimate_log_partition(
        self, *, temperatures: int = 1000, chains: int = 1024, repeats: int = 3, thorough: bool = False
    ) -> LogPartition:
        """Find log Z for the parameters as they are now, and keep it as `log_partition`.

        The settings are those of annealed importance sampling, used where log Z cannot be had exactly; `thorough` adds
        other ways, which must agree with it (`dvaepp.estimate_log_partition`).
        """
        return NORMALISED

    @property
    def log_partition_is_current(self) -> bool:
        """Whether the parameters are still those that `log_partition` was found for."""
        return True

    def known_log_partition(self) -> LogPartition:
        """log Z as a likelihood needs it; InputError unless it is finite and that of the parameters as they are."""
        if self.log_partition is None or not self.log_partition_is_current:
            raise InputError(
                "a likelihood needs log Z as it is now: call model.prior.estimate_log_partition() first (log_prob, "
                "log_weight and importance_weighted do without where they are asked for unnormalised=True)"
            )
        if not math.isfinite(self.log_partition.value):
            raise InputError(f"log Z is {self.log_partition}: the parameters are not finite, or far too large")
        return self.log_partition


class PriorDesign(Component, ABC):
    """A prior in plain settings, as recipes name it: called with what it is over it makes the module.

    >>> from dvaepp.priors.directed import BernoulliDesign
    >>> BernoulliDesign()((3, 4), nn.Linear).sample(2).shape  # any PriorDesign
    torch.Size([2, 7])
    """

    kind: ClassVar[str] = "prior"
    folder: ClassVar[str] = "dvaepp.priors"
    normal: ClassVar[bool] = False
    """Its variables are normal, not bits."""
    feed_forward: ClassVar[bool] = True
    """Feed-forward models may have it."""
    convolutional: ClassVar[bool] = True
    """Convolutional models may have it."""

    @abstractmethod
    def __call__(self, groups: tuple[int, ...], network: Callable[[int, int], nn.Module]) -> Prior:
        """The prior over groups of bits of these sizes; `network(inputs, outputs)` makes a network of the model's kind.

        InputError where it cannot be over these groups.
        """

    def outline(self) -> PriorDesign:
        """The same with as few chains as can be: enough to ask what bounds it has."""
        return self

    @property
    def file(self) -> str | None:
        """The path of the file that it is made from, if it is."""
        return None

    def with_file(self, path: str) -> PriorDesign:
        """The same with its file there."""
        raise InputError(f"prior {self.name!r} is made from no file")


def check_bits(owner: str, bits: int, zeta: Tensor) -> None:
    """InputError unless zeta has as many variables as its owner."""
    if zeta.shape[-1:] != (bits,):
        raise InputError(f"{owner} has {bits} bits, but was given a tensor of shape {tuple(zeta.shape)}")
