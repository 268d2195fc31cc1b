"""Moving averages of a model's weights, which are validated and kept in the weights' place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from dvaepp.errors import InputError

AVERAGE = "average."
"""Before the names of averages in a checkpoint."""
_FORGETTING = 10


class Averages:
    """w_mean <- w_mean + a_t (w - w_mean) after step t, a_t = max(1 - decay, 10 / (9 + t)), for what training moves.

    So early on the mean is over the latest tenth of the steps, later over some 1 / (1 - decay) of them. It is of all
    parameters that take gradients, and of the means and variances that batch norm keeps.

    >>> layer = nn.Linear(1, 1)
    >>> averages = Averages(layer, decay=0.5)
    >>> for value in (3.0, 5.0):
    ...     _ = layer.weight.data.fill_(value)
    ...     averages.step(100)
    >>> with averages.in_place():
    ...     mean = layer.weight.item()
    >>> 3 < mean < layer.weight.item() == 5
    True
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._current: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        for prefix, module in model.named_modules():
            if isinstance(module, _NormBase):
                kept = {"running_mean": module.running_mean, "running_var": module.running_var}
                self._current |= {f"{prefix}.{name}": value for name, value in kept.items() if value is not None}
        self.means = {name: tensor.detach().clone() for name, tensor in self._current.items()}
        """By the names that the model has for them."""

    def share(self, step: int) -> float:
        """a_t: what of a mean the weights after step t become."""
        return max(1 - self._decay, _FORGETTING / (_FORGETTING - 1 + step))

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Take in the weights as they are after this step, counted from 1."""
        torch._foreach_lerp_(*self.pairs(), self.share(step))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The means are the model's weights for as long as the block lasts."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, mean in self.means.items():
            weight = self._current[name].clone()
            self._current[name].copy_(mean)
            mean.copy_(weight)

    def pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """The means, and what they are of."""
        return list(self.means.values()), list(self._current.values())

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The means by their names in a checkpoint."""
        return ((AVERAGE + name, mean) for name, mean in self.means.items())

    def load(self, path: Path, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` gave; InputError where the checkpoint at this path holds something else."""
        for name, mean in self.means.items():
            there = tensors.get(AVERAGE + name)
            if there is None or there.shape != mean.shape:
                raise InputError(f"{path} does not fit the recipe: it holds no average of {name} of its shape")
            mean.copy_(there)


def averaged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors with the averages, where it has them, as the weights of the model."""
    means = {f"model.{name.removeprefix(AVERAGE)}": t for name, t in tensors.items() if name.startswith(AVERAGE)}
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(AVERAGE)} | means
