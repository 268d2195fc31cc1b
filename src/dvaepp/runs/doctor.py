"""What this machine has, and what pays on it, by measuring."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from dvaepp.data import check, names

_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""Flags of a CPU that torch's products use."""
_SECONDS = 0.2
_PAYS = 0.85
"""A choice is recommended where it takes at most this share of the time of the usual one."""


@dataclass(frozen=True)
class Measured:
    """Milliseconds of a piece of work by one thread in float32, by all, and by one in bfloat16."""

    work: str
    one: float
    every: float
    half: float


def versions() -> dict[str, str]:
    """Of Python, of this package, and of what it needs or can use, by name; those that are not there say so."""
    found = {"python": platform.python_version(), "dvaepp": version("dvaepp")}
    for name, extra in sorted(_wanted(requires("dvaepp") or ()).items()):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = f"not installed (pip install 'dvaepp[{extra}]')" if extra else "not installed"
    return found


def _wanted(requirements: Iterable[str]) -> dict[str, str]:
    """Packages that are needed, or of use, and the extra that brings each, "" where it is always needed."""
    found: dict[str, str] = {}
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"](\w+)['\"]", requirement)
        if name is not None and (extra is None or extra[1] not in ("dev", "all")):
            found.setdefault(name[0], "" if extra is None else extra[1])
    return found


def machine() -> dict[str, str]:
    """Processor, threads and accelerators."""
    flags = ", ".join(flag for flag in _FEATURES if flag in _cpu_flags()) or "none of those that are looked for"
    set_to = os.environ.get("OMP_NUM_THREADS", "not set")
    gpus = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": f"{os.cpu_count()}",
        "torch's threads": f"{torch.get_num_threads()} (OMP_NUM_THREADS {set_to}); runs take --threads, 1 by default",
        "torch's kernels": f"{torch.backends.cpu.get_cpu_capability()}; flags {flags}",
        "GPUs": ", ".join(gpus) or ("Apple's (mps)" if torch.backends.mps.is_available() else "none"),
    }


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith(("flags", "Features"))), "").split())


def data_found() -> dict[str, str]:
    """Whether the files of each public data set are here."""
    found = {}
    for name in names():
        verdicts = {verdict.split(":")[0] for _, verdict in check(name)}
        found[name] = "comes with the package" if not verdicts else "here" if verdicts == {"ok"} else "not downloaded"
        if "wrong SHA-256" in verdicts:
            found[name] = f"damaged: dvaepp data check {name}"
    return found


def measured() -> list[Measured]:
    """The two kinds of work that most of a training is."""
    x, weight = torch.randn(200, 784), torch.randn(784, 200)
    image, kernel = torch.randn(100, 32, 14, 14), torch.randn(32, 32, 3, 3)
    return [
        _measured("products of a dense layer, batch 200, 784 to 200", lambda a, b: a @ b, x, weight),
        _measured("a 3 x 3 convolution of 32 channels, batch 100", lambda a, b: conv2d(a, b, padding=1), image, kernel),
    ]


def advice(found: list[Measured]) -> list[str]:
    """What the measurements say for --threads and precision."""
    dense, convolution = found
    every = os.cpu_count() or 1
    said = []
    for each, runs in ((dense, "dense models"), (convolution, "convolutional models")):
        ratio = each.every / each.one
        threads = f"--threads {every}" if ratio < _PAYS else "one thread"
        said.append(f"{runs}: {threads} ({every} take {ratio:.2f} of the time of one)")
    ratio = convolution.half / convolution.one
    kind = "model.convolutional.precision=bfloat16 pays" if ratio < _PAYS else "bfloat16 does not pay"
    return [*said, f"{kind} here ({ratio:.2f} of the time of float32); dvaepp speed RECIPE times whole steps"]


def _measured(work: str, compute: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Measured:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one, half = _milliseconds(compute, a, b), _milliseconds(compute, a.bfloat16(), b.bfloat16())
        torch.set_num_threads(os.cpu_count() or 1)
        return Measured(work, one, _milliseconds(compute, a, b), half)
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def _milliseconds(compute: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> float:
    """The least of some, as others may use the machine."""
    compute(a, b)
    least, end = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        compute(a, b)
        least = min(least, time.perf_counter() - start)
    return 1e3 * least
