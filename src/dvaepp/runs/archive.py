"""Where results are kept. A result is replaced by the same evaluation made again, never by one of other settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from pydantic.main import IncEx

from dvaepp.errors import InputError
from dvaepp.recipes.recipe import recipe_from
from dvaepp.runs.records import Result, check_result, read_result
from dvaepp.storage import in_turn, write_json, write_text

UNTOLD: Mapping[str, IncEx | bool] = {"about": True, "evaluation": True, "data": {"name"}}
"""What of a recipe is no setting of a result: a sentence; what `Result.evaluation` says better, and the digest."""


def identity(result: Result, source: str) -> str:
    """The digest of all that a result is about but the step: recipe, seed, data, split, which model, and how scored.

    A run that was trained on gives the same result anew; more samples, or another seed of the evaluation, another one.
    A result from before `evaluation` and the data's digest were kept is like none from after. InputError, naming the
    source, where the settings are no recipe.
    """
    about = result.model_dump(include={"recipe", "seed", "split", "evaluation_seed", "evaluation"})
    about |= {"settings": recipe_from(result.settings, source).model_dump(mode="json", exclude=UNTOLD)}
    about |= {"data": result.data.digest}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def latest(folder: Path, split: str) -> Path:
    """Where a run folder keeps the latest result: scores.json, or scores-SPLIT.json where the split is not test."""
    return folder / ("scores.json" if split == "test" else f"scores-{split}.json")


def keep_latest(folder: Path, values: dict[str, Any]) -> Path:
    """Write a result as the `latest` of its split in a run folder; the path.

    What is there of anything else is first set aside: scores of other settings as scores-XXXXXXXX.json, by their
    `identity`, and what cannot be read as such as scores-unreadable-XXXXXXXX.json, by its content.
    """
    result = check_result(values, "the scores cannot be kept")
    path = latest(folder, result.split)
    with in_turn(folder / "run.json"):
        if path.is_file():
            _set_aside(path, identity(result, "the result"))
        write_json(path, values)
    return path


def file_away(results: Path, values: dict[str, Any]) -> Path:
    """Write a result among others, as `results`/RECIPE/seedN.json; the path.

    Where that file is another's, as seedN-XXXXXXXX.json beside it, by its `identity`; where the same result is there
    under any of these names, in its place. Several processes may do so at once.
    """
    result = check_result(values, "the scores cannot be kept")
    folder = results / result.recipe
    folder.mkdir(parents=True, exist_ok=True)
    with in_turn(folder):
        path = _place(folder, f"seed{result.seed}", identity(result, "the result"))
        write_json(path, values)
    return path


def chosen(folder: Path, wanted: Callable[[Result, str], bool] = lambda result, source: True) -> list[Path]:
    """The files of a folder's results that a table takes: of those that are wanted one a seed, of test data alone.

    That of the best model before that of the last, then of the most steps, examples, and samples, and of the least
    seed of the evaluation. InputError for a file that holds no result.
    """
    found: dict[int, list[tuple[tuple[Any, ...], Path]]] = {}
    for path in sorted(folder.glob("seed*.json"), key=lambda path: (len(path.name), path.name)):
        result = read_result(path)
        last = result.evaluation is not None and result.evaluation.model == "last"
        scores = result.scores
        rank = (not last, result.length, scores["examples"], scores["samples"], -result.evaluation_seed)
        if result.split == "test" and wanted(result, str(path)):
            found.setdefault(result.seed, []).append((rank, path))
    return [max(found[seed], key=lambda each: each[0])[1] for seed in sorted(found)]


def _place(folder: Path, name: str, identity: str) -> Path:
    for path in folder.glob(f"{name}*.json"):
        if _identity_in(path) == identity:
            return path
    own = f"{name}-{identity[:8]}"
    names = chain((name, own), (f"{own}-{k}" for k in count(2)))
    return next(path for each in names if not (path := folder / f"{each}.json").exists())


def _set_aside(path: Path, identity: str) -> None:
    """Keep what is in a file under another name, unless it is the result of this identity."""
    there = _identity_in(path)
    if there == identity:
        return
    try:
        if there is not None:
            write_text(path.with_stem(f"{path.stem}-{there[:8]}"), path.read_text(encoding="utf-8"))
        else:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            path.replace(path.with_stem(f"{path.stem}-unreadable-{digest[:8]}"))
    except OSError as error:
        raise InputError(f"{path} holds no scores that can be read, and cannot be set aside: {error}") from None


def _identity_in(path: Path) -> str | None:
    """That of the result in a file; None where there is no file, or something else in it."""
    try:
        return identity(read_result(path), str(path))
    except InputError:
        return None
