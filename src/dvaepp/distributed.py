"""Several processes that train or score one model together, as torchrun and accelerate launch start them.

They hold the same parameters; each has its own examples, noise and Markov chains. With one process every function here
does nothing, and costs nothing.
"""

from __future__ import annotations

import atexit
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.randomness import stream_seed
from dvaepp.rendezvous import environment, join

_T = TypeVar("_T")
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def world() -> int:
    """How many processes work together; 1 unless `processes` or torch's init_process_group joined some."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0, the first, which alone writes files."""
    return dist.get_rank() if world() > 1 else 0


@contextmanager
def processes(device: str) -> Iterator[None]:
    """Work together with the processes that torchrun started beside this one, if it did: WORLD_SIZE says how many.

    On "cuda" the process LOCAL_RANK of a machine takes its GPU cuda:LOCAL_RANK, and they talk by NCCL; on "cpu" by
    Gloo. InputError for any other device, for too few GPUs, where the environment is not whole, and where the others
    have not come after a minute, or DVAEPP_JOIN_SECONDS.
    """
    number = {} if world() > 1 else environment()
    if not number:
        yield
        return
    if device not in ("cpu", "cuda"):
        raise InputError(f"several processes take the device cpu or cuda, a GPU for each process, not {device!r}")
    if device == "cuda":
        if number["LOCAL_RANK"] >= torch.cuda.device_count():
            gpus = torch.cuda.device_count()
            raise InputError(f"process {number['LOCAL_RANK']} of this machine needs a GPU of its own; it has {gpus}")
        torch.cuda.set_device(number["LOCAL_RANK"])
    join("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", number)
    # DDP never ends Gloo's threads, and one that lets go of a tensor after Python has ended aborts the process.
    atexit.register(time.sleep, 0.2)
    try:
        yield
    finally:
        dist.destroy_process_group()


def share(count: int, what: str) -> int:
    """Each process's part of `count`; InputError, naming `what` it is, where it does not divide."""
    if count % world():
        raise InputError(f"{what} is {count}, which does not divide among {world()} processes")
    return count // world()


def own(examples: Tensor) -> Tensor:
    """The rows that are this process's part: contiguous, in the order of the ranks, equally long to within one."""
    return examples.tensor_split(world())[rank()] if world() > 1 else examples


def own_seed(seed: int) -> int:
    """A seed for each process; `seed` itself where there is one.

    Mixed, not added up: seed + 1 is another run's (`randomness.stream_seed`).
    """
    return stream_seed("process", seed, rank()) if world() > 1 else seed


def on_first(action: Callable[[], _T]) -> _T:
    """What `action` gives in the first process, which alone does it, in all; an error of it is raised in all."""
    if world() == 1:
        return action()
    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = action()
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    result: _T = outcome[0]
    return result


@contextmanager
def entered_by_first(context: AbstractContextManager[None]) -> Iterator[None]:
    """A context that the first process alone enters; where it cannot, all raise its error."""
    with ExitStack() as stack:
        on_first(lambda: stack.enter_context(context))
        yield


def gather(value: _T) -> list[_T]:
    """Every process's value, in the order of the ranks, in all of them."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def everyones_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every process's tensors together: the first's under their names, those of rank K under `process.K.name`."""
    ranks = enumerate(gather(tensors))
    return {_prefix(rank) + name: tensor for rank, each in ranks for name, tensor in each.items()}


def own_tensors(tensors: dict[str, Tensor], source: Path) -> dict[str, Tensor]:
    """Of `everyones_tensors` what this process gave, among others that all share.

    InputError, naming their source, where they are those of more or fewer processes.
    """
    ranks = {int(found[1]) for name in tensors if (found := re.match(r"process\.(\d+)\.", name))}
    if ranks != set(range(1, world())):
        then = f"{len(ranks) + 1} processes" if ranks else "one process"
        raise InputError(f"{source} was trained by {then}, and can only go on with as many, not with {world()}")
    own = _prefix(rank())
    return {**tensors, **{name.removeprefix(own): each for name, each in tensors.items() if name.startswith(own)}}


def _prefix(rank: int) -> str:
    return f"process.{rank}." if rank else ""


def mean(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The mean over the processes, without gradient; NaN or infinite in all where it is so in any."""
    return _added(values.detach()) / world() if world() > 1 else values


def averaging(model: nn.Module, loss: Callable[..., Any]) -> Callable[..., Any]:
    """`loss`, a function to scalars, but that backward() leaves the processes' mean gradient in the parameters.

    Every trained parameter must take part in the loss. Parameters are made equal to the first process's; buffers are
    left alone. torch's DistributedDataParallel; `loss` itself where there is one process.
    """
    if world() == 1:
        return loss
    together = nn.parallel.DistributedDataParallel(_Loss(model, loss))
    together().backward()  # torch lays its buffers out anew after the first pass, and the order of sums with them:
    model.zero_grad()  # by passing once without data, a resumed run has the uninterrupted one's order
    return together


class _Loss(nn.Module):
    """A loss as a module that holds a model's parameters alone, so that DDP finds no buffers to overwrite."""

    def __init__(self, model: nn.Module, loss: Callable[..., Any]) -> None:
        super().__init__()
        self.trained = nn.ParameterList(model.parameters())
        self.loss = loss

    def forward(self, *inputs: Any) -> Any:
        if not inputs:
            return torch.stack([p.sum() for p in self.trained if p.requires_grad]).sum()
        return self.loss(*inputs)


def synchronise_batch_norm(model: nn.Module) -> None:
    """Where there are several processes, let every batch norm in the model see all their batches; names stay."""
    for module in model.modules() if world() > 1 else ():
        if type(module) in _BATCH_NORMS:
            module.__class__ = SynchronisedBatchNorm


class SynchronisedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """(x - mean) / sqrt(variance + eps) gain + shift over the batches of all processes, in value and gradient.

    x (batch, features, ...), on any device; the running statistics are the same in all processes. The variance is that
    of the differences to the common mean: sums of squares would cancel. torch's SyncBatchNorm needs CUDA.
    """

    def forward(self, x: Float[Tensor, "batch features *rest"]) -> Float[Tensor, "batch features *rest"]:
        """In training, normalised by the common batch; else by the running statistics."""
        if not self.training and self.running_mean is not None:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        wide = x if x.dtype == torch.float64 else x.float()
        dims, shape = (0, *range(2, x.ndim)), (1, -1, *(1,) * (x.ndim - 2))
        count = wide.new_full((1,), x.numel() // x.shape[1])
        total = _sum(torch.cat([wide.sum(dims), count]))
        average, count = total[:-1] / total[-1], total[-1].detach()
        centred = wide - average.view(shape)
        variance = _sum(centred.square().sum(dims)) / count
        if self.training:
            self._remember(average.detach(), variance.detach() * count / (count - 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is None:
            return (centred * scale.view(shape)).to(x.dtype)
        return (centred * (scale * self.weight).view(shape) + self.bias.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _remember(self, average: Float[Tensor, " features"], variance: Float[Tensor, " features"]) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        weight = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(average.to(self.running_mean), weight)
        self.running_var.lerp_(variance.to(self.running_var), weight)


class _Sum(torch.autograd.Function):
    """y = sum of all processes' x, in each of them; the gradient of x is the sum of all y's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _added(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _added(gradients[0])


def _sum(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total


def _added(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    if world() > 1:
        dist.all_reduce(total)
    return total
