import math

import pytest
import torch
from registry import exact_log_likelihood
from torch import nn

import dvaepp
from dvaepp.errors import InputError
from dvaepp.evaluation import score, unit_variances


def model(chains: bool = False, bits: int = 3) -> dvaepp.FeedForwardVAE:
    torch.manual_seed(1)
    machine = dvaepp.BoltzmannMachine(bits, bits)
    for parameter in machine.parameters():
        nn.init.normal_(parameter, std=0.7)
    prior = dvaepp.BoltzmannPrior(machine, dvaepp.PersistentChains(50, 2), exact_bits=0 if chains else 16)
    encoder = dvaepp.HierarchicalEncoder(dvaepp.dense(4, bits, (5,)), dvaepp.dense(4 + bits, bits, (5,)))
    decoder = dvaepp.dense(2 * bits, 4, (5,), batch_norm=True)
    return dvaepp.FeedForwardVAE(encoder, prior, decoder, dvaepp.OverlappingExponential(8.0))


def examples(count: int) -> torch.Tensor:
    return torch.randint(0, 2, (count, 4)).float()


def test_scores_approach_the_enumerated_likelihood() -> None:
    vae, x = model().eval().double(), examples(30).double()
    vae.prior.estimate_log_partition()
    scores = score(vae, x, 4000)
    exact = exact_log_likelihood(vae, x)
    e = scores.examples
    # The delta method: log of a mean of K weights has standard error sqrt(1/ESS - 1/K).
    error = (1 / e.effective_sample_size - 1 / 4000).sqrt()
    assert bool(((e.log_likelihood - exact).abs() < 5 * error + 1e-4).all())
    assert bool((e.elbo <= e.log_likelihood).all())
    assert scores.numbers()["nll"] == pytest.approx(-float(e.log_likelihood.mean()))


def test_pieces_of_any_size_give_the_same_likelihood_within_noise_and_the_same_seed_the_same() -> None:
    vae, x = model().eval(), examples(20)
    vae.prior.estimate_log_partition()
    whole, pieces, again = (score(vae, x, 2000, megabytes=mb, seed=s) for mb, s in ((64.0, 1), (0.05, 1), (64.0, 1)))
    assert torch.equal(whole.examples.log_likelihood, again.examples.log_likelihood)
    difference = whole.examples.log_likelihood - pieces.examples.log_likelihood
    error = (2 / whole.examples.effective_sample_size).sqrt()
    assert bool((difference.abs() < 5 * error).all())
    assert not torch.equal(whole.examples.log_likelihood, pieces.examples.log_likelihood)


def test_the_nll_moves_with_both_ends_of_log_z() -> None:
    vae, x = model(chains=True).eval(), examples(10)
    log_z = vae.prior.estimate_log_partition(temperatures=20, chains=50)
    numbers = score(vae, x, 10).numbers()
    spread = numbers["nll_at_high_log_z"] - numbers["nll_at_low_log_z"]
    assert log_z.standard_error > 0
    assert spread == pytest.approx(4 * log_z.standard_error)


def test_a_likelihood_without_log_z_is_refused() -> None:
    with pytest.raises(InputError, match="needs log Z"):
        score(model(chains=True), examples(3), 10)
    with pytest.raises(InputError, match="samples must be at least 1"):
        score(model(), examples(3), 0)


def test_scoring_leaves_mode_random_state_and_statistics_alone() -> None:
    vae, x = model().train(), examples(10)
    vae.prior.estimate_log_partition()
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    state = torch.get_rng_state()
    score(vae, x, 5)
    assert vae.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in vae.state_dict().items())


def test_noise_of_earlier_groups_is_no_activity() -> None:
    draws = torch.rand(20_000, 2, 2)
    signal = torch.rand(20_000, 1).repeat(1, 2)
    mu = torch.stack([draws[..., 0], 0.5 * signal + 0.5 * draws[..., 1]], -1)
    variances = unit_variances(mu)
    sd = 1 / 12 / math.sqrt(20_000)
    assert abs(float(variances[0])) < 5 * sd
    assert abs(float(variances[1]) - 0.25 / 12) < 5 * sd
