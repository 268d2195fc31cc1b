"""Burda's 28x28 OMNIGLOT under the protocol of the DVAE family's code: no shuffle, train dynamic."""

from dataclasses import dataclass
from typing import Any, ClassVar

from dvaepp.data import formats
from dvaepp.data.binarise import Grey, columns_first, dynamic_dataset
from dvaepp.data.dataset import Dataset
from dvaepp.data.download import File, PublicDataSet

VALID = 1345


def hold_out(train: Grey) -> tuple[Grey, Grey]:
    """All but the last 1,345 images, and those."""
    return train[:-VALID], train[-VALID:]


@dataclass(frozen=True)
class Omniglot(PublicDataSet):
    """Burda's 28x28 OMNIGLOT under the protocol of the DVAE family's code: no shuffle, train dynamic."""

    name: ClassVar[str] = "omniglot"
    summary: ClassVar[str] = (
        "28x28, 23,000/1,345/8,070, Burda's file, train binarised on every draw; MIT, downloads, needs dvaepp[mat]"
    )
    files: ClassVar[tuple[File, ...]] = (
        File(
            "omniglot",
            "chardata.mat",
            "21ecaf34373511aa7691cf2e0802aa3d",
            lambda raw, path: formats.mat(raw, path, ("data", "testdata")),
            "https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/",
            "md5",
        ),
    )

    def assemble(self, contents: dict[str, Any]) -> Dataset:
        """The file's own order, the last 1,345 training images held out."""
        (matrices,) = contents.values()
        train, test = (columns_first(matrix.T) for matrix in matrices)
        source = (
            "Burda's chardata.mat in its own order, the last 1,345 training images are valid, "
            "train rounded to 256 grey levels"
        )
        return dynamic_dataset(self.name, (*hold_out(train), test), source)
