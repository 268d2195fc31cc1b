"""A recipe is plain values, JSON both ways, from which data, model and objective are built. Strings end here."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from dvaepp.data import Dataset, Plain, load
from dvaepp.errors import InputError, nearest
from dvaepp.latent.boltzmann import BoltzmannMachine
from dvaepp.latent.concrete import Concrete
from dvaepp.latent.dimod_sampler import simulated_annealing
from dvaepp.latent.graphs import hardware_graph, machine_on_graph, read_edges
from dvaepp.latent.local import BernoulliVariables, NormalVariables
from dvaepp.latent.normal import NormalPrior
from dvaepp.latent.overlapping import OverlappingExponential, OverlappingLogistic
from dvaepp.latent.pairs import OverlappingNormal, PowerFunction, UniformExponential
from dvaepp.latent.priors import BernoulliPrior, BoltzmannPrior, DirectedPrior, Prior
from dvaepp.latent.sampling import AnnealedPopulation, ExactSamples, PersistentChains, Sampler, TemperedChains
from dvaepp.latent.smoothing import Smoothing
from dvaepp.latent.spikes import SpikeExponential, SpikeGaussian
from dvaepp.latent.straight_through import StraightThrough, StraightThroughGumbel
from dvaepp.models.convolutional import ConvolutionalSizes, ConvolutionalVAE, convolutional_vae
from dvaepp.models.feedforward import FeedForwardVAE, HierarchicalEncoder
from dvaepp.models.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    Likelihood,
    NormalLikelihood,
    PoissonLikelihood,
)
from dvaepp.models.logistic_mixture import DiscretizedLogisticMixture
from dvaepp.models.trace import Model
from dvaepp.networks.dense import centring, dense, output_bias
from dvaepp.objectives.bounds import joint_elbo, marginal_elbo
from dvaepp.objectives.rolfe import rolfe_elbo
from dvaepp.schedule import TrainingSettings
from dvaepp.storage import read_json
from dvaepp.training import Objective

_OBJECTIVES: dict[str, Callable[..., Tensor]] = {"joint": joint_elbo, "marginal": marginal_elbo, "rolfe": rolfe_elbo}
_SmoothingName = Literal[
    "exponential",
    "logistic",
    "normal",
    "power",
    "uniform-exponential",
    "spike-exponential",
    "spike-gaussian",
    "concrete",
    "straight-through",
    "straight-through-gumbel",
]
_SMOOTHINGS: dict[_SmoothingName, Callable[[float], Smoothing]] = {
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
_KINDS = {
    "bernoulli": "bits",
    "logistic-mixture": "levels",
    "normal": "real",
    "categorical": "categories",
    "poisson": "counts",
}
"""The kind of data that each likelihood is for."""
_SamplerName = Literal["gibbs", "tempering", "population", "exact", "annealer"]
_Size = Annotated[int, Field(ge=1, le=1_000_000)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSettings(_Settings):
    """A data set by name or path, and how grey levels become bits."""

    name: str = "digits"
    binarise: Literal["auto", "threshold", "dynamic", "none"] = "auto"
    """`none` leaves your own data as they are, of the kind that `kind` says."""
    threshold: float = Field(0.5, ge=0, le=1)
    kind: Plain = "levels"


class ConvolutionalSettings(_Settings):
    """DVAE++ (Fig. 3): local variables and convolutional networks; scales are heights in cells, powers of two."""

    local_variables: Literal["normal", "bernoulli"] = "normal"
    local_groups: Annotated[int, Field(ge=1, le=1000)] = 16
    variables: _Size = 32
    """Local variables of each group at every location."""
    conditional: bool = False
    """Pixels at 4 x 4 first, then finer scales given coarser ones."""
    local: _Size = 8
    """The scale of local variables."""
    top: _Size = 4
    """The scale that global variables are read from."""
    channels: _Size = 64
    """At the scale of local variables; half as many at twice the scale."""
    cells: _Size = 2
    """Residual cells at each scale and for each group."""
    stem: Literal[1, 2, 4] = 1
    """Pixels a side that share a location at the finest scale."""
    squeeze_excite: bool = True
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the networks; distributions always take float32."""


class ModelSettings(_Settings):
    """The variational autoencoder of Fig. 2, or with `convolutional` that of Fig. 3."""

    groups: tuple[_Size, ...] = Field((200, 200), min_length=1)
    """Bits of each group of the hierarchical posterior."""
    hidden: tuple[_Size, ...] = (200, 200)
    """Hidden tanh layers of every network; none makes it linear."""
    batch_norm: bool = True
    prior: Literal["rbm", "graph", "directed", "bernoulli", "normal"] = "rbm"
    """`rbm` and `graph` are Boltzmann machines: of blocks, or on a graph; `normal` makes global variables normal."""
    blocks: tuple[_Size, ...] | None = None
    """Blocks of the rbm; None cuts all the bits in half."""
    graph: str | None = None
    """A hardware graph by name, such as zephyr-2, or a CSV file of edges, for the prior `graph`."""
    sampler: _SamplerName = "gibbs"
    """Where the gradient of log Z comes from; unused where log Z is exact. `annealer` begins anew at each step: it
    needs some 40 sweeps where chains that go on (`gibbs`, `tempering`) take 5. `population` sweeps once a temperature.
    """
    chains: _Size = 1000
    sweeps: _Size = 40
    temperatures: Annotated[int, Field(ge=2, le=100_000)] = 10
    """Of the samplers `tempering` and `population`."""
    smoothing: _SmoothingName = "exponential"
    beta: float = Field(10.0, ge=1e-3, le=1e4)
    """The smoothing's inverse temperature, unless training.beta anneals it; one over the temperature of `concrete` and
    `straight-through-gumbel`; `straight-through` has none."""
    likelihood: Literal["bernoulli", "logistic-mixture", "normal", "categorical", "poisson"] = "bernoulli"
    """Of x: bits, 8-bit levels, real numbers, categories, counts."""
    convolutional: ConvolutionalSettings | None = None
    """`hidden` is then the global encoder's, and batch norm is always there."""

    @model_validator(mode="after")
    def _fits(self) -> ModelSettings:
        if self.blocks is not None and sum(self.blocks) != sum(self.groups):
            raise ValueError(
                f"blocks {self.blocks} hold {sum(self.blocks)} bits and groups {self.groups} {sum(self.groups)}"
            )
        if self.prior == "rbm" and sum(self.groups) < 2:
            raise ValueError("a restricted Boltzmann machine needs at least 2 bits")
        if self.smoothing == "power" and self.beta <= 1:
            raise ValueError("smoothing 'power' needs a beta above 1")
        if (self.prior == "graph") != (self.graph is not None):
            raise ValueError("graph and prior 'graph' need each other, as in prior=graph, graph=zephyr-2")
        return self

    @property
    def boltzmann(self) -> bool:
        """Whether the prior is a Boltzmann machine."""
        return self.prior in ("rbm", "graph")


_SAMPLERS: dict[_SamplerName, Callable[[ModelSettings], Sampler]] = {
    "gibbs": lambda model: PersistentChains(model.chains, model.sweeps),
    "tempering": lambda model: TemperedChains(model.chains, model.sweeps, model.temperatures),
    "population": lambda model: AnnealedPopulation(model.chains, model.temperatures),
    "exact": lambda model: ExactSamples(model.chains),
    "annealer": lambda model: simulated_annealing(model.chains, model.sweeps),
}
"""`annealer` is dwave-samplers' simulated annealing, through the adapter that serves any dimod sampler."""


class EvaluationSettings(_Settings):
    """How test likelihoods are measured."""

    samples: _Size = 100
    examples: _Size | None = None
    """A random subset of the test data of this size; None takes all of it."""
    temperatures: _Size = 1000
    chains: _Size = 1024
    repeats: _Size = 3
    thorough: bool = True
    """Whether log Z is found in other ways too, which must agree."""


@dataclass(frozen=True)
class DataForm:
    """What of the data a model is built for: an example's shape, the mean of each value, the number of categories."""

    shape: tuple[int, ...]
    mean: Float[Tensor, " pixels"]
    categories: int = 2


class Recipe(_Settings):
    """Everything that makes a result but the seed and the machine."""

    name: str = Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$")
    about: str = ""
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    objective: Literal["joint", "marginal", "rolfe"] = "joint"
    training: TrainingSettings
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _possible(self) -> Recipe:
        if self.objective == "marginal" and self.model.boltzmann:
            raise ValueError("objective 'marginal' needs a directed or bernoulli prior; an rbm takes 'joint'")
        if (self.objective == "rolfe") > (self.model.boltzmann and self.model.smoothing.startswith("spike")):
            raise ValueError("objective 'rolfe' needs an rbm or graph prior and a smoothing with a spike")
        if self.objective == "marginal" and self.model.smoothing.startswith("spike"):
            raise ValueError("objective 'marginal' needs a smoothing without a spike, which takes 'joint'")
        if self.objective == "joint" and self.model.smoothing == "concrete":
            raise ValueError("smoothing 'concrete' has no joint bound; it takes objective 'marginal'")
        several = len(self.model.groups) > 1 and self.model.boltzmann
        if self.objective == "joint" and several and self.model.smoothing.startswith("spike"):
            raise ValueError("a spike smoothing with a Boltzmann prior of several groups takes objective 'rolfe'")
        if self.training.beta is not None and self.model.smoothing == "straight-through":
            raise ValueError("training.beta anneals a smoothing's beta, and 'straight-through' has none")
        if self.training.beta is not None and self.model.smoothing == "power" and min(self.training.beta) <= 1:
            raise ValueError("smoothing 'power' needs a training.beta above 1")
        if self.training.beta is not None and not 1e-3 <= min(self.training.beta) <= max(self.training.beta) <= 1e4:
            raise ValueError("training.beta must lie between .001 and 10,000")
        if self.model.convolutional is None:
            if self.model.prior == "normal":
                raise ValueError("prior 'normal' needs model.convolutional")
            if self.training.balance_kl:
                raise ValueError("training.balance_kl weighs local groups, which only model.convolutional has")
        elif self.model.prior in ("directed", "graph"):
            raise ValueError("model.convolutional takes the prior 'rbm', 'bernoulli' or 'normal'")
        elif self.model.convolutional.local_variables == "bernoulli" and self.model.smoothing.startswith("spike"):
            raise ValueError("local_variables 'bernoulli' need a smoothing without a spike")
        if self.training.batch < 2 and self.model.convolutional is not None:
            raise ValueError("training.batch must be at least 2 with batch norm, which model.convolutional has")
        if self.model.batch_norm and self.model.hidden and self.training.batch < 2:
            raise ValueError(
                "training.batch must be at least 2 with batch norm, which model.batch_norm=false turns off"
            )
        return self

    def load_data(self, data_dir: str | Path | None = None) -> Dataset:
        """The data set that the recipe names."""
        data = load(self.data.name, data_dir, self.data.binarise, self.data.threshold, self.data.kind)
        expected = _KINDS[self.model.likelihood]
        if data.kind != expected:
            raise InputError(
                f"model.likelihood={self.model.likelihood} needs {expected}, but {data.name} holds {data.kind}"
            )
        return data

    def build(self, form: DataForm) -> tuple[Model, Objective]:
        """The model for data of this form, its weights drawn from torch's generator, and the objective."""
        objective = partial(_OBJECTIVES[self.objective], balanced=self.training.balance_kl)
        return (self._dense(form) if self.model.convolutional is None else self._convolutional(form)), objective

    def _convolutional(self, form: DataForm) -> ConvolutionalVAE:
        settings = self.model
        assert settings.convolutional is not None
        c = settings.convolutional
        return convolutional_vae(
            form.shape,
            form.mean,
            prior=self._prior(),
            global_groups=settings.groups,
            local=NormalVariables() if c.local_variables == "normal" else BernoulliVariables(),
            smoothing=_SMOOTHINGS[settings.smoothing](settings.beta),
            likelihood=self._likelihood(form),
            conditional=c.conditional,
            scale=2 / 255 if settings.likelihood == "logistic-mixture" else 1.0,
            sizes=ConvolutionalSizes(
                local=c.local,
                top=c.top,
                channels=c.channels,
                cells=c.cells,
                groups=c.local_groups,
                variables=c.variables,
                hidden=settings.hidden,
                stem=c.stem,
                squeeze_excite=c.squeeze_excite,
            ),
            precision=torch.bfloat16 if c.precision == "bfloat16" else None,
        )

    def _likelihood(self, form: DataForm) -> Likelihood:
        values = form.shape[2] if len(form.shape) == 3 else 1
        made: dict[str, Callable[[], Likelihood]] = {
            "bernoulli": BernoulliLikelihood,
            "logistic-mixture": lambda: DiscretizedLogisticMixture(values=values),
            "normal": NormalLikelihood,
            "categorical": lambda: CategoricalLikelihood(form.categories),
            "poisson": PoissonLikelihood,
        }
        return made[self.model.likelihood]()

    def _dense(self, form: DataForm) -> FeedForwardVAE:
        settings, mean, pixels = self.model, form.mean, len(form.mean)
        starts = [0, *accumulate(settings.groups)]
        levels = [
            nn.Sequential(centring(mean, start), self._network(pixels + start, size))
            for start, size in zip(starts[:-1], settings.groups, strict=True)
        ]
        likelihood = self._likelihood(form)
        outputs = self._network(starts[-1], pixels // likelihood.values * likelihood.width)
        decoder = nn.Sequential(outputs, output_bias(mean)) if settings.likelihood == "bernoulli" else outputs
        smoothing = _SMOOTHINGS[settings.smoothing](settings.beta)
        return FeedForwardVAE(HierarchicalEncoder(*levels), self._prior(), decoder, smoothing, likelihood)

    def _network(self, inputs: int, outputs: int) -> nn.Sequential:
        return dense(inputs, outputs, self.model.hidden, self.model.batch_norm)

    def _prior(self) -> Prior:
        settings = self.model
        bits, starts = sum(settings.groups), list(accumulate(settings.groups))
        if settings.prior == "normal":
            return NormalPrior(bits)
        if settings.prior == "bernoulli":
            return BernoulliPrior(bits)
        if settings.prior == "directed":
            following = zip(starts, settings.groups[1:], strict=False)
            return DirectedPrior(settings.groups[0], *(self._network(start, size) for start, size in following))
        return BoltzmannPrior(self._machine(), _SAMPLERS[settings.sampler](settings))

    def _machine(self) -> BoltzmannMachine:
        settings, bits = self.model, sum(self.model.groups)
        if settings.graph is None:
            return BoltzmannMachine(*(settings.blocks or (bits - bits // 2, bits // 2)))
        from_file = settings.graph.endswith(".csv")
        machine = machine_on_graph(read_edges(Path(settings.graph)) if from_file else hardware_graph(settings.graph))
        if machine.bits != bits:
            raise InputError(f"graph {settings.graph} has {machine.bits} nodes and model.groups hold {bits} bits")
        return machine


def recipe_from(values: Any, source: str) -> Recipe:
    """A recipe from JSON values; InputError naming the wrong setting, and the nearest right name of an unknown one."""
    if not isinstance(values, dict):
        raise InputError(f"{source} must hold a recipe, a JSON object, not {type(values).__name__}")
    try:
        return Recipe.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        if first["type"] == "extra_forbidden":
            raise InputError(f"{source} has an unknown setting {'.'.join(path)!r}{_nearest_setting(path)}") from None
        message = first["msg"].removeprefix("Value error, ")
        given = "" if first["type"] in ("missing", "value_error") else f", not {reprlib.repr(first['input'])}"
        where = f"setting {'.'.join(path)!r}: " if path else ""
        raise InputError(f"{source}: {where}{message}{given}") from None


def read_recipe(path: Path) -> Recipe:
    """The recipe in a JSON file, as `dvaepp show` prints it."""
    return recipe_from(read_json(path, "a recipe in JSON"), str(path))


def override(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """The recipe with settings `a.b=value` changed; values are JSON, or else taken as text."""
    values = recipe.model_dump(mode="json")
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set takes name=value, such as training.steps=3000, not {setting!r}")
        _assign(values, name.strip().split("."), _json_or_text(text.strip()))
    return recipe_from(values, "--set")


def _assign(values: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise InputError(f"--set: {part!r} holds a value, not settings")
        values = inner
    values[path[-1]] = value


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _nearest_setting(path: list[str]) -> str:
    model: type[BaseModel] = Recipe
    for part in path[:-1]:
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        model = annotation
    close = nearest(path[-1], list(model.model_fields))
    return close or f"; it may be one of {', '.join(model.model_fields)}"
