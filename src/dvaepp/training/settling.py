"""Checkpoints of several trainers, of which a kill leaves all at one step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dvaepp.errors import InputError
from dvaepp.storage import load_tensors

_PENDING = ".next"


def pending(checkpoint: Path) -> Path:
    """Where a checkpoint waits until those of all replicas are written."""
    return checkpoint.with_name(checkpoint.name + _PENDING)


def settle(checkpoints: Sequence[Path]) -> None:
    """Bring checkpoints of replicas that were killed while they were written to one step: all new, or all former.

    To be done before trainers are made of them.
    """
    waiting = [path for path in checkpoints if pending(path).exists()]
    for path in [path for path in waiting if path.exists() and _step(pending(path)) <= _step(path)]:
        pending(path).unlink()  # the run has gone on by itself since, or what waits cannot be read
        waiting.remove(path)
    if not waiting:
        return
    newest = max(_step(pending(path)) for path in waiting)
    done = [path in waiting or (path.exists() and _step(path) == newest) for path in checkpoints]
    for path in waiting:
        if all(done):
            pending(path).replace(path)
        else:
            pending(path).unlink()


def _step(checkpoint: Path) -> int:
    with suppress(InputError, KeyError, TypeError):
        return int(load_tensors(checkpoint, lambda name: False)[1]["step"])
    return -1
