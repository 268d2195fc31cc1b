"""The command `table`: results beside the paper's, and whether they hold."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from pathlib import Path

from dvaepp.cli.run_folder import check_folder
from dvaepp.errors import InputError
from dvaepp.runs import results
from dvaepp.runs.checking import runs_under, verdict
from dvaepp.runs.progress import console, progress
from dvaepp.runs.records import check_not_a_runs
from dvaepp.storage import write_text


def table(arguments: Namespace) -> None:
    """The table of results, or with --check a line for each on what its model gives when it is scored again."""
    if arguments.check is not None:
        check(arguments)
        return
    if arguments.device is not None:
        raise InputError("--device goes with --check RUNS")
    text = results.table(Path(arguments.results), arguments.name)
    if arguments.output:
        check_not_a_runs(Path(arguments.output))
        write_text(Path(arguments.output), text)
    else:
        print(text, end="")


def check(arguments: Namespace) -> None:
    """Score the models of a table's results again; InputError unless all hold."""
    if arguments.output:
        raise InputError("--check writes no table: leave out -o")
    check_folder("--check", arguments.check)
    found, runs = results.results_of(Path(arguments.results), arguments.name), runs_under(Path(arguments.check))
    verdicts = []
    for path, result in found.items():
        with progress() as advance:
            verdicts.append(verdict(result, path, runs, arguments.device, advance))
        console.print(f"{path}: {verdicts[-1].why}")
    counts = Counter(each.holds for each in verdicts)
    if counts[True] < len(verdicts):
        told = f"{counts[True]} hold, {counts[False]} do not, and {counts[None]} could not be scored again"
        raise InputError(f"of {len(verdicts)} results of table {arguments.name} {told}")
