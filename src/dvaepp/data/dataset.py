"""The one form in which data reaches training: three splits of flat examples of bits."""

import hashlib
import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.errors import InputError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of flat examples; InputError unless they are non-empty, equally wide and hold what they promise."""

    name: str
    shape: tuple[int, ...]
    """(height, width) of an image, (columns,) of a table."""
    train: Tensor = field(repr=False)
    """(n, pixels) uint8: bits 0/1, or grey levels 0..255 when `dynamic`."""
    valid: Tensor = field(repr=False)
    """(n, pixels) uint8 bits."""
    test: Tensor = field(repr=False)
    """(n, pixels) uint8 bits."""
    dynamic: bool
    """Whether train is binarised afresh, x ~ Bernoulli(grey/255), on every draw."""
    protocol: str
    """Source, split, binarisation and seeds, in a sentence or two."""

    def __post_init__(self) -> None:
        for split in ("train", "valid", "test"):
            self._validate(split, getattr(self, split), top=255 if self.dynamic and split == "train" else 1)

    def _validate(self, split: str, examples: Tensor, top: int) -> None:
        where = f"data set {self.name!r}: {split}"
        if examples.dtype != torch.uint8:
            raise InputError(f"{where} has dtype {examples.dtype}, expected torch.uint8")
        if examples.ndim != 2 or examples.shape[1] != self.pixels:
            expected = f"(n, {self.pixels}) for examples of shape {self.shape}"
            raise InputError(f"{where} has shape {tuple(examples.shape)}, expected {expected}")
        if examples.numel() == 0:
            raise InputError(f"{where} is empty, expected at least one example of at least one pixel")
        if int(examples.max()) > top:
            raise InputError(f"{where} holds the value {int(examples.max())}, expected values in 0..{top}")

    @property
    def pixels(self) -> int:
        """Number of bits of one example."""
        return math.prod(self.shape)

    @property
    def mean(self) -> Float[Tensor, " pixels"]:
        """Mean of each pixel over train, in [0, 1]."""
        total = self.train.sum(0, dtype=torch.int64).double()
        return (total / (len(self.train) * (255 if self.dynamic else 1))).float()

    def batch(self, indices: Tensor) -> Float[Tensor, "batch pixels"]:
        """Examples of train at `indices` (batch,), in {0, 1}; dynamic ones drawn from torch's global CPU generator."""
        examples = self.train[indices].float()
        return (255 * torch.rand_like(examples) < examples).float() if self.dynamic else examples

    def digest(self) -> str:
        """SHA-256 over the bytes and the shape of the three splits: identifies the data in checkpoints."""
        total = hashlib.sha256(repr((self.shape, self.dynamic)).encode())
        for examples in (self.train, self.valid, self.test):
            total.update(repr(tuple(examples.shape)).encode())
            total.update(examples.contiguous().numpy().data)
        return total.hexdigest()
