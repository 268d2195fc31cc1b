"""Muon against the singular value decomposition, and which parameters each optimiser takes."""

import inspect
import math

import pytest
import torch
from torch import nn

from dvaepp.errors import InputError
from dvaepp.likelihoods.base import DataSpec
from dvaepp.optimisers.adam import Adam
from dvaepp.optimisers.base import Optimiser
from dvaepp.optimisers.muon import Muon, MuonAndAdam, orthogonal
from dvaepp.recipes import catalogue

torch.manual_seed(0)


def matrix(rows: int, columns: int, smallest: float = 0.05) -> torch.Tensor:
    """Random, with singular values from `smallest` to 1."""
    u, _, v = torch.linalg.svd(torch.randn(rows, columns, dtype=torch.float64), full_matrices=False)
    return u * torch.linspace(smallest, 1, min(rows, columns), dtype=torch.float64) @ v


def quintic(values: torch.Tensor) -> torch.Tensor:
    """What five rounds do to singular values of Frobenius norm 1."""
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return values


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4), (24, 216), (1, 6), (6, 1)])
@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e12])
def test_singular_values_come_near_one_and_singular_vectors_stay(shape: tuple[int, int], scale: float) -> None:
    g = matrix(*shape)
    u, s, v = torch.linalg.svd(g, full_matrices=False)
    inner = u.mT @ orthogonal(scale * g) @ v.mT
    values = inner.diagonal()
    torch.testing.assert_close(inner, quintic(s / s.norm()).diag(), rtol=0, atol=1e-9)
    assert 0.68 < values.min() <= values.max() < 1.14


def test_singular_values_far_below_the_norm_end_where_the_docstring_says() -> None:
    ends = quintic(torch.logspace(-6, 0, 100_001, dtype=torch.float64))
    above = ends[torch.logspace(-6, 0, 100_001) >= 1 / 100]
    assert 0.68 < above.min() <= above.max() < 1.14
    assert 1.2 < ends.max() < 1.21


def test_it_works_in_float32_on_stacks_and_leaves_zero_alone() -> None:
    stack = torch.stack([matrix(6, 10).float(), torch.zeros(6, 10), 1e-6 * matrix(6, 10).float()])
    made = orthogonal(stack)
    assert torch.equal(made[1], torch.zeros(6, 10))
    for one, alone in zip(made, stack, strict=True):
        torch.testing.assert_close(one, orthogonal(alone))
    assert torch.linalg.svdvals(made[2]).min() > 0.68


@pytest.mark.parametrize("scale", [1e-45, 1e-30, 1e-12])
def test_what_is_only_rounding_moves_nothing(scale: float) -> None:
    assert orthogonal(torch.full((4, 6), scale)).abs().max() < 1e-2


def test_a_matrix_whose_gradients_stop_comes_to_rest() -> None:
    weights = nn.Parameter(torch.zeros(4, 6))
    optimizer = Muon([weights], lr=0.01)
    weights.grad = torch.randn(4, 6)
    optimizer.step()
    weights.grad = torch.zeros(4, 6)
    for _ in range(1000):
        optimizer.step()
    before = weights.detach().clone()
    optimizer.step()
    assert (weights.detach() - before).abs().max() < 1e-8


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (6, 2, 3, 3), (2, 6, 1, 1), (20, 2, 3, 3)])
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
    assert torch.equal(weights.grad, gradient)


def test_momentum_averages_gradients_and_looks_ahead() -> None:
    first, second = matrix(3, 4), matrix(3, 4)
    weights = nn.Parameter(torch.zeros(3, 4, dtype=torch.float64))
    optimizer = Muon([weights], lr=1.0, momentum=0.8)
    for gradient in (first, second):
        before = weights.detach().clone()
        weights.grad = gradient
        optimizer.step()
    # The mean after two steps is .16 first + .2 second; .8 of it and .2 of the second gradient are ahead of it.
    torch.testing.assert_close(before - weights.detach(), orthogonal(0.128 * first + 0.36 * second))


def test_groups_have_their_own_rates_and_a_closure_is_evaluated() -> None:
    slow, fast = (nn.Parameter(torch.zeros(3, 3)) for _ in range(2))

    def loss() -> torch.Tensor:
        total = (torch.eye(3) * (slow + fast)).sum()
        total.backward()
        return total

    optimizer = Muon([{"params": [slow]}, {"params": [fast], "lr": 0.5}], lr=0.1)
    assert float(optimizer.step(loss).detach()) == 0
    assert float(slow.detach().norm()) > 0
    torch.testing.assert_close(fast.detach(), 5 * slow.detach())


def test_matrices_of_one_shape_do_not_mix_and_those_without_gradient_stay() -> None:
    torch.manual_seed(2)
    together = [nn.Parameter(torch.randn(shape)) for shape in [(4, 3), (4, 3, 1, 1), (4, 3), (4, 3)]]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    for a, b in list(zip(together, alone, strict=True))[:3]:
        a.grad = torch.randn(a.shape)
        b.grad = a.grad.clone()
    Muon(together).step()
    for p in alone:
        Muon([p]).step()
    torch.testing.assert_close(together, alone)
    assert not torch.equal(together[0], together[2])


def test_biases_are_refused() -> None:
    with pytest.raises(InputError, match=r"Muon takes matrices and convolutions, not a tensor \(3,\)"):
        Muon([nn.Parameter(torch.zeros(3))])


@pytest.mark.parametrize("name", ["table-3/mnist-static/rbm-normal", "quick/rbm", "quick/zephyr"])
def test_layers_go_to_muon_and_all_the_rest_to_adam(name: str) -> None:
    model, _ = catalogue.find(name, "tiny").build(DataSpec((28, 28), torch.full((784,), 0.1), torch.ones(784)))
    made = MuonAndAdam()(model, 0.1)
    taken = {kind: [id(p) for g in o.param_groups for p in g["params"]] for kind, o in made.items()}
    assert sorted(taken["optimizer"] + taken["muon"]) == sorted(id(p) for p in model.parameters())
    for parameter_name, parameter in model.named_parameters():
        in_layer = parameter_name.endswith(".weight") and parameter.ndim in (2, 4)
        assert (id(parameter) in taken["muon"]) == in_layer, parameter_name
    assert not any(id(p) in taken["muon"] for p in model.prior.parameters())
    assert {(g["weight_decay"], g["momentum"]) for g in made["muon"].param_groups} == {(0.1, 0.95)}
    assert list(Adam()(model, 0.1)) == ["optimizer"]


@pytest.mark.parametrize("optimiser", [Adam(1e-2), Adam(1e-8, beta2=0.9), MuonAndAdam(3.0, 0.8, 1e-2)], ids=repr)
def test_rules_move_stacked_parameters_as_torchs_optimisers_move_each(optimiser: Optimiser) -> None:
    models = [nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(3, 4)).double() for _ in range(3)]
    rates, made = (0.01, 0.03, 0.2), [optimiser(model, l2=0.0) for model in models]
    stacks = {
        name: torch.stack([m.get_parameter(name).detach() for m in models]) for name, _ in models[0].named_parameters()
    }
    names = {id(p): name for name, p in models[0].named_parameters()}
    kinds = {names[id(p)]: kind for kind, each in made[0].items() for g in each.param_groups for p in g["params"]}
    kept = {
        name: {key: torch.zeros_like(stacks[name]) for key in optimiser.rules[kind].kept}
        for name, kind in kinds.items()
    }
    for step in range(1, 6):
        for model, each, rate in zip(models, made, rates, strict=True):
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimiser.set_rate(each, rate, step)
        for name, kind in kinds.items():
            rule = optimiser.rules[kind]
            numbers = torch.tensor([rule.rate(rate, step) for rate in rates], dtype=torch.float64)
            gradient = torch.stack([model.get_parameter(name).grad for model in models])
            broad = numbers.view(-1, *[1] * (gradient.ndim - 1))
            stacks[name] = rule(stacks[name], gradient, kept[name], broad)
        for each in made:
            for optimizer in each.values():
                optimizer.step()
    assert set(kinds.values()) == set(optimiser.rules)
    for name, stack in stacks.items():
        expected = torch.stack([model.get_parameter(name).detach() for model in models])
        torch.testing.assert_close(stack, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("forgotten")
def test_an_optimiser_without_rules_says_so() -> None:
    class Still(Optimiser):
        """Does nothing."""

        def __call__(self, model: nn.Module, l2: float) -> dict[str, torch.optim.Optimizer]:
            return {}

        def set_rate(self, optimizers: dict[str, torch.optim.Optimizer], rate: float, step: int) -> None: ...

        name = "still-optimiser"

    with pytest.raises(InputError, match="optimiser 'still-optimiser' has no rules"):
        _ = Still().rules


@pytest.mark.parametrize("beta2", [1.0, -0.1, True, "0.9", float("nan")])
def test_adams_beta2_lies_below_one(beta2: float) -> None:
    with pytest.raises(InputError, match="beta2 of Adam must lie in"):
        inspect.unwrap(Adam.__init__)(object.__new__(Adam), beta2=beta2)
