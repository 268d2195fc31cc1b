"""Muon against the singular value decomposition, and which parameters each optimiser takes."""

import math

import pytest
import torch
from torch import nn

from dvaepp.errors import InputError
from dvaepp.experiments import catalogue
from dvaepp.experiments.construction import DataForm
from dvaepp.optimisation import Muon, optimizers, orthogonal

torch.manual_seed(0)


def matrix(rows: int, columns: int, smallest: float = 0.05) -> torch.Tensor:
    """Random, with singular values from `smallest` to 1."""
    u, _, v = torch.linalg.svd(torch.randn(rows, columns, dtype=torch.float64), full_matrices=False)
    return u * torch.linspace(smallest, 1, min(rows, columns), dtype=torch.float64) @ v


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (24, 216), (1, 6), (6, 1)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_singular_values_come_near_one_and_singular_vectors_stay(shape: tuple[int, int], scale: float) -> None:
    g = matrix(*shape)
    u, _, v = torch.linalg.svd(g, full_matrices=False)
    inner = u.mT @ orthogonal(scale * g) @ v.mT
    values = inner.diagonal()
    assert 0.68 < values.min() <= values.max() < 1.14
    torch.testing.assert_close(inner, values.diag(), rtol=0, atol=1e-9)


def test_it_works_in_float32_on_stacks_and_leaves_zero_alone() -> None:
    stack = torch.stack([matrix(6, 10).float(), torch.zeros(6, 10), 1e-36 * matrix(6, 10).float()])
    made = orthogonal(stack)
    assert torch.equal(made[1], torch.zeros(6, 10))
    for one, alone in zip(made, stack, strict=True):
        torch.testing.assert_close(one, orthogonal(alone))
    assert torch.linalg.svdvals(made[2]).min() > 0.68


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (6, 2, 3, 3), (2, 6, 1, 1)])
def test_a_step_goes_down_as_far_in_every_direction(shape: tuple[int, ...]) -> None:
    gradient = matrix(shape[0], math.prod(shape[1:])).view(shape)
    weights = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    before = weights.detach().clone()
    weights.grad = gradient.clone()
    Muon([weights], lr=0.01).step()
    u, _, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    lengths = (u.mT @ (before - weights.detach()).flatten(1) @ v.mT).diagonal() / 0.01
    widening = max(1, shape[0] / math.prod(shape[1:])) ** 0.5
    assert 0.68 * widening < lengths.min() <= lengths.max() < 1.14 * widening


def test_momentum_averages_gradients_and_looks_ahead() -> None:
    first, second = matrix(3, 4), matrix(3, 4)
    weights = nn.Parameter(torch.zeros(3, 4, dtype=torch.float64))
    optimizer = Muon([weights], lr=1.0, momentum=0.5)
    for gradient in (first, second):
        before = weights.detach().clone()
        weights.grad = gradient
        optimizer.step()
    # mean after two steps: first / 4 + second / 2; ahead of it: half of that and half of the second gradient
    torch.testing.assert_close(before - weights.detach(), orthogonal(first / 8 + second * 3 / 4))


def test_weight_decay_is_the_l2_term_in_the_loss() -> None:
    moved = []
    for decay in (0.0, 0.3):
        torch.manual_seed(1)
        weights = nn.Parameter(torch.randn(4, 3, dtype=torch.float64))
        loss = (weights.sin() * torch.randn(4, 3, dtype=torch.float64)).sum() + (0.3 - decay) / 2 * (weights**2).sum()
        loss.backward()
        Muon([weights], weight_decay=decay).step()
        moved.append(weights.detach())
    torch.testing.assert_close(*moved)


def test_matrices_of_one_shape_do_not_mix_and_those_without_gradient_stay() -> None:
    torch.manual_seed(2)
    together = [nn.Parameter(torch.randn(4, 3)) for _ in range(3)]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    for a, b in list(zip(together, alone, strict=True))[:2]:
        a.grad = torch.randn(4, 3)
        b.grad = a.grad.clone()
    Muon(together).step()
    for p in alone:
        Muon([p]).step()
    torch.testing.assert_close(together, alone)
    assert not torch.equal(together[0], together[1])


def test_biases_are_refused() -> None:
    with pytest.raises(InputError, match=r"Muon takes matrices and convolutions, not a tensor \(3,\)"):
        Muon([nn.Parameter(torch.zeros(3))])


@pytest.mark.parametrize("name", ["table-3/mnist-static/rbm-normal", "quick/rbm", "quick/zephyr"])
def test_layers_go_to_muon_and_all_the_rest_to_adam(name: str) -> None:
    model, _ = catalogue.find(name, "tiny").build(DataForm((28, 28), torch.full((784,), 0.1), torch.ones(784)))
    made = optimizers(model, 10.0, 0.1)
    taken = {kind: [id(p) for g in o.param_groups for p in g["params"]] for kind, o in made.items()}
    assert sorted(taken["optimizer"] + taken["muon"]) == sorted(id(p) for p in model.parameters())
    for parameter_name, parameter in model.named_parameters():
        in_layer = parameter_name.endswith(".weight") and parameter.ndim in (2, 4)
        assert (id(parameter) in taken["muon"]) == in_layer, parameter_name
    assert not any(id(p) in taken["muon"] for p in model.prior.parameters())
    assert {g["weight_decay"] for g in made["muon"].param_groups} == {0.1}
    assert list(optimizers(model, None, 0.1)) == ["optimizer"]
