"""MNIST (LeCun, Cortes, Burges), binarised on every draw."""

from dataclasses import dataclass
from typing import Any, ClassVar

from dvaepp.data import formats
from dvaepp.data.binarise import dynamic_dataset
from dvaepp.data.dataset import Dataset
from dvaepp.data.download import File, PublicDataSet

_HOST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_CHECKSUMS = {
    "train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "t10k": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
}


@dataclass(frozen=True)
class MnistDynamic(PublicDataSet):
    """MNIST (LeCun, Cortes, Burges), binarised on every draw."""

    name: ClassVar[str] = "mnist-dynamic"
    summary: ClassVar[str] = "28x28, 50,000/10,000/10,000, train binarised on every draw; CC BY-SA 3.0, downloads 11 MB"
    files: ClassVar[tuple[File, ...]] = tuple(
        File("mnist", f"{part}-images-idx3-ubyte.gz", checksum, formats.idx, _HOST)
        for part, checksum in _CHECKSUMS.items()
    )

    def assemble(self, contents: dict[str, Any]) -> Dataset:
        """The last 10,000 training images are held out."""
        train, test = contents.values()
        source = "MNIST (LeCun, Cortes, Burges), the last 10,000 of its 60,000 training images are valid"
        return dynamic_dataset(self.name, (train[:50000], train[50000:], test), source)
