"""What a report tells of labels, of columns of several kinds, and of other data than the run's."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from pages import report

import dvaepp
from dvaepp import data
from dvaepp.cli import main
from dvaepp.report.report import write_report
from dvaepp.runs.folder import RunFolder

RANDOM = np.random.RandomState(8)
CLASS = RANDOM.randint(0, 2, 200)
BITS = (RANDOM.random_sample((200, 4, 4)) < np.where(CLASS[:, None, None], 0.85, 0.15)).astype(np.uint8)
SMALL: dict[str, Any] = {"size": "tiny", "progress": False}
TINY = {"model.groups": [6], "model.hidden": [8], "training.steps": 60}


def test_codes_are_judged_by_labels_where_there_are_some(tmp_path: Path) -> None:
    given = data.from_arrays(BITS, labels=np.array(["few", "many"])[CLASS])
    dvaepp.train("quick/rbm", data=given, settings=TINY, out=tmp_path / "run", **SMALL)
    read = report(RunFolder(tmp_path / "run"))
    assert "Labels" in read.headings
    assert "7 nearest" in read.text
    assert "20 of test, at most 2,000 of train" in read.text
    assert "beside each those of train with the nearest codes" in read.text
    dvaepp.train("quick/rbm", data=BITS, settings=TINY, out=tmp_path / "unlabelled", **SMALL)
    assert "nearest" not in report(RunFolder(tmp_path / "unlabelled")).text


def test_it_may_be_about_other_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = data.from_arrays(BITS, labels=CLASS)
    dvaepp.train("quick/rbm", data=given, settings=TINY, out=tmp_path / "run", **SMALL)
    np.save(tmp_path / "black.npy", np.zeros((7, 4, 4), np.uint8))
    assert (
        main(["report", str(tmp_path / "run"), "--data", str(tmp_path / "black.npy"), "-o", str(tmp_path / "x.html")])
        == 0
    )
    page = (tmp_path / "x.html").read_text()
    assert f"the 7 of {tmp_path / 'black.npy'}, not the data of the training" in page
    assert "Examples of black.npy" in page
    assert "over 7 examples of black.npy" in page
    assert "nearest codes" not in page


def test_columns_of_several_kinds_are_told_of_by_what_they_hold(tmp_path: Path) -> None:
    table = pandas.DataFrame(
        {
            "size": RANDOM.normal(3, 1, 200),
            "town": np.array(["Bern", "Chur", "Zug"])[RANDOM.randint(0, 3, 200)],
            "count": RANDOM.poisson(4, 200),
        }
    )
    settings = {**TINY, "model.likelihood": "mixed"}
    dvaepp.train("quick/rbm", data=table, settings=settings, out=tmp_path / "run", **SMALL)
    text = report(RunFolder(tmp_path / "run")).text
    for said in ("reconstructed right", "R²", "nats", "Zug", "Validation examples beside draws of the model"):
        assert said in text
    table[:15].to_csv(tmp_path / "few.csv", index=False)
    write_report(RunFolder(tmp_path / "run", data_at=str(tmp_path / "few.csv")), tmp_path / "few.html")
    assert "Data, and reconstructed: 15 examples of few.csv" in (tmp_path / "few.html").read_text()
