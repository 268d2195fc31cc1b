"""Scores of a part of the examples in a file, so that a stopped evaluation goes on."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp import distributed
from dvaepp.errors import InputError
from dvaepp.evaluation.scores import ExampleScores
from dvaepp.storage import AnyPath, load_tensors, save_tensors


class Found:
    """Scores of the first examples of a part, and sums of what is not kept for each example."""

    def __init__(self) -> None:
        self.examples: list[Tensor] = []
        self.moments = torch.zeros(3, 0, dtype=torch.float64)

    @property
    def count(self) -> int:
        """How many examples have been scored."""
        return len(self.examples[0]) if self.examples else 0

    def add(self, examples: ExampleScores, moments: Float[Tensor, "3 dimensions"]) -> None:
        """Add the scores of those that follow."""
        new = [getattr(examples, f.name).cpu() for f in fields(ExampleScores)]
        self.examples = list(map(torch.cat, zip(self.examples, new, strict=True))) if self.examples else new
        self.moments = self.moments + moments.cpu() if self.moments.numel() else moments.cpu()


class KeptScores:
    """A file that holds the scores of the first examples while the others are scored, at most every `seconds`.

    `about` is plain JSON that says what is scored and how; a file about anything else is begun anew. Each of several
    processes has a file of its own.
    """

    def __init__(self, path: AnyPath, about: dict[str, Any], seconds: float = 10.0) -> None:
        self.path, self.about, self.seconds = Path(path), about, seconds
        if distributed.world() > 1:
            self.path = self.path.with_stem(f"{self.path.stem}.{distributed.rank()}of{distributed.world()}")
        self._saved = time.monotonic()

    def load(self) -> Found:
        """What the file holds, or nothing."""
        found = Found()
        with suppress(InputError, KeyError):  # a damaged file, or an older version's, is begun anew as well
            tensors, about = load_tensors(self.path)
            if about == self.about:
                examples = [tensors[f.name] for f in fields(ExampleScores)]
                found.examples, found.moments = examples, tensors["moments"]
        return found

    def save(self, found: Found) -> None:
        """Replace the file, unless that was done just now."""
        if time.monotonic() - self._saved >= self.seconds:
            names = [f.name for f in fields(ExampleScores)]
            tensors = {**dict(zip(names, found.examples, strict=True)), "moments": found.moments}
            save_tensors(self.path, tensors, self.about)
            self._saved = time.monotonic()

    def clear(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)
