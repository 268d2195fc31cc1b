"""What the command shows people while it works and when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)

from dvaepp import distributed
from dvaepp.boltzmann.annealing import LEAST_FAMILIES
from dvaepp.data.download import watched
from dvaepp.evaluation.scores import Scores, plus_minus
from dvaepp.runs.folder import RunFolder
from dvaepp.runs.progress import console
from dvaepp.training.journal import Metrics

_COUNTS = ("active_units", "active_local", "samples", "examples")


@contextmanager
def processes(device: str) -> Iterator[None]:
    """Together with the processes that torchrun started, if it did; the first alone speaks."""
    with distributed.processes(device):
        console.quiet = distributed.rank() > 0
        yield


@contextmanager
def tensorboard(run: RunFolder, step: int) -> Iterator[Callable[[Metrics], None]]:
    """A function that adds metrics to the run's TensorBoard log; it does nothing where tensorboard is not installed."""
    if find_spec("tensorboard") is None or distributed.rank() > 0:
        yield lambda metrics: None
        return
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(run.folder / "tensorboard"), purge_step=step)

    def add(metrics: Metrics) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, int(metrics["step"]))

    try:
        yield add
    finally:
        writer.close()


def print_scores(scores: Scores) -> None:
    """Every score on a line, and a warning where log Z is not to be trusted."""
    numbers, log_z = scores.numbers(), scores.log_partition
    low, high = numbers["nll_at_low_log_z"], numbers["nll_at_high_log_z"]
    lines = {
        "NLL, nats": f"{numbers['nll']:.3f}{plus_minus(numbers['nll_standard_error'], numbers['examples'])}",
        "NLL over log Z's interval": f"{low:.3f} .. {high:.3f}",
        "log Z": str(log_z),
        **{f"  {name.replace('_', ' ')}": f"{value:.3f}" for name, value in log_z.diagnosis.items()},
    }
    for name, value in numbers.items():
        if not name.startswith(("nll", "log_z")):
            lines[name.replace("_", " ")] = f"{value:,.0f}" if name.startswith(_COUNTS) else f"{value:.2f}"
    for name, text in lines.items():
        console.print(f"{name:26} {text}")
    if not log_z.trusted:
        advice = f"raise --temperatures, and --chains where they are fewer than {LEAST_FAMILIES} in all"
        console.print(f"log Z is not to be trusted, nor is this NLL: {advice}", style="bold red")


@contextmanager
def downloads() -> Iterator[None]:
    """A bar for every file that is downloaded within the block, on standard error."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    tasks: dict[str, TaskID] = {}
    bars = Progress(*columns, console=Console(stderr=True), transient=True)

    def show(name: str, done: int, total: int | None) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(name, total=total)
            bars.start()
        bars.update(tasks[name], completed=done)
        if bars.finished:
            bars.stop()

    try:
        with watched(show):
            yield
    finally:
        if bars.live.is_started:
            bars.stop()
