"""One HTML page with a run's networks and prior in it, to play with: it computes in the browser, by itself."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError
from dvaepp.likelihoods.standard import BernoulliLikelihood
from dvaepp.models.base import measuring
from dvaepp.models.encoders import HierarchicalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.networks.folded import Layer, folded
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.report.page import rendered
from dvaepp.runs.run import Run
from dvaepp.storage import write_text

_WORDS = 200
"""Codes by which the page's numbers are compared with the model's."""


@dataclass(frozen=True)
class Rounded:
    """A run's model with weights of half precision, as the page has them; biases are of single precision."""

    encoder: list[list[Layer]]
    decoder: list[Layer]
    machine: BoltzmannMachine
    """The prior's, as it was."""
    couplings: Tensor
    """J, strictly upper block triangular, (bits, bits)."""
    bias: Tensor
    """Of the prior."""

    @staticmethod
    def of(run: Run) -> Rounded:
        """InputError where the page cannot hold such a model."""
        model = run.model
        if not isinstance(model, FeedForwardVAE) or not isinstance(model.encoder, HierarchicalEncoder):
            raise InputError(f"the page explores feed-forward models of bits, and that of {run.folder} is another")
        if not isinstance(model.likelihood, BernoulliLikelihood) or len(run.shape) != 2:
            raise InputError(f"the page explores images of bits, and {run.folder} was trained on others")
        if not isinstance(model.prior, BoltzmannPrior):
            raise InputError(
                f"the page samples a Boltzmann machine, and the prior of {run.folder} is a {type(model.prior).__name__}"
            )
        machine = model.prior.machine
        levels = [[_rounded(layer) for layer in folded(level)] for level in model.encoder.levels]
        decoder = [_rounded(layer) for layer in folded(model.decoder)]
        bias = machine.bias.detach().cpu().float().double()
        return Rounded(levels, decoder, machine, _half(machine.coupling_matrix()), bias)

    def energy(self, z: Tensor) -> Tensor:
        """E(z) = -b'z - z'Jz, nats, of states (n, bits)."""
        return -(z @ self.bias) - ((z @ self.couplings) * z).sum(-1)

    def logits(self, z: Tensor) -> Tensor:
        """Of p(x | z)."""
        return _through(self.decoder, z)

    def posterior(self, x: Tensor, z: Tensor) -> Tensor:
        """Logits of q(z_k | x, z_<k), group after group."""
        found: list[Tensor] = []
        for level in self.encoder:
            found.append(_through(level, torch.cat([x, z[:, : sum(part.shape[1] for part in found)]], 1)))
        return torch.cat(found, 1)


def write_explorer(run: Run, path: Path) -> None:
    """Write the page of a run; InputError where it cannot hold its model, or be written."""
    rounded, log_partition = Rounded.of(run), run.log_partition
    held = {
        "shape": list(run.shape),
        "groups": list(run.recipe.model.groups),
        "blocks": list(rounded.machine.blocks),
        "first": rounded.machine.summed,
        "encoder": [[_written(layer) for layer in level] for level in rounded.encoder],
        "decoder": [_written(layer) for layer in rounded.decoder],
        "couplings": _bytes(rounded.couplings, np.float16),
        "bias": _bytes(rounded.bias, np.float32),
        "logZ": log_partition.value,
        "examples": _bytes(run.data.test[:40].double(), np.uint8),
    }
    facts = [f"seed {run.seed}", f"step {run.step:,}", " + ".join(map(str, run.recipe.model.groups)) + " bits"]
    pixels, energies = _differences(run, rounded)
    note = (
        f"Weights are of half precision here: over {_WORDS} samples of the prior the probabilities of pixels differ "
        f"from the run's by at most {pixels:.1g}, energies by {energies:.1g} nats. log Z = {log_partition.value:.2f} ± "
        f"{log_partition.standard_error:.2g} nats."
    )
    write_text(path, rendered("explorer.html", title=run.recipe.name, facts=facts, note=note, held=json.dumps(held)))


def _differences(run: Run, rounded: Rounded) -> tuple[float, float]:
    """How far the page's p(x | z) and E(z) are from the model's at most, over samples of the prior."""
    with measuring(run.model, 0):
        z = run.model.prior.sample(_WORDS)
        exact, energy = run.model.decode(z).mean.cpu().double(), rounded.machine.energy(z).cpu()
    z = z.cpu().double()
    pixels = (torch.sigmoid(rounded.logits(z)) - exact).abs().max()
    return float(pixels), float((rounded.energy(z) - energy).abs().max())


def _through(layers: list[Layer], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _rounded(layer: Layer) -> Layer:
    return Layer(_half(layer.weight), layer.bias.float().double(), layer.tanh)


def _half(weight: Tensor) -> Tensor:
    rounded = weight.detach().cpu().half().double()
    if not bool(rounded.isfinite().all()):
        raise InputError("a weight of the model does not fit into half precision")
    return rounded


def _written(layer: Layer) -> dict[str, Any]:
    return {
        "weight": _bytes(layer.weight, np.float16),
        "bias": _bytes(layer.bias, np.float32),
        "tanh": layer.tanh,
    }


def _bytes(values: Tensor, dtype: type[np.generic]) -> str:
    return base64.b64encode(np.ascontiguousarray(values.numpy().astype(dtype)).tobytes()).decode()
