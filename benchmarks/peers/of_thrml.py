"""thrml: its Ising model, its block sampler jitted and mapped over chains, and its own estimate of the gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import serve
from thrml import Block, SamplingSchedule, SpinNode, sample_states
from thrml.models import IsingEBM, IsingSamplingProgram, IsingTrainingSpec, estimate_kl_grad, hinton_init


def bipartite(one: int, other: int) -> tuple[Block, Block, list[Any]]:
    left, right = ([SpinNode() for _ in range(size)] for size in (one, other))
    return Block(left), Block(right), [(a, b) for a in left for b in right]


def first(bits: np.ndarray) -> None:
    """The README's chain of five spins, then an epoch on digits and samples."""
    nodes = [SpinNode() for _ in range(5)]
    edges = [(nodes[i], nodes[i + 1]) for i in range(4)]
    model = IsingEBM(nodes, edges, jnp.zeros((5,)), jnp.ones((4,)) * 0.5, jnp.array(1.0))
    blocks = [Block(nodes[::2]), Block(nodes[1::2])]
    program = IsingSamplingProgram(model, blocks, clamped_blocks=[])
    one, other = jax.random.split(jax.random.key(0), 2)
    schedule = SamplingSchedule(n_warmup=100, n_samples=1000, steps_per_sample=2)
    start = hinton_init(one, model, blocks, ())
    jax.block_until_ready(sample_states(other, program, schedule, start, [], [Block(nodes)]))
    learner = Learner(bits, 0.01)
    learner.epoch()
    jax.block_until_ready(learner.chains)


def gibbs() -> serve.Work:
    left, right, edges = bipartite(serve.SIDE, serve.SIDE)
    weights = 0.025 * jax.random.normal(jax.random.key(0), (len(edges),))  # a quarter of the others' .1, between spins
    model = IsingEBM([*left, *right], edges, jnp.zeros(2 * serve.SIDE), weights, jnp.array(1.0))
    blocks = [left, right]
    program = IsingSamplingProgram(model, blocks, clamped_blocks=[])
    schedule = SamplingSchedule(n_warmup=serve.SWEEPS, n_samples=1, steps_per_sample=1)
    start = hinton_init(jax.random.key(1), model, blocks, (serve.GIBBS_CHAINS,))
    keys = jax.random.split(jax.random.key(2), serve.GIBBS_CHAINS)
    sample = jax.jit(jax.vmap(lambda key, state: sample_states(key, program, schedule, state, [], blocks)))
    return lambda: jax.block_until_ready(sample(keys, start))


class Learner:
    def __init__(self, bits: np.ndarray, rate: float) -> None:
        self.random, self.bits, visible = np.random.default_rng(0), bits.astype(bool), bits.shape[1]
        left, right, edges = bipartite(visible, serve.HIDDEN)
        nodes = [*left, *right]
        once = SamplingSchedule(n_warmup=1, n_samples=1, steps_per_sample=1)

        def step(key: Any, biases: Any, weights: Any, data: Any, chains: Any) -> Any:
            model = IsingEBM(nodes, edges, biases, weights, jnp.array(1.0))
            spec = IsingTrainingSpec(model, [left], [], [right], [right, left], once, once)
            hidden = [jnp.zeros((1, data.shape[0], serve.HIDDEN), bool)]
            grad_w, grad_b, _, (spins, _) = estimate_kl_grad(key, spec, nodes, edges, [data], [], hidden, chains)
            return biases - rate * grad_b, weights - rate * grad_w, [spins[:, visible:] > 0, spins[:, :visible] > 0]

        self.step, self.key = jax.jit(step), jax.random.key(0)
        self.biases = jnp.concatenate([jnp.asarray(serve.log_odds(bits) / 2), jnp.zeros(serve.HIDDEN)])
        self.weights = 0.01 * jax.random.normal(jax.random.key(1), (len(edges),))
        half = jax.random.bernoulli(jax.random.key(2), 0.5, (serve.CHAINS, len(nodes)))
        self.chains = [half[:, visible:], half[:, :visible]]

    def epoch(self) -> None:
        for batch in serve.batches(self.bits, self.random):
            self.key, key = jax.random.split(self.key)
            self.biases, self.weights, self.chains = self.step(key, self.biases, self.weights, batch, self.chains)
        jax.block_until_ready(self.weights)

    def parameters(self) -> serve.Parameters:
        weights = np.asarray(self.weights).reshape(self.bits.shape[1], serve.HIDDEN)
        return serve.of_spins(np.asarray(self.biases), weights)


if __name__ == "__main__":
    serve.main(first, {"gibbs": gibbs}, Learner)
