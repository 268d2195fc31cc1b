"""The peer's side of the speed comparison: one training step with dwave-pytorch-plugin 0.4.0.

Run it in a virtual environment of its own; it needs nothing of ``dvaepp``::

    python3 -m venv peer-env
    peer-env/bin/pip install torch==2.13.0
    peer-env/bin/pip install dwave-pytorch-plugin==0.4.0 dwave-samplers==1.8.0 einops
    OMP_NUM_THREADS=1 peer-env/bin/python benchmarks/peer.py

The job: a discrete VAE on 784 binary pixels with linear encoder and decoder, 200 spins, a complete
bipartite Boltzmann machine of 100 + 100 spins as prior, batches of 100, and 1000 persistent Markov chains
of 10 Gibbs sweeps a step. The plugin offers two ways to sample. Its docs' simulated annealer (compiled
C++, held at inverse temperature one) is several times faster here than its own vectorised block sampler,
so ``peer_ms`` is the annealer's time; ``peer_block_ms`` is the block sampler's.

Much of both is the kernel mapping fresh pages for temporaries of 40 MB and more. With glibc,
``MALLOC_MMAP_THRESHOLD_=1000000000 MALLOC_TRIM_THRESHOLD_=4000000000`` keeps them mapped; a fair
comparison gives both sides the same setting, and reports it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import nn

PIXELS, SIDE, BATCH, CHAINS, SWEEPS = 784, 100, 100, 1000, 10


def peer_step(sampler: str = "annealer") -> Callable[[], None]:
    """Build the peer's model and return a closure that performs one full training step.

    ``sampler`` is "annealer" (through the plugin's ``DimodSampler``) or "block" (its ``BlockSampler``).
    Both keep their chains from one step to the next.
    """
    from dwave.plugins.torch.models import DiscreteVariationalAutoencoder, GraphRestrictedBoltzmannMachine
    from dwave.plugins.torch.models.losses import pseudo_kl_divergence_loss
    from dwave.plugins.torch.samplers import BlockSampler, DimodSampler
    from dwave.samplers import SimulatedAnnealingSampler

    if sampler not in ("annealer", "block"):
        raise ValueError(f'sampler must be "annealer" or "block", got {sampler!r}')
    edges = [(i, j) for i in range(SIDE) for j in range(SIDE, 2 * SIDE)]
    prior = GraphRestrictedBoltzmannMachine(range(2 * SIDE), edges)
    model = DiscreteVariationalAutoencoder(nn.Linear(PIXELS, 2 * SIDE), nn.Linear(2 * SIDE, PIXELS))
    optimizer = torch.optim.Adam([*model.parameters(), *prior.parameters()], lr=1e-3)
    x = torch.bernoulli(torch.full((BATCH, PIXELS), 0.5))

    if sampler == "block":
        chains = BlockSampler(prior, lambda node: node >= SIDE, num_chains=CHAINS, schedule=[1.0] * SWEEPS)
        sample = chains.sample
    else:
        annealer = SimulatedAnnealingSampler()
        # In the order of the nodes, so a sweep is the two blocks in turn; faster than a random order.
        settings: dict[str, object] = {"num_reads": CHAINS, "num_sweeps": SWEEPS, "beta_range": [1, 1]}
        settings["proposal_acceptance_criteria"] = "Gibbs"

        def sample() -> torch.Tensor:
            reads = DimodSampler(prior, annealer, prefactor=1, sample_kwargs=settings)
            spins: torch.Tensor = reads.sample()
            settings["initial_states"] = reads.sample_set
            return spins

    def step() -> None:
        logits, spins, pixels = model(x, n_samples=1)
        bce = nn.functional.binary_cross_entropy_with_logits(pixels.squeeze(1), x, reduction="sum") / BATCH
        loss = bce + pseudo_kl_divergence_loss(spins, logits, sample(), prior)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def median_ms(step: Callable[[], None], warm_up: int, steps: int) -> float:
    """Median wall-clock time of ``steps`` calls, in milliseconds, after ``warm_up`` calls."""
    times = []
    for _ in range(warm_up + steps):
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    return round(statistics.median(times[warm_up:]), 1)


def main() -> None:
    """Time the peer on one thread and print the result as one line of JSON."""
    parser = argparse.ArgumentParser(description="Time one training step of dwave-pytorch-plugin.")
    parser.add_argument("--steps", type=int, default=20, help="timed steps (a quarter for the block sampler)")
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        peer_ms = median_ms(peer_step("annealer"), warm_up=3, steps=steps)
        block_ms = median_ms(peer_step("block"), warm_up=1, steps=max(1, steps // 4))
    except ModuleNotFoundError as missing:
        raise SystemExit(f"peer.py: {missing}; its docstring says how to install the peer") from None
    result = {"peer_ms": peer_ms, "peer_block_ms": block_ms, "steps": steps, "threads": torch.get_num_threads()}
    versions = {"package": f"dwave-pytorch-plugin {version('dwave-pytorch-plugin')}", "torch": torch.__version__}
    print(json.dumps(result | versions))


if __name__ == "__main__":
    main()
