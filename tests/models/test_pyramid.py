"""The conditional decoder: probabilities of all images, samples with those frequencies, and no pixel seen too early."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from deep import log_probs_of_all, shake
from registry import all_states, assert_distributed, assert_mean
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.likelihoods.base import Likelihood
from dvaepp.likelihoods.logistic_mixture import DiscretizedLogisticMixture
from dvaepp.likelihoods.standard import BernoulliLikelihood
from dvaepp.models.decoders import ConditionalDecoder
from dvaepp.models.grid import Grid
from dvaepp.models.pyramid import PixelPyramid, PyramidLikelihood, join_squares, split_squares

SHAPES = [(4, 4), (3, 3), (2, 3), (3, 2), (2, 2), (1, 2), (2, 1), (1, 1)]


def decoder(
    shape: tuple[int, ...],
    likelihood: Likelihood | None = None,
    base: int = 1,
    local: int = 1,
    seed: int = 0,
    levels: bool = False,
    strength: float = 1.5,
    **settings: Any,
) -> tuple[ConditionalDecoder, Tensor]:
    """A decoder with random weights, and one state for it."""
    top = 255.0 if levels else 1.0
    grid = Grid(shape, top * torch.linspace(0.1, 0.9, math.prod(shape), dtype=torch.float64), 2 / top)
    channels = {1 << i: 3 for i in range(6)}
    pyramid = PixelPyramid(grid, likelihood or BernoulliLikelihood(), channels, base, **settings)
    made: ConditionalDecoder = shake(ConditionalDecoder(pyramid, channels, local=local), seed, strength)
    return made, torch.randn(1, 3, local, local, dtype=torch.float64)


def repeated(made: ConditionalDecoder, state: Tensor) -> Callable[[int], PyramidLikelihood]:
    return lambda n: made(state.expand(n, -1, -1, -1))


def table(made: ConditionalDecoder, state: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """Every image of bits, and its log p."""
    images = all_states(pixels)
    return images, log_probs_of_all(repeated(made, state), images)


# --- Bernoulli --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_probabilities_of_all_images_sum_to_one(shape: tuple[int, int]) -> None:
    made, state = decoder(shape)
    _, log_p = table(made, state, math.prod(shape))
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-9)
    assert len(log_p) < 16 or float(log_p.std()) > 0.3


@pytest.mark.parametrize(("base", "local"), [(2, 2), (1, 2), (1, 4), (2, 4), (4, 4)])
def test_they_do_from_every_base_and_every_scale_of_features(base: int, local: int) -> None:
    made, state = decoder((3, 3), base=base, local=local)
    assert float(table(made, state, 9)[1].exp().sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (2, 3), (1, 3)], ids=str)
def test_samples_have_the_frequencies_of_the_probabilities(shape: tuple[int, int]) -> None:
    made, state = decoder(shape)
    pixels = math.prod(shape)
    _, log_p = table(made, state, pixels)
    one, several = made(state).sample((4000,)), repeated(made, state)(4000).sample((5,))
    assert one.shape == (4000, 1, pixels)
    assert several.shape == (5, 4000, pixels)
    assert made(state).sample().shape == (1, pixels)
    assert_distributed(torch.cat([one.flatten(0, 1), several.flatten(0, 1)]), log_p)


def test_samples_of_a_batch_are_each_of_their_own_distribution() -> None:
    made, _ = decoder((2, 2))
    states = 2 * torch.randn(2, 3, 1, 1, dtype=torch.float64)
    drawn = made(states).sample((12_000,))
    assert drawn.shape == (12_000, 2, 4)
    tables = [table(made, states[i : i + 1], 4)[1] for i in range(2)]
    assert float((tables[0].exp() - tables[1].exp()).abs().sum()) > 0.2
    for i in range(2):
        assert_distributed(drawn[:, i], tables[i])


@pytest.mark.parametrize("shape", [(3, 3), (2, 3)], ids=str)
def test_the_mean_averages_to_the_exact_mean(shape: tuple[int, int]) -> None:
    made, state = decoder(shape)
    images, log_p = table(made, state, math.prod(shape))
    means = repeated(made, state)(8000).mean
    assert means.shape == (8000, math.prod(shape))
    assert bool(((means > 0) & (means < 1)).all())
    assert_mean(means, log_p.exp() @ images)
    spread = means.std(0).reshape(shape)
    assert float(spread[0, 0]) < 1e-12, "x_0 is given nothing"
    assert bool((spread.flatten()[1:] > 1e-3).all())


# --- who sees whom ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded(Likelihood):
    """Bernoulli, but it keeps the parameters and the pixels that it is given."""

    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @property
    def width(self) -> int:
        return 1

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        self.seen.append((parameters.detach().clone(), x.clone()))
        return BernoulliLikelihood().log_prob(parameters, x)

    def sample(self, parameters: Tensor) -> Tensor:
        self.seen.append((parameters.detach().clone(), parameters))
        return BernoulliLikelihood().sample(parameters)

    def mean(self, parameters: Tensor) -> Tensor:
        return torch.sigmoid(parameters)

    def check(self, x: Tensor) -> None:
        pass


def scale_of(row: int, column: int, base: int, size: int) -> int:
    """Which factor a pixel is in: 0 for the base, then one for each doubling."""
    step, factor = size // base, 0
    while row % step or column % step:
        step, factor = step // 2, factor + 1
    return factor


@pytest.mark.parametrize(("shape", "base"), [((8, 8), 1), ((8, 8), 2), ((8, 8), 4), ((7, 5), 2), ((4, 4), 1)], ids=str)
@torch.no_grad()
def test_a_factor_depends_on_the_pixels_of_coarser_scales_only(shape: tuple[int, int], base: int) -> None:
    recorded = Recorded()
    made, state = decoder(shape, recorded, base=base, local=base)
    size, pixels = made.pyramid.grid.size, math.prod(shape)
    likelihood = made(state)
    image = torch.randint(0, 2, (1, pixels)).double()

    def parameters(x: Tensor) -> list[Tensor]:
        recorded.seen.clear()
        likelihood.log_prob(x)
        return [p for p, _ in recorded.seen]

    before = parameters(image)
    assert len(before) == 1 + round(math.log2(size / base))
    assert [p.shape[1] for p in before] == [base**2, *(3 * (base << i) ** 2 for i in range(len(before) - 1))]
    for pixel in range(pixels):
        changed = image.clone()
        changed[0, pixel] = 1 - changed[0, pixel]
        own = scale_of(*divmod(pixel, shape[1]), base, size)
        for factor, (old, new) in enumerate(zip(before, parameters(changed), strict=True)):
            assert torch.equal(old, new) == (factor <= own), f"pixel {pixel} of factor {own}, factor {factor}"


@torch.no_grad()
def test_every_pixel_is_in_one_factor() -> None:
    recorded = Recorded()
    made, state = decoder((8, 8), recorded, base=2, local=2)
    numbered = torch.arange(64.0, dtype=torch.float64)[None]
    made(state).log_prob(numbered)
    factors = [x[0, :, 0].long().tolist() for _, x in recorded.seen]
    assert sorted(itertools.chain(*factors)) == list(range(64))
    assert sorted(factors[0]) == [0, 4, 32, 36]
    for factor, listed in enumerate(factors):
        assert {scale_of(*divmod(pixel, 8), 2, 8) for pixel in listed} == {factor}


@torch.no_grad()
def test_samples_are_drawn_from_the_parameters_by_which_they_are_judged() -> None:
    recorded = Recorded()
    made, _ = decoder((6, 7), recorded, base=2, local=4)
    likelihood = made(torch.randn(3, 3, 4, 4, dtype=torch.float64))
    drawn = likelihood.sample()
    sampled = [p for p, _ in recorded.seen]
    recorded.seen.clear()
    likelihood.log_prob(drawn)
    assert len(sampled) == 3
    for judged, used in zip(recorded.seen, sampled, strict=True):
        torch.testing.assert_close(judged[0], used)


# --- levels -----------------------------------------------------------------------------------------------------------


def test_grey_levels_of_one_by_two_pixels_sum_to_one() -> None:
    made, state = decoder((1, 2), DiscretizedLogisticMixture(2, values=1), levels=True)
    every = torch.cartesian_prod(*[torch.arange(256.0, dtype=torch.float64)] * 2)
    log_p = log_probs_of_all(repeated(made, state), every, 8192)
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-9)
    by_first = log_p.view(256, 256)
    conditional = by_first - by_first.logsumexp(1, keepdim=True)
    assert float((conditional[0] - conditional[255]).abs().max()) > 0.1, "the second pixel sees the first"


def test_colours_sum_to_one_and_are_drawn_with_their_probabilities() -> None:
    """256^6 images of two pixels, by importance sampling from levels of which a third each are 0 and 255."""
    made, state = decoder((1, 2, 3), DiscretizedLogisticMixture(2, values=3), levels=True, seed=2, strength=0.7)
    likelihood, count = repeated(made, state)(60_000), 60_000
    ends = torch.randint(0, 3, (count, 6))
    x = torch.where(ends < 2, 255 * ends, torch.randint(0, 256, (count, 6))).double()
    inner, end = math.log(1 / 3 / 256), math.log(1 / 3 + 1 / 3 / 256)
    log_u = torch.where((x == 0) | (x == 255), end, inner).sum(1)
    with torch.no_grad():
        log_p = likelihood.log_prob(x)
        drawn = likelihood.log_prob(likelihood.sample())
    weight = (log_p - log_u).exp()
    assert_mean(weight, 1.0)
    assert float(weight.std()) < 20
    difference = float((weight * log_p).mean() - drawn.mean())
    error = (float((weight * log_p).var()) / count + float(drawn.var()) / count) ** 0.5
    assert abs(difference) < 5 * error < 1.5


@pytest.mark.parametrize("shape", [(2, 2, 3), (3, 2, 3)], ids=str)
def test_colour_samples_are_levels_with_finite_probabilities(shape: tuple[int, int, int]) -> None:
    made, state = decoder(shape, DiscretizedLogisticMixture(3, values=3), levels=True)
    likelihood, pixels = repeated(made, state)(300), math.prod(shape)
    drawn, mean = likelihood.sample(), likelihood.mean
    assert drawn.shape == mean.shape == (300, pixels)
    assert bool(((drawn >= 0) & (drawn <= 255) & (drawn == drawn.round())).all())
    assert bool(((mean >= 0) & (mean <= 255)).all())
    with torch.no_grad():
        for x in (drawn, torch.zeros_like(drawn), torch.full_like(drawn, 255)):
            assert bool(likelihood.log_prob(x).isfinite().all())
    first = drawn[:, 0] - mean[:, 0]  # a mean is given to half a level
    assert abs(float(first.mean())) < 0.5 + 5 * float(first.std()) / 300**0.5


def test_grey_levels_are_drawn_with_their_probabilities() -> None:
    made, state = decoder((1, 2), DiscretizedLogisticMixture(2, values=1), levels=True, seed=4)
    every = torch.cartesian_prod(*[torch.arange(256.0, dtype=torch.float64)] * 2)
    p = log_probs_of_all(repeated(made, state), every, 8192).exp().view(256, 256)
    drawn = repeated(made, state)(30_000).sample()
    blocks = torch.zeros(8, 8, dtype=torch.float64)
    blocks.index_put_((drawn[:, 0].long() // 32, drawn[:, 1].long() // 32), torch.ones(30_000).double(), True)
    expected = p.view(8, 32, 8, 32).sum((1, 3))
    assert bool(((blocks / 30_000 - expected).abs() <= 5 * (expected * (1 - expected) / 30_000).sqrt() + 2e-4).all())


# --- refusals and squares ---------------------------------------------------------------------------------------------


def test_x_outside_the_support_is_refused() -> None:
    made, state = decoder((2, 2))
    with pytest.raises(InputError, match="0 or 1"):
        made(state).log_prob(torch.full((1, 4), 0.5, dtype=torch.float64))
    made, state = decoder((2, 2), DiscretizedLogisticMixture(2, values=1), levels=True)
    with pytest.raises(InputError, match=r"0\.\.255"):
        made(state).log_prob(torch.full((1, 4), 256.0, dtype=torch.float64))


def test_squares_are_split_in_reading_order_and_joined_again() -> None:
    image = torch.arange(32.0).view(1, 2, 4, 4)
    squares = split_squares(image)
    assert squares.shape == (1, 2, 4, 2, 2)
    assert squares[0, 0, :, 0, 0].tolist() == [0, 1, 4, 5]
    assert squares[0, 1, :, 1, 0].tolist() == [24, 25, 28, 29]
    assert torch.equal(join_squares(squares), image)


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 1), 2), ((2, 3), 4), ((4, 4), 4), ((5, 3, 3), 8), ((28, 28), 32), ((32, 32, 3), 32)]
)
def test_a_grid_pads_to_a_power_of_two_and_back(shape: tuple[int, ...], size: int) -> None:
    numbers, values = math.prod(shape), (*shape, 1)[2]
    grid = Grid(shape, torch.full((numbers,), 3.0), 0.5)
    x = torch.randn(2, numbers)
    image = grid.image(x)
    assert image.shape == (2, values, size, size)
    assert torch.equal(image[1, -1, shape[0] - 1, shape[1] - 1], x[1, -1])
    assert torch.equal(image[0, 0, 0, 0], x[0, 0])
    assert torch.equal(grid.sites(image).flatten(1), x)
    standard = grid.standardised(image)
    torch.testing.assert_close(grid.sites(standard).flatten(1), (x - 3) / 2)
    assert float(standard.abs().sum()) == pytest.approx(float(((x - 3) / 2).abs().sum()), rel=1e-5)
    assert "inside" not in grid.state_dict()


def test_x_of_another_shape_is_refused() -> None:
    likelihood = repeated(*decoder((2, 2)))(3)
    for x in (torch.zeros(3, 5), torch.zeros(2, 4)):
        with pytest.raises(InputError, match="one example for each zeta and h"):
            likelihood.log_prob(x)
