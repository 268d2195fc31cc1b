"""Grids of runs, carried out as far as they are missing, and results beside each other.

`Study` says what is run; `run_study` does it, and `compare` puts results beside each other.
"""

from dvaepp.studies.comparison import Comparison, compare
from dvaepp.studies.plan import Outcome, Plan, planned, run_study
from dvaepp.studies.study import Study, read_study

__all__ = ["Comparison", "Outcome", "Plan", "Study", "compare", "planned", "read_study", "run_study"]
