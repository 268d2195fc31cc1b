"""Boltzmann machines over bits: energy, fields, marginals, and block Gibbs sampling made of gibbs.py (Sec. 5)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import accumulate
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from dvaepp.boltzmann.gibbs import check_sweeps, redrawing, redrawn, uniform_filler
from dvaepp.errors import InputError
from dvaepp.numerics import check_precision, is_count, plain, softplus, whole
from dvaepp.states import EXTRA_STATE, in_stored_order, keep_extra_state, labels_tensor

_P = ParamSpec("_P")
_R = TypeVar("_R")


def in_own_precision(
    compute: Callable[Concatenate[BoltzmannMachine, _P], _R],
) -> Callable[Concatenate[BoltzmannMachine, _P], _R]:
    """A function of a machine that computes in the dtype of the parameters, under autocast too."""

    @wraps(compute)
    def computed(machine: BoltzmannMachine, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with torch.autocast(machine.bias.device.type, enabled=False):
            return compute(machine, *args, **kwargs)

    return computed


class BoltzmannMachine(nn.Module):
    """p(z) = exp(-E(z)) / Z with E(z) = -b'z - z'Jz, each pair counted once (Sec. 5).

    `blocks` are the sizes of groups of bits that do not interact among themselves and are therefore drawn together:
    `(200, 200)` is the restricted Boltzmann machine with W = couplings[0], `(*[1] * n)` is fully connected, and k
    blocks are k-partite. `mask`, (bits, bits), says which pairs of different blocks interact, in either triangle: those
    of a graph whose colour classes are the blocks (graphs.py); the others' couplings stay zero. `labels` name the bits
    for others, 0, 1, ... by default. States lay the blocks side by side: floats 0 or 1 of shape (..., bits). All
    parameters start at zero. Whatever autocast says, a machine computes in the dtype of its parameters, which must be
    float32 or float64: methods raise InputError for half precision. A state dict holds the labels too, where JSON can;
    one with the same labels and blocks is loaded in the order of its own bits, others are refused.

    One block is *summed out* wherever a sum over all states is needed: the largest, given the others, has independent
    bits.

    >>> machine = BoltzmannMachine(3, 2)
    >>> machine.gibbs(torch.zeros(10, 5), sweeps=4).shape
    torch.Size([10, 5])
    """

    def __init__(
        self,
        *blocks: int,
        mask: Bool[Tensor, "bits bits"] | None = None,
        labels: Sequence[Hashable] | None = None,
    ) -> None:
        super().__init__()
        if not blocks or not all(map(is_count, blocks)):
            raise InputError(f"blocks of a Boltzmann machine must be positive whole numbers, not {blocks}")
        self.blocks = blocks = tuple(map(int, blocks))
        ends = list(accumulate(blocks))
        self.slices = tuple(slice(end - size, end) for size, end in zip(blocks, ends, strict=True))
        self.summed = max(range(len(blocks)), key=lambda k: (blocks[k], k))
        self.labels = tuple(range(self.bits) if labels is None else labels)
        if len(set(self.labels)) != self.bits or len(self.labels) != self.bits:
            raise InputError(f"labels must be {self.bits} different names of the bits, not {len(self.labels)}")
        self.mask: Tensor | None
        self.register_buffer("mask", None if mask is None else self._upper(mask))
        self.masked_pairs = _pairs(self.mask)
        self.bias = nn.Parameter(torch.zeros(self.bits))
        self.couplings = nn.ParameterList(nn.Parameter(torch.zeros(s.start, s.stop - s.start)) for s in self.slices[1:])
        for hook in (keep_extra_state, check_state):
            self.register_load_state_dict_pre_hook(hook)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_keep_pairs)  # type: ignore[no-untyped-call]

    def get_extra_state(self) -> UInt8[Tensor, " bytes"]:
        """The labels, for a state dict."""
        return labels_tensor(self.labels)

    def set_extra_state(self, state: Tensor) -> None:
        """Name the bits in the order in which they were saved."""
        self.labels = in_stored_order(self.labels, state)

    def _upper(self, mask: Bool[Tensor, "bits bits"]) -> Bool[Tensor, "bits bits"]:
        """The mask's pairs with the earlier bit first; InputError where they lie within a block."""
        if not isinstance(mask, Tensor) or mask.shape != (self.bits, self.bits) or mask.dtype != torch.bool:
            given = f"{mask.dtype} of shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise InputError(
                f"mask of a Boltzmann machine of blocks {self.blocks} must be a boolean matrix of {self.bits} x "
                f"{self.bits}, not {given}"
            )
        if any(bool(mask[s, s].any()) for s in self.slices):
            raise InputError(f"mask joins bits of one block of {self.blocks}: bits of a block do not interact")
        return (mask | mask.T).triu()

    @property
    def bits(self) -> int:
        """The number of bits."""
        return sum(self.blocks)

    @property
    def enumerated_bits(self) -> int:
        """The number of bits outside the block that is summed out: exact sums take 2^enumerated_bits terms."""
        return self.bits - self.blocks[self.summed]

    def uniform(self, *shape: int) -> Float[Tensor, "*shape bits"]:
        """States of independent fair bits, (*shape, bits): p(z) at inverse temperature 0."""
        sizes = [whole("sizes of states", size, least=0) for size in shape]
        return torch.randint(0, 2, (*sizes, self.bits), device=self.bias.device).to(self.bias.dtype)

    def coupling_matrix(self) -> Float[Tensor, "bits bits"]:
        """J, strictly upper block triangular."""
        columns = [F.pad(coupling, (0, 0, 0, self.bits - s.start)) for s, coupling in self.interactions()]
        return torch.cat([self.bias.new_zeros(self.bits, self.blocks[0]), *columns], 1)

    @in_own_precision
    def energy(self, z: Float[Tensor, "*batch bits"]) -> Float[Tensor, "*batch"]:
        """E(z) = -b'z - z'Jz."""
        self.check(z)
        energy = -(z @ self.bias)
        for s, coupling in self.interactions():
            energy = energy - ((z[..., : s.start] @ coupling) * z[..., s]).sum(-1)
        return energy

    @in_own_precision
    def field(self, z: Float[Tensor, "*batch bits"], block: int) -> Float[Tensor, "*batch _"]:
        """The log odds of every bit of a block given the bits of the others (the block's own entries are not read)."""
        self.check(z)
        if not (is_count(block, 0) and block < len(self.blocks)):
            raise InputError(f"block must be a whole number from 0 to {len(self.blocks) - 1}, not {block!r}")
        s = self.slices[block]
        before, after = self._weights(block)
        if not after.shape[0]:
            return F.linear(z[..., : s.start], before.T, self.bias[s])
        field = F.linear(z[..., s.stop :], after.T, self.bias[s])
        return field + z[..., : s.start] @ before if s.start else field

    def log_marginal(self, z: Float[Tensor, "*batch bits"]) -> Float[Tensor, "*batch"]:
        """log sum_s exp(-E(s, r)) = b'r + r'Jr + sum softplus(field), s the summed-out block, r the other bits."""
        return log_marginal_at(*self.marginal_terms(z), 1.0)

    @in_own_precision
    def marginal_terms(
        self, z: Float[Tensor, "*batch bits"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch _"]]:
        """The energy among the bits outside the summed-out block, and that block's field: linear in the parameters."""
        self.check(z)
        s = self.slices[self.summed]
        energy = z.new_zeros(z.shape[:-1])
        # torch's compiled code reads what an empty product's gradient points to: so none is taken
        for rest in (slice(0, s.start), slice(s.stop, self.bits)):
            if rest.start < rest.stop:
                energy = energy - z[..., rest] @ self.bias[rest]
        for t, coupling in self.interactions():
            rows = (slice(0, min(s.start, t.start)), slice(s.stop, t.start))
            for row in rows if t != s else ():
                if row.start < row.stop:
                    energy = energy - ((z[..., row] @ coupling[row]) * z[..., t]).sum(-1)
        return energy, self.field(z, self.summed)

    @torch.no_grad()
    @in_own_precision
    def gibbs(
        self,
        z: Float[Tensor, "*batch bits"],
        sweeps: int,
        inverse_temperature: float | Float[Tensor, "*batch"] = 1.0,
        clamped: Bool[Tensor, "*#batch bits"] | None = None,
        noise: Float[Tensor, "sweeps *batch bits"] | None = None,
    ) -> Float[Tensor, "*batch bits"]:
        """States after `sweeps` sweeps of block Gibbs sampling of exp(-inverse_temperature E(z)); z is left as it is.

        A sweep redraws the summed-out block, then the others in their order, each given all the rest:
        p(z_i = 1 | rest) = sigmoid(field_i). So it is a sweep of the other blocks' marginal distribution too: it does
        not read the summed-out block's old bits. On a graph's colour classes it is chromatic Gibbs sampling. Bits that
        are `clamped` keep z's values: the others are drawn from their distribution given those. Each state may have an
        inverse temperature of its own. Bits are 1[u < p] of uniform numbers u in [0, 1), one for each bit and sweep;
        with those given as `noise` it is a function of its arguments and the parameters that torch.func.vmap maps.
        """
        self.check(z)
        check_sweeps(z, sweeps, inverse_temperature, clamped, noise)
        order = sorted(range(len(self.blocks)), key=lambda block: block != self.summed)
        beta = plain(inverse_temperature)
        if isinstance(beta, Tensor) and beta.numel() == 1:
            beta = beta.reshape(())
        blocks = [(self.slices[k], self._weights(k), self.bias[self.slices[k]], beta) for k in order]
        if noise is not None:
            z = z.clone()
            for uniform in noise:
                for block in blocks:
                    z = redrawn(z, *block, clamped, uniform)
            return z
        states, fill_uniform = z.reshape(-1, self.bits).clone(), uniform_filler(z)
        held = None if clamped is None else clamped.expand(z.shape).reshape(-1, self.bits)
        redraws = [redrawing(states, *block, held, fill_uniform) for block in blocks]
        for _ in range(sweeps):
            for redraw in redraws:
                redraw()
        return states.view(z.shape)

    def _weights(self, block: int) -> tuple[Tensor, Tensor]:
        """Couplings of a block to the bits before it, (before, size), and to those after it, (after, size)."""
        s = self.slices[block]
        couplings = [coupling for _, coupling in self.interactions()]
        before = couplings[block - 1] if block else self.bias.new_zeros(0, s.stop)
        after = [coupling[s].T for coupling in couplings[block:]]
        return before, torch.cat(after) if after else self.bias.new_zeros(0, s.stop - s.start)

    def interactions(self) -> Iterator[tuple[slice, Tensor]]:
        """For every block but the first, its slice and its couplings to the bits before it."""
        for s, coupling in zip(self.slices[1:], self.couplings, strict=True):
            yield s, coupling if self.mask is None else coupling * self.mask[: s.start, s]

    def check(self, z: Tensor) -> None:
        """InputError unless these are states of this machine, and its precision is one to compute in."""
        check_precision("parameters of a Boltzmann machine", self.bias)
        if not isinstance(z, Tensor) or z.shape[-1:] != (self.bits,) or z.dtype != self.bias.dtype:
            given = (
                f"a {z.dtype} tensor of shape {tuple(z.shape)}" if isinstance(z, Tensor) else f"a {type(z).__name__}"
            )
            raise InputError(
                f"a Boltzmann machine of blocks {self.blocks} takes {self.bias.dtype} states whose last axis holds "
                f"{self.bits} bits, not {given}"
            )

    def extra_repr(self) -> str:
        """The blocks, and how many pairs interact where not all do."""
        pairs = "" if self.mask is None else f", {int(self.mask.sum())} couplings"
        return " x ".join(map(str, self.blocks)) + pairs


def check_state(machine: BoltzmannMachine, state_dict: Mapping[str, Any], prefix: str = "", *_: Any) -> None:
    """InputError unless a state dict is of the machine's blocks, labels and edges; a pre-hook, before it is loaded."""
    names = [name for k in range(len(state_dict)) if (name := f"{prefix}couplings.{k}") in state_dict]
    widths = [state_dict[name].shape[-1:].numel() for name in names]
    bits = state_dict[f"{prefix}bias"].numel() if f"{prefix}bias" in state_dict else None
    if bits is not None and (blocks := (bits - sum(widths), *widths)) != machine.blocks:
        why = "" if machine.mask is None else "; if the graph is the same, its edges came in another order"
        raise InputError(
            f"a state dict with the bias and couplings of a Boltzmann machine of blocks {blocks} does not fit one of "
            f"blocks {machine.blocks}{why}"
        )
    stored, mask = state_dict.get(prefix + EXTRA_STATE), state_dict.get(f"{prefix}mask")
    labels = machine.labels if stored is None else in_stored_order(machine.labels, stored)
    if mask is not None and machine.mask is not None and _edges(mask, labels) != _edges(machine.mask, machine.labels):
        raise InputError("in a state dict of a Boltzmann machine other bits interact than in the machine")


def _pairs(mask: Bool[Tensor, "bits bits"] | None) -> tuple[tuple[int, int], ...] | None:
    """Which bits interact, kept beside the mask: a sum over states goes by them at each step of training."""
    return None if mask is None else tuple((int(i), int(j)) for i, j in mask.nonzero().tolist())


def _keep_pairs(machine: BoltzmannMachine, *_: Any) -> None:
    """A load_state_dict post-hook: the pairs of the mask that was loaded, which may be in another order."""
    machine.masked_pairs = _pairs(machine.mask)


def _edges(mask: Bool[Tensor, "bits bits"], labels: Sequence[Hashable]) -> set[frozenset[Hashable]]:
    return {frozenset((labels[i], labels[j])) for i, j in mask.nonzero().tolist()}


def log_marginal_at(
    rest_energy: Float[Tensor, "*batch"],
    field: Float[Tensor, "*batch _"],
    inverse_temperature: float | Float[Tensor, "*#batch"],
) -> Float[Tensor, "*batch"]:
    """log p*_beta(r) = sum softplus(beta field) - beta E_rest, from `BoltzmannMachine.marginal_terms`."""
    beta = inverse_temperature
    return _softplus_of(beta, field).sum(-1) - beta * rest_energy


def _softplus_of(beta: float | Tensor, field: Tensor) -> Tensor:
    return softplus(beta[..., None] * field if isinstance(beta, Tensor) else beta * field)


def log_marginal_growth(
    rest_energy: Float[Tensor, "*batch"],
    field: Float[Tensor, "*batch _"],
    here: float | Float[Tensor, "*#batch"],
    there: float | Float[Tensor, "*#batch"],
) -> Float[Tensor, "*batch"]:
    """log p*_there(r) - log p*_here(r), nats, float64, from `BoltzmannMachine.marginal_terms` (see `log_marginal_at`).

    The difference is taken before the sum, where float32 still holds it.
    """
    growth = (_softplus_of(there, field) - _softplus_of(here, field)).sum(-1, dtype=torch.float64)
    return growth - (there - here) * rest_energy
