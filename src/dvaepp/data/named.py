"""The public data sets, each with the one protocol that its name stands for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dvaepp.data import cifar, formats
from dvaepp.data import download as sources
from dvaepp.data.binarise import SEED, Grey, dynamic_dataset, permuted, plain_dataset, static_dataset
from dvaepp.data.dataset import Dataset

Where = str | Path | None
_OMNIGLOT_VALID = 1345
_LAKE_SEED = 123
_CIFAR: dict[str, Callable[[bytes, Path], tuple[cifar.Images, cifar.Images]]] = {
    "cifar-10-binary.tar.gz": cifar.binary,
    "cifar-10-python.tar.gz": cifar.python,
    "cifar10.npz": cifar.arrays,
}


def digits(data_dir: Where) -> Dataset:
    """5,000 MNIST digits that come with the package: 4,000/500/500."""
    (stored,) = _read("digits", data_dir, lambda raw, path: formats.numpy_arrays(raw, path, ("images",)))
    # The file is sorted by class.
    train, valid, test = np.split(permuted(stored["images"]), [4000, 4500])
    source = f"5,000 digits of MNIST's training file, permuted with numpy RandomState({SEED}), split 4,000/500/500"
    return dynamic_dataset("digits", (train, valid, test), source)


def mnist_static(data_dir: Where) -> Dataset:
    """MNIST as Larochelle distributes it, binarised once by Salakhutdinov and Murray (2008)."""
    train, valid, test = (bits.reshape(-1, 28, 28) for bits in _read("mnist-static", data_dir, formats.amat))
    protocol = (
        "Larochelle's static binarisation of MNIST (Salakhutdinov and Murray 2008) in its published splits and order."
    )
    return static_dataset("mnist-static", (train, valid, test), protocol)


def mnist_dynamic(data_dir: Where) -> Dataset:
    """MNIST, its last 10,000 training images held out."""
    train, test = _read("mnist-dynamic", data_dir, formats.idx)
    source = "MNIST (LeCun, Cortes, Burges), the last 10,000 of its 60,000 training images are valid"
    return dynamic_dataset("mnist-dynamic", (train[:50000], train[50000:], test), source)


def omniglot(data_dir: Where) -> Dataset:
    """Burda's 28x28 OMNIGLOT under the protocol of the DVAE family's code: no shuffle, train dynamic."""
    (columns,) = _read("omniglot", data_dir, lambda raw, path: formats.mat(raw, path, ("data", "testdata")))
    train, test = (_columns_first(matrix.T) for matrix in columns)
    source = (
        "Burda's chardata.mat in its own order, the last 1,345 training images are valid, "
        "train rounded to 256 grey levels"
    )
    return dynamic_dataset("omniglot", (*_hold_out(train), test), source)


def omniglot_lake(data_dir: Where) -> Dataset:
    """OMNIGLOT resized from Lake's originals: likelihoods are not comparable with published ones."""
    (stored,) = _read("omniglot-lake", data_dir, lambda raw, path: formats.numpy_arrays(raw, path, ("train", "test")))
    # The file is sorted by alphabet: its last 1,345 images are from three that train would hardly see.
    train = permuted(stored["train"], _LAKE_SEED)
    source = (
        "OMNIGLOT area-averaged to 28x28 from Lake's originals (not Burda's file, not comparable with published "
        f"numbers), the last 1,345 training images after numpy RandomState({_LAKE_SEED}).permutation are valid"
    )
    return dynamic_dataset("omniglot-lake", (*_hold_out(train), stored["test"]), source)


def caltech101_silhouettes(data_dir: Where) -> Dataset:
    """Marlin's 28x28 silhouettes in the published splits, 1 = the object."""
    names = ("train_data", "val_data", "test_data")
    (columns,) = _read("caltech101-silhouettes", data_dir, lambda raw, path: formats.mat(raw, path, names))
    # In the file 1 is the background.
    train, valid, test = (1 - _columns_first(matrix) for matrix in columns)
    protocol = (
        "Caltech-101 silhouettes 28x28 (Marlin et al. 2010) in their published splits, transposed, 1 = the object."
    )
    return static_dataset("caltech101-silhouettes", (train, valid, test), protocol)


def cifar10(data_dir: Where) -> Dataset:
    """CIFAR-10 in colour, a tenth of its training images held out, the same ones whichever file it comes from."""
    (file,) = sources.files("cifar10", data_dir)
    train, test = (permuted(cifar.in_order(images)) for images in sources.load(file, data_dir, _CIFAR[file.name]))
    held = len(train) // 10
    protocol = (
        f"CIFAR-10 (Krizhevsky 2009) from {file.name}, levels 0..255; train and test sorted by the bytes of the images "
        f"and permuted with numpy RandomState({SEED}), the last {held:,} training images are valid."
    )
    return plain_dataset("cifar10", (train[:-held], train[-held:], test), protocol, "levels")


def _read(name: str, data_dir: Where, reader: Callable[[bytes, Path], sources.T]) -> list[sources.T]:
    return [sources.load(file, data_dir, reader) for file in sources.files(name, data_dir)]


def _hold_out(train: Grey) -> tuple[Grey, Grey]:
    return train[:-_OMNIGLOT_VALID], train[-_OMNIGLOT_VALID:]


def _columns_first(matrix: Grey) -> Grey:
    """(n, 28, 28) images from rows that list the pixels column by column."""
    return matrix.reshape(-1, 28, 28).transpose(0, 2, 1)


LOADERS: dict[str, Callable[[Where], Dataset]] = {
    "digits": digits,
    "mnist-static": mnist_static,
    "mnist-dynamic": mnist_dynamic,
    "omniglot": omniglot,
    "omniglot-lake": omniglot_lake,
    "caltech101-silhouettes": caltech101_silhouettes,
    "cifar10": cifar10,
}
