"""Bits of a prior given others."""

import pytest
import torch
from registry import all_states, assert_mean, boltzmann_prior, directed, log_prior

from dvaepp import BernoulliPrior, InputError
from dvaepp.evaluation.clamping import clamped_sample
from dvaepp.priors.base import Prior

GIVEN = torch.tensor([True, False, True, False, False])
VALUES = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64)


def bernoulli() -> Prior:
    prior = BernoulliPrior(5).double()
    with torch.no_grad():
        prior.bias.copy_(torch.linspace(-1, 1, 5))
    return prior


@pytest.mark.parametrize("prior", [boltzmann_prior(3, 2), bernoulli()], ids=["boltzmann", "bernoulli"])
def test_free_bits_follow_their_law_given_the_others(prior: Prior) -> None:
    torch.manual_seed(0)
    n = 20_000
    z = clamped_sample(prior, VALUES.expand(n, -1), GIVEN.expand(n, -1), sweeps=30)
    assert torch.equal(z[:, GIVEN], VALUES[GIVEN].expand(n, -1))
    states = all_states(5)
    states = states[(states[:, GIVEN] == VALUES[GIVEN]).all(1)]
    law = torch.softmax(log_prior(prior, states, states), 0)
    assert_mean((z[:, None] == states).all(2).double(), law)


def test_refusals() -> None:
    z = torch.zeros(3, 5, dtype=torch.float64)
    prior, given = boltzmann_prior(3, 2), torch.ones(3, 5, dtype=torch.bool)
    with pytest.raises(InputError, match="bits of a DirectedPrior cannot be clamped"):
        clamped_sample(directed(3, 2), z, given)
    with pytest.raises(InputError, match="0 or 1 where they are given"):
        clamped_sample(prior, z + 0.5, given)
    with pytest.raises(InputError, match=r"clamped bits must be \(n, 5\), not of shape \(3, 4\)"):
        clamped_sample(prior, z[:, 1:], given[:, 1:])
