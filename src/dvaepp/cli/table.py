"""The command `table`: results beside the paper's, and whether they hold."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch

from dvaepp.cli.console import console, processes, progress
from dvaepp.errors import InputError
from dvaepp.runs import results
from dvaepp.runs.checking import differences, run_of, runs_under
from dvaepp.runs.evaluation import again
from dvaepp.runs.records import Result
from dvaepp.runs.run import Run, check_not_a_runs
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
    """Score the models of a table's results again; InputError where a number does not hold, or no run is at hand."""
    if arguments.output:
        raise InputError("--check writes no table: leave out -o")
    found, runs = results.results_of(Path(arguments.results), arguments.name), runs_under(Path(arguments.check))
    checked, wrong = 0, 0
    for path, result in found.items():
        run = run_of(result, runs, str(path))
        if run is None:
            console.print(f"{path}: no run of this result under {arguments.check}")
            continue
        off = _scored_again(run, result, arguments.device)
        checked, wrong = checked + 1, wrong + bool(off)
        told = ", ".join(f"{name} {there:.6g}, scored again {here:.6g}" for name, (there, here) in off.items())
        holds = f"holds, NLL {result.scores['nll']:.2f}"
        console.print(f"{path}: {told or holds}")
    if not checked:
        raise InputError(f"no result of table {arguments.name} has its run under {arguments.check}")
    if wrong:
        raise InputError(f"{wrong} of {checked} results do not hold: they differ from what their models give")


def _scored_again(run: Run, result: Result, device: str | None) -> dict[str, tuple[float, float]]:
    torch.set_num_threads(run.record.threads)
    with processes(device or run.record.device), progress() as advance:
        return differences(result, again(run, result, device=device, progress=advance))
