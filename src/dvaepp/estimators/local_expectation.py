"""Local expectations: every bit's derivative summed out, given the others at their draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.estimators.base import Function, PlainEstimator, evaluate
from dvaepp.gradients import add_gradient
from dvaepp.networks.dense import flipped


@dataclass(frozen=True)
class LocalExpectation(PlainEstimator):
    """g_i = q_i (1 - q_i) (f(b with b_i = 1) - f(b with b_i = 0)) for every bit i (Titsias & Lazaro-Gredilla 2015).

    Unbiased, exact in a bit given the others, and exact for one bit. No derivative in b; f at the draw and at its
    `bits` flips, in one call on (bits, batch, bits), or by `f.flips(b)`, (bits, batch), where f has such a method: the
    models of `elbo` do, and their decoder's first layer sees b once. The flips leave no graph; what f holds takes its
    gradient from the draw.

    >>> LocalExpectation()(lambda b: b.sum(-1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """

    name: ClassVar[str] = "local-expectation"
    flips: ClassVar[bool] = True
    unbiased: ClassVar[bool] = True
    draws: ClassVar[int] = 1
    uniforms: ClassVar[int] = 1

    def value(
        self, f: Function, logits: Float[Tensor, "batch bits"], uniform: Float[Tensor, "uniforms batch bits"]
    ) -> Float[Tensor, " batch"]:
        """f(b)."""
        b = self.sample(logits, uniform)[0]
        value = evaluate(f, b)
        with torch.no_grad():
            flips = f.flips(b) if hasattr(f, "flips") else evaluate(f, flipped(b))
        change = (flips - value.detach()).T * (1 - 2 * b)
        return add_gradient(value, logits, torch.sigmoid(logits) * torch.sigmoid(-logits) * change)
