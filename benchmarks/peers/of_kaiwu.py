"""kaiwu-torch-plugin: its first run alone; what it samples with is its vendor's annealer."""

from __future__ import annotations

import numpy as np
import serve


def first(bits: np.ndarray) -> None:
    """The README's program on digits: one pass of an RBM's objective, sampled by the classical annealer."""
    import torch
    from kaiwu.classical import SimulatedAnnealingOptimizer
    from kaiwu.torch_plugin import RestrictedBoltzmannMachine

    rbm, sampler = RestrictedBoltzmannMachine(bits.shape[1], serve.HIDDEN), SimulatedAnnealingOptimizer()
    optimizer = torch.optim.SGD(rbm.parameters())
    for batch in serve.batches(torch.from_numpy(bits).float(), np.random.default_rng(0)):
        optimizer.zero_grad()
        rbm.objective(rbm.get_hidden(batch), rbm.sample(sampler)).backward()
        optimizer.step()


if __name__ == "__main__":
    serve.main(first)
