"""Table 3's recipes, literal by literal, and every cell of it built, trained and scored at the smallest size."""

import dataclasses
import itertools
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dvaepp
from dvaepp.data.dataset import Dataset
from dvaepp.errors import InputError
from dvaepp.likelihoods.base import DataSpec
from dvaepp.likelihoods.logistic_mixture import DiscretizedLogisticMixture
from dvaepp.models.base import measuring
from dvaepp.models.convolutional import ConvolutionalVAE
from dvaepp.models.decoders import ConditionalDecoder, UpDecoder
from dvaepp.models.local import BernoulliVariables, NormalVariables
from dvaepp.networks.residual import SqueezeExcite
from dvaepp.objectives.bounds import JointBound, MarginalBound
from dvaepp.objectives.rolfe import RolfeBound
from dvaepp.priors.normal import NormalPrior
from dvaepp.recipes import catalogue, table_3
from dvaepp.recipes.recipe import Recipe, override
from dvaepp.recipes.settings import SIZES
from dvaepp.training.trainer import Trainer

ROWS = ("normal-normal", "rolfe-normal", "rbm-normal", "rbm-bernoulli", "bernoulli-bernoulli")
DATA = ("mnist-static", "mnist-dynamic", "omniglot", "omniglot-lake", "caltech101-silhouettes", "cifar10")
ABLATIONS = (
    "no-squeeze-excite",
    "no-balancing",
    "conditional",
    "unconditional",
    "groups-1",
    "groups-4",
    "factorial",
)
CELLS = list(itertools.product(DATA, ROWS))
TRAINED = [
    *CELLS,
    *(("mnist-static" if name != "unconditional" else "omniglot", name) for name in ABLATIONS),
    ("cifar10", "groups-4"),
    ("cifar10", "unconditional"),
]


def ablations(data: str) -> list[str]:
    """Those that are not the row itself."""
    same = "unconditional" if data in ("mnist-static", "mnist-dynamic") else "conditional"
    return [name for name in ABLATIONS if name != same]


def recipe(data: str, row: str, size: Any = "paper") -> Recipe:
    return catalogue.find(f"table-3/{data}/{row}", size)


def shape(data: str) -> tuple[int, ...]:
    return (32, 32, 3) if data == "cifar10" else (28, 28)


def dataset(data: str, count: int = 12) -> Dataset:
    """Random examples of that form."""
    top = 255 if data == "cifar10" else 1
    pixels = math.prod(shape(data))
    dynamic = data in ("mnist-dynamic", "omniglot", "omniglot-lake")
    train = torch.randint(0, (255 if dynamic else top) + 1, (count, pixels)).to(torch.uint8)
    other = torch.randint(0, top + 1, (count, pixels)).to(torch.uint8)
    kind = "levels" if data == "cifar10" else "bits"
    return Dataset(data, shape(data), train, other, other, dynamic, "by hand", kind)


def built(data: str, row: str, size: Any = "tiny", *changes: str) -> tuple[ConvolutionalVAE, Any]:
    torch.manual_seed(0)
    examples = dataset(data)
    made = override(recipe(data, row, size), changes).build(DataSpec(shape(data), examples.mean, examples.sd))
    assert isinstance(made[0], ConvolutionalVAE)
    return made  # type: ignore[return-value]


# --- the paper's numbers ----------------------------------------------------------------------------------------------

# Typed from the table, a line of it for each row.
PRINTED = {
    "normal-normal": (79.40, 78.59, 92.51, 82.24, 3.40),
    "rolfe-normal": (79.04, 78.65, 92.56, 81.95, 3.39),
    "rbm-normal": (79.17, 78.49, 92.38, 81.88, 3.38),
    "rbm-bernoulli": (79.72, 79.55, 93.95, 85.40, 3.59),
    "bernoulli-bernoulli": (79.90, 79.62, 93.87, 86.57, 3.62),
}


def test_the_papers_numbers_are_those_printed() -> None:
    columns = ("mnist-static", "mnist-dynamic", "omniglot", "caltech101-silhouettes", "cifar10")
    assert set(table_3.PAPER) == set(columns)
    for row, numbers in PRINTED.items():
        assert tuple(table_3.PAPER[data][row] for data in columns) == numbers
    assert all(set(found) == set(PRINTED) for found in table_3.PAPER.values())


def test_they_are_those_of_the_papers_text() -> None:
    text = Path(__file__).parents[3] / "shared" / "paper" / "dvaepp_main_text.txt"
    if not text.exists():
        pytest.skip("the paper's text is not here")
    lines = [line for line in text.read_text().splitlines() if re.search(r"\t-7\d\.\d\d\t-7\d\.\d\d\t-9", line)]
    found = [tuple(abs(float(n)) for n in re.findall(r"-?\d+\.\d\d", line)) for line in lines]
    assert found == list(PRINTED.values())


def test_there_are_five_rows_and_those_ablations_of_six_data_sets_that_differ_from_them() -> None:
    assert tuple(table_3.ROWS) == ROWS
    assert tuple(table_3.DATA) == DATA
    assert tuple(table_3.ABLATIONS) == ABLATIONS
    names = {name for name in catalogue.names() if name.startswith("table-3/")}
    assert names == {f"table-3/{data}/{row}" for data in DATA for row in (*ROWS, *ablations(data))}
    for size, data in itertools.product(SIZES, DATA):
        written = [
            recipe(data, row, size).model_dump_json(exclude={"name", "about"}) for row in (*ROWS, *ablations(data))
        ]
        assert len(set(written)) == len(written)


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "row"), CELLS)
def test_sixteen_local_groups_of_32_variables_and_16_or_128_global_ones(data: str, row: str) -> None:
    chosen = recipe(data, row)
    c = chosen.model.convolutional
    assert c is not None
    assert c.variables == 32
    # Caltech's network is shallower, since it overfits.
    caltech = data == "caltech101-silhouettes"
    assert (c.local_groups, c.cells.count) == (16, 1 if caltech else 2)
    assert c.cells.squeeze_excite
    assert sum(chosen.model.groups) == (128 if data == "cifar10" else 16)
    assert len(chosen.model.groups) in (1, 2, 4)
    assert c.local_variables.name == row.split("-")[1]
    assert c.conditional == (data not in ("mnist-static", "mnist-dynamic"))
    assert chosen.model.prior.name == {"normal": "normal", "bernoulli": "bernoulli"}.get(row.split("-")[0], "rbm")
    assert chosen.model.likelihood.name == ("logistic-mixture" if data == "cifar10" else "bernoulli")
    spike = row.startswith("rolfe")
    assert chosen.model.smoothing.name == ("spike-exponential" if spike else "exponential")
    assert chosen.data.name == data


@pytest.mark.parametrize(("data", "row"), CELLS)
def test_training_is_by_the_rows_bound_with_a_warm_up_of_the_balanced_kl(data: str, row: str) -> None:
    chosen = recipe(data, row)
    expected = {"rolfe-normal": "rolfe", "bernoulli-bernoulli": "marginal"}.get(row, "joint")
    assert chosen.objective.name == expected
    training = chosen.training
    assert (training.batch, training.optimiser.epsilon, training.kl_warmup, training.balance_kl) == (
        100,
        1e-3,
        0.3,
        True,
    )
    assert (training.beta is None) == (row in ("rolfe-normal", "normal-normal"))
    assert (chosen.evaluation.samples, chosen.evaluation.examples) == (4000, None)


def test_the_rate_falls_along_half_a_cosine() -> None:
    training = recipe("omniglot", "rbm-normal").training
    rates = [training.learning_rate_at(fraction) for fraction in (0.0, 0.25, 0.5, 0.75, 1.0)]
    low, high = 1e-5, 1e-3
    assert rates[0] == pytest.approx(high)
    assert rates[2] == pytest.approx((low + high) / 2)
    assert rates[4] == pytest.approx(low)
    assert rates[1] == pytest.approx(high - (high - low) * 0.1464466, rel=1e-5)
    assert rates[3] == pytest.approx(low + (high - low) * 0.1464466, rel=1e-5)


def test_a_cosine_goes_with_one_rate() -> None:
    with pytest.raises(InputError, match="cosine_to"):
        override(recipe("omniglot", "rbm-normal"), ["training.learning_rate=[[0.5,0.001],[1.0,0.0001]]"])


@pytest.mark.parametrize(
    "setting",
    [
        "model.smoothing=spike-exponential",  # local bits
        "model.prior=directed",
        "training.batch=1",
        "model.convolutional.stem=3",
        "model.convolutional.cells=0",
    ],
)
def test_impossible_settings_are_refused(setting: str) -> None:
    with pytest.raises(InputError):
        override(recipe("omniglot", "rbm-bernoulli", "tiny"), [setting, "objective=joint"])


def test_normal_variables_and_balancing_need_the_convolutional_model() -> None:
    with pytest.raises(InputError, match="convolutional"):
        override(catalogue.find("quick/directed", "tiny"), ["model.prior=normal"])
    with pytest.raises(InputError, match="balance_kl"):
        override(catalogue.find("quick/directed", "tiny"), ["training.balance_kl=true"])


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["tiny", "small"])
@pytest.mark.parametrize("row", ROWS)
def test_a_built_row_is_of_its_kinds(row: str, size: str) -> None:
    for data in ("mnist-static", "cifar10") if size == "tiny" else ("omniglot",):
        model, objective = built(data, row, size)
        prior = {"normal": NormalPrior, "bernoulli": dvaepp.BernoulliPrior}.get(
            row.split("-")[0], dvaepp.BoltzmannPrior
        )
        assert isinstance(model.prior, prior)
        kind = {"normal": NormalVariables, "bernoulli": BernoulliVariables}[row.split("-")[1]]
        assert isinstance(model.hierarchy.kind, kind)
        assert isinstance(model.decoder, UpDecoder if data == "mnist-static" else ConditionalDecoder)
        if isinstance(model.prior, dvaepp.BoltzmannPrior):
            assert model.prior.machine.blocks == ((64, 64) if data == "cifar10" else (8, 8))
            assert model.prior.exact == (data != "cifar10")
        bounds = {"rolfe-normal": RolfeBound(), "bernoulli-bernoulli": MarginalBound()}
        assert objective == bounds.get(row, JointBound())


@pytest.mark.parametrize(("data", "row"), [("mnist-static", "rbm-normal"), ("cifar10", "bernoulli-bernoulli")])
def test_the_papers_size_has_sixteen_groups_of_32_variables_at_8_by_8(data: str, row: str) -> None:
    model, _ = built(data, row, "paper", "model.convolutional.cells=1", "model.convolutional.channels=4")
    with torch.no_grad(), measuring(model, 0):
        x = dataset(data, 2).valid.float()
        trace = model(x)
    assert [tuple(group.h.shape) for group in trace.local] == [(2, 32, 8, 8)] * 16
    assert trace.posterior.zeta.shape == (2, 128 if data == "cifar10" else 16)


def test_cifars_likelihood_is_a_mixture_of_ten_coupled_logistics() -> None:
    model, _ = built("cifar10", "rbm-normal")
    assert model.decoder.pyramid.likelihood == DiscretizedLogisticMixture(10, 3)
    black, white = (model.grid.standardised(torch.full((1, 3, 32, 32), v)) for v in (0.0, 255.0))
    torch.testing.assert_close(white - black, torch.full((1, 3, 32, 32), 2.0))


@pytest.mark.parametrize(
    ("name", "groups"),
    [("groups-1", (16,)), ("groups-4", (4, 4, 4, 4)), ("no-squeeze-excite", (8, 8))],
)
def test_ablations_of_groups_lay_them_side_by_side(name: str, groups: tuple[int, ...]) -> None:
    model, _ = built("mnist-static", name)
    assert model(dataset("mnist-static", 2).valid.float()).posterior.sizes == groups
    assert model.prior.machine.blocks == (8, 8)
    gates = [m for m in model.modules() if isinstance(m, SqueezeExcite)]
    assert bool(gates) == (name != "no-squeeze-excite")


def test_every_ablation_differs_from_the_row_by_what_it_says() -> None:
    for data in ("mnist-static", "cifar10"):
        base = recipe(data, "rbm-normal").model_dump()
        for name in ablations(data):
            changed = recipe(data, name).model_dump()
            different = {
                f"{part}.{key}"
                for part in ("model", "training", "evaluation", "data")
                for key in base[part]
                if base[part][key] != changed[part][key]
            }
            if changed["objective"] != base["objective"]:
                different.add("objective")
            expected = {
                "no-squeeze-excite": {"model.convolutional"},
                "no-balancing": {"training.balance_kl"},
                "conditional": {"model.convolutional"},
                "unconditional": {"model.convolutional"},
                "groups-1": {"model.groups"},
                "groups-4": {"model.groups"},
                "factorial": {"model.prior"},
            }[name]
            assert different == expected, name


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "row"), TRAINED)
def test_a_cell_trains_validates_and_generates(data: str, row: str, tmp_path: Path) -> None:
    chosen, examples = recipe(data, row, "tiny"), dataset(data)
    model, objective = built(data, row)
    # Three steps: outputs start at 0, and q as p, so that some gradients come only when those have been moved.
    settings = chosen.training.model_copy(update={"steps": 3, "log_every": 3, "validate_every": 3})
    assert [settings.kl_weight_at(step / 3) for step in range(3)] == [0.0, 1.0, 1.0]
    trainer = Trainer(model, objective, examples, settings, tmp_path)
    lines: list[dict[str, Any]] = []
    trainer.fit(lines.append)
    # The last step's gradients, at KL weight 1 and with outputs that have left 0.
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        if parameter.ndim > 1:
            assert bool(parameter.grad.any()), name
    (last,) = [line for line in lines if "valid_nll" in line]
    assert math.isfinite(last["valid_nll"])
    local = [last[f"valid_kl_local_{j}"] for j in (1, 2)]
    assert last["valid_kl"] == pytest.approx(last["valid_kl_global"] + sum(local), rel=1e-4)
    with measuring(model, 0):
        drawn = model.generate(5)
        mean = model.decode(model.prior.sample(3)).mean
        code = model.code(examples.valid.float())
    assert drawn.shape == (5, math.prod(shape(data)))
    assert mean.shape == (3, drawn.shape[1])
    assert code.shape == (12, sum(chosen.model.groups))
    top = 255 if data == "cifar10" else 1
    assert set(drawn.unique().tolist()) <= set(range(top + 1))
    assert bool(((mean >= 0) & (mean <= top)).all())


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path: Path) -> None:
    """Weights in channels-last memory, batch norm's statistics and Adam's moments all come back."""
    data, row = "omniglot", "rbm-normal"
    settings = recipe(data, row, "tiny").training.model_copy(update={"steps": 4, "validate_every": 2, "log_every": 3})
    examples, outcomes = dataset(data), []
    for stop in (None, 2):
        folder = tmp_path / str(stop)
        trainer = Trainer(*built(data, row), examples, settings, folder)
        if stop:
            interrupted = Trainer(*built(data, row), examples, settings, folder)

            def at_three(line: dict[str, Any]) -> None:
                if line["step"] == 3:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                interrupted.fit(at_three)
            torch.manual_seed(9)
            trainer.restore()
            assert trainer.step == 2
        trainer.fit()
        outcomes.append(trainer.model.state_dict())
    assert outcomes[0].keys() == outcomes[1].keys()
    for name, tensor in outcomes[0].items():
        assert torch.equal(tensor, outcomes[1][name]), name


@pytest.mark.parametrize("row", ROWS)
def test_balancing_or_not_a_bound_at_kl_weight_1_is_the_same_and_moves_the_same_way(row: str, tmp_path: Path) -> None:
    x = dataset("mnist-static", 6).valid.float()
    found = []
    for balance in ("true", "false"):
        change = f"training.balance_kl={balance}"
        model, objective = built("mnist-static", row, "tiny", change)
        settings = override(recipe("mnist-static", row, "tiny"), [change]).training
        trainer = Trainer(model, objective, dataset("mnist-static", 2), settings, tmp_path)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.Conv2d):
                    module.weight.normal_(std=0.2)
        torch.manual_seed(3)
        values = [trainer._losses(x, weight)[0] for weight in (1.0, 0.5)]
        slopes = torch.autograd.grad(values[0], list(model.parameters()), allow_unused=True)
        assert all(slope is not None for slope in slopes)
        found.append((values, slopes))
    (one, other) = found
    assert torch.equal(one[0][0], other[0][0])
    assert not torch.equal(one[0][1], other[0][1])
    for a, b in zip(one[1], other[1], strict=True):
        assert torch.equal(a, b)


def test_recipes_go_through_json_unchanged() -> None:
    for data, row in (*CELLS, *((where, name) for where in DATA for name in ablations(where))):
        for size in SIZES:
            chosen = recipe(data, row, size)
            assert Recipe.model_validate_json(chosen.model_dump_json()) == chosen
    assert not dataclasses.is_dataclass(chosen)
