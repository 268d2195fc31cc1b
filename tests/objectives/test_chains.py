"""What objectives make of a Boltzmann prior's chains: at equilibrium the gradient of the exact machine."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from registry import (
    assert_mean,
    draw_states,
    flat_gradient,
    images,
    log_boltzmann,
    machine,
    tiny_model,
)
from torch import Tensor

from dvaepp.boltzmann.samplers import PersistentChains
from dvaepp.objectives.bounds import joint_elbo, marginal_elbo
from dvaepp.objectives.relaxed import gumbolt_terms, mean_field_terms
from dvaepp.objectives.rolfe import rolfe_elbo
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import StraightThrough
from dvaepp.smoothings.concrete import Concrete
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.smoothings.spike import SpikeExponential

OBJECTIVES: dict[str, tuple[Callable[..., Tensor], Smoothing]] = {
    "joint": (joint_elbo, OverlappingExponential(6.0)),
    "marginal, straight-through": (marginal_elbo, StraightThrough()),
    "rolfe": (rolfe_elbo, SpikeExponential(5.0)),
    "gumbolt": (lambda *a, **k: gumbolt_terms(*a, **k).bound(), Concrete(0.5)),
    "mean field": (lambda *a, **k: mean_field_terms(*a, **k).bound(), OverlappingExponential(6.0)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_prior_is_trained_by_its_chains_as_by_the_sum_over_states(name: str) -> None:
    objective, smoothing = OBJECTIVES[name]
    table = machine(3, 3, sd=1.0)
    exact = BoltzmannPrior(table)
    chains = BoltzmannPrior(table, PersistentChains(500, 1), exact_bits=0).double()
    chains.log_partition = exact.estimate_log_partition()
    noise = torch.rand(2, 2, 6, dtype=torch.float64)
    parameters = list(table.parameters())

    def gradient(prior: Any) -> Tensor:
        model = tiny_model(prior, (3, 3), smoothing)
        return flat_gradient(objective(model, images(), noise=noise).sum(), parameters)

    gradients = []
    for states in draw_states(log_boltzmann(table), 20_000).split(500):
        chains.states = states
        gradients.append(gradient(chains))
    expected = gradient(exact)
    assert_mean(torch.stack(gradients), expected)
    assert float(expected.abs().max()) > 0.1
