"""Block Gibbs sampling by peers: 40 sweeps of 1000 chains of a Boltzmann machine of 200 + 200 bits, on one thread.

In a virtual environment of its own; it needs nothing of ``dvaepp``::

    python3 -m venv peer-env
    peer-env/bin/pip install torch==2.13.0
    peer-env/bin/pip install dwave-pytorch-plugin==0.4.0 rbms==0.5.0 thrml==0.1.4 jax
    OMP_NUM_THREADS=1 peer-env/bin/python benchmarks/sampler_peers.py

Milliseconds of a call, the median of those after the first one, which compiles. Couplings
are N(0, .1^2) between bits, or a quarter of that between the spins of thrml and the plugin; no time depends on them.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

SIDE, CHAINS, SWEEPS = 200, 1000, 40
if os.environ.get("OMP_NUM_THREADS") == "1":
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def milliseconds(call: Callable[[], Any], seconds: float = 15.0) -> float:
    """Median wall-clock time of calls after the first one, as many as fit into so many seconds, one at least."""
    call()
    times: list[float] = []
    while not times or (sum(times) < 1e3 * seconds and len(times) < 20):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return round(statistics.median(times), 1)


def of_rbms() -> Callable[[], Any]:
    """rbms: a loop over torch products and draws."""
    import torch
    from rbms.bernoulli_bernoulli.classes import BBRBM

    weights = 0.1 * torch.randn(SIDE, SIDE)
    machine = BBRBM(weights, torch.zeros(SIDE), torch.zeros(SIDE), device=torch.device("cpu"), dtype=torch.float32)
    chains = machine.init_chains(CHAINS)
    return lambda: machine.sample_state(n_steps=SWEEPS, chains=chains)


def of_plugin() -> Callable[[], Any]:
    """dwave-pytorch-plugin: its block sampler on a complete bipartite graph."""
    from dwave.plugins.torch.models import GraphRestrictedBoltzmannMachine
    from dwave.plugins.torch.samplers import BlockSampler

    edges = [(i, j) for i in range(SIDE) for j in range(SIDE, 2 * SIDE)]
    machine = GraphRestrictedBoltzmannMachine(range(2 * SIDE), edges)
    machine.quadratic.data.normal_(0, 0.025)
    sampler = BlockSampler(machine, lambda node: node >= SIDE, num_chains=CHAINS, schedule=[1.0] * SWEEPS)
    return lambda: sampler.sample()


def of_thrml() -> Callable[[], Any]:
    """thrml: its block sampler of an Ising model, jitted, mapped over chains."""
    import jax
    import jax.numpy as jnp
    from thrml import Block, SamplingSchedule, SpinNode, sample_states
    from thrml.models import IsingEBM, IsingSamplingProgram, hinton_init

    one, other = ([SpinNode() for _ in range(SIDE)] for _ in range(2))
    edges = [(a, b) for a in one for b in other]
    weights = 0.025 * jax.random.normal(jax.random.key(0), (len(edges),))
    model = IsingEBM([*one, *other], edges, jnp.zeros(2 * SIDE), weights, jnp.array(1.0))
    blocks = [Block(one), Block(other)]
    program = IsingSamplingProgram(model, blocks, clamped_blocks=[])
    schedule = SamplingSchedule(n_warmup=SWEEPS, n_samples=1, steps_per_sample=1)
    start = hinton_init(jax.random.key(1), model, blocks, (CHAINS,))
    keys = jax.random.split(jax.random.key(2), CHAINS)
    sample = jax.jit(jax.vmap(lambda key, state: sample_states(key, program, schedule, state, [], blocks)))
    return lambda: jax.block_until_ready(sample(keys, start))


def main() -> None:
    """Time all and print one line of JSON; what is not installed is null."""
    import torch

    torch.set_num_threads(1)
    packages = {"rbms": of_rbms, "dwave-pytorch-plugin": of_plugin, "thrml": of_thrml}
    found = {}
    for package, make in packages.items():
        try:
            found[f"{package} {version(package)}"] = milliseconds(make())
        except ModuleNotFoundError:
            found[package] = None
    print(json.dumps({**found, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
