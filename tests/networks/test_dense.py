"""Dense networks start as Tucker et al. (2017) start theirs, and see what they should see."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dvaepp.errors import InputError
from dvaepp.networks.dense import Affine, OneHot, at_draws, centring, dense, output_bias


def linears(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


@pytest.mark.parametrize("inputs", [50, 400])
def test_weights_are_truncated_normal_of_variance_two_over_fan_in(inputs: int) -> None:
    weight = dense(inputs, 2000)[-1].weight.detach().double().flatten()
    n, variance = len(weight), float(weight.var())
    # A normal cut at two of its sd keeps 1 - 4 phi(2) / (2 Phi(2) - 1) = .7737 of its variance; TensorFlow takes
    # 1 / 1.3 = .7692 for it, hence the .6 %.
    assert variance == pytest.approx(2 / inputs, rel=0.006 + 5 * math.sqrt(2 / n))
    assert abs(float(weight.mean())) < 5 * math.sqrt(variance / n)
    cut = 2 * math.sqrt(2.6 / inputs)
    assert float(weight.abs().max()) <= cut * (1 + 1e-6)
    assert float(weight.abs().max()) > 0.99 * cut
    assert float((weight.abs() > 0.5 * cut).double().mean()) == pytest.approx((0.9545 - 0.6827) / 0.9545, abs=0.01)


def test_biases_start_at_zero() -> None:
    for layer in linears(dense(5, 3, (4, 4))):
        assert layer.bias.count_nonzero() == 0


def test_each_layer_has_its_own_fan_in() -> None:
    narrow, wide = linears(dense(8, 4000, (2000,)))
    assert narrow.weight.var().item() == pytest.approx(2 / 8, rel=0.05)
    assert wide.weight.var().item() == pytest.approx(2 / 2000, rel=0.02)


def test_no_hidden_layer_is_linear_and_hidden_layers_are_tanh() -> None:
    x = torch.randn(6, 5)
    linear = dense(5, 3)
    torch.testing.assert_close(linear(x) + linear(-x), torch.zeros(6, 3), rtol=0, atol=1e-6)
    network = dense(5, 3, (7,))
    first, last = linears(network)
    torch.testing.assert_close(network(x), torch.tanh(x @ first.weight.T) @ last.weight.T)
    assert [type(layer) for layer in dense(5, 3, (7, 8))] == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]


def test_batch_norm_comes_before_tanh_and_not_at_the_end() -> None:
    network = dense(5, 3, (7,), batch_norm=True)
    assert [type(layer) for layer in network] == [nn.Linear, nn.BatchNorm1d, nn.Tanh, nn.Linear]
    assert network[0].bias is None  # batch norm would cancel it
    assert network[-1].bias is not None
    x = torch.randn(64, 5)
    field = (x @ network[0].weight.T).detach()
    normal = (field - field.mean(0)) / (field.var(0, unbiased=False) + 1e-2).sqrt()
    torch.testing.assert_close(network[:2](x).detach(), normal, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network[1].running_mean, 0.2 * field.mean(0))


def test_affine_scales_then_shifts() -> None:
    assert Affine(torch.tensor([-1.0, -1.0]), 2.0)(torch.tensor([[0.0, 1.0]])).tolist() == [[-1.0, 1.0]]


def test_affine_raises_to_the_least_before_it_scales_and_does_not_save_it() -> None:
    layer = Affine(torch.ones(2), torch.tensor([2.0, 2.0]), torch.tensor([-math.inf, -1.0]))
    x = torch.tensor([[-5.0, -5.0], [3.0, 3.0]], requires_grad=True)
    out = layer(x)
    assert out.tolist() == [[-9.0, -1.0], [7.0, 7.0]]
    assert torch.autograd.grad(out.sum(), x)[0].tolist() == [[2.0, 0.0], [2.0, 2.0]]
    assert list(layer.state_dict()) == ["shift", "scale"]


def test_centring_takes_the_mean_from_pixels_and_leaves_latents() -> None:
    layer = centring(torch.tensor([0.2, 0.9]), 3)
    seen = layer(torch.tensor([[1.0, 0.0, 0.1, 0.5, 1.0]]))
    torch.testing.assert_close(seen, torch.tensor([[0.8, -0.9, 0.1, 0.5, 1.0]]))
    assert layer(torch.zeros(2, 3, 5)).shape == (2, 3, 5)


def test_an_untrained_output_predicts_the_clipped_mean_image() -> None:
    mean = torch.tensor([0.0, 0.0005, 0.3, 0.9995, 1.0])
    predicted = torch.sigmoid(output_bias(mean)(torch.zeros(2, 5)))
    torch.testing.assert_close(predicted, torch.tensor([0.001, 0.001, 0.3, 0.999, 0.999]).expand(2, 5))


def test_fixed_constants_are_saved_and_not_trained() -> None:
    layer = output_bias(torch.full((4,), 0.3))
    assert list(layer.parameters()) == []
    assert list(layer.state_dict()) == ["shift"]


class Plain(nn.Module):
    """A network of someone else's."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(x))


class Doubled(nn.Linear):
    """A linear layer that is none."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(2 * x)


def hooked(inputs: int) -> nn.Module:
    network = dense(inputs, 3, (6,))
    network[0].register_forward_pre_hook(lambda _, x: (2 * x[0],))
    return network


def replaced(inputs: int) -> nn.Module:
    network = dense(inputs, 3, (6,))
    layer = network[0]
    layer.forward = lambda x: F.linear(2 * x, layer.weight, layer.bias)
    return network


PIXELS, BITS, DRAWS = 5, 3, 4
MEAN, SCALE = torch.linspace(-1, 1, PIXELS + BITS), torch.linspace(0.5, 2, PIXELS + BITS)
NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "dense": lambda inputs: dense(inputs, 3, (6,), batch_norm=True),
    "linear": lambda inputs: nn.Linear(inputs, 3),
    "centred": lambda inputs: nn.Sequential(centring(MEAN[:PIXELS], inputs - PIXELS), dense(inputs, 3, (6, 6))),
    "standardised": lambda inputs: nn.Sequential(
        Affine(MEAN[:inputs], SCALE[:inputs], 0 * MEAN[:inputs]), dense(inputs, 3, (6,))
    ),
    "twice": lambda inputs: nn.Sequential(
        nn.Sequential(Affine(MEAN[:inputs], 2.0), Affine(MEAN[:inputs], SCALE[:inputs])), dense(inputs, 3)
    ),
    "categories": lambda inputs: nn.Sequential(OneHot([4] * PIXELS), dense(inputs + 3 * PIXELS, 3, (6,), True)),
    "some-categories": lambda inputs: nn.Sequential(OneHot([4, 4]), dense(inputs + 3 * 2, 3, (6,))),
    "one-of-categories": lambda inputs: nn.Sequential(OneHot([0, 4, 0]), dense(inputs + 3, 3, (6,))),
    "categories-of-both": lambda inputs: nn.Sequential(OneHot([4] * inputs), dense(4 * inputs, 3)),
    "plain": Plain,
    "plain-behind": lambda inputs: nn.Sequential(Affine(MEAN[:inputs]), Plain(inputs)),
    "activation-first": lambda inputs: nn.Sequential(nn.Tanh(), nn.Linear(inputs, 3)),
    "identity": lambda inputs: nn.Sequential(),
    "doubled": lambda inputs: nn.Sequential(Doubled(inputs, 3), nn.Tanh()),
    "hooked": hooked,
    "replaced": replaced,
    "hooked-within": lambda inputs: nn.Sequential(centring(MEAN[:PIXELS], inputs - PIXELS), hooked(inputs)),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("bits", [0, BITS])
@pytest.mark.parametrize("draws", [1, DRAWS])
def test_a_network_at_several_draws_is_the_network_of_x_repeated(name: str, bits: int, draws: int) -> None:
    network = NETWORKS[name](PIXELS + bits).double()
    x = torch.randint(0, 4, (7, PIXELS)).double()
    zetas = torch.randint(0, 4, (7 * draws, bits)).double().split([1, bits - 1], 1) if bits else ()
    both = torch.cat([x.repeat_interleave(draws, 0), *zetas], 1)
    for training in (True, False):  # every row of x as often as any other, so batch norm sees the same means
        network.train(training)
        found, expected = at_draws(network, x, zetas, draws), network(both)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        parameters = list(network.parameters())
        if parameters:
            weight = torch.randn_like(expected)
            gradients = [torch.autograd.grad((weight * out).sum(), parameters) for out in (found, expected)]
            torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["dense", "centred", "standardised", "categories"])
def test_the_part_from_x_is_computed_once_for_all_draws(name: str) -> None:
    rows: list[int] = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
                left, right = args[-2:]
                rows.append(left.shape[0] * right.shape[0])
            return func(*args, **(kwargs or {}))

    x, zeta = torch.randint(0, 4, (7, PIXELS)).float(), torch.rand(7 * DRAWS, BITS)
    for bits, zetas in ((0, ()), (BITS, (zeta,))):
        network = NETWORKS[name](PIXELS + bits).eval()
        columns = linears(network)[0].in_features - bits
        rows.clear()
        with Count(), torch.no_grad():
            at_draws(network, x, zetas, DRAWS)
        first = [7 * columns, 7 * DRAWS * bits] if bits else [7 * columns]
        assert sorted(rows[: len(first)]) == sorted(first)


def test_a_hook_on_the_way_back_is_called_with_several_draws() -> None:
    network, seen = dense(PIXELS + BITS, 3, (6,)), []
    network[0].register_full_backward_hook(lambda module, given, out: seen.append(len(out[0])))
    x, zeta = torch.rand(7, PIXELS, requires_grad=True), torch.rand(7 * DRAWS, BITS)
    at_draws(network, x, (zeta,), DRAWS).sum().backward()
    assert seen == [7 * DRAWS]


@pytest.mark.parametrize("bits", [0, BITS])
def test_one_example_under_batch_norm_that_trains_is_refused_in_a_sentence(bits: int) -> None:
    network = dense(PIXELS + bits, 3, (6,), batch_norm=True)
    zetas, draws = ((torch.rand(1, bits),), 1) if bits else ((), DRAWS)
    with pytest.raises(InputError, match="batch norm in training mode needs at least two vectors"):
        at_draws(network, torch.rand(1, PIXELS), zetas, draws)
