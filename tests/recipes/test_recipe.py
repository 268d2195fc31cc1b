import json
from pathlib import Path

import pytest
import torch

from dvaepp.boltzmann.dimod_sampler import SimulatedAnnealer
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.boltzmann.samplers import AnnealedPopulation, ExactSamples, PersistentChains, Sampler, TemperedChains
from dvaepp.components.registry import components
from dvaepp.errors import InputError
from dvaepp.likelihoods.base import DataSpec
from dvaepp.likelihoods.standard import PoissonLikelihood
from dvaepp.models.local import BernoulliVariables
from dvaepp.models.sizes import ConvolutionalSizes
from dvaepp.networks.residual import Cells
from dvaepp.optimisers.adam import Adam
from dvaepp.optimisers.muon import MuonAndAdam
from dvaepp.priors.boltzmann import GraphBoltzmannDesign, RestrictedBoltzmannDesign
from dvaepp.priors.directed import DirectedDesign
from dvaepp.recipes import catalogue
from dvaepp.recipes.formats import MOVED
from dvaepp.recipes.recipe import Recipe, override, read_recipe, recipe_from
from dvaepp.recipes.settings import SIZES
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import StraightThrough, StraightThroughGumbel
from dvaepp.smoothings.concrete import Concrete
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.smoothings.power import PowerFunction


def form(shape: tuple[int, ...], mean: torch.Tensor) -> DataSpec:
    return DataSpec(shape, mean, torch.ones_like(mean))


def test_every_recipe_builds_at_every_size() -> None:
    mean, built = torch.rand(784), set()
    for name in (name for name in catalogue.names() if not name.startswith("table-3")):
        for size in SIZES:
            recipe = catalogue.find(name, size)
            if hasattr(recipe.model.prior, "sampler"):
                recipe = override(recipe, ["model.prior.sampler.num_chains=2", "model.prior.sampler.sweeps=1"])
            made_of = recipe.model_dump_json(include={"model", "objective"})
            if made_of in built:
                continue
            built.add(made_of)
            model, _ = recipe.build(form((len(mean),), mean))
            assert model(torch.zeros(3, 784)).likelihood.log_prob(torch.zeros(3, 784)).shape == (3,)


def test_a_recipe_is_json_both_ways(tmp_path: Path) -> None:
    recipe = catalogue.find("table-2/mnist-static/nonlinear-2/rbm", "small")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    (tmp_path / "r.json").write_text(recipe.model_dump_json())
    assert read_recipe(tmp_path / "r.json") == recipe


def test_table_2_is_the_papers() -> None:
    recipe = catalogue.find("table-2/mnist-static/linear-1/rbm", "paper")
    assert (recipe.model.groups, recipe.model.hidden, recipe.model.smoothing.beta) == ((200,), (), 12.0)
    model, _ = recipe.build(form((28, 28), torch.rand(784)))
    assert model.prior.machine.blocks == (100, 100)
    assert recipe.training.steps == 1_000_000
    assert recipe.model.prior.sampler == PersistentChains(1000, 40)
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
        (
            'model.convolutional={"chanels":3}',
            "unknown setting 'model.convolutional.chanels'; did you mean 'channels'",
        ),
        (
            "model.convolutional.coarse_groups=1",
            r"--set model.convolutional.coarse_groups is of model.convolutional, which is null; "
            r"'model.convolutional=\{\}' before it sets that",
        ),
        ("model.hiden=[3]", "unknown setting 'model.hiden'; did you mean 'hidden'"),
        ("mdoel.hidden=[3]", "unknown setting 'mdoel.hidden'; did you mean 'model.hidden'"),
        ("binarise=threshold", "unknown setting 'binarise'; did you mean 'data.binarise'"),
        ("sweeps=3", "unknown setting 'sweeps'; did you mean 'model.prior.sampler.sweeps'"),
        ("model.xyzzy=1", "unknown setting 'model.xyzzy'; it may be one of groups, "),
        ("training.steps=0", "setting 'training.steps'.*greater than or equal to 1, not 0"),
        ("training.steps=ten", "setting 'training.steps'.*not .ten"),
        ("model.beta=-1", "setting 'model.smoothing'.*above 0, not -1"),
        ("model.smoothing.beta=1e5", "setting 'model.smoothing'.* 0.001 to 10,000"),
        ("model.smoothing.beta=true", "setting 'model.smoothing.beta'.*number"),
        ("model.smoothing.bta=1", "unknown setting 'model.smoothing.bta'; did you mean 'beta'"),
        ("model.smoothing=powr", "setting 'model.smoothing'.*no smoothing is named 'powr'; did you mean 'power'"),
        ("model.smoothing=3", "setting 'model.smoothing'.*a smoothing is a name"),
        ("model.groups=[]", "setting 'model.groups'"),
        ("model.groups=[0]", "setting 'model.groups.0'.*greater than or equal to 1, not 0"),
        ("model.smoothing.beta=Infinity", "setting 'model.smoothing.beta'"),
        ("training.learning_rate=[[1,NaN]]", "setting 'training.learning_rate"),
        ("training.beta=[-1,2]", "setting 'training.beta.0'"),
        ("training.steps=" + 5000 * "9", "setting 'training.steps'"),
        ("training.batch=99999999999", "setting 'training.batch'.*less than or equal to 1000000"),
        ("training.steps=true", "setting 'training.steps'"),
        ("training.batch=1", "training.batch must be at least 2 with batch norm"),
        ("training.optimiser=adm", "no optimiser is named 'adm'; did you mean 'adam'"),
        ("training.optimiser.epsilon=0", "setting 'training.optimiser'.*epsilon must be a finite number above 0"),
        ("name=../evil", "setting 'name'"),
        ("model.prior.blocks=[3,4]", "blocks .* hold 7 bits and groups .* 400"),
        ("model.prior=ising", "setting 'model.prior'.*one of bernoulli, directed, graph, normal, rbm"),
        ("model.prior=normal", "prior 'normal' needs model.convolutional, expected one of bernoulli, "),
        ("objective=marginal", "the marginal bound needs p\\(zeta\\).*use joint_elbo"),
        ("objective=rolfe", "the rolfe bound is for a smoothing with an atom"),
        ("objective=rolfe model.prior=directed", "the rolfe bound is for a BoltzmannPrior"),
        ("objective=elbow", "setting 'objective'.*no objective is named 'elbow'"),
        ("objective=elbo", "ReinMax has no gradient for 2 groups.*one group, or .*estimator.name=leave-one-out"),
        ("objective=elbo estimator.name=leave-one-out", "no closed form: set .*objective.analytic_kl=false"),
        ("model.smoothing=hard", "no gradient to the encoder"),
        ("model.smoothing=spike-exponential", "use rolfe_elbo"),
        ("model.smoothing=spike-exponential objective=marginal", "no gradient at the atom"),
        ("model.smoothing=concrete", "no joint bound.*use marginal_elbo"),
        ("model.graph=zephyr-2", "unknown setting 'model.prior.graph'"),
        ("model.prior=graph", "graph zephyr-2 has 160 nodes and model.groups hold 400 bits"),
        ("model.prior.sampler=qpu", "no sampler is named 'qpu'.*one of annealer, exact, gibbs"),
        ("model.prior.sampler.sweeps=0", "setting 'model.prior.sampler'.*sweeps of PersistentChains"),
        ("model.prior.sampler.sweeps=9999999", "setting 'model.prior.sampler.sweeps'.*less than or equal to 1000000"),
        ("model.smoothing=straight-through training.beta=[1,2]", "StraightThrough has no inverse temperature"),
        ("model.smoothing=power training.beta=[1,20]", "beta must be a finite number above 1, not 1"),
        ("training.beta=[1,20000]", "inverse temperature 20000, expected 0.001 to 10,000"),
        ("model.smoothing=power model.smoothing.beta=0.5", "setting 'model.smoothing'.*above 1, not 0.5"),
        (
            "model.prior.sampler=tempering model.prior.sampler.temperatures=1",
            "temperatures of TemperedChains.*2, not 1",
        ),
        ("data.binarise=threshold model.likelihood=poisson", "likelihood 'poisson' takes data as they are"),
        ("training.learning_rate=[[0.5,1e-3]]", "rising fractions, the last being 1"),
        ("training.steps", "takes name=value"),
        ("name.a=1", "'name' holds a value"),
        ("training.steps.a=1", "'steps' holds a value"),
        ("training.optimizer=adam", "unknown setting 'training.optimizer'; did you mean 'optimiser'"),
        ("model.sampler.swep=3", "unknown setting 'model.prior.sampler.swep'; did you mean 'sweeps'"),
        ("model.prior=bernoulli model.prior.blocks=[1]", "'model.prior.blocks'; there is nothing to set"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        override(catalogue.find("quick/rbm", "tiny"), setting.split(" "))


def test_a_convolutional_model_has_no_bound_of_bits_alone() -> None:
    with pytest.raises(InputError, match="objective 'elbo' is for feed-forward models"):
        override(catalogue.find("table-3/mnist-static/rbm-normal", "tiny"), ["objective=elbo"])


@torch.no_grad()
@pytest.mark.parametrize("cell", ["quick/rbm", "table-3/mnist-static/rbm-normal"])
def test_signed_is_the_plain_model_of_another_first_layer_after_zeta(cell: str) -> None:
    """W (2 zeta - 1) + b = 2 W zeta + (b - W 1)."""
    models = []
    for signed in ("true", "false"):
        torch.manual_seed(0)
        recipe = override(catalogue.find(cell, "tiny"), [f"model.signed={signed}", "model.batch_norm=false"])
        models.append(recipe.build(form((28, 28), torch.full((784,), 0.5)))[0].eval())
    parts = [model.decoder if cell == "quick/rbm" else model.upsampler.enter for model in models]
    first, plain = (next(part for part in parts.modules() if isinstance(part, torch.nn.Linear)) for parts in parts)
    zeta = torch.rand(5, first.in_features)
    assert not torch.allclose(parts[0](zeta), parts[1](zeta), atol=0.01)
    plain.bias.copy_(first.bias - first.weight.sum(1))
    plain.weight.copy_(2 * first.weight)
    torch.testing.assert_close(parts[0](zeta), parts[1](zeta))


@pytest.mark.parametrize("cell", ["quick/rbm", "table-3/mnist-static/rbm-normal"])
def test_weights_that_see_signs_are_not_those_that_see_bits(cell: str) -> None:
    """By their names in a state dict, or one model would be loaded as the other."""
    entrances = []
    for signed in ("true", "false"):
        recipe = override(catalogue.find(cell, "tiny"), [f"model.signed={signed}"])
        state = recipe.build(form((28, 28), torch.rand(784)))[0].state_dict()
        entrances.append({name for name in state if name.startswith(("decoder.0.0", "upsampler.enter"))})
    assert entrances[1]
    assert not entrances[0] & entrances[1]


def test_signed_is_refused_where_there_are_no_bits() -> None:
    with pytest.raises(InputError, match="signed is for bits, which the prior 'normal' is not over"):
        override(catalogue.find("table-3/mnist-static/normal-normal", "tiny"), ["model.signed=true"])


SMALL = ["model.groups=[4,4]", "model.hidden=[]", "model.batch_norm=false"]
CHAINS = ["model.prior.sampler.num_chains=3", "model.prior.sampler.sweeps=1"]


def trainable(*settings: str) -> None:
    recipe = override(catalogue.find("quick/rbm", "tiny"), [*SMALL, *settings])
    model, objective = recipe.build(form((3, 3), torch.rand(9)))
    bound = objective(model, torch.bernoulli(torch.full((5, 9), 0.5))).bound()
    bound.sum().backward()
    assert bound.shape == (5,)
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.encoder.parameters())


@pytest.mark.parametrize("smoothing", components(Smoothing))
def test_every_smoothing_has_a_name_and_an_objective(smoothing: str) -> None:
    made = components(Smoothing)[smoothing]()
    if not made.reparameterised:
        return
    if made.shared_conditional:
        trainable(f"model.smoothing={smoothing}", f"objective={'rolfe' if made.has_atom else 'joint'}", *CHAINS)
        trainable(f"model.smoothing={smoothing}", "model.prior=directed")
    if not made.has_atom:
        trainable(f"model.smoothing={smoothing}", "model.prior=directed", "objective=marginal")


def test_the_recipe_allows_a_marginal_bound_of_every_machine_that_the_library_can_sum_for_each_example() -> None:
    trainable("objective=marginal")  # 4 + 4 bits
    trainable("objective=marginal", "model.smoothing=straight-through")
    with pytest.raises(InputError, match="no tractable density"):
        trainable("objective=marginal", "model.groups=[11,11]")
    with pytest.raises(InputError, match="no tractable density"):
        trainable("objective=marginal", "model.smoothing=concrete")


@pytest.mark.parametrize("sampler", components(Sampler))
def test_every_sampler_has_a_name(sampler: str) -> None:
    recipe = override(catalogue.find("quick/rbm", "tiny"), [*SMALL, f"model.prior.sampler={sampler}"])
    made = recipe.model.prior.sampler
    machine = BoltzmannMachine(9, 9)
    assert made.samples(made.start(machine)).shape == (1000, 18)


def test_a_graph_prior_is_of_hardware_or_of_a_file_of_edges(tmp_path: Path) -> None:
    (tmp_path / "ring.csv").write_text("".join(f"{i},{(i + 1) % 8}\n" for i in range(8)))
    trainable("model.prior=graph", f"model.prior.graph={tmp_path / 'ring.csv'}")
    zephyr, _ = override(catalogue.find("quick/zephyr", "tiny"), ["model.prior.sampler.num_chains=2"]).build(
        form((3, 3), torch.rand(9))
    )
    assert zephyr.prior.machine.bits == 160
    assert int(zephyr.prior.machine.mask.sum()) == 1224
    with pytest.raises(InputError, match="zephyr-1 has 48 nodes and model.groups hold 8 bits"):
        trainable("model.prior=graph", "model.prior.graph=zephyr-1")
    for content, message in (("", "holds no edges"), ("a,b,c\n", "line 1"), ("a,\n", "line 1")):
        (tmp_path / "ring.csv").write_text(content)
        with pytest.raises(InputError, match=message):
            trainable("model.prior=graph", f"model.prior.graph={tmp_path / 'ring.csv'}")


def test_annealing_beta_sharpens_every_smoothing_that_has_one() -> None:
    for kind in components(Smoothing).values():
        if kind().sharpness is None:
            with pytest.raises(InputError, match="no inverse temperature"):
                kind().with_beta(8.0)
        else:
            assert kind().with_beta(8.0).sharpness == 8.0


def test_unknown_recipes_name_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'table-2/mnist-static/linear-2/rbm'"):
        catalogue.find("table-2/mnist-static/liner-2/rbm")


def test_a_recipe_file_with_a_typo_is_named(tmp_path: Path) -> None:
    values = json.loads(catalogue.find("quick/rbm", "tiny").model_dump_json())
    values["model"]["prior"]["sampler"]["sweps"] = 3
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(values))
    with pytest.raises(
        InputError, match=r"mine\.json has an unknown setting 'model\.prior\.sampler\.sweps'; did you mean 'sweeps'"
    ):
        read_recipe(path)
    path.write_text("[1]")
    with pytest.raises(InputError, match="must hold a recipe, a JSON object, not list"):
        read_recipe(path)


# --- the form of before ---


def old(**model: object) -> dict[str, object]:
    """A recipe as it was written before components were objects."""
    fixed = {"groups": [4, 4], "hidden": [], "batch_norm": False, "likelihood": "bernoulli", "convolutional": None}
    prior = {"prior": "rbm", "blocks": None, "graph": None}
    sampler = {"sampler": "gibbs", "chains": 30, "sweeps": 7, "temperatures": 6}
    smoothing = {"smoothing": "exponential", "beta": 12.5}
    training = {"steps": 3, "epsilon": 0.01, "muon": None}
    return {
        "name": "mine",
        "objective": "joint",
        "model": {**fixed, **prior, **sampler, **smoothing, **model},
        "training": training,
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            {
                "prior": RestrictedBoltzmannDesign(None, PersistentChains(30, 7)),
                "smoothing": OverlappingExponential(12.5),
            },
        ),
        ({"smoothing": "concrete", "beta": 4.0}, {"smoothing": Concrete(0.25)}),
        ({"smoothing": "straight-through-gumbel", "beta": 4}, {"smoothing": StraightThroughGumbel(0.25)}),
        ({"smoothing": "straight-through"}, {"smoothing": StraightThrough()}),
        ({"smoothing": "power"}, {"smoothing": PowerFunction(12.5)}),
        ({"blocks": [3, 5]}, {"prior": RestrictedBoltzmannDesign((3, 5), PersistentChains(30, 7))}),
        ({"prior": "graph", "graph": "zephyr-1"}, {"prior": GraphBoltzmannDesign("zephyr-1", PersistentChains(30, 7))}),
        ({"prior": "directed"}, {"prior": DirectedDesign()}),
        ({"sampler": "tempering"}, {"prior": RestrictedBoltzmannDesign(None, TemperedChains(30, 7, 6))}),
        ({"sampler": "population"}, {"prior": RestrictedBoltzmannDesign(None, AnnealedPopulation(30, 6))}),
        ({"sampler": "exact"}, {"prior": RestrictedBoltzmannDesign(None, ExactSamples(30))}),
        ({"sampler": "annealer"}, {"prior": RestrictedBoltzmannDesign(None, SimulatedAnnealer(30, 7))}),
        ({"likelihood": "poisson"}, {"likelihood": PoissonLikelihood()}),
    ],
)
def test_a_recipe_of_before_is_read_as_what_it_was(changes: dict[str, object], expected: dict[str, object]) -> None:
    model = recipe_from(old(**changes), "old.json").model
    assert {name: getattr(model, name) for name in expected} == expected


def test_the_optimiser_and_cells_of_before_are_read_as_what_they_were() -> None:
    values = old()
    assert recipe_from(values, "old.json").training.optimiser == Adam(0.01)
    values["training"] = {"steps": 3, "epsilon": 0.01, "muon": 7.0}
    assert recipe_from(values, "old.json").training.optimiser == MuonAndAdam(7.0, epsilon=0.01)
    convolutional = {"cells": 3, "squeeze_excite": False, "local_variables": "bernoulli", "local_groups": 2}
    found = recipe_from(old(convolutional=convolutional), "old.json").model.convolutional
    assert found is not None
    assert (found.cells, found.local_variables, found.local_groups) == (Cells(3, False), BernoulliVariables(), 2)


def test_what_a_recipe_of_before_left_out_is_what_it_was() -> None:
    recipe = recipe_from({"name": "mine", "model": {"beta": 9.0}, "training": {"steps": 3}}, "old.json")
    assert recipe.model.smoothing == OverlappingExponential(9.0)
    assert recipe.model.prior == RestrictedBoltzmannDesign(None, PersistentChains(1000, 40))


def test_a_wrong_value_of_before_is_still_named() -> None:
    for changes in (
        {"beta": "x"},
        {"beta": 0},
        {"sampler": "qpu"},
        {"smoothing": "powr"},
        {"chains": -3},
        {"prior": 5},
    ):
        with pytest.raises(InputError, match="^old.json"):
            recipe_from(old(**changes), "old.json")


@pytest.mark.parametrize(("before", "now"), MOVED.items())
def test_a_setting_that_has_moved_is_taken_by_its_former_name(before: str, now: str) -> None:
    conv = "convolutional" in before
    recipe = catalogue.find("table-3/mnist-static/rbm-normal" if conv else "quick/rbm", "tiny")
    value = {"blocks": "[100,300]", "sampler": "exact", "squeeze_excite": "false"}.get(before.split(".")[-1], "7")
    first = ["model.prior.sampler=tempering"] if "temperatures" in before else []
    if before == "model.sampler":
        value = "exact"
    if "graph" in before:
        first, value = ["model.groups=[80,80]", "model.prior=graph"], "zephyr-2"
    changed = override(recipe, [*first, f"{before}={value}"])
    assert changed == override(recipe, [*first, f"{now}={value}"])
    assert changed != override(recipe, first) or "graph" in before


def test_muon_of_before_chooses_the_optimiser() -> None:
    recipe = catalogue.find("quick/rbm", "tiny")
    with_muon = override(recipe, ["training.muon=10"])
    assert with_muon.training.optimiser == MuonAndAdam(10.0)
    assert override(with_muon, ["training.muon=null"]) == recipe


def test_settings_take_effect_in_the_order_given_also_by_their_former_names() -> None:
    recipe = catalogue.find("quick/rbm", "tiny")
    assert override(recipe, ["training.muon=10", "training.optimiser.rate=3"]).training.optimiser == MuonAndAdam(3.0)
    assert override(recipe, ["training.optimiser=adam", "training.muon=10"]).training.optimiser == MuonAndAdam(10.0)
    faster = override(recipe, ["training.epsilon=0.1", "training.muon=10"]).training.optimiser
    assert faster == MuonAndAdam(10.0, epsilon=0.1)
    assert override(recipe, ["model.sampler.sweeps=3"]).model.prior.sampler.sweeps == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"steps": 3, "muon": 1, "optimiser": "adam"}}, "training.muon is of the former form"),
        (
            {"training": {"steps": 3, "epsilon": 0.1, "optimiser": {"name": "muon"}}},
            "training.epsilon is of the",
        ),
        ({"model": {"sampler": {"name": "gibbs"}}}, "model.sampler is of the former form, in which model.sampler is a"),
        ({"model": {"sampler": []}}, "model.sampler is of .* model.sampler is a name, not "),
        ({"model": {"beta": 3, "smoothing": {"name": "power"}}}, "model.beta is .* model.smoothing is a name, not {"),
        ({"model": {"chains": 3, "prior": {"name": "rbm"}}}, "model.chains is .* model.prior is a name, not {"),
    ],
)
def test_a_mixture_of_the_two_forms_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"mixed.json: {message}"):
        recipe_from({"name": "mixed", "training": {"steps": 3}, **values}, "mixed.json")


@pytest.mark.parametrize("smoothing", [name for name, each in components(Smoothing).items() if hasattr(each, "beta")])
def test_a_smoothing_without_a_beta_has_the_same_in_both_forms(smoothing: str) -> None:
    short = recipe_from({"name": "short", "model": {"smoothing": smoothing}, "training": {"steps": 3}}, "short.json")
    former = recipe_from(old(smoothing=smoothing, beta=10.0), "old.json")
    assert short.model.smoothing == former.model.smoothing


def test_a_part_of_the_cells_leaves_the_rest_as_it_is_where_they_are_left_out() -> None:
    recipe = override(catalogue.find("quick/rbm", "tiny"), ["model.convolutional={}", "model.batch_norm=false"])
    changed = override(recipe, ["model.convolutional={}", "model.convolutional.cells.squeeze_excite=false"])
    assert recipe.model.convolutional is not None
    assert changed.model.convolutional is not None
    assert recipe.model.convolutional.cells == Cells() == Cells(2, True)
    assert changed.model.convolutional.cells == Cells(2, False)
    assert ConvolutionalSizes().each_scale == Cells()
