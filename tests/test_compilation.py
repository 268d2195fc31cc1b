"""Compiled cells: which calls are compiled, and what is refused. That compilation is right is torch's own affair."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.networks import compilation
from dvaepp.networks.compilation import compile_cells
from dvaepp.networks.residual import ResidualCell


def test_cells_run_compiled_in_training_and_as_they_are_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []

    def compiler(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def compiled(x: Tensor) -> Tensor:
            calls.append(tuple(x.shape))
            return function(x)

        return compiled

    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(compilation.shutil, "which", lambda name: name)
    model = nn.Sequential(ResidualCell(2, 3), nn.Conv2d(3, 3, 1), ResidualCell(3, 3, 0.5))
    names, x = list(model.state_dict()), torch.randn(4, 2, 8, 8)
    expected = model.eval()(x)
    compile_cells(model)
    assert torch.equal(model(x), expected)
    assert calls == []
    model.train()(x).sum().backward()
    assert calls == [(4, 2, 8, 8), (4, 3, 8, 8)]
    assert list(model.state_dict()) == names


def test_a_machine_without_a_compiler_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"training\.compile needs a C\+\+ compiler"):
        compile_cells(ResidualCell(2, 2))
