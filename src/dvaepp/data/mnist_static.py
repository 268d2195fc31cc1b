"""MNIST as Larochelle distributes it, binarised once by Salakhutdinov and Murray (2008)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from dvaepp.data import formats
from dvaepp.data.binarise import static_dataset
from dvaepp.data.dataset import Dataset
from dvaepp.data.download import File, PublicDataSet

_HOST = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
_CHECKSUMS = {
    "train": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "valid": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "test": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
}


@dataclass(frozen=True)
class MnistStatic(PublicDataSet):
    """MNIST as Larochelle distributes it, binarised once by Salakhutdinov and Murray (2008)."""

    name: ClassVar[str] = "mnist-static"
    summary: ClassVar[str] = "28x28, 50,000/10,000/10,000, binarised once by Larochelle; CC BY-SA 3.0, downloads 110 MB"
    files: ClassVar[tuple[File, ...]] = tuple(
        File("mnist_static", f"binarized_mnist_{split}.amat", checksum, formats.amat, _HOST)
        for split, checksum in _CHECKSUMS.items()
    )

    def assemble(self, contents: dict[str, Any]) -> Dataset:
        """The published splits in the published order."""
        train, valid, test = (bits.reshape(-1, 28, 28) for bits in contents.values())
        protocol = (
            "Larochelle's static binarisation of MNIST (Salakhutdinov and Murray 2008) in its published splits and "
            "order."
        )
        return static_dataset(self.name, (train, valid, test), protocol)
