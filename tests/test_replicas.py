"""Replicas: models trained at once by torch.func.vmap, each as if it trained alone; and that no step reads a value."""

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from deep import deep_model
from registry import (
    PIXELS,
    Objective,
    case_model,
    every_concrete,
    every_deterministic,
    every_prior,
    every_smoothing,
    every_spike,
)
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.boltzmann.samplers import AnnealedPopulation, ExactSamples, PersistentChains, Sampler, TemperedChains
from dvaepp.errors import InputError
from dvaepp.models.encoders import Encoder, HierarchicalEncoder, NormalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.models.local import BernoulliVariables, NormalVariables
from dvaepp.networks.dense import centring, dense
from dvaepp.objectives.bounds import joint_elbo, marginal_elbo
from dvaepp.objectives.rolfe import rolfe_elbo
from dvaepp.priors.base import Prior
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.priors.directed import DirectedPrior
from dvaepp.priors.normal import NormalPrior
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import StraightThrough
from dvaepp.smoothings.concrete import Concrete
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.smoothings.spike import SpikeExponential

REPLICAS, STEPS, BATCH, CHAINS, SWEEPS = 3, 4, 6, 15, 2


@pytest.fixture(autouse=True)
def _validation_off() -> Iterator[None]:
    """As in training: torch's checks of distribution arguments read values back."""
    Distribution.set_default_validate_args(False)
    yield
    Distribution.set_default_validate_args(True)


def chain_prior(groups: tuple[int, ...], batch_norm: bool, exact_bits: int = 0) -> BoltzmannPrior:
    machine = BoltzmannMachine(3, sum(groups) - 3).double()
    for parameter in machine.parameters():
        nn.init.normal_(parameter, std=0.5)
    return BoltzmannPrior(machine, PersistentChains(CHAINS, SWEEPS), exact_bits=exact_bits)


def directed_prior(groups: tuple[int, ...], batch_norm: bool) -> Prior:
    ends = itertools.accumulate(groups)
    sizes = zip(ends, groups[1:], strict=False)
    return DirectedPrior(groups[0], *(dense(end, size, (5,), batch_norm) for end, size in sizes))


def normal_prior(groups: tuple[int, ...], batch_norm: bool) -> Prior:
    return NormalPrior(sum(groups))


@dataclass(frozen=True)
class Case:
    prior: Callable[[tuple[int, ...], bool], Prior]
    groups: tuple[int, ...] = (4, 3)
    batch_norm: bool = False
    smoothing: Callable[[Tensor], Smoothing] = OverlappingExponential
    objective: Objective = joint_elbo
    encoder: Callable[..., Encoder] = field(default=HierarchicalEncoder)

    def model(self, seed: int) -> FeedForwardVAE:
        torch.manual_seed(seed)
        starts = [PIXELS + start for start in itertools.accumulate((0, *self.groups[:-1]))]
        width = 2 if self.encoder is NormalEncoder else 1
        levels = [
            nn.Sequential(
                centring(torch.full((PIXELS,), 0.4), start - PIXELS),
                dense(start, width * size, (5,), self.batch_norm),
            )
            for start, size in zip(starts, self.groups, strict=True)
        ]
        decoder = dense(sum(self.groups), PIXELS, (5,), self.batch_norm)
        prior = self.prior(self.groups, self.batch_norm)
        return FeedForwardVAE(self.encoder(*levels), prior, decoder, self.smoothing(torch.tensor(6.0))).double()


CASES = {
    **{
        f"{name}-{len(groups)}{'-batch-norm' if batch_norm else ''}": Case(prior, groups, batch_norm)
        for name, prior in {
            "chains": chain_prior,
            "directed": directed_prior,
            "exact": partial(chain_prior, exact_bits=16),
        }.items()
        for groups in ((7,), (4, 3))
        for batch_norm in (False, True)
    },
    "marginal": Case(directed_prior, objective=marginal_elbo),
    "marginal-exact": Case(partial(chain_prior, exact_bits=16), objective=marginal_elbo),
    "concrete": Case(directed_prior, smoothing=lambda beta: Concrete(1 / beta), objective=marginal_elbo),
    "rolfe": Case(chain_prior, smoothing=SpikeExponential, objective=rolfe_elbo),
    "straight-through": Case(chain_prior, smoothing=lambda beta: StraightThrough()),
    "normal": Case(normal_prior, encoder=NormalEncoder),
    **{
        f"{name}-smoothing": Case(chain_prior, smoothing=case.smoothing.with_beta)
        for name, case in every_smoothing.items()
        if name in ("logistic-5", "normal-5", "power-3", "floored-5")
    },
    "written-smoothing": Case(chain_prior, smoothing=lambda beta: every_smoothing["written-normal"].smoothing),
    "gumbel": Case(chain_prior, smoothing=every_deterministic["gumbel-1"].smoothing.with_beta),
    "spike-gaussian": Case(directed_prior, smoothing=every_spike["gaussian-3"].smoothing.with_beta),
}


@dataclass(frozen=True)
class Step:
    """What one step of every replica is given: the first axis runs over them."""

    beta: Tensor
    x: Tensor
    noise: Tensor
    chains: Tensor


def steps(bits: int) -> list[Step]:
    generator = torch.Generator().manual_seed(5)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(REPLICAS, *shape, generator=generator, dtype=torch.float64)

    return [
        Step(
            beta=3 + 4 * uniform(),
            x=(uniform(BATCH, PIXELS) < 0.4).double(),
            noise=uniform(2, BATCH, bits),
            chains=uniform(SWEEPS, CHAINS, bits),
        )
        for _ in range(STEPS)
    ]


def alone(model: FeedForwardVAE, case: Case, replica: int) -> list[float]:
    """The losses of a model that trains by itself, in the ordinary way."""
    optimizer, losses = torch.optim.Adam(model.parameters(), 0.02), []
    for step in steps(sum(case.groups)):
        model.smoothing = case.smoothing(step.beta[replica])
        model.prior.refresh(step.chains[replica])
        loss = -case.objective(model, step.x[replica], noise=step.noise[replica]).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


class Replica(nn.Module):
    """A model as functional_call takes it: its loss, or where there is no x its chains moved on."""

    def __init__(self, model: FeedForwardVAE, case: Case) -> None:
        super().__init__()
        self.model, self.case = model, case

    def forward(self, noise: Tensor, x: Tensor | None = None, beta: Any = None) -> Tensor:
        if x is None:
            self.model.prior.refresh(noise)
            return noise[0]
        self.model.smoothing = self.case.smoothing(beta)
        return -self.case.objective(self.model, x, noise=noise).mean()


def together(models: list[FeedForwardVAE], case: Case) -> tuple[dict[str, Tensor], list[Tensor]]:
    """All tensors of models that train stacked, and their losses; moments of Adam are elementwise, so stacked too."""
    parameters, buffers = stack_module_state([Replica(model, case) for model in models])
    skeleton = Replica(copy.deepcopy(models[0]), case)
    optimizer, losses = torch.optim.Adam(parameters.values(), 0.02), []

    def loss(parameters: Any, buffers: Any, *arguments: Tensor) -> Tensor:
        return functional_call(skeleton, (parameters, buffers), arguments)

    for step in steps(sum(case.groups)):
        frozen = {name: parameter.detach() for name, parameter in parameters.items()}
        vmap(loss)(frozen, buffers, step.chains)
        gradients, value = vmap(grad_and_value(loss))(frozen, buffers, step.noise, step.x, step.beta)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name]
        optimizer.step()
        losses.append(value)
    return {**parameters, **buffers}, losses


@pytest.mark.parametrize("name", CASES)
def test_replicas_stacked_train_as_each_does_alone(name: str) -> None:
    case = CASES[name]
    models = [case.model(seed) for seed in range(REPLICAS)]
    stacked, losses = together(models, case)
    start = {name: tensor.clone() for name, tensor in models[0].state_dict().items()}
    for replica, model in enumerate(models):
        assert [float(loss[replica]) for loss in losses] == pytest.approx(alone(model, case, replica), rel=1e-10)
        for key, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
            torch.testing.assert_close(stacked[f"model.{key}"][replica].detach(), tensor.detach(), rtol=1e-8, atol=1e-9)
    moved = {key for key, tensor in models[0].state_dict().items() if not torch.equal(tensor, start[key])}
    assert moved >= {key for key, _ in models[0].named_parameters()}
    assert all(("running_mean" in key) <= (key in moved) for key in start)
    assert ("prior.states" in moved) == isinstance(getattr(models[0].prior, "chains", None), Sampler)


# --- no value is read back --------------------------------------------------------------------------------------------


class _NoAutocast(torch.autocast):
    """The meta device knows no autocast."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: Any) -> None: ...


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", _NoAutocast)


def step_without_values(model: Any, objective: Objective, x: Tensor) -> None:
    """A training step on the meta device, whose tensors have shapes and no values: whatever reads one raises."""
    model.to("meta").train()
    model.prior.refresh()
    torch.autograd.backward(-objective(model, x.to("meta")).mean())
    assert all(parameter.grad is not None for parameter in model.encoder.parameters())


def trained_by(prior: str, smoothing: Smoothing) -> list[Objective]:
    """The bounds that train such a model."""
    case, boltzmann = every_prior[prior], isinstance(every_prior[prior].make(), BoltzmannPrior)
    bounds: list[Objective] = []
    if smoothing.shared_conditional and not (smoothing.has_atom and boltzmann and len(case.groups) > 1):
        bounds.append(joint_elbo)
    if not smoothing.has_atom and (not boltzmann or (prior != "rbm-chains" and smoothing.shared_conditional)):
        bounds.append(marginal_elbo)
    return bounds + ([rolfe_elbo] if boltzmann and smoothing.has_atom else [])


SMOOTHINGS: dict[str, Smoothing] = {
    type(smoothing).__name__: smoothing
    for smoothing in (
        *(case.smoothing for case in (*every_smoothing.values(), *every_spike.values())),
        *(case.smoothing for name, case in every_deterministic.items() if name != "hard"),
        *every_concrete.values(),
    )
}
"""One of each kind, with a beta in a tensor where the kind has one."""


def test_a_value_cannot_be_read_on_the_meta_device() -> None:
    for read in (float, bool, Tensor.tolist, lambda tensor: tensor[tensor > 0]):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(torch.ones((), device="meta"))


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("prior", every_prior)
def test_a_training_step_reads_no_value_back(prior: str, smoothing: str) -> None:
    for objective in trained_by(prior, SMOOTHINGS[smoothing]):
        step_without_values(case_model(prior, SMOOTHINGS[smoothing]), objective, torch.zeros(2, PIXELS).double())


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("local", [NormalVariables(), BernoulliVariables()])
@pytest.mark.parametrize("conditional", [False, True])
def test_a_step_of_a_convolutional_model_reads_no_value_back(local: Any, conditional: bool) -> None:
    shape = (8, 8) if conditional else (4, 4)
    model = deep_model(chain_prior((4, 3), False), (4, 3), local, shape=shape, conditional=conditional)
    step_without_values(model, joint_elbo, torch.zeros(2, shape[0] * shape[1]).double())


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize(
    "sampler",
    [PersistentChains(8, 2), TemperedChains(4, 2, temperatures=3), AnnealedPopulation(8, 3), ExactSamples(8)],
)
def test_samplers_read_no_value_back(sampler: Sampler) -> None:
    prior = BoltzmannPrior(BoltzmannMachine(3, 2), sampler, exact_bits=0).to("meta")
    prior.refresh()
    held = torch.zeros(5, dtype=torch.bool, device="meta")
    prior.machine.gibbs(prior.samples, 2, clamped=held)


def test_a_sampler_that_draws_its_own_numbers_takes_none() -> None:
    for sampler in (TemperedChains(4, 2), AnnealedPopulation(8, 3), ExactSamples(8)):
        prior = BoltzmannPrior(BoltzmannMachine(3, 2), sampler, exact_bits=0)
        with pytest.raises(InputError, match=f"{type(sampler).__name__} .* takes no noise"):
            prior.refresh(torch.rand(2, *prior.states.shape))
