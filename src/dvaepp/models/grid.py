"""Flat examples as images padded to a square whose side is a power of two, and back."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.errors import InputError


class Grid(nn.Module):
    """Images of shape (height, width) or (height, width, values), at the upper left of `size` x `size` zeros.

    `standardised` maps x to scale (x - mean) within the image and to 0 around it.
    """

    def __init__(self, shape: tuple[int, ...], mean: Float[Tensor, " pixels"], scale: float = 1.0) -> None:
        super().__init__()
        if len(shape) not in (2, 3) or min(shape) < 1:
            raise InputError(f"a convolutional model needs images, (height, width[, values]), not examples {shape}")
        if mean.shape != (math.prod(shape),):
            raise InputError(f"mean has shape {tuple(mean.shape)}, expected ({math.prod(shape)},) for images {shape}")
        self.height, self.width, self.values = (*shape, 1)[:3]
        self.size = 1 << (max(self.height, self.width, 2) - 1).bit_length()
        self.scale = scale
        self.mean: Tensor
        self.inside: Tensor
        self.register_buffer("mean", self.image(mean[None]))
        self.register_buffer("inside", self.image(torch.ones_like(mean)[None]), persistent=False)

    def image(self, x: Float[Tensor, "batch pixels"]) -> Float[Tensor, "batch values size size"]:
        """Padded with zeros below and to the right."""
        images = torch.unflatten(x, 1, (self.height, self.width, self.values)).permute(0, 3, 1, 2)
        padding = (0, self.size - self.width, 0, self.size - self.height)
        return F.pad(images, padding) if any(padding) else images

    def standardised(self, image: Float[Tensor, "batch values some some"]) -> Float[Tensor, "batch values some some"]:
        """scale (x - mean) within the image, 0 around it; for an image or its pixels at a coarser scale."""
        scale = image.shape[-1]
        return self.scale * (image - self.at(scale, self.mean)) * self.at(scale, self.inside)

    def at(self, scale: int, image: Float[Tensor, "batch values size size"]) -> Float[Tensor, "batch values _ _"]:
        """The upper left pixel of each of scale x scale squares: what is known at this scale."""
        step = self.size // scale
        return image[:, :, ::step, ::step]

    def sites(self, image: Float[Tensor, "batch numbers size size"]) -> Float[Tensor, "batch sites numbers"]:
        """The numbers at every pixel of the image, row by row; what lies around it is cut off."""
        return image[:, :, : self.height, : self.width].flatten(2).transpose(1, 2)
