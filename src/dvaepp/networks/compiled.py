"""Residual cells compiled for training: normalisation, ELU and sums fused, which saves a fifth of a step on a CPU."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.networks.residual import ResidualCell


class CompiledCell(ResidualCell):
    """A residual cell that runs compiled while it trains.

    No cell holds compiled code: a copy of one, by deepcopy, pickle or AveragedModel, runs its own parameters.
    """

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs _ _"]:
        """The sum of shortcut and residual; in evaluation, where batches are of any size, without compiling."""
        return _compiled()(self, x) if self.training else super().forward(x)


_MOST_SHAPES = 64
"""Cells of how many sizes and precisions are compiled; torch leaves those beyond eight as they are."""


@cache
def _compiled() -> Callable[[ResidualCell, Tensor], Tensor]:
    """ResidualCell.forward compiled, for all cells; torch.compile takes seconds even before the first call."""
    keep_float32()
    torch._dynamo.config.recompile_limit = max(_MOST_SHAPES, torch._dynamo.config.recompile_limit)
    return torch.compile(ResidualCell.forward)


def compile_cells(model: nn.Module) -> None:
    """Let every ResidualCell of the model run compiled while it trains; in evaluation, of any batch, as it is.

    Cells become CompiledCells in place; those of classes derived from ResidualCell are left alone. The first step
    compiles, for a minute or two. The state dict keeps its names. Copies of the model run compiled too, each with its
    own parameters. Sums are taken in another order than without, so that training is not the same bit for bit. On a CPU
    it takes a C++ compiler: InputError without one.
    """
    for device in {parameter.device for parameter in model.parameters()}:
        check_compiler("training.compile", device)
    for cell in model.modules():
        if type(cell) is ResidualCell:
            cell.__class__ = CompiledCell


def keep_float32() -> None:
    """Have torch's compiler not warn, from now on, that float32 products on a GPU could be tf32: they are not to be."""
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)


def can_compile(kind: str) -> bool:
    """Whether there is what compiling for this kind of device needs: for `cpu` a C++ compiler."""
    compilers = os.environ.get("CXX", "").split()[:1] or ["g++", "clang++"]
    return kind != "cpu" or any(map(shutil.which, compilers))


def check_compiler(what: str, device: torch.device) -> None:
    """InputError where something needs a C++ compiler to compile for this device, and there is none."""
    if not can_compile(device.type):
        raise InputError(f"{what} needs a C++ compiler, such as g++, and there is none: leave it false")
