"""What each peer's script has in common: it runs in the peer's interpreter and answers one line of JSON for one asked.

It needs numpy alone. Digits are bits, rows of 784; an RBM has HIDDEN hidden bits, its parameters are given back as
those of p(v, h) = exp(a'v + b'h + v'Wh) / Z over bits, whatever the peer's own convention.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

HIDDEN, BATCH, CHAINS = (
    64,
    100,
    100,
)  # of the RBM that learns digits; one sweep an update. Asked to learn, HIDDEN is said
SIDE, GIBBS_CHAINS, SWEEPS = 200, 1000, 40  # of the sampling job
Work = Callable[[], Any]
Parameters = tuple[np.ndarray, np.ndarray, np.ndarray]


class Learner(Protocol):
    """An RBM in training: an epoch is a pass over the digits in batches of 100, in a new order."""

    def epoch(self) -> None: ...

    def parameters(self) -> Parameters: ...


def batches(bits: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    """An epoch's batches."""
    order = random.permutation(len(bits))
    return [bits[order[start : start + BATCH]] for start in range(0, len(bits), BATCH)]


def log_odds(bits: np.ndarray) -> np.ndarray:
    """Where visible biases start, as those of rbms do: from zero all hidden bits learn the mean picture."""
    mean = (bits.sum(0) + 0.5) / (len(bits) + 1)
    return np.log(mean / (1 - mean)).astype(np.float32)


def of_spins(fields: np.ndarray, weights: np.ndarray) -> Parameters:
    """exp(sum f s + sum w s s) over spins s = 2 z - 1, visible first, as parameters over bits."""
    visible = weights.shape[0]
    a = 2 * fields[:visible] - 2 * weights.sum(1)
    b = 2 * fields[visible:] - 2 * weights.sum(0)
    return a, b, 4 * weights


def main(
    first: Callable[[np.ndarray], Any],
    gibbs: dict[str, Callable[[], Work]] | None = None,
    learner: Callable[[np.ndarray, float], Learner] | None = None,
) -> None:
    """Answer what standard input asks, until it ends; what a peer prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.chdir(tempfile.mkdtemp())
    ready: dict[str, Work] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any] = {}
        bits = np.load(asked["digits"])["train"]
        if asked["do"] == "first":
            first(bits)
        elif asked["do"] == "ready":
            if asked["work"] == "epoch" and learner:
                ready["epoch"] = learner(bits, 0.01).epoch
            elif asked["work"] == "gibbs":
                ready |= {name: make() for name, make in (gibbs or {}).items()}
            for work in ready.values():
                work()
            answer["works"] = list(ready)
        elif asked["do"] == "time":
            start = time.perf_counter()
            ready[asked["work"]]()
            answer["ms"] = 1e3 * (time.perf_counter() - start)
        elif asked["do"] == "learn" and learner:
            globals()["HIDDEN"] = asked["hidden"]
            answer = learn(learner, bits, asked["rate"], asked["seconds"], Path(asked["out"]))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def learn(
    make: Callable[[np.ndarray, float], Learner], bits: np.ndarray, rate: float, seconds: float, out: Path
) -> dict:
    """Train for so many seconds of this process's own time, an epoch at least, after one that may compile."""
    model, epochs = make(bits, rate), 1
    model.epoch()
    start = time.process_time()
    while epochs < 2 or time.process_time() - start < seconds:
        model.epoch()
        epochs += 1
    spent = time.process_time() - start
    a, b, weights = model.parameters()
    np.savez(out, a=a, b=b, W=weights)
    return {"epochs": epochs, "seconds": round(spent, 1)}
