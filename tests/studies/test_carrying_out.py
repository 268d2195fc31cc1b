"""A study as it is carried out: what is finished is not repeated, whatever happens, and the table is right."""

import csv
import io
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dvaepp.cli import main
from dvaepp.recipes.catalogue import find
from dvaepp.runs.folder import RunFolder
from dvaepp.storage import load_tensors, locked
from dvaepp.studies import Plan, Study, planned, read_study, run_study
from dvaepp.studies.comparison import comparison, of_study
from dvaepp.studies.tables import comma_separated
from dvaepp.studies.work import Event
from dvaepp.training.execution import executed
from dvaepp.training.stacked import Given, Stack

STEPS = 40
SMALL = [
    "study", "quick/rbm", "--size", "tiny", "--seeds", "2", "--steps", str(STEPS),
    "--set", "model.smoothing=exponential,logistic", "--set", "model.hidden=[8]", "--set", "model.groups=[5,5]",
    "--set", "training.log_every=5", "--set", "training.validate_every=20", "--set", "evaluation.examples=20",
]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "a study"
    assert main([*SMALL, "--out", str(folder)]) == 0
    return folder


def study_of(folder: Path) -> Study:
    return read_study(folder / "study.json")


def table(folder: Path) -> list[dict[str, str]]:
    """The study's table without the time that it took."""
    rows = csv.DictReader(io.StringIO(comma_separated(comparison(of_study(folder)))))
    return [{name: text for name, text in row.items() if name != "seconds"} for row in rows]


def touched(folder: Path) -> dict[str, int]:
    """When each file was written, but for those that come and go."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".tmp")
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths}


def finished(folder: Path) -> dict[str, int]:
    """When the files of each finished run were written."""
    if not (folder / "study.json").exists():
        return {}
    done = [f"runs/{point.place}/" for point in study_of(folder).points() if point.is_finished(folder)]
    return {name: when for name, when in touched(folder).items() if name.startswith(tuple(done))} if done else {}


def assert_same_runs(folder: Path, other: Path) -> None:
    """Every run has the weights, optimiser and random state of the other's, bit for bit, and the lines of metrics."""
    for point in study_of(other).points():
        tensors, expected = (load_tensors(point.folder(each) / "checkpoint.safetensors")[0] for each in (folder, other))
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in expected), point.place
        lines, known = (RunFolder(point.folder(each)).metrics() for each in (folder, other))
        assert [line | {"seconds": 0} for line in lines] == [line | {"seconds": 0} for line in known]
        assert json.loads(point.result(folder)[0].model_dump_json())["scores"] == point.result(other)[0].scores
    assert table(folder) == table(other)


def test_a_study_ends_in_its_table(undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = touched(undisturbed)
    assert main(["study", str(undisturbed / "study.json")]) == 0
    assert main([*SMALL, "--out", str(undisturbed)]) == 0
    assert touched(undisturbed) == before  # nothing is repeated, nor even written again
    printed = capsys.readouterr().out
    assert printed.count("4 runs in") == printed.count("4 of them finished") == 2
    for name in ("exponential", "logistic"):
        runs = [undisturbed / f"runs/quick/rbm/smoothing={name}/seed{seed}" for seed in (0, 1)]
        scores = [json.loads((run / "scores.json").read_text())["scores"] for run in runs]
        nlls, bounds = np.array([s["nll"] for s in scores]), np.array([-s["elbo"] for s in scores])
        nll, bound = (f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" for values in (nlls, bounds))
        assert printed.count(f"| {name} | {nll} | 2 | {bound} | {STEPS} |") == 2
    results = [json.loads(path.read_text()) for path in (undisturbed / "results/quick/rbm").glob("*.json")]
    assert sorted((r["settings"]["model"]["smoothing"]["name"], r["seed"]) for r in results) == [
        (name, seed) for name in ("exponential", "logistic") for seed in (0, 1)
    ]


def begun(arguments: list[str]) -> subprocess.Popen[str]:
    """The command in a process of its own, once its first run is at work."""
    command = [sys.executable, "-m", "dvaepp", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "begins" in line or "goes on" in line:
            break
    return process


def test_the_commands_that_a_result_names_make_it_again(undisturbed: Path, tmp_path: Path) -> None:
    point = study_of(undisturbed).points()[0]
    result, _ = point.result(undisturbed) or pytest.fail("no result")
    for command in result.commands:
        name, *arguments = shlex.split(command.replace(str(undisturbed), str(tmp_path / "a study")))
        assert name == "dvaepp"
        assert main(arguments) == 0
    again, _ = point.result(tmp_path / "a study") or pytest.fail("no result")
    assert again.scores == result.scores
    assert point.is_filed(tmp_path / "a study")


@pytest.mark.parametrize(
    ("jobs", "signals"), [(1, [signal.SIGKILL, signal.SIGINT, signal.SIGKILL]), (2, [signal.SIGKILL])]
)
def test_stopped_at_any_moment_it_goes_on_and_repeats_nothing(
    undisturbed: Path, tmp_path: Path, jobs: int, signals: list[signal.Signals]
) -> None:
    folder, moments = tmp_path / "stopped", random.Random(jobs)
    arguments = [*SMALL, "--out", str(folder), "--jobs", str(jobs)]
    for number in signals:
        before = finished(folder)
        process = begun(arguments)
        time.sleep(moments.uniform(0.0, 0.7))
        process.send_signal(number)
        printed, error = process.communicate()
        assert_kept(folder, before)
        if number == signal.SIGINT:
            assert (process.returncode, error) == (130, "dvaepp: interrupted\n")
            assert "left; to go on: dvaepp study quick/rbm" in printed
    wait_for_orphans(folder)
    before = finished(folder)
    assert main([*SMALL, "--out", str(folder)]) == 0
    assert_kept(folder, before)
    assert_same_runs(folder, undisturbed)


def assert_kept(folder: Path, before: dict[str, int]) -> None:
    """What was finished before has not been written again."""
    now = touched(folder)
    assert {name: now[name] for name in before} == before


def wait_for_orphans(folder: Path) -> None:
    """Workers whose first process was killed stop by themselves."""
    for path in (folder / "runs").glob("*/*/*/seed*"):
        for _ in range(100):
            try:
                with locked(path):
                    break
            except ValueError:
                time.sleep(0.1)
        else:
            raise AssertionError(f"{path} is still at work")


@pytest.mark.parametrize("lines", [1, 4, 5, 8])
def test_what_runs_stops_at_a_line_of_metrics_and_loses_nothing(undisturbed: Path, tmp_path: Path, lines: int) -> None:
    plan, seen = planned(study_of(undisturbed), tmp_path / "stopped"), []

    def tell(event: Event) -> None:
        seen.extend([event] if event.what == "step" else [])

    outcome = plan.carry_out(tell=tell, stop=lambda: len(seen) >= lines)
    assert len(outcome.left) == 4
    assert not outcome.failed
    (point,) = [point for point in plan.points if point.step(plan.folder)]
    assert point.step(plan.folder) == seen[-1].step
    metrics = RunFolder(point.folder(plan.folder)).metrics()
    assert len(metrics) - lines in (0, 1)  # where a line comes before a validation, it ends with that
    again = Plan(plan.study, plan.task, (point,)).carry_out()
    assert again.finished == (point,)
    expected = load_tensors(point.folder(undisturbed) / "checkpoint.safetensors")[0]
    found = load_tensors(point.folder(plan.folder) / "checkpoint.safetensors")[0]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_when_the_budget_is_over_nothing_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*SMALL, "--out", str(tmp_path / "s"), "--budget", "1e-9"]
    assert main(arguments) == 0
    assert "4 runs left; to go on: dvaepp study" in capsys.readouterr().out
    assert not (tmp_path / "s/runs").exists()


def test_shards_in_one_folder_merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, names in (("2/2", ["logistic"]), ("1/2", ["exponential", "logistic"])):
        assert main([*SMALL, "--seeds", "1", "--out", str(tmp_path / "s"), "--shard", part]) == 0
        printed = capsys.readouterr().out
        assert [name for name in ("exponential", "logistic") if f"| {name} |" in printed] == names


def test_a_run_that_another_process_holds_comes_last(undisturbed: Path, tmp_path: Path) -> None:
    plan, told = planned(study_of(undisturbed), tmp_path / "s", shard=(1, 2)), []
    held = plan.points[0].folder(plan.folder)
    held.mkdir(parents=True)
    holding, free = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(held):
            holding.set()
            free.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert holding.wait(60)

    def tell(event: Event) -> None:
        told.append((event.what, event.place))
        if event.what == "waiting":
            assert [what for what, _ in told].count("finished") == 1
            free.set()

    outcome = plan.carry_out(tell=tell)
    holder.join()
    assert len(outcome.finished) == 2
    assert told[-1] == ("finished", plan.points[0].place)


def test_what_diverges_is_named_and_stops_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rates = ["--set", "training.learning_rate=[[1.0,1e30]],[[1.0,1e-3]]", "--seeds", "1", "--out", str(tmp_path / "s")]
    arguments = [*SMALL[:8], *SMALL[10:], *rates]
    place = "learning_rate=1.0-1e+30"
    for again in (False, True):
        assert main(arguments) == 1
        printed = capsys.readouterr()
        assert printed.err.startswith("dvaepp: 1 of 2 runs failed: quick/rbm/learning_rate=1.0-1e+30")
        assert "training became NaN or infinite at step" in printed.err
        assert ("tried again once" in printed.err) == again
        assert "| 1 |" in printed.out
    (note,) = (tmp_path / "s").rglob("diverged.txt")
    assert place in str(note)


def test_a_worker_that_is_killed_is_taken_over(undisturbed: Path, tmp_path: Path) -> None:
    plan, killed = planned(study_of(undisturbed), tmp_path / "s"), []

    def tell(event: Event) -> None:
        if event.what == "begun" and not killed:
            killed.append(event.place)
            found = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True, check=True)
            os.kill(int(found.stdout.split()[0]), signal.SIGKILL)

    outcome = plan.carry_out(jobs=2, tell=tell)
    assert len(outcome.finished) == 4
    assert not outcome.failed
    assert_same_runs(tmp_path / "s", undisturbed)


def test_results_that_are_gone_are_filed_again(undisturbed: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(undisturbed, tmp_path / "copy"))
    shutil.rmtree(copy / "results")
    run_study(study_of(copy), copy)
    assert len(list((copy / "results/quick/rbm").glob("*.json"))) == 4


def test_a_changed_cell_of_a_table_stands_apart(tmp_path: Path) -> None:
    """`dvaepp table` refuses results that bear a cell's name and are of other settings."""
    made = Study(
        recipes=["table-2/mnist-static/linear-1/joint"],
        size="tiny",
        steps=2,
        data="digits",
        seeds=1,
        set={"model.groups": [[5], [6]]},
    )
    assert len(run_study(made, tmp_path / "s").finished) == 2
    paths = sorted(path.relative_to(tmp_path / "s/results") for path in (tmp_path / "s/results").rglob("*.json"))
    cell = "table-2/mnist-static/linear-1/joint/seed0.json"
    assert [str(path) for path in paths] == [f"groups=5/{cell}", f"groups=6/{cell}"]
    assert len(comparison(of_study(tmp_path / "s")).rows) == 2


def test_a_study_of_a_table_names_the_command_that_shows_it(tmp_path: Path) -> None:
    cell, changed = {"recipes": ["table-2/*/linear-1/*"], "size": "tiny", "seeds": 1}, {"model.smoothing.beta": [3]}
    assert planned(Study(**cell), tmp_path / "s").tables == ["table-2"]
    assert planned(Study(**cell, set=changed), tmp_path / "s").tables == []
    assert planned(Study(recipes=["quick"]), tmp_path / "s").tables == []


def test_a_recipe_and_a_study_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = find("quick/directed", "tiny").model_copy(update={"name": "mine", "about": "mine"})
    Path("mine.json").write_text(recipe.model_dump_json())
    Path("ours.json").write_text(
        json.dumps({"recipes": ["mine.json"], "seeds": 1, "steps": 2, "set": {"training.l2": [0, 1]}})
    )
    assert main(["study", "mine.json", "--steps", "2", "--seeds", "1"]) == 0
    assert main(["study", "ours.json"]) == 0
    runs = {str(path.parent) for path in Path("studies").rglob("scores.json")}
    assert runs == {
        f"studies/{where}/seed0" for where in ("mine/runs/mine", "ours/runs/mine/l2=0", "ours/runs/mine/l2=1")
    }
    Path("mine.json").unlink()
    capsys.readouterr()
    assert main(["study", "studies/ours/study.json"]) == 0  # which holds the recipe
    assert "2 of them finished" in capsys.readouterr().out


def test_a_run_that_cannot_go_on_stops_no_other(undisturbed: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(undisturbed, tmp_path / "copy"))
    one, two, three, _ = (point.folder(copy) for point in study_of(copy).points())
    for folder in (one, two, three):
        (folder / "scores.json").unlink()
    (one / "checkpoint.safetensors").write_bytes(b"half")
    record = json.loads((two / "run.json").read_text())
    (two / "run.json").write_text(json.dumps({**record, "seed": 7}))
    outcome = run_study(study_of(copy), copy)
    assert len(outcome.finished) == 2
    why = "\n".join(outcome.failed.values())
    assert "checkpoint.safetensors is not a whole dvaepp checkpoint" in why
    assert "holds a run of another recipe or seed" in why
    assert all(f"(once {folder} is removed it is run anew)" in why for folder in (one, two))
    assert (one / "checkpoint.safetensors").read_bytes() == b"half"


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must end with exit code 2 and one line; the line."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("dvaepp: ")
        assert error.count("\n") == 1, error
        return error

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quick/rmb"], "no recipe, table or file is named 'quick/rmb'; did you mean 'quick/rbm'"),
        (["nothing.json"], "nothing.json does not exist; expected a recipe or a study in JSON"),
        (["quick", "--cells", "x"], "--cells 'x' matches none"),
        (["quick/rbm", "--set", "model.smoothing=exponential,x"], "quick/rbm with model.smoothing=x is not possible"),
        (["quick/rbm", "--set", "training.l2=0,0"], "training.l2 takes values that differ"),
        (["quick/rbm", "--seeds", "0"], "--seeds takes"),
        (["quick/rbm", "--shard", "3/2"], "--shard takes"),
        (["quick/rbm", "--shard", "6/6"], "--shard 6/6 has nothing to do"),
        (["quick/rbm", "--budget", "x"], "--budget takes"),
        (["quick/rbm", "--data", "nothing.npy"], "'nothing.npy' is not a name or an existing path"),
        (["quick/rbm", "--data-dir", "nowhere"], "--data-dir nowhere is not a folder"),
        (["quick/rbm", "--device", "gpu"], "device 'gpu' is not one of"),
        (["quick/rbm", "--replicas", "2"], "replicas=2 is for feed-forward models whose recipe says training.compile"),
    ],
)
def test_bad_input_writes_nothing(
    fails: Callable[..., str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert message in fails("study", *arguments, "--out", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_study_of_more_threads_than_there_are(fails: Callable[..., str], tmp_path: Path) -> None:
    asked = {"recipes": ["quick/rbm"], "size": "tiny", "seeds": [0], "threads": 1024}
    (tmp_path / "study.json").write_text(json.dumps(asked))
    assert "threads=1024 is more than this machine has" in fails("study", tmp_path / "study.json")


def test_a_study_file_has_its_own_settings(fails: Callable[..., str], undisturbed: Path) -> None:
    for option in (["--seeds", "3"], ["--steps", "3"], ["--size", "tiny"], ["--set", "a=1"], ["--data", "digits"]):
        assert f"leave out {option[0]}" in fails("study", undisturbed / "study.json", *option)
    assert "holds another study (steps: 40, not the recipe's)" in fails(
        "study", "quick/rbm", "--size", "tiny", "--out", undisturbed
    )


@pytest.mark.parametrize("jobs", ["0", "x", "1.5", "99999"])
def test_jobs_that_are_none(jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["study", "quick/rbm", "--jobs", jobs])
    assert "expected a number of processes" in capsys.readouterr().err


def test_replicas_of_a_cell_are_trained_at_once_each_as_if_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def uncompiled(stack: Stack, given: Given, execution: str, most: int) -> Callable[[Given], torch.Tensor]:
        assert execution == "compiled"
        taken.append(given.x.shape[1])
        return executed(stack, given, "eager")

    monkeypatch.setattr("dvaepp.training.replicas.executed", uncompiled)
    settings = {"model.hidden": [[8]], "model.groups": [[5, 5]], "training.l2": [0, 0.01], "training.log_every": [10]}
    asked = Study(recipes=["quick/directed"], size="tiny", seeds=2, set={**settings, "training.compile": [True]})
    stops = iter([False] * 3 + [True])
    planned(asked, tmp_path / "together", replicas=3).carry_out(stop=lambda: next(stops, True))
    assert not any(point.is_finished(tmp_path / "together") for point in asked.points())
    outcome = planned(asked, tmp_path / "together", replicas=3).carry_out()
    assert (len(outcome.finished), outcome.failed, outcome.left) == (4, {}, ())
    assert set(taken) == {3, 1}
    for point in asked.points():
        alone = RunFolder.create(
            point.recipe, tmp_path / "alone" / point.place, seed=point.seed, device="cpu", threads=1, data_dir=None,
            command="",
        )  # fmt: skip
        trainer = alone.trainer()
        trainer.fit()
        tensors, expected = (
            load_tensors(folder / "checkpoint.safetensors")[0]
            for folder in (point.folder(tmp_path / "together"), alone.folder)
        )
        assert tensors.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(tensors[name], tensor, rtol=2e-3, atol=2e-4)
