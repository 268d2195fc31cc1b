"""Every estimator and smoothing that a model can have, as methods whose gradients are compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import MISSING, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dvaepp.components.registry import Component, components, settings_of
from dvaepp.errors import InputError, nearest
from dvaepp.estimators import GumbelRao, REBARDesign, RelaxedBernoulli, StraightThroughGumbel
from dvaepp.estimators.base import Estimator, EstimatorDesign
from dvaepp.evaluation.logit_gradients import GradientMethod
from dvaepp.objectives.base import Objective
from dvaepp.objectives.bounds import JointBound, MarginalBound
from dvaepp.objectives.elbo import Elbo
from dvaepp.objectives.relaxed import MeanFieldBound
from dvaepp.objectives.rolfe import RolfeBound
from dvaepp.priors.base import Prior
from dvaepp.randomness import stream_seed
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.smoothings.power import PowerFunction

BETAS = (5.0, 8.0, 12.0, 18.0)
"""Those of overlapping exponentials."""
OTHERS: tuple[EstimatorDesign, ...] = (
    StraightThroughGumbel(0.1),
    StraightThroughGumbel(1.0),
    GumbelRao(0.1, samples=100),
    GumbelRao(0.5, samples=100),
    RelaxedBernoulli(0.5),
    RelaxedBernoulli(2 / 3),
    REBARDesign(temperature=0.1, learn_temperature=False),
)
"""Estimators with other settings than their defaults."""
_TOLD = ("temperature", "beta", "samples", "epsilon")
"""Settings that are named in labels even where they have their defaults."""


def gradient_methods(prior: Prior, bits: int, mean: Float[Tensor, " pixels"], seed: int = 0) -> list[GradientMethod]:
    """Every registered estimator and smoothing by every bound that they have, for one group of bits under this prior.

    Estimators stand with the analytic KL, and score functions and relaxations, which Table 1 trains so, with
    log q - log p inside f too ("sampled KL"); those that learn stand as they start, and once more to be fitted.
    Smoothings stand under the joint, marginal, Rolfe's and mean-field bound, the exponential at several beta. What has
    a setting without default is left out. `bits` and `mean` (that of the data) are what networks are made for, drawn
    from the seed.

    >>> from dvaepp import BernoulliPrior
    >>> [method.label for method in gradient_methods(BernoulliPrior(4), 4, torch.zeros(12))][:3]
    ['arm', 'arm, sampled KL', 'arms samples=4']
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed("weights", seed))
        return [*_with_estimators(prior, bits, mean), *_smoothed(prior)]


def chosen(methods: Iterable[GradientMethod], names: Iterable[str]) -> list[GradientMethod]:
    """The methods with these labels or first words of labels, or whose labels match a pattern such as 'joint*8'.

    InputError for a name that is none of them.
    """
    methods, found = list(methods), set()
    for name in names:
        fits = {each.label for each in methods if _is_called(each.label, name)}
        if not fits:
            known = dict.fromkeys(each.label.replace(",", " ").split()[0] for each in methods)
            raise InputError(f"no method is called {name!r}{nearest(name, list(known))} (one of {', '.join(known)})")
        found |= fits
    return [each for each in methods if each.label in found]


def _is_called(label: str, name: str) -> bool:
    return label == name or label.startswith((f"{name} ", f"{name},")) or fnmatchcase(label, name)


def _with_estimators(prior: Prior, bits: int, mean: Float[Tensor, " pixels"]) -> Iterator[GradientMethod]:
    registered = [each() for each in components(EstimatorDesign).values() if _has_defaults(each)]
    for design in sorted([*registered, *OTHERS], key=lambda each: each.name):
        for analytic_kl in (True, False):
            elbo = Elbo(analytic_kl, design).build(bits, mean)
            assert elbo.built is not None
            if elbo.refusal(hard, prior, 1) is not None or not (analytic_kl or _samples_kl(elbo.built)):
                continue
            method = GradientMethod(_named(design) + ("" if analytic_kl else ", sampled KL"), elbo)
            yield method
            if isinstance(elbo.built, nn.Module):
                yield replace(method, label=f"{method.label}, fitted", fit=True)


def _samples_kl(estimator: Estimator) -> bool:
    """Whether its f is known with log q - log p inside: score functions, with what is subtracted, and relaxations."""
    return estimator.nests or estimator.relaxed or estimator.tangents or estimator.importance


def _smoothed(prior: Prior) -> Iterator[GradientMethod]:
    registered = components(Smoothing)
    exponentials = [OverlappingExponential(beta) for beta in BETAS]
    others = [each() for name, each in registered.items() if name != "exponential" and _has_defaults(each)]
    known = components(EstimatorDesign)
    powers = [PowerFunction(30.0), PowerFunction(40.0)]
    smoothings = sorted([*exponentials, *others, *powers], key=lambda each: each.name)
    for bound in (JointBound(), MarginalBound(), RolfeBound(), MeanFieldBound()):
        for smoothing in smoothings:
            if smoothing.name not in known and _can_have(bound, smoothing, prior):
                yield GradientMethod(f"{bound.name}, {_named(smoothing)}", bound, smoothing)


def _can_have(bound: Objective, smoothing: Smoothing, prior: Prior) -> bool:
    return smoothing.reparameterised and bound.refusal(smoothing, prior, 1) is None


def _has_defaults(chosen: type[Component]) -> bool:
    return all(each.default is not MISSING or each.default_factory is not MISSING for each in settings_of(chosen))


def _named(component: Any) -> str:
    """The name, with settings that tell it from others of that name."""
    told = [
        f"{each.name}={_short(getattr(component, each.name))}"
        for each in settings_of(type(component))
        if each.name in _TOLD or getattr(component, each.name) != each.default
    ]
    return " ".join([component.name, *told])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
