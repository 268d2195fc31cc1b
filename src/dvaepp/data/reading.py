"""How data become examples: plain values that every reader takes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from dvaepp.data.columns import Column
from dvaepp.data.formats import Header
from dvaepp.data.kinds import Plain
from dvaepp.data.pictures import Background, Fit
from dvaepp.errors import InputError

Binarise = Literal["auto", "threshold", "dynamic", "none"]
Missing = Literal["refuse", "drop-rows", "drop-columns", "category"]


@dataclass(frozen=True)
class Reading:
    """The options of `load`, which says what they mean; InputError unless each is one that there is."""

    binarise: str = "auto"
    threshold: float = 0.5
    kind: str = "levels"
    background: str = "white"
    header: str = "auto"
    drop: tuple[str, ...] = ()
    label: str | None = None
    missing: str = "refuse"
    size: tuple[int, int] | None = None
    fit: str = "crop"
    valid: str | None = None
    test: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    """The columns that a model takes, where the data are not to train on."""
    known: tuple[Column, ...] | None = None
    """What these are in a table of several kinds."""

    def __post_init__(self) -> None:
        options: dict[str, tuple[str, Any]] = {
            "binarise": (self.binarise, Binarise),
            "kind": (self.kind, Plain),
            "background": (self.background, Background),
            "header": (self.header, Header),
            "missing": (self.missing, Missing),
            "fit": (self.fit, Fit),
        }
        for option, (given, known) in options.items():
            if given not in get_args(known):
                raise InputError(f"{option} is {given!r}, expected one of {', '.join(get_args(known))}")
        if self.kind != "levels" and self.binarise not in ("auto", "none"):
            raise InputError(
                f"kind is {self.kind!r} but binarise is {self.binarise!r}, expected auto: bits have no kind"
            )
        if self.kinds and self.kind != "mixed":
            raise InputError(
                "kinds say what columns of several kinds hold: expected kind mixed, model.likelihood=mixed"
            )
        if self.missing == "category" and self.kind != "mixed":
            raise InputError("missing is 'category', which columns of several kinds have (model.likelihood=mixed)")
        if not 0 <= self.threshold < 1:
            raise InputError(f"threshold is {self.threshold}, expected a number in [0, 1)")
        if self.valid is not None and self.test is None:
            raise InputError("valid is given without test, expected test alone, or both")

    @property
    def options(self) -> dict[str, Any]:
        """What `load` takes."""
        return {name: value for name, value in vars(self).items() if name not in ("names", "known")}

    @property
    def plain(self) -> Plain | None:
        """What the numbers are that stay as they are; None where they become bits."""
        return cast(Plain, self.kind) if self.binarise == "none" or self.kind != "levels" else None

    @property
    def chooses_columns(self) -> bool:
        """Whether not all columns of a table are examples', or some may miss values."""
        return bool(self.drop or self.label is not None or self.missing != "refuse")
