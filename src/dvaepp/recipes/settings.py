"""The plain values of a recipe: data, model and evaluation. What each of them makes is in build.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from dvaepp.components.fields import Named, Nested, Settings
from dvaepp.components.registry import components
from dvaepp.data.formats import Header
from dvaepp.data.pictures import Background, Fit
from dvaepp.data.reading import Missing
from dvaepp.errors import InputError
from dvaepp.likelihoods.base import Likelihood
from dvaepp.likelihoods.standard import BernoulliLikelihood
from dvaepp.models.local import LocalVariables, NormalVariables
from dvaepp.networks.residual import Cells
from dvaepp.priors.base import PriorDesign
from dvaepp.priors.boltzmann import RestrictedBoltzmannDesign
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.exponential import OverlappingExponential

Size = Literal["tiny", "small", "medium", "paper"]

SIZES: tuple[Size, ...] = get_args(Size)
"""`tiny` takes a minute, and shows that all runs; `small` minutes to an hour, `medium` hours to a day of a core."""


_LEAST, _MOST = 1e-3, 1e4


def check_sharpness(smoothing: Smoothing) -> None:
    """InputError where a smoothing is sharper or softer than recipes allow: between, all is right in float32."""
    sharpness = smoothing.sharpness
    if sharpness is not None and not _LEAST <= sharpness <= _MOST:
        raise InputError(
            f"{smoothing} has the inverse temperature {float(sharpness):g}, expected {_LEAST:g} to {_MOST:,.0f}"
        )


_Size = Annotated[int, Field(ge=1, le=1_000_000)]


class DataSettings(Settings):
    """A data set by name or path, how grey levels become bits, and how the user's own pictures and tables are read."""

    name: str = "digits"
    binarise: Literal["auto", "threshold", "dynamic"] = "auto"
    threshold: float = Field(default=0.5, ge=0, lt=1)
    background: Background = "white"
    """What stands behind transparent pictures."""
    header: Header = "auto"
    """Whether the first line of a .csv names its columns; `auto` refuses numbers that may be names."""
    drop: tuple[str, ...] = ()
    """Columns of a table that are left out, by name, or by number where they have none."""
    label: str | None = None
    """The column of a table that holds labels."""
    missing: Missing = "refuse"
    """What becomes of values that a table misses."""
    kinds: dict[str, str] = Field(default_factory=dict)
    """Of a table of several kinds that of a column: `data.kinds.age=real`; else it is found by what is there."""
    size: tuple[_Size, _Size] | None = None
    """Height and width that pictures are scaled to, or one number for both; rows of as many numbers become images."""
    fit: Fit = "crop"
    """How pictures are scaled to it: `crop` fills it, `pad` fits in it, `resize` takes each side by itself."""
    valid: str | None = None
    test: str | None = None
    """Where other splits lie than those of `name`."""

    @field_validator("drop", mode="before")
    @classmethod
    def _listed(cls, drop: Any) -> Any:
        """Names as --set has them, [id] or id, or a list; numbers as texts."""
        given = drop.strip("[]").split(",") if isinstance(drop, str) else drop
        return tuple(str(name).strip() for name in given) if isinstance(given, list | tuple) else given

    @field_validator("size", mode="before")
    @classmethod
    def _sides(cls, size: Any) -> Any:
        """One side of a square as both."""
        return (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, list) else size

    @field_validator("label", mode="before")
    @classmethod
    def _named(cls, label: Any) -> Any:
        """A column's number as text."""
        return str(label) if isinstance(label, int) else label


class ConvolutionalSettings(Settings):
    """DVAE++ (Fig. 3): local variables and convolutional networks; scales are heights in cells, powers of two."""

    local_variables: Annotated[LocalVariables, Named(LocalVariables)] = NormalVariables()
    local_groups: Annotated[int, Field(ge=1, le=1000)] = 16
    """Groups of local variables at the scale `local`."""
    variables: _Size = 32
    """Local variables of each group at every location."""
    coarse_groups: Annotated[int, Field(ge=0, le=1000)] = 0
    """Groups of local variables at the scale `top`, before the others; not in the paper, as `signed` is not."""
    conditional: bool = False
    """Pixels at 4 x 4 first, then finer scales given coarser ones."""
    local: _Size = 8
    """The scale of `local_groups`."""
    top: _Size = 4
    """The scale of `coarse_groups`, and that global variables are read from."""
    channels: _Size = 64
    """At the scale of local variables; half as many at twice the scale."""
    cells: Annotated[Cells, Nested(Cells)] = Cells()
    """Residual cells at each scale and for each group, and what they are like."""
    stem: Literal[1, 2, 4] = 1
    """Pixels a side that share a location at the finest scale."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the networks; distributions always take float32."""

    @property
    def scales(self) -> tuple[int, ...]:
        """The height of every local group's locations, coarse groups first."""
        return (self.top,) * self.coarse_groups + (self.local,) * self.local_groups

    @property
    def places(self) -> str:
        """Which groups are where, in words, such as "1 at 4 x 4, 2 to 5 at 8 x 8"."""
        ends = self.coarse_groups, len(self.scales)
        spans = ((1, ends[0], self.top), (ends[0] + 1, ends[1], self.local))
        told = ((f"{first} to {last}" if last > first else f"{first}", scale) for first, last, scale in spans if last)
        return ", ".join(f"{groups} at {scale} x {scale}" for groups, scale in told)

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Variables of every local group, all locations counted."""
        return tuple(self.variables * scale**2 for scale in self.scales)


class ModelSettings(Settings):
    """The variational autoencoder of Fig. 2, or with `convolutional` that of Fig. 3."""

    groups: tuple[_Size, ...] = Field(default=(200, 200), min_length=1)
    """Bits of each group of the hierarchical posterior."""
    hidden: tuple[_Size, ...] = (200, 200)
    """Hidden tanh layers of every network; none makes it linear."""
    batch_norm: bool = True
    signed: bool = False
    """What is made of zeta, but for later groups, is made of 2 zeta - 1: of -1 and 1 for bits. Local bits stay bits."""
    prior: Annotated[PriorDesign, Named(PriorDesign)] = RestrictedBoltzmannDesign()
    smoothing: Annotated[Smoothing, Named(Smoothing)] = OverlappingExponential()
    """training.beta may anneal its beta."""
    likelihood: Annotated[Likelihood, Named(Likelihood)] = BernoulliLikelihood()
    """Of x; data are read as what it is for, and grey made bits only for `bernoulli`."""
    convolutional: ConvolutionalSettings | None = None
    """`hidden` is then the global encoder's, and batch norm is always there."""

    @field_validator("smoothing")
    @classmethod
    def _resolved(cls, smoothing: Smoothing) -> Smoothing:
        check_sharpness(smoothing)
        return smoothing

    @model_validator(mode="after")
    def _fits(self) -> ModelSettings:
        kind = "feed_forward" if self.convolutional is None else "convolutional"
        if not getattr(self.prior, kind):
            able = [name for name, design in components(PriorDesign).items() if getattr(design, kind)]
            needs = "needs model.convolutional" if self.convolutional is None else "is not for model.convolutional"
            raise ValueError(f"prior {self.prior.name!r} {needs}, expected one of {', '.join(able)}")
        if self.signed and self.prior.normal:
            raise ValueError(f"signed is for bits, which the prior {self.prior.name!r} is not over")
        if self.convolutional is not None:
            self.convolutional.local_variables.check(self.smoothing)
        return self


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
