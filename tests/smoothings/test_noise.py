"""Draws as functions of uniform numbers that are given."""

import jaxtyping
import pytest
import torch
from registry import every_concrete, every_deterministic, every_smoothing, every_spike
from torch import Tensor, nn
from torch.distributions import Distribution

from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError
from dvaepp.models.encoders import HierarchicalEncoder, NormalEncoder
from dvaepp.smoothings.base import Smoothing

SMOOTHINGS: dict[str, Smoothing] = {
    **{f"overlapping-{name}": case.smoothing for name, case in every_smoothing.items()},
    **{f"spike-{name}": case.smoothing for name, case in every_spike.items()},
    **{name: case.smoothing for name, case in every_deterministic.items()},
    **{f"concrete-{name}": smoothing for name, smoothing in every_concrete.items()},
}
LOGITS = torch.tensor([[-4.0, 0.0, 1.5], [0.3, -0.7, 6.0]], dtype=torch.float64)


@pytest.mark.parametrize("name", SMOOTHINGS)
def test_a_draw_is_the_same_function_of_given_numbers_as_of_drawn_ones(name: str) -> None:
    q = SMOOTHINGS[name](LOGITS)
    for shape in ((), (4,), (2, 3)):
        draw = q.rsample if q.has_rsample else q.sample
        torch.manual_seed(1)
        drawn = draw(shape)
        torch.manual_seed(1)
        noise = torch.rand(2, *shape, *LOGITS.shape, dtype=torch.float64)
        torch.manual_seed(2)
        assert torch.equal(draw(shape, noise), drawn)
        assert torch.equal(q.sample(shape, noise), drawn)
        if not shape:
            assert torch.equal(q.relaxed_sample(noise), drawn)


@pytest.mark.parametrize("name", SMOOTHINGS)
def test_a_draw_of_given_numbers_is_mapped_and_so_is_its_gradient(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Distribution, "_validate_args", False)
    smoothing, noise = SMOOTHINGS[name], torch.rand(5, 2, *LOGITS.shape, dtype=torch.float64)
    shifted = LOGITS + torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None, None]

    def draw(logits: Tensor, uniform: Tensor) -> Tensor:
        return smoothing(logits).relaxed_sample(uniform)

    def total(logits: Tensor, uniform: Tensor) -> Tensor:
        return draw(logits, uniform).sum()

    mapped, one_by_one = torch.func.vmap(draw)(shifted, noise), zip(shifted, noise, strict=True)
    torch.testing.assert_close(mapped, torch.stack([draw(*each) for each in one_by_one]), rtol=1e-12, atol=1e-12)
    slopes = torch.func.vmap(torch.func.grad(total))(shifted, noise)
    leaf = shifted.clone().requires_grad_()
    drawn = torch.stack([draw(*each) for each in zip(leaf, noise, strict=True)])
    assert drawn.requires_grad == smoothing(LOGITS).has_rsample
    if drawn.requires_grad:
        torch.testing.assert_close(slopes, torch.autograd.grad(drawn.sum(), leaf)[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["overlapping-exponential-5", "spike-exponential-5", "hard", "gumbel-1", "concrete-0.5"]
)
def test_noise_of_another_shape_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no shape checks
    q = SMOOTHINGS[name](LOGITS)
    for shape in ((2, 3), (1, 2, 3), (3, 2, 3), (2, 4, 2, 3), (2, 2, 4)):
        with pytest.raises(InputError, match=r"noise must be uniform numbers of shape \(2, 2, 3\), not"):
            q.relaxed_sample(torch.rand(shape, dtype=torch.float64))


def test_noise_that_is_no_tensor_of_the_models_dtype_is_refused_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    encoder, normal = HierarchicalEncoder(nn.Linear(3, 2)), NormalEncoder(nn.Linear(3, 4))
    machine, x, hard = BoltzmannMachine(1, 1), torch.zeros(5, 3), SMOOTHINGS["hard"]
    uniform = torch.rand(2, 5, 2)
    for draw in (
        hard(torch.zeros(5, 2)).sample,
        lambda noise: encoder(x, hard, 1, noise),
        lambda noise: normal(x, hard, 1, noise),
        lambda noise: machine.gibbs(torch.zeros(5, 2), 2, noise=noise),
    ):
        by_name = (lambda noise, draw=draw: draw(noise=noise)) if hasattr(draw, "__self__") else draw
        by_name(uniform)
        for wrong in (uniform.numpy(), uniform.tolist(), uniform.double(), 3, torch.tensor(0.5)):
            with pytest.raises(InputError, match="noise must be (a tensor of )?uniform numbers"):
                by_name(wrong)
