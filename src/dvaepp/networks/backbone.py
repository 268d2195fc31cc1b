"""Residual networks that go down and up through scales: what DVAE++'s encoder and decoder are made of (Sec. 6.2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.networks.dense import signs
from dvaepp.networks.residual import ONE_CELL, Cells, normalised


class ResidualStages(nn.Sequential):
    """Residual cells from one scale to another, halving or doubling height and width, as many as there are at each."""

    def __init__(self, channels: Mapping[int, int], start: int, end: int, cells: Cells = ONE_CELL) -> None:
        layers: list[nn.Module] = []
        while start != end:
            following = start * 2 if start < end else start // 2
            scale = following / start
            layers.append(cells.one(channels[start], channels[following], scale))
            layers.extend(cells.alike(channels[following], but=1))
            start = following
        super().__init__(*layers)


class Backbone(nn.Module):
    """Images to features at `local` and at `top`: a convolution, then cells on the way down.

    `stem` > 1 makes channels of each square of stem x stem pixels first, so that no cell works at the image's scale.
    `cells` stand at the first scale and at every further one.
    """

    def __init__(
        self,
        values: int,
        size: int,
        channels: Mapping[int, int],
        *,
        local: int,
        top: int,
        cells: Cells = ONE_CELL,
        stem: int = 1,
    ) -> None:
        super().__init__()
        start = size // stem
        if not start >= local >= top >= 1:
            raise InputError(f"a backbone goes from scale {start} down to {local} and {top}, which must not rise")
        self.stem = stem
        self.enter = nn.Conv2d(values * stem**2, channels[start], 3, padding=1, bias=False)
        self.down = nn.Sequential(*cells.alike(channels[start]), *ResidualStages(channels, start, local, cells))
        self.summit = nn.Sequential(ResidualStages(channels, local, top, cells), *normalised(channels[top]))

    def forward(
        self, image: Float[Tensor, "batch values size size"]
    ) -> tuple[Float[Tensor, "batch _ local local"], Float[Tensor, "batch _ top top"]]:
        """The features at the two scales."""
        local = self.down(self.enter(F.pixel_unshuffle(image, self.stem)))
        return local, self.summit(local)


class Upsampler(nn.Module):
    """`start` makes features at `top` of zeta, linearly, of 2 zeta - 1 with `signed`; `up` takes some to `local`."""

    def __init__(
        self,
        bits: int,
        channels: Mapping[int, int],
        *,
        local: int,
        top: int,
        cells: Cells = ONE_CELL,
        signed: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.size, self.bits = (channels[top], top, top), local, bits
        linear = nn.Linear(bits, channels[top] * top**2)
        self.enter = nn.Sequential(signs(bits), linear) if signed else linear
        self.up = ResidualStages(channels, top, local, cells)

    def start(self, zeta: Float[Tensor, "batch bits"]) -> Float[Tensor, "batch _ top top"]:
        """Features at the top scale."""
        features: Tensor = self.enter(zeta).unflatten(1, self.shape)
        return features
