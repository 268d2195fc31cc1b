"""The table of results that are at hand beside the paper's, as Markdown."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from dvaepp.errors import InputError
from dvaepp.experiments import table_2
from dvaepp.storage import read_json

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
            results = _results(folder / "table-2" / cell / column)
            rows += [_row(f"table-2/{cell}/{column}", results, paper)] if results else []
    if not rows:
        raise InputError(f"{folder} holds no results of Table 2; `dvaepp evaluate RUN --results {folder}` makes them")
    return _HEADING + "\n".join(rows) + "\n"


def _results(folder: Path) -> list[dict[str, Any]]:
    return [read_json(path, "the scores of a run") for path in sorted(folder.glob("seed*.json"))]


def _row(name: str, results: list[dict[str, Any]], paper: tuple[float, float]) -> str:
    scores = [result["scores"] for result in results]
    nlls = [score["nll"] for score in scores]
    spread = statistics.stdev(nlls) if len(nlls) > 1 else scores[0]["nll_standard_error"]
    ours = f"{statistics.mean(nlls):.2f} ± {spread:.2f} ({scores[0]['examples']:,.0f} examples)"
    effort = {f"{result['steps']:,}, {result['scores']['samples']:.0f}" for result in results}
    seeds = ", ".join(str(result["seed"]) for result in results)
    log_z = ", ".join(f"{score['log_z']:.2f} ± {score['log_z_standard_error']:.2f}" for score in scores)
    cells = (f"`{name}`", ours, "; ".join(sorted(effort)), seeds, log_z, f"{paper[0]:.2f} ± {paper[1]:.2f}")
    return f"| {' | '.join(cells)} |"
