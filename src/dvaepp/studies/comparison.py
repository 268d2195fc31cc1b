"""Results beside each other: which settings differ, and what each choice of them gave over its seeds."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dvaepp.errors import InputError
from dvaepp.recipes.recipe import Recipe, recipe_from
from dvaepp.report.changes import flat, origin
from dvaepp.report.subject import Subject
from dvaepp.runs.archive import UNTOLD, identity
from dvaepp.runs.folder import RunFolder
from dvaepp.runs.located import located
from dvaepp.runs.records import Result, read_result
from dvaepp.storage import AnyPath
from dvaepp.studies.folder import RECORD
from dvaepp.studies.study import read_study

_UNSHOWN = ("name", "training.steps", "training.log_every", "training.compile")
_ABSENT = "–"


@dataclass(frozen=True)
class Member:
    """A result, where it is from, and its run folder where that is at hand."""

    result: Result
    source: Path
    run: RunFolder | None = None

    @cached_property
    def settings(self) -> dict[str, str]:
        """Every setting by its dotted name, but for those that make a result no other, and its length."""
        settings = dict(flat(self._recipe.model_dump(mode="json", exclude=UNTOLD)))
        return {_short(name): text for name, text in settings.items() if name not in _UNSHOWN}

    @cached_property
    def changed(self) -> set[str]:
        """The settings that are not as in the catalogue's recipe of that name; none where it has no such recipe."""
        known = origin(self._recipe)
        return {_short(name) for name, *_ in known.changes} if known else set()

    @cached_property
    def _recipe(self) -> Recipe:
        return recipe_from(self.result.settings, str(self.source))

    @cached_property
    def subject(self) -> Subject | None:
        """Its run with the metrics."""
        return None if self.run is None else Subject(self.run)

    @cached_property
    def steps(self) -> int:
        """The length of the training: what the result says, else of a run at hand what it has reached, or the plan."""
        if self.result.trained is not None:
            return self.result.length
        planned = int(self._recipe.training.steps)
        metrics = self.subject.metrics if self.subject else []
        return max((int(line["step"]) for line in metrics), default=planned)


@dataclass(frozen=True)
class Row:
    """What one choice of settings gave over its seeds; of settings the texts, in the comparison's order."""

    settings: tuple[str, ...]
    members: tuple[Member, ...]

    @property
    def nlls(self) -> list[float]:
        """The NLL of each seed, nats."""
        return [member.result.scores["nll"] for member in self.members]

    @property
    def nll(self) -> tuple[float, float]:
        """Mean over seeds, and their standard deviation; of one seed the standard error over examples."""
        alone = self.members[0].result.scores["nll_standard_error"]
        return statistics.mean(self.nlls), statistics.stdev(self.nlls) if len(self.members) > 1 else alone

    @property
    def loss(self) -> tuple[float, float | None]:
        """-ELBO, nats: mean over seeds and their standard deviation, which one seed has not."""
        values = [-member.result.scores["elbo"] for member in self.members]
        return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None

    @property
    def steps(self) -> list[int]:
        """The lengths of its trainings."""
        return sorted({member.steps for member in self.members})

    @property
    def seconds(self) -> float | None:
        """What a training took, the mean over seeds; None where the metrics of one are not at hand."""
        known = [member.subject.seconds for member in self.members if member.subject]
        times = [seconds for seconds in known if seconds is not None]
        return statistics.mean(times) if len(times) == len(self.members) else None


@dataclass(frozen=True)
class Comparison:
    """Rows of results that were measured alike; `settings` are the names of those that differ."""

    settings: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def first(self) -> Result:
        """One of its results: what all have in common can be read from it."""
        return self.rows[0].members[0].result


def compare(paths: Iterable[AnyPath], steps_may_differ: bool = False) -> Comparison:
    """Results of runs, files of results, and folders of either beside each other.

    InputError where there is none, for a file that is no result, and where splits, data, numbers of samples or examples
    or, unless they may, lengths of training differ.

    >>> import tempfile
    >>> from dvaepp.studies import Study, run_study
    >>> study = Study(recipes=["quick/directed"], size="tiny", steps=2, seeds=2, set={"training.l2": [0, 0.1]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     outcome = run_study(study, folder)
    ...     table = compare([folder])
    >>> table.settings, [(row.settings, len(row.members)) for row in table.rows]
    (('training.l2',), [(('0.0',), 2), (('0.1',), 2)])
    """
    return comparison(gathered(paths), steps_may_differ)


def comparison(members: Sequence[Member], steps_may_differ: bool = False, shown: Sequence[str] = ()) -> Comparison:
    """The members beside each other, those of the same settings in one row, in the order of their first.

    With settings that are `shown` even where they do not differ.
    """
    members = _distinct(members)
    if not members:
        raise InputError("there is no result to compare: `dvaepp evaluate` makes them")
    _check_alike(members, steps_may_differ)
    names = _differing(members, shown)
    rows: dict[str, list[Member]] = {}
    for member in members:
        rows.setdefault(json.dumps([member.result.recipe, member.settings, member.steps]), []).append(member)
    for same in rows.values():
        _check_seeds(same)
    made = (Row(tuple(_text(same[0], name) for name in names), _by_seed(same)) for same in rows.values())
    return Comparison(tuple(names), tuple(made))


def gathered(paths: Iterable[AnyPath]) -> list[Member]:
    """The results that runs, files and folders hold; InputError for a path that holds none."""
    return [member for path in paths for member in _members(located(path))]


def _members(path: Path) -> list[Member]:
    if path.is_file():
        return [Member(read_result(path), path)]
    if not path.is_dir():
        raise InputError(f"{path} does not exist; expected a run, a result or a folder of them")
    if (path / "run.json").exists():
        if (member := _of_run(path)) is None:
            on = " on test data" if any(path.glob("scores*.json")) else ""
            raise InputError(f"{path} has not been evaluated{on}: `dvaepp evaluate {path}` does it")
        return [member]
    if not (found := of_study(path) if (path / RECORD).exists() else _below(path)):
        raise InputError(f"{path} holds no evaluated run and no result")
    return found


def _below(folder: Path) -> list[Member]:
    """The results of runs anywhere below a folder, and those in files that are of no such run."""
    runs = [member for each in sorted(folder.rglob("run.json")) if (member := _of_run(each.parent)) is not None]
    files = [path for path in sorted(folder.rglob("seed*.json")) if re.fullmatch(r"seed\d+(-\w+)*", path.stem)]
    known = [(member.result.recipe, member.result.seed, member.settings) for member in runs]
    found = [Member(read_result(path), path) for path in files]
    return runs + [each for each in found if (each.result.recipe, each.result.seed, each.settings) not in known]


def of_study(folder: Path, cells: str | None = None) -> list[Member]:
    """The results of a study's finished points, in the order of its grid."""
    points = [point for point in read_study(folder / RECORD).points(cells) if point.is_finished(folder)]
    found = ((point.folder(folder), point.result(folder)) for point in points)
    return [Member(result[0], result[1], RunFolder(run)) for run, result in found if result is not None]


def apart(members: Iterable[Member]) -> list[list[Member]]:
    """Members in lists of those of one data set that were scored alike."""
    found: dict[tuple[Any, ...], list[Member]] = {}
    for member in members:
        result = member.result
        scored = (result.data.name, result.data.digest, result.scores["examples"], result.scores["samples"])
        found.setdefault(scored, []).append(member)
    return list(found.values())


def _of_run(folder: Path) -> Member | None:
    path = folder / "scores.json"
    return Member(read_result(path), path, RunFolder(folder)) if path.exists() else None


def _distinct(members: Iterable[Member]) -> list[Member]:
    """Each result once, with its run folder if one of the places where it was found has it."""
    found: dict[str, Member] = {}
    for member in members:
        known = identity(member.result, str(member.source))
        if known not in found or (found[known].run is None and member.run is not None):
            found[known] = member
    return list(found.values())


def _check_alike(members: Sequence[Member], steps_may_differ: bool) -> None:
    """InputError naming two results that were not measured alike, and in what."""
    alike: dict[str, Callable[[Member], Any]] = {
        "the split": lambda m: m.result.split,
        "the data": _data(members),
        "the number of importance samples": lambda m: int(m.result.scores["samples"]),
        "the number of examples": lambda m: int(m.result.scores["examples"]),
        "the model that was scored": lambda m: m.result.evaluation.model if m.result.evaluation else "best",
    }
    if not steps_may_differ:
        alike["the number of training steps"] = lambda m: m.steps
    first = members[0]
    for what, of in alike.items():
        if (other := next((member for member in members if of(member) != of(first)), None)) is not None:
            hint = "; --steps-may-differ compares them all the same" if "steps" in what else ""
            differs = f"{what} differs, {of(first)} and {of(other)}{hint}"
            raise InputError(f"{first.source} and {other.source} cannot be compared: {differs}")


def _data(members: Sequence[Member]) -> Callable[[Member], str]:
    """What tells data apart: digests, or where a result is from before these were kept, names."""
    if all(member.result.data.digest for member in members):
        return lambda member: f"{member.result.data.name} ({str(member.result.data.digest)[:12]})"
    return lambda member: member.result.data.name


def _check_seeds(same: Sequence[Member]) -> None:
    known: dict[int, Member] = {}
    for member in same:
        other = known.setdefault(member.result.seed, member)
        if other is not member:
            raise InputError(
                f"{other.source} and {member.source} are both of seed {member.result.seed} and the same settings: "
                "name one of them"
            )


def _differing(members: Sequence[Member], shown: Sequence[str]) -> list[str]:
    """`recipe` where names differ, and the settings that differ otherwise than recipes do; at least one.

    Those that differ among results of one name, and those that differ at all and one result has changed.
    """
    by_name: dict[str, list[Member]] = {}
    for member in members:
        by_name.setdefault(member.result.recipe, []).append(member)
    every = dict.fromkeys(name for member in members for name in member.settings)

    def differs(name: str) -> bool:
        groups = [members] if any(name in member.changed for member in members) else by_name.values()
        return any(len({_text(member, name) for member in same}) > 1 for same in groups)

    differ = [name for name in every if name in shown or differs(name)]
    return [*(["recipe"] if len(by_name) > 1 or not differ else []), *differ]


def _short(name: str) -> str:
    return name.removesuffix(".name")


def _text(member: Member, name: str) -> str:
    return member.result.recipe if name == "recipe" else member.settings.get(name, _ABSENT)


def _by_seed(members: Iterable[Member]) -> tuple[Member, ...]:
    return tuple(sorted(members, key=lambda member: member.result.seed))
