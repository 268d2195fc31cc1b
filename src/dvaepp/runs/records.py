"""What runs and results are written down as: JSON that is checked whenever it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dvaepp.errors import InputError
from dvaepp.storage import read_json


class Record(BaseModel):
    """What run.json holds: all that the run's results depend on, and where it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: dict[str, Any]
    seed: int = Field(ge=0, lt=2**31)
    device: str
    threads: int = Field(ge=1, le=1024)
    data_dir: str | None
    command: str
    versions: dict[str, str]


Number = Annotated[int | float, Field(allow_inf_nan=False)]
_SCORES = {"nll", "nll_standard_error", "nll_at_low_log_z", "nll_at_high_log_z", "elbo", "distortion", "kl"} | {
    "effective_sample_size",
    "log_z",
    "log_z_standard_error",
    "samples",
    "examples",
}


class Foundation(BaseModel):
    """How log Z was found, and whether it is to be trusted."""

    method: str
    trusted: bool
    diagnosis: dict[str, float] = {}


class Source(BaseModel):
    """The data: name and protocol."""

    name: str
    protocol: str


class Result(BaseModel):
    """What `evaluate` writes, and `results/` keeps: the scores by name, and all that they rest on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    settings: dict[str, Any]
    seed: int
    steps: int
    scores: dict[str, Number]
    log_partition: Foundation
    split: str
    evaluation_seed: int
    data: Source
    commands: list[str]

    @field_validator("scores")
    @classmethod
    def _whole(cls, scores: dict[str, float]) -> dict[str, float]:
        if missing := _SCORES - set(scores):
            raise ValueError(f"scores lack {', '.join(sorted(missing))}")
        return scores


def read_result(path: Path) -> Result:
    """The result in a file; InputError for anything else."""
    try:
        return Result.model_validate(read_json(path, "scores of a run"), strict=True)
    except ValidationError as error:
        raise InputError(f"{path} does not hold the scores of a run: {complaint(error)}") from None


def complaint(error: ValueError) -> str:
    """What is wrong first, and where."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
