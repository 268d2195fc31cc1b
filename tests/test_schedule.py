"""Schedules over the fraction of training done."""

import pytest
from pydantic import ValidationError

from dvaepp.schedule import TrainingSettings


def test_the_rate_falls_along_half_a_cosine() -> None:
    settings = TrainingSettings(steps=10, learning_rate=((1.0, 3.0),), cosine_to=1.0)
    rates = [settings.learning_rate_at(fraction) for fraction in (0.0, 1 / 3, 0.5, 2 / 3, 1.0)]
    assert rates == pytest.approx([3.0, 2.5, 2.0, 1.5, 1.0])


def test_a_cosine_of_several_stages_is_refused() -> None:
    with pytest.raises(ValidationError, match="one stage"):
        TrainingSettings(steps=10, learning_rate=((0.5, 1.0), (1.0, 2.0)), cosine_to=0.1)
