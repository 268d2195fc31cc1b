"""The commands `study`, which carries out a grid of runs, and `compare`, which puts results beside each other."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from dvaepp.cli.grid import grid
from dvaepp.cli.run_folder import check_folder
from dvaepp.errors import InputError, RunsFailedError
from dvaepp.report.subject import duration
from dvaepp.runs.progress import console
from dvaepp.runs.records import check_not_a_runs
from dvaepp.storage import read_json, write_text
from dvaepp.studies import comparison, grammar
from dvaepp.studies.folder import RECORD
from dvaepp.studies.plan import Outcome, Plan, planned, stop_after
from dvaepp.studies.plot import plot
from dvaepp.studies.study import Study, matching, read_study, study_from
from dvaepp.studies.tables import caption, cells, comma_separated, markdown

_GRID = ("size", "steps", "data", "seeds")


def study(arguments: Namespace) -> None:
    """Run what is missing of a grid, and show what came of it."""
    check_folder("--data-dir", arguments.data_dir)
    seconds = None if arguments.budget is None else grammar.budget(arguments.budget)
    shard = (1, 1) if arguments.shard is None else grammar.shard(arguments.shard)
    asked, folder = _asked(arguments)
    which = {"cells": arguments.cells, "shard": shard, "replicas": arguments.replicas}
    plan = planned(asked, folder, **which, command=arguments.command_line)
    with _stopping(seconds) as stopping:
        _announce(plan, arguments.jobs, stopping)
        with grid(plan) as tell:
            outcome = plan.carry_out(arguments.jobs, tell, stopping)
        _conclude(plan, outcome, arguments)
        if stopping.interrupted:
            raise KeyboardInterrupt


def _asked(arguments: Namespace) -> tuple[Study, Path]:
    """The study that the arguments are about, and its folder."""
    name: str = arguments.recipe
    how = {n: getattr(arguments, n) for n in ("device", "threads", "data_dir") if getattr(arguments, n) is not None}
    if "data_dir" in how:
        how["data_dir"] = str(Path(how["data_dir"]).resolve())
    values = read_json(Path(name), "a recipe or a study in JSON") if name.endswith(".json") else None
    if isinstance(values, dict) and "recipes" in values:
        if given := [f"--{option}" for option in (*_GRID, "set") if getattr(arguments, option)]:
            raise InputError(f"{name} is a study, which has its own settings: leave out {' and '.join(given)}")
        own = Path(name).parent if Path(name).name == RECORD else Path("studies") / Path(name).stem
        return read_study(Path(name)).model_copy(update=how), Path(arguments.out or own)
    if values is None:
        matching(name)
    elif arguments.size:
        raise InputError(f"--size chooses among named recipes; {name} has its own settings")
    asked = {n: getattr(arguments, n) for n in _GRID if getattr(arguments, n)} | how
    asked |= {"recipes": [name], "set": grammar.axes(arguments.set), "seeds": grammar.seeds(arguments.seeds or "5")}
    size = f"-{arguments.size or 'small'}" if values is None else ""
    default = (Path(name).stem if values is not None else name.replace("/", "_").replace("*", "all")) + size
    return study_from(asked, "the study is not possible"), Path(arguments.out or Path("studies") / default)


class _Stopping:
    """Whether work is to stop: its time is over, or somebody asked for it."""

    def __init__(self, seconds: float | None) -> None:
        self.over, self.interrupted = stop_after(seconds), False

    def __call__(self) -> bool:
        return self.interrupted or self.over()

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        console.print("stopping as soon as what runs is saved; interrupt again to stop at once")


@contextmanager
def _stopping(seconds: float | None) -> Iterator[_Stopping]:
    """Ctrl-C and SIGTERM ask to stop cleanly within the block; a second one stops at once."""
    stopping = _Stopping(seconds)
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, stopping.on_signal)
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(plan: Plan, jobs: int, stopping: _Stopping) -> None:
    """What there is to do, and how long it takes."""
    missing, every = plan.missing(), len(plan.points)
    console.print(f"{_counted(every, 'run')} in {plan.folder}, {every - len(missing)} of them finished")
    if not missing or stopping():
        return
    time = duration(plan.seconds_left(jobs))
    many = f" in {jobs} processes" if jobs > 1 else ""
    steps = f"{plan.steps_left():,} training steps"
    compiled = any(point.recipe.training.compile for point in missing)
    about = f"at most {time}{many}, less as compiled" if compiled else f"about {time}{many}"
    console.print(f"{_counted(len(missing), 'run')} to do: {steps}, {about}; evaluations come on top")


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _conclude(plan: Plan, outcome: Outcome, arguments: Namespace) -> None:
    """The table so far, what is left, and what failed."""
    members = comparison.of_study(plan.folder, arguments.cells)
    for alike in comparison.apart(members):
        _show(comparison.comparison(alike, "training.steps" in plan.study.varied, plan.study.varied))
    folder = shlex.quote(str(plan.folder))
    for name in plan.tables if members else ():
        shown = name.removeprefix("table-")
        console.print(f"beside what was published: dvaepp table {shown} --results {folder}/results")
    if members:
        console.print(f"as a file: dvaepp compare {folder} -o table.md (.csv, .png, .svg)")
    if outcome.left:
        console.print(f"{_counted(len(outcome.left), 'run')} left; to go on: {arguments.command_line}")
    if outcome.failed:
        each = "; ".join(f"{place}: {why}" for place, why in outcome.failed.items())
        raise RunsFailedError(f"{len(outcome.failed)} of {_counted(len(plan.points), 'run')} failed: {each}")


def compare(arguments: Namespace) -> None:
    """Results beside each other."""
    path = None if arguments.output is None else Path(arguments.output)
    if path is not None and path.suffix not in (".md", ".csv", ".png", ".svg"):
        raise InputError(f"{path} must end in .md, .csv, .png or .svg")
    compared = comparison.compare(arguments.paths, arguments.steps_may_differ)
    if path is None:
        _show(compared)
        return
    check_not_a_runs(path)
    if path.suffix in (".md", ".csv"):
        write_text(path, markdown(compared) if path.suffix == ".md" else comma_separated(compared))
    else:
        plot(compared, path)
    console.print(f"wrote {path}")


def _show(compared: comparison.Comparison) -> None:
    """The table as text: Markdown where there is no terminal, which is wide enough for it."""
    if not sys.stdout.isatty():
        print(markdown(compared))
        return
    heads, lines = cells(compared)
    table = RichTable(box=box.SIMPLE_HEAD, title=Text(caption(compared)), title_style="dim", title_justify="left")
    for k, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if k < len(compared.settings) else "right", overflow="fold")
    best = min(range(len(lines)), key=lambda k: compared.rows[k].nll[0])
    for k, line in enumerate(lines):
        table.add_row(*map(Text, line), style="bold" if k == best else "")
    console.print(table)
