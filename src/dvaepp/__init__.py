"""Variational autoencoders with binary latent variables and Boltzmann-machine priors (DVAE++).

Everything public is a name of this module; each is loaded when it is first used, so that `import dvaepp` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvaepp.errors import InputError as InputError
    from dvaepp.latent.boltzmann import BoltzmannMachine as BoltzmannMachine
    from dvaepp.latent.overlapping import OverlappingExponential as OverlappingExponential
    from dvaepp.latent.overlapping import OverlappingLogistic as OverlappingLogistic
    from dvaepp.latent.partition import LogPartition as LogPartition
    from dvaepp.latent.partition import annealed_importance_sampling as annealed_importance_sampling
    from dvaepp.latent.partition import exact_log_partition as exact_log_partition
    from dvaepp.latent.priors import BernoulliPrior as BernoulliPrior
    from dvaepp.latent.priors import BoltzmannPrior as BoltzmannPrior
    from dvaepp.latent.priors import DirectedPrior as DirectedPrior
    from dvaepp.latent.sampling import PersistentChains as PersistentChains
    from dvaepp.latent.smoothing import hard as hard
    from dvaepp.models.feedforward import FeedForwardVAE as FeedForwardVAE
    from dvaepp.models.feedforward import HierarchicalEncoder as HierarchicalEncoder
    from dvaepp.networks.dense import dense as dense
    from dvaepp.objectives.bounds import importance_weighted as importance_weighted
    from dvaepp.objectives.bounds import joint_elbo as joint_elbo
    from dvaepp.objectives.bounds import log_weight as log_weight
    from dvaepp.objectives.bounds import marginal_elbo as marginal_elbo

__version__ = "0.1.0"

_HOMES = {
    "errors": ("InputError",),
    "latent.boltzmann": ("BoltzmannMachine",),
    "latent.partition": ("LogPartition", "annealed_importance_sampling", "exact_log_partition"),
    "latent.priors": ("BernoulliPrior", "BoltzmannPrior", "DirectedPrior"),
    "latent.sampling": ("PersistentChains",),
    "latent.overlapping": ("OverlappingExponential", "OverlappingLogistic"),
    "latent.smoothing": ("hard",),
    "models.feedforward": ("FeedForwardVAE", "HierarchicalEncoder"),
    "networks.dense": ("dense",),
    "objectives.bounds": ("importance_weighted", "joint_elbo", "log_weight", "marginal_elbo"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dvaepp' has no attribute {name!r}")
    return getattr(import_module(f"dvaepp.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
