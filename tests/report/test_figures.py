"""What the figures show, against integrals and the numbers of Appendix C."""

import math

import pytest
import torch
from scipy import integrate, special

from dvaepp.report.figures import matching_temperature, median, sharpness_and_gradient
from dvaepp.smoothings.concrete import Concrete
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.smoothings.spike import SpikeExponential


@pytest.mark.parametrize("beta", [5.0, 12.0])
def test_the_mean_gradient_of_the_mixture_is_that_of_its_mean(beta: float) -> None:
    found = sharpness_and_gradient(OverlappingExponential(beta))
    mean0 = integrate.quad(lambda t: t * math.exp(-beta * t), 0, 1)[0] * beta / -math.expm1(-beta)
    distance = 2 * integrate.quad(lambda t: t * math.cosh(beta * (t - 0.5)), 0, 0.5)[0]
    mass = 2 * integrate.quad(lambda t: math.cosh(beta * (t - 0.5)), 0, 0.5)[0]
    assert found.mean_gradient == pytest.approx(1 - 2 * mean0, abs=1e-5)
    assert found.distance == pytest.approx(distance / mass, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.2, 0.5, 1.5])
def test_concretes_numbers_are_integrals_over_logistic_noise(temperature: float) -> None:
    found = sharpness_and_gradient(Concrete(temperature))

    def moment(power: int) -> float:
        def integrand(x: float) -> float:
            s = special.expit(x / temperature)
            return (4 * s * (1 - s) / temperature) ** power * special.expit(x) * special.expit(-x)

        return 2 * integrate.quad(integrand, 0, 60, limit=400)[0]

    assert found.mean_gradient == pytest.approx(moment(1), abs=1e-4)
    assert found.gradient_sd == pytest.approx(math.sqrt(moment(2) - moment(1) ** 2), rel=1e-3)


@pytest.mark.parametrize("temperature", [0.15, 0.5, 2.0])
def test_the_matching_temperature_is_equally_sharp(temperature: float) -> None:
    distance = sharpness_and_gradient(Concrete(temperature)).distance
    assert matching_temperature(distance) == pytest.approx(temperature, rel=1e-4)


def test_the_medians_cross_where_q_is_a_half() -> None:
    q = torch.tensor([0.2, 0.5, 0.8])
    mixture, spike = median(OverlappingExponential(8.0), q), median(SpikeExponential(8.0), q)
    torch.testing.assert_close(mixture[1], torch.tensor(0.5))
    torch.testing.assert_close(mixture[0] + mixture[2], torch.tensor(1.0))
    assert spike[0] == 0
    assert float(spike[2]) == pytest.approx(math.log1p((math.exp(8) - 1) * (1 - 0.5 / 0.8)) / 8, abs=1e-6)
