"""A study carried out by this process, or by several that it starts, which share but the folder and its locks."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dvaepp.studies.point import Point
from dvaepp.studies.study import Study, study_from
from dvaepp.studies.training import Stop
from dvaepp.studies.work import Event, Task, Tell, work

_WORKER = "from dvaepp.studies.workers import main; main()"


def carry_out(study: Study, points: Sequence[Point], task: Task, jobs: int, tell: Tell, stop: Stop) -> None:
    """Train and evaluate what is missing of a study's points, in so many processes; `tell` is told how it goes.

    Once `stop` says so nothing new starts, and what runs is saved and stops. Workers that have lost this process stop
    in the same way.
    """
    task = replace(task, processes=jobs)
    if jobs == 1:
        work(task, points, tell, stop)
        return
    job = {"study": study.model_dump(mode="json"), "places": [point.place for point in points]}
    job["task"] = {**asdict(task), "folder": str(task.folder)}
    workers = [_Worker(json.dumps(job)) for _ in range(jobs)]
    try:
        _follow(workers, tell, stop)
    except BaseException:
        for worker in workers:
            worker.process.kill()
        raise
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process that works on a study, and what it tells; it stops when its standard input ends."""

    def __init__(self, job: str) -> None:
        command = [sys.executable, "-c", _WORKER]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.at: str | None = None
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        with suppress(BrokenPipeError):
            self._input.write(job + "\n")
            self._input.flush()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    @property
    def _input(self) -> Any:
        return self.process.stdin

    def _read(self) -> None:
        for line in self.process.stdout or ():
            try:
                self.events.put(Event(**json.loads(line)))
            except (ValueError, TypeError):  # what a component of the user's prints
                sys.stderr.write(line)

    def tell(self, tell: Tell) -> None:
        """Pass on what it has told."""
        while not self.events.empty():
            event = self.events.get()
            self.at = event.place if event.what in ("begun", "step", "evaluating") else None
            tell(event)

    def stop(self) -> None:
        with suppress(OSError, ValueError):
            self._input.close()

    def end(self) -> None:
        self.stop()
        self.process.wait()
        self.reader.join()
        if self.process.stdout:
            self.process.stdout.close()


def _follow(workers: Sequence[_Worker], tell: Tell, stop: Stop) -> None:
    """Pass on what the workers tell until all have ended; whose worker was killed has failed."""
    while any(worker.reader.is_alive() for worker in workers):
        if stop():
            for worker in workers:
                worker.stop()
        for worker in workers:
            worker.reader.join(0.1 / len(workers))
            worker.tell(tell)
    for worker in workers:
        worker.tell(tell)
        if (code := worker.process.wait()) and worker.at is not None:
            tell(Event("failed", worker.at, 0, f"its process ended with code {code}"))


def main() -> None:
    """What a worker does: the job on the first line of standard input, until that ends."""
    job = json.loads(sys.stdin.readline())
    stopped = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the first process decides
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    threading.Thread(target=_wait_for_the_end, args=(stopped,), daemon=True).start()

    def tell(event: Event) -> None:
        try:
            os.write(1, (json.dumps(asdict(event)) + "\n").encode())
        except OSError:
            stopped.set()

    study, places = study_from(job["study"], "the study"), {*job["places"]}
    task = replace(Task(**job["task"]), folder=Path(job["task"]["folder"]))
    work(task, [point for point in study.points() if point.place in places], tell, stopped.is_set)


def _wait_for_the_end(stopped: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    stopped.set()
