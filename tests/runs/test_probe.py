"""What codes tell of labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dvaepp
from dvaepp import InputError, data
from dvaepp.cli import main
from dvaepp.runs.probe import nearest, probe

RANDOM = np.random.RandomState(8)
CLASS = RANDOM.randint(0, 2, 200)
BITS = (RANDOM.random_sample((200, 4, 4)) < np.where(CLASS[:, None, None], 0.85, 0.15)).astype(np.uint8)
SMALL: dict[str, Any] = {
    "size": "tiny",
    "progress": False,
    "settings": {"model.groups": [6], "model.hidden": [8], "model.prior": "bernoulli", "training.steps": 200},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dvaepp.Run:
    given = data.from_arrays(BITS, labels=np.array(["few", "many"])[CLASS])
    return dvaepp.train("quick/rbm", data=given, out=tmp_path_factory.mktemp("runs") / "run", **SMALL)


def test_codes_tell_classes_that_training_did_not_see(run: dvaepp.Run) -> None:
    codes, raw, rbm = probe(run, 3)
    assert [row.name for row in (codes, raw, rbm)] == ["codes", "data", "BernoulliRBM"]
    assert (codes.columns, raw.columns, rbm.columns) == (6, 16, 6)
    for row in (codes, raw):
        assert min(row.neighbours, row.linear) > 0.8
    assert codes.error(0.5) == pytest.approx(0.5 / 20**0.5)


def test_labels_that_say_nothing_are_told_by_chance(tmp_path: Path) -> None:
    given = data.from_arrays(BITS, labels=RANDOM.permutation(200) % 2)
    found = probe(dvaepp.train("quick/rbm", data=given, out=tmp_path / "run", **SMALL))
    assert all(abs(row.neighbours - 0.5) < 0.4 for row in found)


def test_the_nearest_are_those_of_least_distance() -> None:
    first, second = BITS[:150].reshape(150, -1), BITS[150:].reshape(50, -1)
    distances = (first[None] != second[:, None]).sum(2)
    found = nearest(first, second, 4)
    assert (np.take_along_axis(distances, found, 1) == np.sort(distances, 1)[:, :4]).all()


def test_the_command_prints_a_table_and_writes_a_picture(
    run: dvaepp.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", str(run.folder), "--neighbours", "3", "-o", str(tmp_path / "near.png")]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines() if "±" in line] == ["codes", "data", "BernoulliRBM"]
    with Image.open(tmp_path / "near.png") as picture:
        assert picture.height > picture.width


def test_data_without_labels_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = dvaepp.train("quick/rbm", data=BITS, out=tmp_path / "run", **SMALL)
    with pytest.raises(InputError, match="has no labels to probe"):
        probe(run)
    assert main(["probe", str(run.folder)]) == 2
    assert "data.label names a table's column" in capsys.readouterr().err
