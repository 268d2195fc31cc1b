"""Runs whose files lie elsewhere than when they were made: what finds them, and what says that they are the run's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dvaepp.cli import main
from dvaepp.errors import InputError
from dvaepp.recipes.recipe import Recipe
from dvaepp.runs.folder import RunFolder
from dvaepp.storage import load_tensors, save_tensors

QUICK = [
    "quick/rbm", "--size", "tiny", "--steps", "4", "--set", "training.validate_every=2", "--set", "model.hidden=[8]",
    "--set", "model.groups=[5,5]", "--set", "evaluation.examples=10", "--set", "training.validation_examples=10",
]  # fmt: skip
NEEDING_DATA = [["resume"], ["evaluate"], ["encode", "test", "-o", "codes.npz"], ["report"]]
NEEDING_A_GRAPH = [
    *NEEDING_DATA,
    ["sample", "-o", "s.npz"],
    ["decode", "codes.npz", "-o", "d.npz"],
    ["prior", "-o", "m.json"],
]


def write_data(path: Path, seed: int = 0) -> None:
    np.save(path, np.random.RandomState(seed).randint(0, 2, (40, 7)))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, a graph, a run of both, and a run of nothing else."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    write_data(folder / "data/x.npy")
    (folder / "data/ring.csv").write_text("".join(f"n{k},n{(k + 1) % 10}\n" for k in range(10)))
    monkeypatch.chdir(folder)
    graph = ["--set", "model.prior=graph", "--set", "model.graph=data/ring.csv"]
    assert main(["train", *QUICK, *graph, "--data", "data/x.npy", "--out", "runs/own"]) == 0
    assert main(["encode", "runs/own", "test", "-o", "codes.npz"]) == 0
    return folder


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        return error

    return run


@pytest.fixture
def moved(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The whole project under another name, in another folder."""
    target = tmp_path / "elsewhere/renamed"
    target.parent.mkdir()
    monkeypatch.chdir(tmp_path)
    project.rename(target)
    monkeypatch.chdir(target)
    return target


@pytest.mark.parametrize("command", NEEDING_A_GRAPH, ids=lambda command: command[0])
def test_what_was_moved_together_is_found(moved: Path, command: list[str]) -> None:
    before = (moved / "runs/own/run.json").read_bytes()
    assert main([command[0], "runs/own", *command[1:]]) == 0
    assert (moved / "runs/own/run.json").read_bytes() == before


@pytest.mark.parametrize("command", NEEDING_DATA, ids=lambda command: command[0])
def test_data_that_were_moved_are_told(project: Path, command: list[str], fails: Callable[..., str]) -> None:
    there = project.parent / "shelf/y.npy"
    there.parent.mkdir()
    (project / "data/x.npy").rename(there)
    words = [command[0], "runs/own", *command[1:]]
    if command == ["report"]:  # it is written all the same, and says so
        assert main(words) == 0
        assert "--data says where it lies now" in Path("runs/own/report.html").read_text()
    else:
        error = fails(*words)
        assert f"{project}/data/x.npy, which holds the data of runs/own, does not exist: --data says" in error
    assert main([*words, "--data", str(there)]) == 0
    if command == ["report"]:
        assert "--data says" not in Path("runs/own/report.html").read_text()


@pytest.mark.parametrize("command", NEEDING_DATA[:-1], ids=lambda command: command[0])
def test_other_data_are_refused_whatever_they_are_called(
    project: Path, command: list[str], fails: Callable[..., str]
) -> None:
    write_data(project / "data/other.npy", 1)
    words = [command[0], "runs/own", *command[1:]]
    if command[0] != "evaluate":  # which scores other data too
        refused = "data/other.npy is not the data that runs/own was trained on"
        assert refused in fails(*words, "--data", "data/other.npy")
    assert "nowhere.npy, which holds the data of runs/own, does not exist" in fails(*words, "--data", "nowhere.npy")
    assert "--data-dir nowhere is not a folder" in fails(*words, "--data-dir", "nowhere")
    (project / "data/other.npy").rename(project / "data/x.npy")
    assert "x.npy is no longer the data that runs/own was trained on; --data says where those lie" in fails(*words)


@pytest.mark.parametrize("command", NEEDING_A_GRAPH, ids=lambda command: command[0])
def test_a_graph_that_was_moved_is_told(project: Path, command: list[str], fails: Callable[..., str]) -> None:
    Path("data/ring.csv").rename(project / "edges.csv")
    words = [command[0], "runs/own", *command[1:]]
    if command != ["report"]:
        assert "ring.csv, which holds the graph of runs/own, does not exist: --graph says" in fails(*words)
        (project / "line.csv").write_text("".join(f"n{k},n{k + 1}\n" for k in range(9)))
        assert "does not fit the recipe" in fails(*words, "--graph", "line.csv")
    assert main([*words, "--graph", "edges.csv"]) == 0


def test_data_are_checked_before_there_is_a_checkpoint(project: Path, fails: Callable[..., str]) -> None:
    (project / "runs/fresh").mkdir()
    shutil.copy("runs/own/run.json", "runs/fresh/run.json")
    write_data(project / "data/x.npy", 1)
    assert "is no longer the data that runs/fresh was trained on" in fails("resume", "runs/fresh")


def test_a_record_from_before_is_read(project: Path) -> None:
    path = Path("runs/own/run.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in record.items() if key not in ("folder", "data")}))
    for command in NEEDING_DATA:
        assert main([command[0], "runs/own", *command[1:]]) == 0


def test_a_prior_without_a_file_of_edges_takes_none(project: Path, fails: Callable[..., str]) -> None:
    assert main(["train", *QUICK, "--out", "runs/digits"]) == 0
    assert "the prior of runs/digits has none" in fails("sample", "runs/digits", "-o", "s.npz", "--graph", "e.csv")


@pytest.mark.parametrize("name", ["data_at", "data_dir", "graph"])
def test_where_something_lies_is_not_nowhere(project: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must say where something lies, and is empty"):
        RunFolder("runs/own", **{name: ""})


def test_a_data_set_whose_module_is_not_imported_is_told(project: Path, fails: Callable[..., str]) -> None:
    assert main(["train", *QUICK, "--out", "runs/bars"]) == 0
    path = Path("runs/bars/run.json")
    path.write_text(path.read_text().replace('"digits"', '"bars"'))
    for name in ("checkpoint", "best"):
        file = Path(f"runs/bars/{name}.safetensors")
        tensors, about = load_tensors(file)
        about["recipe"]["data"]["name"] = "bars"
        save_tensors(file, tensors, about)
    hint = "or DVAEPP_IMPORT names the module that defines a data set of that name"
    for command in NEEDING_DATA[:-1]:
        error = fails(command[0], "runs/bars", *command[1:])
        assert (
            f"bars, which holds the data of runs/bars, does not exist: --data says where it lies now, {hint}" in error
        )
    assert main(["evaluate", "runs/bars", "--data", "digits"]) == 0
    assert "DVAEPP_IMPORT" not in fails("evaluate", "runs/own", "--data", "data/none")


def test_a_home_folder_is_spelled_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project))
    assert main(["train", *QUICK, "--data", "~/data/x.npy", "--out", "runs/home"]) == 0
    assert RunFolder(Path("runs/home")).recipe.data.name == str(project / "data/x.npy")


def test_train_reads_its_data_and_builds_its_model_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def count(name: str) -> None:
        real = getattr(Recipe, name)

        def counted(*arguments: Any) -> Any:
            done.append(name)
            return real(*arguments)

        monkeypatch.setattr(Recipe, name, counted)

    count("load_data")
    count("build")
    assert main(["train", *QUICK, "--data", "data/x.npy", "--out", "runs/once"]) == 0
    assert done == ["load_data", "build"]
