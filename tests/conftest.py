"""Every test runs with shapes and dtypes checked, on one thread, from a fixed seed."""

import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

install_import_hook("dvaepp", "typed.typed")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def forgotten() -> Iterator[None]:
    """The components that a test defines are not known after it."""
    from dvaepp.components.registry import _KNOWN

    yield
    for known in _KNOWN.values():
        for name in [name for name, each in known.items() if not each.__module__.startswith("dvaepp.")]:
            del known[name]
