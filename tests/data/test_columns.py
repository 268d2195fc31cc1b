"""Columns of several kinds: what each holds, and its cells as numbers and back."""

import datetime
import inspect
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from dvaepp import data
from dvaepp.data import tables
from dvaepp.data.cells import columns_of, numbers_in
from dvaepp.data.columns import Column, cells_of
from dvaepp.data.reading import Reading
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
    assert {name: column.stored for name, column in columns.items()} == {
        "weight": "float",
        "age": "int",
        "salary": "int",
        "smokes": "text",
        "side": "int",
        "member": "bool",
        "town": "text",
        "grade": "text",
    }


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
    assert columns["age"].stored == "int"


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
    assert kinds["smokes"] == ("categories", ("no", "yes"))
    assert kinds["side"] == ("categories", ("-1", "1"))
    assert [column.categories for column in columns if column.gap] == [3, 3, 4]
    back = pandas.DataFrame(cells_of(numbers_in(table, columns, "x"), columns))
    assert back["smokes"].tolist() == table["smokes"].tolist()
    pandas.testing.assert_series_equal(back["side"], table["side"], check_dtype=False)
    table.to_csv(tmp_path / "x.csv", index=False)
    read = data.load(
        tmp_path / "x.csv", binarise="none", kind="mixed", missing="category", kinds={"grade": "categories"}
    )
    assert [column.categories for column in read.schema or () if column.name == "smokes"] == [3]
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
    made, again = data.load(tmp_path / "x.csv", kind="mixed"), data.from_arrays(TABLE, kind="mixed")
    assert made.summary == (
        "train 48, valid 6, test 6 examples of 8 columns: bits smokes, side, member; real weight, salary; counts age; "
        "categories town, grade"
    )
    assert (made.digest(), made.kind, str(made.train.dtype)) == (again.digest(), "mixed", "torch.float32")
    other = data.from_arrays(TABLE, kind="mixed", kinds={"age": "real"})
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
        ({}, {"twon": "bits"}, "has no column 'twon', of which kinds says what it holds; did you mean 'town'"),
        ({}, {"town": "words"}, "kinds.town is 'words', expected one of bits, real, counts, categories"),
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


def mixed(path: Path, **options: Any) -> data.Dataset:
    return data.load(path, kind="mixed", **options)


def test_words_that_look_like_gaps_or_numbers_are_kept(tmp_path: Path) -> None:
    empty = pandas.DataFrame({"c": ["", "x"] * 30, "n": np.arange(60.0) ** 0.5})
    columns = columns_of(empty, {}, "x", gaps_named=True)
    assert (columns[0].values, columns[0].gap) == (("", "x"), False)
    with pytest.raises(InputError, match="column 'c' misses 20 of 60 values"):
        data.from_arrays(pandas.DataFrame({"c": ["", "x", None] * 20, "n": np.arange(60.0) ** 0.5}), kind="mixed")
    zips = pandas.DataFrame({"zip": ["007", "012", "9000"] * 20, "n": np.arange(60.0) ** 0.5})
    zips.to_csv(tmp_path / "zips.csv", index=False)
    read = mixed(tmp_path / "zips.csv")
    assert read.schema is not None
    assert (read.schema[0].values, read.schema[0].stored) == (("9000", "007", "012"), "text")
    named = pandas.DataFrame({"word": ["NA", "None", "x"] * 20, "n": np.arange(60.0) ** 0.5})
    columns = columns_of(named, {}, "x")
    named.to_csv(tmp_path / "named.csv", index=False)
    again = read_again(tmp_path / "named.csv", columns)
    assert np.array_equal(again, numbers_in(named, columns, "x")), "what training knew as words are words"


def read_again(path: Path, columns: tuple[Column, ...]) -> np.ndarray[Any, Any]:
    known = Reading("none", kind="mixed", known=columns, names=tuple(column.name for column in columns))
    return tables.read(path, known).values


def test_decimal_commas_stand_beside_dates(tmp_path: Path) -> None:
    lines = [f"0{1 + row % 3}.01.2020;{row},{row % 7};{'ab'[row % 2]}" for row in range(30)]
    (tmp_path / "german.csv").write_text("\n".join(["datum;wert;art", *lines]))
    read = mixed(tmp_path / "german.csv")
    assert [column.kind for column in read.schema or ()] == ["categories", "real", "bits"]
    assert read.train[:, 1].max() > 20


def test_gaps_are_dropped_before_columns_are_looked_at(tmp_path: Path) -> None:
    table = pandas.DataFrame({"c": ["a", "b", "u", "v"] * 15, "n": np.arange(60.0) ** 0.5})
    table.loc[table["c"].isin(["u", "v"]), "n"] = None
    made = data.from_arrays(table, kind="mixed", missing="drop-rows")
    assert made.schema is not None
    assert (made.schema[0].kind, made.schema[0].values) == ("bits", ("a", "b"))
    assert "30 rows with gaps left out" in made.protocol
    assert "columns with gaps left out: n" in data.from_arrays(table, kind="mixed", missing="drop-columns").protocol


@pytest.mark.parametrize(
    ("cells", "kind", "stored"),
    [
        (pandas.array([True, False, None] * 20, dtype="boolean"), "real", "int"),
        (pandas.Categorical([1, 2, 3] * 20), "real", "int"),
        (pandas.Series([1, 2, 3] * 20, dtype=object), "counts", "int"),
        (pandas.Series([Decimal("1.5"), Decimal("2"), Decimal("3")] * 20), "real", "float"),
        (pandas.Series(["1.5", "2", "3"] * 20), "real", "float"),
    ],
)
def test_numbers_of_any_type_may_be_said_to_be_some(cells: Any, kind: str, stored: str) -> None:
    column = found(pandas.DataFrame({"x": cells}), x=kind)["x"]
    assert (column.kind, column.stored) == (kind, stored)
    assert numbers_in(pandas.DataFrame({"x": cells}), [column], "x").shape == (60, 1)


def test_objects_that_are_numbers_are_found_to_be() -> None:
    assert found(pandas.DataFrame({"x": pandas.Series([*range(1, 30), None] * 2, dtype=object)}))["x"].kind == "counts"
    single = pandas.DataFrame({"x": np.array([0.1, 0.2] * 30, np.float32)})
    column = found(single)["x"]
    assert column.values == ("0.1", "0.2")
    assert numbers_in(pandas.DataFrame({"x": [0.1, 0.2] * 30}), [column], "x")[:2].tolist() == [[0.0], [1.0]]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[1, 2], [3]] * 30, "holds list, such as"),
        ([{"a": 1}, {}] * 30, "holds dict, such as"),
        ([b"a", b"b"] * 30, "holds bytes, such as"),
        ([(1, 2), (2, 3)] * 30, "holds tuple, such as"),
        (2**60 + np.arange(60), "varies by less than single precision resolves"),
        ([np.inf, 1.0, 2.0] * 20, "holds inf, expected finite numbers of single precision"),
    ],
)
def test_cells_that_are_neither_words_nor_numbers_are_refused(cells: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"x: column 'x' {message}"):
        columns_of(pandas.DataFrame({"x": pandas.Series(list(cells))}), {}, "x")


def test_numbers_of_another_type_than_in_training_are_refused() -> None:
    column = found(TABLE)["weight"]
    for cells in (pandas.to_datetime(["2020-01-01"] * 60), pandas.to_timedelta(np.arange(60), "s"), [True, "x"] * 30):
        with pytest.raises(InputError, match="x: column 'weight' holds .*, expected numbers as in training"):
            numbers_in(pandas.DataFrame({"weight": cells}), [column], "x")


def test_numbers_that_stand_for_no_cell_are_refused() -> None:
    columns = columns_of(TABLE[["town", "age"]], {}, "x")
    for wrong in ([[9, 1]], [[-1, 1]], [[0.5, 1]], [[0, -1]]):
        with pytest.raises(InputError, match="x: column '(town|age)' holds"):
            cells_of(np.array(wrong, np.float32), columns)
    cells = cells_of(np.array([[np.nan, np.nan], [1, 2.0**63 - 2.0**63 + 7]]), columns)
    assert cells["town"].tolist() == [None, "Chur, GR"]
    assert np.isnan(cells["age"][0])
    large = Column("n", "real", stored="int")
    assert large.cells(np.array([1e30, -1e30, 2.0])).tolist() == [2**53, -(2**53), 2]


def test_bits_that_may_be_missing_are_categories() -> None:
    table = TABLE.mask(TABLE["smokes"] == "yes", None)[["smokes", "age"]]
    table.loc[:3, "smokes"] = "yes"
    with pytest.raises(InputError, match="column 'smokes' misses values, and kinds says bits, expected categories"):
        columns_of(table, {"smokes": "bits"}, "x", gaps_named=True)


def test_other_things_than_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train is of ndarray, expected a pandas table"):
        data.from_arrays(np.zeros((20, 3)), kind="mixed")
    with pytest.raises(InputError, match="train: column 'id' counts the rows, expected it left out"):
        data.from_arrays(TABLE.assign(id=range(ROWS)), kind="mixed")
    with pytest.raises(InputError, match="load takes a name or a path, not DataFrame: data.from_arrays takes arrays"):
        inspect.unwrap(data.load)(TABLE)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="kinds must map names of columns to what they hold"):
        inspect.unwrap(data.from_arrays)(TABLE, kind="mixed", kinds=["real"])
    np.save(tmp_path / "x.npy", np.zeros((20, 3)))
    with pytest.raises(InputError, match=r"x.npy: columns of several kinds are read from .csv, .tsv and .parquet"):
        data.load(tmp_path / "x.npy", binarise="none", kind="mixed")
    with pytest.raises(InputError, match="kinds say what columns of several kinds hold: expected kind mixed"):
        data.load(tmp_path / "x.npy", binarise="none", kind="real", kinds={"a": "real"})
    with pytest.raises(InputError, match="missing is 'category', which columns of several kinds have"):
        data.load(tmp_path / "x.npy", binarise="none", kind="real", missing="category")
