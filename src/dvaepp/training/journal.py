"""metrics.jsonl: one JSON object a line, and what a resumed run keeps of it."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

from dvaepp import distributed
from dvaepp.storage import append_line, read_lines, write_text

Metrics = dict[str, int | float]


class Journal:
    """The lines of a file, of which the first of several processes writes each; `lines` counts them.

    Each has what is finite of some metrics, as JSON's numbers are, and `seconds` since the last one or `start`: the
    only field that a repeat would change.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lines = path, 0
        self.start()

    def start(self, seconds_ago: float = 0.0) -> None:
        """Count seconds from now, or from so long ago."""
        self._clock = time.perf_counter() - seconds_ago

    def add(self, metrics: Metrics) -> Metrics:
        """Append a line of metrics; themselves."""
        now = time.perf_counter()
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        line = json.dumps({**finite, "seconds": round(now - self._clock, 3)})
        self._clock = now
        distributed.on_first(lambda: append_line(self.path, line))
        self.lines += 1
        return metrics

    def cut(self, lines: int) -> None:
        """Keep so many lines: what was written after a checkpoint happens again."""
        self.lines = lines
        distributed.on_first(self._cut)

    def _cut(self) -> None:
        kept = read_lines(self.path)[: self.lines] if self.lines else []
        write_text(self.path, "".join(line + "\n" for line in kept))
