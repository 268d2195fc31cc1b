"""A dense network as few layers as can be, for programs that have no torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.networks.dense import Affine


@dataclass(frozen=True)
class Layer:
    """W x + b, or tanh of it."""

    weight: Float64[Tensor, "outputs inputs"]
    bias: Float64[Tensor, " outputs"]
    tanh: bool = False

    def __call__(self, x: Float64[Tensor, "*batch inputs"]) -> Float64[Tensor, "*batch outputs"]:
        """What it makes of x."""
        y = x @ self.weight.T + self.bias
        return torch.tanh(y) if self.tanh else y


@torch.no_grad()
def folded(network: nn.Module) -> list[Layer]:
    """The layers of a nest of Sequentials in evaluation mode, into which all that moves or scales features is folded.

    Float64, on the CPU. InputError for other modules than linear layers, batch norm, tanh, and fixed shifts and scales.
    """
    layers: list[Layer] = []
    scale, shift = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for module in _modules(network):
        if isinstance(module, nn.Linear):
            weight, bias = _double(module.weight), torch.zeros(module.out_features, dtype=torch.float64)
            if module.bias is not None:
                bias = _double(module.bias)
            layers.append(Layer(weight * scale, bias + weight @ shift.expand(module.in_features)))
            scale, shift = torch.ones_like(scale.sum()), torch.zeros_like(shift.sum())
        elif isinstance(module, nn.Tanh) and layers and not layers[-1].tanh:
            layers[-1] = Layer(layers[-1].weight, layers[-1].bias, tanh=True)
        elif (moved := _moved(module)) is not None:
            by, to = moved
            if layers and not layers[-1].tanh:
                last = layers[-1]
                layers[-1] = Layer(last.weight * by.expand_as(last.bias)[:, None], last.bias * by + to)
            else:
                scale, shift = scale * by, shift * by + to
        else:
            raise InputError(f"a {type(module).__name__} is no linear layer, batch norm, tanh or fixed shift or scale")
    if not layers or layers[-1].tanh:
        raise InputError("a network must end in a linear layer, or what moves and scales its outputs")
    return layers


def _modules(network: nn.Module) -> list[nn.Module]:
    if type(network) is not nn.Sequential:
        return [network]
    return [module for part in network for module in _modules(part)]


def _moved(module: nn.Module) -> tuple[Tensor, Tensor] | None:
    """By what a module scales features, and what it adds then; None where it does something else."""
    if isinstance(module, Affine) and module.least is None:
        return _double(torch.as_tensor(module.scale)), _double(module.shift)
    if isinstance(module, nn.BatchNorm1d) and module.running_mean is not None and module.running_var is not None:
        by = _double(module.weight) / torch.sqrt(_double(module.running_var) + module.eps)
        return by, _double(module.bias) - _double(module.running_mean) * by
    return None


def _double(values: Tensor) -> Float64[Tensor, "*shape"]:
    return values.cpu().double()
