"""Training on: for longer than was said, from another run's weights, and after an interruption."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dvaepp import load_run
from dvaepp.cli import main
from dvaepp.runs.bundle import bundle
from dvaepp.runs.folder import RunFolder
from dvaepp.storage import load_tensors
from dvaepp.training.trainer import Trainer

BITS = (np.random.RandomState(6).random_sample((60, 8)) < 0.4).astype(np.uint8)
SMALL = ("--size", "tiny", "--set", "model.groups=[5,4]", "--set", "model.hidden=[8]")


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def fail(*arguments: object) -> str:
        assert main(list(map(str, arguments))) == 2
        return capsys.readouterr().err

    return fail


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", BITS)
    assert main(["train", "quick/rbm", "--data", "x.npy", *SMALL, "--steps", "20", "--out", "first"]) == 0
    return tmp_path


def weights(run: str) -> dict[str, torch.Tensor]:
    return load_tensors(Path(run) / "checkpoint.safetensors")[0]


def test_a_finished_run_goes_on_to_more_steps(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["resume", "first", "--steps", "40"]) == 0
    assert "goes on after step 20 of 40: learning rate 0.003" in capsys.readouterr().out
    run = RunFolder("first")
    assert run.recipe.training.steps == 40
    steps = [line["step"] for line in run.metrics()]
    assert steps == sorted(steps)
    assert steps[-1] == 40
    assert load_run("first").step in steps
    assert run.model(last=True).step == 40
    assert main(["evaluate", "first", "--last", "--samples", "2"]) == 0
    scores = json.loads(Path("first/scores.json").read_text())
    assert scores["steps"] == 40
    trained, resumed, evaluated = scores["commands"]
    assert trained.startswith("dvaepp train")
    assert resumed == "dvaepp resume first --steps 40  # after 20 steps"
    assert evaluated.startswith("dvaepp evaluate")
    card = bundle(run, "hf://user/name")["README.md"]
    assert isinstance(card, bytes)
    assert f"    {trained}\n    {resumed}\n    {evaluated}\n" in card.decode()


def test_scores_from_before_it_went_on_are_repeated_before_it(project: Path) -> None:
    """Or the page would train twice, and the second time be refused."""
    assert main(["evaluate", "first", "--samples", "2"]) == 0
    run = RunFolder("first")
    run.extend(40)
    run.keep()
    scores = json.loads(Path("first/scores.json").read_text())
    assert [line.split()[1] for line in run.record.repeating(scores["commands"])] == ["train", "evaluate", "resume"]


def test_a_damaged_checkpoint_is_told_before_anything_is_scored(
    project: Path, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Path("first/checkpoint.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    monkeypatch.setattr("dvaepp.runs.evaluation.score", lambda *_, **__: pytest.fail("it scores"))
    assert "checkpoint.safetensors is not a whole dvaepp checkpoint" in fails("evaluate", "first", "--samples", 2)


def test_going_on_after_an_interruption_is_bit_for_bit_with_more_steps_too(project: Path) -> None:
    def stop_at_50(metrics: dict[str, float]) -> None:
        if metrics["step"] == 50:
            raise RuntimeError("stopped")

    (project / "second").mkdir()
    for name in ("run.json", "checkpoint.safetensors", "best.safetensors", "metrics.jsonl"):
        (project / "second" / name).write_bytes((project / "first" / name).read_bytes())
    for name in ("first", "second"):
        for _ in range(2):
            run = RunFolder(name)
            run.extend(60)
            run.keep()
        assert [line.count("--steps 60") for line in run.record.commands] == [0, 1]
    RunFolder("first").trainer().fit()
    with pytest.raises(RuntimeError, match="stopped"):
        RunFolder("second").trainer().fit(stop_at_50)
    assert 20 < RunFolder("second").trainer().step < 60
    RunFolder("second").trainer().fit()
    first, second = weights("first"), weights("second")
    assert all(torch.equal(first[name], second[name]) for name in first.keys() | second.keys())


def test_fewer_steps_than_were_taken_are_refused(project: Path, fails: Callable[..., str]) -> None:
    before = Path("first/run.json").read_bytes()
    assert "--steps is 20, and first has taken 20 steps: expected more" in fails("resume", "first", "--steps", 20)
    assert Path("first/run.json").read_bytes() == before


def test_a_resumption_that_fails_changes_nothing(project: Path, fails: Callable[..., str]) -> None:
    before = Path("first/run.json").read_bytes()
    Path("x.npy").rename("elsewhere.npy")
    assert "does not exist: --data says where it lies now" in fails("resume", "first", "--steps", 40)
    assert Path("first/run.json").read_bytes() == before


def test_training_begins_with_what_fits_of_another_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    wider = [*SMALL[:2], "--set", "model.groups=[5,6]", "--set", "model.hidden=[8]"]
    command = ["train", "quick/rbm", "--data", "x.npy", *wider, "--steps", "20", "--from", "first", "--out", "second"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "begins with" in said
    assert "new: " in said
    assert "encoder.levels.1" in said.split("new: ")[1]
    assert "encoder.levels.0" not in said.split("new: ")[1].splitlines()[0]
    start = RunFolder("second").record.start
    assert start == str(project / "first")
    # the first checkpoint holds the weights that were taken
    run = RunFolder.plan(
        RunFolder("second").recipe,
        Path("third"),
        seed=0,
        device="cpu",
        threads=1,
        data_dir=None,
        command="",
        start="first",
    )
    trainer, best = run.trainer(), load_tensors(Path("first/best.safetensors"))[0]
    assert run.taken is not None
    for name in run.taken.weights:
        assert torch.equal(trainer.model.state_dict()[name], best[f"model.{name}"]), name
    assert any(name.startswith("encoder.levels.0") for name in run.taken.weights)


def test_what_of_another_run_has_no_place_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shallow = [*SMALL[:2], "--set", "model.hidden=[]"]
    command = ["train", "quick/rbm", "--data", "x.npy", *shallow, "--steps", "20", "--from", "first", "--out", "second"]
    assert main(command) == 0
    said = " ".join(capsys.readouterr().out.split())
    kept, own = (load_tensors(Path(f"{name}/best.safetensors"))[0] for name in ("first", "second"))
    alone = {name.removeprefix("model.") for name in kept if name.startswith("model.") and name not in own}
    assert alone
    told = said.split("not taken: ")[1]
    assert any(told.startswith(name) for name in alone)
    assert (f" and {len(alone) - 6} more" in told) == (len(alone) > 6)


def test_a_start_that_does_not_fit_leaves_nothing(project: Path, fails: Callable[..., str]) -> None:
    np.save("wide.npy", np.tile(BITS, 2))
    command = ["train", "quick/directed", "--data", "wide.npy", "--size", "tiny", "--out", "second", "--from"]
    assert "nowhere does not exist, and the runs that ship with dvaepp are" in fails(*command, "nowhere")
    assert "best.safetensors/run.json does not exist; expected the record of a run" in fails(
        *command, "first/best.safetensors"
    )
    Path("first/run.json").write_text("{}")
    assert "first/run.json is not the record of a run" in fails(*command, "first")
    assert not Path("second").exists()


def test_an_interruption_names_the_command_that_goes_on(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(trainer: Trainer, report: object) -> None:
        trainer.begin()
        raise KeyboardInterrupt

    monkeypatch.setattr("dvaepp.training.replicas.fit", interrupted)
    assert main(["train", "quick/rbm", "--data", "x.npy", *SMALL, "--out", "a run"]) == 130
    assert "stopped: dvaepp resume 'a run' goes on from step 0" in capsys.readouterr().out
