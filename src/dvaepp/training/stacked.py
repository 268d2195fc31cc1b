"""Models of one structure side by side, and a step of all of them at once: a function of tensors."""

from __future__ import annotations

import copy
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap
from torch.optim import Optimizer
from torch.utils._pytree import register_dataclass, tree_map

from dvaepp.models.base import Model
from dvaepp.objectives.base import Objective
from dvaepp.optimisers.base import Rule

Tensors = dict[str, Tensor]


class Loss(nn.Module):
    """-bound(kl_weight), averaged over the batch, of a model at a beta, and the loss of what its objective learns."""

    def __init__(self, model: Model, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective, self.learned = model, objective, objective.learned
        self._has_beta = model.smoothing.sharpness is not None

    def forward(
        self, x: Tensor, noise: Tensor, chains: Tensor, beta: Tensor, kl_weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both, scalars, once chains have moved that are given numbers; beta and kl_weight are 0-d tensors."""
        if chains.numel():
            self.model.prior.refresh(chains)
        if self._has_beta:
            self.model.smoothing = self.model.smoothing.with_beta(beta)
        terms, learning = self.objective.with_loss(self.model, x, noise)
        return -terms.bound(kl_weight).mean(), learning


@dataclass(frozen=True)
class State:
    """What a step changes, (models, ...): parameters, buffers, and what the optimisers keep of each parameter.

    Parameters that take no gradient, as of a frozen encoder, are among the buffers.
    """

    parameters: Tensors
    buffers: Tensors
    kept: dict[str, Tensors]
    means: Tensors
    """Averages of parameters and buffers, by their names; none where they are not averaged."""


@dataclass(frozen=True)
class Given:
    """What steps are given: for each model a batch, uniform numbers, and its settings at this step (models,).

    Of several steps each has a first axis more, `steps`.
    """

    x: Float[Tensor, "*steps models batch pixels"]
    noise: Float[Tensor, "*steps models uniforms batch bits"]
    chains: Tensor
    """What each model's chains move by, as `refresh` takes it; no numbers where none move within the step."""
    beta: Float[Tensor, "*steps models"]
    kl_weight: Float[Tensor, "*steps models"]
    average: Float[Tensor, "*steps models"]
    """What of a mean its parameter becomes; 0 where there are none."""
    rates: Tensors
    """By the names of the optimisers."""

    def each(self) -> list[Given]:
        """What each of several steps is given."""
        return [tree_map(operator.itemgetter(step), self) for step in range(len(self.x))]

    def at(self, step: Int[Tensor, ""]) -> Given:
        """The same of one step, counted from 0."""
        given: Given = tree_map(lambda of_steps: of_steps.index_select(0, step.view(1)).squeeze(0), self)
        return given


for _each in (State, Given):
    register_dataclass(_each, field_names=[field.name for field in fields(_each)])


class Movable(ABC):
    """Models that take steps together: a `Stack`, or one `InPlace`."""

    state: State

    @abstractmethod
    def step(self, state: State, given: Given) -> Float[Tensor, " models"]:
        """Every model's loss on its batch; then all have moved by one step."""

    @abstractmethod
    def count(self, step: int) -> None:
        """Tell the optimisers how many steps have been taken."""


class Stack(Movable):
    """The tensors of models side by side: each model's own, and what its optimisers keep, become views of the stack's.

    So a step of all moves each model, and weights that are loaded into one are in the stack.
    """

    def __init__(
        self,
        losses: Sequence[Loss],
        optimizers: Sequence[dict[str, Optimizer]],
        rules: dict[str, Rule],
        averages: Sequence[Tensors] = (),
    ) -> None:
        self._optimizers, self._rules, first = optimizers, rules, losses[0]
        self._skeleton = copy.deepcopy(first)
        self._skeleton.model.prior.log_partition = None  # the first one's value, on which no gradient depends
        names = {id(parameter): name for name, parameter in first.named_parameters()}
        turned = {f"{name}.weight" for name, module in first.named_modules() if isinstance(module, nn.Linear)}
        all_of = {n: stacked([loss.get_parameter(n) for loss in losses], n in turned) for n in names.values()}
        moved = {name: parameter.requires_grad for name, parameter in first.named_parameters()}
        parameters = {name: all_of[name] for name, moves in moved.items() if moves}
        buffers = {name: stacked([loss.get_buffer(name) for loss in losses]) for name, _ in first.named_buffers()}
        buffers |= {name: all_of[name] for name, moves in moved.items() if not moves}
        both, names_of_means = parameters | buffers, averages[0] if averages else {}
        means = {f"model.{n}": stacked_in(averages, n, both[f"model.{n}"]) for n in names_of_means}
        self.state = State(parameters, buffers, {}, means)
        self._rule: dict[str, str] = {}
        self._l2: Tensors = {}
        for kind, optimizer in optimizers[0].items():
            for place, group in enumerate(optimizer.param_groups):
                for index, parameter in enumerate(group["params"]):
                    if not parameter.requires_grad:
                        continue
                    self._add(
                        names[id(parameter)], kind, [each[kind].param_groups[place] for each in optimizers], index
                    )

    def _add(self, name: str, kind: str, groups: Sequence[dict[str, Any]], index: int) -> None:
        """Stack what the optimisers of this kind keep of one parameter."""
        states = [
            each[kind].state[group["params"][index]] for each, group in zip(self._optimizers, groups, strict=True)
        ]
        for state, parameter in zip(states, self.state.parameters[name], strict=True):
            for key in self._rules[kind].kept:
                state.setdefault(key, torch.zeros_like(parameter))
        self._rule[name] = kind
        self.state.kept[name] = {
            key: stacked_in(states, key, like=self.state.parameters[name]) for key in self._rules[kind].kept
        }
        if any(group["weight_decay"] for group in groups):
            self._l2[name] = self.state.parameters[name].new_tensor([group["weight_decay"] for group in groups])

    def count(self, step: int) -> None:
        """Tell the optimisers how many steps have been taken."""
        for optimizers in self._optimizers:
            count_steps(optimizers, self._rules, step)

    def step(self, state: State, given: Given) -> Float[Tensor, " models"]:
        """Every model's loss on its batch; then all have moved by one step."""
        each = (given.x, given.noise, given.chains, given.beta, given.kl_weight)
        loss, gradients = vmap(self._gradients)(state.parameters, state.buffers, *each)
        for name, gradient in gradients.items():
            self._move(name, gradient, state, given.rates[self._rule[name]])
        for name, mean in state.means.items():
            current = state.parameters[name] if name in state.parameters else state.buffers[name]
            mean.lerp_(current, given.average.view(-1, *[1] * (mean.ndim - 1)))
        return loss

    def _gradients(self, parameters: Tensors, buffers: Tensors, *given: Tensor) -> tuple[Tensor, Tensors]:
        """One model's loss, its gradient in the model's parameters, and what is learned's in its own."""
        learned = {name: parameter for name, parameter in parameters.items() if not name.startswith("model.")}
        own = {name: parameter for name, parameter in parameters.items() if name not in learned}
        copies = {name: buffer.clone() for name, buffer in buffers.items()} if learned else {}
        gradients, loss = grad_and_value(partial(self._loss, given, 0))(own, learned, buffers)
        if learned:
            gradients |= grad(partial(self._loss, given, 1))(learned, own, copies)
        return loss, gradients

    def _loss(
        self, given: tuple[Tensor, ...], which: int, parameters: Tensors, others: Tensors, buffers: Tensors
    ) -> Tensor:
        tensors = {**parameters, **others, **buffers}
        loss: Tensor = functional_call(self._skeleton, tensors, given)[which]
        return loss

    def _move(self, name: str, gradient: Tensor, state: State, rate: Tensor) -> None:
        parameter, kept = state.parameters[name], state.kept[name]
        numbers = (-1, *[1] * (parameter.ndim - 1))
        if name in self._l2:
            gradient = gradient + self._l2[name].view(numbers) * parameter
        parameter.copy_(self._rules[self._rule[name]](parameter, gradient, kept, rate.view(numbers)))


def count_steps(optimizers: dict[str, Optimizer], rules: dict[str, Rule], step: int) -> None:
    """Tell the optimisers how many steps have been taken."""
    for kind, optimizer in optimizers.items():
        for state in optimizer.state.values() if rules[kind].counted else ():
            state["step"] = torch.tensor(float(step))


def stacked(tensors: Sequence[Tensor], turned: bool = False) -> Tensor:
    """The tensors side by side; each becomes a view of its place.

    Weights of linear layers lie `turned` in memory, as their gradients come: or optimisers would read across memory.
    """
    stack = torch.stack([tensor.detach().mT if turned else tensor.detach() for tensor in tensors])
    stack = stack.mT if turned else stack
    for tensor, place in zip(tensors, stack, strict=True):
        tensor.data = place
    return stack


def stacked_in(states: Sequence[dict[str, Any]], key: str, like: Tensor) -> Tensor:
    """What the states hold under a key side by side, in memory as another stack; each holds a view of its place."""
    stack = torch.empty_like(like).copy_(torch.stack([state[key] for state in states]))
    for state, place in zip(states, stack, strict=True):
        state[key] = place
    return stack
