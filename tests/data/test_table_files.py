"""Tables as people have them: separators, encodings, Parquet, labels, columns to leave out, values that are missing."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from dvaepp import InputError, data, load_run
from dvaepp.cli import main

RANDOM = np.random.RandomState(9)
REAL = RANDOM.normal(size=(40, 3)).round(3)
TABLE = pandas.DataFrame(REAL, columns=["length", "width", "depth"])
SPECIES = np.array(["ant", "bee", "wasp"])[RANDOM.randint(0, 3, 40)]
HOW: dict[str, Any] = {"binarise": "none", "kind": "real"}


def values(found: data.Dataset) -> list[list[float]]:
    """All rows in the order of the file."""
    ids = np.concatenate(found.ids or ())
    rows = torch.cat([found.train, found.valid, found.test]).double().numpy().round(3)
    return rows[np.argsort(ids)].tolist()


WRITERS: dict[str, Any] = {
    "x.csv": lambda path: TABLE.to_csv(path, index=False),
    "semicolons.csv": lambda path: TABLE.to_csv(path, index=False, sep=";"),
    "commas.csv": lambda path: TABLE.to_csv(path, index=False, sep=";", decimal=","),
    "x.tsv": lambda path: TABLE.to_csv(path, index=False, sep="\t"),
    "bars.csv": lambda path: TABLE.to_csv(path, index=False, sep="|"),
    "utf16.csv": lambda path: TABLE.to_csv(path, index=False, encoding="utf-16"),
    "western.csv": lambda path: TABLE.rename(columns={"width": "größe"}).to_csv(
        path, index=False, encoding="cp1252", sep=";"
    ),
    "x.csv.gz": lambda path: path.write_bytes(gzip.compress(TABLE.to_csv(index=False).encode())),
    "x.parquet": lambda path: TABLE.to_parquet(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_one_table_in_many_forms(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    found = data.load(tmp_path / name, **HOW)
    assert values(found) == REAL.tolist()
    assert found.columns == ("length", "größe" if name == "western.csv" else "width", "depth")


def test_a_column_of_labels_and_columns_left_out(tmp_path: Path) -> None:
    TABLE.assign(species=SPECIES, note="x").to_csv(tmp_path / "x.csv", index=False)
    found = data.load(tmp_path / "x.csv", label="species", drop=["note", "width"], **HOW)
    assert values(found) == REAL[:, [0, 2]].tolist()
    assert found.columns == ("length", "depth")
    assert found.labels is not None
    assert found.labels.classes == ("ant", "bee", "wasp")
    assert found.ids is not None
    assert [found.labels.classes[label] for label in found.labels.test] == SPECIES[found.ids[2]].tolist()


def test_columns_without_names_are_called_by_their_numbers(tmp_path: Path) -> None:
    TABLE.assign(species=SPECIES).to_csv(tmp_path / "x.csv", index=False, header=False)
    found = data.load(tmp_path / "x.csv", label="4", drop=["1"], header="absent", **HOW)
    assert values(found) == REAL[:, 1:].tolist()
    assert found.columns is None


@pytest.mark.parametrize("mark", ["", "NA", "?", "nan"])
def test_missing_values_are_dealt_with_as_is_said(mark: str, tmp_path: Path) -> None:
    cells = TABLE.astype(object)
    cells.iloc[3, 1] = cells.iloc[7, 1] = mark
    cells.to_csv(tmp_path / "x.csv", index=False)
    rows = data.load(tmp_path / "x.csv", missing="drop-rows", **HOW)
    assert values(rows) == np.delete(REAL, [3, 7], 0).tolist()
    assert sorted(np.concatenate(rows.ids or ())) == [row for row in range(40) if row not in (3, 7)]
    with pytest.raises(InputError, match=r"line 5 holds .*data.missing=drop-rows"):
        data.load(tmp_path / "x.csv", **HOW)
    with pytest.raises(InputError, match=r"'width' misses 2 of 40 values, expected all: data.missing=drop-rows, or"):
        data.load(tmp_path / "x.csv", drop=["depth"], **HOW)


def test_words_are_no_categories_whose_numbers_would_be_those_of_a_file_alone(tmp_path: Path) -> None:
    pandas.DataFrame({"size": SPECIES, "form": 1}).to_csv(tmp_path / "x.csv", index=False, sep=";")
    with pytest.raises(InputError, match="column 'size' holds '(ant|bee|wasp)', expected numbers: data.label=size"):
        data.load(tmp_path / "x.csv", binarise="none", kind="categories")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0;1;2;3\n" + "1;0;1;1\n" * 20, "line 1 holds 0 .. 3, which may be names of columns"),
        ("a\tb\n" + "5,139\t4,000\n" * 20, "holds 5,139, which may be thousands or decimals"),
        (" \n\n \n", "is empty, expected rows of a table"),
        ("a;b\n" + "1_000;2\n" * 20, "column 'a' holds '1_000', expected numbers"),
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        data.load(tmp_path / "x.tsv", **HOW)


def test_points_far_down_and_commas_go_together(tmp_path: Path) -> None:
    rows = "".join(f"{place};{place * 2}\n" for place in (5, 3, 8, 1, 9) * 8)
    (tmp_path / "x.csv").write_text("a;b\n" + rows + "1.5;2.25\n")
    assert values(data.load(tmp_path / "x.csv", **HOW))[-1] == [1.5, 2.25]
    (tmp_path / "x.csv").write_text("a;b\n" + rows + "1,5;2,25\n")
    assert values(data.load(tmp_path / "x.csv", **HOW))[-1] == [1.5, 2.25]


def test_labels_that_are_missing_are_refused_or_their_rows_dropped(tmp_path: Path) -> None:
    TABLE.assign(y=["a", None] * 20).to_csv(tmp_path / "x.csv", index=False)
    found = data.load(tmp_path / "x.csv", label="y", missing="drop-rows", **HOW)
    assert values(found) == REAL[::2].tolist()
    for labels in (["a", None] * 20, [1.0, np.nan] * 20, pandas.array(["a", pandas.NA] * 20)):
        with pytest.raises(InputError, match="labels of train miss some, expected one for each example"):
            data.from_arrays(REAL, kind="real", labels=labels)


def test_grey_levels_with_a_label_as_kaggle_has_them(tmp_path: Path) -> None:
    grey = RANDOM.randint(0, 256, (40, 9))
    names = [f"pixel{place}" for place in range(9)]
    pandas.DataFrame(grey, columns=names).assign(label=np.arange(40) % 3)[["label", *names]].to_csv(
        tmp_path / "train.csv", index=False
    )
    with pytest.raises(InputError, match="expected only 0 and 1; grey levels in 0..255 take data.binarise=dynamic"):
        data.load(tmp_path / "train.csv")
    found = data.load(tmp_path / "train.csv", label="label", binarise="dynamic")
    assert found.dynamic
    assert found.labels is not None
    assert found.labels.classes == ("0", "1", "2")
    every = np.concatenate(found.ids or ())
    assert torch.cat([found.train])[0].tolist() == grey[every[0]].tolist()


@pytest.mark.parametrize("suffix", ["npy", "csv"])
def test_minus_one_and_one_are_bits(suffix: str, tmp_path: Path) -> None:
    spins = 2 * RANDOM.randint(0, 2, (40, 5)) - 1
    np.save(tmp_path / "x.npy", spins)
    pandas.DataFrame(spins).to_csv(tmp_path / "x.csv", index=False, sep=";", header=False)
    found, bits = data.load(tmp_path / f"x.{suffix}"), data.from_arrays((spins + 1) // 2)
    assert found.digest() == bits.digest()


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (
            TABLE.assign(species=SPECIES),
            {},
            "holds '(ant|bee|wasp)', expected finite numbers; data.label and data.drop",
        ),
        (
            TABLE.assign(species=SPECIES),
            {"drop": ["width"]},
            "column 'species' holds .*data.label=species keeps it as lab",
        ),
        (TABLE, {"drop": ["widht"]}, "has no column 'widht', which data.drop names.*did you mean 'width'"),
        (TABLE, {"label": "species"}, "has no column 'species', which data.label names"),
        (TABLE, {"drop": ["length", "width", "depth"]}, "no columns or no rows are left"),
        (TABLE.reset_index(), {"drop": ["width"]}, r"column 'index' counts the rows, expected .*data.drop=\[index\]"),
        (TABLE.assign(id=range(1, 41)), {"drop": ["width"]}, "column 'id' counts the rows"),
        (TABLE.assign(gap=np.nan), {"missing": "drop-rows"}, "every row misses a value"),
        (TABLE.reset_index(), {}, r"column 'index' counts the rows, expected it left out: data.drop=\[index\]"),
        (TABLE, {"missing": "mean"}, "^missing is 'mean', expected one of refuse, drop-rows"),
        (TABLE.assign(y=["a", None] * 20), {"label": "y"}, "column 'y' misses 20 labels"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_what_helps(
    table: pandas.DataFrame, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    table.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(InputError, match=message):
        data.load.__wrapped__(tmp_path / "x.csv", **{**HOW, **options})


def test_a_broken_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"x.parquet: expected a whole Parquet file"):
        data.load(tmp_path / "x.parquet", **HOW)


def test_a_table_trains_by_its_settings_and_others_are_read_the_same(tmp_path: Path) -> None:
    TABLE.assign(species=SPECIES, note="x").to_csv(tmp_path / "x.csv", index=False, sep=";")
    settings = ["data.label=species", "data.drop=[note]", "model.likelihood=normal", "model.hidden=[4]"]
    words = [word for each in settings for word in ("--set", each)]
    command = ["train", "quick/directed", "--size", "tiny", "--steps", "20", "--data", str(tmp_path / "x.csv"), *words]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    run = load_run(tmp_path / "run")
    assert run.data.columns == ("length", "width", "depth")
    TABLE[:5].assign(note="y", species="ant").to_csv(tmp_path / "new.csv", index=False)
    out = tmp_path / "codes.csv"
    assert main(["encode", str(tmp_path / "run"), str(tmp_path / "new.csv"), "-o", str(out)]) == 0
    assert pandas.read_csv(out)["label"].tolist() == ["ant"] * 5


def test_other_splits_may_lie_elsewhere(tmp_path: Path) -> None:
    for name, rows in (("train", TABLE[:25]), ("valid", TABLE[25:30]), ("test", TABLE[30:])):
        rows.assign(species=SPECIES[rows.index]).to_csv(tmp_path / f"{name}.csv", index=False)
    found = data.load(tmp_path / "train.csv", test=tmp_path / "test.csv", label="species", **HOW)
    assert (len(found.train), len(found.valid), len(found.test)) == (23, 2, 10)
    assert found.test.double().numpy().round(3).tolist() == REAL[30:].tolist()
    assert found.labels is not None
    assert [found.labels.classes[label] for label in found.labels.test] == SPECIES[30:].tolist()
    whole = {"valid": tmp_path / "valid.csv", "test": tmp_path / "test.csv", "label": "species"}
    found = data.load(tmp_path / "train.csv", **whole, **HOW)
    assert (len(found.train), len(found.valid), len(found.test)) == (25, 5, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"valid": "x.csv"}, "^valid is given without test"),
        ({"test": "none.csv"}, "none.csv, which data.valid or data.test names, does not exist"),
        ({"test": "wide.csv"}, "its columns are not called as those of"),
        ({"size": 2}, r"holds \(40, 3\), and data.size scales pictures only: expected \(n, 4\) or \(n, 2, 2\)"),
    ],
)
def test_splits_that_do_not_go_together(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    TABLE.to_csv("x.csv", index=False)
    TABLE.assign(more=1.5).to_csv("wide.csv", index=False)
    with pytest.raises(InputError, match=message):
        data.load("x.csv", **options, **HOW)


def test_rows_become_images_of_a_size(tmp_path: Path) -> None:
    bits = RANDOM.randint(0, 2, (40, 6))
    np.save(tmp_path / "x.npy", bits)
    found = data.load(tmp_path / "x.npy", size=(2, 3))
    assert found.shape == (2, 3)
    assert torch.equal(found.train, data.load(tmp_path / "x.npy").train)


def test_a_run_finds_its_other_splits_where_they_moved_with_it(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    TABLE[:30].to_csv(tmp_path / "old/x.csv", index=False)
    TABLE[30:].to_csv(tmp_path / "old/y.csv", index=False)
    settings = ["model.likelihood=normal", "model.hidden=[4]", f"data.test={tmp_path / 'old/y.csv'}"]
    words = [word for each in settings for word in ("--set", each)]
    command = [
        "train",
        "quick/directed",
        "--size",
        "tiny",
        "--steps",
        "20",
        "--data",
        str(tmp_path / "old/x.csv"),
        *words,
    ]
    assert main([*command, "--out", str(tmp_path / "old/run")]) == 0
    (tmp_path / "old").rename(tmp_path / "new")
    assert len(load_run(tmp_path / "new/run").data.test) == 10
