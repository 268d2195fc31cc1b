"""Tables of real numbers in any unit: the model learned is the same, and its density counts in the unit."""

import math
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from dvaepp.data import Dataset
from dvaepp.errors import InputError
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.recipes import catalogue
from dvaepp.recipes.build import spec_of
from dvaepp.recipes.recipe import Recipe, override

ROWS, COLUMNS = 60, 3
UNITS = [1e-9, 1e-6, 1e-3, 0.5, 30.0, 1e9]
units = pytest.mark.parametrize("unit", UNITS)


def recipe() -> Recipe:
    settings = ["model.likelihood=normal", "model.groups=[4]", "model.hidden=[8]", "model.batch_norm=false"]
    return override(catalogue.find("quick/rbm", "tiny"), settings)


def table(unit: float, constant: float | None = None) -> Dataset:
    """The same rows in a unit: columns of different means and sds, the last a multiple of the first or a constant."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, COLUMNS, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 0.01, 40.0])
    x = x + torch.tensor([3.0, 0.0, -1000.0])
    x[:, 2] = 2 * x[:, 0] if constant is None else constant
    train = (unit * x).float()
    return Dataset("table", (COLUMNS,), train, train[:5], train[5:9], False, "by hand", "real")


@lru_cache
def trained_in(unit: float, constant: float | None = None) -> tuple[FeedForwardVAE, Tensor]:
    return trained(table(unit, constant), 10)


def trained(data: Dataset, steps: int) -> tuple[FeedForwardVAE, Tensor]:
    """A model of the table after a few steps of Adam, and its bound on each row with the same noise for every unit."""
    torch.manual_seed(2)
    model, objective = recipe().build(spec_of(data))
    assert isinstance(model, FeedForwardVAE)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        (-objective(model, data.train).bound().mean()).backward()
        optimizer.step()
    torch.manual_seed(3)
    return model, objective(model, data.train).bound().detach().double()


@units
def test_the_density_of_a_table_in_another_unit_differs_by_the_unit_alone(unit: float) -> None:
    (_, bound), (_, other) = trained_in(1.0), trained_in(unit)
    torch.testing.assert_close(other, bound - COLUMNS * math.log(unit), rtol=0, atol=2e-3)


@units
def test_the_floor_of_the_scale_is_in_the_unit_of_each_column(unit: float) -> None:
    narrowest = []
    for data in (table(1.0), table(unit)):
        model, _ = trained(data, 0)
        last = model.decoder[0][-1]
        with torch.no_grad():
            last.weight.zero_()
            last.bias.view(COLUMNS, 2)[:, 1] = -50.0
        p = model.decode(torch.zeros(1, 4))
        narrowest.append(p.log_prob(p.mean).double())
    torch.testing.assert_close(narrowest[1], narrowest[0] - COLUMNS * math.log(unit), rtol=0, atol=2e-4)
    expected = COLUMNS * (7 - math.log(2 * math.pi) / 2) - table(unit).sd.double().log().sum()
    torch.testing.assert_close(narrowest[1], expected[None], rtol=0, atol=2e-4)


@units
@pytest.mark.parametrize("constant", [0.0, -7.0])
def test_a_constant_has_no_unit_and_the_other_columns_keep_theirs(unit: float, constant: float) -> None:
    (_, bound), (_, other) = trained_in(1.0, constant), trained_in(unit, constant / unit)
    assert bool(other.isfinite().all())
    torch.testing.assert_close(other, bound - (COLUMNS - 1) * math.log(unit), rtol=0, atol=2e-3)


@units
def test_samples_of_a_table_come_in_its_unit(unit: float) -> None:
    draws = []
    for model, _ in (trained_in(1.0), trained_in(unit)):
        torch.manual_seed(4)
        draws.append(model.generate(200).double())
    torch.testing.assert_close(draws[1] / unit, draws[0], rtol=1e-3, atol=1e-3 * float(table(1.0).sd.max()))


@pytest.mark.parametrize("unit", [1e-9, 1e-6, 1e-3])
def test_images_of_too_small_a_unit_for_the_floor_of_their_scale_are_refused(unit: float) -> None:
    images = unit * torch.randn(12, 64)
    data = Dataset("images", (8, 8), images, images[:2], images[2:4], False, "by hand", "real")
    settings = ["model.likelihood=normal", "model.groups=[4]", 'model.convolutional={"channels":4,"local":4}']
    tiny = override(catalogue.find("quick/rbm", "tiny"), [*settings, "model.convolutional.local_groups=1"])
    with pytest.raises(InputError, match="model.likelihood=normal with model.convolutional .* rescale"):
        tiny.build(spec_of(data))
    whole = Dataset("images", (8, 8), *3 * [images / unit], False, "by hand", "real")
    tiny.build(spec_of(whole))
