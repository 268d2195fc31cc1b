"""Codes of examples, as `encode` writes them or as a sampler elsewhere drew them."""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.latent.exchange import read_states
from dvaepp.latent.priors import BoltzmannPrior, Prior


def read_codes(path: Path, prior: Prior, bits: int) -> Float[Tensor, "n bits"]:
    """Bits (n, bits) from rounded `probabilities` as encode writes, else codes or states of the prior from any file."""
    probabilities = _probabilities(path) if path.suffix == ".npz" else None
    if probabilities is None:
        return read_states(path, prior.machine if isinstance(prior, BoltzmannPrior) else bits)
    in_range = probabilities.dtype.kind in "buif" and bool(((probabilities >= 0) & (probabilities <= 1)).all())
    if probabilities.ndim != 2 or probabilities.shape[1] != bits or not probabilities.size or not in_range:
        found = f"{probabilities.dtype} probabilities of shape {probabilities.shape}"
        raise InputError(f"{path} holds {found}, expected (n, {bits}) in [0, 1]")
    return torch.from_numpy(np.asarray(probabilities, dtype=np.float32)).round()


def _probabilities(path: Path) -> Any:
    """The array `probabilities` of an .npz file; None where there is none."""
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return arrays.get("probabilities")
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, BadZipFile, zlib.error):
        raise InputError(f"{path} is not a whole .npz file of numbers") from None
