"""Where a run computes."""

import re

import torch

from dvaepp.errors import InputError


def device_named(name: str) -> torch.device:
    """The device of a name; InputError where there is none, or it lacks what likelihoods take."""
    if re.fullmatch(r"mps(:\d+)?", name):
        raise InputError(f"device {name!r} has no float64, which likelihoods and log Z take: expected cpu or cuda")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise InputError(f"device {name!r} is not one of cpu, cuda, cuda:0, cuda:1, ...")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        raise InputError(f"device {name!r} cannot be used here: this machine or this PyTorch has none") from None
