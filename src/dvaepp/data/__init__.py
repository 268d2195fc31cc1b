"""Data sets of bits, or of numbers as they are: public ones by name, the user's own by path."""

from dvaepp.data.dataset import Dataset
from dvaepp.data.kinds import Kind, Plain
from dvaepp.data.own import Binarise, read_examples
from dvaepp.data.registry import check, describe, fetch, is_comparable, load, names

__all__ = [
    "Binarise",
    "Dataset",
    "Kind",
    "Plain",
    "check",
    "describe",
    "fetch",
    "is_comparable",
    "load",
    "names",
    "read_examples",
]
