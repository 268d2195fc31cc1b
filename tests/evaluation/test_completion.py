"""Missing values given those that are there, against the model's own conditional law."""

import inspect

import pytest
import torch
from deep import deep_model
from registry import all_states, assert_mean, boltzmann_prior, case_model, exact_log_likelihood
from torch import Tensor, nn

from dvaepp import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    FeedForwardVAE,
    HierarchicalEncoder,
    MixedLikelihood,
    OverlappingExponential,
    PoissonLikelihood,
    dense,
)
from dvaepp.errors import InputError
from dvaepp.evaluation.completion import complete
from dvaepp.models.base import Model, measuring
from dvaepp.models.local import BernoulliVariables, LocalVariables, NormalVariables
from dvaepp.networks.dense import Affine, OneHot
from dvaepp.priors.normal import NormalPrior
from dvaepp.smoothings.binary import hard

CHAINS = 3000
MISSING = torch.tensor([False, True, False, True])
X = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize("name", ["bernoulli", "directed-2", "rbm-2-groups-across", "ring"])
def test_draws_follow_the_law_given_what_is_observed(name: str) -> None:
    model = case_model(name)
    found = complete(model, X.repeat(CHAINS, 1), MISSING.repeat(CHAINS, 1), sweeps=400)
    states = X.repeat(4, 1)
    states[:, MISSING] = all_states(2)
    law = torch.softmax(exact_log_likelihood(model, states), 0)
    assert_mean((found.sample[:, None] == states).all(2).double(), law)
    assert torch.equal(found.sample[:, ~MISSING], X[:, ~MISSING].expand(CHAINS, -1))
    assert_mean(found.mean, law @ states)
    assert 0.1 < found.acceptance.mean() < 0.95, "or plain alternation would pass too"


def test_draws_of_columns_of_several_kinds_follow_their_law() -> None:
    laws = (CategoricalLikelihood(3), BernoulliLikelihood(), PoissonLikelihood(), CategoricalLikelihood(4))
    entrance = OneHot([law.one_hot for law in laws])
    likelihood = MixedLikelihood(columns=laws)
    torch.manual_seed(4)
    model = FeedForwardVAE(
        HierarchicalEncoder(nn.Sequential(entrance, dense(9, 2)), nn.Sequential(entrance, dense(11, 1))),
        boltzmann_prior(2, 1).float(),
        nn.Sequential(dense(3, likelihood.width), Affine(torch.zeros(likelihood.width), 2.0)),
        OverlappingExponential(8.0),
        likelihood,
    ).double()
    x, missing = torch.tensor([[0.0, 1.0, 2.0, 0.0]]).double(), torch.tensor([True, True, False, True])
    found = complete(model, x.repeat(CHAINS, 1), missing.repeat(CHAINS, 1), sweeps=200)
    states = torch.cartesian_prod(*map(torch.arange, (3, 2, 1, 4))).double()
    states[:, 2] = 2
    law = torch.softmax(exact_log_likelihood(model, states), 0)
    assert_mean((found.sample[:, None] == states).all(2).double(), law)
    assert_mean(found.mean[:, 1], law @ states[:, 1])
    for column, k in ((0, 3), (3, 4)):
        shares = torch.stack([law[states[:, column] == value].sum() for value in range(k)])
        assert found.mean[:, column].mode().values == shares.argmax()
    assert 0.1 < found.acceptance.mean() < 0.95


def conditional_mean(model: Model, x: Tensor, missing: Tensor, draws: int) -> Tensor:
    """E[x_missing | x_observed] by weighting draws of the prior with p(x_observed | z, h)."""
    with measuring(model, 1):
        law = model.decode(model.prior.sample(draws))
        mean = law.mean
        sites = torch.where(x == 1, mean, 1 - mean).log()
        weights = torch.softmax(sites[:, ~missing].sum(1), 0)
        return weights @ mean


@pytest.mark.parametrize(("kind", "normal"), [(NormalVariables(), False), (BernoulliVariables(), True)])
def test_draws_of_a_model_with_local_variables(kind: LocalVariables, normal: bool) -> None:
    model = deep_model(NormalPrior(3) if normal else boltzmann_prior(2, 1), (3,), kind, groups=2, variables=2, top=1)
    x, missing = torch.zeros(16, dtype=torch.float64), torch.arange(16) % 2 == 0
    x[[1, 5, 7]] = 1
    found = complete(model, x.repeat(600, 1), missing.repeat(600, 1), sweeps=150)
    assert_mean(found.sample, torch.where(missing, conditional_mean(model, x, missing, 200_000), x), sigmas=6)
    assert 0.01 < found.acceptance.mean() < 0.95


def test_a_pass_at_its_own_local_variables_is_the_pass() -> None:
    model = deep_model(boltzmann_prior(2, 1), (3,), groups=2, variables=2)
    x = torch.bernoulli(torch.full((5, 16), 0.5, dtype=torch.float64))
    trace = model(x, hard)
    again = model.given(x, trace.posterior.zeta, hard, [group.h for group in trace.local])
    torch.testing.assert_close(again.local_log_ratio(), trace.local_log_ratio())
    torch.testing.assert_close(again.likelihood.log_prob(x), trace.likelihood.log_prob(x))
    first = model.given(x, trace.posterior.zeta, hard, [trace.local[0].h])
    assert torch.equal(first.local[0].h, trace.local[0].h)
    assert not torch.equal(first.local[1].h, trace.local[1].h)
    for local, message in (([trace.local[0].h] * 3, "3 groups"), ([trace.local[0].h[:, :1]], r"group 1 has shape")):
        with pytest.raises(InputError, match=message):
            model.given(x, trace.posterior.zeta, hard, local)


def test_what_is_missing_is_of_no_account_and_the_seed_decides() -> None:
    model, many = case_model("rbm-2-groups"), X.repeat(10, 1)
    nan = torch.where(MISSING, torch.nan, many)
    one, other = (complete(model, x, MISSING.repeat(10, 1), sweeps=5) for x in (many, nan))
    assert torch.equal(one.sample, other.sample)
    assert not torch.equal(one.mean, complete(model, many, MISSING.repeat(10, 1), sweeps=5, seed=1).mean)


def test_refusals() -> None:
    model = case_model("rbm-2-groups")
    with pytest.raises(InputError, match=r"missing must have the shape of x, \(1, 4\), not \(4,\)"):
        inspect.unwrap(complete)(model, X, MISSING)
    conditional = deep_model(boltzmann_prior(2, 1), (3,), conditional=True)
    with pytest.raises(InputError, match="conditions on coarser pixels"):
        complete(conditional, torch.zeros(1, 16, dtype=torch.float64), torch.ones(1, 16, dtype=torch.bool))
