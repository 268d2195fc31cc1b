"""Scoring two nonlinear groups with K = 4000: x encoded anew for each draw, as before, and once for all, in turn.

``OMP_NUM_THREADS=1 python benchmarks/scoring.py [IMAGES] [ROUNDS]``: the model of Table 2's two nonlinear groups with
an RBM prior (784 pixels, 200 + 200 bits, hidden layers of 200 and 200, batch norm), weights as they begin. Seconds are
of the processor, so that other work on the machine counts little. Both score with the same seed, and so the same draws
but where rounding moves a probability past its uniform number: printed are the ratio and the two log-likelihoods of
each image, with the standard error of one.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

import dvaepp
from dvaepp.models import encoders
from dvaepp.networks.dense import centring, dense, output_bias

PIXELS, GROUP, HIDDEN, SAMPLES = 784, 200, (200, 200), 4000


def model(mean: Tensor) -> dvaepp.FeedForwardVAE:
    levels = [
        nn.Sequential(centring(mean, seen), dense(PIXELS + seen, GROUP, HIDDEN, batch_norm=True)) for seen in (0, GROUP)
    ]
    machine = dvaepp.BoltzmannMachine(GROUP, GROUP)
    nn.init.normal_(machine.couplings[0], std=0.02)
    prior = dvaepp.BoltzmannPrior(machine, dvaepp.PersistentChains(100, sweeps=5))
    decoder = nn.Sequential(dense(2 * GROUP, PIXELS, HIDDEN, batch_norm=True), output_bias(mean))
    encoder = dvaepp.HierarchicalEncoder(*levels)
    return dvaepp.FeedForwardVAE(encoder, prior, decoder, dvaepp.OverlappingExponential(beta=8.0)).eval()


def repeated(network: nn.Module, x: Tensor, zetas: list[Tensor], draws: int) -> Tensor:
    """The pass of before: every level sees x as often as there are draws."""
    logits: Tensor = network(torch.cat([x.repeat_interleave(draws, 0), *zetas], -1))
    return logits


@contextmanager
def as_before(yes: bool) -> Iterator[None]:
    now = encoders.at_draws
    encoders.at_draws = repeated if yes else now
    try:
        yield
    finally:
        encoders.at_draws = now


def scored(vae: dvaepp.FeedForwardVAE, image: Tensor, before: bool, seed: int) -> tuple[float, float, float]:
    """Seconds, the log-likelihood and its standard error by the delta method."""
    with as_before(before):
        start = time.process_time()
        found = dvaepp.score(vae, image, SAMPLES, seed=seed).examples
        seconds = time.process_time() - start
    return seconds, float(found.log_likelihood[0]), math.sqrt(1 / float(found.effective_sample_size[0]) - 1 / SAMPLES)


def main(images: int, rounds: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    mean = torch.rand(PIXELS) * 0.6
    vae = model(mean)
    vae.prior.estimate_log_partition(temperatures=200, chains=128)
    x = torch.bernoulli(mean.expand(images, -1))
    for before in (True, False):
        scored(vae, x[:1], before, 0)
    ratios = []
    for i, image in enumerate(x.split(1)):
        turns = [[scored(vae, image, before, seed) for before in (True, False)] for seed in range(rounds)]
        old, new = (statistics.median(turn[way][0] for turn in turns) for way in (0, 1))
        apart = max(abs(before[1] - now[1]) for before, now in turns)
        _, found, error = turns[0][1]
        ratios.append(old / new)
        print(
            f"image {i}: {old:.3f} s before, {new:.3f} s now, ratio {old / new:.2f}; log-likelihood {found:.3f} nats, "
            f"standard error {error:.3f}, at most {apart:.1e} apart"
        )
    print(f"median ratio {statistics.median(ratios):.2f} of {images} images, least {min(ratios):.2f}")


if __name__ == "__main__":
    main(*(int(argument) for argument in [*sys.argv[1:], *("8", "5")[len(sys.argv) - 1 :]]))
