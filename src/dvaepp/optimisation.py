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
    """W <- W - lr sqrt(max(1, m / n)) orthogonal(g + momentum a), with a the running mean of gradients g, for W (m, n).

    Exactly, with the mean a <- momentum a + (1 - momentum) g the direction is (1 - momentum) g + momentum a (Nesterov).
    A convolution's weights (m, c, h, w) are the matrix (m, c h w). `weight_decay` adds weight_decay W to g: the L2 term
    in the loss. It is for the matrices of layers; biases, gains and a Boltzmann machine's couplings take another
    optimiser. Matrices of one shape are taken together. Raises InputError for a parameter of fewer than two dimensions.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim < 2:
                    raise InputError(f"Muon takes matrices and convolutions, not a tensor {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step along the gradients that there are."""
        assert closure is None
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._descend(parameters, group["lr"], group["momentum"], group["weight_decay"])

    def _descend(self, parameters: list[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if weight_decay:
            gradients = [g.add(p, alpha=weight_decay) for g, p in zip(gradients, parameters, strict=True)]
        for parameter in parameters:
            if "mean" not in self.state[parameter]:
                self.state[parameter]["mean"] = torch.zeros_like(parameter)
        means = [self.state[p]["mean"] for p in parameters]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        directions = torch._foreach_lerp(gradients, means, momentum)
        matrices = sorted(zip(parameters, directions, strict=True), key=lambda pair: _shape(pair[0]))
        for (rows, columns), same in groupby(matrices, key=lambda pair: _shape(pair[0])):
            chosen, stack = zip(*((p, d.flatten(1)) for p, d in same), strict=True)
            steps = orthogonal(torch.stack(stack)) * (lr * max(1.0, rows / columns) ** 0.5)
            torch._foreach_sub_(chosen, [s.view_as(p) for p, s in zip(chosen, steps, strict=True)])


def _shape(parameter: Tensor) -> tuple[int, int]:
    return parameter.shape[0], parameter[0].numel()


def orthogonal(matrices: Float[Tensor, "*batch m n"], iterations: int = 5) -> Float[Tensor, "*batch m n"]:
    """About U V' of G = U S V': every singular value brought near 1, by X <- a X + (b X X' + c (X X')^2) X.

    After five rounds of this Newton-Schulz iteration singular values that were above 1 / 100 of the Frobenius norm lie
    between .68 and 1.14; smaller ones are still on their way up. 0 stays 0. (Jordan et al. 2024.)
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if tall else matrices
    for order in (torch.inf, 2):  # the largest entry first, lest squares underflow
        size = torch.linalg.vector_norm(x, order, (-2, -1), keepdim=True)
        x = x / size.clamp(min=torch.finfo(x.dtype).tiny)
    for _ in range(iterations):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if tall else x


def optimizers(model: nn.Module, muon: float | None, l2: float) -> dict[str, Optimizer]:
    """`optimizer`, Adam, of all parameters; or, unless `muon` is None, `muon` of layers' matrices, Adam of the others.

    Adam's weight_decay adds l2 w to the gradient: the L2 term in the loss. Biases have none.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    matrices = [] if muon is None else [layer.weight for layer in layers]
    apart = {id(matrix) for matrix in matrices}
    gains = {id(m.weight) for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    named = [p for p in model.parameters() if id(p) not in apart]
    decayed = [p for p in named if p.ndim > 1 or id(p) in gains]
    others = [p for p in named if p.ndim <= 1 and id(p) not in gains]
    groups = [{"params": decayed, "weight_decay": l2}, {"params": others, "weight_decay": 0.0}]
    adam = torch.optim.Adam([group for group in groups if group["params"]], fused=True)
    return {"optimizer": adam} if muon is None else {"optimizer": adam, "muon": Muon(matrices, weight_decay=l2)}
