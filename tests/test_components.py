"""What recipes choose by name: found, documented, registered, refused; new ones are known once they are defined."""

import inspect
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import numpy as np
import pytest
import torch
from pydantic_core import PydanticCustomError
from registry import (
    every_concrete,
    every_data_set,
    every_deterministic,
    every_estimator,
    every_likelihood,
    every_local,
    every_objective,
    every_optimiser,
    every_prior,
    every_sampler,
    every_smoothing,
    every_spike,
    every_table,
)
from torch import nn

from dvaepp import data
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.boltzmann.samplers import Sampler
from dvaepp.components import registry as registry_module
from dvaepp.components.fields import Named, settings_model, settings_written, written_out
from dvaepp.components.registry import Component, component, components, described, faults, settings_of
from dvaepp.data.download import PublicDataSet
from dvaepp.errors import InputError
from dvaepp.estimators.base import EstimatorDesign
from dvaepp.likelihoods.base import Likelihood
from dvaepp.models.local import LocalVariables
from dvaepp.networks.residual import Cells
from dvaepp.objectives.base import Objective
from dvaepp.objectives.bounds import JointBound
from dvaepp.optimisers.adam import Adam
from dvaepp.optimisers.base import Optimiser
from dvaepp.priors.base import PriorDesign
from dvaepp.priors.normal import NormalPrior
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import override
from dvaepp.recipes.table import Table
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.smoothings.numerical import DensityPair
from dvaepp.smoothings.power import PowerFunction

SMOOTHINGS = [
    *(case.smoothing for case in (*every_smoothing.values(), *every_spike.values(), *every_deterministic.values())),
    *every_concrete.values(),
]
PRIORS = {NormalPrior, *(type(case.make()) for case in every_prior.values())}


def prior_of(design: type[PriorDesign]) -> type[Any]:
    """What a design makes, over as many bits as its default graph has."""
    return type(design().outline()((80, 80), nn.Linear))


# What of each kind the tests' registry holds: types, or names.
ESTIMATORS = {type(make(4)) for make in every_estimator.values()}


def estimator_of(design: type[EstimatorDesign]) -> type[Any]:
    """What a design makes."""
    return type(design().build(4, torch.zeros(12)))


KINDS: dict[type[Any], set[Any]] = {
    Smoothing: {type(each) for each in SMOOTHINGS},
    Sampler: {type(each) for each in every_sampler.values()},
    Likelihood: {type(each) for each in every_likelihood},
    LocalVariables: {type(each) for each in every_local.values()},
    Optimiser: {type(each) for each in every_optimiser.values()},
    EstimatorDesign: {each for each in components(EstimatorDesign).values() if estimator_of(each) in ESTIMATORS},
    PublicDataSet: set(every_data_set),
    Table: set(every_table),
    Objective: {*every_objective, "rolfe", "mean-field", "gumbolt"},  # tests/objectives/test_rolfe.py, test_relaxed.py
    PriorDesign: {each for each in components(PriorDesign).values() if prior_of(each) in PRIORS},
}
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
ROOT = Path(__file__).parents[1]


def concrete(kind: type[Any]) -> Iterator[type[Any]]:
    """The library's own concrete classes of a kind."""
    components(kind)
    for derived in kind.__subclasses__():
        yield from concrete(derived) if inspect.isabstract(derived) or derived.__subclasses__() else ()
        if not inspect.isabstract(derived) and derived.__module__.startswith("dvaepp."):
            yield derived


def by_hand(each: type[Any]) -> bool:
    """Whether a class has settings that no recipe can hold: functions, or anything at all."""
    hints = get_type_hints(each)
    return any(
        hints[f.name] is Any or hints[f.name].__class__.__name__ == "_CallableGenericAlias" for f in fields(each)
    )


@kinds
def test_every_class_of_a_kind_is_found_by_its_name_documented_and_registered(kind: type[Any]) -> None:
    found = {each for each in concrete(kind) if not by_hand(each)}
    named = components(kind)
    assert found == set(named.values())
    assert len(found) >= 2
    for name, each in named.items():
        assert component(kind, name) is each
        assert each.name == name
        first = (each.__doc__ or "").split("\n")[0]
        assert re.fullmatch(r".{15,}[.:]", first), each
        assert first in described(each)
        assert {each, name} & KINDS[kind], f"{each} is not in the tests' registry"


@kinds
def test_every_component_says_what_it_is_in_the_list(kind: type[Any], capsys: pytest.CaptureFixture[str]) -> None:
    from dvaepp.cli import main

    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in components(kind):
        assert f"  {name}" in printed


PLAIN = [(kind, name) for kind in KINDS if kind not in (PublicDataSet, Table) for name in components(kind)]


@pytest.mark.parametrize(("kind", "name"), PLAIN, ids=[f"{kind.__name__}-{name}" for kind, name in PLAIN])
def test_a_component_is_json_both_ways(kind: type[Any], name: str) -> None:
    made = component(kind, name)()
    written = json.loads(json.dumps(written_out(made)))
    assert set(written) == {"name", *(field.name for field in settings_of(type(made)))}
    assert Named(kind).read(written) == made == Named(kind).read(name) == Named(kind).read(made)
    assert not any("Tensor" in str(field.annotation) for field in settings_model(type(made)).model_fields.values())


NUMPY = {int: (np.int64,), float: (np.float32, np.float64)}


@pytest.mark.parametrize("made", [*(component(kind, name)() for kind, name in PLAIN), Cells()], ids=repr)
def test_numbers_of_numpy_s_are_kept_as_python_s_and_go_into_json(made: Any) -> None:
    for setting in settings_of(type(made)):
        value = getattr(made, setting.name)
        for number in NUMPY.get(type(value), ()):
            again = replace(made, **{setting.name: number(value)})
            assert type(getattr(again, setting.name)) is type(value)
            json.dumps(settings_written(again))


@kinds
def test_an_unknown_name_is_answered_by_the_nearest(kind: type[Any]) -> None:
    name = next(iter(components(kind)))
    with pytest.raises(InputError, match=f"no {kind.kind} is named '{name}x'; did you mean '{name}'"):
        component(kind, f"{name}x")
    with pytest.raises(InputError, match=f"no {kind.kind} is named '#'; modules that define others.*DVAEPP_IMPORT"):
        component(kind, "#")


@pytest.mark.parametrize(("name", "form"), every_data_set.items())
def test_a_data_set_is_of_the_size_that_it_says(name: str, form: tuple[tuple[int, ...], tuple[int, int, int]]) -> None:
    shape, sizes = form
    assert data.describe(name).startswith("x".join(map(str, shape[:2])))
    assert "/".join(f"{size:,}" for size in sizes) in data.describe(name)
    if any(verdict != "ok" for _, verdict in data.check(name)):
        pytest.skip(f"the files of {name} are not here")
    found = data.load(name)
    assert (found.shape, (len(found.train), len(found.valid), len(found.test))) == form


@pytest.mark.parametrize(("name", "count"), every_table.items())
def test_a_table_has_its_cells_and_no_recipe_twice(name: str, count: int) -> None:
    table = component(Table, name)()
    assert len(set(table.cells())) == count
    recipes = [table.recipe(cell, "tiny") for cell in table.cells()]
    assert [recipe.name for recipe in recipes] == [f"{name}/{cell}" for cell in table.cells()]
    assert len({recipe.model_dump_json(exclude={"name", "about"}) for recipe in recipes}) == count
    assert all(table.unit(cell).nats > 0 and table.published(cell) for cell in table.cells())


# --- additions ---


def define(name: str, qualname: str, **body: Any) -> type[Smoothing]:
    namespace = {"name": name, "__module__": __name__, "__qualname__": qualname, "__call__": PowerFunction.__call__}
    return dataclass(frozen=True)(type(qualname, (Smoothing,), {**namespace, **body}))


@pytest.mark.usefixtures("forgotten")
def test_a_class_is_known_once_it_is_defined_and_defined_again_takes_its_own_place() -> None:
    first = define("mine", "Mine")
    assert components(Smoothing)["mine"] is first
    again = define("mine", "Mine")
    assert components(Smoothing)["mine"] is again
    with pytest.raises(InputError, match=r"two classes are the smoothing 'mine': .*Mine and .*Other"):
        define("mine", "Other")
    with pytest.raises(InputError, match="two classes are the smoothing 'power'"):
        define("power", "Power")


@pytest.mark.usefixtures("forgotten")
def test_the_settings_of_a_class_are_its_fields_and_its_limits_are_the_recipes() -> None:
    @dataclass(frozen=True)
    class Widening(Optimiser):
        """Does nothing."""

        name: ClassVar[str] = "widening"
        rates: tuple[float, ...] = (1.0, 2.0)
        inner: Optimiser = field(default_factory=Adam)
        how: str | None = None

        def __post_init__(self) -> None:
            if len(self.rates) < 2:
                raise InputError("rates must be two at least")

        def __call__(self, model: nn.Module, l2: float) -> dict[str, Any]:
            return {}

        def set_rate(self, optimizers: dict[str, Any], rate: float, step: int) -> None:
            pass

    recipe = override(catalogue.find("quick/rbm", "tiny"), ["training.optimiser=widening"])
    changed = override(recipe, ["training.optimiser.rates=[3,4,5]", "training.optimiser.inner=muon"])
    assert written_out(changed.training.optimiser) == {
        "name": "widening",
        "rates": (3.0, 4.0, 5.0),
        "inner": {"name": "muon", "rate": 10.0, "momentum": 0.95, "epsilon": 1e-3},
        "how": None,
    }
    for setting, message in (
        ("training.optimiser.rates=[3]", "setting 'training.optimiser': rates must be two at least"),
        ("training.optimiser.rates=[3,true]", "setting 'training.optimiser.rates.1'"),
        ("training.optimiser.inner.rat=1", "unknown setting 'training.optimiser.inner.rat'"),
        ("training.optimiser.inner.epsilon=-1", "setting 'training.optimiser.inner': epsilon"),
    ):
        with pytest.raises(InputError, match=message):
            override(changed, [setting])


MODULE = '''
from dataclasses import dataclass
from dvaepp.smoothings.power import PowerFunction
from dvaepp.smoothings.base import Smoothing

@dataclass(frozen=True)
class Twin(Smoothing):
    """A power function by another name."""

    name = "twin"
    beta: float = 20.0

    def __call__(self, logits, validate_args=None):
        return PowerFunction(self.beta)(logits, validate_args)
'''


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}", "OMP_NUM_THREADS": "1", **environment}
    run = [sys.executable, "-m", "dvaepp", *arguments]
    return subprocess.run(run, cwd=folder, env=settings, capture_output=True, text=True)


def test_the_command_knows_a_file_that_the_environment_names(tmp_path: Path) -> None:
    (tmp_path / "twin.py").write_text(MODULE)
    train = ("train", "quick/rbm", "--size", "tiny", "--steps", "2", "--set", "model.smoothing=twin", "--out", "run")
    done = command(tmp_path, *train, DVAEPP_IMPORT="twin.py")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run/run.json").read_text())["recipe"]["model"]["smoothing"] == {
        "name": "twin",
        "beta": 20.0,
    }
    assert "twin" in command(tmp_path, "list", DVAEPP_IMPORT="twin").stdout  # a module on the path, too
    without = command(tmp_path, "evaluate", "run")
    assert without.returncode == 2
    assert "no smoothing is named 'twin'; modules that define others are named by DVAEPP_IMPORT" in without.stderr
    for wrong in ("nothing.py", "no.such.module"):
        failed = command(tmp_path, "list", DVAEPP_IMPORT=wrong)
        assert failed.returncode == 2
        assert failed.stderr.startswith(f"dvaepp: DVAEPP_IMPORT names {wrong}, which cannot be imported")
        assert failed.stderr.count("\n") == 1


@pytest.mark.usefixtures("forgotten")
def test_a_recipe_of_a_table_has_the_name_by_which_it_was_asked_for() -> None:
    @dataclass(frozen=True)
    class Careless(Table):
        """Forgets the name."""

        name: ClassVar[str] = "careless"

        def cells(self) -> tuple[str, ...]:
            return ("one",)

        def recipe(self, cell: str, size: Any) -> Any:
            return catalogue.find("quick/rbm", size)

    assert catalogue.find("careless/one", "tiny").name == "careless/one"


# --- bounds ---


def test_a_bound_and_a_recipe_refuse_in_the_same_words() -> None:
    recipe = catalogue.find("quick/rbm", "tiny")
    with pytest.raises(InputError) as by_recipe:
        override(recipe, ["model.smoothing=concrete"])
    small = override(recipe, ["model.groups=[3,3]", "model.hidden=[]"])
    prior = small.model.prior((3, 3), lambda inputs, outputs: nn.Linear(inputs, outputs))
    with pytest.raises(InputError) as by_bound:
        JointBound().check(component(Smoothing, "concrete")(), prior, 2, True)
    assert str(by_recipe.value) == str(by_bound.value)


def test_a_component_must_state_its_kind() -> None:
    with pytest.raises(AttributeError):

        class Nameless(Component):
            name = "nameless"


# --- classes that no recipe can use ---

FAULTY = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
from torch import Tensor
from dvaepp.data.download import PublicDataSet
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.power import PowerFunction

class Undecorated(PowerFunction):
    name = "undecorated"
    beta: float = 20.0

@dataclass(frozen=True)
class Abstract(Smoothing):
    name = "abstract"

@dataclass(frozen=True)
class Unresolved(PowerFunction):
    name = "unresolved"
    gamma: Nothing = 1.0

@dataclass(frozen=True)
class Configured(PowerFunction):
    name = "configured"
    model_config: float = 1.0

@dataclass(frozen=True)
class Annotated(PowerFunction):
    name: str = "annotated"

class Unstated(PublicDataSet):
    name = "unstated"
    def assemble(self, contents): ...

@dataclass(frozen=True)
class Dividing(PowerFunction):
    name = "dividing"
    def __post_init__(self) -> None:
        self.beta / 0

@dataclass(frozen=True)
class Copied(PowerFunction):
    name = "copied"
    json: float = 1.0

class Plain(Smoothing):
    name: str = "plain"
    binary: bool = False
    def __call__(self, logits): ...
"""
FAULTS = {
    "undecorated": "it has the fields beta but is no dataclass",
    "abstract": "it does not define __call__",
    "unresolved": "its annotations cannot be read: NameError: name 'Nothing'",
    "configured": "no setting can be called model_config",
    "annotated": "no setting can be called name",
}


@pytest.fixture
def faulty(tmp_path: Path, forgotten: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "faulty_classes.py").write_text(FAULTY)
    monkeypatch.setenv("DVAEPP_IMPORT", str(tmp_path / "faulty_classes.py"))
    yield
    sys.modules.pop("faulty_classes", None)


@pytest.mark.usefixtures("faulty")
def test_a_class_that_no_recipe_can_use_is_refused_by_name_and_bothers_nobody_else() -> None:
    from dvaepp.cli import main

    assert main(["list"]) == 0
    assert {*FAULTS} == {*faults(Smoothing)}
    recipe = catalogue.find("quick/rbm", "tiny")
    for name, message in FAULTS.items():
        assert name not in components(Smoothing)
        with pytest.raises(InputError, match=rf"the smoothing '{name}' \(faulty_classes.* cannot be used: {message}"):
            override(recipe, [f"model.smoothing={name}"])
    with pytest.raises(InputError, match="data set 'unstated' .* cannot be used: it does not state files, summary"):
        data.load("unstated")
    assert override(recipe, ["model.smoothing=plain"]).model.smoothing.name == "plain"


@pytest.mark.usefixtures("faulty")
def test_whatever_a_class_raises_of_its_settings_is_a_sentence() -> None:
    recipe = catalogue.find("quick/rbm", "tiny")
    with pytest.raises(
        InputError, match=r"'model.smoothing': Dividing cannot be made of \{\"beta\": 2\}: ZeroDivision"
    ):
        override(recipe, ['model.smoothing={"name":"dividing","beta":2}'])
    with pytest.raises(InputError, match="'model.smoothing': no setting of Copied can be called json"):
        override(recipe, ["model.smoothing=copied"])


@pytest.mark.parametrize("name", ["", "a b", "a/b", 3, None])
@pytest.mark.usefixtures("forgotten")
def test_a_name_is_a_word(name: Any) -> None:
    with pytest.raises(InputError, match=r"the name of .*\.Mine must be a word without spaces and /"):
        define(name, "Mine")


# --- modules that cannot be imported ---

RAISING = ["1 / 0", "nothing", "raise ValueError('one\\ntwo')", "import sys; sys.exit(3)", "raise KeyError", "x ="]


@pytest.mark.parametrize("text", RAISING)
@pytest.mark.parametrize("suffix", [".py", ""])
def test_what_a_module_raises_is_a_sentence_each_time(
    text: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dvaepp.cli import main

    (tmp_path / "raising_module.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DVAEPP_IMPORT", f"raising_module{suffix}")
    for _ in range(2):
        assert main(["list"]) == 2
        printed = capsys.readouterr().err
        assert re.fullmatch(
            rf"dvaepp: DVAEPP_IMPORT names raising_module{suffix}, which cannot be imported: \w+(Error|Exit).*\n",
            printed,
        )
        assert "taken" not in printed
        assert "raising_module" not in sys.modules


def test_an_entry_point_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "raising_module.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("theirs", "raising_module", registry_module.ENTRY_POINTS)
    monkeypatch.setattr(registry_module, "entry_points", lambda group: [point])
    monkeypatch.setenv("DVAEPP_IMPORT", " ")
    with pytest.raises(InputError, match="entry point theirs of the group dvaepp names raising_module, .*ZeroDivision"):
        components(Smoothing)


# --- components and numbers that are given in Python ---


class Nameless(PowerFunction):
    """It has its parent's name."""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (DensityPair(torch.zeros_like, torch.zeros_like), "DensityPair states no name of its own"),
        (Nameless(), "Nameless states no name of its own"),
        (
            {"name": "exponential", "beta": Nameless()},
            "Nameless states no name of its own",
        ),
        (OverlappingExponential(torch.tensor(8.0)), "expected values that JSON has, not the Tensor"),
        ({"name": "exponential", "beta": torch.tensor(8.0)}, "expected values that JSON has, not the Tensor"),
        ({"name": "exponential", "beta": np.ones(2)}, "expected values that JSON has, not the ndarray"),
        ({"name": "exponential", "beta": np.complex64(2)}, "expected values that JSON has, not the complex64"),
        ({"name": "exponential", ("beta",): 2}, "OverlappingExponential cannot be made of .*TypeError"),
        ({"name": None}, r'a smoothing is a name, or .*, not \{"name": null\}'),
        (True, "a smoothing is a name, or .*, not true"),
    ],
)
def test_what_a_recipe_could_not_hold_is_refused_when_it_is_made(given: Any, message: str) -> None:
    with pytest.raises(PydanticCustomError, match=message):
        Named(Smoothing).read(given)


def test_numbers_of_numpys_are_numbers() -> None:
    assert Named(Smoothing).read({"name": "exponential", "beta": np.float32(3)}) == OverlappingExponential(3.0)
    design = Named(PriorDesign).read({"name": "graph", "graph": "zephyr-2"})
    again = Named(PriorDesign).read({**written_out(design), "sampler": {"name": "gibbs", "num_chains": np.int64(7)}})
    assert written_out(again)["sampler"]["num_chains"] == 7


def test_a_kind_has_its_article() -> None:
    with pytest.raises(PydanticCustomError, match="an optimiser is a name"):
        Named(Optimiser).read(3)


@pytest.mark.parametrize("number", [10**400, -(10**400), math.inf, math.nan, True])
def test_a_number_that_no_float_holds_is_refused_in_a_sentence(number: float) -> None:
    with pytest.raises(InputError, match="beta must be a finite number above 0, not .{3,60}$"):
        OverlappingExponential(number)
    with pytest.raises(InputError, match="inverse_temperature must be a finite number, not .{3,60}$"):
        BoltzmannMachine(3, 3).gibbs(torch.zeros(2, 6), 1, number)
