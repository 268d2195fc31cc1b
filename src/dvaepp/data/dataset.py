"""The one form in which data reaches training: three splits of flat examples of bits, or of numbers as they are."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args
from weakref import WeakValueDictionary

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dvaepp.data.columns import Column, ColumnKind
from dvaepp.data.kinds import DTYPES, MOST, Kind
from dvaepp.errors import InputError

_NEAR: WeakValueDictionary[tuple[str, str], "Dataset"] = WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class Labels:
    """The class of each example by split, int64 (n,): the place of its name among `classes`. No model sees them."""

    classes: tuple[str, ...]
    train: Tensor
    valid: Tensor
    test: Tensor


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples (n, pixels) as a model's likelihood takes them, and what is known of each."""

    x: Tensor
    shape: tuple[int, ...]
    """Of one."""
    ids: NDArray[Any]
    """Rows (n,) where they came from, or the names of pictures' files."""
    labels: NDArray[Any] | None = None
    """The names of their classes (n,), where they are known."""
    columns: tuple[str, ...] | None = None
    """Names of a table's columns, where they are known."""
    drawn: bool = False
    """Whether bits were drawn from grey, or cut from it."""

    def at(self, places: Tensor) -> "Examples":
        """Those at these places."""
        chosen = places.numpy()
        labels = None if self.labels is None else self.labels[chosen]
        return Examples(self.x[places], self.shape, self.ids[chosen], labels, self.columns, self.drawn)


def in_order(own: tuple[str, ...], wanted: Sequence[str], name: str) -> list[int]:
    """Where the wanted columns are among a table's own; InputError, beginning with the name, where they are others."""
    if own == tuple(wanted):  # of one name there may be several
        return list(range(len(own)))
    if len(set(own)) < len(own) or set(own) != set(wanted):
        odd = next((column for column in wanted if column not in own), None)
        held = f"has no column {odd!r}" if odd is not None else f"has the columns {', '.join(own[:20])}"
        raise InputError(f"{name} {held}, expected {', '.join(wanted[:20])} as in training")
    return [own.index(column) for column in wanted]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of flat examples; InputError unless they are non-empty, equally wide and hold what they promise."""

    name: str
    shape: tuple[int, ...]
    """(height, width) of an image, (height, width, 3) in colour, (columns,) of a table."""
    train: Tensor = field(repr=False)
    """(n, pixels): uint8 bits 0/1, or what `kind` says; uint8 grey levels 0..255 when `dynamic`."""
    valid: Tensor = field(repr=False)
    """(n, pixels): uint8 bits, or what `kind` says."""
    test: Tensor = field(repr=False)
    """(n, pixels): uint8 bits, or what `kind` says."""
    dynamic: bool
    """Whether train is binarised afresh, x ~ Bernoulli(grey/255), on every draw."""
    protocol: str
    """Source, split, binarisation and seeds, in a sentence or two."""
    kind: Kind = "bits"
    """bits, levels 0..255 (uint8), real (float32), counts or categories (int32), in all splits alike; or mixed
    (float32), each column being what `schema` says."""
    columns: tuple[str, ...] | None = None
    """Names of a table's columns, where they are known; they take no part in the digest."""
    schema: tuple[Column, ...] | None = field(default=None, repr=False)
    """What each column holds, of a table of several kinds."""
    labels: Labels | None = field(default=None, repr=False)
    """Classes of the examples, where they are known; they take no part in the digest."""
    ids: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None = field(default=None, repr=False)
    """Of train, valid and test the rows (n,) that the examples had where they came from, or names of pictures' files;
    None where they are not known. They take no part in the digest."""

    def __post_init__(self) -> None:
        if self.kind not in DTYPES:
            raise InputError(f"data set {self.name!r}: kind is {self.kind!r}, expected one of {', '.join(DTYPES)}")
        if self.dynamic and self.kind != "bits":
            raise InputError(f"data set {self.name!r}: kind is {self.kind!r}, expected bits of dynamic data")
        if (self.kind == "mixed") != (self.schema is not None):
            raise InputError(
                f"data set {self.name!r}: kind is {self.kind!r}, expected mixed with a schema, and only so"
            )
        if self.schema is not None and tuple(column.name for column in self.schema) != self.columns:
            raise InputError(f"data set {self.name!r}: its schema is of other columns than {self.columns}")
        if self.columns is not None and (len(self.columns),) != self.shape:
            held = f"{len(self.columns)} names of columns for examples of shape {self.shape}"
            raise InputError(f"data set {self.name!r} has {held}, expected one for each column of a table")
        for split in ("train", "valid", "test"):
            self._validate(split, getattr(self, split))
            if self.labels is not None and len(getattr(self.labels, split)) != len(getattr(self, split)):
                held = f"{len(getattr(self.labels, split)):,} labels of {split}"
                raise InputError(f"data set {self.name!r} has {held}, expected one for each example")

    def _validate(self, split: str, examples: Tensor) -> None:
        where = f"data set {self.name!r}: {split}"
        if examples.dtype != DTYPES[self.kind]:
            raise InputError(f"{where} has dtype {examples.dtype}, expected {DTYPES[self.kind]}")
        if examples.ndim != 2 or examples.shape[1] != self.pixels:
            expected = f"(n, {self.pixels}) for examples of shape {self.shape}"
            raise InputError(f"{where} has shape {tuple(examples.shape)}, expected {expected}")
        if examples.numel() == 0:
            raise InputError(f"{where} is empty, expected at least one example of at least one pixel")
        if self.kind in ("real", "mixed"):
            if not bool(examples.isfinite().all()):
                raise InputError(f"{where} holds a number that is not finite, expected finite numbers")
            for column, values in zip(self.schema or (), examples.T, strict=False):
                column.check(values.numpy(), where)
            return
        top = {"bits": 255 if self.dynamic and split == "train" else 1, "levels": 255}.get(self.kind, MOST)
        for value in (int(examples.min()), int(examples.max())):
            if not 0 <= value <= top:
                raise InputError(f"{where} holds the value {value}, expected values in 0..{top}")

    @property
    def summary(self) -> str:
        """How many examples of what there are, in a line.

        >>> bits = torch.zeros(20, 12, dtype=torch.uint8)
        >>> Dataset("none", (3, 4), bits, bits[:2], bits[:2], dynamic=True, protocol="made up").summary
        'train 20, valid 2, test 2 examples of 3 x 4 bits, of train drawn from grey on every use'
        """
        counts = ", ".join(f"{split} {len(getattr(self, split)):,}" for split in ("train", "valid", "test"))
        sides = " x ".join(map(str, self.shape)) if len(self.shape) > 1 else f"{self.shape[0]} columns of"
        kind = {"real": "real numbers"}.get(self.kind, self.kind)
        if self.schema is not None:
            named = {each: [c.name for c in self.schema if c.kind == each] for each in get_args(ColumnKind)}
            kind = "; ".join(f"{each} {', '.join(names)}" for each, names in named.items() if names)
            sides = f"{self.shape[0]} columns:"
        drawn = ", of train drawn from grey on every use" if self.dynamic else ""
        labels = "" if self.labels is None else f"; {len(self.labels.classes)} classes as labels"
        return f"{counts} examples of {sides} {kind}{drawn}{labels}"

    @property
    def pixels(self) -> int:
        """Number of values of one example: 3 to a pixel in colour."""
        return math.prod(self.shape)

    @property
    def categories(self) -> int:
        """K, one more than the greatest value of any split: categories are 0, .., K - 1."""
        return 1 + max(int(examples.max()) for examples in (self.train, self.valid, self.test))

    @property
    def mean(self) -> Float[Tensor, " pixels"]:
        """Mean of each value over train in the units of `batch`: in [0, 1] for bits, in 0..255 for levels."""
        real = self.train.is_floating_point()
        total = self.train.sum(0, dtype=torch.float64 if real else torch.int64).double()
        return (total / (len(self.train) * (255 if self.dynamic else 1))).float()

    @property
    def sd(self) -> Float[Tensor, " pixels"]:
        """Standard deviation of each value over train; 1 where it is 0, and for bits."""
        if self.kind == "bits":
            return torch.ones(self.pixels)
        sd = self.train.double().std(0, correction=0).float()
        return torch.where(sd > 0, sd, 1.0)

    def batch(self, indices: Tensor) -> Float[Tensor, "*batch pixels"]:
        """Examples of train at `indices` (*batch,), as the likelihood takes them: levels stay 0..255.

        Dynamic ones are bits drawn from torch's global CPU generator.
        """
        examples = self.train[indices].float()
        return (255 * torch.rand_like(examples) < examples).float() if self.dynamic else examples

    def examples(self, split: str) -> Examples:
        """All of a split, and what is known of them; of dynamic data train is one draw, as `batch` makes it."""
        place = ("train", "valid", "test").index(split)
        x = getattr(self, split)
        labels = None if self.labels is None else np.array(self.labels.classes)[getattr(self.labels, split).numpy()]
        grey = self.dynamic and split == "train"
        drawn = self.batch(torch.arange(len(x))) if split == "train" else x.float()
        ids = np.arange(len(x)) if self.ids is None else self.ids[place]
        return Examples(drawn, self.shape, ids, labels, self.columns, grey)

    def near(self, device: torch.device) -> "Dataset":
        """The same with `train` in a GPU's memory, where those of one digest are one.

        Itself where the device is no GPU, and where it is dynamic, drawn on the CPU, or of more than 1 GiB.
        """
        if device.type != "cuda" or self.dynamic or self.train.nbytes > 2**30:
            return self
        of = self.digest(), str(device)
        if (there := _NEAR.get(of)) is None:
            there = _NEAR[of] = replace(self, train=self.train.to(device))
        return there

    def digest(self) -> str:
        """SHA-256 over the bytes and the shape of the three splits: identifies the data in checkpoints."""
        # Bits came first, and the digests in their checkpoints name no kind.
        form: tuple[Any, ...] = (self.shape, self.dynamic)
        if self.kind != "bits":
            form = (*form, self.kind)
        if self.schema is not None:
            form = (*form, [(column.kind, column.values, column.gap) for column in self.schema])
        total = hashlib.sha256(repr(form).encode())
        for examples in (self.train, self.valid, self.test):
            total.update(repr(tuple(examples.shape)).encode())
            total.update(examples.contiguous().numpy().data)
        return total.hexdigest()
