"""OMNIGLOT resized from Lake's originals: likelihoods are not comparable with published ones."""

from dataclasses import dataclass
from typing import Any, ClassVar

from dvaepp.data import archives
from dvaepp.data.binarise import dynamic_dataset, permuted
from dvaepp.data.dataset import Dataset
from dvaepp.data.download import File, PublicDataSet
from dvaepp.data.omniglot import hold_out

_SEED = 123


@dataclass(frozen=True)
class OmniglotLake(PublicDataSet):
    """OMNIGLOT resized from Lake's originals: likelihoods are not comparable with published ones."""

    name: ClassVar[str] = "omniglot-lake"
    summary: ClassVar[str] = (
        "28x28, 23,000/1,345/8,070, from Lake's originals, train binarised on every draw; MIT, no "
        "download, not comparable with published numbers"
    )
    comparable: ClassVar[bool] = False
    files: ClassVar[tuple[File, ...]] = (
        File(
            "omniglot",
            "omniglot28_from_lake.npz",
            "190f89c906c1d31e2f49ff2dbc5bc3b4caebf76dfcd48d9a31d9a2b2339dcd85",
            lambda raw, path: archives.numpy_arrays(raw, path, ("train", "test")),
        ),
    )

    def assemble(self, contents: dict[str, Any]) -> Dataset:
        """Permuted first: the file is sorted by alphabet, its last 1,345 images are of three that train hardly saw."""
        (stored,) = contents.values()
        train = permuted(stored["train"], _SEED)
        source = (
            "OMNIGLOT area-averaged to 28x28 from Lake's originals (not Burda's file, not comparable with published "
            f"numbers), the last 1,345 training images after numpy RandomState({_SEED}).permutation are valid"
        )
        return dynamic_dataset(self.name, (*hold_out(train), stored["test"]), source)
