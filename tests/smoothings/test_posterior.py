"""One pass through the inference model: what its quantities are, against enumeration of the bits."""

import pytest
import torch
from registry import (
    PIXELS,
    all_states,
    every_smoothing,
    exact_log_q,
    exponential,
    images,
    log_bernoulli,
    network,
    randomise,
    tiny_model,
)
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.models.encoders import HierarchicalEncoder
from dvaepp.priors.directed import BernoulliPrior
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.posterior import Posterior, bernoulli_entropy

GROUPS = (2, 3, 1)


def encoder(groups: tuple[int, ...] = GROUPS) -> HierarchicalEncoder:
    return tiny_model(BernoulliPrior(sum(groups)).double(), groups).encoder


def test_entropy_of_a_bit_is_minus_p_log_p() -> None:
    logits = torch.linspace(-30, 30, 121, dtype=torch.float64).requires_grad_()
    p = torch.stack([torch.sigmoid(logits), torch.sigmoid(-logits)])
    exact = -(p * p.log()).sum(0)
    torch.testing.assert_close(bernoulli_entropy(logits), exact, rtol=1e-9, atol=1e-15)
    slope, exact_slope = (
        torch.autograd.grad(h.sum(), logits, retain_graph=True)[0] for h in (bernoulli_entropy(logits), exact)
    )
    torch.testing.assert_close(slope, exact_slope, rtol=1e-7, atol=1e-14)


def test_entropy_is_finite_at_extreme_logits_and_log_2_at_zero() -> None:
    logits = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], requires_grad=True)
    entropy = bernoulli_entropy(logits)
    assert entropy.tolist() == pytest.approx([0, 0, 0.6931472, 0, 0])
    assert torch.autograd.grad(entropy.sum(), logits)[0].tolist() == pytest.approx([0] * 5)


def test_every_level_sees_x_and_the_zeta_of_earlier_groups_only() -> None:
    model, x = encoder(), images()
    q = model(x, every_smoothing["exponential-5"].smoothing)
    seen, bits = x, 0
    for level, group, zeta in zip(model.levels, q.groups, q.zetas, strict=True):
        torch.testing.assert_close(group.logits, level(seen))
        torch.testing.assert_close(q.mu[:, bits : bits + zeta.shape[-1]], torch.sigmoid(level(seen)))
        seen, bits = torch.cat([seen, zeta], -1), bits + zeta.shape[-1]
    torch.testing.assert_close(q.zeta, seen[:, PIXELS:])
    assert q.sizes == GROUPS
    assert q.slices == (slice(0, 2), slice(2, 5), slice(5, 6))


def test_nu_is_the_posterior_of_each_bit_given_its_zeta() -> None:
    case = exponential(5.0)
    q = encoder()(images(), case.smoothing)
    mu, zeta = q.mu.detach(), q.zeta.detach()
    joint1, joint0 = mu * case.pdf(zeta, 1), (1 - mu) * case.pdf(zeta, 0)
    torch.testing.assert_close(q.nu.detach(), joint1 / (joint1 + joint0), rtol=1e-9, atol=1e-12)


def test_log_prob_sums_the_bits_out_of_the_joint_density() -> None:
    case = exponential(5.0)
    q = encoder()(images(), case.smoothing)
    zeta = q.zeta.detach()
    z = all_states(sum(GROUPS))[:, None, :]
    log_joint = log_bernoulli(q.logits.expand(len(z), -1, -1), z.expand(-1, 2, -1))
    log_r = torch.where(z > 0.5, case.pdf(zeta, 1), case.pdf(zeta, 0)).log().sum(-1)
    torch.testing.assert_close(q.log_prob(), torch.logsumexp(log_joint + log_r, 0), rtol=1e-9, atol=1e-9)


def test_in_the_binary_limit_log_prob_is_that_of_the_state_drawn() -> None:
    model = tiny_model(BernoulliPrior(6).double(), GROUPS, hard)
    x = images().repeat_interleave(50, 0)
    q = model.encoder(x, hard)
    index = (q.zeta @ (2.0 ** torch.arange(5, -1, -1, dtype=torch.float64))).long()
    exact = exact_log_q(model, x)[torch.arange(len(x)), index]
    torch.testing.assert_close(q.log_prob(), exact, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(q.nu, q.zeta, rtol=0, atol=0)
    assert not q.reparameterised
    assert not q.zeta.requires_grad


def test_entropy_sums_over_bits_and_groups() -> None:
    q = encoder()(images(), exponential(5.0).smoothing)
    exact = torch.zeros(2, dtype=torch.float64)
    for group in q.groups:
        z = all_states(group.logits.shape[-1])
        log_q = log_bernoulli(group.logits[:, None, :].expand(-1, len(z), -1), z.expand(2, -1, -1))
        exact = exact - (log_q.exp() * log_q).sum(1)
    assert q.entropy().shape == (2,)
    torch.testing.assert_close(q.entropy(), exact, rtol=1e-9, atol=1e-9)


def test_leading_dimensions_pass_through() -> None:
    smoothing = exponential(5.0).smoothing
    logits = torch.randn(3, 4, 6)
    groups = (smoothing(logits[..., :2]), smoothing(logits[..., 2:]))
    q = Posterior(groups, tuple(g.rsample() for g in groups))
    assert q.zeta.shape == q.mu.shape == q.nu.shape == (3, 4, 6)
    assert q.entropy().shape == q.log_prob().shape == (3, 4)


def gradient_norms(value: Tensor, levels: torch.nn.ModuleList) -> list[float]:
    return [
        sum(0.0 if g is None else float(g.abs().sum()) for g in grads)
        for grads in (
            torch.autograd.grad(value, list(level.parameters()), retain_graph=True, allow_unused=True)
            for level in levels
        )
    ]


def test_gradients_flow_through_zeta_to_earlier_levels_only() -> None:
    model = encoder()
    q = model(images(), exponential(5.0).smoothing)
    first, second, third = gradient_norms(q.groups[1].logits.sum(), model.levels)
    assert first > 0
    assert second > 0
    assert third == 0


def test_an_encoder_needs_a_level() -> None:
    with pytest.raises(InputError, match="at least one level"):
        HierarchicalEncoder()


def test_one_level_is_mean_field() -> None:
    level = randomise(network(PIXELS, 3))
    q = HierarchicalEncoder(level)(images(), exponential(5.0).smoothing)
    torch.testing.assert_close(q.logits, level(images()))
    assert q.slices == (slice(0, 3),)
