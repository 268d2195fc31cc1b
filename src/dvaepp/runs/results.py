"""The tables of results that are at hand beside the paper's, as Markdown."""

from __future__ import annotations

import statistics
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

from dvaepp.components.registry import component
from dvaepp.data import is_comparable
from dvaepp.errors import InputError
from dvaepp.evaluation.scores import plus_minus
from dvaepp.priors.base import NORMALISED
from dvaepp.recipes.catalogue import find, names
from dvaepp.recipes.recipe import Recipe, recipe_from
from dvaepp.recipes.settings import SIZES
from dvaepp.recipes.table import Table
from dvaepp.runs.archive import chosen
from dvaepp.runs.records import Result, read_result


def table(folder: Path, name: str) -> str:
    """A table in Markdown, a row for each recipe with results under `folder`; InputError where there are none.

    The paper's tables go by their numbers too.
    """
    shown = _named(name)
    rows = [_line(shown, cell, list(results.values())) for cell, results in _rows(folder, shown)]
    return _heading(shown, folder) + "\n".join(rows) + "\n"


def results_of(folder: Path, name: str) -> dict[Path, Result]:
    """The results that a table's numbers are made of, by their files; InputError as for the table."""
    rows = [(results, _alike(list(results.values()))) for _, results in _rows(folder, _named(name))]
    return {path: result for results, alike in rows for path, result in results.items() if result in alike}


def _named(name: str) -> Table:
    table: Table = component(Table, f"table-{name}" if name.isdecimal() else name)()
    return table


def _rows(folder: Path, shown: Table) -> list[tuple[str, dict[Path, Result]]]:
    """Each cell that has results, with them; InputError where none has."""
    rows = []
    for cell in shown.cells():
        recipe = f"{shown.name}/{cell}"
        results = {path: _result(path, recipe) for path in chosen(folder / recipe, partial(_is_wanted, shown))}
        rows += [(cell, results)] if results else []
    if not rows:
        raise _nothing_to_show(folder, shown)
    return rows


def _alike(results: list[Result]) -> list[Result]:
    """Those that may be averaged: of nearly the longest trainings those on most examples, then with most samples."""
    longest = max(result.length for result in results)
    near = [result for result in results if result.length >= 0.9 * longest]
    most = max(map(_evaluated, near))
    return [result for result in near if _evaluated(result) == most]


def _evaluated(result: Result) -> tuple[float, float]:
    return result.scores["examples"], result.scores["samples"]


def _nothing_to_show(folder: Path, shown: Table) -> InputError:
    """Why a table has no row."""
    paths = [path for cell in shown.cells() for path in (folder / shown.name / cell).glob("seed*.json")]
    splits = {read_result(path).split for path in paths}
    results, made = f"results of {_spoken(shown.name)}", f"`dvaepp evaluate RUN --results {folder}` makes them"
    if "test" in splits:
        return InputError(f"{folder} holds {results}, but of other settings than its recipes have; {made}")
    but = f" on test data, only on {' and '.join(sorted(splits))} data" if splits else ""
    return InputError(f"{folder} holds no {results}{but}; {made}")


def _heading(shown: Table, folder: Path) -> str:
    """Title, how the numbers came about, and the heads of the columns."""
    name, where = shown.name.removeprefix("table-"), folder.resolve().name
    text = (
        f"Made by `dvaepp table {name}` from the files under `{where}/`, which hold the commands that repeat them. "
        "With one seed, ± is the standard error over test examples; with more, the standard deviation over seeds. "
        "Seeds in brackets are left out: less than nine tenths of the others' steps, fewer examples or fewer samples. "
        f"{shown.note}"
    )
    columns = ("recipe", "ours", "steps, samples", "seeds", "log Z ± error", shown.source)
    paragraph = "\n".join(textwrap.wrap(text, 120))
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    return f"# {_spoken(shown.name)}: {shown.title}\n\n{paragraph}\n\n{head}"


def _spoken(name: str) -> str:
    return name.replace("-", " ").capitalize()


def check_comparable(recipe: Recipe, source: str) -> None:
    """InputError, naming where the recipe is from, if it bears the name of one of a table but is another."""
    table = recipe.name.partition("/")[0]
    if recipe.name not in names() or component(Table, table).starting_points:
        return
    if other := _other_part(recipe):
        raise InputError(
            f"{source} is not a result of {recipe.name}: its {other} settings are others "
            "(`dvaepp compare` puts runs and results of any settings beside each other)"
        )


def _other_part(recipe: Recipe) -> str | None:
    """The first part of a recipe that is not as in the recipe of its name at any size; None where all are."""
    known = [_but_effort(find(recipe.name, size)) for size in SIZES]
    settings = _but_effort(recipe)
    parts = ("data", "model", "objective", "training")
    return next((part for part in parts if settings[part] not in [each[part] for each in known]), None)


def _is_wanted(shown: Table, result: Result, source: str) -> bool:
    """Whether a table has a row for a result: not where a starting point was changed.

    One was too where the settings name what is not known here; of other tables such a result is an InputError.
    """
    try:
        recipe = recipe_from(result.settings, source).model_copy(update={"name": result.recipe})
    except InputError:
        if shown.starting_points:
            return False
        raise
    return not shown.starting_points or (recipe.name in names() and _other_part(recipe) is None)


def _result(path: Path, name: str) -> Result:
    """A result of this recipe on test data; InputError where it is of anything else, whatever its name."""
    result = read_result(path)
    recipe = recipe_from(result.settings, str(path)).model_copy(update={"name": name})
    check_comparable(recipe, str(path))
    if result.split != "test" or result.recipe != name:
        raise InputError(f"{path} is of recipe {result.recipe} on {result.split} data, not of {name} on test data")
    return result


def _but_effort(recipe: Recipe) -> dict[str, Any]:
    """The settings without the number of steps, which the table shows, what changes their speed, and when it logs."""
    return recipe.model_dump(mode="json", exclude={"training": {"steps", "compile", "log_every", "validate_every"}})


def _line(shown: Table, cell: str, every: list[Result]) -> str:
    results = _alike(every)
    scores, unit = [result.scores for result in results], shown.unit(cell)
    nlls = [score["nll"] for score in scores]
    spread = statistics.stdev(nlls) if len(nlls) > 1 else scores[0]["nll_standard_error"]
    examples = " or ".join(sorted({f"{score['examples']:,.0f}" for score in scores}))
    nll = f"{statistics.mean(nlls) / unit.nats:.{unit.decimals}f}"
    error = plus_minus(spread / unit.nats, max(scores[0]["examples"], len(results)), unit.decimals)
    effort = {f"{result.length:,}, {result.scores['samples']:.0f}" for result in results}
    seeds = ", ".join(str(result.seed) if result in results else f"({result.seed})" for result in every)
    known = all(result.log_partition.method == NORMALISED.method for result in results)
    found = ", ".join(_log_z(result) for result in results)
    comparable = all(is_comparable(result.data.name) for result in results)
    published = shown.published(cell) if comparable else "not comparable"
    ours = f"{nll}{error} ({examples} examples)"
    cells = (f"`{shown.name}/{cell}`", ours, "; ".join(sorted(effort)), seeds, "0" if known else found, published)
    return f"| {' | '.join(cells)} |"


def _log_z(result: Result) -> str:
    doubt = "" if result.log_partition.trusted else " (not trusted)"
    return f"{result.scores['log_z']:.2f} ± {result.scores['log_z_standard_error']:.2f}{doubt}"
