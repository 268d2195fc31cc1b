"""How processes that torchrun or accelerate launch started find each other."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import torch.distributed as dist

from dvaepp.errors import InputError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

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
    rank, size = number["RANK"], number["WORLD_SIZE"]
    address = (os.environ["MASTER_ADDR"], number["MASTER_PORT"])
    until = time.monotonic() + seconds
    try:
        _find_first(address, rank, until)
        store = _store(address, rank, size, until)
        _meet(store, rank, size, until)
        store.set_timeout(_PATIENCE)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    except (ImportError, RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"process {rank} of {size} at {address[0]}:{address[1]} did not meet the others "
            f"({str(error).splitlines()[0].rstrip('.')}): start all with torchrun or accelerate launch, or unset "
            f"WORLD_SIZE; DVAEPP_JOIN_SECONDS, which is {seconds}, lets them wait longer"
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


def _store(address: tuple[str, int], rank: int, size: int, until: float) -> Store:
    """The keys and values that all share, kept by torchrun or else by the first process; each attempt has its own.

    torch's rendezvous would let the first process wait for the others in it, and print a trace where they do not come.
    """
    from torch._C._distributed_c10d import PrefixStore, TCPStore  # torch may be built without

    patience = timedelta(seconds=max(1.0, until - time.monotonic()))
    store = TCPStore(*address, size, rank == 0 and not _kept_by_torchrun(), patience, wait_for_workers=False)
    return PrefixStore(f"dvaepp/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _kept_by_torchrun() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _meet(store: Store, rank: int, size: int, until: float) -> None:
    """Wait until all are there, or raise TimeoutError in all as soon as one of them has waited long enough.

    Whether they met is settled once, by whoever sees it first: else some would go on without those that gave up.
    """
    here = [f"here/{other}" for other in range(size)]
    store.set(here[rank], "")
    while not store.check(["end"]):
        absent = [other for other in range(size) if not store.check([here[other]])]
        if not absent:
            store.compare_set("end", "", "met")
        elif time.monotonic() > until:
            store.compare_set("end", "", f"process {absent[0]} has not come")
        else:
            time.sleep(0.1)
    end = store.get("end").decode()
    if end != "met":
        _take_leave(store, rank, size)
        raise TimeoutError(end)


def _take_leave(store: Store, rank: int, size: int) -> None:
    """The first process may take the store along: it stays until all that came know, from one second to ten.

    To lose the store makes torch print a trace; the second is for whoever is just coming.
    """
    store.set(f"knows/{rank}", "")
    if rank > 0 or _kept_by_torchrun():
        return
    for tenth in range(100):
        came = [other for other in range(size) if store.check([f"here/{other}"])]
        if tenth >= 10 and store.check([f"knows/{other}" for other in came]):
            return
        time.sleep(0.1)


def _number(name: str, least: int, most: int, default: str = "") -> int:
    """A whole number in the environment; InputError unless it lies between these."""
    text = os.environ.get(name, default)
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most):
        raise InputError(f"{name} is {text!r} in the environment, expected a whole number from {least} to {most}")
    return int(text)
