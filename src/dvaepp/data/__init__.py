"""Data sets of bits, or of numbers as they are: public ones by name, the user's own by path."""

from dvaepp.data.catalogue import NAMES, check, describe, fetch, load
from dvaepp.data.dataset import Dataset, Kind, Plain
from dvaepp.data.own import Binarise, read_examples

__all__ = ["NAMES", "Binarise", "Dataset", "Kind", "Plain", "check", "describe", "fetch", "load", "read_examples"]
