"""How processes that torchrun or accelerate launch started find each other."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta

import torch.distributed as dist

from dvaepp.errors import InputError

_MOST = 1_000_000
_PATIENCE = timedelta(hours=6)
"""For what they do together: the others wait while the first process estimates log Z."""


def environment() -> dict[str, int]:
    """WORLD_SIZE, RANK, LOCAL_RANK and MASTER_PORT where there are several processes, nothing where there is one.

    InputError for a variable that is missing or that is no such number.
    """
    size = _number("WORLD_SIZE", 1, _MOST, "1")
    if size == 1:
        return {}
    missing = [n for n in ("RANK", "LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR") if not os.environ.get(n)]
    if missing:
        raise InputError(
            f"WORLD_SIZE is {size} in the environment, without {', '.join(missing)}: start several processes with "
            "torchrun or accelerate launch, or unset WORLD_SIZE"
        )
    limits = {"RANK": size - 1, "LOCAL_RANK": size - 1, "MASTER_PORT": 65535}
    return {"WORLD_SIZE": size, **{name: _number(name, 0, most) for name, most in limits.items()}}


def join(backend: str, number: dict[str, int]) -> None:
    """torch's init_process_group, in which the others must come soon, but may later take their time.

    InputError where not all of them come within a minute, or the seconds of DVAEPP_JOIN_SECONDS.
    """
    seconds = _number("DVAEPP_JOIN_SECONDS", 1, _MOST, "60")
    address = (os.environ["MASTER_ADDR"], number["MASTER_PORT"])
    try:
        from torch.distributed.rendezvous import rendezvous  # torch may be built without

        _find_first(address, number["RANK"], time.monotonic() + seconds)
        store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=seconds)))
        store.set(f"dvaepp/{rank}", "here")
        store.wait([f"dvaepp/{other}" for other in range(size)], timedelta(seconds=seconds))
        store.set_timeout(_PATIENCE)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    except (ImportError, RuntimeError, ValueError, OSError) as error:
        who = f"process {number['RANK']} of {number['WORLD_SIZE']} at {address[0]}:{address[1]}"
        raise InputError(
            f"{who} did not meet the others within {seconds} s ({str(error).splitlines()[0].rstrip('.')}): start all "
            "with torchrun or accelerate launch, or unset WORLD_SIZE; DVAEPP_JOIN_SECONDS lets them wait longer"
        ) from None


def _find_first(address: tuple[str, int], rank: int, until: float) -> None:
    """Wait until the first process listens, or raise OSError; torch would print page after page meanwhile."""
    socket.getaddrinfo(*address)
    while rank > 0:
        try:
            socket.create_connection(address, timeout=max(0.1, until - time.monotonic())).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _number(name: str, least: int, most: int, default: str = "") -> int:
    """A whole number in the environment; InputError unless it lies between these."""
    text = os.environ.get(name, default)
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
        raise InputError(f"{name} is {text!r} in the environment, expected a whole number from {least} to {most}")
    return int(text)
