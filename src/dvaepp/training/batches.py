"""Which examples are seen at which step."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from dvaepp.randomness import stream_seed


class BatchOrder:
    """Which examples make the batch of a step: an endless run of seeded shuffles, a function of the step alone."""

    def __init__(self, examples: int, batch: int, seed: int) -> None:
        self.examples, self.batch, self.seed = examples, batch, seed
        self._shuffles: dict[int, Tensor] = {}

    def indices(self, step: int) -> Int[Tensor, " batch"]:
        """The examples of this step's batch."""
        return self.of_steps(step, 1)[0]

    def of_steps(self, step: int, steps: int) -> Int[Tensor, "steps batch"]:
        """The examples of the batches of so many steps, from this one on."""
        first, end = step * self.batch, (step + steps) * self.batch
        epochs = range(first // self.examples, (end - 1) // self.examples + 1)
        self._shuffles = {e: self._shuffles[e] if e in self._shuffles else self._shuffle(e) for e in epochs}
        order = torch.cat([self._shuffles[e] for e in epochs])
        start = first - epochs[0] * self.examples
        return order[start : start + end - first].view(steps, self.batch)

    def _shuffle(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(stream_seed("batches", self.seed, epoch))
        return torch.randperm(self.examples, generator=generator)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; a GPU is not waited for."""
    if tensor.device == device or device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
