"""Compiled cells: which calls are compiled, and what is refused. That compiled is right is torch's own affair."""

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dvaepp.errors import InputError
from dvaepp.networks import compiled
from dvaepp.networks.compiled import compile_cells
from dvaepp.networks.residual import ResidualCell


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """The shapes that compiled cells are given; in place of torch.compile stands what only notes them.

    Shape checks are no code that torch could compile, and compiling takes a minute.
    """
    shapes: list[tuple[int, ...]] = []

    def compiler(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def compiled(*arguments: Any) -> Tensor:
            shapes.append(tuple(arguments[-1].shape))
            return function(*arguments)

        return compiled

    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: name)
    compiled._compiled.cache_clear()
    yield shapes
    compiled._compiled.cache_clear()


def network() -> nn.Sequential:
    return nn.Sequential(ResidualCell(2, 3), nn.Conv2d(3, 3, 1), ResidualCell(3, 3, 0.5))


def test_cells_run_compiled_in_training_and_as_they_are_in_evaluation(calls: list[tuple[int, ...]]) -> None:
    model = network()
    names, x = list(model.state_dict()), torch.randn(4, 2, 8, 8)
    expected = model.eval()(x)
    compile_cells(model)
    assert torch.equal(model(x), expected)
    assert calls == []
    model.train()(x).sum().backward()
    assert calls == [(4, 2, 8, 8), (4, 3, 8, 8)]
    assert list(model.state_dict()) == names


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "several": network,
    "one": lambda: ResidualCell(2, 2, squeeze_excite=False),
    "shared": lambda: nn.Sequential(nn.Conv2d(2, 2, 1), *[nn.Sequential(ResidualCell(2, 2))] * 2),
    "up": lambda: nn.Sequential(ResidualCell(2, 3, 2)).double(),
}
COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "of a copy": lambda model: copy.deepcopy(copy.deepcopy(model)),
    "average": lambda model: AveragedModel(model).module,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_of_a_compiled_model_runs_its_own_cells_and_leaves_the_original_alone(
    calls: list[tuple[int, ...]], network: Callable[[], nn.Module], copied: Callable[[nn.Module], nn.Module]
) -> None:
    original, plain, names = network(), network(), list(network().state_dict())
    compile_cells(original)
    other = copied(original)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.randn_like(parameter))
    plain.load_state_dict(other.state_dict())
    before = copy.deepcopy(original.state_dict())
    x = torch.randn(4, 2, 8, 8, dtype=next(plain.parameters()).dtype)
    for training in (False, True):
        found, expected = other.train(training)(x), plain.train(training)(x)
        assert torch.equal(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    for own, its in zip(other.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, its.grad)
    torch.testing.assert_close(other.state_dict(), plain.state_dict(), rtol=0, atol=0)  # batch norm's statistics too
    assert all(parameter.grad is None for parameter in original.parameters())
    torch.testing.assert_close(original.state_dict(), before, rtol=0, atol=0)
    assert list(other.state_dict()) == list(original.state_dict()) == names


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_made_before_training_goes_on_compiled_too(
    calls: list[tuple[int, ...]], copied: Callable[[nn.Module], nn.Module]
) -> None:
    original = network()
    compile_cells(original)
    other = copied(original)
    ran = []
    for cell in other.modules():
        if isinstance(cell, ResidualCell):
            cell.residual.register_forward_pre_hook(lambda module, inputs: ran.append(module))
    other.train()(torch.randn(4, 2, 8, 8))
    assert ran == [cell.residual for cell in other.modules() if isinstance(cell, ResidualCell)]
    assert calls == [(4, 2, 8, 8), (4, 3, 8, 8)]


def test_compiling_twice_is_compiling_once(calls: list[tuple[int, ...]]) -> None:
    model = network()
    for _ in range(2):
        compile_cells(model)
    model.train()(torch.randn(4, 2, 8, 8))
    assert calls == [(4, 2, 8, 8), (4, 3, 8, 8)]


def test_a_machine_without_a_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"training\.compile needs a C\+\+ compiler"):
        compile_cells(ResidualCell(2, 2))
