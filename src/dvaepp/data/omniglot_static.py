"""OMNIGLOT binarised once, as Table 1 has it (Tucker et al. 2017): of Burda's file, and of Lake's originals."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dvaepp.data.binarise import Bits, Grey, columns_first, permuted, static_dataset, white
from dvaepp.data.dataset import Dataset
from dvaepp.data.download import File, PublicDataSet
from dvaepp.data.omniglot import Omniglot, hold_out
from dvaepp.data.omniglot_lake import OmniglotLake

_DRAWN, _PERMUTED = 5, 123
_HOW = (
    f"train, then test binarised once by one stream of numpy RandomState({_DRAWN}), the last 1,345 training images "
    f"after RandomState({_PERMUTED}).permutation are valid (Tucker et al. 2017)."
)


def drawn_once(train: Grey, test: Grey) -> tuple[Bits, Bits]:
    """x ~ Bernoulli(grey) of train, then of test, from one stream."""
    stream = np.random.RandomState(_DRAWN)
    first, second = ((stream.random_sample(grey.shape) * white(grey) < grey).astype(np.uint8) for grey in (train, test))
    return first, second


def _dataset(name: str, train: Bits, test: Bits, source: str) -> Dataset:
    return static_dataset(name, (*hold_out(permuted(train, _PERMUTED)), test), f"{source}, {_HOW}")


@dataclass(frozen=True)
class OmniglotStatic(PublicDataSet):
    """Burda's 28x28 OMNIGLOT binarised once, as Table 1 has it (Tucker et al. 2017)."""

    name: ClassVar[str] = "omniglot-static"
    summary: ClassVar[str] = (
        "28x28, 23,000/1,345/8,070, Burda's file binarised once (Tucker et al. 2017); MIT, downloads, needs dvaepp[mat]"
    )
    files: ClassVar[tuple[File, ...]] = Omniglot.files

    def assemble(self, contents: dict[str, Any]) -> Dataset:
        """Drawn upright, then permuted."""
        (matrices,) = contents.values()
        train, test = (columns_first(matrix.T.astype(np.float32)) for matrix in matrices)
        return _dataset(self.name, *drawn_once(train, test), "Burda's chardata.mat")


@dataclass(frozen=True)
class OmniglotLakeStatic(PublicDataSet):
    """OMNIGLOT resized from Lake's originals, binarised once: not comparable with published likelihoods."""

    name: ClassVar[str] = "omniglot-lake-static"
    summary: ClassVar[str] = (
        "28x28, 23,000/1,345/8,070, from Lake's originals, binarised once as Table 1 has it; MIT, no download, not "
        "comparable with published numbers"
    )
    comparable: ClassVar[bool] = False
    files: ClassVar[tuple[File, ...]] = OmniglotLake.files

    def assemble(self, contents: dict[str, Any]) -> Dataset:
        """Drawn, then permuted: the file is sorted by alphabet."""
        (stored,) = contents.values()
        source = "OMNIGLOT area-averaged to 28x28 from Lake's originals (not Burda's file, not comparable)"
        return _dataset(self.name, *drawn_once(stored["train"], stored["test"]), source)
