"""Every prior against tables of its states: value and gradient of KL and density, draws, and what may move."""

import math

import mpmath
import pytest
import torch
from registry import (
    PriorCase,
    all_states,
    assert_distributed,
    assert_mean,
    draw_states,
    every_prior,
    exponential,
    flat_gradient,
    forced_chains,
    log_bernoulli,
    log_boltzmann,
    log_prior,
    logistic,
    machine,
    network,
    pair_by_pair_energy,
    prior_bits,
    randomise,
)
from torch import Tensor

from dvaepp.boltzmann.enumeration import exact_log_partition
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.boltzmann.samplers import PersistentChains, Sampler, TemperedChains
from dvaepp.errors import InputError
from dvaepp.priors.boltzmann import BoltzmannPrior, expected_energy
from dvaepp.priors.directed import BernoulliPrior, DirectedPrior
from dvaepp.smoothings.binary import hard
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.smoothings.numerical import DensityPair
from dvaepp.smoothings.posterior import Posterior


@pytest.fixture(params=every_prior.values(), ids=every_prior.keys())
def case(request: pytest.FixtureRequest) -> PriorCase:
    return request.param


normalised = {name: case for name, case in every_prior.items() if name != "rbm-chains"}
exactly = pytest.mark.parametrize("case", normalised.values(), ids=normalised.keys())


class Encoding:
    """Logits of every group as networks of the earlier bits: q(z) = prod_k q(z_k | z_<k), a table of 64 states."""

    def __init__(self, groups: tuple[int, ...]) -> None:
        self.groups = groups
        ends = [sum(groups[:k]) for k in range(len(groups))]
        self.networks = [
            randomise(network(1 + end, size), 0.9, 7 + end) for end, size in zip(ends, groups, strict=True)
        ]

    @property
    def parameters(self) -> list[Tensor]:
        return [p for net in self.networks for p in net.parameters()]

    def at(self, z: Tensor) -> tuple[Posterior, Tensor]:
        """The posterior whose draw is z, in the binary limit, and log q(z)."""
        dists, zetas, log_q, start = [], [], torch.zeros(len(z), dtype=torch.float64), 0
        for net, size in zip(self.networks, self.groups, strict=True):
            logits = net(torch.cat([torch.ones_like(z[:, :1]), z[:, :start]], 1))
            dists.append(hard(logits))
            zetas.append(z[:, start : start + size])
            log_q = log_q + log_bernoulli(logits, zetas[-1])
            start += size
        return Posterior(tuple(dists), tuple(zetas)), log_q


# --- KL ---


@exactly
def test_kl_averages_to_the_divergence_of_the_tables_and_so_does_its_gradient(case: PriorCase) -> None:
    prior, encoding, z = case.make(), Encoding(case.groups), all_states(6)
    q, log_q = encoding.at(z)
    kl = prior.kl(q)
    assert kl.shape == (64,)
    averaged = (log_q.exp() * kl).sum()
    exact = (log_q.exp() * (log_q - log_prior(prior, z, z))).sum()
    torch.testing.assert_close(averaged, exact, rtol=1e-9, atol=1e-9)
    parameters = [*encoding.parameters, *prior.parameters()]
    torch.testing.assert_close(
        flat_gradient(averaged, parameters), flat_gradient(exact, parameters), rtol=1e-8, atol=1e-8
    )


def test_kl_of_a_large_machine_has_the_value_of_its_stored_log_z() -> None:
    case = every_prior["rbm-chains"]
    prior, encoding, z = case.make(), Encoding(case.groups), all_states(6)
    assert not prior.exact
    q, log_q = encoding.at(z)
    exact = (log_q.exp() * (log_q - log_prior(prior, z, z))).sum()
    torch.testing.assert_close((log_q.exp() * prior.kl(q)).sum(), exact, rtol=1e-9, atol=1e-9)
    by_encoder, exact_by_encoder = (
        flat_gradient(value, encoding.parameters) for value in ((log_q.exp() * prior.kl(q)).sum(), exact)
    )
    torch.testing.assert_close(by_encoder, exact_by_encoder, rtol=1e-8, atol=1e-8)


def test_kl_terms_sum_to_kl_one_a_group_or_one_in_all(case: PriorCase) -> None:
    prior = case.make()
    q, _ = Encoding(case.groups).at(all_states(6))
    terms = prior.kl_terms(q)
    assert terms.shape == (64, 1 if isinstance(prior, BoltzmannPrior) else len(case.groups))
    torch.testing.assert_close(terms.sum(-1), prior.kl(q))


@pytest.mark.parametrize("name", ["directed-2", "directed-3"])
def test_each_kl_term_is_the_divergence_of_its_group(name: str) -> None:
    case = every_prior[name]
    prior, z = case.make(), all_states(6)
    q, _ = Encoding(case.groups).at(z)
    terms, start = prior.kl_terms(q), 0
    for k, size in enumerate(case.groups):
        group = slice(start, start + size)
        p_logits = prior.first.bias.expand(64, -1) if k == 0 else prior.networks[k - 1](z[:, :start])
        states = all_states(size)[:, None, :].expand(-1, 64, -1)
        log_q, log_p = log_bernoulli(q.logits[:, group], states), log_bernoulli(p_logits, states)
        torch.testing.assert_close(terms[:, k], (log_q.exp() * (log_q - log_p)).sum(0), rtol=1e-9, atol=1e-9)
        start += size


@pytest.mark.parametrize("name", ["bernoulli", "rbm-1-group"])
def test_kl_of_one_group_needs_no_draw_and_vanishes_at_the_prior(name: str) -> None:
    case = every_prior[name]
    prior = case.make()
    smoothing = exponential(6.0).smoothing
    logits = torch.randn(5, 6, dtype=torch.float64)
    draws = [Posterior((smoothing(logits),), (smoothing(logits).rsample(),)) for _ in range(2)]
    torch.testing.assert_close(prior.kl(draws[0]), prior.kl(draws[1]))
    if isinstance(prior, BernoulliPrior):
        q = smoothing(prior.bias.expand(1, -1))
        torch.testing.assert_close(prior.kl(Posterior((q,), (q.rsample(),))), torch.zeros(1, dtype=torch.float64))


def test_kl_is_never_negative_for_one_group_even_in_float32_at_extremes() -> None:
    logits = torch.tensor([-60.0, -20.0, -1.0, 0.0, 1.0, 20.0, 60.0])
    pairs = torch.cartesian_prod(logits, logits)
    smoothing = exponential(40.0).smoothing
    q = smoothing(pairs[:, :1])
    for value in logits:
        prior = BernoulliPrior(1)
        prior.bias.data.fill_(float(value))
        kl = prior.kl(Posterior((q,), (q.rsample(),))).detach()
        assert bool(kl.isfinite().all())
        assert float(kl.min()) > -1e-5


# --- density ---


def test_log_prob_with_hard_is_the_table_value_and_gradient(case: PriorCase) -> None:
    prior, z = case.make(), all_states(6)
    found, exact = prior.log_prob(z, hard), log_prior(prior, z, z)
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.exp().sum(), torch.ones((), dtype=torch.float64), rtol=0, atol=1e-8)
    if getattr(prior, "exact", True):
        weight = torch.randn(64, dtype=torch.float64)
        gradients = [flat_gradient((weight * v).sum(), list(prior.parameters())) for v in (found, exact)]
        torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-8)


@exactly
@pytest.mark.parametrize("soft", [exponential(6.0), logistic(4.0)], ids=["exponential", "logistic"])
def test_log_prob_with_a_smoothing_sums_the_bits_out(case: PriorCase, soft) -> None:
    prior, z = case.make(), all_states(6)
    zeta = torch.rand(7, 6, dtype=torch.float64)
    at = zeta[:, None, :].expand(-1, 64, -1)
    log_r = torch.where(z > 0.5, soft.pdf(at, 1), soft.pdf(at, 0)).log().sum(-1)
    exact = torch.logsumexp(log_prior(prior, z.expand(7, -1, -1), at) + log_r, 1)
    found = prior.log_prob(zeta, soft.smoothing)
    assert prior.has_density(soft.smoothing)
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-8)
    parameters = list(prior.parameters())
    gradients = [flat_gradient((v * torch.arange(7)).sum(), parameters) for v in (found, exact)]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-7)


@exactly
def test_log_prob_differentiates_in_zeta(case: PriorCase) -> None:
    prior, soft = case.make(), exponential(6.0).smoothing
    zeta = torch.rand(2, 6, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(prior.log_prob(zeta, soft).sum(), zeta)[0]
    steps = 1e-5 * torch.eye(6, dtype=torch.float64)
    with torch.no_grad():
        slopes = [(prior.log_prob(zeta + e, soft) - prior.log_prob(zeta - e, soft)) / 2e-5 for e in steps]
    torch.testing.assert_close(gradient, torch.stack(slopes, 1), rtol=1e-4, atol=1e-4)


def test_a_large_machine_has_no_density_but_in_the_binary_limit() -> None:
    prior, soft = every_prior["rbm-chains"].make(), exponential(6.0).smoothing
    assert not prior.has_density(soft)
    assert prior.has_density(hard)
    with pytest.raises(InputError, match="joint_elbo"):
        prior.log_prob(all_states(6), soft)


# --- small divergences ---


def bernoulli_divergences(q: Tensor, p: Tensor) -> Tensor:
    """KL of bits by their logits, from probabilities of 80 digits."""
    found = []
    with mpmath.workdps(80):
        for pair in zip(q.tolist(), p.tolist(), strict=True):
            on, off = ([1 / (1 + mpmath.exp(sign * logit)) for logit in pair] for sign in (-1, 1))
            found.append(float(sum(a * mpmath.log(a / b) for a, b in (on, off))))
    return torch.tensor(found, dtype=torch.float64)


def bit_by_bit(q: Tensor, p: Tensor) -> Tensor:
    """The prior's KL of bits with these logits, each a group of its own."""
    prior = BernoulliPrior(len(p)).to(p.dtype)
    prior.bias = torch.nn.Parameter(p)
    return prior.kl_terms(Posterior(tuple(hard(logit) for logit in q[None].split(1, 1)), tuple(q[None].split(1, 1))))[0]


LOGITS = torch.tensor([-60.0, -30.0, -15.0, -8.0, -3.0, -0.7, 0.0, 0.3, 2.0, 5.0, 10.0, 20.0, 60.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_divergence_of_equal_bits_is_nothing(dtype: torch.dtype) -> None:
    logits = torch.cat([LOGITS.to(dtype), torch.linspace(-60, 60, 481, dtype=dtype)]).requires_grad_()
    kl = bit_by_bit(logits, logits.detach())
    assert not kl.any()
    assert float(torch.autograd.grad(kl.sum(), logits)[0].abs().max()) <= 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("apart", [1e-5, 1e-3, 0.1, 0.9, 1.1, 5.0])
def test_the_divergence_of_nearly_equal_bits_is_exact_and_not_negative(apart: float, dtype: torch.dtype) -> None:
    q = torch.cat([LOGITS, LOGITS]).to(dtype)
    p = torch.cat([LOGITS.to(dtype) + apart, LOGITS.to(dtype) - apart])
    kl = bit_by_bit(q, p).detach().double()
    exact = bernoulli_divergences(q, p)
    assert bool((kl >= 0).all())
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(kl, exact, rtol=20 * eps * (1 + 1 / apart), atol=1e-44)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_divergence_of_any_bits_and_its_slopes_are_exact(dtype: torch.dtype) -> None:
    q, p = (each.to(dtype).requires_grad_() for each in torch.cartesian_prod(LOGITS, LOGITS.flip(0) + 0.25).unbind(1))
    prior = BernoulliPrior(len(p)).to(dtype)
    prior.bias = torch.nn.Parameter(p.detach())
    kl = prior.kl_terms(Posterior((hard(q[None]),), (q[None].detach(),))).sum()
    each = bit_by_bit(q, p.detach()).detach().double()
    exact = bernoulli_divergences(q, p)
    eps = torch.finfo(dtype).eps
    # torch's softplus is linear beyond 20: up to 2e-9
    torch.testing.assert_close(each, exact, rtol=max(100 * eps, 1e-9), atol=1e-44)
    by_q, by_p = torch.autograd.grad(kl, [q, prior.bias])
    wide_q, wide_p = q.detach().double(), p.detach().double()
    slope_q = torch.sigmoid(wide_q) * torch.sigmoid(-wide_q) * (wide_q - wide_p)
    torch.testing.assert_close(by_q.double(), slope_q, rtol=1e4 * eps, atol=eps)
    torch.testing.assert_close(
        by_p.double(), torch.sigmoid(wide_p) - torch.sigmoid(wide_q), rtol=0, atol=max(4 * eps, 3e-9)
    )


@pytest.mark.parametrize("sampler", [PersistentChains(500, 1), TemperedChains(500, 1, 3)], ids=["gibbs", "tempering"])
def test_the_gradient_of_the_kl_from_chains_at_equilibrium_is_the_enumerated_one(sampler: Sampler) -> None:
    table = machine(3, 3, sd=1.0)
    exact, prior = BoltzmannPrior(table), BoltzmannPrior(table, sampler, exact_bits=0).double()
    prior.log_partition = exact.estimate_log_partition()
    q, _ = Encoding((3, 3)).at(all_states(6))
    betas = (1.0,) if isinstance(sampler, PersistentChains) else (0.0, 0.5, 1.0)
    draws = [draw_states(log_boltzmann(table, beta), 50_000).split(500) for beta in betas]
    parameters, gradients = list(table.parameters()), []
    for states in zip(*draws, strict=True):
        prior.states = torch.stack(states) if len(betas) > 1 else states[0]
        gradients.append(flat_gradient(prior.kl(q).mean(), parameters))
    assert_mean(torch.stack(gradients), flat_gradient(exact.kl(q).mean(), parameters))


# --- draws ---


def test_samples_have_the_moments_of_the_table(case: PriorCase) -> None:
    prior, z = case.make(), all_states(6)
    if isinstance(prior, BoltzmannPrior) and not prior.exact:
        for _ in range(10):
            prior.refresh()
        prior.states = prior.machine.gibbs(prior.states.repeat(100, 1), 20)
    sample = prior.sample(40_000)
    assert sample.shape == (40_000, 6)
    assert set(sample.unique().tolist()) == {0.0, 1.0}
    assert not sample.requires_grad
    p = log_prior(prior, z, z).detach().exp()
    assert_mean(sample, p @ z)
    pairs = torch.einsum("ni,nj->nij", sample, sample)
    assert_mean(pairs.flatten(1), torch.einsum("s,si,sj->ij", p, z, z).flatten())


def test_samples_leave_the_chains_that_they_begin_at() -> None:
    prior = forced_chains(3, 3)
    prior.states.zero_()
    assert_distributed(prior.sample(20_000), log_boltzmann(prior.machine))


@pytest.mark.parametrize("blocks", [(3, 2), (2, 3), (1, 3, 2), (5,), (1, 1, 1)], ids=str)
def test_exact_samples_are_distributed_as_the_machine(blocks: tuple[int, ...]) -> None:
    prior = BoltzmannPrior(machine(*blocks, sd=1.2))
    z = all_states(prior_bits(prior))
    sample = prior.sample(40_000)
    is_state = (sample[:, None, :] == z).all(-1).double()
    p = log_prior(prior, z, z).detach().exp()
    worst = (is_state.mean(0) - p).abs() / (p * (1 - p) / len(sample)).sqrt().clamp(min=1 / len(sample))
    assert float(worst.max()) < 5


# --- chains ---


def chain_prior() -> BoltzmannPrior:
    prior: BoltzmannPrior = every_prior["rbm-chains"].make()
    return prior


def test_only_refresh_moves_the_states() -> None:
    prior = chain_prior()
    q, _ = Encoding((3, 3)).at(all_states(6))
    before = prior.states.clone()
    prior.kl(q).sum().backward()
    prior.log_prob(all_states(6), hard)
    prior.sample(50)
    prior.log_z()
    prior.estimate_log_partition(temperatures=3, chains=10)
    assert torch.equal(prior.states, before)
    prior.refresh()
    assert not torch.equal(prior.states, before)
    assert prior.states.shape == before.shape == (200, 6)
    assert set(prior.states.unique().tolist()) <= {0.0, 1.0}


def test_states_are_a_buffer_that_is_saved_and_replaced_in_place() -> None:
    prior = chain_prior()
    assert "states" in prior.state_dict()
    pointer = prior.states.data_ptr()
    prior.refresh()
    assert prior.states.data_ptr() == pointer


def test_refreshed_chains_reach_the_machine_s_distribution() -> None:
    prior = BoltzmannPrior(machine(3, 3), PersistentChains(5000, 4), exact_bits=0).double()
    for _ in range(10):
        prior.refresh()
    p, z = log_prior(prior, all_states(6), all_states(6)).detach().exp(), all_states(6)
    assert_mean(prior.states, p @ z)


@pytest.mark.parametrize("blocks", [(3, 3), (2, 3, 1), (1, 1, 1, 1)], ids=str)
def test_chains_at_equilibrium_give_the_gradient_of_log_z(blocks: tuple[int, ...]) -> None:
    prior = BoltzmannPrior(machine(*blocks, sd=1.0), PersistentChains(10, 1), exact_bits=0).double()
    z = all_states(sum(blocks))
    index = torch.multinomial(log_prior(prior, z, z).detach().exp(), 100_000, replacement=True)
    parameters = list(prior.parameters())
    rows = []
    for states in z[index].split(500):
        prior.states = states
        rows.append(flat_gradient(prior.log_z(), parameters))
    exact = flat_gradient(exact_log_partition(prior.machine), parameters)
    assert_mean(torch.stack(rows), exact, sigmas=5)


def test_small_machines_need_no_chains_and_large_ones_do() -> None:
    assert BoltzmannPrior(BoltzmannMachine(16, 40)).exact
    assert BoltzmannPrior(BoltzmannMachine(16, 40)).states.numel() == 0
    with pytest.raises(InputError, match="PersistentChains"):
        BoltzmannPrior(BoltzmannMachine(17, 40))
    assert not BoltzmannPrior(BoltzmannMachine(17, 40), PersistentChains(3, 1)).exact
    assert not BoltzmannPrior(BoltzmannMachine(2, 2), PersistentChains(3, 1), exact_bits=1).exact


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_chain_settings_that_are_no_counts_are_refused_by_name(value: object) -> None:
    with pytest.raises((InputError, TypeError), match="num_chains"):
        PersistentChains(value, 1)
    with pytest.raises((InputError, TypeError), match="sweeps"):
        PersistentChains(1, value)


# --- log Z as it is known ---


def test_before_an_estimate_there_is_no_log_partition_and_afterwards_kl_uses_it() -> None:
    prior = BoltzmannPrior(machine(8, 8), PersistentChains(50, 2), exact_bits=0).double()
    assert prior.log_partition is None
    q = Posterior((hard(torch.zeros(1, 16, dtype=torch.float64)),), (torch.zeros(1, 16, dtype=torch.float64),))
    loss = prior.kl(q)
    found = prior.estimate_log_partition(temperatures=100, chains=200)
    assert prior.log_partition is found
    assert abs(found.value - float(exact_log_partition(prior.machine).detach())) < 5 * found.standard_error
    assert float(prior.log_z().detach()) == pytest.approx(found.value, abs=1e-12)
    bound = prior.kl(q)
    parameters = list(prior.parameters())
    torch.testing.assert_close(flat_gradient(loss.sum(), parameters), flat_gradient(bound.sum(), parameters))
    expected = found.value - 16 * math.log(2) + expected_energy(prior.machine, q)
    torch.testing.assert_close(bound, expected)


def test_an_enumerated_log_partition_is_exact_and_trusted() -> None:
    prior = BoltzmannPrior(machine(3, 3))
    found = prior.estimate_log_partition()
    z = all_states(6)
    assert found.value == pytest.approx(float(exact_log_partition(prior.machine).detach()))
    assert (found.standard_error, found.trusted, found.effective_sample_size) == (0.0, True, None)
    assert float(log_prior(prior, z, z).exp().sum().detach()) == pytest.approx(1)


def test_directed_priors_are_normalised_by_construction() -> None:
    for name in ("bernoulli", "directed-2"):
        prior = every_prior[name].make()
        assert prior.log_partition is not None
        assert prior.log_partition.value == prior.estimate_log_partition().value == 0.0
        prior.refresh()


# --- errors ---


def test_zeta_of_another_size_is_refused_by_name(case: PriorCase) -> None:
    prior = case.make()
    with pytest.raises(InputError, match="6 bits"):
        prior.log_prob(torch.zeros(2, 7, dtype=torch.float64), hard)


@pytest.mark.parametrize("bits", [0, -2, 1.5, True])
def test_bits_that_are_no_count_are_refused(bits: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    with pytest.raises((InputError, TypeError), match="bits"):
        BernoulliPrior(bits)
    with pytest.raises((InputError, TypeError), match="bits"):
        DirectedPrior(bits)


def test_a_log_z_of_other_parameters_is_known_to_be_stale() -> None:
    for chains in (None, PersistentChains(10, 1)):
        prior = BoltzmannPrior(BoltzmannMachine(3, 3), chains, exact_bits=16 if chains is None else 0)
        optimizer = torch.optim.Adam(prior.parameters(), fused=True)
        assert not prior.log_partition_is_current
        prior.estimate_log_partition(temperatures=2, chains=4, repeats=1)
        assert prior.log_partition_is_current
        prior.log_z().backward()
        optimizer.step()
        assert not prior.log_partition_is_current


def test_p_of_zeta_at_an_end_where_one_density_is_nothing_is_that_of_the_states_that_can_be() -> None:
    pair = DensityPair(lambda t: 4 * torch.log1p(-t), lambda t: 3 * t.log() + torch.log1p(-t) / 2)
    prior = BoltzmannPrior(machine(2, 2))
    zeta = torch.tensor([0.0, 0.5, 1.0, 0.25], dtype=torch.float64)
    densities = torch.stack([pair.log_prob0(zeta), pair.log_prob1(zeta)])
    states = all_states(4)
    log_p = torch.stack([-pair_by_pair_energy(prior.machine, z) for z in states]).detach()
    joint = log_p + torch.stack([densities[z.long(), torch.arange(4)].sum() for z in states])
    exact = joint.logsumexp(0) - log_p.logsumexp(0)
    assert float(exact) == -math.inf  # both densities are nothing at 1
    inside = torch.tensor([0.0, 0.5, 0.75, 0.25], dtype=torch.float64)
    densities = torch.stack([pair.log_prob0(inside), pair.log_prob1(inside)])
    joint = log_p + torch.stack([densities[z.long(), torch.arange(4)].sum() for z in states])
    found = prior.log_prob(inside, pair).detach()
    torch.testing.assert_close(found, joint.logsumexp(0) - log_p.logsumexp(0), rtol=1e-10, atol=1e-10)
    assert float(prior.log_prob(zeta, pair).detach()) < -1e30


def test_zeta_of_another_precision_is_refused_by_a_smoothed_prior_too() -> None:
    prior = BoltzmannPrior(machine(2, 2)).float()
    for smoothing in (hard, OverlappingExponential(8.0)):
        with pytest.raises(InputError, match="float32 states"):
            prior.log_prob(torch.ones(3, 4, dtype=torch.float64), smoothing)
