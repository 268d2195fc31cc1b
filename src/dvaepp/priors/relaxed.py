"""p(zeta) of a Boltzmann machine too large to sum, by mean field (Vahdat et al. 2018b, "DVAE#", Sec. 4)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.boltzmann.machine import BoltzmannMachine, in_own_precision
from dvaepp.numerics import whole
from dvaepp.smoothings.posterior import bernoulli_entropy


def mean_field_log_partition(
    machine: BoltzmannMachine,
    log_zero: Float[Tensor, "*batch bits"],
    log_one: Float[Tensor, "*batch bits"],
    sweeps: int = 5,
) -> Float[Tensor, "*batch"]:
    """-E(m) + sum_i [m_i log w_i(1) + (1 - m_i) log w_i(0) + H(m_i)] <= log sum_z exp(-E(z)) prod_i w_i(z_i), nats.

    m are the means of independent bits, found by `sweeps` of coordinate ascent from those that the weights alone give;
    the bound's gradient is taken at fixed m, which at the optimum is all of it. With w_i(z_i) = r(zeta_i | z_i) it
    bounds log p(zeta) + log Z. Raises InputError unless sweeps is a positive whole number.

    >>> machine = BoltzmannMachine(2, 2)  # 4 fair bits
    >>> mean_field_log_partition(machine, torch.zeros(4), torch.zeros(4))
    tensor(2.7726, grad_fn=<SubBackward0>)
    """
    least = torch.finfo(log_zero.dtype).min / machine.bits  # in place of minus infinity, which times 0 would be NaN
    log_zero, log_one = log_zero.clamp(min=least), log_one.clamp(min=least)
    logits = mean_field_logits(machine, log_one - log_zero, sweeps)
    m, entropy = torch.sigmoid(logits), bernoulli_entropy(logits).sum(-1)
    return (m * log_one + (1 - m) * log_zero).sum(-1) + entropy - machine.energy(m)


@torch.no_grad()
@in_own_precision
def mean_field_logits(
    machine: BoltzmannMachine, log_ratio: Float[Tensor, "*batch bits"], sweeps: int = 5
) -> Float[Tensor, "*batch bits"]:
    """logit m of the mean field q(z) = prod_i Bernoulli(m_i) to exp(-E(z)) prod_i w_i(z_i), without gradient.

    A sweep sets logit m_k = field_k(m) + log w_k(1) - log w_k(0) for each block k in turn, the last first: the best for
    this block given the others, so that the bound rises. It begins at those of the weights and biases alone.
    """
    logits = log_ratio + machine.bias
    for _ in range(whole("sweeps of mean field", sweeps)):
        for block in reversed(range(len(machine.blocks))):
            s = machine.slices[block]
            redone = machine.field(torch.sigmoid(logits), block) + log_ratio[..., s]
            logits = torch.cat([logits[..., : s.start], redone, logits[..., s.stop :]], -1)
    return logits
