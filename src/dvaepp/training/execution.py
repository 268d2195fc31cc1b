"""How steps are run: as they are, compiled, or as a CUDA graph. The numbers are the same up to rounding."""

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
from dvaepp.networks.compiled import check_compiler, keep_float32
from dvaepp.training.stacked import Given, Movable, State

Execution = Literal["eager", "compiled", "graph", "captured"]
"""`compiled` takes seconds before the first step, and a C++ compiler on a CPU; `graph`, for CUDA, is compiled too.

`captured` is a CUDA graph of the step as it is.
"""
Steps = Callable[[Given], Float[Tensor, "steps models"]]
"""Takes the steps that it is given, and gives their losses."""
_WARM_UPS = 3


def executed(stack: Movable, given: Given, execution: Execution, most: int = 1) -> Steps:
    """A function that takes steps of the stack like those `given`, so many as a graph at most; its state is left.

    So are torch's generators. InputError where they cannot be compiled, as on a CPU without a compiler.
    """
    devices = [given.x.device] if given.x.device.type == "cuda" else []
    with _kept(stack.state), torch.random.fork_rng(devices=devices):
        if execution in ("graph", "captured"):
            return _captured(stack, given, most, compiled=execution == "graph")
        step = stack.step if execution == "eager" else _compiled(stack.step, stack.state, given.each()[0])
        return lambda given: torch.stack([step(stack.state, each) for each in given.each()])


@contextmanager
def _kept(state: State) -> Iterator[None]:
    """Whatever is done with the state, it is then as it was."""
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
    traced = make_fx(of_tensors)(*map(torch.clone, tensors))  # tracing runs it
    keep_float32()
    compiled = torch.compile(traced, fullgraph=True, dynamic=False)
    try:
        compiled(*tensors)
    except Exception as error:  # whatever a compiler meets
        why = str(error).strip().split("\n")[0]
        raise InputError(f"the step could not be compiled, which training.compile=false leaves out: {why}") from error

    def taken(*arguments: Any) -> Tensor:
        value: Tensor = compiled(*tree_leaves(arguments))
        return value

    return taken


def _captured(stack: Movable, given: Given, most: int, compiled: bool) -> Steps:
    """InputError where a step does what no graph can hold, as reading a value of it."""
    try:
        return _Graph(stack, given, most, compiled)
    except RuntimeError as error:
        why = str(error).strip().split("\n")[0]
        raise InputError(f"the step cannot be a CUDA graph, which training.compile=false leaves out: {why}") from error


class _Graph:
    """A step as a CUDA graph that counts its replays: each reads what belongs to it where all of a stretch's are held.

    To be made and called in a stream that is not the default one, and the same.
    """

    def __init__(self, stack: Movable, given: Given, most: int, compiled: bool) -> None:
        self._held: Given = tree_map(lambda each: each.new_zeros(most, *each.shape[1:]), given)
        self._losses = torch.zeros_like(self._held.beta)
        self._place = torch.zeros((), dtype=torch.int64, device=given.x.device)
        self._hold(given)

        def step(state: State, held: Given, losses: Tensor, place: Tensor) -> Tensor:
            losses.index_copy_(0, place.view(1), stack.step(state, held.at(place)).unsqueeze(0))
            return place.add_(1)

        self._arguments = (stack.state, self._held, self._losses, self._place)
        self._step = _compiled(step, *self._arguments) if compiled else step
        for _ in range(_WARM_UPS):
            self._hold(given)
            self._step(*self._arguments)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=torch.cuda.current_stream(given.x.device)):
            self._step(*self._arguments)

    def _hold(self, given: Given) -> None:
        """What the next replays read, from its first step on."""
        tree_map(lambda held, value: held[: len(value)].copy_(value), self._held, given)
        self._place.zero_()

    def __call__(self, given: Given) -> Float[Tensor, "steps models"]:
        steps = len(given.x)
        self._hold(given)
        for _ in range(steps):
            self._graph.replay()
        return self._losses[:steps].clone()
