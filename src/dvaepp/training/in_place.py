"""A step of one model where it lies, whatever its kind: a function of tensors, of which a CUDA graph can be made."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.objectives.balancing import balancing_weights
from dvaepp.optimisers.base import Rule
from dvaepp.training.numbers import moves_within
from dvaepp.training.stacked import Given, Movable, State, count_steps, stacked, stacked_in
from dvaepp.training.trainer import Trainer


@dataclass(frozen=True)
class _Alike:
    """Parameters of one shape that one rule moves, side by side in one tensor, and what it keeps of them."""

    rule: str
    l2: float
    parameters: list[nn.Parameter]
    stack: Tensor
    kept: dict[str, Tensor]


class InPlace(Movable):
    """One trainer's model and what its optimisers keep, as `Stack` is for several of feed-forward models.

    The step is `Trainer.train_step`'s: the same random numbers and gradients, and the same movements up to rounding;
    the loss's value may be over an earlier estimate of log Z. What changes from step to step it is given as tensors.
    Parameters of one shape are moved at once; those on which the loss does not depend stay.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer, self._rules = trainer, trainer.optimisation.rules
        model, averages = trainer.model, trainer.optimisation.averages
        self._moves_chains = moves_within(trainer)
        self._groups = [self._alike(kind, l2, parameters) for (kind, l2, _), parameters in self._by_shape().items()]
        self._means = ([], []) if averages is None else averages.pairs()
        self.state = State(
            {f"{place}": group.stack for place, group in enumerate(self._groups)},
            dict(model.named_buffers()),
            {f"{place}": group.kept for place, group in enumerate(self._groups)},
            {f"{place}": mean for place, mean in enumerate(self._means[0])},
        )

    def _by_shape(self) -> dict[tuple[str, float, torch.Size], list[nn.Parameter]]:
        found: dict[tuple[str, float, torch.Size], list[nn.Parameter]] = defaultdict(list)
        used = self._used()
        for kind, optimizer in self._trainer.optimisation.optimizers.items():
            for group in optimizer.param_groups:
                for parameter in (p for p in group["params"] if id(p) in used):
                    found[kind, group["weight_decay"], parameter.shape].append(parameter)
        return found

    def _alike(self, kind: str, l2: float, parameters: list[nn.Parameter]) -> _Alike:
        rule, stack = self._rules[kind], stacked(parameters)
        states = [self._trainer.optimisation.optimizers[kind].state[parameter] for parameter in parameters]
        for state, parameter in zip(states, parameters, strict=True):
            for key in rule.kept:
                state.setdefault(key, torch.zeros_like(parameter))
        return _Alike(kind, l2, parameters, stack, {key: stacked_in(states, key, like=stack) for key in rule.kept})

    def _used(self) -> set[int]:
        """The parameters on which the loss depends, by their ids; random state and buffers are left as they are."""
        trainer, device = self._trainer, self._trainer.device
        parameters = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
        buffers = [(buffer, buffer.clone()) for buffer in trainer.model.buffers()]
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
            loss = trainer.terms(trainer.batches(1)[0])[0].bound().mean()
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for buffer, before in buffers:
            buffer.copy_(before)
        return {
            id(parameter) for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None
        }

    def count(self, step: int) -> None:
        """Tell the optimisers how many steps have been taken."""
        count_steps(self._trainer.optimisation.optimizers, self._rules, step)

    def step(self, state: State, given: Given) -> Float[Tensor, " 1"]:
        """The loss on the batch; then the model has moved by one step. `state` is this one's own."""
        if self._moves_chains:
            self._trainer.model.prior.refresh()
        with torch.enable_grad():
            loss = self._loss(given)
            each = [parameter for group in self._groups for parameter in group.parameters]
            gradients = iter(torch.autograd.grad(loss, each))
        for group in self._groups:
            gradient = torch.stack([next(gradients) for _ in group.parameters])
            if group.l2:
                gradient = gradient.add(group.stack, alpha=group.l2)
            rule: Rule = self._rules[group.rule]
            group.stack.copy_(rule(group.stack, gradient, group.kept, given.rates[group.rule]))
        if means := self._means[0]:
            moves = torch._foreach_sub(self._means[1], means)
            torch._foreach_mul_(moves, given.average.squeeze())
            torch._foreach_add_(means, moves)
        return loss.detach().view(1)

    def _loss(self, given: Given) -> Float[Tensor, ""]:
        """-bound(kl_weight), local groups balanced while the KL weight is below 1, averaged over the batch."""
        trainer, kl_weight = self._trainer, given.kl_weight.squeeze()
        smoothing = trainer.model.smoothing
        if trainer.settings.beta is not None:
            trainer.model.smoothing = smoothing.with_beta(given.beta.squeeze())
        try:
            terms = trainer.terms(given.x.squeeze(0))[0]
        finally:
            trainer.model.smoothing = smoothing
        weights = None
        if trainer.settings.balance_kl:
            weights = balancing_weights(terms.local_kl_terms.detach().mean(0))
            weights = torch.where(kl_weight < 1, weights, 1.0)
        return -terms.bound(kl_weight, weights).mean()
