"""Codes of examples, as `encode` writes them or as a sampler elsewhere drew them."""

from __future__ import annotations

import csv
import re
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.boltzmann.files import read_states
from dvaepp.data.tables import parquet
from dvaepp.errors import InputError
from dvaepp.priors.base import Prior
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.priors.normal import NormalPrior
from dvaepp.recipes.settings import ConvolutionalSettings

_CODES = re.compile(r"(codes|probabilities|means)_\d+")
"""Columns of the tables that `encode` writes."""


def read_codes(path: Path, prior: Prior, bits: int) -> Float[Tensor, "n bits"]:
    """Bits (n, bits) from rounded `probabilities` as encode writes, else codes or states of the prior from any file.

    Of normal variables it is the `means` that encode writes, as they are.
    """
    if isinstance(prior, NormalPrior):
        return _means(path, bits)
    probabilities = _array(path, "probabilities") if path.suffix == ".npz" else _in_table(path)
    if probabilities is None:
        return read_states(path, prior.machine if isinstance(prior, BoltzmannPrior) else bits)
    in_range = probabilities.dtype.kind in "buif" and bool(((probabilities >= 0) & (probabilities <= 1)).all())
    if probabilities.ndim != 2 or probabilities.shape[1] != bits or not probabilities.size or not in_range:
        found = f"{probabilities.dtype} probabilities of shape {probabilities.shape}"
        raise InputError(f"{path} holds {found}, expected (n, {bits}) in [0, 1]")
    return torch.from_numpy(np.asarray(probabilities, dtype=np.float32)).round()


def read_local(path: Path, settings: ConvolutionalSettings | None) -> list[Any]:
    """The arrays local_1, local_2, .. of an .npz file, as `encode --local` writes them; none in other files.

    InputError, for a model of these settings, where a group is missing or its variables are not the model's.
    """
    found: list[Any] = []
    while path.suffix == ".npz" and (each := _array(path, f"local_{len(found) + 1}")) is not None:
        found.append(each)
    if settings is None or not found:
        return found
    if len(found) != len(settings.scales):
        raise InputError(f"{path} holds groups of local variables: {len(found)}, expected {len(settings.scales)}")
    for j, (h, scale) in enumerate(zip(found, settings.scales, strict=True), 1):
        expected = (settings.variables, scale, scale)
        if h.shape[1:] != expected:
            raise InputError(f"{path}: examples of local_{j} have shape {h.shape[1:]}, expected {expected}")
    return found


def _means(path: Path, variables: int) -> Float[Tensor, "n variables"]:
    means = _array(path, "means") if path.suffix == ".npz" else _in_table(path)
    expected = f"means (n, {variables}) of normal variables, as encode writes them"
    if means is None:
        raise InputError(f"{path} holds no `means`, expected {expected}")
    if means.dtype.kind != "f" or means.ndim != 2 or means.shape[1] != variables or not means.size:
        raise InputError(f"{path} holds {means.dtype} means of shape {means.shape}, expected {expected}")
    if not np.isfinite(means).all():
        raise InputError(f"{path} holds means that are not finite, expected {expected}")
    return torch.from_numpy(np.asarray(means, dtype=np.float32))


def _in_table(path: Path) -> Any:
    """The columns of codes of a .csv or .parquet that `encode` wrote; None where a file has no such columns."""
    if path.suffix == ".parquet":
        frame = parquet(path)
        named = [name for name in frame.columns if _CODES.fullmatch(name)]
        return frame[named].to_numpy() if named else None
    if path.suffix != ".csv":
        return None
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        lines = csv.reader(file)
        try:
            places = [place for place, name in enumerate(next(lines, [])) if _CODES.fullmatch(name)]
            if not places:
                return None
            return np.array([[float(line[place]) for place in places] for line in lines if line])
        except (ValueError, IndexError, csv.Error):
            raise InputError(
                f"{path}: line {lines.line_num} lacks a number, expected codes as encode writes them"
            ) from None


def _array(path: Path, name: str) -> Any:
    """An array of an .npz file by name; None where there is none."""
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return arrays.get(name)
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, BadZipFile, zlib.error):
        raise InputError(f"{path} is not a whole .npz file of numbers") from None
