"""Models and optimisers to tensors by name and back, and what a checkpoint must agree with before it is believed."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dvaepp.boltzmann.log_partition import LogPartition
from dvaepp.boltzmann.machine import BoltzmannMachine, check_state
from dvaepp.data import Dataset
from dvaepp.data.columns import Column, kinds_of
from dvaepp.errors import InputError
from dvaepp.likelihoods.base import DataSpec
from dvaepp.models.base import Model
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.states import EXTRA_STATE
from dvaepp.storage import load_tensors
from dvaepp.training.averages import AVERAGE, averaged
from dvaepp.training.settings import TrainingSettings

_MACHINE = "prior.machine."
_RENAMED = {"tower": "backbone", "generator": "upsampler"}


SameRecipe = Callable[[Any, Any], bool]
"""Whether two recipes in plain JSON are one, in whatever form each was written."""


def check_origin(
    path: Path, about: dict[str, Any], expected: dict[str, Any], same_recipe: SameRecipe = operator.eq
) -> None:
    """InputError unless a checkpoint is of this recipe, seed and data."""
    if missing := {"data", "shape", "step", *expected} - set(about):
        raise InputError(f"{path} is not a run's checkpoint: its header lacks {', '.join(sorted(missing))}")
    step = about["step"]
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise InputError(f"{path} is not a run's checkpoint: its step is {step!r}, expected a whole number from 0 on")
    for key, what in (("recipe", "another recipe"), ("seed", "another seed"), ("data", "other data")):
        same = same_recipe if key == "recipe" else operator.eq
        if key in expected and not same(about.get(key), expected[key]):
            raise InputError(f"{path} was trained with {what} than the run has now")


def step_in(path: Path) -> int:
    """The step of the checkpoint at a path, 0 where there is none; InputError where that cannot be read."""
    step = load_tensors(path, lambda _: False)[1].get("step") if path.exists() else 0
    if isinstance(step, bool) or not isinstance(step, int):
        raise InputError(f"{path} is not a run's checkpoint: its step is {step!r}")
    return step


def data_tensors(data: Dataset) -> dict[str, Tensor]:
    """Mean and sd of each value (pixels,), which a likelihood's own settings may come from."""
    return {"data.mean": data.mean, "data.sd": data.sd}


def about_data(data: Dataset) -> dict[str, Any]:
    """What a checkpoint says of its data: digest, shape, and what categories or columns of several kinds there are."""
    about: dict[str, Any] = {"data": data.digest(), "shape": list(data.shape)}
    if data.kind == "categories":
        about["categories"] = data.categories
    if data.schema is not None:
        about["schema"] = [column.written() for column in data.schema]
    return about


def spec_in(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> DataSpec:
    """What of its data a checkpoint's model was built for; mean and sd are 1 where it is from before they were kept.

    InputError where they are of another shape than the examples.
    """
    shape = tuple(about["shape"])
    ones = torch.ones(math.prod(shape))
    mean, sd = tensors.get("data.mean", ones), tensors.get("data.sd", ones)
    if mean.shape != ones.shape or sd.shape != ones.shape:
        raise InputError(f"{path} does not fit its data: examples are {shape}, mean and sd {(*mean.shape, *sd.shape)}")
    return DataSpec(shape, mean, sd, about.get("categories", 2), kinds_of(schema_in(path, about)))


def schema_in(path: Path, about: dict[str, Any]) -> tuple[Column, ...] | None:
    """What the columns of a table of several kinds hold, where a checkpoint's data are one."""
    try:
        return tuple(map(Column.read, about["schema"])) if "schema" in about else None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}") from None


def anneal(model: Model, training: TrainingSettings, fraction: float) -> None:
    """Give the model the smoothing of this fraction of training, if that is annealed."""
    beta = training.beta_at(fraction)
    if beta is not None:
        model.smoothing = model.smoothing.with_beta(beta)


def load_model(
    model: Model, path: Path, tensors: dict[str, Tensor], about: dict[str, Any], training: TrainingSettings
) -> None:
    """Put a checkpoint's weights, chains, log Z and smoothing into a model of the same recipe.

    The bits of a Boltzmann machine are then in the checkpoint's order, as encoder and decoder know them: a graph whose
    edges are in another order now than they were is the same. The smoothing is that of the step that made the weights,
    the last one before the checkpoint: beta at (step - 1) / steps; at step 0 that of the first. InputError if weights
    or chains do not fit.
    """
    weights = {_name_now(name): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    expected = model.state_dict()
    try:
        if isinstance(model.prior, BoltzmannPrior):
            check_state(model.prior.machine, weights, _MACHINE)
        for name in sorted(name for name in expected.keys() | weights.keys() if not name.endswith(EXTRA_STATE)):
            here, there = (tuple(d[name].shape) if name in d else None for d in (expected, weights))
            if here != there:
                raise InputError(f"{name} has shape {there} there and {here} in the model")
        model.load_state_dict(weights)
    except InputError as error:
        raise InputError(f"{path} does not fit the recipe: {error}") from None
    if isinstance(model.prior, BoltzmannPrior) and about.get("log_partition") is not None:  # as it was kept before
        model.prior.log_partition = LogPartition(**about["log_partition"])
    anneal(model, training, training.fraction_before(about["step"]))


class TakenOver(NamedTuple):
    """Names of a model's weights that another's took the place of, of its others, and of those only the other has."""

    weights: tuple[str, ...]
    new: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        told = {"new": self.new, "not taken": self.left}
        return f"{len(self.weights)} tensors" + "".join(f"; {what}: {_some(n)}" for what, n in told.items() if n)


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + f" and {len(names) - most} more" * (len(names) > most)


def take_over(model: Model, path: Path) -> TakenOver:
    """Give a new model the weights, averaged where they were, of a checkpoint, by name, where they have its shapes.

    A Boltzmann machine's, in the order of the bits there, only where blocks, labels and edges are the model's. Markov
    chains and log Z are left as they are. InputError where none fits.
    """
    tensors, _ = load_tensors(path, lambda name: name.startswith(("model.", AVERAGE)))
    given = {_name_now(name): tensor for name, tensor in averaged(tensors).items() if name.startswith("model.")}
    chains = {f"prior.{name}" for name, _ in model.prior.named_buffers(recurse=False)}
    own = {n: t for n, t in model.state_dict().items() if n not in chains and not n.endswith(EXTRA_STATE)}
    fitting = {name for name, tensor in own.items() if name in given and given[name].shape == tensor.shape}
    if isinstance(model.prior, BoltzmannPrior):
        machine = {n.removeprefix(_MACHINE): t for n, t in given.items() if n.startswith(_MACHINE)}
        if _is_of(model.prior.machine, machine):
            model.prior.machine.load_state_dict(machine)
        else:
            fitting = {name for name in fitting if not name.startswith(_MACHINE)}
    if not fitting:
        raise InputError(f"{path} holds no weights that fit the recipe's model")
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(given[name])
    taken, new = (tuple(n for n in own if (n in fitting) == fits) for fits in (True, False))
    return TakenOver(taken, new, tuple(n for n in given if n not in model.state_dict() and not n.endswith(EXTRA_STATE)))


def _is_of(machine: BoltzmannMachine, state: dict[str, Tensor]) -> bool:
    """Whether a state dict is that of a machine of these blocks, labels and edges."""
    here, there = ({n: t.shape for n, t in each.items() if n != EXTRA_STATE} for each in (machine.state_dict(), state))
    try:
        check_state(machine, state)
    except InputError:
        return False
    return here == there


def load_learned(learned: nn.Module, path: Path, tensors: dict[str, Tensor], prefix: str) -> None:
    """Put what an objective has learned into it; InputError where the checkpoint holds something else."""
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    known = learned.state_dict()
    state = {name: state[name] for name in known if name in state}
    if {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in known.items()}:
        raise InputError(f"{path} does not fit the recipe: it holds not what the estimator learns")
    learned.load_state_dict(state)


def _name_now(name: str) -> str:
    """A tensor's name in the model, of checkpoints from before parts of ConvolutionalVAE were renamed too."""
    name = name.removeprefix("model.")
    part, _, rest = name.partition(".")
    return f"{_RENAMED[part]}.{rest}" if part in _RENAMED else name


def random_tensors(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's CPU generator and, where that is another, of the device's."""
    cuda = {"random.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"random.cpu": torch.get_rng_state(), **cuda}


def restore_random(tensors: dict[str, Tensor], device: torch.device) -> None:
    """Put back what `random_tensors` gave, found among other tensors."""
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], device)


def optimizer_tensors(optimizer: Optimizer, prefix: str) -> dict[str, Tensor]:
    """What an optimiser keeps for each parameter, under the parameter's number."""
    states = optimizer.state_dict()["state"].items()
    return {f"{prefix}{index}.{name}": tensor for index, state in states for name, tensor in state.items()}


def load_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], prefix: str) -> None:
    """Put back what `optimizer_tensors` gave, found among other tensors."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            index, key = name.removeprefix(prefix).split(".")
            states.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    for parameter, state in optimizer.state.items():
        like = {k: torch.empty_like(parameter).copy_(v) for k, v in state.items() if v.shape == parameter.shape}
        state.update(like)  # in the parameter's memory format, as the fused optimiser takes them to be
