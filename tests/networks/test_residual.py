"""Residual cells, squeeze-and-excitation and what goes up and down through scales."""

import itertools
import math

import pytest
import torch
from deep import shake
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.networks.backbone import Backbone, ResidualStages, Upsampler
from dvaepp.networks.precision import full, reduced
from dvaepp.networks.residual import Cells, ResidualCell, SqueezeExcite, output

CHANNELS = {1: 32, 2: 16, 4: 8, 8: 6, 16: 4, 32: 3}


def parameters_of(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("squeeze_excite", [True, False])
@pytest.mark.parametrize(("scale", "size"), [(0.5, 4), (1, 8), (2, 16)])
@pytest.mark.parametrize(("inputs", "outputs"), [(5, 5), (5, 7)])
def test_a_cell_scales_height_and_width_and_changes_channels(
    scale: float, size: int, inputs: int, outputs: int, squeeze_excite: bool
) -> None:
    cell = ResidualCell(inputs, outputs, scale, squeeze_excite=squeeze_excite)
    assert cell(torch.randn(3, inputs, 8, 8)).shape == (3, outputs, size, size)
    convolutions = 9 * inputs * outputs + 9 * outputs**2
    excite = outputs + 4 * outputs + 4 + 4 * outputs + outputs if squeeze_excite else 0  # with a bias before it
    shortcut = inputs * outputs if inputs != outputs else 0
    assert parameters_of(cell) == convolutions + 2 * (inputs + outputs) + excite + shortcut


@pytest.mark.parametrize("scale", [0, 0.25, 3, -1])
def test_a_cell_of_another_scale_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match="scale"):
        ResidualCell(4, 4, scale)


@pytest.mark.parametrize("scale", [0.5, 1, 2])
def test_the_shortcut_passes_x_averaged_or_repeated(scale: float) -> None:
    """With nothing from the last convolution the cell is its shortcut."""
    cell = ResidualCell(3, 3, scale)
    last = [m for m in cell.modules() if isinstance(m, nn.Conv2d)][-1]
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 3, 6, 6)
    out = cell(x)
    for i, j in itertools.product(range(out.shape[2]), range(out.shape[3])):
        if scale == 0.5:
            seen = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3))
        else:
            seen = x[:, :, i // int(scale), j // int(scale)]
        torch.testing.assert_close(out[:, :, i, j], seen)


def test_a_cell_does_not_change_its_input() -> None:
    x = torch.randn(2, 3, 4, 4)
    before = x.clone()
    for train in (True, False):
        ResidualCell(3, 3).train(train)(x)
        Backbone(3, 4, CHANNELS, local=4, top=4).train(train)(x)
        assert torch.equal(x, before)


def test_a_cell_is_normalised_before_each_convolution_and_bends_by_elu() -> None:
    """One pixel of one channel, so that each 3 x 3 kernel acts by its centre alone."""
    cell = shake(ResidualCell(1, 1, squeeze_excite=False)).requires_grad_(False)
    first, second = [m for m in cell.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in cell.modules() if isinstance(m, nn.BatchNorm2d)]

    def norm(value: float, which: int) -> float:
        n = norms[which]
        scaled = (value - float(n.running_mean)) / math.sqrt(float(n.running_var) + n.eps)
        return float(n.weight) * scaled + float(n.bias)

    def elu(value: float) -> float:
        return value if value > 0 else math.exp(value) - 1

    for x in (-2.0, 0.3, 4.0):
        inner = float(first.weight[0, 0, 1, 1]) * elu(norm(x, 0))
        expected = x + float(second.weight[0, 0, 1, 1]) * elu(norm(inner, 1))
        given = torch.full((1, 1, 1, 1), x, dtype=torch.float64)
        assert float(cell(given)) == pytest.approx(expected, rel=1e-9)


def test_channels_are_scaled_by_what_all_hold_on_average() -> None:
    block = shake(SqueezeExcite(3)).requires_grad_(False)
    assert block.squeeze.out_features == 4
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    out = block(x)
    for b in range(2):
        average = [float(x[b, c].sum()) / 20 for c in range(3)]
        hidden = []
        for unit in range(4):
            field = float(block.squeeze.bias[unit])
            field += sum(float(block.squeeze.weight[unit, c]) * average[c] for c in range(3))
            hidden.append(field if field > 0 else math.expm1(field))
        for c in range(3):
            gate = float(block.excite.bias[c]) + sum(float(block.excite.weight[c, u]) * hidden[u] for u in range(4))
            torch.testing.assert_close(out[b, c], x[b, c] / (1 + math.exp(-gate)))


@pytest.mark.parametrize(("channels", "bottleneck"), [(1, 4), (64, 4), (80, 5), (256, 16)])
def test_the_bottleneck_is_a_sixteenth_and_at_least_four(channels: int, bottleneck: int) -> None:
    block = SqueezeExcite(channels)
    assert (block.squeeze.out_features, block.excite.in_features) == (bottleneck, bottleneck)


@pytest.mark.parametrize("kernel", [1, 3])
def test_an_output_starts_at_zero_and_keeps_the_size(kernel: int) -> None:
    made = output(5, 7, kernel)
    out = made(torch.randn(2, 5, 6, 6))
    assert out.shape == (2, 7, 6, 6)
    assert not out.any()
    out.sum().backward()
    assert bool(made[-1].weight.grad.any())


@pytest.mark.parametrize("cells", [1, 3])
@pytest.mark.parametrize(("start", "end"), [(1, 8), (4, 4), (16, 2), (8, 4)])
def test_stairs_lead_from_one_scale_to_another(start: int, end: int, cells: int) -> None:
    stages = ResidualStages(CHANNELS, start, end, Cells(cells))
    out = stages(torch.randn(2, CHANNELS[start], start, start))
    assert out.shape == (2, CHANNELS[end], end, end)
    assert len(stages) == cells * abs(int(math.log2(start / end)))


@pytest.mark.parametrize(
    ("size", "stem", "local", "top"), [(32, 1, 8, 4), (32, 4, 8, 4), (8, 2, 4, 1), (4, 1, 4, 4), (2, 1, 1, 1)]
)
def test_a_backbone_gives_features_at_two_scales(size: int, stem: int, local: int, top: int) -> None:
    backbone = Backbone(3, size, CHANNELS, local=local, top=top, stem=stem, cells=Cells(2))
    x = torch.randn(2, 3, size, size)
    at_local, at_top = backbone(x)
    assert at_local.shape == (2, CHANNELS[local], local, local)
    assert at_top.shape == (2, CHANNELS[top], top, top)
    convolved = [m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    scales = 1 + int(math.log2(size // stem / top))
    assert len(convolved) == 1 + 2 * 2 * scales


@pytest.mark.parametrize(
    ("size", "stem", "local", "top"), [(8, 1, 16, 4), (8, 2, 8, 4), (8, 1, 2, 4), (8, 1, 4, 0)], ids=str
)
def test_a_backbone_that_would_rise_is_refused(size: int, stem: int, local: int, top: int) -> None:
    with pytest.raises(InputError, match="must not rise"):
        Backbone(1, size, CHANNELS, local=local, top=top, stem=stem)


def test_every_pixel_reaches_the_features_at_both_scales() -> None:
    backbone = shake(Backbone(1, 8, CHANNELS, local=4, top=2, stem=2))
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64).requires_grad_()
    for features in backbone(x):
        (slope,) = torch.autograd.grad(features.sum(), x, retain_graph=True)
        assert bool((slope != 0).all())


@pytest.mark.parametrize(("local", "top"), [(8, 4), (4, 4), (8, 1)])
def test_an_upsampler_makes_features_of_zeta(local: int, top: int) -> None:
    upsampler = shake(Upsampler(5, CHANNELS, local=local, top=top, cells=Cells(2)))
    zeta = torch.rand(3, 5, dtype=torch.float64).requires_grad_()
    start = upsampler.start(zeta)
    assert start.shape == (3, CHANNELS[top], top, top)
    out = upsampler.up(start)
    assert out.shape == (3, CHANNELS[local], local, local)
    (slope,) = torch.autograd.grad(out.sum(), zeta)
    assert bool((slope != 0).all())


def in_training(module: nn.Module, x: Tensor) -> Tensor:
    out = module.train()(x)
    return out[1] if isinstance(out, tuple) else out


@pytest.mark.parametrize("size", [1e4, 1e15])
def test_huge_inputs_stay_finite_in_float32(size: float) -> None:
    for module in (ResidualCell(3, 5, 0.5), Backbone(3, 8, CHANNELS, local=4, top=2)):
        x = (size * torch.randn(4, 3, 8, 8)).requires_grad_()
        out = in_training(module, x)
        assert bool(out.isfinite().all())
        gradients = torch.autograd.grad(out.square().mean(), [x, *module.parameters()])
        assert all(bool(g.isfinite().all()) for g in gradients)


def test_reduced_precision_is_left_by_full() -> None:
    layer, x = nn.Linear(3, 3), torch.randn(2, 3)
    with reduced(torch.bfloat16, x):
        half = layer(x)
    assert half.dtype == torch.bfloat16
    assert full(half).dtype == torch.float32
    assert torch.equal(full(half), half.float())
    with reduced(None, x):
        assert layer(x).dtype == torch.float32
    for same in (x, x.double()):
        assert full(same) is same


def test_reduced_within_reduced_is_one() -> None:
    layer, x = nn.Linear(3, 3), torch.randn(2, 3)
    with reduced(torch.bfloat16, x), reduced(torch.bfloat16, x):
        half = layer(x)
    assert half.dtype == torch.bfloat16
