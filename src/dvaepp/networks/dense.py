"""Dense networks of the experiments (Sec. 7.1, 7.2): plain modules, tensors in, tensors out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeGuard, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.numerics import check_counts, whole


def by_rows(network: nn.Module, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
    """What a network makes of each vector: batch norm takes them as rows, one alone or many axes of them too.

    Raises InputError where batch norm that trains is given a single one.
    """
    try:
        rows: Tensor = network(x if x.ndim == 2 else x.reshape(-1, x.shape[-1]))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError("batch norm in training mode needs at least two vectors: for one, call eval() first") from None
    return rows if x.ndim == 2 else rows.reshape(*x.shape[:-1], *rows.shape[1:])


_M = TypeVar("_M", bound=nn.Module)


class Affine(nn.Module):
    """scale max(x, least) + shift with fixed constants: centring of inputs, the decoder's fixed output bias."""

    def __init__(
        self,
        shift: Float[Tensor, " features"],
        scale: float | Float[Tensor, " features"] = 1.0,
        least: Float[Tensor, " features"] | None = None,
    ) -> None:
        super().__init__()
        self.shift: Tensor
        self.scale: float | Tensor
        self.register_buffer("shift", shift)
        if isinstance(scale, Tensor):
            self.register_buffer("scale", scale)
        else:
            self.scale = scale
        self.least: Tensor | None
        self.register_buffer("least", least, persistent=False)

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        """scale max(x, least) + shift."""
        return self._at(slice(None), x)

    def split(self, x: Tensor, zeta: Tensor) -> tuple[Tensor, Tensor]:
        """What becomes of x and of zeta where they lie side by side: features do not mix."""
        pixels = x.shape[-1]
        return self._at(slice(pixels), x), self._at(slice(pixels, None), zeta)

    def _at(self, features: slice, x: Tensor) -> Tensor:
        shift = self.shift[features]
        if self.least is not None:
            x = x.clamp(min=self.least[features])
        if isinstance(self.scale, Tensor):
            return torch.addcmul(shift, self.scale[features], x)
        return torch.add(shift, x, alpha=self.scale)


class OneHot(nn.Module):
    """[x, zeta] -> [.., 1[x_i = 0], 1[x_i = 1], .., 1[x_i = K_i - 1], .., zeta] for values x_i of K_i categories.

    `categories` has K_i of each value of x; one of which it is 0 stays as it is.
    """

    def __init__(self, categories: Sequence[int]) -> None:
        super().__init__()
        self.values = len(categories)
        each = [(place, category) for place, k in enumerate(categories) for category in (range(k) if k else (-1,))]
        self.source: Tensor
        self.category: Tensor
        source, category = zip(*each, strict=True)
        self.register_buffer("source", torch.tensor(source), persistent=False)
        self.register_buffer("category", torch.tensor(category, dtype=torch.get_default_dtype()), persistent=False)

    def forward(self, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """The columns, one for each value and category, then what follows x."""
        seen = x[..., self.source]
        columns = torch.where(self.category < 0, seen, (seen == self.category).to(x.dtype))
        return torch.cat([columns, x[..., self.values :]], -1)

    def split(self, x: Tensor, zeta: Tensor) -> tuple[Tensor, Tensor]:
        """What becomes of x and of zeta where they lie side by side: the columns are x's."""
        return self(x), zeta


def centring(mean: Float[Tensor, " pixels"], latents: int) -> Affine:
    """[x, zeta] -> [x - mean, zeta]."""
    return Affine(torch.cat([-mean, mean.new_zeros(latents)]))


def signs(bits: int) -> Affine:
    """zeta -> 2 zeta - 1: 0 and 1 become -1 and 1."""
    return Affine(torch.full((bits,), -1.0), 2.0)


def output_bias(mean: Float[Tensor, " pixels"]) -> Affine:
    """logits -> logits + logit(clip(mean, .001, .999)): an untrained decoder predicts the mean image."""
    return Affine(torch.logit(mean.clamp(0.001, 0.999)))


def at_draws(
    network: nn.Module, x: Float[Tensor, "*batch pixels"], zetas: Sequence[Float[Tensor, "*rows _"]], draws: int
) -> Float[Tensor, "*rows outputs"]:
    """network([x_i, zeta_ik]) for the draws k of each example i, rows x by x, zetas side by side.

    What x alone decides is computed once for each x: all of it where there is no zeta, and else, in a nest of
    Sequentials, what comes before the first linear layer and that layer's W_x x + b of W_x x + W_zeta zeta + b, so that
    no gradient is taken in x beside zeta. Any other network given zeta, and one with hooks or a forward of its own,
    sees x as often as there are draws. A network that sees x once takes batch norm's statistics of it, and dropout's
    mask for it, once.
    """
    if not zetas:
        outputs = by_rows(network, x)
        return outputs if draws == 1 else outputs.repeat_interleave(draws, 0)
    zeta, (entrances, rest) = torch.cat(list(zetas), -1), _opened(network)
    linear = rest[0] if rest else None
    if not _plain(linear, nn.Linear) or any(e.values > x.shape[-1] for e in entrances if isinstance(e, OneHot)):
        return by_rows(network, torch.cat([x if draws == 1 else x.repeat_interleave(draws, 0), zeta], -1))
    for entrance in entrances:
        x, zeta = entrance.split(x, zeta)
    of_x, of_zeta = linear.weight.tensor_split([x.shape[-1]], 1)
    constant = F.linear(x, of_x, linear.bias)
    if draws > 1:
        constant = constant.repeat_interleave(draws, 0)
    return by_rows(nn.Sequential(*rest[1:]), F.linear(zeta, of_zeta) + constant)


def at_flips(network: nn.Module, z: Float[Tensor, "batch bits"]) -> Float[Tensor, "bits batch outputs"]:
    """network(z) with each bit flipped in turn: the first axis says which.

    In a nest of Sequentials a flip moves what the first linear layer gives along one column, (e(1 - z) - e(z))_i W_i
    where e is what comes before it, so that the layer sees z once. Any other network, and one with hooks or a forward
    of its own, sees all the flipped states.
    """
    entrances, rest = _opened(network)
    linear = rest[0] if rest else None
    if not _plain(linear, nn.Linear) or any(isinstance(entrance, OneHot) for entrance in entrances):
        return by_rows(network, flipped(z))
    here, there = z, 1 - z
    for entrance in entrances:
        here, there = entrance(here), entrance(there)
    hidden = linear(here) + (there - here).T[..., None] * linear.weight.T[:, None]
    outputs: Tensor = nn.Sequential(*rest[1:])(hidden.flatten(0, 1))
    return outputs.reshape(*hidden.shape[:2], -1)


def flipped(z: Float[Tensor, "batch bits"]) -> Float[Tensor, "bits batch bits"]:
    """z with each bit flipped in turn."""
    return z + torch.diag_embed(1 - 2 * z).transpose(0, 1)


def _opened(network: nn.Module) -> tuple[list[Affine | OneHot], list[nn.Module]]:
    """The entrances that a nest of Sequentials begins with, and what it calls after them."""
    layers, entrances = _layers(network), []
    for layer in layers:
        if not (_plain(layer, Affine) or _plain(layer, OneHot)):
            break
        entrances.append(layer)
    return entrances, layers[len(entrances) :]


def _layers(network: nn.Module) -> list[nn.Module]:
    if not _plain(network, nn.Sequential):
        return [network]
    return [layer for part in network for layer in _layers(part)]


def _plain(module: nn.Module | None, kind: type[_M]) -> TypeGuard[_M]:
    """Whether a module is of this very class and without hooks: then it may be taken apart."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return type(module) is kind and "forward" not in vars(module) and not any(getattr(module, name) for name in hooks)


def dense(
    inputs: int,
    outputs: int,
    hidden: Sequence[int] = (),
    batch_norm: bool = False,
    activation: Callable[[], nn.Module] = nn.Tanh,
) -> nn.Sequential:
    """Tanh layers of the given hidden sizes, batch-normalised before tanh if asked, then a linear one.

    Weights are normal, cut at 2 sd, of variance about 2 / fan-in after the cut, biases 0 (Tucker et al. 2017). Batch
    norm has momentum .2 and eps 1e-2.
    """
    check_counts("a dense network", inputs=inputs, outputs=outputs)
    hidden = [whole("hidden sizes of a dense network", size) for size in hidden]
    layers: list[nn.Module] = []
    for size in hidden:
        layers.append(_linear(inputs, size, bias=not batch_norm))
        if batch_norm:
            layers.append(nn.BatchNorm1d(size, eps=1e-2, momentum=0.2))
        layers.append(activation())
        inputs = size
    return nn.Sequential(*layers, _linear(inputs, outputs))


def _linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias)
    sd = math.sqrt(2.6 / inputs)  # a normal cut at 2 sd keeps about 1 / 1.3 of its variance
    nn.init.trunc_normal_(layer.weight, std=sd, a=-2 * sd, b=2 * sd)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
