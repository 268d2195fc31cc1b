"""Data sets of binary examples: public ones by name, the user's own by path."""

from dvaepp.data.catalogue import NAMES, check, describe, fetch, load
from dvaepp.data.dataset import Dataset
from dvaepp.data.own import read_examples

__all__ = ["NAMES", "Dataset", "check", "describe", "fetch", "load", "read_examples"]
