"""Muon, which steps as far in every direction, for the matrices of layers (Jordan et al. 2024); Adam for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from dvaepp.errors import InputError
from dvaepp.numerics import check_above, is_number, keep_plain
from dvaepp.optimisers.adam import Adam, set_adam_rate
from dvaepp.optimisers.base import Optimiser, Rule, parameter_groups

_A, _B, _C = 3.4445, -4.7750, 2.0315
"""The quintic's coefficients: chosen by Jordan et al. for the steepest rise at 0."""


class Muon(Optimizer):
    """W <- W - lr sqrt(max(1, m / n)) orthogonal((1 - momentum) g + momentum a), a <- momentum a + (1 - momentum) g.

    g is the gradient of W (m, n), a its running mean, begun at 0. A convolution's weights (m, c, h, w) are the matrix
    (m, c h w). `weight_decay` adds weight_decay W to g: the L2 term in the loss. For the matrices of layers; biases,
    gains and a Boltzmann machine's couplings take another optimiser. Matrices of one shape go through one batched
    product. Raises InputError for a parameter of fewer than two dimensions.
    """

    def __init__(
        self, parameters: Iterable[Any], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim < 2:
                    raise InputError(f"Muon takes matrices and convolutions, not a tensor {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step along the gradients that there are; the closure's loss."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            matrices = sorted((p for p in group["params"] if p.grad is not None), key=_shape)
            for _, alike in groupby(matrices, _shape):
                same = list(alike)
                directions = torch.stack([self._direction(p, group) for p in same])
                steps = group["lr"] * unit_step(directions)
                for parameter, step in zip(same, steps, strict=True):
                    parameter.sub_(step)
        return loss

    def _direction(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """(1 - momentum) g + momentum a."""
        assert parameter.grad is not None
        gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
        state = self.state[parameter]
        mean = state["mean"] if "mean" in state else torch.zeros_like(parameter)
        state["mean"] = mean.lerp(gradient, 1 - group["momentum"])
        return gradient.lerp(state["mean"], group["momentum"])


def unit_step(directions: Float[Tensor, "stack m *n"]) -> Float[Tensor, "stack m *n"]:
    """sqrt(max(1, m / n)) orthogonal(direction), what a step moves by at rate 1; a convolution as (m, c h w)."""
    matrices = directions.flatten(2)
    rows, columns = matrices.shape[1:]
    scale: float = max(1.0, rows / columns) ** 0.5
    return scale * orthogonal(matrices).view_as(directions)


@dataclass(frozen=True)
class MuonRule(Rule):
    """W <- W - rate unit_step((1 - momentum) g + momentum a), a <- momentum a + (1 - momentum) g: `Muon` of a stack."""

    kept: ClassVar[tuple[str, ...]] = ("mean",)
    times: float
    momentum: float

    def rate(self, learning_rate: float, step: int) -> float:
        """So many times the learning rate."""
        return self.times * learning_rate

    def __call__(self, parameter: Tensor, gradient: Tensor, kept: dict[str, Tensor], rate: Tensor) -> Tensor:
        """W - rate unit_step; parameters are stacked."""
        mean = kept["mean"].lerp_(gradient, 1 - self.momentum)
        return parameter - rate * unit_step(gradient.lerp(mean, self.momentum))


def _shape(parameter: Tensor) -> tuple[int, ...]:
    return tuple(parameter.shape)


def orthogonal(matrices: Float[Tensor, "*batch m n"], iterations: int = 5) -> Float[Tensor, "*batch m n"]:
    """About U V' of G = U S V': every singular value brought near 1, by X <- a X + (b X X' + c (X X')^2) X.

    After five rounds of this Newton-Schulz iteration from G / |G| (Frobenius), singular values above 1 / 100 of |G| lie
    between .68 and 1.14; smaller ones may still be below or overshoot to 1.21. One alone, as in a row, ends at .70.
    Where |G| is below 1e-7 it is divided by that, so that what is only rounding moves nothing (Jordan et al. 2024).
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if tall else x


@dataclass(frozen=True)
class MuonAndAdam(Optimiser):
    """Weights of linear and convolutional layers take Muon's steps, at `rate` times the learning rate; Adam the rest.

    Couplings of a Boltzmann machine are no linear map and stay with Adam.

    >>> list(MuonAndAdam()(nn.Linear(3, 2), l2=0.0))
    ['optimizer', 'muon']
    """

    name: ClassVar[str] = "muon"
    rate: float = 10.0
    momentum: float = 0.95
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        keep_plain(self)
        check_above("rate", self.rate)
        check_above("epsilon", self.epsilon)
        if not (is_number(self.momentum) and 0 <= self.momentum < 1):
            raise InputError(f"momentum of Muon must lie in [0, 1), not {self.momentum!r}")

    def __call__(self, model: nn.Module, l2: float) -> dict[str, Optimizer]:
        """`optimizer`, Adam, and `muon`, each where there is something for it."""
        matrices = [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        rest = parameter_groups(model, l2, {id(matrix) for matrix in matrices})
        made: dict[str, Optimizer] = {"optimizer": torch.optim.Adam(rest, fused=True)} if rest else {}
        return made | ({"muon": Muon(matrices, momentum=self.momentum, weight_decay=l2)} if matrices else {})

    @property
    def rules(self) -> dict[str, Rule]:
        """Muon's for matrices, Adam's for the rest."""
        return {**Adam(self.epsilon).rules, "muon": MuonRule(self.rate, self.momentum)}

    def set_rate(self, optimizers: dict[str, Optimizer], rate: float, step: int) -> None:
        """Adam's rate, and so many times it for Muon."""
        if "optimizer" in optimizers:
            set_adam_rate(optimizers["optimizer"], rate, self.epsilon, step)
        for group in optimizers["muon"].param_groups if "muon" in optimizers else ():
            group["lr"] = self.rate * rate
