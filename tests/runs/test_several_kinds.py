"""Runs on tables whose columns are of several kinds: words go in, words come out."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import dvaepp
from dvaepp import InputError
from dvaepp.cli import main
from dvaepp.runs.completed import completed_table

RANDOM = np.random.RandomState(11)
ROWS = 200
AGE = RANDOM.poisson(40, ROWS)
TABLE = pandas.DataFrame(
    {
        "age": AGE,
        "height": RANDOM.normal(170, 10, ROWS).round(1),
        "town": RANDOM.choice(["Bern", "Chur", "Zug"], ROWS),
        "smokes": np.where(AGE > 40, "yes", "no"),
    }
)
TINY = {"model.groups": [5, 4], "model.hidden": [8], "training.steps": 20, "model.likelihood": "mixed"}


def train(given: Any, folder: Path, **settings: Any) -> dvaepp.Run:
    named = {name.replace("_", ".", 1): value for name, value in settings.items()}
    return dvaepp.train("quick/rbm", data=given, settings={**TINY, **named}, out=folder, size="tiny", progress=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dvaepp.Run:
    return train(TABLE, tmp_path_factory.mktemp("runs") / "mixed")


def test_samples_are_a_table_like_that_of_the_training(run: dvaepp.Run) -> None:
    drawn = pandas.DataFrame(run.cells(run.sample(50)))
    assert list(drawn.columns) == list(TABLE.columns)
    assert [dtype.kind for dtype in drawn.dtypes][:2] == ["i", "f"]
    assert set(drawn["town"]) <= {"Bern", "Chur", "Zug"}
    assert set(drawn["smokes"]) <= {"yes", "no"}
    test = pandas.DataFrame(run.cells(run.data.test))
    ids = run.data.ids
    assert ids is not None
    rows = TABLE.loc[ids[2]].reset_index(drop=True)
    pandas.testing.assert_frame_equal(test, rows, check_dtype=False, rtol=1e-6)


def test_rows_are_scored_and_encoded_whatever_the_order_of_their_columns(run: dvaepp.Run, tmp_path: Path) -> None:
    other = TABLE[["town", "smokes", "height", "age"]]
    other.to_parquet(tmp_path / "other.parquet")
    nll = [run.score(x).numbers()["nll"] for x in (TABLE, other, tmp_path / "other.parquet", run.examples(TABLE).x)]
    assert nll == [nll[0]] * 4
    assert np.array_equal(run.encode(other), run.encode(TABLE))
    moved = dvaepp.load_run(run.folder.rename(run.folder.with_name("moved")))
    assert moved.data.digest() == run.data.digest(), "what a program gave lies in the folder"
    moved.folder.rename(run.folder)
    with pytest.raises(InputError, match="x: column 'town' holds 'Rom', expected one of 'Bern', 'Chur', 'Zug' as in"):
        run.score(TABLE.assign(town="Rom"))
    with pytest.raises(InputError, match="x has no column 'town', expected age, height, town, smokes as in training"):
        run.score(TABLE.rename(columns={"town": "city"}))
    with pytest.raises(InputError, match="x: column 'smokes' holds 0.5, expected bits"):
        run.score(run.examples(TABLE).x.numpy() + np.array([0, 0, 0, 0.5]))
    with pytest.raises(InputError, match="x: column 'town' holds 3, expected categories: whole numbers in 0..2"):
        run.score(run.examples(TABLE).x.numpy() * 0 + np.array([0, 0, 3, 0]))


def test_what_each_column_costs(run: dvaepp.Run) -> None:
    each = run.distortion_by_column(TABLE)
    assert list(each) == list(TABLE.columns)
    assert sum(each.values()) == pytest.approx(run.score(TABLE).numbers()["distortion"], rel=0.05)


def test_gaps_are_filled_with_what_their_columns_hold(run: dvaepp.Run, tmp_path: Path) -> None:
    gaps = TABLE.mask(RANDOM.rand(*TABLE.shape) < 0.3)
    gaps.to_csv(tmp_path / "gaps.csv", index=False)
    found = run.complete(gaps, sweeps=5)
    assert (found.missing == gaps.isna().to_numpy()).all()
    full = pandas.DataFrame(run.cells(found.samples))
    for name in TABLE:
        there = gaps[name].notna()
        if name == "height":
            np.testing.assert_allclose(full[name][there], TABLE[name][there], rtol=1e-6)
        else:
            assert full[name][there].tolist() == TABLE[name][there].tolist()
    assert set(full["town"]) == {"Bern", "Chur", "Zug"}
    assert (
        main(
            ["complete", str(run.folder), str(tmp_path / "gaps.csv"), "-o", str(tmp_path / "full.csv"), "--sweeps", "5"]
        )
        == 0
    )
    written = pandas.read_csv(tmp_path / "full.csv")
    pandas.testing.assert_frame_equal(written, full, check_dtype=False, rtol=1e-6)
    there = gaps["height"].notna()
    assert written["height"][there].tolist() == TABLE["height"][there].tolist(), "to the last digit"


def test_a_filled_table_keeps_what_is_no_example_of_the_run(tmp_path: Path) -> None:
    table = TABLE.assign(who=[f"P{row}" for row in range(ROWS)], group=["a", "b"] * (ROWS // 2))
    table.to_csv(tmp_path / "x.csv", index=False)
    run = train(str(tmp_path / "x.csv"), tmp_path / "run", data_label="group", data_drop=["who"])
    table.loc[5:9, "town"] = None
    table.loc[7, "group"] = None
    table[["who", "smokes", "height", "group", "town", "age"]][:20].to_csv(tmp_path / "gaps.csv", index=False)
    arguments = ["complete", str(run.folder), str(tmp_path / "gaps.csv"), "--sweeps", "3", "-o"]
    assert main([*arguments, str(tmp_path / "full.csv")]) == 0
    full, gaps = (pandas.read_csv(tmp_path / f"{name}.csv") for name in ("full", "gaps"))
    assert list(full.columns) == list(gaps.columns)
    assert full["who"].tolist() == gaps["who"].tolist()
    assert full["town"].notna().all()
    pandas.testing.assert_frame_equal(full.drop(columns="town"), gaps.drop(columns="town"), check_dtype=False)


def test_what_stood_in_a_table_is_not_rounded(tmp_path: Path) -> None:
    known = RANDOM.rand(ROWS) < 0.5
    table = TABLE.assign(large=3_000_000_000 + RANDOM.randint(0, 10**9, ROWS), known=known)
    run = train(table, tmp_path / "run")
    gaps = table[:20].astype({"known": object, "large": float})
    gaps.loc[0, "known"], gaps.loc[1, "large"], gaps.loc[2, "age"] = None, None, 3
    gaps.to_csv(tmp_path / "gaps.csv", index=False)
    drawn = run.cells(run.complete(tmp_path / "gaps.csv", sweeps=2).samples)
    missing = gaps.isna().to_numpy()
    full = completed_table(tmp_path / "gaps.csv", run.reading, drawn, missing)
    assert [full[name].dtype for name in ("known", "large", "age")] == [np.dtype(bool), np.dtype("i8"), np.dtype("i8")]
    assert full["known"][1:].tolist() == known[1:20].tolist()
    assert np.delete(full["large"], 1).tolist() == np.delete(table["large"][:20].to_numpy(), 1).tolist()
    gaps.loc[3, "large"] = 3.75
    gaps.to_csv(tmp_path / "gaps.csv", index=False)
    assert completed_table(tmp_path / "gaps.csv", run.reading, drawn, missing)["large"][3] == 3.75


def test_frames_in_memory_take_the_settings_of_columns(tmp_path: Path) -> None:
    table = TABLE.copy()
    table.loc[:9, "town"] = None
    with pytest.raises(InputError, match="train: column 'town' misses 10 of 200 values, expected all: data.missing="):
        train(table, tmp_path / "run")
    run = train(table, tmp_path / "run", data_missing="category", data_kinds={"age": "real"})
    drawn = run.cells(run.sample(300))
    assert None in drawn["town"]
    assert run.reading.known is not None
    assert [column.kind for column in run.reading.known] == ["real", "real", "categories", "bits"]
    with pytest.raises(
        InputError, match="x: column 'age' misses 1 of 200 values, expected all, as in training; complete"
    ):
        run.score(table.mask(np.arange(ROWS)[:, None] + np.arange(4) == 0))


def test_the_command_does_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    gapped = TABLE.copy()
    gapped.loc[:5, "town"] = None
    gapped.assign(id=np.arange(ROWS)).to_csv("x.csv", index=False)
    TABLE[:20].to_csv("other.csv", index=False)
    settings = [f"{name}={value}".replace("'", '"') for name, value in TINY.items()]
    settings += ["data.missing=category", "data.kinds.age=real", "data.test=other.csv", "data.drop=id"]
    command = ["train", "quick/rbm", "--size", "tiny", "--data", "x.csv", "--out", "run"]
    assert main([*command, *(part for each in settings for part in ("--set", each))]) == 0
    told = capsys.readouterr().out
    assert "4 columns: bits smokes; real age, height; categories town" in told
    assert main(["sample", "run", "-o", "drawn.csv", "--rows", "30"]) == 0
    drawn = pandas.read_csv("drawn.csv")
    assert (len(drawn), list(drawn.columns)) == (30, list(TABLE.columns))
    assert set(drawn["town"].dropna()) <= {"Bern", "Chur", "Zug"}
    assert drawn["age"].dtype.kind == "i"
    for more in (["evaluate", "run"], ["report", "run"], ["evaluate", "run", "--data", "other.csv"], ["resume", "run"]):
        assert main(more) == 0
    page = Path("run/report.html").read_text()
    assert "Zug" in page
    assert "reconstructed right" in page
    assert "R²" in page
    capsys.readouterr()
    TABLE.assign(town="Rom").to_csv("odd.csv", index=False)
    assert main(["evaluate", "run", "--data", "odd.csv"]) == 2
    assert "odd.csv: column 'town' holds 'Rom', expected one of 'Bern', 'Chur', 'Zug' as in training" in " ".join(
        capsys.readouterr().err.split()
    )


def test_columns_with_gaps_stay_dropped(tmp_path: Path) -> None:
    table = TABLE.copy()
    table.loc[3, "height"] = None
    table.to_csv(tmp_path / "x.csv", index=False)
    run = train(str(tmp_path / "x.csv"), tmp_path / "run", data_missing="drop-columns")
    assert run.columns == ("age", "town", "smokes")
    assert run.encode(TABLE).shape == (ROWS, 9)
    gaps = TABLE.assign(town=None)
    gaps.to_csv(tmp_path / "gaps.csv", index=False)
    assert set(run.cells(run.complete(tmp_path / "gaps.csv", sweeps=2).samples)["town"]) <= {"Bern", "Chur", "Zug"}
    with pytest.raises(InputError, match="column 'town' misses 200 of 200 values"):
        run.encode(tmp_path / "gaps.csv")
