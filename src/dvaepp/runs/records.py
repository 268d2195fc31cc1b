"""What runs and results are written down as: JSON that is checked whenever it is read."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from dvaepp.errors import InputError
from dvaepp.storage import read_json

RECORD = "run.json"
DATA = "data.npz"
"""What data that a program gave are called in the folder of a run on them."""
FORMAT = 1
"""Of run folders. It grows by one where a folder is written that this version could not read."""


class Record(BaseModel):
    """What run.json holds: all that the run's results depend on, and where it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: dict[str, Any]
    seed: int = Field(ge=0, lt=2**31)
    device: str
    threads: int = Field(ge=1, le=1024)
    data_dir: str | None
    command: str
    """That made the run."""
    resumed: list[str] = []
    """Those that let it go on for longer."""
    versions: dict[str, str]
    folder: str | None = None
    """Where the run folder was, an absolute path: what was moved together with it is found from there."""
    data: str | None = None
    """The digest of the data."""
    columns: list[str] | None = None
    """Names of the columns of a table that it was trained on."""
    start: str | None = None
    """The folder of the run from whose weights this one began."""
    format: int = FORMAT
    """Of the folder; those from before it was kept have the first one."""

    @property
    def commands(self) -> list[str]:
        """Those of the training, in their order."""
        return [self.command, *self.resumed]

    def repeating(self, scored: Iterable[str]) -> list[str]:
        """Those of the training and `scored`, of an evaluation, in their order, which the training may have outlasted.

        >>> record = dict(recipe={}, seed=0, device="cpu", threads=1, data_dir=None, versions={})
        >>> Record(command="train", resumed=["resume"], **record).repeating(["train", "evaluate"])
        ['train', 'evaluate', 'resume']
        """
        return list(dict.fromkeys([*scored, *self.commands]))


_OWN = re.compile(r"run\.json|data\.npz|metrics\.jsonl|(checkpoint|best)\.safetensors|scores(-\w+)*\.json")
"""Files of a run's folder."""


def _finite(value: float) -> float:
    if not abs(value) <= sys.float_info.max:  # of a whole number too large for a float too
        raise ValueError("expected a finite number")
    return value


Number = Annotated[int | float, AfterValidator(_finite)]
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
    """The data: name, protocol, and the digest, which results from before it was kept lack."""

    name: str
    protocol: str
    digest: str | None = None


class Effort(BaseModel):
    """Which of a run's models was scored, and the settings of the evaluation, with the number of examples it took."""

    model: Literal["best", "last"]
    samples: int = Field(ge=1)
    examples: int = Field(ge=1)
    temperatures: int = Field(ge=1)
    chains: int = Field(ge=1)
    repeats: int = Field(ge=1)
    thorough: bool


class Making(BaseModel):
    """Where scores were made, and in what pieces: what their draws depend on beside the seed."""

    device: str
    processes: int = Field(ge=1)
    megabytes: int | float = Field(gt=0)


class Result(BaseModel):
    """What `evaluate` writes, and `results/` keeps: the scores by name, and all that they rest on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    settings: dict[str, Any]
    seed: int = Field(ge=0, lt=2**31)
    steps: int = Field(ge=0)
    """The step of the model that was scored."""
    trained: int | None = Field(default=None, ge=0)
    """The step that training had reached by then; None in results from before it was kept."""
    scores: dict[str, Number]
    log_partition: Foundation
    split: Literal["train", "valid", "test"]
    evaluation_seed: int = Field(ge=0, lt=2**31)
    evaluation: Effort | None = None
    """None in results from before it was kept."""
    made: Making | None = None
    """None in results from before it was kept."""
    data: Source
    commands: list[str]

    @property
    def length(self) -> int:
        """How long the training was: up to the scored model at least."""
        return max(self.steps, self.trained or 0)

    @field_validator("scores")
    @classmethod
    def _whole(cls, scores: dict[str, float]) -> dict[str, float]:
        if missing := _SCORES - set(scores):
            raise ValueError(f"scores lack {', '.join(sorted(missing))}")
        if any(scores[name] < 1 or scores[name] % 1 for name in ("samples", "examples")):
            raise ValueError("expected numbers of samples and of examples, at least 1 of each")
        if bad := [name for name in scores if name.endswith("standard_error") and scores[name] < 0]:
            raise ValueError(f"{bad[0]} is below 0")
        return scores


def read_record(path: Path) -> Record:
    """The record of a run in a file; InputError for anything else, and for that of a later version of dvaepp."""
    values = read_json(path, "the record of a run (is this a run folder?)")
    if isinstance(values, dict) and values.get("format", FORMAT) != FORMAT:
        said = f"{path} is of format {values['format']!r}, and this version of dvaepp reads format {FORMAT}"
        raise InputError(f"{said}: another version, or pip install -U dvaepp, may read it")
    try:
        return Record.model_validate(values, strict=True)
    except ValidationError as error:
        raise InputError(f"{path} is not the record of a run: {complaint(error)}") from None


def read_result(path: Path) -> Result:
    """The result in a file; InputError for anything else."""
    return check_result(read_json(path, "scores of a run"), f"{path} does not hold the scores of a run")


def check_result(values: Any, complaint_begins: str) -> Result:
    """The result that JSON values are; InputError, with the words that it begins with, for anything else."""
    try:
        return Result.model_validate(values, strict=True)
    except ValidationError as error:
        raise InputError(f"{complaint_begins}: {complaint(error)}") from None


def holds_result(path: Path) -> bool:
    """Whether a file is there and holds a result."""
    try:
        return path.is_file() and bool(read_result(path))
    except InputError:
        return False


def complaint(error: ValueError) -> str:
    """What is wrong first, and where."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg'].removeprefix('Value error, ')}"


def check_not_a_runs(path: Path) -> None:
    """InputError where a file to be written is one of those that make a run, or holds a result."""
    if _OWN.fullmatch(path.name) and (path.parent / RECORD).exists():
        raise InputError(f"{path} belongs to the run in {path.parent}, which would be lost: name another file")
    if holds_result(path):
        raise InputError(f"{path} holds the scores of a run, which would be lost: name another file")
