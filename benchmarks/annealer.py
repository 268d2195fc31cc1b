"""Whether D-Wave's simulated annealing samples p(z), by schedule, and what a draw costs beside chromatic Gibbs.

``OMP_NUM_THREADS=1 python benchmarks/annealer.py``. On RBMs of 8+8 bits whose moments are enumerated: the largest error
of a marginal or pair moment, also in standard errors, and the inverse temperature that the samples look drawn at.
"""

from __future__ import annotations

import time

import torch
from dwave.samplers import SimulatedAnnealingSampler

import dvaepp

READS = 100_000


def linear_anneal(sweeps: int) -> dvaepp.DimodSampler:
    parameters = {
        "num_sweeps": sweeps,
        "beta_range": [0.0, 1.0],
        "beta_schedule_type": "linear",
        "proposal_acceptance_criteria": "Gibbs",
    }
    return dvaepp.DimodSampler(SimulatedAnnealingSampler(), READS, parameters=parameters)


def accuracy(name: str, sampler: dvaepp.DimodSampler, sd: float) -> None:
    machine = dvaepp.BoltzmannMachine(8, 8)
    torch.manual_seed(0)
    for parameter in machine.parameters():
        torch.nn.init.normal_(parameter, std=sd)
    states = ((torch.arange(2**16)[:, None] >> torch.arange(16)) & 1).float()
    with torch.no_grad():
        weighted = states * torch.softmax(-machine.energy(states), 0)[:, None]
    exact = weighted.T @ states
    z = sampler.start(machine)
    error = (z.T @ z / READS - exact).abs()
    sigma = (exact * (1 - exact) / READS).sqrt().clamp(min=1e-6)
    beta = dvaepp.chain_diagnostics(machine, z).effective_inverse_temperature
    print(
        f"{name:32} sd {sd:g}: largest error {float(error.max()):.4f}, {float((error / sigma).max()):.0f} standard "
        f"errors; looks drawn at {beta:.3f}"
    )


def speed() -> None:
    machine = dvaepp.machine_on_graph(dvaepp.hardware_graph("zephyr-2"))
    for parameter in machine.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for sweeps in (20, 40):
        ways = (("annealer", dvaepp.simulated_annealing(200, sweeps)), ("Gibbs", dvaepp.PersistentChains(200, sweeps)))
        for name, sampler in ways:
            state, start = sampler.start(machine), time.perf_counter()
            for _ in range(20):
                state = sampler.advance(machine, state)
            print(f"zephyr-2, 200 x {sweeps} sweeps, {name}: {(time.perf_counter() - start) * 50:.1f} ms")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for sd in (0.3, 1.0, 2.0):
        for sweeps in (10, 20):
            accuracy(f"anneal 0 to 1, {sweeps} sweeps", linear_anneal(sweeps), sd)
            accuracy(f"half of {sweeps} sweeps at 1", dvaepp.simulated_annealing(READS, sweeps), sd)
    speed()
