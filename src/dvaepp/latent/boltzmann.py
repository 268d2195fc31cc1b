"""Boltzmann machines over bits: energy, block Gibbs sampling, and the cross-entropy of Sec. 5."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.latent.kernels import linear, uniform_filler
from dvaepp.latent.posterior import Posterior


class BoltzmannMachine(nn.Module):
    """p(z) = exp(-E(z)) / Z with E(z) = -b'z - z'Jz, each pair counted once (Sec. 5).

    `blocks` are the sizes of groups of bits that do not interact among themselves and are therefore drawn together:
    `(200, 200)` is the restricted Boltzmann machine with W = couplings[0], `(*[1] * n)` is fully connected. States
    lay the blocks side by side: floats 0 or 1 of shape (..., bits). All parameters start at zero.

    One block is *summed out* wherever a sum over all states is needed: the largest, given the others, has independent
    bits.

    >>> machine = BoltzmannMachine(3, 2)
    >>> machine.gibbs(torch.zeros(10, 5), sweeps=4).shape
    torch.Size([10, 5])
    """

    def __init__(self, *blocks: int) -> None:
        super().__init__()
        if not blocks or any(isinstance(b, bool) or not isinstance(b, int) or b < 1 for b in blocks):
            raise InputError(f"blocks of a Boltzmann machine must be positive whole numbers, not {blocks}")
        self.blocks = blocks
        ends = list(accumulate(blocks))
        self.slices = tuple(slice(end - size, end) for size, end in zip(blocks, ends, strict=True))
        self.summed = max(range(len(blocks)), key=lambda k: (blocks[k], k))
        self.bias = nn.Parameter(torch.zeros(self.bits))
        self.couplings = nn.ParameterList(nn.Parameter(torch.zeros(s.start, s.stop - s.start)) for s in self.slices[1:])

    @property
    def bits(self) -> int:
        """The number of bits."""
        return sum(self.blocks)

    @property
    def enumerated_bits(self) -> int:
        """The number of bits outside the block that is summed out: exact sums take 2^enumerated_bits terms."""
        return self.bits - self.blocks[self.summed]

    def coupling_matrix(self) -> Float[Tensor, "bits bits"]:
        """J, strictly upper block triangular."""
        columns = [F.pad(coupling, (0, 0, 0, self.bits - coupling.shape[0])) for coupling in self.couplings]
        return torch.cat([self.bias.new_zeros(self.bits, self.blocks[0]), *columns], 1)

    def energy(self, z: Float[Tensor, "*batch bits"]) -> Float[Tensor, "*batch"]:
        """E(z) = -b'z - z'Jz."""
        self._check(z)
        energy = -(z @ self.bias)
        for s, coupling in self._interactions():
            energy = energy - ((z[..., : s.start] @ coupling) * z[..., s]).sum(-1)
        return energy

    def expected_energy(self, q: Posterior) -> Float[Tensor, "*batch"]:
        """E[E(z)] = -b'mu - sum_ij J_ij m_ij, m_ij = mu_i mu_j within a group, nu_i mu_j across groups (Sec. 5).

        Groups of q lie side by side over the machine's bits, earlier groups first; they need not be the blocks. Bits
        of one group are independent given the earlier zeta; across groups the later bit depends on the earlier one's
        zeta only.
        """
        self._check(q.mu)
        energy = -(q.mu @ self.bias)
        for s, coupling in self._interactions():
            for group in q.slices:
                start, stop = max(group.start, s.start), min(group.stop, s.stop)
                if start < stop:
                    border = min(group.start, s.start)
                    before = torch.cat([q.nu[..., :border], q.mu[..., border : s.start]], -1)
                    field = before @ coupling[:, start - s.start : stop - s.start]
                    energy = energy - (field * q.mu[..., start:stop]).sum(-1)
        return energy

    def field(self, z: Float[Tensor, "*batch bits"], block: int) -> Float[Tensor, "*batch _"]:
        """The log odds of every bit of a block given the bits of the others (the block's own entries are not read)."""
        s = self.slices[block]
        before, after = self._weights(block)
        if not after.shape[0]:
            return F.linear(z[..., : s.start], before.T, self.bias[s])
        field = F.linear(z[..., s.stop :], after.T, self.bias[s])
        return field + z[..., : s.start] @ before if s.start else field

    def log_marginal(self, z: Float[Tensor, "*batch bits"]) -> Float[Tensor, "*batch"]:
        """log sum_s exp(-E(s, r)) = b'r + r'Jr + sum softplus(field), s the summed-out block, r the other bits."""
        rest_energy, field = self.marginal_terms(z)
        return F.softplus(field).sum(-1) - rest_energy

    def marginal_terms(
        self, z: Float[Tensor, "*batch bits"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch _"]]:
        """The energy among the bits outside the summed-out block, and that block's field: linear in the parameters."""
        s = self.slices[self.summed]
        energy = -(z[..., : s.start] @ self.bias[: s.start]) - z[..., s.stop :] @ self.bias[s.stop :]
        for t, coupling in self._interactions():
            rows = (slice(0, min(s.start, t.start)), slice(s.stop, t.start))
            for row in rows if t != s else ():
                if row.start < row.stop:
                    energy = energy - ((z[..., row] @ coupling[row]) * z[..., t]).sum(-1)
        return energy, self.field(z, self.summed)

    @torch.no_grad()
    def gibbs(
        self, z: Float[Tensor, "*batch bits"], sweeps: int, inverse_temperature: float = 1.0
    ) -> Float[Tensor, "*batch bits"]:
        """States after `sweeps` sweeps of block Gibbs sampling of exp(-inverse_temperature E(z)); z is left as it is.

        A sweep redraws the summed-out block, then the others in their order, each given all the rest:
        p(z_i = 1 | rest) = sigmoid(field_i). So it is a sweep of the other blocks' marginal distribution too: it does
        not read the summed-out block's old bits.
        """
        self._check(z)
        if sweeps < 0:
            raise InputError(f"sweeps must not be negative, not {sweeps}")
        states, fill_uniform = z.reshape(-1, self.bits).clone(), uniform_filler(z)
        order = sorted(range(len(self.blocks)), key=lambda block: block != self.summed)
        steps = [self._gibbs_step(states, block, inverse_temperature) for block in order]
        for _ in range(sweeps):
            for field_given, later, after, uniform, bits in steps:
                field = field_given()
                if later.shape[1]:
                    field.addmm_(later, after)
                fill_uniform(uniform)
                torch.lt(uniform, field.sigmoid_(), out=bits)
        return states.view(z.shape)

    def _gibbs_step(
        self, states: Tensor, block: int, inverse_temperature: float
    ) -> tuple[Callable[[], Tensor], Tensor, Tensor, Tensor, Tensor]:
        """One block's redraw: its field given the bits on one side, bits and weights of the other, a buffer, bits."""
        s = self.slices[block]
        before, after = (inverse_temperature * weight for weight in self._weights(block))
        earlier, later = states[:, : s.start], states[:, s.stop :]
        if not s.start:
            earlier, before, later, after = later, after, earlier, before
        field_given = linear(earlier, before, inverse_temperature * self.bias[s])
        bits = states[:, s]
        return field_given, later, after, torch.empty_like(bits, memory_format=torch.contiguous_format), bits

    def _weights(self, block: int) -> tuple[Tensor, Tensor]:
        """Couplings of a block to the bits before it, (before, size), and to those after it, (after, size)."""
        s = self.slices[block]
        before = self.couplings[block - 1] if block else self.bias.new_zeros(0, s.stop)
        after = [coupling[s].T for coupling in self.couplings[block:]]
        return before, torch.cat(after) if after else self.bias.new_zeros(0, s.stop - s.start)

    def _interactions(self) -> Iterator[tuple[slice, Tensor]]:
        return zip(self.slices[1:], self.couplings, strict=True)

    def _check(self, z: Tensor) -> None:
        if z.shape[-1:] != (self.bits,) or z.dtype != self.bias.dtype:
            raise InputError(
                f"a Boltzmann machine of blocks {self.blocks} takes {self.bias.dtype} states whose last axis holds "
                f"{self.bits} bits, not a {z.dtype} tensor of shape {tuple(z.shape)}"
            )

    def extra_repr(self) -> str:
        """The blocks."""
        return " x ".join(map(str, self.blocks))
