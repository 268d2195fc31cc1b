"""Variational autoencoders with binary latent variables and Boltzmann-machine priors (DVAE++).

Everything public is a name of this module; each is loaded when it is first used, so that `import dvaepp` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvaepp.boltzmann.agreement import estimate_log_partition as estimate_log_partition
    from dvaepp.boltzmann.annealing import annealed_importance_sampling as annealed_importance_sampling
    from dvaepp.boltzmann.annealing import population_annealing as population_annealing
    from dvaepp.boltzmann.annealing import reverse_annealed_importance_sampling as reverse_annealed_importance_sampling
    from dvaepp.boltzmann.diagnostics import ChainHealth as ChainHealth
    from dvaepp.boltzmann.diagnostics import chain_health as chain_health
    from dvaepp.boltzmann.dimod_sampler import DimodSampler as DimodSampler
    from dvaepp.boltzmann.dimod_sampler import simulated_annealing as simulated_annealing
    from dvaepp.boltzmann.enumeration import exact_log_partition as exact_log_partition
    from dvaepp.boltzmann.enumeration import exact_sample as exact_sample
    from dvaepp.boltzmann.files import read_model as read_model
    from dvaepp.boltzmann.files import read_states as read_states
    from dvaepp.boltzmann.files import write_model as write_model
    from dvaepp.boltzmann.graphs import hardware_graph as hardware_graph
    from dvaepp.boltzmann.graphs import machine_on_graph as machine_on_graph
    from dvaepp.boltzmann.ising import QuadraticModel as QuadraticModel
    from dvaepp.boltzmann.ising import machine_from as machine_from
    from dvaepp.boltzmann.ising import to_bqm as to_bqm
    from dvaepp.boltzmann.ising import to_ising as to_ising
    from dvaepp.boltzmann.ising import to_qubo as to_qubo
    from dvaepp.boltzmann.log_partition import LogPartition as LogPartition
    from dvaepp.boltzmann.machine import BoltzmannMachine as BoltzmannMachine
    from dvaepp.boltzmann.samplers import AnnealedPopulation as AnnealedPopulation
    from dvaepp.boltzmann.samplers import ExactSamples as ExactSamples
    from dvaepp.boltzmann.samplers import PersistentChains as PersistentChains
    from dvaepp.boltzmann.samplers import Sampler as Sampler
    from dvaepp.boltzmann.samplers import TemperedChains as TemperedChains
    from dvaepp.boltzmann.tempering import parallel_tempering as parallel_tempering
    from dvaepp.errors import InputError as InputError
    from dvaepp.likelihoods.base import Likelihood as Likelihood
    from dvaepp.likelihoods.logistic_mixture import DiscretizedLogisticMixture as DiscretizedLogisticMixture
    from dvaepp.likelihoods.standard import BernoulliLikelihood as BernoulliLikelihood
    from dvaepp.likelihoods.standard import CategoricalLikelihood as CategoricalLikelihood
    from dvaepp.likelihoods.standard import NormalLikelihood as NormalLikelihood
    from dvaepp.likelihoods.standard import PoissonLikelihood as PoissonLikelihood
    from dvaepp.models.convolutional import ConvolutionalSizes as ConvolutionalSizes
    from dvaepp.models.convolutional import ConvolutionalVAE as ConvolutionalVAE
    from dvaepp.models.convolutional import convolutional_vae as convolutional_vae
    from dvaepp.models.encoders import HierarchicalEncoder as HierarchicalEncoder
    from dvaepp.models.encoders import NormalEncoder as NormalEncoder
    from dvaepp.models.feedforward import FeedForwardVAE as FeedForwardVAE
    from dvaepp.models.local import BernoulliVariables as BernoulliVariables
    from dvaepp.models.local import NormalVariables as NormalVariables
    from dvaepp.networks.dense import dense as dense
    from dvaepp.objectives.bounds import joint_elbo as joint_elbo
    from dvaepp.objectives.bounds import marginal_elbo as marginal_elbo
    from dvaepp.objectives.importance import importance_weighted as importance_weighted
    from dvaepp.objectives.importance import log_weight as log_weight
    from dvaepp.objectives.rolfe import rolfe_elbo as rolfe_elbo
    from dvaepp.priors.base import Prior as Prior
    from dvaepp.priors.boltzmann import BoltzmannPrior as BoltzmannPrior
    from dvaepp.priors.directed import BernoulliPrior as BernoulliPrior
    from dvaepp.priors.directed import DirectedPrior as DirectedPrior
    from dvaepp.priors.normal import NormalPosterior as NormalPosterior
    from dvaepp.priors.normal import NormalPrior as NormalPrior
    from dvaepp.smoothings.base import Smoothing as Smoothing
    from dvaepp.smoothings.binary import StraightThrough as StraightThrough
    from dvaepp.smoothings.binary import StraightThroughGumbel as StraightThroughGumbel
    from dvaepp.smoothings.binary import hard as hard
    from dvaepp.smoothings.concrete import Concrete as Concrete
    from dvaepp.smoothings.exponential import OverlappingExponential as OverlappingExponential
    from dvaepp.smoothings.exponential import UniformExponential as UniformExponential
    from dvaepp.smoothings.logistic import OverlappingLogistic as OverlappingLogistic
    from dvaepp.smoothings.normal import OverlappingNormal as OverlappingNormal
    from dvaepp.smoothings.numerical import DensityPair as DensityPair
    from dvaepp.smoothings.overlapping import Overlapping as Overlapping
    from dvaepp.smoothings.posterior import Posterior as Posterior
    from dvaepp.smoothings.power import PowerFunction as PowerFunction
    from dvaepp.smoothings.spike import Spike as Spike
    from dvaepp.smoothings.spike import SpikeExponential as SpikeExponential
    from dvaepp.smoothings.spike import SpikeGaussian as SpikeGaussian

__version__ = "0.1.0"

_HOMES = {
    "boltzmann.agreement": ("estimate_log_partition",),
    "boltzmann.annealing": (
        "annealed_importance_sampling",
        "population_annealing",
        "reverse_annealed_importance_sampling",
    ),
    "boltzmann.diagnostics": (
        "ChainHealth",
        "chain_health",
    ),
    "boltzmann.dimod_sampler": (
        "DimodSampler",
        "simulated_annealing",
    ),
    "boltzmann.enumeration": (
        "exact_log_partition",
        "exact_sample",
    ),
    "boltzmann.files": (
        "read_model",
        "read_states",
        "write_model",
    ),
    "boltzmann.graphs": (
        "hardware_graph",
        "machine_on_graph",
    ),
    "boltzmann.ising": (
        "QuadraticModel",
        "machine_from",
        "to_bqm",
        "to_ising",
        "to_qubo",
    ),
    "boltzmann.log_partition": ("LogPartition",),
    "boltzmann.machine": ("BoltzmannMachine",),
    "boltzmann.samplers": (
        "AnnealedPopulation",
        "ExactSamples",
        "PersistentChains",
        "Sampler",
        "TemperedChains",
    ),
    "boltzmann.tempering": ("parallel_tempering",),
    "errors": ("InputError",),
    "likelihoods.base": ("Likelihood",),
    "likelihoods.logistic_mixture": ("DiscretizedLogisticMixture",),
    "likelihoods.standard": (
        "BernoulliLikelihood",
        "CategoricalLikelihood",
        "NormalLikelihood",
        "PoissonLikelihood",
    ),
    "models.convolutional": (
        "ConvolutionalSizes",
        "ConvolutionalVAE",
        "convolutional_vae",
    ),
    "models.encoders": (
        "HierarchicalEncoder",
        "NormalEncoder",
    ),
    "models.feedforward": ("FeedForwardVAE",),
    "models.local": (
        "BernoulliVariables",
        "NormalVariables",
    ),
    "networks.dense": ("dense",),
    "objectives.bounds": (
        "joint_elbo",
        "marginal_elbo",
    ),
    "objectives.importance": (
        "importance_weighted",
        "log_weight",
    ),
    "objectives.rolfe": ("rolfe_elbo",),
    "priors.base": ("Prior",),
    "priors.boltzmann": ("BoltzmannPrior",),
    "priors.directed": (
        "BernoulliPrior",
        "DirectedPrior",
    ),
    "priors.normal": (
        "NormalPosterior",
        "NormalPrior",
    ),
    "smoothings.base": ("Smoothing",),
    "smoothings.binary": (
        "StraightThrough",
        "StraightThroughGumbel",
        "hard",
    ),
    "smoothings.concrete": ("Concrete",),
    "smoothings.exponential": (
        "OverlappingExponential",
        "UniformExponential",
    ),
    "smoothings.logistic": ("OverlappingLogistic",),
    "smoothings.normal": ("OverlappingNormal",),
    "smoothings.numerical": ("DensityPair",),
    "smoothings.overlapping": ("Overlapping",),
    "smoothings.posterior": ("Posterior",),
    "smoothings.power": ("PowerFunction",),
    "smoothings.spike": (
        "Spike",
        "SpikeExponential",
        "SpikeGaussian",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dvaepp' has no attribute {name!r}")
    return getattr(import_module(f"dvaepp.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
