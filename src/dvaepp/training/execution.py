"""How steps of a stack are run: as they are, compiled, or as a CUDA graph. The numbers are the same up to rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from dvaepp.errors import InputError
from dvaepp.networks.compiled import check_compiler
from dvaepp.training.stacked import Given, Stack, State

Execution = Literal["eager", "compiled", "graph"]
"""`compiled` takes seconds before the first step, and a C++ compiler on a CPU; `graph`, for CUDA, is compiled too."""
Steps = Callable[[Given], Float[Tensor, "steps models"]]
"""Takes the steps that it is given, and gives their losses."""
_WARM_UPS = 3


def executed(stack: Stack, given: Given, execution: Execution) -> Steps:
    """A function that takes steps of the stack, as many as `given` holds or fewer; its state is left as it is.

    InputError where they cannot be compiled, as on a CPU without a compiler.
    """
    with _kept(stack.state):
        if execution == "graph":
            return _Graph(stack, given)
        step = stack.step if execution == "eager" else _compiled(stack.step, stack.state, given.each()[0])
        return lambda given: torch.stack([step(stack.state, each) for each in given.each()])


@contextmanager
def _kept(state: State) -> Iterator[None]:
    """What happens within the block leaves the state as it was."""
    before = tree_map(torch.clone, state)
    try:
        yield
    finally:
        tree_map(Tensor.copy_, state, before)


def _compiled(function: Callable[..., Tensor], *arguments: Any) -> Callable[..., Tensor]:
    """The function compiled for arguments of these shapes, structures of tensors; called once."""
    form = tree_flatten(arguments)[1]

    def of_tensors(*tensors: Tensor) -> Tensor:
        return function(*tree_unflatten(tensors, form))

    tensors = tree_leaves(arguments)
    check_compiler("compiled steps", tensors[0].device)
    compiled = torch.compile(make_fx(of_tensors)(*tensors), fullgraph=True, dynamic=False)
    try:
        compiled(*tensors)
    except Exception as error:  # whatever a compiler meets
        why = str(error).strip().split("\n")[0]
        raise InputError(f"the step could not be compiled, which training.compile=false leaves out: {why}") from error

    def taken(*arguments: Any) -> Tensor:
        value: Tensor = compiled(*tree_leaves(arguments))
        return value

    return taken


class _Graph:
    """A step as a CUDA graph that counts its replays: each reads what belongs to it where all of a block's are held."""

    def __init__(self, stack: Stack, given: Given) -> None:
        device = given.x.device
        self._held, self._losses = tree_map(torch.clone, given), torch.empty_like(given.beta)
        self._place = torch.zeros((), dtype=torch.int64, device=device)

        def step(state: State, held: Given, losses: Tensor, place: Tensor) -> Tensor:
            losses.index_copy_(0, place.view(1), stack.step(state, held.at(place)).unsqueeze(0))
            return place.add_(1)

        self._arguments = (stack.state, self._held, self._losses, self._place)
        self._step = _compiled(step, *self._arguments)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # its own: other graphs may run beside it
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._place.zero_()
                self._step(*self._arguments)
        with torch.cuda.graph(self._graph, stream=stream):
            self._step(*self._arguments)
        torch.cuda.current_stream(device).wait_stream(stream)

    def __call__(self, given: Given) -> Float[Tensor, "steps models"]:
        steps = len(given.x)
        tree_map(lambda held, value: held[:steps].copy_(value), self._held, given)
        self._place.zero_()
        for _ in range(steps):
            self._graph.replay()
        return self._losses[:steps].clone()
