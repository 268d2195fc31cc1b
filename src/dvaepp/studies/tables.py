"""A comparison as a table: cells of text, Markdown, CSV."""

from __future__ import annotations

import csv
import io
import textwrap

from dvaepp.evaluation.scores import plus_minus
from dvaepp.report.subject import duration
from dvaepp.studies.comparison import Comparison, Row

_ABSENT = "–"


def cells(compared: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings, and for each row the texts under them."""
    heads = [*compared.settings, "NLL, nats", "seeds", "−ELBO, nats", "steps", "time"]
    return heads, [_line(row) for row in compared.rows]


def _line(row: Row) -> list[str]:
    nll, spread = row.nll
    loss, loss_spread = row.loss
    examples = row.members[0].result.scores["examples"]
    error = plus_minus(spread, max(examples, len(row.members)))
    trusted = all(member.result.log_partition.trusted for member in row.members)
    doubt = "" if trusted else " (log Z not trusted)"
    return [
        *row.settings,
        f"{nll:.2f}{error}{doubt}",
        str(len(row.members)),
        f"{loss:.2f}" if loss_spread is None else f"{loss:.2f} ± {loss_spread:.2f}",
        " or ".join(f"{steps:,}" for steps in row.steps),
        _ABSENT if row.seconds is None else duration(row.seconds),
    ]


def caption(compared: Comparison) -> str:
    """How the numbers came about."""
    first = compared.first
    counts = {len(row.members) for row in compared.rows}
    spread = {
        (True, True): "± is the standard deviation over seeds, of one seed the standard error over examples",
        (True, False): "± is the standard error over examples",
        (False, True): "± is the standard deviation over seeds",
    }[1 in counts, bool(counts - {1})]
    count, samples = int(first.scores["examples"]), int(first.scores["samples"])
    return (
        f"{count:,} {first.split} examples of {first.data.name}, {samples:,} importance samples, z binary; {spread}. "
        "Time is that of a training, validations included."
    )


def markdown(compared: Comparison) -> str:
    """The table in Markdown, under its caption."""
    heads, lines = cells(compared)
    rows = [heads, ["---"] * len(heads), *lines]
    table = "\n".join(f"| {' | '.join(_quoted(cell) for cell in row)} |" for row in rows)
    return "\n".join(textwrap.wrap(caption(compared), 120)) + f"\n\n{table}\n"


def _quoted(text: str) -> str:
    return text.replace("|", "\\|")


def comma_separated(compared: Comparison) -> str:
    """The table in CSV, numbers unrounded; empty where there is none."""
    names = ["seeds", "nll", "nll_sd", "nll_standard_error", "minus_elbo", "minus_elbo_sd", "steps", "seconds"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*compared.settings, *names, "samples", "examples", "split", "data"])
    first = compared.first
    of_all = [int(first.scores["samples"]), int(first.scores["examples"]), first.split, first.data.name]
    for row in compared.rows:
        writer.writerow([*row.settings, *_numbers(row), *of_all])
    return file.getvalue()


def _numbers(row: Row) -> list[object]:
    (nll, spread), (loss, loss_sd), alone = row.nll, row.loss, len(row.members) == 1
    seeds = " ".join(str(member.result.seed) for member in row.members)
    errors = ["", spread] if alone else [spread, ""]
    seconds = "" if row.seconds is None else row.seconds
    return [seeds, nll, *errors, loss, "" if loss_sd is None else loss_sd, " ".join(map(str, row.steps)), seconds]
