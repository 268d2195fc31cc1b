"""How a training or an evaluation goes, on a terminal or in a notebook."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dvaepp.evaluation.scores import plus_minus
from dvaepp.training.journal import Metrics
from dvaepp.training.trainer import Trainer

console = Console(highlight=False, markup=False, soft_wrap=True)


def show_metrics(trainer: Trainer, metrics: Metrics, advance: Any) -> None:
    """Move the bar; where there is no terminal, print a line for each validation."""
    if "valid_nll" in metrics:
        error = plus_minus(metrics["valid_nll_standard_error"], metrics["valid_examples"])
        nll, kl = metrics["valid_nll"], metrics["valid_kl"]
        console.print(f"step {metrics['step']:.0f}: validation NLL {nll:.2f}{error}, kl {kl:.2f} nats")
    else:
        loss, weight, kl = (metrics[name] for name in ("loss", "kl_weight", "kl"))
        text = f"loss {loss:.1f}, kl {weight:.2f} x {kl:.1f}"
        advance(int(metrics["step"]), trainer.settings.steps, text)


@contextmanager
def progress(total: int | None = None, start: int = 0, shown: bool = True) -> Iterator[Any]:
    """A bar with speed and time left, within 80 columns; yields advance(done, total, text)."""
    texts = (TextColumn("{task.fields[speed]}"), TimeRemainingColumn(compact=True), TextColumn("{task.fields[text]}"))
    columns = (BarColumn(12), MofNCompleteColumn(), *texts)
    with Progress(
        *columns, console=console, disable=not (shown and (sys.stdout.isatty() or console.is_jupyter))
    ) as bar:
        task = bar.add_task("", total=total, completed=start, speed="", text="")

        def advance(done: int, total: int, text: str = "") -> None:
            rate = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(task, completed=done, total=total, text=text, speed=f"{rate:.1f}/s" if rate else "")

        yield advance
