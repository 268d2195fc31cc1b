"""dwave-pytorch-plugin: an RBM as a Boltzmann machine on a complete bipartite graph, and its two block samplers."""

from __future__ import annotations

from typing import Any

import numpy as np
import serve
import torch

torch.set_num_threads(1)


def bipartite(one: int, other: int) -> tuple[Any, range]:
    from dwave.plugins.torch.models import GraphRestrictedBoltzmannMachine

    hidden = range(one, one + other)
    edges = [(i, j) for i in range(one) for j in hidden]
    return GraphRestrictedBoltzmannMachine(range(one + other), edges, hidden_nodes=hidden), hidden


def first(bits: np.ndarray) -> None:
    """The README's program, then an epoch on digits and samples."""
    from dwave.plugins.torch.models import GraphRestrictedBoltzmannMachine
    from dwave.plugins.torch.samplers import BlockSampler

    grbm = GraphRestrictedBoltzmannMachine(nodes="abcd", edges=[("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")])
    sampler = BlockSampler(grbm=grbm, colouring=lambda v: v in {"b", "d"}, num_chains=3, schedule=[1] * 10)
    x = torch.tensor([[1, -1, 1, -1], [-1, 1, 1, 1]], dtype=torch.float32)
    optimizer = torch.optim.SGD(grbm.parameters(), lr=1)
    grbm.quasi_objective(x, sampler.sample()).backward()
    optimizer.step()
    learner = Learner(bits, 0.01)
    learner.epoch()
    learner.sampler.sample()


def jobs(kind: str) -> serve.Work:
    from dwave.plugins.torch.samplers import BlockSampler
    from dwave.plugins.torch.samplers.bipartite_sampler import BipartiteGibbsSampler

    machine, _ = bipartite(serve.SIDE, serve.SIDE)
    machine.quadratic.data.normal_(0, 0.025)  # a quarter of the others' .1, between spins
    schedule, chains = [1.0] * serve.SWEEPS, serve.GIBBS_CHAINS
    if kind == "bipartite":
        return BipartiteGibbsSampler(machine, num_chains=chains, schedule=schedule).sample
    return BlockSampler(machine, lambda node: node >= serve.SIDE, num_chains=chains, schedule=schedule).sample


class Learner:
    def __init__(self, bits: np.ndarray, rate: float) -> None:
        from dwave.plugins.torch.samplers.bipartite_sampler import BipartiteGibbsSampler

        torch.manual_seed(0)
        self.random, self.spins = np.random.default_rng(0), 2 * torch.from_numpy(bits).float() - 1
        self.machine, _ = bipartite(bits.shape[1], serve.HIDDEN)
        self.machine.set_linear(dict(enumerate((-serve.log_odds(bits) / 2).tolist())))
        self.sampler = BipartiteGibbsSampler(self.machine, num_chains=serve.CHAINS, schedule=[1.0], seed=0)
        self.optimizer = torch.optim.SGD(self.machine.parameters(), lr=rate)

    def epoch(self) -> None:
        for batch in serve.batches(self.spins, self.random):
            self.optimizer.zero_grad()
            self.machine.quasi_objective(batch, self.sampler.sample(), kind="exact-disc").backward()
            self.optimizer.step()

    def parameters(self) -> serve.Parameters:
        visible = self.spins.shape[1]
        weights = -self.machine.quadratic.detach().numpy().reshape(visible, serve.HIDDEN)
        return serve.of_spins(-self.machine.linear.detach().numpy(), weights)


if __name__ == "__main__":
    serve.main(first, {"gibbs": lambda: jobs("bipartite"), "gibbs, BlockSampler": lambda: jobs("block")}, Learner)
