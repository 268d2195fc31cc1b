"""The table of results that are at hand beside the paper's, as Markdown."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from dvaepp.errors import InputError
from dvaepp.experiments import table_2
from dvaepp.experiments.catalogue import find
from dvaepp.experiments.recipe import Recipe, recipe_from
from dvaepp.experiments.run import Result, read_result

_HEADING = """# Table 2: NLL on test data, nats, z binary

Made by `dvaepp table 2 -o docs/results.md` from the files under `results/`, which hold the commands that repeat them.
With one seed, ± is the standard error over test examples; with more, the standard deviation over seeds. Rows whose
steps differ from the paper's are not comparable with it.

| recipe | ours | steps, samples | seeds | log Z ± error | paper (1,000,000 steps, 4,000 samples, five runs) |
|---|---|---|---|---|---|
"""


def table(folder: Path) -> str:
    """Table 2 in Markdown, a row for each recipe with results under `folder`; InputError where there are none."""
    rows = []
    for cell, columns in table_2.PAPER.items():
        for column, paper in columns.items():
            name = f"table-2/{cell}/{column}"
            results = [_result(path, name) for path in sorted((folder / name).glob("seed*.json"))]
            rows += [_row(name, results, paper)] if results else []
    if not rows:
        raise InputError(f"{folder} holds no results of Table 2; `dvaepp evaluate RUN --results {folder}` makes them")
    return _HEADING + "\n".join(rows) + "\n"


def _result(path: Path, name: str) -> Result:
    """A result of this recipe on test data; InputError where it is of anything else, whatever its name."""
    result = read_result(path)
    known = [_but_steps(find(name, size)) for size in table_2.SIZES]
    settings = _but_steps(recipe_from(result.settings, str(path)))
    for part in ("data", "model", "objective", "training"):
        if settings[part] not in [recipe[part] for recipe in known]:
            raise InputError(f"{path} is not a result of {name}: its {part} settings are others")
    if result.split != "test" or result.recipe != name:
        raise InputError(f"{path} is of recipe {result.recipe} on {result.split} data, not of {name} on test data")
    return result


def _but_steps(recipe: Recipe) -> dict[str, Any]:
    """The settings without the number of training steps, which the table shows."""
    return recipe.model_dump(mode="json", exclude={"training": {"steps"}})


def _row(name: str, results: list[Result], paper: tuple[float, float]) -> str:
    scores = [result.scores for result in results]
    nlls = [score["nll"] for score in scores]
    spread = statistics.stdev(nlls) if len(nlls) > 1 else scores[0]["nll_standard_error"]
    examples = " or ".join(sorted({f"{score['examples']:,.0f}" for score in scores}))
    ours = f"{statistics.mean(nlls):.2f} ± {spread:.2f} ({examples} examples)"
    effort = {f"{result.steps:,}, {result.scores['samples']:.0f}" for result in results}
    seeds = ", ".join(str(result.seed) for result in results)
    log_z = ", ".join(f"{score['log_z']:.2f} ± {score['log_z_standard_error']:.2f}" for score in scores)
    cells = (f"`{name}`", ours, "; ".join(sorted(effort)), seeds, log_z, f"{paper[0]:.2f} ± {paper[1]:.2f}")
    return f"| {' | '.join(cells)} |"
