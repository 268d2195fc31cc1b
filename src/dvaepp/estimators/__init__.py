"""Gradient estimators for binary variables: estimator(f, logits) is f at its draws, with a gradient in the logits.

Of use without any VAE: hard attention, feature selection, anything with bits in the middle. `base` is the contract.
"""

from dvaepp.estimators.antithetic import ARM, ARMS, DisARM
from dvaepp.estimators.base import Estimator, EstimatorDesign, LearnedEstimator, PlainEstimator
from dvaepp.estimators.derivatives import DoubleControlVariates, MuProp, MuPropDesign
from dvaepp.estimators.local_expectation import LocalExpectation
from dvaepp.estimators.multi_sample import VIMCO
from dvaepp.estimators.relaxations import PiecewiseLinear, RelaxedBernoulli
from dvaepp.estimators.relaxed_control import REBAR, RELAX, REBARDesign, RELAXDesign
from dvaepp.estimators.score_function import NVIL, LeaveOneOut, NVILDesign, Reinforce
from dvaepp.estimators.straight_through import DARN, GumbelRao, ReinMax, StraightThrough, StraightThroughGumbel

__all__ = [
    "ARM",
    "ARMS",
    "DARN",
    "NVIL",
    "REBAR",
    "RELAX",
    "VIMCO",
    "DisARM",
    "DoubleControlVariates",
    "Estimator",
    "EstimatorDesign",
    "GumbelRao",
    "LearnedEstimator",
    "LeaveOneOut",
    "LocalExpectation",
    "MuProp",
    "MuPropDesign",
    "NVILDesign",
    "PiecewiseLinear",
    "PlainEstimator",
    "REBARDesign",
    "RELAXDesign",
    "ReinMax",
    "Reinforce",
    "RelaxedBernoulli",
    "StraightThrough",
    "StraightThroughGumbel",
]
