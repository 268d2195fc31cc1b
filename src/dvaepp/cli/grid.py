"""How a study goes, shown over its grid of runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from dvaepp.runs.progress import console
from dvaepp.studies.estimate import steps_left
from dvaepp.studies.plan import Plan
from dvaepp.studies.work import Event


class _Grid:
    """A bar for all steps, and one for each run that is at work; a line for each that has ended."""

    def __init__(self, plan: Plan, bars: Progress) -> None:
        self._bars, self._steps = bars, {point.place: point.steps for point in plan.points}
        missing = plan.missing()
        left = {point.place: steps_left(plan.folder, point) for point in missing}
        self._reached = {place: steps - left.get(place, 0) for place, steps in self._steps.items()}
        self._ended = {*self._steps} - {point.place for point in missing}
        self._total = bars.add_task("", total=sum(self._steps.values()), completed=sum(self._reached.values()), text="")
        self._runs: dict[str, TaskID] = {}
        self._texts: dict[str, str] = {}
        self._update()

    def tell(self, event: Event) -> None:
        place = event.place
        if event.what == "waiting" or place in self._ended:
            if place not in self._ended and place not in self._runs:
                console.print(f"{place}: another process is at it; it is looked at again")
            return
        if event.step:
            self._reached[place] = event.step
        if event.what in ("finished", "failed"):
            self._end(event)
        elif place not in self._runs:
            self._runs[place] = self._bars.add_task(place, total=self._steps[place], text="")
            console.print(f"{place}: {f'goes on after step {event.step:,}' if event.step else 'begins'}")
        if place in self._runs:
            self._texts[place] = event.text or self._texts.get(place, "")
            self._bars.update(self._runs[place], completed=self._reached[place], text=self._texts[place])
        self._update()

    def _end(self, event: Event) -> None:
        self._ended.add(event.place)
        if event.place in self._runs:
            self._bars.remove_task(self._runs.pop(event.place))
        said = f"failed: {event.text}" if event.what == "failed" else event.text or "finished by another process"
        console.print(f"{event.place}: {said} ({len(self._ended)} of {len(self._steps)})")

    def _update(self) -> None:
        runs = f"{len(self._ended)} of {len(self._steps)} runs"
        self._bars.update(self._total, completed=sum(self._reached.values()), description=runs)


@contextmanager
def grid(plan: Plan) -> Iterator[Callable[[Event], None]]:
    """Bars over the grid of a plan, or without a terminal a line for each run's beginning and end; yields `tell`."""
    names = TextColumn("{task.description}", markup=False)
    said = TextColumn("{task.fields[text]}", markup=False)
    columns = (names, BarColumn(12), MofNCompleteColumn(), TimeRemainingColumn(compact=True), said)
    with Progress(*columns, console=console, disable=not sys.stdout.isatty()) as bars:
        yield _Grid(plan, bars).tell
