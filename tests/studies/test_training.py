"""Groups of replicas side by side: what becomes of the others when one breaks, diverges or is stopped."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from dvaepp.errors import InputError, TrainingDivergedError
from dvaepp.recipes.catalogue import find
from dvaepp.recipes.recipe import override
from dvaepp.runs.folder import RunFolder
from dvaepp.studies.training import StoppedError, check_not_diverged, train

STEPS = 3


class Group:
    """In place of `Replicas`: one called broken cannot be made beside others, one called nan diverges."""

    log: ClassVar[list[str]] = []

    def __init__(self, makers: Sequence[Callable[[], Any]], execution: str) -> None:
        self.trainers, self.failures, self.beside = [make() for make in makers], {}, 0
        self.name = "+".join(trainer.folder.name for trainer in self.trainers)
        assert execution == "compiled"

    def begin(self) -> None:
        self.log.append(f"{self.name} begins")
        if "broken+" in self.name:
            raise ValueError("no room")

    def advance(self, report: Any, stop: Callable[[], bool]) -> bool:
        for trainer in list(self.trainers):
            trainer.step += 1
            report(trainer, {"step": trainer.step})
            if trainer.folder.name == "nan":
                self.failures[trainer.folder] = TrainingDivergedError("training became NaN")
                self.trainers.remove(trainer)
        self.log.append(f"{self.name} beside {self.beside}")
        return bool(self.trainers) and not stop() and self.trainers[0].step < STEPS


@pytest.fixture(autouse=True)
def replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvaepp.studies.training.Replicas", Group)
    Group.log = []


class Cell(RunFolder):
    device = torch.device("cpu")
    recipe = override(find("quick/rbm", "tiny"), ["training.compile=true", f"training.steps={STEPS}"])

    def trainer(self, device: str | None = None) -> Any:
        return SimpleNamespace(folder=self.folder, step=0, settings=self.recipe.training)


def runs(folder: Path, *names: str) -> list[RunFolder]:
    for name in names:
        (folder / name).mkdir()
    return [Cell(folder / name) for name in names]


def test_groups_take_turns_and_one_that_breaks_is_tried_run_by_run(tmp_path: Path) -> None:
    failed: dict[str, str] = {}
    steps: list[str] = []
    train(
        [runs(tmp_path, "a", "b"), runs(tmp_path, "broken", "c"), runs(tmp_path, "nan", "d")],
        lambda run, metrics: steps.append(run.folder.name),
        lambda run, why: failed.update({run.folder.name: why}),
        lambda: False,
    )
    assert Group.log[:4] == ["a+b begins", "a+b beside 4", "broken+c begins", "nan+d begins"]
    assert Group.log[-8:] == [
        line for name in ("broken", "c") for line in (f"{name} begins", *[f"{name} beside 0"] * 3)
    ]
    assert {name: steps.count(name) for name in steps} == {"a": 3, "b": 3, "nan": 1, "d": 3, "broken": 3, "c": 3}
    assert failed == {"nan": "training became NaN"}
    with pytest.raises(InputError, match="training became NaN .it is tried again once"):
        check_not_diverged(tmp_path / "nan")
    check_not_diverged(tmp_path / "d")


def test_a_run_that_breaks_by_itself_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Group, "begin", lambda self: 1 / 0)
    failed: list[str] = []
    train([runs(tmp_path, "a", "b")], lambda *_: None, lambda run, why: failed.append(run.folder.name), lambda: False)
    assert failed == ["a", "b"]


def test_what_is_stopped_begins_nothing_and_tells_what_failed_before(tmp_path: Path) -> None:
    failed: list[str] = []
    stops = iter([False, False, True, True])
    with pytest.raises(StoppedError):
        train(
            [runs(tmp_path, "nan"), runs(tmp_path, "a"), runs(tmp_path, "b")],
            lambda *_: None,
            lambda run, why: failed.append(run.folder.name),
            lambda: next(stops),
        )
    assert failed == ["nan"]
    assert Group.log == ["nan begins", "nan beside 2", "a begins", "a beside 1"]
