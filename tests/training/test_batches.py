"""Schedules over the fraction of training done."""

import itertools

import pytest
import torch
from pydantic import ValidationError

from dvaepp.training.batches import BatchOrder
from dvaepp.training.settings import TrainingSettings


def test_the_rate_falls_along_half_a_cosine() -> None:
    settings = TrainingSettings(steps=10, learning_rate=((1.0, 3.0),), cosine_to=1.0)
    rates = [settings.learning_rate_at(fraction) for fraction in (0.0, 1 / 3, 0.5, 2 / 3, 1.0)]
    assert rates == pytest.approx([3.0, 2.5, 2.0, 1.5, 1.0])


def test_a_cosine_of_several_stages_is_refused() -> None:
    with pytest.raises(ValidationError, match="one stage"):
        TrainingSettings(steps=10, learning_rate=((0.5, 1.0), (1.0, 2.0)), cosine_to=0.1)


def order(seed: int, epoch: int) -> list[int]:
    """The order of a hundred examples in an epoch."""
    found: list[int] = BatchOrder(100, 100, seed).indices(epoch).tolist()
    return found


@pytest.mark.parametrize(
    ("run", "other"),
    [((0, 1_000_003), (1, 0)), ((0, 7), (2**32, 7)), ((0, 45_589), (4295, 0)), ((3, 45_591), (4298, 2))],
)
def test_two_runs_never_see_the_examples_in_one_order(run: tuple[int, int], other: tuple[int, int]) -> None:
    assert order(*run) != order(*other)


def test_every_epoch_of_every_run_has_an_order_of_its_own() -> None:
    orders = [tuple(order(seed, epoch)) for seed, epoch in itertools.product((0, 1, 2, 4295, 2**31 - 1), range(8))]
    assert len(set(orders)) == len(orders)


def test_the_order_is_not_that_of_the_runs_own_seed() -> None:
    """Which would be that of any other subset drawn with it."""
    plain = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert order(0, 0) != plain.tolist()


@pytest.mark.parametrize("ends", [(5.0, 8.0), (9.0, 2.0), (4.0, 4.0), (1e-3, 1e4)])
@pytest.mark.parametrize("steps", [1, 2, 7, 10**6])
def test_beta_goes_in_even_steps_from_its_first_value_to_short_of_its_last(
    steps: int, ends: tuple[float, float]
) -> None:
    settings = TrainingSettings(steps=steps, beta=ends)
    betas = [settings.beta_at(settings.fraction_before(step)) for step in (0, 1, 2, steps, steps + 1)]
    rise = (ends[1] - ends[0]) / steps
    assert betas == pytest.approx([ends[0], ends[0], ends[0] + rise, ends[1] - rise, ends[1]])
    assert TrainingSettings(steps=steps).beta_at(0.5) is None
