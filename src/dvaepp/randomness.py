"""Seeds of random streams: one for each purpose, run, step and process, so that no two share their noise."""

from __future__ import annotations

import hashlib
from operator import index
from typing import Literal

Purpose = Literal[
    "weights",
    "process",
    "training",
    "batches",
    "loss",
    "log Z of the loss",
    "validation",
    "validation examples",
    "log Z of the validation",
    "log Z of the evaluation",
    "scores",
    "samples",
    "reconstructions",
    "completion",
    "interpolation",
    "active units",
    "codes",
    "decoded codes",
    "gradients",
    "true gradients",
    "fitted estimators",
]
"""What a stream is for. With one process the noise of training goes on where that of `weights` ends."""


def stream_seed(purpose: Purpose, *parts: int) -> int:
    """63 bits of BLAKE2b((purpose, part_1, part_2, ...)), a seed for torch's and numpy's generators.

    Whatever the integers, two different lists have the same seed by chance alone, also in the last 32 bits, which are
    all that torch's CPU generator keeps: among n streams with probability n^2 / 2^33. Sums of seeds and steps would
    meet often.
    """
    name = repr((purpose, *map(index, parts)))
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
