"""The plain values of a recipe: data, model and evaluation. What each of them makes is in build.py."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dvaepp.data.formats import Header
from dvaepp.data.pictures import Background

Size = Literal["tiny", "small", "paper"]

SIZES: tuple[Size, ...] = get_args(Size)
"""`tiny` takes a minute and shows that all runs, `small` minutes to an hour on two cores, `paper` a GPU."""


SmoothingName = Literal[
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
SamplerName = Literal["gibbs", "tempering", "population", "exact", "annealer"]
_Size = Annotated[int, Field(ge=1, le=1_000_000)]


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSettings(Settings):
    """A data set by name or path, how grey levels become bits, and how the user's own pictures and tables are read."""

    name: str = "digits"
    binarise: Literal["auto", "threshold", "dynamic"] = "auto"
    threshold: float = Field(default=0.5, ge=0, lt=1)
    background: Background = "white"
    """What stands behind transparent pictures."""
    header: Header = "auto"
    """Whether the first line of a .csv names its columns; `auto` refuses numbers that may be names."""


class ConvolutionalSettings(Settings):
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


class ModelSettings(Settings):
    """The variational autoencoder of Fig. 2, or with `convolutional` that of Fig. 3."""

    groups: tuple[_Size, ...] = Field(default=(200, 200), min_length=1)
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
    sampler: SamplerName = "gibbs"
    """Where the gradient of log Z comes from; unused where log Z is exact. `annealer` begins anew at each step: it
    needs some 40 sweeps where chains that go on (`gibbs`, `tempering`) take 5. `population` sweeps once a temperature.
    """
    chains: _Size = 1000
    sweeps: _Size = 40
    temperatures: Annotated[int, Field(ge=2, le=100_000)] = 10
    """Of the samplers `tempering` and `population`."""
    smoothing: SmoothingName = "exponential"
    beta: float = Field(default=10.0, ge=1e-3, le=1e4)
    """The smoothing's inverse temperature, unless training.beta anneals it; one over the temperature of `concrete` and
    `straight-through-gumbel`; `straight-through` has none."""
    likelihood: Literal["bernoulli", "logistic-mixture", "normal", "categorical", "poisson"] = "bernoulli"
    """Of x: bits, 8-bit levels, real numbers, categories, counts; data are read as such, and grey made bits only for
    `bernoulli`."""
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


class EvaluationSettings(Settings):
    """How test likelihoods are measured."""

    samples: _Size = 100
    examples: _Size | None = None
    """A random subset of the test data of this size; None takes all of it."""
    temperatures: _Size = 1000
    chains: _Size = 1024
    repeats: _Size = 3
    thorough: bool = True
    """Whether log Z is found in other ways too, which must agree."""
