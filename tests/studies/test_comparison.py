"""Results beside each other: what stands in which row, what is refused, and the forms that a table has."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dvaepp.cli import main
from dvaepp.errors import InputError
from dvaepp.recipes.catalogue import find
from dvaepp.recipes.recipe import override
from dvaepp.storage import write_json
from dvaepp.studies import compare
from dvaepp.studies.plot import plot
from dvaepp.studies.tables import caption, cells, comma_separated, markdown

NAMES = ("nll_at_low_log_z", "nll_at_high_log_z", "distortion", "kl", "effective_sample_size")
EFFORT = {"model": "best", "samples": 100, "examples": 50, "temperatures": 10, "chains": 8, "repeats": 3}


def kept(path: Path, nll: float, *settings: str, recipe: str = "quick/rbm", seed: int = 0, **changes: Any) -> Path:
    """A file of a result as `evaluate` writes it, but for the changes: of its effort, its data, and all of it."""
    effort = EFFORT | {key: changes.pop(key) for key in EFFORT if key in changes} | {"thorough": True}
    scores = dict.fromkeys(NAMES, 1.0) | {"nll": nll, "elbo": -nll - 2, "nll_standard_error": 0.5}
    scores |= {"log_z": 1.0, "log_z_standard_error": 0.1}
    result = {
        "recipe": recipe,
        "settings": override(find(recipe, "tiny"), settings).model_dump(mode="json"),
        "seed": seed,
        "steps": 20,
        "scores": scores | {"samples": float(effort["samples"]), "examples": float(effort["examples"])},
        "log_partition": {"method": "exact", "trusted": True},
        "split": "test",
        "evaluation_seed": 0,
        "evaluation": effort,
        "data": {"name": "digits", "protocol": "as it is", "digest": changes.pop("digest", "d")},
        "commands": [],
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    return path


def test_rows_are_settings_that_differ_over_their_seeds(tmp_path: Path) -> None:
    nlls = {"exponential": [100.0, 103.5, 101.0], "logistic": [99.0]}
    for name, values in nlls.items():
        for seed, nll in enumerate(values):
            kept(tmp_path / name / f"seed{seed}.json", nll, f"model.smoothing={name}", seed=seed)
    found = compare([tmp_path])
    assert found.settings == ("model.smoothing",)
    assert [row.settings for row in found.rows] == [("exponential",), ("logistic",)]
    assert found.rows[0].nll == (
        pytest.approx(np.mean(nlls["exponential"])),
        pytest.approx(np.std([100, 103.5, 101], ddof=1)),
    )
    assert found.rows[1].nll == (99.0, 0.5)  # of one seed, the standard error over examples
    assert found.rows[0].loss[0] == pytest.approx(np.mean(nlls["exponential"]) + 2)
    heads, lines = cells(found)
    assert heads == ["model.smoothing", "NLL, nats", "seeds", "−ELBO, nats", "steps", "time"]
    assert lines[0] == ["exponential", "101.50 ± 1.80", "3", "103.50 ± 1.80", "40", "–"]
    assert lines[1] == ["logistic", "99.00 ± 0.50", "1", "101.00", "40", "–"]
    assert "of one seed the standard error over examples" in caption(found)


def test_a_row_with_a_log_z_that_is_not_trusted_says_so(tmp_path: Path) -> None:
    doubtful = {"log_partition": {"method": "annealed", "trusted": False}}
    kept(tmp_path / "a/seed0.json", 100.0, "model.smoothing=exponential")
    kept(tmp_path / "b/seed0.json", 99.0, "model.smoothing=logistic")
    kept(tmp_path / "b/seed1.json", 98.0, "model.smoothing=logistic", seed=1, **doubtful)
    lines = {line[0]: line[1] for line in cells(compare([tmp_path]))[1]}
    assert lines == {"exponential": "100.00 ± 0.50", "logistic": "98.50 ± 0.71 (log Z not trusted)"}


def test_settings_of_one_component_alone_are_absent_from_others(tmp_path: Path) -> None:
    marginal: Any = {"recipe": "quick/directed"}
    kept(tmp_path / "seed0.json", 1.0, "objective=marginal", "model.smoothing=concrete", **marginal)
    power = ["objective=marginal", "model.smoothing=power", "model.smoothing.beta=9"]
    kept(tmp_path / "seed1.json", 2.0, *power, seed=1, **marginal)
    found = compare([tmp_path])
    assert set(found.settings) == {"model.smoothing", "model.smoothing.beta", "model.smoothing.temperature"}
    by_name = [dict(zip(found.settings, row.settings, strict=True)) for row in found.rows]
    assert [row["model.smoothing.beta"] for row in by_name] == ["–", "9.0"]


def test_recipes_stand_by_their_names(tmp_path: Path) -> None:
    kept(tmp_path / "seed0.json", 1.0)
    kept(tmp_path / "seed1.json", 2.0, recipe="quick/directed")
    assert compare([tmp_path]).settings == ("recipe",)
    kept(tmp_path / "seed2.json", 2.0, "training.l2=0", recipe="quick/directed")
    assert compare([tmp_path]).settings == ("recipe", "training.l2")


def test_what_one_of_several_recipes_was_given_is_shown(tmp_path: Path) -> None:
    """And neither what recipes differ in themselves, nor what all were given."""
    alike = "training.batch=40"
    kept(tmp_path / "seed0.json", 1.0, alike, "training.kl_warmup=0.2")
    kept(tmp_path / "seed1.json", 2.0, alike, recipe="quick/directed", seed=1)
    found = compare([tmp_path])
    assert found.settings == ("recipe", "training.kl_warmup")
    own = json.dumps(find("quick/directed", "tiny").training.kl_warmup)
    assert {row.settings for row in found.rows} == {("quick/rbm", "0.2"), ("quick/directed", own)}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "split": ({"split": "valid"}, "the split differs, test and valid"),
    "data": ({"digest": "e"}, "the data differs"),
    "samples": ({"samples": 10}, "the number of importance samples differs, 100 and 10"),
    "examples": ({"examples": 10}, "the number of examples differs, 50 and 10"),
    "model": ({"model": "last"}, "the model that was scored differs, best and last"),
    "steps": ({"of": ["training.steps=80"]}, "the number of training steps differs, 40 and 80; --steps-may-differ"),
    "seed": ({"evaluation_seed": 3}, "are both of seed 0 and the same settings"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_was_measured_in_another_way_is_not_mixed(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    other = {key: value for key, value in changes.items() if key != "of"}
    paths = [kept(tmp_path / "a.json", 1.0), kept(tmp_path / "b.json", 2.0, *changes.get("of", []), **other)]
    with pytest.raises(InputError, match=message) as refused:
        compare(paths)
    assert "a.json" in str(refused.value)
    assert "b.json" in str(refused.value)


def test_lengths_may_differ_where_one_says_so(tmp_path: Path) -> None:
    paths = [kept(tmp_path / f"{n}.json", n, f"training.steps={n}") for n in (40, 80)]
    lines = cells(compare(paths, steps_may_differ=True))[1]
    assert [line[-2] for line in lines] == ["40", "80"]


def test_results_from_before_digests_are_told_by_the_datas_name(tmp_path: Path) -> None:
    names = [{"name": name, "protocol": "as it is"} for name in ("digits", "digits", "omniglot")]
    paths = [kept(tmp_path / f"{k}.json", 1.0, seed=k, data=data) for k, data in enumerate(names)]
    assert len(compare(paths[:2]).rows) == 1
    with pytest.raises(InputError, match="the data differs, digits and omniglot"):
        compare(paths)


def test_tables_in_markdown_and_csv(tmp_path: Path) -> None:
    paths = [kept(tmp_path / f"{k}.json", 90.0 + k, f"training.l2={k % 2}", seed=k) for k in range(4)]
    found = compare(paths)
    rows = [line for line in markdown(found).splitlines() if line.startswith("| ")]
    assert [row.count("|") for row in rows] == [7] * 4
    lines = list(csv.DictReader(io.StringIO(comma_separated(found))))
    assert [line["training.l2"] for line in lines] == ["0.0", "1.0"]
    assert [line["seeds"] for line in lines] == ["0 2", "1 3"]
    assert [float(line["nll"]) for line in lines] == [91.0, 92.0]
    assert [float(line["nll_sd"]) for line in lines] == pytest.approx([np.sqrt(2)] * 2)
    assert [(line["seconds"], line["samples"], line["split"]) for line in lines] == [("", "100", "test")] * 2


def test_a_figure_is_png_or_svg(tmp_path: Path) -> None:
    found = compare([kept(tmp_path / f"{k}.json", 90.0 + k, f"training.l2={k}") for k in range(2)])
    plot(found, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        assert image.width > 600
    plot(found, tmp_path / "c.svg")
    assert "<svg" in (tmp_path / "c.svg").read_text()
    with pytest.raises(InputError, match=r"must end in \.png or \.svg"):
        plot(found, tmp_path / "c.pdf")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two evaluated runs, the results of which are filed too, and one that is not evaluated."""
    folder = tmp_path_factory.mktemp("runs")
    small = ["--size", "tiny", "--steps", "4", "--set", "model.hidden=[8]", "--set", "model.groups=[5,5]"]
    for seed in (0, 1, 2):
        run = str(folder / f"runs/{seed}")
        assert main(["train", "quick/rbm", *small, "--seed", str(seed), "--out", run]) == 0
        if seed < 2:
            assert main(["evaluate", run, "--results", str(folder / "results")]) == 0
    return folder


def test_a_run_and_its_result_are_one_and_tell_the_time(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(line) for line in (runs / "runs/0/metrics.jsonl").read_text().splitlines()]
    (row,) = compare([runs / "results/quick/rbm/seed0.json", runs / "runs/0", runs / "runs/0/scores.json"]).rows
    assert len(row.members) == 1
    assert row.seconds == pytest.approx(sum(line["seconds"] for line in lines))
    assert row.steps == [4]
    assert compare([runs / "results"]).rows[0].seconds is None
    (row,) = compare([runs]).rows  # the one that is not evaluated is left out
    assert [member.result.seed for member in row.members] == [0, 1]
    for name in ("c.md", "c.csv", "c.png", "c.svg"):
        assert main(["compare", str(runs), "-o", str(runs / name)]) == 0
        assert (runs / name).stat().st_size > 100
    capsys.readouterr()
    assert main(["compare", str(runs / "runs/0"), str(runs / "results")]) == 0
    assert "| quick/rbm | " in capsys.readouterr().out


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`compare` that must end with exit code 2 and one line; the line."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main(["compare", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("dvaepp: ")
        assert error.count("\n") == 1, error
        return error

    return run


def test_a_folder_of_runs_and_results_has_both(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "runs/0", tmp_path / "here/run")
    shutil.copytree(runs / "results", tmp_path / "here/results")
    (row,) = compare([tmp_path]).rows
    assert [(member.result.seed, member.run is None) for member in row.members] == [(0, False), (1, True)]


def test_what_is_nothing_to_compare_is_named(runs: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    assert "nowhere does not exist" in fails("nowhere")
    assert "holds no evaluated run and no result" in fails(tmp_path)
    assert "has not been evaluated: `dvaepp evaluate" in fails(runs / "runs/2")
    assert "does not hold the scores of a run" in fails(runs / "runs/0/run.json")
    (tmp_path / "seed0.json").write_text("{")
    assert "seed0.json is not scores of a run" in fails(tmp_path)
    for name in ("c.txt", "c", "c.json", "."):
        assert "must end in .md, .csv, .png or .svg" in fails(runs, "-o", tmp_path / name)
    assert "could not write" in fails(runs, "-o", tmp_path / "seed0.json/c.md")
    copy = shutil.copytree(runs / "runs/0", tmp_path / "copy")
    (copy / "scores.json").rename(copy / "scores-valid.json")
    assert "has not been evaluated on test data" in fails(copy)
    (copy / "scores-valid.json").rename(copy / "scores.json")
    (copy / "metrics.jsonl").write_text("5\n")
    assert "metrics.jsonl holds a line that is no object" in fails(copy)
