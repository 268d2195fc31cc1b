"""CIFAR-10 from lossless mosaics of 50 x 50 images: writes TARGET/cifar10/cifar10.npz, which `dvaepp` reads.

    python scripts/cifar10_from_mosaics.py SOURCE.npz TARGET

SOURCE holds encoded images as bytes, train_00 .. and test_00 .., each 1600 x 1600. TARGET is a data folder: give it to
dvaepp as --data-dir or DVAEPP_DATA.
"""

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE, _SIZE = 50, 32


def tiles(encoded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The (2500, 32, 32, 3) images of one mosaic, row by row."""
    with Image.open(io.BytesIO(encoded.tobytes())) as mosaic:
        levels = np.array(mosaic.convert("RGB"))
    grid = levels.reshape(_SIDE, _SIZE, _SIDE, _SIZE, 3)
    return grid.transpose(0, 2, 1, 3, 4).reshape(-1, _SIZE, _SIZE, 3)


def split(source: Any, name: str) -> NDArray[np.uint8]:
    """All images of train or test in the order of the mosaics."""
    found = sorted(key for key in source.files if key.startswith(f"{name}_") and key != f"{name}_labels")
    return np.concatenate([tiles(source[key]) for key in found])


def main(source_path: Path, target: Path) -> Path:
    """Convert, under a temporary name until all is written."""
    path = target / "cifar10" / "cifar10.npz"
    partial = path.with_name(f".{os.getpid()}.partial.npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with np.load(source_path, allow_pickle=False) as source:
            np.savez(partial, train=split(source, "train"), test=split(source, "test"))
        return partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python scripts/cifar10_from_mosaics.py SOURCE.npz TARGET")
    print(main(Path(sys.argv[1]), Path(sys.argv[2])))
