"""`dvaepp gradients` as a user types it."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from dvaepp.cli import main

SMALL = ["--set", "model.groups=[6]", "--set", "model.hidden=[8]"]
FEW = ["--draws", "20", "--examples", "3", "--only", "reinmax", "joint*beta=8", "disarm"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gradients") / "run"
    quick = ["--size", "tiny", "--steps", "4", "--set", "training.validate_every=2", *SMALL]
    assert main(["train", "quick/directed", *quick, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command, which must end with exit code 2 and one line; the line."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main(["gradients", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("dvaepp: ")
        assert error.count("\n") == 1, error
        return error

    return run


def test_a_recipe_and_a_run_are_measured_and_written(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / name for name in ("g.md", "g.csv", "g.png", "g.svg")]
    outputs = [text for path in files for text in ("-o", str(path))]
    capsys.readouterr()
    assert main(["gradients", "--checkpoint", str(trained), *FEW, "nvil, fitted", *outputs]) == 0
    shown = capsys.readouterr()
    assert shown.out == files[0].read_text()
    assert "quick/directed on digits, step" in shown.out
    assert "3 training examples, 20 draws, seed 0" in shown.out
    assert "methods, 20 draws for 3 examples: about " in shown.err
    assert all(path.stat().st_size > 500 for path in files)
    with files[1].open() as file:
        labels = [line["method"] for line in csv.DictReader(file)]
    disarm = ["disarm", "disarm, sampled KL"]
    assert labels == [*disarm, "nvil, fitted", "reinmax temperature=1", "joint, exponential beta=8"]
    assert main(["gradients", "quick/directed", "--size", "tiny", *SMALL, *FEW]) == 0
    fresh = capsys.readouterr().out
    assert "quick/directed on digits before training" in fresh
    assert main(["gradients", "quick/directed", "--size", "tiny", *SMALL, "--checkpoint", str(trained), *FEW]) == 0
    same, first = numbers(capsys.readouterr().out), numbers(shown.out)
    assert same == [line for line in first if "nvil, fitted" not in line[0]]
    assert same != numbers(fresh)


def numbers(table: str) -> list[list[str]]:
    """The cells of a table but for times."""
    lines = [line.split(" | ") for line in table.split("\n") if line.startswith("|")]
    return [[cell for k, cell in enumerate(line) if k != 7] for line in lines]


def test_an_estimator_of_the_users_own_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], forgotten: None
) -> None:
    (tmp_path / "own_estimator.py").write_text(
        "from dataclasses import dataclass\n"
        "from dvaepp.estimators import PlainEstimator\n"
        "@dataclass(frozen=True)\n"
        "class Nothing(PlainEstimator):\n"
        "    name, unbiased, draws, uniforms = 'nothing', True, 1, 1\n"
        "    def value(self, f, logits, uniform):\n"
        "        return f(self.sample(logits, uniform)[0])\n"
    )
    from dvaepp.components.registry import _import_file

    _import_file(tmp_path / "own_estimator.py")
    arguments = ["quick/directed", *SMALL, "--examples", "3", "--draws", "300", "--only", "nothing"]
    assert main(["gradients", *arguments]) == 0
    assert "| nothing |" in capsys.readouterr().out


def test_what_cannot_be_is_refused_before_any_work(trained: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    assert "neither is named" in fails()
    assert "this model has 2" in fails("quick/rbm", "--size", "tiny")
    assert "this ConvolutionalVAE" in fails("table-3/mnist-static/rbm-normal", "--size", "tiny", "--data", "digits")
    assert "must end in .md, .csv, .png or .svg" in fails("--checkpoint", trained, "-o", tmp_path / "t.txt")
    assert "go with a recipe" in fails("--checkpoint", trained, "--size", "tiny")
    assert "model.groups is [7] and there [6]" in fails(
        "quick/directed", *SMALL, "--set", "model.groups=[7]", "--checkpoint", trained
    )
    assert "--checkpoint names" in fails("quick/directed", "--last")
    assert "--data-dir nowhere is not a folder" in fails("quick/directed", "--data-dir", "nowhere")
    assert "did you mean 'reinmax'" in fails("--checkpoint", trained, "--only", "reinmx")
    assert "training examples" in fails("--checkpoint", trained, "--examples", 10**6)
    assert "is this a run folder" in fails("--checkpoint", tmp_path)
    with pytest.raises(SystemExit):
        main(["gradients", "quick/directed", "--draws", "9"])
