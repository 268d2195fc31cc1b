"""Variational autoencoders with binary latent variables and Boltzmann-machine priors (DVAE++).

Everything public is a name of this module; each is loaded when it is first used, so that `import dvaepp` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvaepp.errors import InputError as InputError
    from dvaepp.latent.annealing import annealed_importance_sampling as annealed_importance_sampling
    from dvaepp.latent.annealing import population_annealing as population_annealing
    from dvaepp.latent.annealing import reverse_annealed_importance_sampling as reverse_annealed_importance_sampling
    from dvaepp.latent.assessment import estimate_log_partition as estimate_log_partition
    from dvaepp.latent.boltzmann import BoltzmannMachine as BoltzmannMachine
    from dvaepp.latent.concrete import Concrete as Concrete
    from dvaepp.latent.convergence import ChainHealth as ChainHealth
    from dvaepp.latent.convergence import chain_health as chain_health
    from dvaepp.latent.densities import DensityPair as DensityPair
    from dvaepp.latent.dimod_sampler import DimodSampler as DimodSampler
    from dvaepp.latent.dimod_sampler import simulated_annealing as simulated_annealing
    from dvaepp.latent.exchange import read_model as read_model
    from dvaepp.latent.exchange import read_states as read_states
    from dvaepp.latent.exchange import write_model as write_model
    from dvaepp.latent.graphs import hardware_graph as hardware_graph
    from dvaepp.latent.graphs import machine_on_graph as machine_on_graph
    from dvaepp.latent.hard import hard as hard
    from dvaepp.latent.local import BernoulliVariables as BernoulliVariables
    from dvaepp.latent.local import NormalVariables as NormalVariables
    from dvaepp.latent.normal import NormalPosterior as NormalPosterior
    from dvaepp.latent.normal import NormalPrior as NormalPrior
    from dvaepp.latent.overlapping import OverlappingExponential as OverlappingExponential
    from dvaepp.latent.overlapping import OverlappingLogistic as OverlappingLogistic
    from dvaepp.latent.pairs import OverlappingNormal as OverlappingNormal
    from dvaepp.latent.pairs import PowerFunction as PowerFunction
    from dvaepp.latent.pairs import UniformExponential as UniformExponential
    from dvaepp.latent.partition import LogPartition as LogPartition
    from dvaepp.latent.partition import exact_log_partition as exact_log_partition
    from dvaepp.latent.partition import exact_sample as exact_sample
    from dvaepp.latent.posterior import Posterior as Posterior
    from dvaepp.latent.priors import BernoulliPrior as BernoulliPrior
    from dvaepp.latent.priors import BoltzmannPrior as BoltzmannPrior
    from dvaepp.latent.priors import DirectedPrior as DirectedPrior
    from dvaepp.latent.priors import Prior as Prior
    from dvaepp.latent.quadratic import QuadraticModel as QuadraticModel
    from dvaepp.latent.quadratic import machine_from as machine_from
    from dvaepp.latent.quadratic import to_bqm as to_bqm
    from dvaepp.latent.quadratic import to_ising as to_ising
    from dvaepp.latent.quadratic import to_qubo as to_qubo
    from dvaepp.latent.sampling import AnnealedPopulation as AnnealedPopulation
    from dvaepp.latent.sampling import ExactSamples as ExactSamples
    from dvaepp.latent.sampling import PersistentChains as PersistentChains
    from dvaepp.latent.sampling import Sampler as Sampler
    from dvaepp.latent.sampling import TemperedChains as TemperedChains
    from dvaepp.latent.smoothing import Overlapping as Overlapping
    from dvaepp.latent.smoothing import Smoothing as Smoothing
    from dvaepp.latent.spikes import Spike as Spike
    from dvaepp.latent.spikes import SpikeExponential as SpikeExponential
    from dvaepp.latent.spikes import SpikeGaussian as SpikeGaussian
    from dvaepp.latent.straight_through import StraightThrough as StraightThrough
    from dvaepp.latent.straight_through import StraightThroughGumbel as StraightThroughGumbel
    from dvaepp.latent.tempering import parallel_tempering as parallel_tempering
    from dvaepp.models.convolutional import ConvolutionalSizes as ConvolutionalSizes
    from dvaepp.models.convolutional import ConvolutionalVAE as ConvolutionalVAE
    from dvaepp.models.convolutional import convolutional_vae as convolutional_vae
    from dvaepp.models.feedforward import FeedForwardVAE as FeedForwardVAE
    from dvaepp.models.feedforward import HierarchicalEncoder as HierarchicalEncoder
    from dvaepp.models.feedforward import NormalEncoder as NormalEncoder
    from dvaepp.models.likelihoods import BernoulliLikelihood as BernoulliLikelihood
    from dvaepp.models.likelihoods import CategoricalLikelihood as CategoricalLikelihood
    from dvaepp.models.likelihoods import Likelihood as Likelihood
    from dvaepp.models.likelihoods import NormalLikelihood as NormalLikelihood
    from dvaepp.models.likelihoods import PoissonLikelihood as PoissonLikelihood
    from dvaepp.models.logistic_mixture import DiscretizedLogisticMixture as DiscretizedLogisticMixture
    from dvaepp.networks.dense import dense as dense
    from dvaepp.objectives.bounds import importance_weighted as importance_weighted
    from dvaepp.objectives.bounds import joint_elbo as joint_elbo
    from dvaepp.objectives.bounds import log_weight as log_weight
    from dvaepp.objectives.bounds import marginal_elbo as marginal_elbo
    from dvaepp.objectives.rolfe import rolfe_elbo as rolfe_elbo

__version__ = "0.1.0"

_HOMES = {
    "errors": ("InputError",),
    "latent.annealing": (
        "annealed_importance_sampling",
        "population_annealing",
        "reverse_annealed_importance_sampling",
    ),
    "latent.assessment": ("estimate_log_partition",),
    "latent.boltzmann": ("BoltzmannMachine",),
    "latent.concrete": ("Concrete",),
    "latent.convergence": ("ChainHealth", "chain_health"),
    "latent.densities": ("DensityPair",),
    "latent.dimod_sampler": ("DimodSampler", "simulated_annealing"),
    "latent.exchange": ("read_model", "read_states", "write_model"),
    "latent.graphs": ("hardware_graph", "machine_on_graph"),
    "latent.overlapping": ("OverlappingExponential", "OverlappingLogistic"),
    "latent.pairs": ("OverlappingNormal", "PowerFunction", "UniformExponential"),
    "latent.hard": ("hard",),
    "latent.local": ("BernoulliVariables", "NormalVariables"),
    "latent.normal": ("NormalPosterior", "NormalPrior"),
    "latent.partition": ("LogPartition", "exact_log_partition", "exact_sample"),
    "latent.posterior": ("Posterior",),
    "latent.priors": ("BernoulliPrior", "BoltzmannPrior", "DirectedPrior", "Prior"),
    "latent.quadratic": ("QuadraticModel", "machine_from", "to_bqm", "to_ising", "to_qubo"),
    "latent.sampling": ("AnnealedPopulation", "ExactSamples", "PersistentChains", "Sampler", "TemperedChains"),
    "latent.smoothing": ("Overlapping", "Smoothing"),
    "latent.spikes": ("Spike", "SpikeExponential", "SpikeGaussian"),
    "latent.straight_through": ("StraightThrough", "StraightThroughGumbel"),
    "latent.tempering": ("parallel_tempering",),
    "models.convolutional": ("ConvolutionalSizes", "ConvolutionalVAE", "convolutional_vae"),
    "models.feedforward": ("FeedForwardVAE", "HierarchicalEncoder", "NormalEncoder"),
    "models.likelihoods": (
        "BernoulliLikelihood",
        "CategoricalLikelihood",
        "Likelihood",
        "NormalLikelihood",
        "PoissonLikelihood",
    ),
    "models.logistic_mixture": ("DiscretizedLogisticMixture",),
    "networks.dense": ("dense",),
    "objectives.bounds": ("importance_weighted", "joint_elbo", "log_weight", "marginal_elbo"),
    "objectives.rolfe": ("rolfe_elbo",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dvaepp' has no attribute {name!r}")
    return getattr(import_module(f"dvaepp.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
