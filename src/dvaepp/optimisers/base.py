"""The contract of optimisers: which parameters take which of torch's kind, and how fast they go at a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from dvaepp.components.registry import Component
from dvaepp.errors import InputError


class Rule(ABC):
    """How a parameter moves, as a function of tensors: those of several models may be stacked along a first axis.

    >>> import torch
    >>> from dvaepp.optimisers.adam import Adam
    >>> rule = Adam().rules["optimizer"]  # any Rule
    >>> kept = {name: torch.zeros(3) for name in rule.kept}
    >>> rule(torch.zeros(3), torch.ones(3), kept, torch.tensor(rule.rate(0.1, step=1)))
    tensor([-0.0969, -0.0969, -0.0969])
    """

    kept: ClassVar[tuple[str, ...]]
    """What it keeps of earlier steps for each parameter, in its shape, 0 at first; by the names that torch has."""
    counted: ClassVar[bool] = False
    """Whether torch's optimiser counts the steps of each parameter."""

    @abstractmethod
    def rate(self, learning_rate: float, step: int) -> float:
        """The rate of a step, counted from 1, with all that depends on nothing else."""

    @abstractmethod
    def __call__(
        self,
        parameter: Float[Tensor, "*shape"],
        gradient: Float[Tensor, "*shape"],
        kept: dict[str, Tensor],
        rate: Float[Tensor, "*#shape"],
    ) -> Float[Tensor, "*shape"]:
        """The parameter after the step; what is kept is changed in place."""


class Optimiser(Component, ABC):
    """Plain settings; called with a model it gives torch's optimisers by the names under which checkpoints hold them.

    >>> from dvaepp.optimisers.adam import Adam
    >>> made = Adam()(nn.Linear(3, 2), l2=1e-4)  # any Optimiser
    >>> Adam().set_rate(made, 1e-3, step=1)
    """

    kind: ClassVar[str] = "optimiser"
    folder: ClassVar[str] = "dvaepp.optimisers"

    @abstractmethod
    def __call__(self, model: nn.Module, l2: float) -> dict[str, Optimizer]:
        """Optimisers that share the parameters of a model among them; l2 w is added to gradients: the loss's L2 term.

        On weights, gains of batch norm and couplings; biases have none.
        """

    @property
    def rules(self) -> dict[str, Rule]:
        """The same steps as functions of tensors, by the same names; InputError where there are none."""
        raise InputError(f"optimiser {self.name!r} has no rules, by which stacked or compiled steps move parameters")

    @abstractmethod
    def set_rate(self, optimizers: dict[str, Optimizer], rate: float, step: int) -> None:
        """Set them to this learning rate for a step, counted from 1."""


def parameter_groups(model: nn.Module, l2: float, but: Collection[int] = ()) -> list[dict[str, Any]]:
    """All parameters but those of these ids, with l2 where it acts."""
    gains = {id(m.weight) for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    rest = [p for p in model.parameters() if id(p) not in but]
    decayed = [p for p in rest if p.ndim > 1 or id(p) in gains]
    others = [p for p in rest if p.ndim <= 1 and id(p) not in gains]
    groups = [{"params": decayed, "weight_decay": l2}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
