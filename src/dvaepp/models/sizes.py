"""The sizes of DVAE++'s networks, plain numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

from dvaepp.networks.residual import Cells
from dvaepp.numerics import check_counts, keep_plain, plain


@dataclass(frozen=True)
class ConvolutionalSizes:
    """Plain numbers that make DVAE++'s networks: scales are heights in cells, and so powers of two.

    local: the scale of `groups` groups of local variables, with `variables` at every location. top: the scale that
    global variables are read from, and of `coarse` groups of local variables before those. channels: at the local
    scale; twice as many at half the height. cells: residual cells at every scale, or how many. hidden: layers of the
    encoder of global variables. stem: pixels a side that share one location at the finest scale.

    The defaults are Table 3's sizes (Sec. 6.2), as far as the paper tells them.

    >>> ConvolutionalSizes(local=8, channels=32).channels_at(32)
    {1: 256, 2: 128, 4: 64, 8: 32, 16: 16, 32: 8}
    """

    local: int = 8
    top: int = 4
    channels: int = 64
    cells: Cells | int = field(default_factory=Cells)
    groups: int = 16
    variables: int = 32
    hidden: tuple[int, ...] = (256,)
    stem: int = 1
    coarse: int = 0

    def __post_init__(self) -> None:
        keep_plain(self)
        object.__setattr__(self, "hidden", tuple(map(plain, self.hidden)))
        names = ("local", "top", "channels", "groups", "variables", "stem")
        counts = {name: getattr(self, name) for name in names} | {f"hidden[{i}]": n for i, n in enumerate(self.hidden)}
        cells = {} if isinstance(self.cells, Cells) else {"cells": self.cells}
        check_counts("ConvolutionalSizes", **counts, **cells)
        check_counts("ConvolutionalSizes", least=0, coarse=self.coarse)

    @property
    def each_scale(self) -> Cells:
        """The cells that stand at every scale."""
        return self.cells if isinstance(self.cells, Cells) else Cells(self.cells)

    def channels_at(self, size: int) -> dict[int, int]:
        """Channels at every scale of an image of this size."""
        scales = [1 << i for i in range(size.bit_length())]
        return {scale: max(1, self.channels * self.local // scale) for scale in scales}


PAPER_SIZES = ConvolutionalSizes()
