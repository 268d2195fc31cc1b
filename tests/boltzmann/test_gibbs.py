from typing import Any

import jaxtyping
import pytest
import torch

from dvaepp.boltzmann.gibbs import linear, uniform_filler
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError


def test_numbers_are_uniform_at_coarse_and_at_fine_scales() -> None:
    drawn = torch.empty(4_000_000)
    fill = uniform_filler(drawn)
    fill(drawn)
    assert 0 <= float(drawn.min())
    assert float(drawn.max()) < 1
    for cells in (10, 1000, 2**16):
        counts = torch.bincount((drawn.double() * cells).long(), minlength=cells).double()
        expected = len(drawn) / cells
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert abs(chi_square - (cells - 1)) < 5 * (2 * (cells - 1)) ** 0.5


def test_what_lies_below_sixteen_bits_is_uniform_over_calls() -> None:
    drawn, below = torch.empty(1), torch.zeros(256)
    fill = uniform_filler(drawn)
    for _ in range(20_000):
        fill(drawn)
        below[int(float(drawn) * 2**24) % 256] += 1
    expected = 20_000 / 256
    assert abs(float(((below - expected) ** 2 / expected).sum()) - 255) < 5 * (2 * 255) ** 0.5


def test_neighbours_and_calls_are_uncorrelated() -> None:
    drawn = torch.empty(2, 1_000_000)
    fill = uniform_filler(drawn)
    fill(drawn[0])
    fill(drawn[1])
    a, b = drawn - 0.5
    sd = 1 / 12 / 1000
    for product in (a * b, a[1:] * a[:-1], a[2:] * a[:-2], a[4:] * a[:-4]):
        assert abs(float(product.mean())) < 5 * sd


def test_torchs_seed_decides_them_and_any_shape_is_filled() -> None:
    def draw() -> list[torch.Tensor]:
        torch.manual_seed(3)
        tensors = [torch.empty(s) for s in ((7,), (8,), (3, 5), (0,))] + [torch.empty(4, dtype=torch.float64)]
        for tensor in tensors:
            uniform_filler(tensor)(tensor)
        return tensors

    first, second = draw(), draw()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1][:7])


@pytest.mark.parametrize("rows", [3, 2000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_is_the_product_of_what_x_holds_when_called(rows: int, dtype: torch.dtype) -> None:
    states = torch.randint(0, 2, (rows, 70)).to(dtype)
    x, weight, bias = states[:, 5:65], torch.randn(60, 40, dtype=dtype), torch.randn(40, dtype=dtype)
    product = linear(x, weight, bias)
    for _ in range(2):
        exact = x.double() @ weight.double() + bias.double()
        assert float((product().double() - exact).abs().max()) < (1e-4 if dtype == torch.float32 else 1e-12)
        states.copy_(torch.randint(0, 2, states.shape))


RING = torch.zeros(6, 6, dtype=torch.bool)
for i in range(3):
    RING[i, [3 + i, 3 + (i + 1) % 3]] = True


@pytest.mark.parametrize(
    "make",
    [lambda: BoltzmannMachine(3, 3), lambda: BoltzmannMachine(2, 3, 1), lambda: BoltzmannMachine(3, 3, mask=RING)],
)
@pytest.mark.parametrize("beta", [1.0, 0.4, torch.linspace(0, 1, 20).view(4, 5)])
@pytest.mark.parametrize("clamped", [None, torch.arange(6) > 3, torch.rand(4, 5, 6) < 0.3])
def test_sweeps_of_given_numbers_are_those_in_place(
    make: Any, beta: float | torch.Tensor, clamped: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = make()
    for parameter in machine.parameters():
        torch.nn.init.normal_(parameter)
    z, noise = machine.uniform(4, 5), torch.rand(7, 4, 5, 6)
    start = z.clone()
    order = sorted(machine.slices, key=lambda s: (s != machine.slices[machine.summed], s.start))
    numbers = iter([uniform.view(20, 6)[:, s] for uniform in noise for s in order])
    monkeypatch.setattr("dvaepp.boltzmann.machine.uniform_filler", lambda like: lambda out: out.copy_(next(numbers)))
    in_place = machine.gibbs(z, 7, beta, clamped)
    given = machine.gibbs(z, 7, beta, clamped, noise)
    assert torch.equal(given, in_place)
    assert not torch.equal(given, start)
    assert torch.equal(z, start)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no shape checks
    with pytest.raises(InputError, match=r"noise must be uniform numbers of shape \(6, 4, 5, 6\)"):
        machine.gibbs(z, 6, beta, clamped, noise)


@pytest.mark.parametrize("make", [lambda: BoltzmannMachine(80, 80), lambda: BoltzmannMachine(40, 60, 60)])
def test_given_numbers_are_used_in_the_machine_s_precision_under_autocast(make: Any) -> None:
    machine = make()
    for parameter in machine.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    z, noise = machine.uniform(300), torch.rand(3, 300, machine.bits)
    expected = machine.gibbs(z, 3, noise=noise)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(machine.gibbs(z, 3, noise=noise), expected)


@pytest.mark.parametrize("shape", [(), (4,)])
def test_one_temperature_in_a_tensor_of_any_shape_and_no_sweep_at_all(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no shape checks
    machine = BoltzmannMachine(3, 3)
    torch.nn.init.normal_(machine.couplings[0])
    z, noise = machine.uniform(*shape), torch.rand(2, *shape, 6)
    expected = machine.gibbs(z, 2, 0.5, noise=noise)
    for beta in (torch.tensor(0.5), torch.tensor([0.5]), torch.tensor([[0.5]])):
        assert torch.equal(machine.gibbs(z, 2, beta, noise=noise), expected)
    still = machine.gibbs(z, 0, noise=noise[:0])
    assert torch.equal(still, z)
    assert still is not z
