"""Networks without torch: what is folded into few layers computes the same."""

import pytest
import torch
from torch import nn

from dvaepp import InputError, dense
from dvaepp.networks.dense import Affine, OneHot, centring
from dvaepp.networks.folded import folded

NETWORKS = {
    "linear": lambda: nn.Linear(6, 3),
    "two-layers": lambda: dense(6, 3, (5, 4)),
    "batch-norm": lambda: dense(6, 3, (5, 4), batch_norm=True),
    "moved-in-and-out": lambda: nn.Sequential(
        centring(torch.rand(4), 2), dense(6, 3, (5,), True), Affine(torch.randn(3), torch.rand(3) + 0.5)
    ),
    "moved-twice": lambda: nn.Sequential(
        Affine(torch.randn(6), 2.0), Affine(torch.randn(6), torch.rand(6)), dense(6, 3)
    ),
    "moved-within": lambda: nn.Sequential(
        dense(6, 5), Affine(torch.randn(5), -1.0), nn.Tanh(), Affine(torch.randn(5)), nn.Linear(5, 3)
    ),
    "signs": lambda: nn.Sequential(Affine(torch.full((6,), -1.0), 2.0), nn.Sequential(dense(6, 3, (4,), True))),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_gives_what_the_network_gives(name: str) -> None:
    torch.manual_seed(2)
    network = NETWORKS[name]().double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    network(torch.randn(50, 6, dtype=torch.float64))  # running moments
    network.eval()
    x = torch.randn(20, 6, dtype=torch.float64)
    y, layers = x, folded(network)
    for layer in layers:
        y = layer(y)
    torch.testing.assert_close(y, network(x))
    assert len(layers) == sum(isinstance(module, nn.Linear) for module in network.modules())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 3)), "a ReLU is no linear layer, batch norm, tanh"),
        (nn.Sequential(OneHot([2] * 3), nn.Linear(6, 3)), "a OneHot is no linear layer"),
        (nn.Sequential(nn.Linear(6, 3), nn.Tanh()), "must end in a linear layer"),
        (nn.Sequential(Affine(torch.zeros(6))), "must end in a linear layer"),
        (Affine(torch.zeros(6), least=torch.zeros(6)), "a Affine is no linear layer"),
    ],
)
def test_other_networks_are_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        folded(network)
