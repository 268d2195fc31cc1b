import json
from pathlib import Path
from typing import get_args

import pytest
import torch

from dvaepp.errors import InputError
from dvaepp.recipes import catalogue
from dvaepp.recipes.build import SAMPLERS, SMOOTHINGS, DataSpec, machine
from dvaepp.recipes.recipe import Recipe, override, read_recipe
from dvaepp.recipes.settings import SamplerName, SmoothingName


def form(shape: tuple[int, ...], mean: torch.Tensor) -> DataSpec:
    return DataSpec(shape, mean, torch.ones_like(mean))


def test_every_recipe_builds_at_every_size() -> None:
    mean = torch.rand(784)
    for name in (name for name in catalogue.names() if not name.startswith("table-3")):
        for size in ("tiny", "small", "paper"):
            recipe = override(catalogue.find(name, size), ["model.chains=2"])
            model, _ = recipe.build(form((len(mean),), mean))
            assert model(torch.zeros(3, 784)).likelihood.log_prob(torch.zeros(3, 784)).shape == (3,)


def test_a_recipe_is_json_both_ways(tmp_path: Path) -> None:
    recipe = catalogue.find("table-2/mnist-static/nonlinear-2/rbm", "small")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    (tmp_path / "r.json").write_text(recipe.model_dump_json())
    assert read_recipe(tmp_path / "r.json") == recipe


def test_table_2_is_the_papers() -> None:
    recipe = catalogue.find("table-2/mnist-static/linear-1/rbm", "paper")
    assert (recipe.model.groups, recipe.model.hidden, recipe.model.beta) == ((200,), (), 12.0)
    model, _ = recipe.build(form((28, 28), torch.rand(784)))
    assert model.prior.machine.blocks == (100, 100)
    assert (recipe.training.steps, recipe.model.chains, recipe.model.sweeps) == (1_000_000, 1000, 40)
    two = catalogue.find("table-2/omniglot/nonlinear-2/marginal", "small")
    model, _ = two.build(form((28, 28), torch.rand(784)))
    assert [network[0].in_features for network in model.prior.networks] == [200]


def test_overrides_are_json_or_text() -> None:
    recipe = override(
        catalogue.find("quick/rbm", "tiny"), ["model.hidden=[32]", "data.name=mnist-static", "training.l2=0"]
    )
    assert (recipe.model.hidden, recipe.data.name, recipe.training.l2) == ((32,), "mnist-static", 0.0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.stps=3", "unknown setting 'training.stps'; did you mean 'steps'"),
        ("model.convolutional.chanels=3", "unknown setting 'model.convolutional.chanels'; did you mean 'channels'"),
        ("model.hiden=[3]", "unknown setting 'model.hiden'; did you mean 'hidden'"),
        ("mdoel.hidden=[3]", "unknown setting 'mdoel'; did you mean 'model'"),
        ("model.xyzzy=1", "unknown setting 'model.xyzzy'; it may be one of groups, "),
        ("training.steps=0", "setting 'training.steps'.*greater than or equal to 1, not 0"),
        ("training.steps=ten", "setting 'training.steps'.*not 'ten'"),
        ("model.beta=-1", "setting 'model.beta'"),
        ("model.groups=[]", "setting 'model.groups'"),
        ("model.groups=[0]", "setting 'model.groups.0'.*greater than or equal to 1, not 0"),
        ("model.beta=Infinity", "setting 'model.beta'"),
        ("training.learning_rate=[[1,NaN]]", "setting 'training.learning_rate"),
        ("training.beta=[-1,2]", "setting 'training.beta.0'"),
        ("training.steps=" + 5000 * "9", "setting 'training.steps'"),
        ("training.batch=99999999999", "setting 'training.batch'.*less than or equal to 1000000"),
        ("training.steps=true", "setting 'training.steps'"),
        ("training.batch=1", "training.batch must be at least 2 with batch norm"),
        ("name=../evil", "setting 'name'"),
        ("model.blocks=[3,4]", "blocks .* hold 7 bits and groups .* 400"),
        ("model.prior=ising", "setting 'model.prior'.*'rbm', 'graph', 'directed', 'bernoulli' or 'normal'"),
        ("objective=marginal", "'marginal' needs a directed or bernoulli prior"),
        ("objective=rolfe", "'rolfe' needs an rbm or graph prior and a smoothing with a spike"),
        ("model.smoothing=spike-exponential", "takes objective 'rolfe'"),
        ("model.smoothing=concrete", "takes objective 'marginal'"),
        ("model.graph=zephyr-2", "graph and prior 'graph' need each other"),
        ("model.prior=graph", "graph and prior 'graph' need each other"),
        ("model.sampler=qpu", "setting 'model.sampler'.*'annealer'"),
        ("model.smoothing=straight-through training.beta=[1,2]", "'straight-through' has none"),
        ("model.smoothing=power training.beta=[1,20]", "'power' needs a training.beta above 1"),
        ("model.smoothing=power model.beta=0.5", "'power' needs a beta above 1"),
        ("model.temperatures=1", "setting 'model.temperatures'.*greater than or equal to 2"),
        ("training.learning_rate=[[0.5,1e-3]]", "rising fractions, the last being 1"),
        ("training.steps", "takes name=value"),
        ("name.a=1", "'name' holds a value"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        override(catalogue.find("quick/rbm", "tiny"), setting.split(" "))


SMALL = ["model.groups=[4,4]", "model.hidden=[]", "model.batch_norm=false", "model.chains=3", "model.sweeps=1"]


def trainable(*settings: str) -> None:
    recipe = override(catalogue.find("quick/rbm", "tiny"), [*SMALL, *settings])
    model, objective = recipe.build(form((3, 3), torch.rand(9)))
    bound = objective(model, torch.bernoulli(torch.full((5, 9), 0.5))).bound()
    bound.sum().backward()
    assert bound.shape == (5,)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.encoder.parameters())


@pytest.mark.parametrize("smoothing", get_args(SmoothingName))
def test_every_smoothing_has_a_name_and_an_objective(smoothing: str) -> None:
    spike = smoothing.startswith("spike")
    if smoothing != "concrete":
        trainable(f"model.smoothing={smoothing}", f"objective={'rolfe' if spike else 'joint'}")
        trainable(f"model.smoothing={smoothing}", "model.prior=directed")
    if not spike:
        trainable(f"model.smoothing={smoothing}", "model.prior=directed", "objective=marginal")


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_every_sampler_has_a_name(sampler: str) -> None:
    recipe = override(catalogue.find("quick/rbm", "tiny"), [*SMALL, "model.groups=[9,9]", f"model.sampler={sampler}"])
    made = SAMPLERS[sampler](recipe.model)
    state = made.start(machine(recipe.model))
    assert made.samples(state).shape == (3, 18)


def test_a_graph_prior_is_of_hardware_or_of_a_file_of_edges(tmp_path: Path) -> None:
    (tmp_path / "ring.csv").write_text("".join(f"{i},{(i + 1) % 8}\n" for i in range(8)))
    trainable("model.prior=graph", f"model.graph={tmp_path / 'ring.csv'}")
    zephyr, _ = override(catalogue.find("quick/zephyr", "tiny"), ["model.chains=2"]).build(form((3, 3), torch.rand(9)))
    assert zephyr.prior.machine.bits == 160
    assert int(zephyr.prior.machine.mask.sum()) == 1224
    with pytest.raises(InputError, match="zephyr-1 has 48 nodes and model.groups hold 8 bits"):
        trainable("model.prior=graph", "model.graph=zephyr-1")
    for content, message in (("", "holds no edges"), ("a,b,c\n", "line 1"), ("a,\n", "line 1")):
        (tmp_path / "ring.csv").write_text(content)
        with pytest.raises(InputError, match=message):
            trainable("model.prior=graph", f"model.graph={tmp_path / 'ring.csv'}")


def test_annealing_beta_sharpens_every_smoothing_that_has_one() -> None:
    for smoothing in get_args(SmoothingName):
        made = SMOOTHINGS[smoothing](5.0)
        if smoothing == "straight-through":
            with pytest.raises(InputError, match="no inverse temperature"):
                made.with_beta(8.0)
        else:
            assert made.with_beta(8.0) == SMOOTHINGS[smoothing](8.0)


def test_unknown_recipes_name_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'table-2/mnist-static/linear-2/rbm'"):
        catalogue.find("table-2/mnist-static/liner-2/rbm")


def test_a_recipe_file_with_a_typo_is_named(tmp_path: Path) -> None:
    values = json.loads(catalogue.find("quick/rbm", "tiny").model_dump_json())
    values["model"]["sweps"] = 3
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"mine\.json has an unknown setting 'model\.sweps'; did you mean 'sweeps'"):
        read_recipe(path)
    path.write_text("[1]")
    with pytest.raises(InputError, match="must hold a recipe, a JSON object, not list"):
        read_recipe(path)
