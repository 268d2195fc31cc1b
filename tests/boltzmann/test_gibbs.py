import pytest
import torch

from dvaepp.boltzmann.gibbs import linear, uniform_filler


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
