"""Residual cells with squeeze-and-excitation (He et al. 2016, Hu et al. 2017): the stuff of DVAE++ (Sec. 6.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.numerics import check_counts, keep_plain


class SqueezeExcite(nn.Module):
    """x_c sigmoid(g_c), g = W_2 elu(W_1 mean_hw(x)): every channel scaled by what all of them hold on average.

    The bottleneck has max(channels / 16, 4) units.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        bottleneck = max(channels // 16, 4)
        self.squeeze = nn.Linear(channels, bottleneck)
        self.excite = nn.Linear(bottleneck, channels)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """x with its channels scaled."""
        gates = self.excite(F.elu(self.squeeze(x.mean((2, 3)))))
        return x * torch.sigmoid(gates)[:, :, None, None]


class ResidualCell(nn.Module):
    """shortcut(x) + SE(conv(elu(norm(conv(elu(norm(x))))))): pre-activation, 3 x 3 convolutions.

    `scale` 1 keeps height and width, 1/2 halves them (the first convolution has stride 2, the shortcut takes means),
    2 doubles them (x is repeated first). The shortcut is x itself where its size and channels stay.
    Biases stand only where gates see them: what follows a cell begins with batch norm.
    """

    def __init__(self, inputs: int, outputs: int, scale: int | float = 1, *, squeeze_excite: bool = True) -> None:
        super().__init__()
        if scale not in (0.5, 1, 2):
            raise InputError(f"scale of a ResidualCell must be 0.5, 1 or 2, not {scale!r}")
        resize: dict[int | float, nn.Module] = {0.5: nn.AvgPool2d(2), 1: nn.Identity(), 2: nn.Upsample(scale_factor=2)}
        change = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)
        self.shortcut = nn.Sequential(resize[scale], change)
        self.residual = nn.Sequential(
            *normalised(inputs),
            resize[2] if scale == 2 else nn.Identity(),
            nn.Conv2d(inputs, outputs, 3, 2 if scale == 0.5 else 1, 1, bias=False),
            *normalised(outputs),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=squeeze_excite),
            SqueezeExcite(outputs) if squeeze_excite else nn.Identity(),
        )

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs _ _"]:
        """The sum of shortcut and residual."""
        total: Tensor = self.shortcut(x) + self.residual(x)
        return total


@dataclass(frozen=True)
class Cells:
    """The residual cells of a network: `count` of them at every scale, with `squeeze_excite` or without."""

    count: int = 2
    squeeze_excite: bool = True

    def __post_init__(self) -> None:
        keep_plain(self)
        check_counts("Cells", count=self.count)

    def one(self, inputs: int, outputs: int, scale: int | float = 1) -> ResidualCell:
        """A cell from one number of channels to another."""
        return ResidualCell(inputs, outputs, scale, squeeze_excite=self.squeeze_excite)

    def alike(self, channels: int, but: int = 0) -> list[nn.Module]:
        """`count` cells that change nothing in size, or a few fewer."""
        return [self.one(channels, channels) for _ in range(self.count - but)]


ONE_CELL = Cells(1)


def normalised(channels: int) -> tuple[nn.Module, nn.Module]:
    """Batch norm, then ELU."""
    return nn.BatchNorm2d(channels), nn.ELU(inplace=True)


def output(inputs: int, outputs: int, kernel: int = 1, start: Float[Tensor, " outputs"] | None = None) -> nn.Sequential:
    """Batch norm, ELU and a convolution to parameters of distributions, which are `start`, by default 0, at first."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    with torch.no_grad():
        for parameter in convolution.parameters():
            parameter.zero_()
        if start is not None and convolution.bias is not None:
            convolution.bias.copy_(start)
    return nn.Sequential(*normalised(inputs), convolution)
