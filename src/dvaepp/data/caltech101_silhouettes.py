"""Caltech-101 silhouettes (Marlin et al. 2010)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from dvaepp.data import formats
from dvaepp.data.binarise import columns_first, static_dataset
from dvaepp.data.dataset import Dataset
from dvaepp.data.download import File, PublicDataSet


@dataclass(frozen=True)
class Caltech101Silhouettes(PublicDataSet):
    """Caltech-101 silhouettes (Marlin et al. 2010)."""

    name: ClassVar[str] = "caltech101-silhouettes"
    summary: ClassVar[str] = "28x28, 4,100/2,264/2,307, binary; no stated licence, downloads 1 MB, needs dvaepp[mat]"
    files: ClassVar[tuple[File, ...]] = (
        File(
            "caltech101_silhouettes",
            "caltech101_silhouettes_28_split1.mat",
            "eb6735e8d84b1850fabc5590124aab1755e90c9fd28123585324398405e1e42a",
            lambda raw, path: formats.mat(raw, path, ("train_data", "val_data", "test_data")),
            "https://people.cs.umass.edu/~marlin/data/",
        ),
    )

    def assemble(self, contents: dict[str, Any]) -> Dataset:
        """The published splits, upright, 1 = the object: in the file 1 is the background."""
        (matrices,) = contents.values()
        train, valid, test = (1 - columns_first(matrix) for matrix in matrices)
        protocol = (
            "Caltech-101 silhouettes 28x28 (Marlin et al. 2010) in their published splits, transposed, 1 = the object."
        )
        return static_dataset(self.name, (train, valid, test), protocol)
