"""`dvaepp table --check`: a result holds where its model gives it again, and a file that was changed does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dvaepp.cli import main
from dvaepp.storage import write_json


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a table's recipe, and its result."""
    home = tmp_path_factory.mktemp("check")
    run, results = home / "runs" / "directed", home / "results"
    options = ["--size", "tiny", "--steps", "4", "--set", "training.validate_every=2"]
    assert main(["train", "quick/directed", *options, "--out", str(run)]) == 0
    assert main(["evaluate", str(run), "--results", str(results)]) == 0
    return home


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Run a command that must end with exit code 2 and one line of errors; what it said, and the line."""

    def run(*arguments: object) -> tuple[str, str]:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        said = capsys.readouterr()
        assert said.err.startswith("dvaepp: ")
        assert said.err.count("\n") == 1
        return said.out, said.err

    return run


def changed(made: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Results with one file, changed."""
    (path,) = made.glob("results/quick/*/seed0.json")
    values = json.loads(path.read_text())
    change(values)
    target = folder / path.relative_to(made / "results")
    target.parent.mkdir(parents=True)
    write_json(target, values)
    return folder


def test_a_result_holds_and_nothing_of_the_run_is_replaced(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    assert main(["table", "quick", "--results", str(made / "results"), "--check", str(made / "runs")]) == 0
    assert "seed0.json: holds, NLL " in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["nll", "elbo", "active_units_1"])
def test_a_number_that_was_changed_is_found(
    made: Path, tmp_path: Path, fails: Callable[..., tuple[str, str]], name: str
) -> None:
    def change(values: dict[str, Any]) -> None:
        values["scores"][name] += 0.5

    results = changed(made, tmp_path / "results", change)
    said, error = fails("table", "quick", "--results", results, "--check", made / "runs")
    assert f"{name} " in said
    assert "scored again" in said
    assert "1 of 1 results do not hold" in error


@pytest.mark.parametrize("name", ["seed", "steps"])
def test_a_result_of_another_run_has_none_at_hand(
    made: Path, tmp_path: Path, fails: Callable[..., tuple[str, str]], name: str
) -> None:
    def change(values: dict[str, Any]) -> None:
        values[name] += 1

    results = changed(made, tmp_path / "results", change)
    said, error = fails("table", "quick", "--results", results, "--check", made / "runs")
    assert "no run of this result" in said
    assert "no result of table quick has its run under" in error


def test_what_cannot_be_checked_is_refused(made: Path, tmp_path: Path, fails: Callable[..., tuple[str, str]]) -> None:
    results = made / "results"
    assert "holds no run folders" in fails("table", "quick", "--results", results, "--check", tmp_path)[1]
    assert "--device goes with --check" in fails("table", "quick", "--results", results, "--device", "cpu")[1]
    both = fails("table", "quick", "--results", results, "--check", made / "runs", "-o", tmp_path / "table.md")
    assert "leave out -o" in both[1]

    def older(values: dict[str, Any]) -> None:
        values["evaluation"] = None

    old = changed(made, tmp_path / "old", older)
    assert "does not say how it was scored" in fails("table", "quick", "--results", old, "--check", made / "runs")[1]
