"""The runs that ship with the package: small, whole, as good as their scores say, found by name, and only read."""

import json
import re
from pathlib import Path

import pytest
import yaml

import dvaepp
from dvaepp.cli import main
from dvaepp.errors import InputError
from dvaepp.runs.located import PRETRAINED, located, shipped

NAMES = ("digits-dvaepp", "digits-rbm")
FILES = {"run.json", "best.safetensors", "metrics.jsonl", "scores.json", "README.md", "samples.png"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_there_are_two_and_they_are_small() -> None:
    assert shipped() == NAMES
    assert all(set(contents(PRETRAINED / name)) == FILES for name in NAMES)
    assert sum(path.stat().st_size for path in PRETRAINED.rglob("*") if path.is_file()) < 3_000_000


@pytest.mark.parametrize("name", NAMES)
def test_it_samples_and_scores_as_it_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = dvaepp.load_run(name)
    assert run.sample(3).shape == (3, 28, 28)
    known = json.loads((PRETRAINED / name / "scores.json").read_text())
    found = run.score(run.data.test[:50].float(), samples=100).numbers()
    error = (found["nll_standard_error"] ** 2 + known["scores"]["nll_standard_error"] ** 2) ** 0.5
    assert abs(found["nll"] - known["scores"]["nll"]) < 5 * error
    assert known["steps"] == run.step
    assert known["log_partition"]["trusted"]
    assert known["scores"]["examples"] == 500


@pytest.mark.parametrize("name", NAMES)
def test_its_card_says_what_it_is_of_whose_data_and_how_it_was_made(name: str) -> None:
    files = contents(PRETRAINED / name)
    card, record = files["README.md"].decode(), json.loads(files["run.json"])
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "dvaepp"
    assert f'dvaepp.load_run("{name}")' in card
    assert record["command"] in card
    assert f"--out {name}" in record["command"]
    assert "CC BY-SA 3.0" in card
    assert set(re.findall(r"\]\((.+?)\)", card)) <= FILES
    assert not re.search(rb"/(home|work|root|tmp)/", files["run.json"] + files["scores.json"] + files["README.md"])
    assert not re.search(rb"/(home|work|root|tmp)/", files["best.safetensors"][:10_000])


def test_the_command_takes_its_name_and_writes_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(PRETRAINED / "digits-rbm")
    assert main(["sample", "digits-rbm", "-o", "x.png", "--rows", "1"]) == 0
    assert Path("x.png").exists()
    few = ["--examples", "5", "--samples", "2", "--quick", "--temperatures", "20"]
    assert main(["evaluate", "digits-rbm", *few, "--results", "results"]) == 0
    assert list(Path("results").rglob("seed0.json"))
    assert "the scores are not kept there" in capsys.readouterr().out.replace("\n", " ")
    for command in ("report", "explore"):
        assert main([command, "digits-rbm"]) == 2
        told = capsys.readouterr().err
        assert re.fullmatch(r"dvaepp: .*digits-rbm is only read: name another place with -o, or .*\n", told)
    assert main(["resume", "digits-rbm", "--steps", "9000"]) == 2
    told = capsys.readouterr().err
    assert re.fullmatch(r"dvaepp: .* is only read, and does not go on: `dvaepp train \S+ --from digits-rbm` .*\n", told)
    assert main(["report", "digits-rbm", "-o", "x.html"]) == 0
    assert contents(PRETRAINED / "digits-rbm") == before


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start = ["train", "quick/rbm", "--size", "tiny", "--steps", "2", "--set", "model.hidden=[4]", "--out", "digits-rbm"]
    assert main([*start, "--from", "digits-dvaepp"]) == 2  # nothing of a convolutional model fits
    assert main(start) == 0
    assert located("digits-rbm") == Path("digits-rbm")
    assert dvaepp.load_run("digits-rbm").step == 2
    assert main(["report", "digits-rbm"]) == 0


def test_an_unknown_name_is_told_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = "digits-rmb does not exist, and the runs that ship with dvaepp are digits-dvaepp and digits-rbm"
    with pytest.raises(InputError, match=f"{known}; did you mean 'digits-rbm'"):
        dvaepp.load_run("digits-rmb")
    assert main(["sample", "Digits-RBM", "-o", "x.png"]) == 2


def test_a_folder_without_a_run_hides_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "digits-rbm", "-o", "digits-rbm/x.png", "--rows", "1"]) == 0
    assert located("digits-rbm") == PRETRAINED / "digits-rbm"
    with pytest.raises(InputError, match=r"hf:/user/name is no run on the Hub, expected the text hf://user/name or"):
        located(Path("hf://user/name"))
    assert main(["train", "quick/rbm", "--size", "tiny", "--out", "hf://user/name"]) == 2


def test_nothing_is_written_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inside, before = PRETRAINED / "digits-rbm", contents(PRETRAINED / "digits-rbm")
    assert main(["sample", "digits-rbm", "-o", str(inside / "x.png")]) == 2
    assert main(["export", "digits-rbm", "-o", str(inside / "x.onnx")]) == 2
    assert main(["evaluate", "digits-rbm", "--examples", "5", "--quick", "--results", str(inside)]) == 2
    assert contents(inside) == before
