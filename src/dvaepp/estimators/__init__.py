"""Gradient estimators for binary variables: estimator(f, logits) is f at its draws, with a gradient in the logits.

Of use without any VAE: hard attention, feature selection, anything with bits in the middle. `base` is the contract.
"""

from dvaepp.estimators.base import Estimator, EstimatorDesign, LearnedEstimator, PlainEstimator
from dvaepp.estimators.score_function import NVIL, LeaveOneOut, NVILDesign, Reinforce

__all__ = [
    "NVIL",
    "Estimator",
    "EstimatorDesign",
    "LearnedEstimator",
    "LeaveOneOut",
    "NVILDesign",
    "PlainEstimator",
    "Reinforce",
]
