"""Rolfe's gradient and the overlapping one on 3+3 bits: distance from the exact gradient, and variance, side by side.

``OMP_NUM_THREADS=1 python benchmarks/rolfe.py``: the KL of q(z1 | x) q(z2 | zeta1, x) to an RBM, in the logits of z1
and the parameters of the network of z2. Exact: bits enumerated, zeta1 by Gauss-Legendre quadrature.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn

import dvaepp
from dvaepp.objectives.rolfe import lost_gradient
from dvaepp.priors.boltzmann import expected_energy
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.posterior import Posterior

DRAWS, BATCHES, NODES = 2000, 200, 14


class Hierarchy(nn.Module):
    """Three logits, and a network from three zeta to three logits; float64."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([-1.0, 0.3, 1.5]))
        self.second = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))
        self.double()

    def draw(self, smoothing: Smoothing, draws: int) -> Posterior:
        first = smoothing(self.first.expand(draws, 3))
        zeta1 = first.relaxed_sample()
        second = smoothing(self.second(zeta1))
        return Posterior((first, second), (zeta1, second.relaxed_sample()))


def nodes(smoothing: Smoothing) -> tuple[Tensor, Tensor, Tensor]:
    """z, zeta and the weight of zeta given z."""
    x, w = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(NODES))
    zeta, weight = (x + 1) / 2, w / 2
    beta = smoothing.beta
    one = beta * torch.exp(beta * (zeta - 1)) / -math.expm1(-beta) * weight
    if isinstance(smoothing, dvaepp.SpikeExponential):
        z = torch.cat([torch.zeros(1), torch.ones(NODES)]).double()
        return z, torch.cat([torch.zeros(1).double(), zeta]), torch.cat([torch.ones(1).double(), one])
    zero = beta * torch.exp(-beta * zeta) / -math.expm1(-beta) * weight
    return torch.cat([torch.zeros(NODES), torch.ones(NODES)]).double(), zeta.repeat(2), torch.cat([zero, one])


def exact_kl(hierarchy: Hierarchy, machine: dvaepp.BoltzmannMachine, smoothing: Smoothing) -> Tensor:
    """sum over z1, z2 and the integral over zeta1 of q (log q(z1) + log q(z2 | zeta1) - log p(z1, z2))."""
    z, zeta, weight = nodes(smoothing)
    grid = torch.tensor(list(itertools.product(range(len(z)), repeat=3)))
    z1, zeta1, mass = z[grid], zeta[grid], weight[grid].prod(1)
    z2 = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 3)
    log_q1 = (z1 * hierarchy.first - nn.functional.softplus(hierarchy.first)).sum(1, keepdim=True)
    logits = hierarchy.second(zeta1)[:, None]
    log_q2 = (z2 * logits - nn.functional.softplus(logits)).sum(-1)
    both = torch.cat([z1[:, None].expand(-1, 8, -1), z2.expand(len(z1), -1, -1)], -1)
    log_p = -machine.energy(both) - dvaepp.exact_log_partition(machine)
    return (mass[:, None] * (log_q1 + log_q2).exp() * (log_q1 + log_q2 - log_p)).sum()


def gradient(value: Tensor, hierarchy: Hierarchy) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(hierarchy.parameters()))])


def measure(name: str, smoothing: Smoothing, hierarchy: Hierarchy, machine: dvaepp.BoltzmannMachine) -> None:
    exact, found = gradient(exact_kl(hierarchy, machine, smoothing), hierarchy), []
    for _ in range(BATCHES):
        q = hierarchy.draw(smoothing, DRAWS)
        nu = lost_gradient(q) if isinstance(smoothing, dvaepp.SpikeExponential) else q.nu
        kl = dvaepp.exact_log_partition(machine) - q.entropy() + expected_energy(machine, q, nu=nu)
        found.append(gradient(kl.mean(), hierarchy))
    gradients = torch.stack(found)
    off = (gradients.mean(0) - exact).abs() / (gradients.std(0) / math.sqrt(BATCHES))
    variance = gradients.var(0) * DRAWS
    print(
        f"{name:28} largest distance {float(off.max()):.1f} standard errors of {len(off)} entries; "
        f"variance of one draw: logits of z1 {float(variance[:3].sum()):.3f}, all {float(variance.sum()):.3f}; "
        f"squared norm of the exact gradient {float((exact**2).sum()):.3f}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    hierarchy, machine = Hierarchy(), dvaepp.BoltzmannMachine(3, 3).double()
    for parameter in machine.parameters():
        nn.init.normal_(parameter, std=1.0)
    for beta in (3.0, 5.0, 8.0):
        measure(f"Rolfe, beta {beta:g}", dvaepp.SpikeExponential(beta), hierarchy, machine)
        measure(f"overlapping, beta {beta:g}", dvaepp.OverlappingExponential(beta), hierarchy, machine)
