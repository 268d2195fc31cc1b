"""Optimisers: Adam, and for the matrices of layers Muon, which steps as far in every direction (Jordan et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from dvaepp.errors import InputError

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
            for (rows, columns), alike in groupby(matrices, _shape):
                same = list(alike)
                directions = torch.stack([self._direction(p, group).flatten(1) for p in same])
                steps = orthogonal(directions) * (group["lr"] * max(1.0, rows / columns) ** 0.5)
                for parameter, step in zip(same, steps, strict=True):
                    parameter.sub_(step.view_as(parameter))
        return loss

    def _direction(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """(1 - momentum) g + momentum a."""
        assert parameter.grad is not None
        gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
        state = self.state[parameter]
        mean = state.get("mean", torch.zeros_like(parameter))
        state["mean"] = mean.lerp(gradient, 1 - group["momentum"])
        return gradient.lerp(state["mean"], group["momentum"])


def _shape(parameter: Tensor) -> tuple[int, int]:
    return parameter.shape[0], parameter[0].numel()


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


def optimizers(model: nn.Module, muon: bool, l2: float) -> dict[str, Optimizer]:
    """`optimizer`, Adam, of all parameters; or `muon` of linear and convolutional layers' weights, Adam of the rest.

    weight_decay adds l2 w to the gradient: the L2 term in the loss. Biases have none.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    matrices = [layer.weight for layer in layers] if muon else []
    apart = {id(matrix) for matrix in matrices}
    gains = {id(m.weight) for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    rest = [p for p in model.parameters() if id(p) not in apart]
    decayed = [p for p in rest if p.ndim > 1 or id(p) in gains]
    others = [p for p in rest if p.ndim <= 1 and id(p) not in gains]
    groups = [{"params": decayed, "weight_decay": l2}, {"params": others, "weight_decay": 0.0}]
    adam = torch.optim.Adam([group for group in groups if group["params"]], fused=True)
    return {"optimizer": adam, "muon": Muon(matrices, weight_decay=l2)} if muon else {"optimizer": adam}
