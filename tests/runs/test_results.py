"""Table 3 as the command makes it of stored results."""

import json
from pathlib import Path
from typing import Any

import pytest

from dvaepp.cli import main
from dvaepp.errors import InputError
from dvaepp.recipes import table_3
from dvaepp.recipes.catalogue import find
from dvaepp.recipes.recipe import override
from dvaepp.runs.results import check_comparable, results_of, table
from dvaepp.storage import write_json


def stored(
    folder: Path,
    name: str,
    nll: float,
    *,
    seed: int = 0,
    steps: int = 13_000,
    settings: tuple[str, ...] = (),
    **scores: Any,
) -> None:
    """A result as `evaluate --results` keeps it, its recipe with settings changed."""
    names = ["nll_at_low_log_z", "nll_at_high_log_z", "elbo", "distortion", "kl", "effective_sample_size"]
    found = {"nll": nll, "nll_standard_error": 0.5, "log_z": 10.0, "log_z_standard_error": 0.1, "samples": 100.0}
    result = {
        "recipe": name,
        "settings": override(find(name, "small"), settings).model_dump(mode="json"),
        "seed": seed,
        "steps": steps,
        "scores": {**found, "examples": 10_000.0, **dict.fromkeys(names, 1.0), **scores},
        "log_partition": {"method": "exact", "trusted": True},
        "split": "test",
        "evaluation_seed": 0,
        "data": {"name": name.split("/")[1], "protocol": "as published"},
        "commands": [],
    }
    write_json(folder / name / f"seed{seed}.json", result)


def rows(text: str) -> dict[str, list[str]]:
    """Cells by recipe."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {name.strip("`"): cells for name, *cells in lines}


def test_ours_stand_beside_the_papers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, nll in ((0, 81.0), (1, 82.0)):
        stored(tmp_path, "table-3/mnist-static/rbm-normal", nll, seed=seed)
    assert main(["table", "3", "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    ours = ["81.50 ± 0.71 (10,000 examples)", "13,000, 100", "0, 1", "10.00 ± 0.10, 10.00 ± 0.10", "79.17"]
    assert rows(printed) == {"table-3/mnist-static/rbm-normal": ours}
    assert main(["table", "3", "--results", str(tmp_path), "-o", str(tmp_path / "t.md")]) == 0
    assert (tmp_path / "t.md").read_text() == printed == table(tmp_path, "3")


@pytest.mark.parametrize(
    "less", [{"steps": 3000}, {"samples": 10.0}, {"examples": 1000.0}, {"examples": 10.0, "steps": 13_500}], ids=str
)
def test_seeds_of_less_effort_are_not_averaged_with_the_rest(less: dict[str, Any], tmp_path: Path) -> None:
    for seed, nll in ((0, 81.0), (1, 82.0)):
        stored(tmp_path, "table-3/mnist-static/rbm-normal", nll, seed=seed)
    stored(tmp_path, "table-3/mnist-static/rbm-normal", 99.0, seed=2, **less)
    (cells,) = rows(table(tmp_path, "3")).values()
    assert (cells[0], cells[2]) == ("81.50 ± 0.71 (10,000 examples)", "0, 1, (2)")
    assert [result.seed for result in results_of(tmp_path, "3").values()] == [0, 1]


def test_a_log_z_that_is_not_trusted_says_so(tmp_path: Path) -> None:
    stored(tmp_path, "table-3/mnist-static/rbm-normal", 81.5)
    path = tmp_path / "table-3/mnist-static/rbm-normal/seed0.json"
    assert "| 10.00 ± 0.10 |" in table(tmp_path, "3")
    write_json(path, {**json.loads(path.read_text()), "log_partition": {"method": "annealed", "trusted": False}})
    assert "| 10.00 ± 0.10 (not trusted) |" in table(tmp_path, "3")


def test_cifar_is_in_bits_per_dimension(tmp_path: Path) -> None:
    stored(tmp_path, "table-3/cifar10/normal-normal", 7452.0, nll_standard_error=21.3)
    ours, *_, paper = rows(table(tmp_path, "3"))["table-3/cifar10/normal-normal"]
    assert (ours, paper) == ("3.500 ± 0.010 (10,000 examples)", "3.40")


def test_every_cell_has_its_number_and_others_none(tmp_path: Path) -> None:
    names = [f"table-3/{data}/{row}" for data in table_3.DATA for row in (*table_3.ROWS, "factorial")]
    for name in names:
        stored(tmp_path, name, 90.0)
    found = rows(table(tmp_path, "3"))
    assert list(found) == names
    for data in table_3.DATA:
        for row in (*table_3.ROWS, "factorial"):
            paper = "–" if row == "factorial" else f"{table_3.PAPER.get(data, {}).get(row, 0):.2f}"
            assert found[f"table-3/{data}/{row}"][-1] == ("not comparable" if data == "omniglot-lake" else paper)
    assert sum(cells[-1][0].isdecimal() for cells in found.values()) == 25


def test_results_on_data_that_are_not_comparable_are_in_the_table_and_say_so(tmp_path: Path) -> None:
    for cell in ("omniglot-lake/nonlinear-2/rbm", "mnist-static/nonlinear-2/rbm"):
        stored(tmp_path, f"table-2/{cell}", 100.0)
    found = rows(table(tmp_path, "2"))
    assert [cells[-1] for cells in found.values()] == ["84.27 ± 0.05", "not comparable"]


def test_how_often_a_run_logs_and_validates_makes_it_no_other_result(tmp_path: Path) -> None:
    settings = ("training.log_every=7", "training.validate_every=11", "training.compile=true")
    stored(tmp_path, "table-2/mnist-static/nonlinear-2/rbm", 99.0, settings=settings)
    assert len(rows(table(tmp_path, "2"))) == 1


def test_starting_points_have_a_table_of_what_was_not_changed(tmp_path: Path) -> None:
    stored(tmp_path, "quick/rbm", 106.0)
    stored(tmp_path, "quick/rbm", 50.0, seed=1, settings=("model.smoothing=power",))
    (cells,) = rows(table(tmp_path, "quick")).values()
    assert cells[0].startswith("106.00 ")


def make_foreign(path: Path) -> None:
    """Its prior becomes one that is defined by a module of another machine."""
    result = json.loads(path.read_text())
    result["settings"]["model"]["prior"] = {"name": "fair"}
    write_json(path, result)


def test_starting_points_changed_by_what_is_not_known_here_are_passed_over(tmp_path: Path) -> None:
    stored(tmp_path, "quick/rbm", 106.0)
    stored(tmp_path, "quick/rbm", 50.0, seed=1)
    make_foreign(tmp_path / "quick/rbm/seed1.json")
    (cells,) = rows(table(tmp_path, "quick")).values()
    assert cells[0].startswith("106.00 ")
    stored(tmp_path, "table-3/mnist-static/rbm-normal", 81.0)
    make_foreign(tmp_path / "table-3/mnist-static/rbm-normal/seed0.json")
    with pytest.raises(InputError, match=r"rbm-normal/seed0\.json: .*no prior is named 'fair'"):
        table(tmp_path, "3")


def test_a_table_without_rows_says_what_lies_there(tmp_path: Path) -> None:
    stored(tmp_path, "quick/rbm", 50.0, settings=("model.smoothing=power",))
    with pytest.raises(InputError, match="holds results of Quick, but of other settings than its recipes have; `dv"):
        table(tmp_path, "quick")
    path = tmp_path / "quick/rbm/seed0.json"
    write_json(path, {**json.loads(path.read_text()), "split": "valid"})
    with pytest.raises(InputError, match="holds no results of Quick on test data, only on valid data; `dv"):
        table(tmp_path, "quick")


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ("model.convolutional.cells=2", "model"),
        ("training.balance_kl=false", "training"),
        ("data.name=digits", "data"),
    ],
)
def test_other_settings_are_refused(settings: str, part: str, tmp_path: Path) -> None:
    stored(tmp_path, "table-3/mnist-static/rbm-normal", 81.0, settings=(settings,))
    with pytest.raises(
        InputError, match=f"is not a result of table-3/.*: its {part} settings are others .*dvaepp compare"
    ):
        table(tmp_path, "3")


def test_other_steps_are_no_other_settings(tmp_path: Path) -> None:
    stored(tmp_path, "table-3/mnist-static/rbm-normal", 81.0, settings=("training.steps=23000",))
    assert len(rows(table(tmp_path, "3"))) == 1


@pytest.mark.parametrize("number", ["2", "3"])
def test_a_folder_without_results_is_named(number: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"holds no results of Table {number}; .dvaepp evaluate"):
        table(tmp_path, number)


def test_results_of_other_settings_are_refused_before_the_work() -> None:
    recipe = find("table-3/mnist-static/rbm-normal", "tiny")
    check_comparable(override(recipe, ["training.steps=7", "training.compile=true"]), "runs/a")
    check_comparable(override(find("quick/rbm", "tiny"), ["model.beta=3"]), "runs/b")
    for setting, part in (
        ("data.name=digits", "data"),
        ("model.smoothing.beta=3", "model"),
        ("training.l2=1", "training"),
    ):
        with pytest.raises(InputError, match=f"runs/a is not a result of {recipe.name}: its {part} settings"):
            check_comparable(override(recipe, [setting]), "runs/a")
