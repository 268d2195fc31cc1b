"""NLL of test digits under an RBM of anybody's training, in nats: log Z is ours for all."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dvaepp


def machine_of(parameters: Path) -> dvaepp.BoltzmannMachine:
    """exp(a'v + b'h + v'Wh) / Z as a machine of two blocks."""
    given = {key: torch.from_numpy(np.asarray(value, np.float32)) for key, value in np.load(parameters).items()}
    machine = dvaepp.BoltzmannMachine(*given["W"].shape)
    with torch.no_grad():
        machine.bias.copy_(torch.cat([given["a"], given["b"]]))
        machine.couplings[0].copy_(given["W"])
    return machine


def nll(parameters: Path, bits: np.ndarray) -> dict[str, Any]:
    """Mean NLL with its standard error: that of the mean over images, and that of log Z, which all images share."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    machine, start = machine_of(parameters), time.perf_counter()
    with torch.no_grad():
        log_z = dvaepp.estimate_log_partition(machine)
        v = torch.from_numpy(bits).double()
        field = machine.double().field(torch.cat([v, v.new_zeros(len(v), machine.blocks[1])], 1), 1)
        each = log_z.value - v @ machine.bias[: v.shape[1]] - torch.nn.functional.softplus(field).sum(1)
    over_images = each.std().item() / len(each) ** 0.5
    return {
        "nll": round(each.mean().item(), 3),
        "standard_error": round((over_images**2 + log_z.standard_error**2) ** 0.5, 3),
        "log_z": round(log_z.value, 3),
        "log_z_error": round(log_z.standard_error, 4),
        "trusted": bool(log_z.trusted),
        "method": log_z.method,
        "images": len(each),
        "evaluation_seconds": round(time.perf_counter() - start, 1),
    }
