"""The first line of a table: names of its columns, or the first row."""

import inspect
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from dvaepp import data
from dvaepp.cli import main
from dvaepp.data import formats
from dvaepp.data.own import examples_at
from dvaepp.errors import InputError
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import override

RANDOM = np.random.RandomState(7)
KINDS: list[Any] = ["bits", "real", "counts", "categories"]
TABLES: dict[str, np.ndarray] = {
    "bits": RANDOM.randint(0, 2, (30, 6)),
    "real": RANDOM.standard_normal((30, 6)).round(4),
    "counts": RANDOM.poisson(300, (30, 6)),
    "categories": RANDOM.randint(0, 4, (30, 6)),
}


def written(path: Path, rows: ArrayLike, header: str = "") -> Path:
    file = path / "x.csv"
    file.write_text(
        (header and header + "\n") + "\n".join(",".join(map(str, row)) for row in np.asarray(rows).tolist())
    )
    return file


def read(file: Path, kind: Any, **settings: Any) -> list[list[float]]:
    if kind != "bits":
        settings |= {"binarise": "none", "kind": kind}
    return data.read_examples(file, **settings)[0].double().numpy().round(4).tolist()


def pandas(columns: int, start: int = 0) -> str:
    return ",".join(str(start + column) for column in range(columns))


# Missing values


MARKS = ["NA", "NaN", "nan", "N/A", "null", "NULL", "None", "?", "-", "", " ", "#N/A", "<NA>", "."]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("place", [0, 3])
def test_a_first_row_that_lacks_a_value_is_refused_as_any_row(tmp_path: Path, kind: Any, mark: str, place: int) -> None:
    rows = TABLES[kind].astype(object)
    rows[0, place] = mark
    with pytest.raises(InputError, match=r"x.csv: line 1 holds '.*', expected"):
        read(written(tmp_path, rows), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_may_hold_such_marks_beside_names(tmp_path: Path, kind: Any) -> None:
    for header in ("NA,b,c,d,e,f", ",a,b,c,d,e", "a,b,c,NA,?,f"):
        assert read(written(tmp_path, TABLES[kind], header), kind) == TABLES[kind].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, 3, 5])
@pytest.mark.parametrize(
    "other", [r"\N", "missing", "$1", "1%", "0x10", "1_000", "id", "total", "n.d.", "1 2", "1;2", "<1", "1.2.3"]
)
def test_a_first_line_of_numbers_and_other_cells_is_refused_until_a_setting_says_what_it_is(
    tmp_path: Path, kind: Any, other: str, place: int
) -> None:
    rows = TABLES[kind].astype(object)
    rows[0, place] = other
    file = written(tmp_path, rows)
    said = rf"line 1 mixes numbers with {re.escape(repr(other))}, .*header=present .*header=absent .*data\.header"
    with pytest.raises(InputError, match=said):
        read(file, kind)
    assert read(file, kind, header="present") == TABLES[kind][1:].tolist()
    with pytest.raises(InputError, match="line 1 holds '.*', expected"):
        read(file, kind, header="absent")


@pytest.mark.parametrize("header", ["id,2019,2020", "2019,total,NA", "1e3,b,c", "nan,x,-1", "a,inf,b", "true,b,c"])
def test_one_number_in_a_first_line_is_enough_to_ask(tmp_path: Path, header: str) -> None:
    for kind in KINDS:
        with pytest.raises(InputError, match="line 1 mixes numbers with '"):
            read(written(tmp_path, TABLES[kind][:, :3], header), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_digits_with_underscores_are_names_and_no_numbers(tmp_path: Path, kind: Any) -> None:
    file = written(tmp_path, TABLES[kind], "1_1,1_2,1_3,2_1,2_2,2_3")
    assert read(file, kind) == TABLES[kind].tolist()
    rows = TABLES[kind].astype(object)
    rows[4, 0] = "1_0"
    with pytest.raises(InputError, match="line 5 holds '1_0', expected"):
        read(written(tmp_path, rows), kind)


# A header of numbers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", ["0,1,0,1,1,0", "0,1,2,3,4,5", "a,b,c,d,e,f", "NA,0,1,1,0,1"])
def test_a_setting_says_that_there_is_a_header(tmp_path: Path, kind: Any, first: str) -> None:
    file = written(tmp_path, TABLES[kind], first)
    assert read(file, kind, header="present") == TABLES[kind].tolist()
    settings = {} if kind == "bits" else {"binarise": "none", "kind": kind}
    without = data.load(str(written(tmp_path, TABLES[kind])), **settings)
    assert (
        data.load(str(written(tmp_path, TABLES[kind], first)), header="present", **settings).digest()
        == without.digest()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_setting_says_that_there_is_none(tmp_path: Path, kind: Any) -> None:
    assert read(written(tmp_path, TABLES[kind]), kind, header="absent") == TABLES[kind].tolist()
    if kind != "bits":
        counted = read(written(tmp_path, TABLES[kind], pandas(6)), kind, header="absent")
        assert counted == [[0, 1, 2, 3, 4, 5], *TABLES[kind].tolist()]
    with pytest.raises(InputError, match="line 1 holds 'a', expected"):
        read(written(tmp_path, TABLES[kind], "a,b,c,d,e,f"), kind, header="absent")


EVIDENT = [
    *(pandas(columns, start) for columns in (3, 4, 6, 50) for start in (0, 1)),
    "2019,2020,2021",
    "1990,2000,2010,2020",
    "2019,2020",
    "400,402,404,406,408",
    " 0, 1, 2, 3",
    '"1","2","3","4"',
    "400.0,500.0,600.0",
    "1e3,2e3,3e3",
    "1E+3, 2E+3 ,3E+3",
    "2022,2021,2020",
    "2022,2021",
    "2020,2010,2000,1990",
    "2019.0,2020.0,2021.0",
    "7,6,5,4,3,2,1,0",
    "0.0,1.0,2.0,3.0",
    "1000.1,1000.2,1000.3,1000.4",
    "-600.5,-500.5,-400.5",
    "-1e300,-2e300,-3e300",
]


@pytest.mark.parametrize("header", EVIDENT)
@pytest.mark.parametrize("kind", ["bits", "real", "counts", "fractions"])
def test_numbers_that_evidently_name_the_columns_are_refused(tmp_path: Path, kind: Any, header: str) -> None:
    columns = header.count(",") + 1
    rows: dict[str, np.ndarray] = {
        "bits": RANDOM.randint(0, 2, (30, columns)),
        "real": RANDOM.standard_normal((30, columns)).round(3),
        "counts": RANDOM.poisson(300, (30, columns)),
        "fractions": RANDOM.random_sample((30, columns)).round(2),
    }
    file = written(tmp_path, rows[kind], header)
    said = r"x.csv: line 1 holds .*\d \.\. .*\d, which may be names of columns.*header=present.*header=absent.*data\."
    with pytest.raises(InputError, match=said):
        read(file, "real" if kind == "fractions" else kind)


def test_numbers_count_as_names_beside_many_categories_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1 holds 0 .. 19, which may be names of columns"):
        read(written(tmp_path, RANDOM.randint(0, 5, (30, 20)), pandas(20)), "categories")


@pytest.mark.parametrize("kind", ["real", "counts"])
def test_years_are_names_of_larger_numbers_only_one_after_the_other(tmp_path: Path, kind: Any) -> None:
    calories = RANDOM.randint(1500, 2600, (30, 3))
    calories[0] = [1950, 2010, 2050]
    assert read(written(tmp_path, calories), kind) == calories.tolist()


@given(
    st.integers(1, 12).flatmap(
        lambda columns: st.lists(
            st.lists(st.integers(0, 1), min_size=columns, max_size=columns), min_size=1, max_size=12
        )
    )
)
def test_every_row_of_bits_is_a_row(rows: list[list[int]]) -> None:
    for form in ("{}", "{}.0"):
        text = "\n".join(",".join(form.format(bit) for bit in row) for row in rows).encode()
        assert formats.table(text, Path("x.csv")).tolist() == rows
        assert formats.number_table(text, Path("x.csv")).tolist() == rows


def ordinary() -> dict[str, np.ndarray]:
    """Tables whose first row is like the others, though it counts up or is as small as names."""
    random = np.random.RandomState(3)
    ranks = np.array([random.permutation(6) for _ in range(40)])
    ranks[0] = range(6)
    steps = random.randint(0, 30, (40, 1)) + np.arange(5)
    steps[0] = range(5)
    categories = random.randint(0, 4, (60, 3))
    categories[0] = [0, 1, 2]
    likert = random.randint(1, 6, (60, 4))
    likert[0] = [1, 2, 3, 4]
    identified = np.column_stack([np.arange(1, 61), random.randint(1, 6, (60, 2))])
    identified[0] = [1, 2, 3]
    sorted_down = np.sort(random.lognormal(5, 2, (40, 3)).astype(int))[::-1]
    return {
        "ranks": ranks,
        "ranks from 1": ranks + 1,
        "arange": np.arange(60).reshape(20, 3),
        "arange from 1": np.arange(1, 61).reshape(15, 4),
        "steps": steps,
        "categories": categories,
        "likert": likert,
        "identified": identified,
        "two columns": np.array([[0, 1], *random.randint(0, 9, (20, 2))]),
        "two counts": np.array([[1, 2], *random.poisson(300, (20, 2))]),
        "one column": np.arange(30)[:, None],
        "sorted": sorted_down,
        "years": 1990 + random.randint(0, 30, (20, 1)) + np.arange(3),
        "years of events": np.sort(random.randint(1900, 2024, (30, 4))),
        "falling": np.array([[5, 4, 3, 2], *random.randint(0, 9, (40, 4))]),
        "arange down": np.arange(60, 0, -1).reshape(20, 3),
        "multiples": np.outer(np.arange(1, 20) ** 2, [1, 2, 3]),
        "growth": np.array([[1, 3, 5], *np.sort(random.randint(6, 99, (20, 3)), 0)]),
        "likert down": np.array([[3, 2, 1], *random.randint(1, 6, (60, 3))]),
        "unequal steps": np.array([[0, 2, 5], *random.poisson(300, (20, 3))]),
        "equal steps": np.array([[2, 4, 6], *random.randint(0, 30, (20, 3))]),
        "arange by ten": np.arange(0, 600, 10).reshape(20, 3),
        "from 7": np.array([[7, 8, 9, 10], *random.poisson(9, (40, 4))]),
    }


@pytest.mark.parametrize("name", ordinary())
@pytest.mark.parametrize("kind", ["real", "counts"])
def test_rows_of_ordinary_tables_are_rows(tmp_path: Path, kind: Any, name: str) -> None:
    assert read(written(tmp_path, ordinary()[name]), kind) == ordinary()[name].tolist()


@pytest.mark.parametrize("scale", [0.1, 0.5, 12.34, -1.0])
@pytest.mark.parametrize("name", ordinary())
def test_rows_of_ordinary_tables_are_rows_in_other_units(tmp_path: Path, name: str, scale: float) -> None:
    rows = (ordinary()[name] * scale).round(4)
    assert read(written(tmp_path, rows), "real") == rows.astype(np.float32).astype(float).round(4).tolist()


@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3), min_size=1))
def test_every_table_of_finite_numbers_is_read_or_refused_in_a_sentence(rows: list[list[float]]) -> None:
    text = "\n".join(",".join(map(str, row)) for row in [[-1e308, 0.0, 1e308], *rows]).encode()
    with suppress(InputError):
        assert formats.number_table(text, Path("x.csv")).tolist()[1:] == rows


def test_random_tables_have_no_header() -> None:
    random = np.random.RandomState(11)
    for _ in range(60):
        shape = random.randint(30, 60), random.randint(1, 8)
        whole = random.randint(0, random.randint(2, 8), shape)
        for rows in (
            whole,
            random.poisson(random.choice([1, 30]), shape),
            whole / 2,
            random.normal(size=shape).round(1),
        ):
            text = "\n".join(",".join(map(str, row)) for row in rows.tolist()).encode()
            assert np.array_equal(formats.number_table(text, Path("x.csv")), rows)


def test_a_header_is_one_of_three_words(tmp_path: Path) -> None:
    file = written(tmp_path, TABLES["bits"])
    for read_ in (data.load, data.read_examples):
        with pytest.raises(InputError, match="header is 'yes', expected one of auto, present, absent"):
            inspect.unwrap(read_)(str(file), header="yes")  # type: ignore[operator]


def test_a_recipe_says_whether_tables_have_a_header(tmp_path: Path) -> None:
    file = written(tmp_path, TABLES["counts"], pandas(6))
    settings = [f"data.name={file}", "model.likelihood=poisson"]
    for value, rows in {"present": 30, "absent": 31}.items():
        recipe = override(catalogue.find("quick/rbm", "tiny"), [*settings, f"data.header={value}"])
        assert sum(map(len, (recipe.load_data().train, recipe.load_data().valid, recipe.load_data().test))) == rows
        assert len(examples_at(file, recipe.reading).x) == rows
    with pytest.raises(InputError, match="which may be names of columns"):
        override(catalogue.find("quick/rbm", "tiny"), settings).load_data()
    with pytest.raises(InputError, match=r"setting 'data.header'.*'auto', 'present' or 'absent'"):
        override(catalogue.find("quick/rbm", "tiny"), ["data.header=1"])


def test_train_names_the_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, TABLES["real"], "2017,2018,2019,2020,2021,2022")
    settings = ["--set", "model.likelihood=normal", "--out", str(tmp_path / "run")]
    assert main(["train", "quick/rbm", "--size", "tiny", "--data", str(file), *settings]) == 2
    assert "in a recipe data.header" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
