"""The tables of results that are at hand beside the paper's, as Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvaepp.errors import InputError
from dvaepp.evaluation.scores import plus_minus
from dvaepp.recipes import table_2, table_3
from dvaepp.recipes.catalogue import find
from dvaepp.recipes.recipe import Recipe, recipe_from
from dvaepp.recipes.settings import SIZES
from dvaepp.runs.records import Result, read_result

_HEADING_2 = """# Table 2: NLL on test data, nats, z binary

Made by `dvaepp table 2 -o docs/results.md` from the files under `results/`, which hold the commands that repeat them.
With one seed, ± is the standard error over test examples; with more, the standard deviation over seeds. Rows whose
steps differ from the paper's are not comparable with it.

| recipe | ours | steps, samples | seeds | log Z ± error | paper (1,000,000 steps, 4,000 samples, five runs) |
|---|---|---|---|---|---|
"""
_HEADING_3 = """# Table 3: NLL on test data, nats (CIFAR-10: bits per dimension), discrete variables binary

Made by `dvaepp table 3` from the files under `results/`, which hold the commands that repeat them. With one seed, ± is
the standard error over test examples; with more, the standard deviation over seeds. The paper does
not say its steps, and chose among 1, 2 and 4 global groups; rows of few steps or samples are not comparable with it.

| recipe | ours | steps, samples | seeds | log Z ± error | paper (4,000 samples) |
|---|---|---|---|---|---|
"""
_CIFAR_NATS = 32 * 32 * 3 * math.log(2)
"""Nats in one bit per dimension."""


@dataclass(frozen=True)
class _Row:
    """A recipe that may have results: what the paper says, the unit of both in nats, and its decimals."""

    name: str
    paper: str
    unit: float = 1.0
    decimals: int = 2


def table(folder: Path, number: str = "2") -> str:
    """A table in Markdown, a row for each recipe with results under `folder`; InputError where there are none."""
    heading, known = _TABLES[number]
    rows = []
    for row in known():
        results = [_result(path, row.name) for path in sorted((folder / row.name).glob("seed*.json"))]
        rows += [_line(row, results)] if results else []
    if not rows:
        made = f"`dvaepp evaluate RUN --results {folder}` makes them"
        raise InputError(f"{folder} holds no results of Table {number}; {made}")
    return heading + "\n".join(rows) + "\n"


def _table_2() -> Iterator[_Row]:
    for cell, columns in table_2.PAPER.items():
        for column, (mean, deviation) in columns.items():
            yield _Row(f"table-2/{cell}/{column}", f"{mean:.2f} ± {deviation:.2f}")


def _table_3() -> Iterator[_Row]:
    """The rows of each data set, then its ablations."""
    for data in table_3.DATA:
        unit = (_CIFAR_NATS, 3) if data == "cifar10" else (1.0, 2)
        for row in (*table_3.ROWS, *table_3.ABLATIONS):
            paper = table_3.PAPER.get(data, {}).get(row)
            yield _Row(f"table-3/{data}/{row}", "–" if paper is None else f"{paper:.2f}", *unit)


_TABLES = {"2": (_HEADING_2, _table_2), "3": (_HEADING_3, _table_3)}


def check_comparable(recipe: Recipe, source: str) -> None:
    """InputError, naming where the recipe is from, if it bears the name of one of a table but is another."""
    if not recipe.name.startswith("table-"):
        return
    known = [_but_steps(find(recipe.name, size)) for size in SIZES]
    settings = _but_steps(recipe)
    for part in ("data", "model", "objective", "training"):
        if settings[part] not in [each[part] for each in known]:
            raise InputError(f"{source} is not a result of {recipe.name}: its {part} settings are others")


def _result(path: Path, name: str) -> Result:
    """A result of this recipe on test data; InputError where it is of anything else, whatever its name."""
    result = read_result(path)
    recipe = recipe_from(result.settings, str(path))
    check_comparable(recipe.model_copy(update={"name": name}), str(path))
    if result.split != "test" or result.recipe != name:
        raise InputError(f"{path} is of recipe {result.recipe} on {result.split} data, not of {name} on test data")
    return result


def _but_steps(recipe: Recipe) -> dict[str, Any]:
    """The settings without the number of training steps, which the table shows, and what only changes their speed."""
    return recipe.model_dump(mode="json", exclude={"training": {"steps", "compile"}})


def _line(row: _Row, results: list[Result]) -> str:
    scores = [result.scores for result in results]
    nlls = [score["nll"] for score in scores]
    spread = statistics.stdev(nlls) if len(nlls) > 1 else scores[0]["nll_standard_error"]
    examples = " or ".join(sorted({f"{score['examples']:,.0f}" for score in scores}))
    nll = f"{statistics.mean(nlls) / row.unit:.{row.decimals}f}"
    error = plus_minus(spread / row.unit, max(scores[0]["examples"], len(results)), row.decimals)
    effort = {f"{result.steps:,}, {result.scores['samples']:.0f}" for result in results}
    seeds = ", ".join(str(result.seed) for result in results)
    log_z = ", ".join(f"{score['log_z']:.2f} ± {score['log_z_standard_error']:.2f}" for score in scores)
    ours = f"{nll}{error} ({examples} examples)"
    cells = (f"`{row.name}`", ours, "; ".join(sorted(effort)), seeds, log_z, row.paper)
    return f"| {' | '.join(cells)} |"
