"""scikit-learn: BernoulliRBM, whose training is PCD with one sweep."""

from __future__ import annotations

import numpy as np
import serve
from sklearn.neural_network import BernoulliRBM


def first(bits: np.ndarray) -> None:
    """The class's example on digits: fit, then ten sweeps from noise."""
    model = BernoulliRBM(n_components=serve.HIDDEN, n_iter=1, random_state=0).fit(bits.astype(float))
    v = np.random.default_rng(0).random((16, bits.shape[1])) < 0.5
    for _ in range(10):
        v = model.gibbs(v)


def gibbs() -> serve.Work:
    random = np.random.default_rng(0)
    model = BernoulliRBM(n_components=serve.SIDE, random_state=0)
    model.partial_fit((random.random((100, serve.SIDE)) < 0.5).astype(np.float32))
    model.components_ = random.normal(0, 0.1, (serve.SIDE, serve.SIDE)).astype(np.float32)
    start = (random.random((serve.GIBBS_CHAINS, serve.SIDE)) < 0.5).astype(np.float32)

    def sweeps() -> None:
        v = start
        for _ in range(serve.SWEEPS):
            v = model.gibbs(v)

    return sweeps


class Learner:
    def __init__(self, bits: np.ndarray, rate: float) -> None:
        self.random, self.bits = np.random.default_rng(0), bits.astype(np.float32)
        self.model = BernoulliRBM(serve.HIDDEN, learning_rate=rate, batch_size=serve.BATCH, random_state=0)
        self.model.partial_fit(self.bits[: serve.BATCH])  # makes the parameters
        self.model.intercept_visible_ = serve.log_odds(bits)

    def epoch(self) -> None:
        for batch in serve.batches(self.bits, self.random):
            self.model.partial_fit(batch)

    def parameters(self) -> serve.Parameters:
        return self.model.intercept_visible_, self.model.intercept_hidden_, self.model.components_.T


if __name__ == "__main__":
    serve.main(first, {"gibbs": gibbs}, Learner)
