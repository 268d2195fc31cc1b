"""Discretized logistics against scipy in float64, enumeration of the levels, and the frequencies of samples."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from dvaepp import DiscretizedLogisticMixture

LEVELS = torch.arange(256.0)
GREY = DiscretizedLogisticMixture(components=4, values=1)
COLOUR = DiscretizedLogisticMixture(components=3)


def grey_parameters(means: Tensor, log_scales: Tensor) -> Tensor:
    """One site a row: weights by chance, the same mean and scale in all components but for the last's scale."""
    logits = torch.randn(len(means), 4)
    return torch.cat([logits, means[:, None].expand(-1, 4), log_scales[:, None].expand(-1, 4)], -1)[:, None]


@pytest.mark.parametrize("log_scale", [-6.5, -3.0, 0.0, 4.0])
@pytest.mark.parametrize("mean", [-1.3, -1.0, 0.013, 0.99])
def test_one_logistic_is_scipys(mean: float, log_scale: float) -> None:
    likelihood = DiscretizedLogisticMixture(1, values=1)
    parameters = torch.tensor([[0.7, mean, log_scale]], dtype=torch.float64)
    found = likelihood(parameters).log_prob(LEVELS.double()[:, None])
    # Mirrored where the tail is above, so that scipy's difference does not cancel.
    logistic = stats.logistic(127.5 * (mean + 1), 127.5 * math.exp(log_scale))
    edges = np.concatenate([[-np.inf], np.arange(255) + 0.5, [np.inf]])
    upper = edges[:-1] > logistic.mean()
    below, above = np.diff(logistic.cdf(edges)), -np.diff(logistic.sf(edges))
    mass = np.where(upper, above, below)
    sure = mass > 1e-280
    assert found.numpy()[sure] == pytest.approx(np.log(mass[sure]), rel=1e-9)
    assert (found.numpy()[~sure] < -600).all()


def test_masses_sum_to_one_at_every_mean_and_scale_in_float32() -> None:
    means = torch.tensor([-1e6, -40.0, -1.1, -1.0, -0.99609, -0.3, 0.0, 0.5, 0.999, 1.0, 1.004, 3.0, 1e6])
    scales = torch.tensor([-1e6, -7.0, -6.0, -4.0, -1.0, 0.0, 3.0, 9.0, 30.0, 1e6])
    grid = torch.cartesian_prod(means, scales)
    parameters = grey_parameters(grid[:, 0], grid[:, 1])
    log_mass = GREY(parameters[:, 0]).log_prob(LEVELS[:, None, None].expand(-1, len(grid), -1))
    assert log_mass.isfinite().all()
    assert log_mass.exp().sum(0).tolist() == pytest.approx([1.0] * len(grid), abs=2e-6)


def test_float32_keeps_the_tails() -> None:
    parameters = torch.cat([torch.randn(40, 4), 0.8 * torch.randn(40, 4), torch.rand(40, 4) - 7], -1)
    x = LEVELS[:, None, None].expand(-1, 40, -1)
    single, double = GREY(parameters).log_prob(x), GREY(parameters.double()).log_prob(x.double())
    assert double.min() < -500
    assert single.flatten().tolist() == pytest.approx(double.flatten().tolist(), rel=2e-5, abs=3e-4)


def test_green_and_blue_sum_to_what_red_says_alone() -> None:
    parameters = torch.randn(30) * torch.tensor([1.0] * 3 + [0.5] * 9 + [1.0] * 18) - torch.tensor(
        [0.0] * 12 + [2.0] * 9 + [0.0] * 9
    )
    p = COLOUR(parameters.double())
    red_alone = DiscretizedLogisticMixture(3, values=1)(torch.cat([parameters[:6], parameters[12:15]]).double())
    for red in (0.0, 128.0, 255.0):
        pixels = torch.cartesian_prod(torch.tensor([red]), LEVELS, LEVELS).double()
        assert p.log_prob(pixels).logsumexp(0).item() == pytest.approx(red_alone.log_prob(pixels[0, :1]).item())


def test_coupling_shifts_later_channels_by_earlier_ones() -> None:
    """One component: green is logistic about m + tanh(a) red, blue about m + tanh(b) red + tanh(c) green."""
    m, scale = (-0.2, 0.1, 0.3), -2.0
    a, b, c = 0.4, -0.3, 0.8
    parameters = torch.tensor([[0.0, *m, scale, scale, scale, math.atanh(a), math.atanh(b), math.atanh(c)]])
    x = torch.tensor([[200.0, 90.0, 17.0]])
    red, green, _ = (2 * level / 255 - 1 for level in x[0].tolist())
    centres = (m[0], m[1] + a * red, m[2] + b * red + c * green)
    expected = 0.0
    for level, centre in zip(x[0].tolist(), centres, strict=True):
        logistic = stats.logistic(127.5 * (centre + 1), 127.5 * math.exp(scale))
        expected += math.log(logistic.cdf(level + 0.5) - logistic.cdf(level - 0.5))
    p = DiscretizedLogisticMixture(1)(parameters)
    assert p.log_prob(x).item() == pytest.approx(expected, abs=1e-4)
    expectations = [127.5 * (m[0] + 1), 127.5 * (m[1] + a * m[0] + 1)]
    assert p.mean[0, :2].tolist() == pytest.approx(expectations, abs=8), "little is cut off"


def test_grey_mean_is_the_expectation_to_half_a_level() -> None:
    parameters = torch.randn(60, 12) * torch.tensor([1.0] * 4 + [1.0] * 4 + [2.0] * 4) - torch.tensor(
        [0.0] * 8 + [2.0] * 4
    )
    p = GREY(parameters)
    masses = p.log_prob(LEVELS[:, None, None].expand(-1, 60, -1)).exp()
    exact = (masses * LEVELS[:, None]).sum(0)
    assert (p.mean[:, 0] - exact).abs().max() < 0.5


# Samples


def test_samples_have_the_frequencies_of_the_masses() -> None:
    count = 40000
    parameters = torch.randn(1, 12) * 0.5 - torch.tensor([0.0] * 8 + [2.0] * 4)
    p = GREY(parameters[0])
    draws = p.sample(torch.Size([count]))
    masses = p.log_prob(LEVELS[:, None]).exp()
    observed = torch.bincount(draws[:, 0].long(), minlength=256) / count
    error = (masses * (1 - masses) / count).sqrt() + 1e-4
    assert ((observed - masses).abs() / error).max() < 5


def test_colour_samples_agree_with_log_prob() -> None:
    """Scales are narrow, so that many colours are drawn often enough to be counted."""
    parameters = torch.cat([torch.randn(3), torch.randn(9) * 0.3, torch.full((9,), -6.0), torch.randn(9)])
    p = COLOUR(parameters.double())
    draws = p.sample(torch.Size([4000]))
    distinct, counts = draws.unique(dim=0, return_counts=True)
    masses = p.log_prob(distinct).exp()
    frequent = masses > 0.002
    error = (masses * (1 - masses) / 4000).sqrt()
    assert frequent.sum() > 20
    assert ((counts / 4000 - masses).abs() / error)[frequent].max() < 5


@pytest.mark.parametrize("values", [1, 3])
def test_training_does_not_start_at_a_saddle_of_equal_components(values: int) -> None:
    mixture = DiscretizedLogisticMixture(components=4, values=values)
    parameters = mixture.start.expand(50, -1).clone().requires_grad_()
    x = torch.randint(0, 256, (50, values)).float()
    mixture.log_prob(parameters, x).sum().backward()
    assert parameters.grad is not None
    gradient = parameters.grad.sum(0)[: (1 + values) * 4].reshape(1 + values, 4)
    assert all(len(row.unique()) == 4 for row in gradient)
