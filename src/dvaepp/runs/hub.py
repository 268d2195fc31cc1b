"""Runs on the Hugging Face Hub: safetensors, JSON, a card and pictures, never a pickle."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvaepp.errors import InputError

SCHEME = "hf://"
"""What the address of a run on the Hub begins with: hf://user/name, hf://user/name@revision."""
_ADDRESS = re.compile(r"hf://[\w.-]+/[\w.-]+(@\S+)?")
_NEEDED = ("run.json", "best.safetensors")
_TAKEN = (*_NEEDED, "metrics.jsonl", "scores.json", "README.md", "*.png")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib")


def fetched(address: str) -> Path:
    """The folder of a run on the Hub, within the Hub's cache (HF_HOME); what is there already is not fetched again.

    Where the Hub cannot be reached, it is what was fetched last. InputError where there is no such run, where its
    repository holds a pickle, and where it is neither in the cache nor to be had.
    """
    with _hub(address) as hub:
        name, _, named = address.removeprefix(SCHEME).partition("@")
        revision = named or None
        try:
            found = hub.HfApi().model_info(name, revision=revision)
        except Exception as error:
            if not _is_out_of_reach(error):
                raise
        else:
            _check_files(address, [each.rfilename for each in found.siblings or ()])
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=list(_TAKEN)))


def check_login(address: str) -> None:
    """InputError where nobody is logged in to the Hub, or nothing can be pushed to the address."""
    if "@" in address:
        raise InputError(f"{address} names a revision, and a push makes a new one: leave out @ and what follows")
    with _hub(address) as hub:
        if hub.get_token() is None:
            raise InputError(f"{address}: nobody is logged in to the Hub: `hf auth login` does it, or HF_TOKEN")


def push(files: Mapping[str, bytes | Path], address: str, private: bool) -> str:
    """Put a run's files (`bundle.bundle`) into a repository of the Hub, made where it is not there; its web address.

    InputError where the Hub refuses, and where it cannot be reached.
    """
    with _hub(address) as hub:
        name, api = address.removeprefix(SCHEME), hub.HfApi()
        made = api.create_repo(name, private=private, exist_ok=True)
        contents = {path: str(each) if isinstance(each, Path) else each for path, each in files.items()}
        added = [hub.CommitOperationAdd(path, each) for path, each in contents.items()]
        api.create_commit(name, added, commit_message="A run of dvaepp")
        return str(made)


def is_a_copy(folder: Path) -> bool:
    """Whether a folder is one that `fetched` gives: in the Hub's cache they are models--USER--NAME/snapshots/COMMIT."""
    snapshots = folder.absolute().parent
    return snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--")


def _check_files(address: str, names: Sequence[str]) -> None:
    """InputError unless a repository's files make a run, and none is a pickle."""
    if pickles := sorted(name for name in names if name.lower().endswith(_PICKLES)):
        raise InputError(f"{address} holds {pickles[0]}, a pickle, which may run anything: only safetensors are taken")
    if missing := [name for name in _NEEDED if name not in names]:
        raise InputError(f"{address} is no run of dvaepp: it lacks {' and '.join(missing)}")


@contextmanager
def _hub(address: str) -> Iterator[Any]:
    """huggingface_hub, whose complaints become an InputError of one sentence; for no other address than hf://.."""
    if not _ADDRESS.fullmatch(address):
        raise InputError(f"{address} is no run on the Hub, expected hf://user/name or hf://user/name@revision")
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise InputError(f"{address}: the Hub needs huggingface_hub; pip install 'dvaepp[hub]'") from None
    try:
        yield huggingface_hub
    except InputError:
        raise
    except Exception as error:  # whatever a library makes of what some server, or a proxy before it, answers
        known = isinstance(error, errors.HFValidationError | OSError | RuntimeError) or _is_out_of_reach(error)
        told = (
            _told(error) if known else f"was not answered as the Hub answers ({type(error).__name__}): {_first(error)}"
        )
        raise InputError(f"{address} {told}") from None


def _is_out_of_reach(error: Exception) -> bool:
    """Whether an exception says that the Hub was not reached: asked not to, or an error of HTTP without an answer."""
    from huggingface_hub import errors

    http = errors.HfHubHTTPError.__mro__[1]  # of httpx or its successor, whichever huggingface_hub stands on
    unanswered = isinstance(error, http) and not isinstance(error, errors.HfHubHTTPError)
    return unanswered or isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError)


def _told(error: Exception) -> str:
    """What is wrong, after the address."""
    from huggingface_hub import errors

    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):  # a file that was not taken
        return _told(error.__cause__)
    if _is_out_of_reach(error):
        return "is out of reach: the Hub does not answer, and no copy is here"
    told = {
        errors.HFValidationError: "is no name that the Hub takes",
        errors.GatedRepoError: "is open to those alone whom its owner lets in: ask there, then `hf auth login`",
        errors.RepositoryNotFoundError: "is not on the Hub, or is private: `hf auth login` says who you are",
        errors.RevisionNotFoundError: "has no such revision",
    }
    for kind, sentence in told.items():
        if isinstance(error, kind):
            return sentence
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"is not yours to write to, as the Hub says ({status}): `hf auth login` says who you are"
    return f"could not be had or written: {_first(error)}"


def _first(error: Exception) -> str:
    """The first line of what an exception says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
