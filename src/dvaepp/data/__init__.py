"""Data sets of bits, or of numbers as they are: public ones by name, the user's own by path or as arrays."""

from dvaepp.data.arrays import from_arrays
from dvaepp.data.dataset import Dataset, Examples, Labels
from dvaepp.data.kinds import Kind, Plain
from dvaepp.data.own import read_examples
from dvaepp.data.reading import Binarise
from dvaepp.data.registry import check, describe, fetch, is_comparable, load, names

__all__ = [
    "Binarise",
    "Dataset",
    "Examples",
    "Kind",
    "Labels",
    "Plain",
    "check",
    "describe",
    "fetch",
    "from_arrays",
    "is_comparable",
    "load",
    "names",
    "read_examples",
]
