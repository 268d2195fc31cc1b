"""What the settings of a recipe make: strings end here."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.boltzmann.dimod_sampler import simulated_annealing
from dvaepp.boltzmann.graphs import hardware_graph, machine_on_graph, read_edges
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.boltzmann.samplers import AnnealedPopulation, ExactSamples, PersistentChains, Sampler, TemperedChains
from dvaepp.errors import InputError
from dvaepp.likelihoods.base import Likelihood
from dvaepp.likelihoods.logistic_mixture import DiscretizedLogisticMixture
from dvaepp.likelihoods.standard import BernoulliLikelihood, CategoricalLikelihood, NormalLikelihood, PoissonLikelihood
from dvaepp.models.base import Model
from dvaepp.models.convolutional import ConvolutionalSizes, ConvolutionalVAE, convolutional_vae
from dvaepp.models.encoders import HierarchicalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.models.local import BernoulliVariables, NormalVariables
from dvaepp.networks.dense import Affine, OneHot, centring, dense, output_bias
from dvaepp.objectives.bounds import Objective, joint_terms, marginal_terms
from dvaepp.objectives.rolfe import rolfe_terms
from dvaepp.priors.base import Prior
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.priors.directed import BernoulliPrior, DirectedPrior
from dvaepp.priors.normal import NormalPrior
from dvaepp.recipes.settings import ModelSettings, SamplerName, SmoothingName
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import StraightThrough, StraightThroughGumbel
from dvaepp.smoothings.concrete import Concrete
from dvaepp.smoothings.exponential import OverlappingExponential, UniformExponential
from dvaepp.smoothings.logistic import OverlappingLogistic
from dvaepp.smoothings.normal import OverlappingNormal
from dvaepp.smoothings.power import PowerFunction
from dvaepp.smoothings.spike import SpikeExponential, SpikeGaussian

OBJECTIVES: dict[str, Objective] = {"joint": joint_terms, "marginal": marginal_terms, "rolfe": rolfe_terms}
SMOOTHINGS: dict[SmoothingName, Callable[[float], Smoothing]] = {
    "exponential": OverlappingExponential,
    "logistic": OverlappingLogistic,
    "normal": OverlappingNormal,
    "power": PowerFunction,
    "uniform-exponential": UniformExponential,
    "spike-exponential": SpikeExponential,
    "spike-gaussian": SpikeGaussian,
    "concrete": lambda beta: Concrete(1 / beta),
    "straight-through": lambda beta: StraightThrough(),
    "straight-through-gumbel": lambda beta: StraightThroughGumbel(1 / beta),
}
SAMPLERS: dict[SamplerName, Callable[[ModelSettings], Sampler]] = {
    "gibbs": lambda model: PersistentChains(model.chains, model.sweeps),
    "tempering": lambda model: TemperedChains(model.chains, model.sweeps, model.temperatures),
    "population": lambda model: AnnealedPopulation(model.chains, model.temperatures),
    "exact": lambda model: ExactSamples(model.chains),
    "annealer": lambda model: simulated_annealing(model.chains, model.sweeps),
}
"""`annealer` is dwave-samplers' simulated annealing, through the adapter that serves any dimod sampler."""


KINDS = {
    "bernoulli": "bits",
    "logistic-mixture": "levels",
    "normal": "real",
    "categorical": "categories",
    "poisson": "counts",
}
"""The kind of data that each likelihood is for."""
_LEAST_SD = 0.01
"""Convolutional decoders give log s in the unit of x: for data of a smaller sd its floor of -7 would be felt."""


@dataclass(frozen=True)
class DataSpec:
    """What of the data a model is built for: an example's shape, mean and sd of each value, categories."""

    shape: tuple[int, ...]
    mean: Float[Tensor, " pixels"]
    sd: Float[Tensor, " pixels"]
    """Where it is 0, and for bits, 1 stands for it."""
    categories: int = 2


def model(settings: ModelSettings, spec: DataSpec) -> Model:
    """The model for data of this spec, its weights drawn from torch's generator."""
    return _dense(settings, spec) if settings.convolutional is None else _convolutional(settings, spec)


def likelihood(settings: ModelSettings, spec: DataSpec) -> Likelihood:
    """p(x | zeta) as the settings say."""
    made: dict[str, Callable[[], Likelihood]] = {
        "bernoulli": BernoulliLikelihood,
        "logistic-mixture": lambda: DiscretizedLogisticMixture(values=spec.shape[2] if len(spec.shape) == 3 else 1),
        "normal": lambda: NormalLikelihood(-math.inf) if settings.convolutional is None else NormalLikelihood(),
        "categorical": lambda: CategoricalLikelihood(spec.categories),
        "poisson": PoissonLikelihood,
    }
    return made[settings.likelihood]()


def _dense(settings: ModelSettings, spec: DataSpec) -> FeedForwardVAE:
    starts = [0, *accumulate(settings.groups)]
    levels = []
    for start, size in zip(starts[:-1], settings.groups, strict=True):
        entrance, inputs = _entrance(settings, spec, start)
        levels.append(nn.Sequential(entrance, _network(settings, inputs, size)))
    of_x = likelihood(settings, spec)
    network = _network(settings, starts[-1], len(spec.mean) // of_x.values * of_x.width)
    smoothing = SMOOTHINGS[settings.smoothing](settings.beta)
    decoder = nn.Sequential(network, *_exit(settings, spec))
    return FeedForwardVAE(HierarchicalEncoder(*levels), _prior(settings), decoder, smoothing, of_x)


def _entrance(settings: ModelSettings, spec: DataSpec, latents: int) -> tuple[nn.Module, int]:
    """What stands before a network that sees [x, zeta], and how many numbers leave it: x centred, or in columns."""
    if settings.likelihood == "categorical":
        return OneHot(len(spec.mean), spec.categories), len(spec.mean) * spec.categories + latents
    inputs = len(spec.mean) + latents
    if settings.likelihood == "bernoulli":
        return centring(spec.mean, latents), inputs
    zeros, ones = spec.mean.new_zeros(latents), spec.mean.new_ones(latents)
    return Affine(torch.cat([-spec.mean / spec.sd, zeros]), torch.cat([1 / spec.sd, ones])), inputs


def _exit(settings: ModelSettings, spec: DataSpec) -> list[nn.Module]:
    """What stands behind the decoder's network, so that untrained it gives the distribution of each value alone."""
    if settings.likelihood == "bernoulli":
        return [output_bias(spec.mean)]
    if settings.likelihood == "normal":
        # The floor of log s is relative to sd, so that a table in another unit has the same model.
        ones = torch.ones_like(spec.sd)
        least = torch.stack([-math.inf * ones, NormalLikelihood.log_scale_floor * ones], 1)
        mean_and_scale = torch.stack([spec.mean, spec.sd.log()], 1)
        return [Affine(mean_and_scale.flatten(), torch.stack([spec.sd, ones], 1).flatten(), least.flatten())]
    if settings.likelihood == "poisson":
        return [Affine(spec.mean.clamp(min=1e-3).log())]
    of_x = likelihood(settings, spec)
    return [Affine(of_x.start.repeat(len(spec.mean) // of_x.values))]


def _network(settings: ModelSettings, inputs: int, outputs: int) -> nn.Sequential:
    return dense(inputs, outputs, settings.hidden, settings.batch_norm)


def _convolutional(settings: ModelSettings, spec: DataSpec) -> ConvolutionalVAE:
    c = settings.convolutional
    assert c is not None
    if settings.likelihood == "normal":
        _check_sd(spec)
    sizes = ConvolutionalSizes(
        local=c.local,
        top=c.top,
        channels=c.channels,
        cells=c.cells,
        groups=c.local_groups,
        variables=c.variables,
        hidden=settings.hidden,
        stem=c.stem,
        squeeze_excite=c.squeeze_excite,
    )
    return convolutional_vae(
        spec.shape,
        spec.mean,
        prior=_prior(settings),
        global_groups=settings.groups,
        local=NormalVariables() if c.local_variables == "normal" else BernoulliVariables(),
        smoothing=SMOOTHINGS[settings.smoothing](settings.beta),
        likelihood=likelihood(settings, spec),
        conditional=c.conditional,
        scale=2 / 255 if settings.likelihood == "logistic-mixture" else 1.0,
        sizes=sizes,
        precision=torch.bfloat16 if c.precision == "bfloat16" else None,
    )


def _check_sd(spec: DataSpec) -> None:
    """InputError where most pixels that vary do so by less than the floor of the scale leaves room for."""
    varying = spec.sd[spec.sd != 1]
    if len(varying) and float(varying.median()) < _LEAST_SD:
        raise InputError(
            "model.likelihood=normal with model.convolutional takes images whose pixels have an sd of at least "
            f"{_LEAST_SD}, not {float(varying.median()):.3g}: rescale them"
        )


def _prior(settings: ModelSettings) -> Prior:
    bits, starts = sum(settings.groups), list(accumulate(settings.groups))
    if settings.prior == "normal":
        return NormalPrior(bits)
    if settings.prior == "bernoulli":
        return BernoulliPrior(bits)
    if settings.prior == "directed":
        following = zip(starts, settings.groups[1:], strict=False)
        return DirectedPrior(settings.groups[0], *(_network(settings, start, size) for start, size in following))
    return BoltzmannPrior(machine(settings), SAMPLERS[settings.sampler](settings))


def machine(settings: ModelSettings) -> BoltzmannMachine:
    """The Boltzmann machine of the prior: of blocks, or on a graph; InputError where the graph has other bits."""
    bits = sum(settings.groups)
    if settings.graph is None:
        return BoltzmannMachine(*(settings.blocks or (bits - bits // 2, bits // 2)))
    from_file = settings.graph.endswith(".csv")
    found = machine_on_graph(read_edges(Path(settings.graph)) if from_file else hardware_graph(settings.graph))
    if found.bits != bits:
        raise InputError(f"graph {settings.graph} has {found.bits} nodes and model.groups hold {bits} bits")
    return found
