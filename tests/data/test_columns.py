"""Columns of several kinds: what each holds, and its cells as numbers and back."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from dvaepp import data
from dvaepp.data.columns import Column, cells_of, columns_of, numbers_in
from dvaepp.errors import InputError

RANDOM = np.random.RandomState(3)
ROWS = 60
TABLE = pandas.DataFrame(
    {
        "weight": RANDOM.normal(70, 10, ROWS).round(2),
        "age": RANDOM.poisson(40, ROWS),
        "salary": RANDOM.randint(1000, 90_000, ROWS),
        "smokes": RANDOM.choice(["yes", "no"], ROWS),
        "side": RANDOM.choice([-1, 1], ROWS),
        "member": RANDOM.rand(ROWS) < 0.5,
        "town": RANDOM.choice(["Bern", "Zürich", "Chur, GR"], ROWS),
        "grade": RANDOM.choice(["10", "9", "05"], ROWS),
    }
)
KINDS = {
    "weight": "real",
    "age": "counts",
    "salary": "real",
    "smokes": "bits",
    "side": "bits",
    "member": "bits",
    "town": "categories",
    "grade": "categories",
}


def found(table: pandas.DataFrame, **kinds: str) -> dict[str, Column]:
    return {column.name: column for column in columns_of(table, kinds, "x")}


def test_what_a_column_holds_is_found_by_its_values() -> None:
    columns = found(TABLE)
    assert {name: column.kind for name, column in columns.items()} == KINDS
    assert columns["smokes"].values == ("no", "yes")
    assert columns["side"].values == ("-1", "1")
    assert columns["town"].values == ("Bern", "Chur, GR", "Zürich")
    assert columns["grade"].values == ("9", "10", "05"), "numbers in their order, then words"
    assert (columns["salary"].whole, columns["weight"].whole) == (True, False)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (RANDOM.poisson(3, 100), "counts"),
        (RANDOM.poisson(3, 100).astype(float), "counts"),
        (RANDOM.poisson(3, 100) - 9, "real"),
        (RANDOM.poisson(3, 100) + 0.5, "real"),
        (RANDOM.geometric(0.001, 100), "real"),
        (2000 + RANDOM.randint(0, 20, 100), "real"),
        (RANDOM.randint(0, 2, 100).astype(float), "bits"),
        (RANDOM.choice([0.25, 0.75], 100), "bits"),
        (pandas.array([1, 2, 3, None] * 25, dtype="Int64"), "counts"),
        (pandas.Categorical(["a", "b", "c", "a"] * 25), "categories"),
    ],
)
def test_numbers_are_counts_where_a_poisson_law_may_be_theirs(values: Any, kind: str) -> None:
    assert found(pandas.DataFrame({"x": values}))["x"].kind == kind


def test_a_kind_that_is_said_is_taken() -> None:
    columns = found(TABLE, age="real", side="categories", smokes="categories", salary="counts")
    assert [columns[name].kind for name in ("age", "side", "smokes", "salary")] == [
        "real",
        "categories",
        "categories",
        "counts",
    ]
    assert columns["age"].whole


def test_cells_come_back_as_they_were() -> None:
    columns = columns_of(TABLE, {}, "x")
    numbers = numbers_in(TABLE, columns, "x")
    assert not np.isnan(numbers).any()
    back = pandas.DataFrame(cells_of(numbers.astype(np.float32), columns))
    assert back["grade"].tolist() == TABLE["grade"].tolist(), "05 is no number"
    np.testing.assert_allclose(back.pop("weight"), TABLE["weight"], rtol=1e-6)
    pandas.testing.assert_frame_equal(back, TABLE.drop(columns="weight"), check_dtype=False)
    assert [back[name].dtype.kind for name in ("age", "salary", "side", "member")] == ["i", "i", "i", "b"]
    assert all(Column.read(column.written()) == column for column in columns)


def test_missing_values_may_be_a_category(tmp_path: Path) -> None:
    table = TABLE.copy()
    table.loc[:9, ["smokes", "town"]] = None
    table.loc[5:6, "side"] = None
    columns = columns_of(table, {}, "x", gaps_named=True)
    kinds = {column.name: (column.kind, column.values) for column in columns}
    assert kinds["smokes"] == ("categories", ("no", "yes", ""))
    assert kinds["side"] == ("categories", ("-1", "1", ""))
    back = pandas.DataFrame(cells_of(numbers_in(table, columns, "x"), columns))
    assert back["smokes"].tolist() == table["smokes"].fillna("").tolist()
    pandas.testing.assert_series_equal(back["side"], table["side"], check_dtype=False)
    table.to_csv(tmp_path / "x.csv", index=False)
    read = data.load(
        tmp_path / "x.csv", binarise="none", kind="mixed", missing="category", kinds={"grade": "categories"}
    )
    assert [column.values for column in read.schema or () if column.name == "smokes"] == [("no", "yes", "")]
    table.loc[3, "age"] = None
    with pytest.raises(
        InputError, match="train: column 'age' misses 1 of 60 .*: data.missing=drop-rows, or drop-columns, or data"
    ):
        data.from_arrays(table, kind="mixed", missing="category")


def test_rows_or_columns_with_gaps_are_dropped(tmp_path: Path) -> None:
    table = TABLE.copy()
    table.loc[:9, "town"] = None
    for missing, rows, width in (("drop-rows", 50, 8), ("drop-columns", 60, 7)):
        made = data.from_arrays(table, kind="mixed", missing=missing, labels=table["member"])  # type: ignore[arg-type]
        assert (sum(len(x) for x in (made.train, made.valid, made.test)), made.pixels) == (rows, width)
        assert made.labels is not None
        ids = np.concatenate(made.ids or ())
        labels = np.concatenate([made.labels.train, made.labels.valid, made.labels.test])
        assert (np.array(made.labels.classes)[labels] == table["member"].astype(str).to_numpy()[ids]).all()


def test_a_data_set_of_several_kinds(tmp_path: Path) -> None:
    TABLE.to_csv(tmp_path / "x.csv", index=False)
    made = data.load(tmp_path / "x.csv", binarise="none", kind="mixed", kinds={"grade": "categories"})
    again = data.from_arrays(
        TABLE.assign(grade=TABLE["grade"].astype(int)), kind="mixed", kinds={"grade": "categories"}
    )
    assert made.summary == (
        "train 48, valid 6, test 6 examples of 8 columns: bits smokes, side, member; real weight, salary; counts age; "
        "categories town, grade"
    )
    assert (made.digest(), made.kind, str(made.train.dtype)) == (again.digest(), "mixed", "torch.float32")
    other = data.from_arrays(TABLE.assign(grade=TABLE["grade"].astype(int)), kind="mixed", kinds={"age": "real"})
    assert other.digest() != made.digest()


@pytest.mark.parametrize(
    ("change", "kinds", "message"),
    [
        ({"town": "Bern"}, {}, r"column 'town' holds 'Bern' alone, expected what varies: data.drop=\[town\]"),
        ({"town": None}, {}, r"column 'town' holds nothing, expected what varies"),
        (
            {"town": [f"T{i}" for i in range(ROWS)]},
            {},
            "column 'town' holds 60 different values in 60 rows, such as 'T0'",
        ),
        ({}, {"twon": "bits"}, "has no column 'twon', of which data.kinds says the kind; did you mean 'town'"),
        ({}, {"town": "words"}, "data.kinds.town is 'words', expected one of bits, real, counts, categories"),
        ({}, {"town": "bits"}, "column 'town' holds 3 different values, expected two of bits"),
        ({}, {"town": "real"}, "column 'town' holds 'Bern', expected numbers"),
        ({}, {"weight": "counts"}, r"column 'weight' holds [\d.]+, expected counts: whole numbers in 0..16777216"),
        ({"weight": np.inf * np.arange(1, 61)}, {}, r"column 'weight' holds 'inf' alone"),
        (
            {"weight": np.where(np.arange(60) == 9, 1e39, np.arange(60.0))},
            {},
            "column 'weight' holds 1e.39, expected finite",
        ),
        (
            {"town": [datetime.date(2020, 1, 1) + datetime.timedelta(i) for i in range(ROWS)]},
            {},
            "holds 60 different values in 60 rows, such as '2020-01-01', too many for categories",
        ),
    ],
)
def test_refusals_name_the_column_and_what_helps(change: Any, kinds: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        columns_of(TABLE.assign(**change), kinds, "x")


def test_cells_that_training_did_not_have_are_refused() -> None:
    columns = columns_of(TABLE, {}, "x")
    with pytest.raises(
        InputError, match="x: column 'town' holds 'Basel', expected one of 'Bern', 'Chur, GR', 'Zürich' as"
    ):
        numbers_in(TABLE.assign(town="Basel"), columns, "x")
    with pytest.raises(InputError, match="x: column 'age' holds -3, expected counts"):
        numbers_in(TABLE.assign(age=-3), columns, "x")
    with pytest.raises(InputError, match="x: column 'weight' holds 'heavy', expected numbers as in training"):
        numbers_in(TABLE.assign(weight="heavy"), columns, "x")
    with pytest.raises(InputError, match="several columns of one name"):
        columns_of(pandas.concat([TABLE, TABLE], axis=1), {}, "x")


def test_other_things_than_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train is of ndarray, expected a pandas table"):
        data.from_arrays(np.zeros((20, 3)), kind="mixed")
    np.save(tmp_path / "x.npy", np.zeros((20, 3)))
    with pytest.raises(InputError, match=r"x.npy: columns of several kinds are read from .csv, .tsv and .parquet"):
        data.load(tmp_path / "x.npy", binarise="none", kind="mixed")
    with pytest.raises(InputError, match="kinds are of the columns of a table of several kinds, and kind is 'real'"):
        data.load(tmp_path / "x.npy", binarise="none", kind="real", kinds={"a": "real"})
    with pytest.raises(InputError, match="missing is 'category', which a table of several kinds has"):
        data.load(tmp_path / "x.npy", binarise="none", kind="real", missing="category")
