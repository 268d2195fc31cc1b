import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from registry import exact_log_likelihood
from torch import Tensor, nn
from torch.distributions import Distribution

import dvaepp
from dvaepp import distributed
from dvaepp.boltzmann.log_partition import LogPartition
from dvaepp.errors import InputError
from dvaepp.evaluation.kept import KeptScores
from dvaepp.evaluation.likelihood import score
from dvaepp.evaluation.scores import unit_variances
from dvaepp.likelihoods.standard import bernoulli_likelihood
from dvaepp.models.base import Model, Trace, measuring
from dvaepp.smoothings.base import Smoothing
from dvaepp.smoothings.posterior import Posterior

LOG_Z = LogPartition(1.5, 0.25, 200.0, True, "by hand")


class Table(Model):
    """One bit for each pixel, so few of them that everything can be written out by hand.

    q(z_i = 1 | x) is on_i where x_i = 1 and off_i where x_i = 0; p(z_i = 1) is prior_i; p(x_i = z_i | z) = 3/4. With
    `coupled` the second group sees its pixels inverted where the first bit is 1.
    """

    def __init__(
        self,
        on: Sequence[float],
        off: Sequence[float],
        prior: Sequence[float],
        sizes: tuple[int, int],
        coupled: bool = False,
    ) -> None:
        super().__init__()
        self.on, self.off = (torch.logit(torch.tensor(p, dtype=torch.float64)) for p in (on, off))
        self.sizes, self.coupled = sizes, coupled
        self.smoothing = dvaepp.hard
        self.prior = dvaepp.BernoulliPrior(len(prior)).double()
        self.prior.log_partition = LOG_Z
        with torch.no_grad():
            self.prior.bias.copy_(torch.logit(torch.tensor(prior, dtype=torch.float64)))

    def code(self, x: Tensor) -> Tensor:
        return x

    def given(self, x: Tensor, zeta: Tensor, smoothing: Smoothing | None = None) -> Trace:
        raise NotImplementedError

    def forward(
        self, x: Tensor, smoothing: Smoothing | None = None, draws: int = 1, noise: Tensor | None = None
    ) -> Trace:
        x = x.repeat_interleave(draws, 0)
        draw, first = smoothing or self.smoothing, self.sizes[0]
        q_1 = draw(torch.where(x[:, :first] > 0.5, self.on[:first], self.off[:first]))
        z_1 = q_1.sample()
        seen = (x[:, first:] - z_1[:, :1]).abs() if self.coupled else x[:, first:]
        q_2 = draw(torch.where(seen > 0.5, self.on[first:], self.off[first:]))
        posterior = Posterior((q_1, q_2), (z_1, q_2.sample()))
        return Trace(posterior, self.decode(posterior.zeta))

    def decode(self, zeta: Tensor) -> Distribution:
        return bernoulli_likelihood((2 * zeta - 1) * math.log(3))


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
    with pytest.raises(InputError, match="num_samples must be a whole number of at least 1"):
        score(model(), examples(3), 0)


@pytest.mark.parametrize("wrong", [2.0, -1.0, math.nan])
def test_values_that_have_no_likelihood_are_refused_in_any_piece(wrong: float) -> None:
    vae, x = model(), examples(6)
    vae.prior.estimate_log_partition()
    x[4, 2] = wrong
    for megabytes in (64, 1e-6):
        with pytest.raises(ValueError, match="support|constraint"):
            score(vae, x, 3, megabytes=megabytes)
    assert Distribution._validate_args  # as it was


def test_scoring_leaves_mode_random_state_and_statistics_alone() -> None:
    vae, x = model().train(), examples(10)
    vae.prior.estimate_log_partition()
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    state = torch.get_rng_state()
    score(vae, x, 5)
    assert vae.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in vae.state_dict().items())


def score_it(vae: Model) -> None:
    score(vae, examples(3), 2)


def generate_from_it(vae: Model) -> None:
    vae.generate(2)


def measure_it(vae: Model) -> None:
    with measuring(vae, 0):
        assert not any(module.training for module in vae.modules())


class StoppedError(Exception):
    pass


def measure_it_in_vain(vae: Model) -> None:
    with pytest.raises(StoppedError), measuring(vae, 0):
        raise StoppedError


def generate_in_vain(vae: Model) -> None:
    handle = vae.decoder.register_forward_pre_hook(stop)
    with pytest.raises(StoppedError):
        vae.generate(2)
    handle.remove()


def stop(*_: object) -> None:
    raise StoppedError


USES = [score_it, generate_from_it, measure_it, measure_it_in_vain, generate_in_vain]
uses = pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)


@uses
def test_every_module_comes_back_in_its_own_mode(use: Callable[[Model], None]) -> None:
    vae = model().eval()
    vae.prior.estimate_log_partition()
    modules = list(vae.modules())

    @settings(max_examples=20, deadline=None)
    @given(modes=st.lists(st.booleans(), min_size=len(modules), max_size=len(modules)))
    def check(modes: list[bool]) -> None:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        use(vae)
        assert [module.training for module in modules] == modes

    check()


@uses
def test_a_frozen_decoder_stays_in_evaluation_mode(use: Callable[[Model], None]) -> None:
    """Else its batch norm would go on learning from what it sees."""
    vae = model().train()
    vae.prior.estimate_log_partition()
    vae.decoder.eval()
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    use(vae)
    dvaepp.joint_elbo(vae, examples(5), 1.0).mean().backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in vae.state_dict().items())


def test_what_draws_of_earlier_groups_move_is_no_activity_of_x() -> None:
    alike = torch.ones(4000, 2, dtype=torch.float64)
    scores = score(Table((0.8, 0.9), (0.3, 0.2), (0.6, 0.35), (1, 1), coupled=True), alike, 1)
    assert float(scores.examples.mu[:, 0, 1].var()) > 0.05
    assert scores.numbers()["active_units_2"] == 0


def test_noise_of_earlier_groups_is_no_activity() -> None:
    draws = torch.rand(20_000, 2, 2)
    signal = torch.rand(20_000, 1).repeat(1, 2)
    mu = torch.stack([draws[..., 0], 0.5 * signal + 0.5 * draws[..., 1]], -1)
    variances = unit_variances(mu)
    sd = 1 / 12 / math.sqrt(20_000)
    assert abs(float(variances[0])) < 5 * sd
    assert abs(float(variances[1]) - 0.25 / 12) < 5 * sd


@pytest.mark.parametrize("rows", [3, 15, 1000])
def test_where_the_posterior_is_certain_every_number_is_the_one_found_by_hand(rows: int) -> None:
    certain = 1 / (1 + math.exp(-30))
    table = Table([certain] * 5, [1 - certain] * 5, [0.5, 0.75, 0.2, 0.5, 0.1], (3, 2))
    x = torch.tensor(
        [[1, 1, 0, 0, 0], [1, 0, 1, 1, 0], [1, 1, 1, 0, 1], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.float64
    )
    bytes_of_a_row = 4 * 8 * 5
    seen: list[tuple[int, int]] = []
    scores = score(
        table, x, 7, megabytes=(rows + 0.5) * bytes_of_a_row / 2**20, progress=lambda *done: seen.append(done)
    )
    # z = x for certain, so that KL(q || p) = -log p(z = x), group by group, and the bound is the likelihood itself.
    kl_1 = [-math.log(0.5 * p) for p in (0.75 * 0.8, 0.25 * 0.2, 0.75 * 0.2, 0.75 * 0.2, 0.25 * 0.8)]
    kl_2 = [-math.log(0.5 * p) for p in (0.9, 0.9, 0.1, 0.1, 0.9)]
    distortion = 5 * math.log(4 / 3)
    nll = [distortion + a + b for a, b in zip(kl_1, kl_2, strict=True)]
    mean = statistics.mean(nll)
    expected = {
        "nll": mean,
        "nll_standard_error": statistics.stdev(nll) / 5**0.5,
        "nll_at_low_log_z": mean - 0.5,
        "nll_at_high_log_z": mean + 0.5,
        "elbo": -mean,
        "distortion": distortion,
        "kl": statistics.mean(kl_1) + statistics.mean(kl_2),
        "kl_1": statistics.mean(kl_1),
        "kl_2": statistics.mean(kl_2),
        "active_units_1": 2,  # the first pixel never changes
        "active_units_2": 2,
        "effective_sample_size": 7,
        "log_z": 1.5,
        "log_z_standard_error": 0.25,
        "samples": 7,
        "examples": 5,
    }
    numbers = scores.numbers()
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, abs=1e-8)
    torch.testing.assert_close(scores.examples.log_likelihood, -torch.tensor(nll, dtype=torch.float64))
    assert seen[-1] == (5, 5)


def test_a_higher_log_z_is_a_lower_likelihood() -> None:
    """p(x) = (1/Z) sum_z exp(-E(z)) p(x | z): a log Z that is higher by c lowers log p(x) by c."""
    vae, x = model(chains=True).eval(), examples(4)
    log_z = vae.prior.estimate_log_partition(temperatures=20, chains=50)
    ends = [score(vae, x, 10).numbers()[f"nll_at_{end}_log_z"] for end in ("low", "high")]
    for end, value in zip(ends, log_z.interval, strict=True):
        vae.prior.log_partition = LogPartition(value, 0.0, None, True, "by hand")
        assert score(vae, x, 10).numbers()["nll"] == pytest.approx(end, abs=1e-4)


STATES = list(itertools.product((0, 1), repeat=2))
ON, OFF, PRIOR = (0.8, 0.9), (0.3, 0.2), (0.6, 0.35)


def _outcomes(x: tuple[int, int]) -> tuple[list[tuple[float, float, float]], dict[int, tuple[float, float]]]:
    """(q(z | x), log w, distortion) of every z, and (q(z_1), KL of group 2) of every z_1, of the coupled table."""
    first = ON[0] if x[0] else OFF[0]
    rows, second_kl = [], {}
    for z in STATES:
        second = ON[1] if x[1] != z[0] else OFF[1]
        q = (first if z[0] else 1 - first) * (second if z[1] else 1 - second)
        p = math.prod(c if bit else 1 - c for c, bit in zip(PRIOR, z, strict=True))
        fits = math.prod(0.75 if bit == pixel else 0.25 for bit, pixel in zip(z, x, strict=True))
        rows.append((q, math.log(p * fits / q), -math.log(fits)))
        second_kl[z[0]] = (first if z[0] else 1 - first, _bernoulli_kl(second, PRIOR[1]))
    return rows, second_kl


def _bernoulli_kl(q: float, p: float) -> float:
    return q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))


def _moments(x: tuple[int, int]) -> dict[str, tuple[float, float]]:
    """E[s] and E[s^2] of every score of one example from 3 samples, over all 4^3 outcomes."""
    rows, second_kl = _outcomes(x)
    found: dict[str, list[tuple[float, float]]] = {"nll": [], "elbo": [], "effective_sample_size": []}
    for triple in itertools.product(rows, repeat=3):
        chance = math.prod(q for q, _, _ in triple)
        weights = [math.exp(log_w) for _, log_w, _ in triple]
        found["nll"].append((chance, -math.log(sum(weights) / 3)))
        found["elbo"].append((chance, sum(log_w for _, log_w, _ in triple) / 3))
        found["effective_sample_size"].append((chance, sum(weights) ** 2 / sum(w * w for w in weights)))
    found["distortion"] = [(q, distortion) for q, _, distortion in rows]
    kl_1 = _bernoulli_kl(ON[0] if x[0] else OFF[0], PRIOR[0])
    found["kl_1"] = [(1.0, kl_1)]
    found["kl_2"] = list(second_kl.values())
    found["kl"] = [(chance, kl_1 + kl) for chance, kl in second_kl.values()]
    return {name: (sum(c * s for c, s in values), sum(c * s * s for c, s in values)) for name, values in found.items()}


@pytest.mark.parametrize("megabytes", [64, 1.1e-4])  # all at once; one example and one sample at a time
def test_every_number_has_the_mean_found_by_enumerating_all_draws(megabytes: float) -> None:
    copies = 5000 if megabytes > 1 else 15
    table = Table(ON, OFF, PRIOR, (1, 1), coupled=True)
    x = torch.tensor(STATES, dtype=torch.float64).repeat(copies, 1)
    numbers = score(table, x, 3, megabytes=megabytes).numbers()
    moments = [_moments(state) for state in STATES]
    for name in moments[0]:
        mean = statistics.mean(m[name][0] for m in moments)
        variance = statistics.mean(m[name][1] - m[name][0] ** 2 for m in moments)
        assert abs(numbers[name] - mean) < 5 * math.sqrt(max(variance, 0) / len(x)) + 1e-9, name
    spread = statistics.mean(m["nll"][1] for m in moments) - statistics.mean(m["nll"][0] for m in moments) ** 2
    assert numbers["nll_standard_error"] == pytest.approx(math.sqrt(spread / len(x)), rel=5 / math.sqrt(len(x)))


def test_a_bit_is_active_above_a_variance_of_a_hundredth() -> None:
    # q moves between .5 - d and .5 + d, half of the examples each: its variance is d^2.
    steps = [0.0, 0.09, 0.11, 0.4, 0.099, 0.101]  # d^2 = 0, .0081, .0121, .16 | .0098, .0102
    table = Table([0.5 + d for d in steps], [0.5 - d for d in steps], [0.5] * 6, (4, 2))
    x = torch.tensor([[1.0] * 6, [0.0] * 6], dtype=torch.float64).repeat(1000, 1)
    numbers = score(table, x, 1).numbers()
    assert (numbers["active_units_1"], numbers["active_units_2"]) == (2, 1)


def test_a_stopped_evaluation_goes_on_where_it_was(tmp_path: Path) -> None:
    vae, x = model().eval(), examples(30)
    vae.prior.estimate_log_partition()
    settings: dict[str, Any] = {"megabytes": 0.05, "seed": 3}
    whole = score(vae, x, 100, **settings)
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if done > 12:
            raise StoppedError

    kept = KeptScores(tmp_path / "so-far.safetensors", {"what": 1}, seconds=0.0)
    with pytest.raises(StoppedError):
        score(vae, x, 100, kept=kept, progress=stop, **settings)
    rest: list[int] = []
    resumed = score(vae, x, 100, kept=kept, progress=lambda done, total: rest.append(done), **settings)
    assert rest[0] > seen[-2] > 0
    assert rest[-1] == 30
    assert len(rest) < len(seen) + 30 // (seen[1] - seen[0])
    for name in ("log_likelihood", "elbo", "distortion", "kl_terms", "mu"):
        assert torch.equal(getattr(resumed.examples, name), getattr(whole.examples, name))


def test_scores_kept_of_another_evaluation_are_begun_anew(tmp_path: Path) -> None:
    vae, x = model().eval(), examples(4)
    vae.prior.estimate_log_partition()
    path = tmp_path / "so-far.safetensors"
    score(vae, x, 10, kept=KeptScores(path, {"samples": 10}, seconds=0.0))
    assert path.exists()
    other = score(vae, x, 20, kept=KeptScores(path, {"samples": 20}, seconds=0.0))
    assert torch.equal(other.examples.log_likelihood, score(vae, x, 20).examples.log_likelihood)
    path.write_bytes(b"damaged")
    assert KeptScores(path, {"samples": 20}).load().count == 0
    KeptScores(path, {}).clear()
    assert not path.exists()


def noise() -> float:
    """The next random number, which is left to be drawn."""
    with torch.random.fork_rng():
        return float(torch.rand((), dtype=torch.float64))


def noise_of_scores(seed: int) -> float:
    vae, met = model(bits=2).eval(), []
    vae.prior.estimate_log_partition()
    vae.register_forward_pre_hook(lambda module, inputs: met.append(noise()))
    score(vae, examples(2), 1, seed=seed)
    return met[0]


def test_every_seed_and_process_has_scores_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds, found = (0, 1, 7, 2**31 - 1, 2**31 + 7, 2**32 + 7, 2**33 + 7, 3 * 2**32 + 7), []
    for rank in range(4):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        found += [noise_of_scores(seed) for seed in seeds]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_a_process_scores_with_other_noise_than_it_trains_with(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    for seed in (0, 3, 2**31 - 1):
        with monkeypatch.context() as patched:
            patched.setattr(distributed, "world", lambda: 6)
            patched.setattr(distributed, "rank", lambda: rank)
            torch.manual_seed(distributed.own_seed(seed))
        trains_with = noise()
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        assert noise_of_scores(seed) != trains_with
