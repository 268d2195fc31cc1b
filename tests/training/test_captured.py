"""A step in place against `Trainer.train_step`: the same training, alone, side by side, resumed; fit for a graph."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dvaepp.data.dataset import Dataset
from dvaepp.likelihoods.base import DataSpec
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import override
from dvaepp.storage import load_tensors
from dvaepp.studies.study import Study
from dvaepp.studies.training import is_captured
from dvaepp.studies.work import groups
from dvaepp.training.replicas import Captured
from dvaepp.training.trainer import Trainer

STEPS = 6
TRAINING = (
    f"training.steps={STEPS}",
    "training.validate_every=3",
    "training.kl_warmup=0.5",
    "training.l2=0.01",
    "training.average=0.9",
    "training.optimiser=muon",
)
CHAINS = ("model.groups=[20,20]", "model.prior.sampler.num_chains=7")
TEMPERING = (
    "model.groups=[20,20]",
    "model.prior.sampler=tempering",
    "model.prior.sampler.num_chains=5",
    "model.prior.sampler.temperatures=3",
)
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "normal": ("mnist-static/normal-normal", ()),
    "spikes": ("mnist-static/rolfe-normal", ()),
    "exact machine": ("mnist-static/rbm-normal", ()),
    "marginal bound of signed bits": (
        "mnist-static/groups-4",
        ("objective=marginal", "model.signed=true", "model.hidden=[6,6]"),
    ),
    "coarse groups": ("mnist-static/rbm-normal", ("model.convolutional.coarse_groups=2",)),
    "local bits": ("mnist-static/rbm-bernoulli", ()),
    "directed bits": ("mnist-static/bernoulli-bernoulli", ("training.optimiser=adam",)),
    "chains": ("mnist-static/rbm-normal", CHAINS),
    "tempering": ("mnist-static/rbm-normal", TEMPERING),
    "grey, chains": ("mnist-dynamic/rbm-normal", CHAINS),
}


def trainer(case: str, folder: Path, seed: int = 0, device: str = "cpu") -> Trainer:
    """In float64 on a CPU, so that rounding does not hide what differs."""
    cell, changes = CASES[case]
    recipe = override(catalogue.find(f"table-3/{cell}", "tiny"), [*TRAINING, *changes])
    grey = cell.startswith("mnist-dynamic")
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(0, 2, (12, 784), generator=generator).to(torch.uint8)
    train = torch.randint(0, 256, x.shape, generator=generator).to(torch.uint8) if grey else x
    data = Dataset("random", (28, 28), train, x, x, grey, "by hand")
    torch.manual_seed(seed)
    model, objective = recipe.build(DataSpec(data.shape, data.mean, data.sd))
    model.to(device, torch.float32 if device == "cuda" else torch.float64)
    return Trainer(model, objective, data, recipe.training, folder, seed)


def side_by_side(going: list[Captured]) -> None:
    for each in going:
        each.begin()
    while going:
        going = [each for each in going if each.advance(lambda *_: None, lambda: False)]


def differ(first: Path, second: Path) -> float:
    """The largest relative difference between what two checkpoints hold; inf where random states differ."""
    (one, about), (other, of_other) = load_tensors(first), load_tensors(second)
    assert one.keys() == other.keys()
    assert about["step"] == of_other["step"]
    if not torch.equal(one["random.cpu"], other["random.cpu"]):
        return math.inf
    numbers = [(one[name], other[name]) for name in one if one[name].dtype.is_floating_point and one[name].numel()]
    return max(float(((a - b).abs() / (1 + b.abs())).max()) for a, b in numbers)


@pytest.mark.parametrize("case", CASES)
def test_a_step_in_place_is_the_trainers(case: str, tmp_path: Path) -> None:
    lines: dict[str, list[Any]] = {"plain": [], "captured": []}
    plain = trainer(case, tmp_path / "plain")
    plain.fit(lines["plain"].append)
    Captured(lambda: trainer(case, tmp_path / "captured"), "eager").fit(lambda _, m: lines["captured"].append(m))
    assert differ(plain.checkpoint, tmp_path / "captured" / plain.checkpoint.name) < 1e-9
    for one, other in zip(*lines.values(), strict=True):
        assert one["step"] == other["step"]
        assert {k: v for k, v in other.items() if k != "seconds"} == pytest.approx(
            {k: v for k, v in one.items() if k != "seconds"}, rel=1e-6, nan_ok=True
        )


@pytest.mark.parametrize("case", ["chains", "tempering"])
def test_chains_that_move_within_a_step_are_the_trainers(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trainer(case, tmp_path / "plain")
    assert not plain.model.prior.exact
    plain.fit()
    for module in ("in_place", "numbers"):
        monkeypatch.setattr(f"dvaepp.training.{module}.moves_within", lambda trainer: True)
    Captured(lambda: trainer(case, tmp_path / "within"), "eager").fit()
    assert differ(plain.checkpoint, tmp_path / "within" / plain.checkpoint.name) < 1e-9


@pytest.mark.parametrize("case", ["exact machine", "chains", "tempering", "grey, chains"])
def test_runs_side_by_side_or_resumed_are_those_alone_bit_for_bit(case: str, tmp_path: Path) -> None:
    Captured(lambda: trainer(case, tmp_path / "alone"), "eager").fit()
    side_by_side([Captured(lambda n=n: trainer(case, tmp_path / f"beside{n}", n), "eager") for n in range(2)])
    parts = Captured(lambda: trainer(case, tmp_path / "parts"), "eager")
    parts.fit(stop=lambda: True)
    assert parts.step < STEPS

    def restored() -> Trainer:
        made = trainer(case, tmp_path / "parts")
        made.restore()
        return made

    Captured(restored, "eager").fit()
    alone = tmp_path / "alone" / "checkpoint.safetensors"
    for other in ("beside0", "parts"):
        assert differ(alone, tmp_path / other / alone.name) == 0
    assert differ(alone, tmp_path / "beside1" / alone.name) > 0


class Outside(TorchDispatchMode):
    """What no graph can hold: values that Python reads, and tensors made of Python's numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kinds = ("_local_scalar_dense", "is_nonzero", "nonzero", "lift_fresh", "masked_select", "equal.default")
        self.found += [str(function)] if any(kind in str(function) for kind in kinds) else []
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", CASES)
def test_a_step_reads_no_value_back(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvaepp.boltzmann.machine.uniform_filler", lambda like: torch.Tensor.uniform_)  # a GPU's
    monkeypatch.setattr("dvaepp.training.in_place.moves_within", lambda trainer: case == "chains")  # as on a GPU
    captured = Captured(lambda: trainer(case, tmp_path / "run"), "eager")
    captured.begin()
    stack = captured._stack
    with captured._at_work(), captured._numbers[0].at_steps():
        first, second = (captured._given(1).each()[0] for _ in range(2))
        stack.step(stack.state, first)
        with Outside() as outside:
            stack.step(stack.state, second)
    assert outside.found == []


def test_batches_of_grey_are_drawn_afresh_whatever_comes_between(tmp_path: Path) -> None:
    captured = Captured(lambda: trainer("grey, chains", tmp_path / "run"), "eager")
    captured.begin()
    seen = []
    for _ in range(3):
        seen.append(captured._given(1).x)
        torch.rand(5)  # another run draws
    plain = trainer("grey, chains", tmp_path / "plain")
    plain.begin()
    plain.model.prior.refresh()
    assert torch.equal(seen[0][0, 0], plain.batches(1)[0])
    assert len({x.sum().item() for x in seen}) == 3


def test_a_parameter_that_the_loss_does_not_know_stays(tmp_path: Path) -> None:
    made = trainer("normal", tmp_path / "run")
    made.model.unused = torch.nn.Parameter(torch.ones(3, 3, dtype=torch.float64))
    again = Trainer(made.model, made.objective, made.data, made.settings, tmp_path / "again")
    Captured(lambda: again, "eager").fit()
    assert torch.equal(made.model.unused, torch.ones_like(made.model.unused))


def test_a_study_on_a_gpu_captures_convolutional_runs_one_by_one() -> None:
    study = Study(recipes=["table-3/mnist-static/rbm-normal"], size="tiny", seeds=3, set={"training.compile": [True]})
    points = study.points()
    assert [len(group) for group in groups(points, 3, "cuda:0")] == [1, 1, 1]
    assert [len(group) for group in groups(points, 3, "cpu")] == [3]
    assert [is_captured(points[0].recipe, device) for device in ("cuda", "cpu")] == [True, False]
    stacked = override(catalogue.find("quick/rbm", "tiny"), ["training.compile=true"])
    eager = catalogue.find("table-3/mnist-static/rbm-normal", "tiny")
    assert not any(is_captured(recipe, "cuda") for recipe in (stacked, eager))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("case", ["exact machine", "local bits", "chains"])
def test_on_a_gpu_a_graph_takes_the_trainers_steps(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    plain = trainer(case, tmp_path / "plain", device="cuda")
    plain.fit()
    Captured(lambda: trainer(case, tmp_path / "alone", device="cuda")).fit()
    side_by_side([Captured(lambda n=n: trainer(case, tmp_path / f"beside{n}", n, "cuda")) for n in range(2)])
    alone = tmp_path / "alone" / plain.checkpoint.name
    assert differ(plain.checkpoint, alone) < 1e-3
    assert differ(alone, tmp_path / "beside0" / alone.name) == 0
