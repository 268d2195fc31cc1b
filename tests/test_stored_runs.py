"""Run folders that commit c1f8311 wrote, stopped half-way: they go on and can be evaluated.

`dvaepp train` made them, from the command in each run.json; the numbers are what `dvaepp evaluate RUN --all --samples
20` said there.
"""

import json
import shutil
from pathlib import Path

import pytest

from dvaepp.cli import main
from dvaepp.evaluation.kept import Found, KeptScores
from dvaepp.recipes.recipe import recipe_from
from dvaepp.storage import load_tensors, save_tensors, write_json

STORED = Path(__file__).parent / "stored"
NLL = {"quick-rbm": 218.590, "quick-zephyr": 217.617, "table-3": 206.852}
STEPS = {"quick-rbm": 40, "quick-zephyr": 40, "table-3": 4}


@pytest.fixture(params=NLL)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED / request.param, tmp_path / request.param))


@pytest.mark.parametrize("checkpoint", [(), ("--last",)], ids=["best", "last"])
def test_it_is_evaluated_as_it_was(run: Path, checkpoint: tuple[str, ...]) -> None:
    assert main(["evaluate", str(run), "--all", "--samples", "20", *checkpoint]) == 0
    scores = json.loads((run / "scores.json").read_text())["scores"]
    assert scores["nll"] == pytest.approx(NLL[run.name], abs=1.0)  # other draws: 5 times their standard deviation


def test_it_goes_on(run: Path) -> None:
    assert main(["resume", str(run)]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = STEPS[run.name]
    assert [4 * line["step"] / steps for line in lines] == [1, 2, 2, 3, 4, 4]
    assert main(["evaluate", str(run), "--last"]) == 0
    assert json.loads((run / "scores.json").read_text())["steps"] == steps


def test_what_is_in_it_can_be_taken_out(run: Path, tmp_path: Path) -> None:
    assert main(["prior", str(run), "-o", str(tmp_path / "machine.json")]) == 0
    assert main(["sample", str(run), "-o", str(tmp_path / "samples.png")]) == 0
    assert main(["encode", str(run), "valid", "-o", str(tmp_path / "codes.npz")]) == 0
    assert main(["report", str(run)]) == 0


FORMS = {"run.json": (True, False), "checkpoints": (False, True)}


def in_the_form_of_today(run: Path, record: bool, checkpoints: bool) -> None:
    """Write the recipe anew where it stands."""
    if record:
        values = json.loads((run / "run.json").read_text())
        write_json(run / "run.json", values | {"recipe": recipe_from(values["recipe"], "").model_dump(mode="json")})
    for path in run.glob("*.safetensors") if checkpoints else ():
        tensors, about = load_tensors(path)
        about["recipe"] = recipe_from(about["recipe"], "").model_dump(mode="json")
        save_tensors(path, tensors, about)


@pytest.mark.parametrize("written_anew", FORMS.values(), ids=FORMS)
def test_a_recipe_is_the_same_in_whatever_form(run: Path, written_anew: tuple[bool, bool]) -> None:
    in_the_form_of_today(run, *written_anew)
    assert main(["evaluate", str(run), "--all", "--samples", "20"]) == 0
    assert main(["report", str(run)]) == 0
    assert main(["resume", str(run)]) == 0
    assert main(["evaluate", str(run), "--last"]) == 0
    assert json.loads((run / "scores.json").read_text())["steps"] == STEPS[run.name]


@pytest.mark.parametrize("written_anew", FORMS.values(), ids=FORMS)
def test_another_recipe_is_refused_in_whatever_form(
    run: Path, written_anew: tuple[bool, bool], capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_form_of_today(run, *written_anew)
    values = json.loads((run / "run.json").read_text())
    values["recipe"]["training"]["l2"] = 0.125
    write_json(run / "run.json", values)
    for command in ("resume", "evaluate"):
        assert main([command, str(run)]) == 2
        assert "was trained with another recipe than the run has now" in capsys.readouterr().err


def test_a_stopped_evaluation_goes_on_whatever_the_form(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    load = KeptScores.load

    def watched(kept: KeptScores) -> Found:
        found.append((kept.path, kept.about))
        return load(kept)

    monkeypatch.setattr(KeptScores, "load", watched)
    assert main(["evaluate", str(run), "--samples", "1"]) == 0
    in_the_form_of_today(run, record=True, checkpoints=False)
    assert main(["evaluate", str(run), "--samples", "1"]) == 0
    assert found[0] == found[1]
