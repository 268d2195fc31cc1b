"""Ours, by the same rules. It has no trainer of RBMs: a learner is a loop over a machine's public functions."""

from __future__ import annotations

import numpy as np
import serve
import torch

import dvaepp

torch.set_num_threads(1)


def first(bits: np.ndarray) -> None:
    """The README's three lines on digits, one epoch, and samples."""
    run = dvaepp.train("quick/rbm", data="digits", steps=40, out="run")
    run.sample(16)


def gibbs() -> serve.Work:
    machine = dvaepp.BoltzmannMachine(serve.SIDE, serve.SIDE)
    torch.nn.init.normal_(machine.couplings[0], std=0.1)
    z = dvaepp.PersistentChains(serve.GIBBS_CHAINS).start(machine)
    return lambda: machine.gibbs(z, serve.SWEEPS)


class Learner:
    def __init__(self, bits: np.ndarray, rate: float) -> None:
        torch.manual_seed(0)
        self.random, self.bits = np.random.default_rng(0), torch.from_numpy(bits).float()
        self.machine = dvaepp.BoltzmannMachine(bits.shape[1], serve.HIDDEN)
        torch.nn.init.normal_(self.machine.couplings[0], std=0.01)
        with torch.no_grad():
            self.machine.bias[: bits.shape[1]] = torch.from_numpy(serve.log_odds(bits))
        self.chains = dvaepp.PersistentChains(serve.CHAINS).start(self.machine)
        self.optimizer = torch.optim.SGD(self.machine.parameters(), lr=rate)

    def epoch(self) -> None:
        for batch in serve.batches(self.bits, self.random):
            with torch.no_grad():
                data = torch.cat([batch, torch.zeros(len(batch), serve.HIDDEN)], 1)
                data[:, self.bits.shape[1] :] = self.machine.field(data, 1).sigmoid()
                self.chains = self.machine.gibbs(self.chains, 1)
            self.optimizer.zero_grad()
            (self.machine.energy(data).mean() - self.machine.energy(self.chains).mean()).backward()
            self.optimizer.step()

    def parameters(self) -> serve.Parameters:
        bias, visible = self.machine.bias.detach().numpy(), self.bits.shape[1]
        return bias[:visible], bias[visible:], self.machine.couplings[0].detach().numpy()


if __name__ == "__main__":
    serve.main(first, {"gibbs": gibbs}, Learner)
