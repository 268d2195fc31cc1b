"""Half precision ends where distributions begin: autocast changes no number of theirs, and half is refused."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from registry import RING, all_states, every_prior, log_bernoulli, machine, sparse_machine
from torch import Tensor, nn

from dvaepp.boltzmann.agreement import exact
from dvaepp.boltzmann.annealing import (
    annealed_importance_sampling,
    population_annealing,
    reverse_annealed_importance_sampling,
)
from dvaepp.boltzmann.diagnostics import chain_diagnostics, effective_inverse_temperature
from dvaepp.boltzmann.enumeration import (
    enumerated_log_marginals,
    exact_log_partition,
    exact_log_partition_weighted,
    exact_sample,
)
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.boltzmann.samplers import AnnealedPopulation, PersistentChains, TemperedChains
from dvaepp.boltzmann.tempering import parallel_tempering
from dvaepp.errors import InputError
from dvaepp.likelihoods.base import Likelihood
from dvaepp.likelihoods.logistic_mixture import DiscretizedLogisticMixture
from dvaepp.likelihoods.standard import BernoulliLikelihood, CategoricalLikelihood, NormalLikelihood, PoissonLikelihood
from dvaepp.models.encoders import HierarchicalEncoder, NormalEncoder
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.models.local import BernoulliVariables, NormalVariables
from dvaepp.objectives.bounds import joint_elbo
from dvaepp.objectives.importance import importance_weighted
from dvaepp.priors.base import Prior
from dvaepp.priors.boltzmann import BoltzmannPrior, expected_energy
from dvaepp.priors.directed import BernoulliPrior, DirectedPrior
from dvaepp.priors.normal import NormalPosterior, NormalPrior, normal
from dvaepp.smoothings.binary import StraightThrough, hard
from dvaepp.smoothings.concrete import Concrete
from dvaepp.smoothings.exponential import OverlappingExponential
from dvaepp.smoothings.posterior import Posterior
from dvaepp.smoothings.spike import SpikeExponential

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
halves = pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)

MACHINES: dict[str, Callable[[], BoltzmannMachine]] = {
    "rbm": lambda: machine(4, 70, sd=0.7),
    "wide-first": lambda: machine(70, 4, sd=0.7),
    "three-blocks": lambda: machine(3, 60, 2, sd=0.7),
    "ring": lambda: sparse_machine(3, 3, pairs=RING, sd=3.0),
}


def states_of(m: BoltzmannMachine, count: int = 5) -> Tensor:
    """The same states for every dtype."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 2, (count, m.bits), generator=generator).to(m.bias.dtype)


def likely_states(m: BoltzmannMachine, count: int) -> Tensor:
    """States of about the machine's distribution, the same for every dtype and context."""
    wide = copy.deepcopy(m).double()
    with torch.random.fork_rng():
        torch.manual_seed(8)
        return wide.gibbs(states_of(wide, count), 5).to(m.bias.dtype)


def posterior_of(m: BoltzmannMachine) -> Posterior:
    """A posterior of two groups that are not the machine's blocks."""
    generator = torch.Generator().manual_seed(4)
    dtype = torch.float64 if m.bias.dtype == torch.float64 else torch.float32
    logits = torch.randn(5, m.bits, generator=generator).to(dtype)
    first = m.bits // 3
    groups = tuple(OverlappingExponential(8.0)(part) for part in torch.split(logits, [first, m.bits - first], -1))
    zetas = torch.rand(5, m.bits, generator=generator).to(dtype).split([first, m.bits - first], -1)
    return Posterior(groups, zetas)


def energies(m: BoltzmannMachine) -> list[Tensor]:
    z = states_of(m)
    return [m.energy(z), m.log_marginal(z), *m.marginal_terms(z), *(m.field(z, k) for k in range(len(m.blocks)))]


QUANTITIES: dict[str, Callable[[BoltzmannMachine], list[Tensor]]] = {
    "energies": energies,
    "expected-energy": lambda m: [expected_energy(m, posterior_of(m))],
    "log-z": lambda m: [exact_log_partition(m), enumerated_log_marginals(m)],
    "log-z-given": lambda m: [exact_log_partition_weighted(m, torch.zeros_like(states_of(m)), 0.1 + states_of(m))],
    "exact": lambda m: [torch.tensor(exact(m).value, dtype=torch.float64)],
    "kl": lambda m: [BoltzmannPrior(m).kl(posterior_of(m))],
    "log-prob": lambda m: [BoltzmannPrior(m).log_prob(states_of(m), hard)],
    "log-prob-soft": lambda m: [
        BoltzmannPrior(m).log_prob(posterior_of(m).zeta.to(m.bias.dtype), OverlappingExponential(8.0))
    ],
    "temperature": lambda m: [100 * torch.tensor(effective_inverse_temperature(m, likely_states(m, 50))).double()],
}
"""Functions of a machine that draw nothing."""


def numbers(found: Any) -> list[Tensor]:
    return [torch.tensor([found.value, found.standard_error], dtype=torch.float64)]


def health(m: BoltzmannMachine) -> list[Tensor]:
    found = chain_diagnostics(m, states_of(m, 20), sweeps=8)
    return [torch.tensor([found.r_hat, found.autocorrelation_time], dtype=torch.float64)]


def refreshed(m: BoltzmannMachine) -> list[Tensor]:
    prior = BoltzmannPrior(m, PersistentChains(20, 2), exact_bits=0).to(m.bias.dtype)
    prior.refresh()
    return [prior.states, prior.sample(3), prior.log_z()]


SHORT: dict[str, Any] = {"temperatures": 5, "repeats": 2}
DRAWS: dict[str, Callable[[BoltzmannMachine], list[Tensor]]] = {
    "gibbs": lambda m: [m.gibbs(states_of(m, 30), 3)],
    "gibbs-clamped": lambda m: [m.gibbs(states_of(m), 2, 0.5, states_of(m).bool())],
    "exact-sample": lambda m: [exact_sample(m, 30)],
    "annealing": lambda m: numbers(annealed_importance_sampling(m, chains=20, **SHORT)),
    "reverse": lambda m: numbers(reverse_annealed_importance_sampling(m, chains=20, **SHORT)),
    "population": lambda m: numbers(population_annealing(m, population=20, **SHORT)),
    "tempering": lambda m: numbers(parallel_tempering(m, temperatures=3, chains=4, sweeps=8)),
    "health": health,
    "chains": refreshed,
    "tempered-chains": lambda m: [TemperedChains(100, 1, 20).advance(m, m.uniform(20, 100))],
    "annealed-population": lambda m: [AnnealedPopulation(300, 4).start(m)],
}


def in_own_precision(compute: Callable[[Any], list[Tensor]], half: torch.dtype, owner: nn.Module) -> None:
    """Under autocast the numbers are the same to the last bit, and in the same dtypes."""
    outcomes = []
    for enabled in (False, True):
        torch.manual_seed(5)
        with torch.autocast("cpu", half, enabled=enabled), torch.no_grad():
            outcomes.append(compute(owner))
    for outside, inside in zip(*outcomes, strict=True):
        assert inside.dtype == outside.dtype
        assert torch.equal(inside, outside)


# --- machines ---------------------------------------------------------------------------------------------------------


@halves
def test_log_z_of_many_bits_under_autocast_is_right_to_float32(half: torch.dtype) -> None:
    m = BoltzmannMachine(16, 384)
    nn.init.ones_(m.bias)
    with torch.autocast("cpu", half):
        assert exact(m).value == pytest.approx(400 * math.log1p(math.e), abs=1e-3)
        annealed = annealed_importance_sampling(m, temperatures=5, chains=20)
        assert abs(annealed.value - 400 * math.log1p(math.e)) < 5 * annealed.standard_error + 1e-3


@halves
@pytest.mark.parametrize("quantity", [*QUANTITIES, *DRAWS])
def test_a_machine_computes_in_its_own_precision_under_autocast(quantity: str, half: torch.dtype) -> None:
    compute = {**QUANTITIES, **DRAWS}[quantity]
    for make in MACHINES.values():
        in_own_precision(compute, half, make().float())


@halves
def test_large_products_of_gibbs_sampling_stay_in_float32_under_autocast(half: torch.dtype) -> None:
    m = machine(70, 70, sd=0.3).float()
    in_own_precision(lambda m: [m.gibbs(m.uniform(600), 1)], half, m)


@halves
def test_gradients_of_a_machine_under_autocast_are_those_without(half: torch.dtype) -> None:
    m, gradients = machine(4, 70, sd=0.7).float(), []
    for enabled in (False, True):
        with torch.autocast("cpu", half, enabled=enabled):
            value = BoltzmannPrior(m).kl(posterior_of(m)).sum()
        gradients.append(torch.autograd.grad(value, list(m.parameters())))
    for outside, inside in zip(*gradients, strict=True):
        assert torch.equal(inside, outside)


@halves
@pytest.mark.parametrize("quantity", QUANTITIES)
@torch.no_grad()
def test_a_machine_in_half_precision_is_refused(quantity: str, half: torch.dtype) -> None:
    for make in MACHINES.values():
        with pytest.raises(InputError, match="must be float32 or float64"):
            QUANTITIES[quantity](make().to(half))


@halves
@pytest.mark.parametrize("draws", DRAWS)
@torch.no_grad()
def test_a_machine_in_half_precision_draws_nothing(draws: str, half: torch.dtype) -> None:
    for make in MACHINES.values():
        with pytest.raises(InputError, match=rf"Boltzmann machine must be float32 or float64, not {half}"):
            DRAWS[draws](make().to(half))


@halves
def test_a_machine_that_comes_back_from_half_precision_computes_again(half: torch.dtype) -> None:
    m = machine(3, 4).to(half)
    with pytest.raises(InputError, match="float32"):
        exact(m)
    wide = copy.deepcopy(m).double()
    assert exact(m.float()).value == pytest.approx(exact(wide).value, rel=1e-6)


# --- priors -----------------------------------------------------------------------------------------------------------


def posterior_for(prior: Prior, groups: tuple[int, ...], dtype: torch.dtype) -> Posterior:
    generator = torch.Generator().manual_seed(6)
    logits = 2 * torch.randn(4, sum(groups), generator=generator).to(dtype)
    z = torch.randint(0, 2, (4, sum(groups)), generator=generator).to(dtype)
    return Posterior(tuple(map(hard, logits.split(list(groups), -1))), z.split(list(groups), -1))


@halves
@pytest.mark.parametrize("name", [name for name in every_prior if not name.startswith("directed")])
@torch.no_grad()
def test_a_prior_computes_in_its_own_precision_under_autocast(name: str, half: torch.dtype) -> None:
    case = every_prior[name]
    prior = case.make().float()
    prior.estimate_log_partition(temperatures=5, chains=5)
    q = posterior_for(prior, case.groups, torch.float32)
    smoothings = [s for s in (hard, OverlappingExponential(8.0)) if prior.has_density(s)]
    in_own_precision(lambda p: [p.kl(q), *(p.log_prob(q.zeta, s) for s in smoothings), p.sample(20)], half, prior)


@halves
@torch.no_grad()
def test_a_directed_prior_sums_the_logits_of_its_networks_in_float32_under_autocast(half: torch.dtype) -> None:
    torch.manual_seed(0)
    prior = DirectedPrior(300, nn.Linear(300, 300))
    q = posterior_for(prior, (300, 300), torch.float32)
    with torch.autocast("cpu", half):
        logits = prior.logits(q.zeta)
        log_p, kl = prior.log_prob_bits(q.zeta, q.zeta), prior.kl(q)
    assert log_p.dtype == kl.dtype == torch.float32
    torch.testing.assert_close(log_p.double(), log_bernoulli(logits, q.zeta), rtol=1e-5, atol=1e-4)
    wide = q.logits.double()
    exact_kl = (torch.sigmoid(wide) * (wide - logits.double()) + nn.functional.logsigmoid(-wide)).sum(-1)
    exact_kl = exact_kl - nn.functional.logsigmoid(-logits.double()).sum(-1)
    torch.testing.assert_close(kl.double(), exact_kl, rtol=1e-5, atol=1e-3)


@halves
@torch.no_grad()
def test_a_directed_prior_draws_rare_bits_under_autocast(half: torch.dtype) -> None:
    prior = DirectedPrior(1, nn.Linear(1, 100))
    nn.init.zeros_(prior.networks[0].weight)
    nn.init.constant_(prior.networks[0].bias, 9.0)
    with torch.autocast("cpu", half):
        z = prior.sample(4000)
    assert z.dtype == torch.float32
    expected = 400_000 / (1 + math.exp(9))
    assert abs(float((z[:, 1:] == 0).sum()) - expected) < 5 * math.sqrt(expected)


PRIORS: dict[str, Callable[[], Prior]] = {
    "bernoulli": lambda: BernoulliPrior(6),
    "directed": lambda: DirectedPrior(3, nn.Linear(3, 3)),
    "boltzmann": lambda: BoltzmannPrior(BoltzmannMachine(3, 3)),
    "chains": lambda: BoltzmannPrior(BoltzmannMachine(3, 3), PersistentChains(5, 1), exact_bits=0),
}


@halves
@pytest.mark.parametrize("name", PRIORS)
@torch.no_grad()
def test_a_prior_of_bits_in_half_precision_is_refused(name: str, half: torch.dtype) -> None:
    prior = PRIORS[name]().to(half)
    bits, zeta = all_states(6)[:5].to(half), torch.rand(5, 6)
    q = Posterior((hard(torch.randn(5, 3)), hard(torch.randn(5, 3))), (zeta[:, :3], zeta[:, 3:]))
    for run in (
        lambda: prior.sample(7),
        lambda: prior.log_prob(bits, hard),
        lambda: prior.log_prob_bits(bits, bits),
        lambda: prior.kl(q),
    ):
        with pytest.raises(InputError, match=rf"float32 or float64, not {half}"):
            run()


@halves
@torch.no_grad()
def test_a_normal_prior_in_half_precision_is_refused_or_right_to_float32(half: torch.dtype) -> None:
    prior, zeta = NormalPrior(400).to(half), torch.randn(3, 400).to(half)
    with pytest.raises(InputError, match=rf"float32 or float64, not {half}"):
        prior.log_prob(zeta, hard)
    q = normal(zeta.float(), 0.3 * zeta.float())
    kl = prior.kl(NormalPosterior((q,), (q.sample(),)))
    m, s = q.mean.double(), q.stddev.double()
    torch.testing.assert_close(kl.double(), (0.5 * (m**2 + s**2 - 1) - s.log()).sum(-1), rtol=1e-5, atol=1e-4)


# --- distributions ----------------------------------------------------------------------------------------------------


SMOOTHINGS = {
    "exponential": OverlappingExponential(8.0),
    "spike": SpikeExponential(8.0),
    "concrete": Concrete(0.5),
    "straight-through": StraightThrough(),
    "hard": hard,
}
LIKELIHOODS: dict[str, Likelihood] = {
    "bernoulli": BernoulliLikelihood(),
    "normal": NormalLikelihood(),
    "categorical": CategoricalLikelihood(5),
    "poisson": PoissonLikelihood(),
    "grey": DiscretizedLogisticMixture(3, values=1),
    "colour": DiscretizedLogisticMixture(3),
}
each_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)


@halves
@pytest.mark.parametrize("name", SMOOTHINGS)
def test_logits_in_half_precision_are_refused(name: str, half: torch.dtype) -> None:
    with pytest.raises(InputError, match=rf"logits must be float32 or float64, not {half}"):
        SMOOTHINGS[name](torch.zeros(3, dtype=half))
    with pytest.raises(InputError, match=rf"logits must be float32 or float64, not {half}"):
        BernoulliVariables().distribution(torch.zeros(1, 2, 1, 1, dtype=half), OverlappingExponential(8.0))


@halves
def test_parameters_of_normal_variables_in_half_precision_are_refused(half: torch.dtype) -> None:
    for mean, log_sd in ((half, half), (half, torch.float32), (torch.float32, half)):
        with pytest.raises(InputError, match=rf"float32 or float64, not {half}"):
            normal(torch.zeros(3, dtype=mean), torch.zeros(3, dtype=log_sd))
    with pytest.raises(InputError, match=rf"float32 or float64, not {half}"):
        NormalVariables().distribution(torch.zeros(1, 2, 1, 1, dtype=half), hard)


@halves
@each_likelihood
def test_parameters_of_a_likelihood_in_half_precision_are_refused(likelihood: Likelihood, half: torch.dtype) -> None:
    with pytest.raises(InputError, match=rf"float32 or float64, not {half}"):
        likelihood(torch.zeros(2, 3 * likelihood.width, dtype=half))


# --- models -----------------------------------------------------------------------------------------------------------

SITES = 300


def model_of(likelihood: Likelihood, normals: bool = False) -> FeedForwardVAE:
    pixels = SITES * likelihood.values
    encoder: Any = NormalEncoder if normals else HierarchicalEncoder
    prior = NormalPrior(8) if normals else BoltzmannPrior(machine(5, 3).float())
    encoder = encoder(nn.Linear(pixels, 16 if normals else 8))
    return FeedForwardVAE(
        encoder, prior, nn.Linear(8, SITES * likelihood.width), OverlappingExponential(8.0), likelihood
    )


@halves
@each_likelihood
@pytest.mark.parametrize("normals", [False, True])
@torch.no_grad()
def test_a_model_under_autocast_sums_in_float32_what_its_networks_give_in_half(
    likelihood: Likelihood, normals: bool, half: torch.dtype
) -> None:
    torch.manual_seed(1)
    model, given = model_of(likelihood, normals), []
    x = model.generate(3)
    model.decoder.register_forward_hook(lambda module, inputs, out: given.append(out))
    with torch.autocast("cpu", half):
        trace = model(x)
        log_p, bound, weighted = trace.likelihood.log_prob(x), joint_elbo(model, x), importance_weighted(model, x, 3)
        code = model.code(x)
    assert given[0].dtype == half
    dtypes = {t.dtype for t in (trace.posterior.zeta, trace.posterior.mu, log_p, bound, weighted, code)}
    assert dtypes == {torch.float32}
    exactly = likelihood(given[0].double()).log_prob(x.double())
    torch.testing.assert_close(log_p.double(), exactly, rtol=1e-5, atol=1e-3)


@halves
def test_training_under_autocast_has_float32_gradients(half: torch.dtype) -> None:
    model = model_of(BernoulliLikelihood())
    x = model.generate(4)
    with torch.autocast("cpu", half):
        bound = joint_elbo(model, x)
    bound.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


# --- float64 to its last digits ---


@pytest.mark.parametrize("bias", [15.0, 20.001, 25.0, 36.0])
def test_float64_sums_of_large_fields_keep_what_softplus_drops_from_20_on(bias: float) -> None:
    m = BoltzmannMachine(2, 2).double()
    with torch.no_grad():
        m.bias.fill_(bias)
    beyond = exact_log_partition(m).detach() - 4 * bias
    assert float(beyond) == pytest.approx(4 * math.log1p(math.exp(-bias)), rel=1e-12, abs=8 * 4 * bias * 2.3e-16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [8.0, 15.0, 30.0, 60.0])
def test_the_likelier_value_of_a_bit_keeps_its_small_log_probability(logit: float, dtype: torch.dtype) -> None:
    small = -math.log1p(math.exp(-logit))
    for sign, z in ((1, 1.0), (-1, 0.0)):
        logits = torch.tensor(sign * logit, dtype=dtype, requires_grad=True)
        found = hard(logits).log_prob(torch.tensor(z, dtype=dtype))
        assert float(found.detach()) == pytest.approx(small, rel=1e-5)
        (slope,) = torch.autograd.grad(found, logits)
        assert float(slope) == pytest.approx(sign / (1 + math.exp(logit)), rel=1e-5)
