"""How a step of a stack is run: as it is, compiled, or as a CUDA graph. The numbers are the same up to rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from dvaepp.errors import InputError
from dvaepp.networks.compiled import check_compiler
from dvaepp.training.stacked import Given, Stack

Execution = Literal["eager", "compiled", "graph"]
"""`compiled` takes seconds before the first step, and a C++ compiler on a CPU; `graph`, for CUDA, is compiled too."""
_WARM_UPS = 3


def executed(stack: Stack, given: Given, execution: Execution) -> Callable[[Given], Float[Tensor, " models"]]:
    """A function that takes a step of the stack, given what has the shapes of `given`; its state is left as it is.

    InputError where it cannot be compiled, as on a CPU without a compiler.
    """
    if execution == "eager":
        return lambda given: stack.step(stack.state, given)
    if execution == "compiled":
        check_compiler("compiled steps", given.x.device)
    (held, _), (_, form) = tree_flatten(stack.state), tree_flatten((stack.state, given))

    def flat(*tensors: Tensor) -> Tensor:
        return stack.step(*tree_unflatten(tensors, form))

    before = [tensor.clone() for tensor in held]
    compiled = torch.compile(make_fx(flat)(*held, *tree_flatten(given)[0]), fullgraph=True, dynamic=False)

    def step(given: Given) -> Tensor:
        losses: Tensor = compiled(*held, *tree_flatten(given)[0])
        return losses

    try:
        step(given)  # compiles
    except Exception as error:  # whatever a compiler meets
        why = str(error).strip().split("\n")[0]
        raise InputError(f"the step could not be compiled, which training.compile=false leaves out: {why}") from error
    taken = _captured(step, given) if execution == "graph" else step
    for tensor, value in zip(held, before, strict=True):
        tensor.copy_(value)
    return taken


def _captured(step: Callable[[Given], Tensor], given: Given) -> Callable[[Given], Tensor]:
    """The step as a CUDA graph, which reads what it is given from the tensors that it was captured with."""
    places, _ = tree_flatten(given)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            step(given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = step(given)

    def replay(given: Given) -> Tensor:
        for place, value in zip(places, tree_flatten(given)[0], strict=True):
            place.copy_(value, non_blocking=True)
        graph.replay()
        return losses.clone()

    return replay
