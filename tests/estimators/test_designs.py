"""Estimators as recipes name them: found by their names, documented, JSON both ways, built for data."""

import json
import re

import pytest
import torch
from registry import every_estimator

import dvaepp
from dvaepp import estimators
from dvaepp.components.fields import Named, written_out
from dvaepp.components.registry import component, components, settings_of
from dvaepp.errors import InputError
from dvaepp.estimators import Estimator, EstimatorDesign, LearnedEstimator, PlainEstimator, REBARDesign

DESIGNS = components(EstimatorDesign)
designs = pytest.mark.parametrize("name", DESIGNS)


def build(name: str) -> Estimator:
    return component(EstimatorDesign, name)().build(3, torch.full((4,), 0.3))


@designs
def test_a_design_is_json_both_ways_and_documented(name: str) -> None:
    made = component(EstimatorDesign, name)()
    written = json.loads(json.dumps(written_out(made)))
    assert set(written) == {"name", *(field.name for field in settings_of(type(made)))}
    assert Named(EstimatorDesign).read(written) == made == Named(EstimatorDesign).read(name)
    assert re.match(r"(g|g_i|L) = ", type(made).__doc__ or ""), "a docstring begins with the estimator's equation"
    assert re.search(r"\b(19|20)\d\d\)", type(made).__doc__ or ""), "its source"


@designs
def test_a_design_builds_an_estimator_that_works(name: str) -> None:
    estimator = build(name)
    assert isinstance(estimator, PlainEstimator | LearnedEstimator)
    logits = torch.zeros(5, 3, requires_grad=True)
    value, loss = estimator.with_loss(lambda b: b.square().sum(-1), logits, torch.zeros(5, 4))
    assert torch.autograd.grad(value.sum(), logits, retain_graph=True)[0].shape == (5, 3)
    assert loss.requires_grad == isinstance(estimator, LearnedEstimator)
    if not isinstance(estimator, LearnedEstimator):
        assert estimator == component(EstimatorDesign, name)()


@pytest.mark.parametrize(("learned", "muprop"), [(True, False), (False, True)])
def test_rebars_settings_are_not_taken_for_each_other(learned: bool, muprop: bool) -> None:
    built = REBARDesign(7, 0.2, learned, muprop).build(3, torch.zeros(4))
    assert built.muprop == muprop
    assert ("log_temperature" in dict(built.named_parameters())) == learned
    assert float(built.log_temperature.detach().exp()) == pytest.approx(0.2)


def test_every_estimator_has_a_design_and_a_line_in_the_tests_registry() -> None:
    built = {type(build(name)) for name in DESIGNS}
    public = {getattr(estimators, name) for name in estimators.__all__}
    concrete = {each for each in public if issubclass(each, Estimator)} - {Estimator, PlainEstimator, LearnedEstimator}
    assert built == concrete == {type(make(3)) for make in every_estimator.values()}
    assert dvaepp.estimators is estimators


def test_a_wrong_name_is_answered_by_the_nearest() -> None:
    with pytest.raises(InputError, match="no estimator is named 'disram'.*disarm"):
        component(EstimatorDesign, "disram")


@designs
def test_what_was_learned_lies_in_the_state_dict(name: str) -> None:
    estimator = build(name)
    if not isinstance(estimator, LearnedEstimator):
        assert list(estimator.parameters()) == []
        return
    for parameter in estimator.parameters():
        torch.nn.init.normal_(parameter)
    again = build(name)
    assert isinstance(again, LearnedEstimator)
    again.load_state_dict(estimator.state_dict())
    logits, context = torch.zeros(5, 3), torch.randn(5, 4)
    noise = torch.rand(estimator.uniforms, 5, 3)
    for ours, theirs in zip(
        estimator.with_loss(lambda b: b.sum(-1), logits, context, noise=noise),
        again.with_loss(lambda b: b.sum(-1), logits, context, noise=noise),
        strict=True,
    ):
        assert torch.equal(ours, theirs)
