"""What a study is: its grid, the names of its runs, and its folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from dvaepp.cli import main
from dvaepp.errors import InputError
from dvaepp.recipes.catalogue import find
from dvaepp.recipes.recipe import override
from dvaepp.studies import Study, planned
from dvaepp.studies.folder import write_study
from dvaepp.studies.grammar import axes, budget, seeds, shard
from dvaepp.studies.study import matching, read_study, study_from
from dvaepp.studies.work import groups


def study(**settings: Any) -> Study:
    return study_from({"recipes": ["quick/rbm"], "size": "tiny", "seeds": 2} | settings, "it")


def test_values_are_json_or_text_between_commas_outside_brackets_and_quotes() -> None:
    given = ["a=1,1e-3,null,x y", "b=[5,14],[8,18]", 'c="1,5",{"name":"power","beta":3},[[1,2],[3,4]]', "d=p(1,2),q"]
    assert axes(given) == {
        "a": [1, 0.001, None, "x y"],
        "b": [[5, 14], [8, 18]],
        "c": ["1,5", {"name": "power", "beta": 3}, [[1, 2], [3, 4]]],
        "d": ["p(1,2)", "q"],
    }


def test_settings_are_taken_by_the_names_that_they_had() -> None:
    assert list(axes(["model.beta=8,12"])) == ["model.smoothing.beta"]


@pytest.mark.parametrize("text", ["", "a", "a=", "=1", "a=1,", "a=,1", "a=1,,2"])
def test_settings_without_values(text: str) -> None:
    with pytest.raises(InputError, match="--set takes name=value"):
        axes([text])


def test_a_setting_is_varied_once() -> None:
    with pytest.raises(InputError, match="names model.smoothing.beta twice"):
        axes(["model.beta=1", "model.smoothing.beta=2"])


@pytest.mark.parametrize(
    "text", ["", "0", "x", "-1", "5-3", "1,1", "1-3,2", "1.5", "3-", ",", "1e3", "٣", "99999999999", "0-99999"]
)
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="--seeds takes"):
        seeds(text)


@pytest.mark.parametrize("text", ["", "3", "0/8", "9/8", "a/b", "1/2/3", "-1/2", "1/0", "1.0/2"])
def test_shards_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="--shard takes i/n"):
        shard(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "an hour", "1e400"])
def test_budgets_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="--budget takes a positive number"):
        budget(text)


def test_the_grid_is_what_override_makes_of_each_combination() -> None:
    made = study(set={"model.smoothing": ["power", "logistic"], "model.smoothing.beta": [8, 12]}, steps=7)
    found = [(point.recipe, point.seed) for point in made.points()]
    assert found == [
        (
            override(
                find("quick/rbm", "tiny"), ["training.steps=7", f"model.smoothing={name}", f"model.smoothing.beta={b}"]
            ),
            s,
        )
        for name in ("power", "logistic")
        for b in (8, 12)
        for s in (0, 1)
    ]


def test_a_run_folder_is_named_by_what_is_varied() -> None:
    values = {"model.hidden": [[8]], "training.beta": [[5, 14], [8, 18]], "model.smoothing.beta": [8, 9]}
    places = {point.place for point in study(set=values, seeds=1).points()}
    assert "quick/rbm/training.beta=5-14,smoothing.beta=8/seed0" in places
    assert len(places) == 4


def test_a_chosen_component_is_named_by_what_it_is_chosen_for() -> None:
    values = {"objective": ["elbo"], "model.groups": [[5]], "training.kl_warmup": [0]}
    values |= {"model.prior": ["bernoulli"], "objective.estimator.name": ["reinmax", "disarm"]}
    places = [point.place for point in study(set=values, seeds=1).points()]
    assert places == [f"quick/rbm/estimator={name}/seed0" for name in ("reinmax", "disarm")]


def test_values_that_look_alike_in_safe_letters_have_folders_of_their_own() -> None:
    made = study(set={"data.name": ["a b.npy", "a/b.npy", "a-b.npy", "x" * 200]}, seeds=1).points()
    places = [point.place for point in made]
    assert len({*places}) == 4
    assert all(len(part) < 150 and not set(part) & set(" []\"'\\:*?") for place in places for part in place.split("/"))


def test_the_command_of_a_point_makes_its_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    import shlex

    made = study(set={"training.beta": [[5, 14], None], "model.smoothing": ["exponential"]}, steps=9, seeds="3-3")
    for point in made.points():
        words = shlex.split(point.command)
        assert words[:2] == ["dvaepp", "train"]
        at = words.index("--seed")
        assert words[at + 1] == "3"
        shown = words[2:at] + [w for k, w in enumerate(words) if words[k - 1] == "--set" for w in ("--set", w)]
        assert main(["show", *shown]) == 0
        assert json.loads(capsys.readouterr().out) == point.recipe.model_dump(mode="json")


def test_tables_and_patterns_name_recipes() -> None:
    assert len(matching("table-2")) == 48
    assert matching("table-2/mnist-static/linear-?/rbm") == [f"table-2/mnist-static/linear-{k}/rbm" for k in (1, 2)]
    cells = Study(recipes=["table-2"], seeds=1).points("mnist-static/*/rbm")
    assert [point.recipe.name for point in cells] == matching("table-2/mnist-static/*/rbm")
    with pytest.raises(InputError, match="matches none of quick/rbm"):
        study().points("nothing")


def test_a_study_comes_back_from_json(tmp_path: Path) -> None:
    recipe = {**find("quick/rbm", "tiny").model_dump(mode="json"), "name": "mine"}
    made = study(recipes=["quick", recipe], set={"model.smoothing": [{"name": "power", "beta": 2}, "logistic"]})
    (tmp_path / "study.json").write_text(made.model_dump_json())
    assert read_study(tmp_path / "study.json").points() == made.points()
    (tmp_path / "mine.json").write_text(json.dumps(recipe))
    assert study(recipes=[str(tmp_path / "mine.json")]).recipes == (recipe,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipes": []}, "recipes"),
        ({"recipes": "quick/rbm"}, "recipes"),
        ({"recipes": ["quick/rmb"]}, "did you mean 'quick/rbm'"),
        ({"size": "large"}, "size"),
        ({"steps": 0}, "steps"),
        ({"seeds": -1}, "--seeds takes"),
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": [2**31]}, "each once"),
        ({"seeds": [0.5]}, "seeds"),
        ({"set": {"training.l2": []}}, "training.l2 takes values that differ"),
        ({"set": {"training.l2": [1, 1]}}, "training.l2 takes values that differ"),
        ({"set": {"training.l2": [0, 0.0]}}, "training.l2 takes values that differ"),
        ({"steps": 5, "set": {"training.steps": [3, 4]}}, "both say how long a run trains"),
        ({"set": [1]}, "set"),
        ({"sed": 3}, "did you mean 'seeds'"),
        ({"threads": 0}, "threads"),
    ],
)
def test_studies_that_are_none(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        study(**settings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model.smoothing": ["exponential", "concrete"]}, "quick/rbm with model.smoothing=concrete is not possible"),
        ({"training.step": [1]}, "training.step=1 is not possible.*did you mean 'steps'"),
        ({"model.smoothing.beta": [5, 8], "model.smoothing": ["power"]}, "make the same recipe"),
        ({"evaluation.samples": [0, 3]}, "evaluation.samples=0 is not possible"),
    ],
)
def test_an_impossible_combination_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        study(set=values).points()


def test_two_recipes_of_one_name_are_not_one_study() -> None:
    recipe = find("quick/rbm", "small").model_dump(mode="json")
    with pytest.raises(InputError, match="one name"):
        study(recipes=["quick/rbm", recipe]).points()


def test_shards_are_every_nth_point_and_together_all(tmp_path: Path) -> None:
    made = study(set={"training.l2": [0, 1, 2]}, seeds=3)
    parts = [planned(made, tmp_path / "s", shard=(i, 4)).points for i in (1, 2, 3, 4)]
    assert [len(part) for part in parts] == [3, 2, 2, 2]
    assert {point.place for part in parts for point in part} == {point.place for point in made.points()}
    with pytest.raises(InputError, match="10/10 has nothing to do"):
        planned(made, tmp_path / "s", shard=(10, 10))


def test_groups_hold_seeds_and_schedules_of_one_cell() -> None:
    made = study(set={"training.l2": [0, 1], "model.smoothing": ["logistic", "power"], "training.batch": [10, 20]})
    found = groups(made.points(), 3, "cpu")
    assert sorted(map(len, found)) == [1, 1, 1, 1, 3, 3, 3, 3]
    for group in found:
        assert len({(p.recipe.model.smoothing, p.recipe.training.batch) for p in group}) == 1
    assert [point for group in groups(made.points(), 1, "cpu") for point in group if len(group) > 1] == []


def test_a_folder_takes_more_of_the_same_study(tmp_path: Path) -> None:
    base = {"training.l2": [0, 1]}
    write_study(study(set=base), tmp_path)
    write_study(study(set={"training.l2": [1, 2]}, seeds="1,4", recipes=["quick/directed"]), tmp_path)
    whole = read_study(tmp_path / "study.json")
    assert whole == study(set={"training.l2": [0, 1, 2]}, seeds=[0, 1, 4], recipes=["quick/rbm", "quick/directed"])
    before = {point.place for point in study(set=base).points()}
    assert before <= {point.place for point in whole.points()}


@pytest.mark.parametrize(
    "other",
    [
        {"size": "small"},
        {"steps": 80},
        {"data": "mnist-static"},
        {"set": {}},
        {"set": {"training.l2": [0]}},
        {"set": {"training.l2": [0, 1], "model.hidden": [[9]]}},
        {"set": {"training.l2": [0, 1], "model.hidden": [[8], [9]]}},
        {"recipes": [{**find("quick/rbm", "small").model_dump(mode="json")}]},
    ],
)
def test_a_folder_of_another_study_is_left_as_it_is(tmp_path: Path, other: dict[str, Any]) -> None:
    one = {"set": {"training.l2": [0, 1], "model.hidden": [[8]]}}
    write_study(study(**one), tmp_path)
    before = (tmp_path / "study.json").read_bytes()
    for refuse in (write_study, planned):
        with pytest.raises(InputError, match="holds another study.*--out names another folder"):
            refuse(study(**(one | other)), tmp_path)
    assert (tmp_path / "study.json").read_bytes() == before


def test_folders_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"is not empty and holds no study\.json"):
        planned(study(), tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        planned(study(), tmp_path / "thesis.tex")
    for content in ("{", "[]", "{}", '{"recipes": 3}', "\xff"):
        (tmp_path / "study.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(InputError, match=r"study\.json is not a study"):
            planned(study(), tmp_path)
