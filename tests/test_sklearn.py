"""The scikit-learn estimator: its contract, and that it is the model it says."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from dvaepp import InputError
from dvaepp.objectives.importance import importance_weighted
from dvaepp.sklearn import BinaryAutoencoder

RANDOM = np.random.RandomState(4)
CLASS = RANDOM.randint(0, 2, 300)
BITS = (RANDOM.random_sample((300, 12)) < np.where(CLASS[:, None], 0.85, 0.15)).astype(int)
REAL = RANDOM.normal(size=(300, 3)) + 4.0 * CLASS[:, None]
TINY: dict[str, Any] = {"bits": 4, "hidden": (8,), "steps": 20, "samples": 10}


@parametrize_with_checks([BinaryAutoencoder(**TINY)])
def test_the_contract_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize(("prior", "X"), [("rbm", BITS), ("bernoulli", REAL), ("directed", BITS)])
def test_codes_tell_classes_apart_that_no_fit_saw(prior: str, X: np.ndarray) -> None:  # noqa: N803
    coder = BinaryAutoencoder(bits=6, prior=prior, hidden=(16,), steps=300, random_state=0)
    pipeline = make_pipeline(coder, LogisticRegression()).fit(X[:200], CLASS[:200])
    assert pipeline.score(X[200:], CLASS[200:]) > 0.9


def test_likelihoods_beat_those_of_independent_columns() -> None:
    fit = BinaryAutoencoder(bits=4, hidden=(16,), steps=600, random_state=0).fit(BITS[:200])
    share = BITS[:200].mean(0)
    alone = np.log(np.where(BITS[200:] == 1, share, 1 - share)).sum(1).mean()
    assert fit.score(BITS[200:]) > alone + 1
    drawn = fit.sample(2000)
    assert set(np.unique(drawn)) == {0, 1}
    together = (drawn.mean(1) > 0.7).mean(), (drawn.mean(1) < 0.3).mean()
    assert min(together) > 0.2, "both classes are drawn"


def test_scores_are_importance_weighted_likelihoods_of_the_model() -> None:
    fit = BinaryAutoencoder(**{**TINY, "samples": 4000}, random_state=0).fit(BITS)
    x = torch.from_numpy(BITS[:20]).double()
    with torch.no_grad():
        expected = importance_weighted(fit.model_, x, 4000)
    np.testing.assert_allclose(fit.score_samples(BITS[:20]), expected.numpy(), atol=0.15)
    assert fit.score(BITS[:20]) == pytest.approx(fit.score_samples(BITS[:20]).mean())


def test_output_and_its_inverse() -> None:
    fit = BinaryAutoencoder(**TINY, random_state=0).fit(REAL)
    probabilities = fit.set_params(output="probabilities").transform(REAL)
    bits = fit.set_params(output="bits").transform(REAL)
    assert ((probabilities > 0.5) == bits).all()
    assert fit.inverse_transform(bits).shape == REAL.shape
    np.testing.assert_array_equal(fit.inverse_transform(bits), fit.inverse_transform(probabilities))
    assert list(fit.get_feature_names_out()) == [f"binaryautoencoder{place}" for place in range(4)]


def test_a_grid_search_chooses_by_likelihood() -> None:
    search = GridSearchCV(BinaryAutoencoder(**TINY, random_state=0), {"bits": [1, 4], "steps": [5, 100]}, cv=2)
    assert search.fit(BITS).best_params_["steps"] == 100


def test_fitting_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    BinaryAutoencoder(**TINY, random_state=1).fit(BITS).sample(3)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 0}, "bits must be"),
        ({"prior": "gauss"}, "prior is 'gauss', expected one of rbm, bernoulli, directed"),
        ({"output": "codes"}, "output is 'codes', expected bits or probabilities"),
        ({"learning_rate": -1.0}, "BinaryAutoencoder: setting 'training.learning_rate"),
        ({"hidden": ("a",)}, "BinaryAutoencoder: setting 'model.hidden"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BinaryAutoencoder(**{**TINY, **settings}).fit(BITS)


def test_rows_that_cannot_be() -> None:
    fit = BinaryAutoencoder(**TINY, random_state=0).fit(BITS)
    with pytest.raises(InputError, match="other numbers than 0 and 1"):
        fit.transform(BITS * 0.5)
    with pytest.raises(InputError, match=r"codes of shape \(3, 2\) must be \(n, 4\)"):
        fit.inverse_transform(np.zeros((3, 2)))
