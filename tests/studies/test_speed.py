"""Ways to train a recipe: which there are, and that timing them keeps nothing and refuses what cannot be."""

from pathlib import Path

import pytest
import torch

from dvaepp.cli import main
from dvaepp.errors import InputError
from dvaepp.networks import compiled
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import override
from dvaepp.studies.speed import Choice, Speed, choices, speeds


def test_convolutional_models_have_a_choice_of_precision_too() -> None:
    plain = choices(catalogue.find("quick/rbm", "tiny"), [1, 2])
    assert [each.options for each in plain] == [
        "--set training.compile=false --threads 1",
        "--set training.compile=true --threads 1",
        "--set training.compile=false --threads 2",
        "--set training.compile=true --threads 2",
    ]
    found = choices(catalogue.find("table-3/mnist-static/rbm-normal", "tiny"), [1])
    assert [each.label for each in found] == [
        f"compile={compile}, precision={precision}, threads=1"
        for compile in ("false", "true")
        for precision in ("float32", "bfloat16")
    ]


def test_each_choice_is_timed_and_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = override(catalogue.find("quick/rbm", "tiny"), ["model.groups=[10]", "model.hidden=[]"])
    several = [Choice((f"training.compile={each}",), 1) for each in ("false", "true")]
    found = speeds(recipe, several, seconds=0.02, rounds=2)
    assert [each.choice for each in found] == several
    assert all(each.seconds > 0 and each.first > 0 for each in found)
    assert list(tmp_path.iterdir()) == []
    assert torch.get_num_threads() == 1


def test_the_command_recommends_the_shortest_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = {each: Choice((f"training.compile={each}",), 1) for each in ("false", "true")}
    for order in (("false", "true"), ("true", "false")):
        found = [Speed(ways[each], {"false": 0.2, "true": 0.1}[each], 1.0) for each in order]
        monkeypatch.setattr("dvaepp.cli.speed.speeds", lambda *_, found=found, **__: found)
        assert main(["speed", "quick/rbm", "--size", "tiny"]) == 0
        said = capsys.readouterr().out
        assert "fastest: --set training.compile=true --threads 1" in said
        assert "compile=false, threads=1" in said
        assert "200.00" in said


def test_a_device_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", "quick/rbm", "--size", "tiny", "--device", "gpu"]) == 2
    assert "device 'gpu' is not one of cpu" in capsys.readouterr().err


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    recipe = catalogue.find("quick/rbm", "tiny")
    assert [each.label for each in choices(recipe, [1])] == ["compile=false, threads=1"]
    assert len(choices(recipe, [1], "cuda")) == 2
    with pytest.raises(InputError, match=r"need\w* a C\+\+ compiler"):
        speeds(recipe, [Choice(("training.compile=true",), 1)])


def test_more_than_eight_sizes_of_cells_are_compiled() -> None:
    """torch gives up after eight, and says so in a warning that nobody reads."""
    compiled._compiled.cache_clear()
    with torch._dynamo.config.patch(recompile_limit=8):
        compiled._compiled()
        assert torch._dynamo.config.recompile_limit >= 64
    compiled._compiled.cache_clear()  # the limit of before has come back
