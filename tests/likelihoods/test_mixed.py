"""Columns of several kinds: each under the law of its own, whatever stands beside it."""

import inspect

import pytest
import torch
from registry import assert_mean

import dvaepp
from dvaepp import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    InputError,
    Likelihood,
    MixedLikelihood,
    NormalLikelihood,
    PoissonLikelihood,
)
from dvaepp.likelihoods.base import DataSpec
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import override, recipe_from

LAWS: tuple[Likelihood, ...] = (
    NormalLikelihood(),
    CategoricalLikelihood(3),
    BernoulliLikelihood(),
    NormalLikelihood(),
    CategoricalLikelihood(5),
    PoissonLikelihood(),
    CategoricalLikelihood(3),
)
MIXED = MixedLikelihood(columns=LAWS)
SPEC = DataSpec(
    (7,),
    torch.tensor([100.0, 0.6, 0.25, -3.0, 2.0, 4.0, 1.0]),
    torch.tensor([20.0, 0.5, 0.43, 0.02, 1.4, 2.0, 0.8]),
    columns=(
        ("real", 0),
        ("categories", 3),
        ("bits", 2),
        ("real", 0),
        ("categories", 5),
        ("counts", 0),
        ("categories", 3),
    ),
)


def alone(parameters: torch.Tensor) -> list[torch.distributions.Distribution]:
    """The distribution of each column by itself."""
    parts = parameters.split([law.width for law in LAWS], -1)
    return [law(part) for law, part in zip(LAWS, parts, strict=True)]


def test_a_row_is_as_likely_as_its_columns_are_by_themselves() -> None:
    parameters = torch.randn(20, MIXED.width, dtype=torch.float64)
    columns = alone(parameters)
    x = torch.cat([column.sample() for column in columns], -1)
    each = torch.stack([column.log_prob(x[:, [place]]) for place, column in enumerate(columns)], -1)
    p = MIXED(parameters)
    torch.testing.assert_close(p.log_prob(x), each.sum(-1))
    torch.testing.assert_close(p.by_value(x), each)
    torch.testing.assert_close(p.mean, torch.cat([column.mean for column in columns], -1))


def test_each_column_is_drawn_under_its_law() -> None:
    parameters = torch.randn(MIXED.width, dtype=torch.float64)
    draws = MIXED(parameters).sample(torch.Size([100_000]))
    for place, column in enumerate(alone(parameters)):
        law = LAWS[place]
        if isinstance(law, CategoricalLikelihood):
            every = torch.arange(law.categories, dtype=torch.float64)
            shares = torch.stack([column.log_prob(value[None]).exp() for value in every])
            assert_mean((draws[:, place, None] == every).double(), shares)
        else:
            assert_mean(draws[:, place], column.mean[0])
            assert_mean((draws[:, place] - column.mean[0]).square(), column.variance[0])


def test_an_untrained_decoder_gives_each_column_its_own_moments() -> None:
    likelihood, place = MixedLikelihood().placed(SPEC)
    assert [type(law) for law in likelihood.columns] == [type(law) for law in LAWS]
    zero = torch.zeros(MIXED.width)
    p = likelihood(place.scale * torch.maximum(zero, place.least) + place.shift)
    numbers = [0, 2, 3, 5]
    torch.testing.assert_close(p.mean[numbers], SPEC.mean[numbers])
    draws = p.sample(torch.Size([20_000]))
    torch.testing.assert_close(draws[:, [0, 3]].std(0), SPEC.sd[[0, 3]], rtol=0.05, atol=0)
    for place_, k in ((1, 3), (4, 5), (6, 3)):
        assert_mean((draws[:, place_, None] == torch.arange(k)).double(), torch.full((k,), 1 / k).double())


def test_values_outside_a_column_s_support_are_refused() -> None:
    x = torch.zeros(2, 7)
    MIXED.check(x)
    for column, bad in ((1, 3.0), (2, 0.5), (5, -1.0), (0, torch.inf)):
        wrong = x.clone()
        wrong[1, column] = bad
        with pytest.raises(InputError, match=f"holds the value {bad:g} outside the support"):
            MIXED.check(wrong)
    with pytest.raises(InputError, match="categories have no variance"):
        _ = MIXED(torch.zeros(MIXED.width)).variance


def test_the_law_of_a_kind_is_a_setting() -> None:
    recipe = override(
        catalogue.find("quick/rbm", "tiny"),
        ["model.likelihood=mixed", 'model.likelihood.real={"name": "normal", "log_scale_floor": -3}'],
    )
    chosen = recipe.model.likelihood
    assert isinstance(chosen, MixedLikelihood)
    assert chosen.real == NormalLikelihood(-3.0)
    assert recipe_from(recipe.model_dump(mode="json"), "again") == recipe
    floors = {law.log_scale_floor for law in chosen.for_data(SPEC).columns if isinstance(law, NormalLikelihood)}
    assert floors == {-3.0}
    with pytest.raises(InputError, match=r"real must be a likelihood of real, not 'poisson'.*counts"):
        override(recipe, ["model.likelihood.real=poisson"])
    with pytest.raises(InputError, match="is for tables of which the kind of each column is known"):
        MixedLikelihood().for_data(DataSpec((7,), SPEC.mean, SPEC.sd))


def test_without_columns_it_has_no_distribution() -> None:
    with pytest.raises(InputError, match="a mixed likelihood has no columns yet"):
        MixedLikelihood()(torch.zeros(2, 3))
    with pytest.raises(InputError, match="bits must be a likelihood, not 3"):
        inspect.unwrap(MixedLikelihood.__init__)(MixedLikelihood.__new__(MixedLikelihood), bits=3)


def test_columns_alike_share_a_call() -> None:
    assert len(MIXED._blocks) == 5
    assert dvaepp.MixedLikelihood is MixedLikelihood
