"""Results beside each other: which replaces which, under which names, and by several processes at once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dvaepp.runs.evaluation
from dvaepp.cli import main
from dvaepp.errors import InputError
from dvaepp.recipes.catalogue import find
from dvaepp.recipes.recipe import override
from dvaepp.runs.archive import chosen, file_away, keep_latest
from dvaepp.runs.records import check_not_a_runs, read_result
from dvaepp.storage import write_json

NAMES = ("nll_at_low_log_z", "nll_at_high_log_z", "elbo", "distortion", "kl", "effective_sample_size")
EFFORT = {
    "model": "best", "samples": 100, "examples": 50, "temperatures": 10, "chains": 8, "repeats": 3, "thorough": True,
}  # fmt: skip


def result(nll: float, *settings: str, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A result of quick/rbm as `evaluate` makes it, but for the changes: of its effort, its data, and all of it."""
    effort = EFFORT | {key: changes.pop(key) for key in EFFORT if key in changes}
    scores = {
        "nll": nll,
        "nll_standard_error": 0.5,
        "log_z": 1.0,
        "log_z_standard_error": 0.1,
        **dict.fromkeys(NAMES, 1.0),
    }
    return {
        "recipe": "quick/rbm",
        "settings": override(find("quick/rbm", "tiny"), settings).model_dump(mode="json"),
        "seed": seed,
        "steps": 100,
        "scores": {**scores, "samples": float(effort["samples"]), "examples": float(effort["examples"])},
        "log_partition": {"method": "exact", "trusted": True},
        "split": "test",
        "evaluation_seed": 0,
        "evaluation": effort,
        "data": {"name": "digits", "protocol": "as it is", "digest": changes.pop("digest", "d")},
        "commands": [],
        **changes,
    }


def before(values: dict[str, Any]) -> dict[str, Any]:
    """The result as it was written before the effort and the data's digest were kept."""
    data = {key: value for key, value in values["data"].items() if key != "digest"}
    return {key: value for key, value in {**values, "data": data}.items() if key != "evaluation"}


OTHERS: dict[str, dict[str, Any]] = {
    "smoothing": result(2.0, "model.smoothing=power"),
    "steps planned": result(2.0, "training.steps=50"),
    "split": result(2.0, split="valid"),
    "data": result(2.0, digest="e"),
    "samples": result(2.0, samples=10),
    "examples": result(2.0, examples=10),
    "log Z": result(2.0, temperatures=5),
    "unchecked log Z": result(2.0, thorough=False),
    "draws": result(2.0, evaluation_seed=1),
    "last model": result(2.0, model="last"),
    "from before": before(result(2.0)),
}
SAME: dict[str, dict[str, Any]] = {
    "again": result(2.0),
    "trained on": result(2.0, steps=200),
    "data elsewhere": result(2.0, "data.name=/elsewhere/digits"),
    "default effort": result(2.0, "evaluation.samples=7"),
    "told otherwise": result(2.0, "about=another sentence"),
}


def nlls(folder: Path) -> dict[str, float]:
    return {path.name: json.loads(path.read_text())["scores"]["nll"] for path in folder.glob("s*.json")}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("swapped", [False, True], ids=["after", "before"])
def test_a_result_of_anything_else_is_never_written_over(other: dict[str, Any], swapped: bool, tmp_path: Path) -> None:
    pair = [result(1.0), other][:: -1 if swapped else 1]
    paths = [file_away(tmp_path, values) for values in pair]
    assert paths[0].name == "seed0.json"
    assert paths[1].name.startswith("seed0-")
    for values, path in zip(pair, paths, strict=True):
        assert json.loads(path.read_text()) == values
    if "evaluation" in other:
        assert [file_away(tmp_path, values) for values in pair] == paths
        assert len(nlls(tmp_path / "quick/rbm")) == 2


@pytest.mark.parametrize("same", SAME.values(), ids=SAME)
def test_the_same_result_takes_its_own_place(same: dict[str, Any], tmp_path: Path) -> None:
    for values in (OTHERS["samples"], result(1.0), same):
        path = file_away(tmp_path, values)
    found = nlls(tmp_path / "quick/rbm")
    assert found == {"seed0.json": 2.0, path.name: 2.0}
    assert path.name != "seed0.json"


def test_what_holds_no_result_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "quick/rbm").mkdir(parents=True)
    (tmp_path / "quick/rbm/seed0.json").write_text("notes")
    assert file_away(tmp_path, result(1.0)).name != "seed0.json"
    assert (tmp_path / "quick/rbm/seed0.json").read_text() == "notes"
    assert file_away(tmp_path, result(1.0, seed=1)).name == "seed1.json"


PROGRAM = """
import json, sys
from pathlib import Path
from dvaepp.runs.archive import file_away
for values in json.loads(sys.argv[2]):
    file_away(Path(sys.argv[1]), values)
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    results = [[result(process + k / 10, evaluation_seed=10 * process + k) for k in range(8)] for process in range(3)]
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    processes = [subprocess.Popen([*command, json.dumps(each)]) for each in results]
    assert [process.wait() for process in processes] == [0, 0, 0]
    found = nlls(tmp_path / "quick/rbm")
    assert sorted(found.values()) == sorted(each["scores"]["nll"] for some in results for each in some)
    assert "seed0.json" in found


def test_a_run_keeps_its_latest_scores_by_split_and_sets_others_aside(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {})
    many, few, valid = result(1.0, samples=4000), result(2.0, samples=10), result(3.0, split="valid")
    for values in (many, valid, few):
        keep_latest(tmp_path, values)
    found = nlls(tmp_path)
    assert (found.pop("scores.json"), found.pop("scores-valid.json")) == (2.0, 3.0)
    (aside,) = found
    assert read_result(tmp_path / aside).scores["samples"] == 4000
    keep_latest(tmp_path, few)
    keep_latest(tmp_path, many)
    keep_latest(tmp_path, few)
    assert len(nlls(tmp_path)) == 4  # of both splits, and many and few set aside


FOREIGN = result(1.0)
FOREIGN["settings"]["model"]["prior"] = {"name": "defined by a module that is not imported"}
UNREADABLE = {
    "half": json.dumps(result(1.0))[:500].encode(),
    "no text": b"\x80\xff",
    "foreign": json.dumps(FOREIGN).encode(),
    "another object": b"{}",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("split", ["test", "valid"])
def test_scores_that_cannot_be_read_are_set_aside(content: bytes, split: str, tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {})
    path = tmp_path / ("scores.json" if split == "test" else "scores-valid.json")
    for there in (content, content, content + b" "):
        path.write_bytes(there)
        assert keep_latest(tmp_path, result(2.0, split=split)) == path
        assert read_result(path).scores["nll"] == 2.0
    aside = list(tmp_path.glob(f"{path.stem}-unreadable-*.json"))
    assert sorted(each.read_bytes() for each in aside) == [content, content + b" "]
    for each in aside:
        with pytest.raises(InputError, match="would be lost: name another file"):
            check_not_a_runs(each)


def test_scores_that_cannot_be_set_aside_end_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "run.json", {})
    (tmp_path / "scores.json").write_text("notes")

    def refuse(*_: Any) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(InputError, match="holds no scores that can be read, and cannot be set aside: not yours"):
        keep_latest(tmp_path, result(1.0))
    assert (tmp_path / "scores.json").read_text() == "notes"


def test_scores_that_have_no_place_are_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", "quick/rbm", *QUICK, "--out", str(run)]) == 0
    (run / "scores-valid.json").mkdir()
    monkeypatch.setattr(dvaepp.runs.evaluation, "score", None)
    assert main(["evaluate", str(run), "--split", "valid"]) == 2
    assert "scores-valid.json: it is a folder" in capsys.readouterr().err


def test_a_result_finds_a_name_whatever_names_are_taken(tmp_path: Path) -> None:
    values = [result(1.0), result(2.0, samples=10)]
    for _ in range(5):
        for each in values:
            path = file_away(tmp_path, each)
            assert read_result(path).scores["nll"] == each["scores"]["nll"]
            path.write_text("notes")
    paths = [file_away(tmp_path, each) for each in values * 2]
    assert paths[:2] == paths[2:]
    assert sum(path.read_text() == "notes" for path in paths[0].parent.iterdir()) == 10


def test_a_table_takes_the_result_on_more_examples_before_that_of_more_samples(tmp_path: Path) -> None:
    for values in (result(1.0, examples=2, samples=6), result(2.0, examples=300, samples=5), result(3.0, samples=99)):
        file_away(tmp_path, values)
    (path,) = chosen(tmp_path / "quick/rbm")
    assert read_result(path).scores["examples"] == 300


def test_a_table_takes_one_result_of_each_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        for values in (
            result(1.0, seed=seed, samples=10),
            result(2.0, seed=seed, samples=4000, split="valid"),
            result(3.0, seed=seed, samples=4000, model="last", steps=120),
            result(4.0, seed=seed, samples=1000),
            result(5.0, seed=seed, samples=1000, evaluation_seed=1),
        ):
            file_away(tmp_path, values)
    found = [read_result(path) for path in chosen(tmp_path / "quick/rbm")]
    assert [(each.seed, each.scores["nll"]) for each in found] == [(0, 4.0), (1, 4.0)]
    assert chosen(tmp_path / "nothing") == []


QUICK = [
    "--size", "tiny", "--steps", "2", "--set", "training.validate_every=2", "--set", "model.hidden=[8]",
    "--set", "model.groups=[5,5]", "--set", "evaluation.examples=10", "--set", "training.validation_examples=10",
]  # fmt: skip


def test_every_evaluation_of_every_run_of_a_recipe_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for smoothing in ("exponential", "power"):
        for seed in ("0", "1"):
            run = str(tmp_path / f"{smoothing}-{seed}")
            settings = ["--set", f"model.smoothing={smoothing}", "--seed", seed, "--out", run]
            assert main(["train", "quick/rbm", *QUICK, *settings]) == 0
            for options in ([], ["--split", "valid"], ["--samples", "3"], []):
                assert main(["evaluate", run, *options, "--results", str(tmp_path / "results")]) == 0
                words = capsys.readouterr().out.split("wrote ")[1]
                said.append(Path(words.splitlines()[0]))
            latest = json.loads((Path(run) / "scores.json").read_text())
            valid = json.loads((Path(run) / "scores-valid.json").read_text())
            assert (latest["split"], valid["split"]) == ("test", "valid")
    files = set((tmp_path / "results/quick/rbm").glob("*.json"))
    assert set(said) == files
    assert len(files) == 2 * 2 * 3
    assert {path.name for path in files} >= {"seed0.json", "seed1.json"}


@pytest.mark.parametrize("file", ["results/quick/rbm/seed0.json", "run/scores-valid.json", "run/scores-0a1b2c3d.json"])
def test_no_other_command_writes_over_scores(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", "quick/rbm", *QUICK, "--out", str(run)]) == 0
    file_away(tmp_path / "results", result(1.0))
    write_json(tmp_path / file, result(1.0))
    assert main(["prior", str(run), "-o", str(tmp_path / file)]) == 2
    assert "would be lost: name another file" in capsys.readouterr().err
    assert read_result(tmp_path / file).scores["nll"] == 1.0
