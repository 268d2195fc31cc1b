"""Where a run lies: in a folder of one's own, on the Hugging Face Hub, or within this package."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from dvaepp.errors import InputError, nearest
from dvaepp.runs import hub
from dvaepp.runs.records import RECORD, read_record
from dvaepp.storage import AnyPath

PRETRAINED = Path(__file__).parent.parent / "pretrained"
"""The folder of the runs that ship with the package."""


def shipped() -> tuple[str, ...]:
    """The names of the runs that ship with the package."""
    return tuple(sorted(path.parent.name for path in PRETRAINED.glob("*/run.json")))


def located(run: AnyPath) -> Path:
    """The folder of a run: one that is there, else that of "hf://user/name" or "hf://user/name@revision", or shipped.

    A folder without a run in it hides no shipped run. What is of the Hub is downloaded where it is not yet; nothing
    else asks the network. A path that leads nowhere is given back. InputError for a name that is neither a folder here
    nor that of a shipped run, and as `hub.fetched`.
    """
    name = os.fspath(run)
    path = Path(name)
    if path.exists() and not (name in shipped() and not (path / "run.json").exists()):
        return path
    if name.startswith(hub.SCHEME):
        return hub.fetched(name)
    if name.lower().startswith("hf:"):
        raise InputError(f"{name} is no run on the Hub, expected the text hf://user/name or hf://user/name@revision")
    if name in shipped():
        return PRETRAINED / name
    if path.name == name:
        known = f"and the runs that ship with dvaepp are {' and '.join(shipped())}"
        raise InputError(f"{name} does not exist, {known}{nearest(name.lower(), shipped())}")
    return path


def run_at(run: AnyPath) -> Path:
    """The folder of a run, absolute; InputError where none is there (`located`), or none that this version can read."""
    folder = located(run)
    read_record(folder / RECORD)
    return folder.resolve()


def is_only_read(folder: Path) -> bool:
    """Whether nothing is written into a run's folder: it ships with the package, or is the Hub's copy."""
    return folder.resolve().is_relative_to(PRETRAINED.resolve()) or hub.is_a_copy(folder)


def check_own(folder: Path) -> None:
    """InputError where nothing is written into a run's folder (`is_only_read`); it says how to have one's own."""
    if is_only_read(folder):
        own = f"`cp -rL {shlex.quote(str(folder))} my-run` makes a run of yours"
        raise InputError(f"{folder} is only read: name another place with -o, or {own}")
