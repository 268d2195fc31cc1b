"""`dvaepp table --check`: a result holds where its model gives it again, and a file that was changed does not."""

import json
import shutil
from collections.abc import Callable
from functools import partial
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


@pytest.mark.parametrize(("name", "by"), [("nll", 0.01), ("elbo", -0.01), ("active_units_1", 2), ("made up", 3.0)])
def test_a_number_that_was_changed_is_found(
    made: Path, tmp_path: Path, fails: Callable[..., tuple[str, str]], name: str, by: float
) -> None:
    def change(values: dict[str, Any]) -> None:
        values["scores"][name] = values["scores"].get(name, 0.0) + by

    results = changed(made, tmp_path / "results", change)
    said, error = fails("table", "quick", "--results", results, "--check", made / "runs")
    assert f"{name} " in said
    assert "scored again" in said
    assert "of 1 results of table quick 0 hold, 1 do not, and 0 could not be scored again" in error


@pytest.mark.parametrize("name", ["seed", "steps", "data"])
def test_a_result_of_another_run_has_none_at_hand(
    made: Path, tmp_path: Path, fails: Callable[..., tuple[str, str]], name: str
) -> None:
    def change(values: dict[str, Any]) -> None:
        if name == "data":
            values["data"]["digest"] = "0"
        else:
            values[name] += 1

    results = changed(made, tmp_path / "results", change)
    said, error = fails("table", "quick", "--results", results, "--check", made / "runs")
    assert "no run of this result is there" in said
    assert "0 hold, 0 do not, and 1 could not be scored again" in error


def test_other_draws_are_judged_by_the_standard_error(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Callable[..., tuple[str, str]]
) -> None:
    """A result that does not say how its draws were split may be of others."""

    def change(values: dict[str, Any], by: float) -> None:
        values["made"] = None
        values["scores"]["nll"] += by * values["scores"]["nll_standard_error"]

    near = changed(made, tmp_path / "near", partial(change, by=0.9))
    assert main(["table", "quick", "--results", str(near), "--check", str(made / "runs")]) == 0
    assert "holds within its standard error" in capsys.readouterr().out
    far = changed(made, tmp_path / "far", partial(change, by=1.1))
    assert "differs" in fails("table", "quick", "--results", far, "--check", made / "runs")[0]


def test_pieces_of_the_evaluation_are_those_of_the_result(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(made / "runs/directed", tmp_path / "runs/a")
    options = ["--samples", "50", "--megabytes", "1", "--results", str(tmp_path / "results")]
    assert main(["evaluate", str(run), *options]) == 0
    assert main(["table", "quick", "--results", str(tmp_path / "results"), "--check", str(tmp_path / "runs")]) == 0
    assert "holds, NLL" in capsys.readouterr().out


def test_scores_so_far_and_damaged_runs_beside_take_no_part(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made / "runs/directed", tmp_path / "runs/b")
    for name, text in (("0old", None), ("1bad", "{")):  # of the same recipe without a model; no record at all
        (tmp_path / "runs" / name).mkdir()
        record = (made / "runs/directed/run.json").read_text() if text is None else text
        (tmp_path / "runs" / name / "run.json").write_text(record)
    monkeypatch.setattr("dvaepp.runs.evaluation.KeptScores", None)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["table", "quick", "--results", str(made / "results"), "--check", str(tmp_path / "runs")]) == 0
    assert "holds, NLL" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_what_cannot_be_checked_is_refused(made: Path, tmp_path: Path, fails: Callable[..., tuple[str, str]]) -> None:
    results = made / "results"
    assert "holds no run folders" in fails("table", "quick", "--results", results, "--check", tmp_path)[1]
    assert "--device goes with --check" in fails("table", "quick", "--results", results, "--device", "cpu")[1]
    both = fails("table", "quick", "--results", results, "--check", made / "runs", "-o", tmp_path / "table.md")
    assert "leave out -o" in both[1]

    def older(values: dict[str, Any]) -> None:
        values["evaluation"] = None

    old = changed(made, tmp_path / "old", older)
    assert "does not say how it was scored" in fails("table", "quick", "--results", old, "--check", made / "runs")[0]

    def huge(values: dict[str, Any]) -> None:
        values["evaluation"]["chains"] = 10**13
        values["commands"] = []

    vast = changed(made, tmp_path / "vast", huge)
    assert (
        "cannot be scored so again: chains" in fails("table", "quick", "--results", vast, "--check", made / "runs")[0]
    )
    nowhere = fails("table", "quick", "--results", results, "--check", "nowhere")[1]
    assert "--check nowhere is not a folder" in nowhere
