"""What a state dict holds besides weights, log Z and the bits' labels, and what is refused without them."""

import copy
import io
import itertools
import math
import pickle
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from datetime import date
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from registry import (
    WHEEL,
    all_states,
    brute_force_log_z,
    every_prior,
    exact_log_likelihood,
    exponential,
    flat_gradient,
    images,
    log_prior,
    logistic,
    machine,
    pair_by_pair_energy,
    randomise,
    sparse_machine,
    tiny_model,
)
from torch import Tensor, nn

import dvaepp
from dvaepp.boltzmann.graphs import machine_on_graph
from dvaepp.boltzmann.log_partition import LogPartition
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.boltzmann.samplers import PersistentChains, Sampler, TemperedChains
from dvaepp.errors import InputError
from dvaepp.evaluation.likelihood import score
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.objectives.bounds import joint_elbo, marginal_elbo
from dvaepp.objectives.importance import importance_weighted, log_weight
from dvaepp.objectives.rolfe import rolfe_elbo
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import override
from dvaepp.runs.folder import RunFolder
from dvaepp.smoothings.binary import StraightThrough, hard
from dvaepp.smoothings.spike import SpikeExponential
from dvaepp.storage import load_tensors, save_tensors

EDGES = (("a", 7), (7, (1, "x")), ((1, "x"), "d"), ("d", "a"), ("a", (1, "x")), ("d", 2))

structures: dict[str, Callable[[int], BoltzmannMachine]] = {
    "rbm": lambda seed: machine(3, 3, seed=seed),
    "three-blocks": lambda seed: machine(2, 3, 2, seed=seed),
    "full": lambda seed: machine(*[1] * 5, seed=seed),
    "masked": lambda seed: sparse_machine(3, 2, 1, pairs=WHEEL, seed=seed),
    "graph": lambda seed: randomise(machine_on_graph(EDGES), 0.8, seed),
}
every_structure = pytest.mark.parametrize("make", structures.values(), ids=structures)
samplers = {"gibbs": PersistentChains(20, 2), "tempering": TemperedChains(5, 2, 3)}
every_sampler = pytest.mark.parametrize("sampler", samplers.values(), ids=samplers)


def chain_prior(
    make: Callable[[int], BoltzmannMachine], seed: int = 0, dtype: torch.dtype = torch.float64, known: bool = True,
    sampler: Sampler = samplers["gibbs"],
) -> BoltzmannPrior:  # fmt: skip
    """A small machine treated as a large one; where log Z is known, it is that of enumeration."""
    prior = BoltzmannPrior(make(seed).to(dtype), sampler, exact_bits=0)
    if known:
        prior.log_partition = enumerated(prior)
    return prior


def enumerated(prior: BoltzmannPrior) -> LogPartition:
    value = float(brute_force_log_z(copy.deepcopy(prior.machine).double()).detach())
    return LogPartition(value, 0.25, 12.5, True, "by enumeration, é", {"swaps": 0.1, "r_hat": 1 / 3})


@torch.no_grad()
def total(prior: BoltzmannPrior) -> float:
    """The sum of p(z) over all states."""
    z = all_states(prior.machine.bits).to(prior.machine.bias.dtype)
    return float(prior.log_prob(z, hard).double().exp().sum())


def by_file(state: dict[str, Tensor], tmp_path: Path) -> dict[str, Tensor]:
    save_tensors(tmp_path / "state.safetensors", state, {})
    return load_tensors(tmp_path / "state.safetensors")[0]


def by_torch(state: dict[str, Tensor], tmp_path: Path) -> dict[str, Tensor]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Tensor] = torch.load(file, weights_only=True)
    return loaded


ways = {"dict": lambda state, tmp_path: state, "safetensors": by_file, "torch": by_torch}


def old(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as it was before log Z and labels were in it."""
    return {name: tensor for name, tensor in state.items() if not name.endswith("_extra_state")}


# --- log Z: saved ---


@every_structure
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("way", ways.values(), ids=ways)
def test_log_z_goes_where_the_weights_go(
    make: Callable[[int], BoltzmannMachine], dtype: torch.dtype, way: Any, tmp_path: Path
) -> None:
    prior, fresh = chain_prior(make, 0, dtype), chain_prior(make, 5, dtype, known=False)
    fresh.load_state_dict(way(prior.state_dict(), tmp_path))
    assert fresh.log_partition == prior.log_partition
    assert fresh.log_partition_is_current
    assert total(fresh) == pytest.approx(1, rel=1e-5 if dtype == torch.float32 else 1e-12)


@every_sampler
def test_log_z_goes_with_the_weights_of_a_whole_model(sampler: Sampler) -> None:
    model, fresh = (
        tiny_model(chain_prior(structures["rbm"], seed, known=seed == 0, sampler=sampler), (2, 4), seed=seed)
        for seed in (0, 5)
    )
    fresh.load_state_dict(model.state_dict())
    assert total(fresh.prior) == pytest.approx(1, rel=1e-12)
    bounds = []
    for each in (model, fresh):
        torch.manual_seed(1)
        bounds.append(importance_weighted(each, images(), 5).detach())
    assert torch.equal(*bounds)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_a_state_dict_holds_tensors_alone_and_comes_back_as_it_is(exact: bool, known: bool, tmp_path: Path) -> None:
    prior = BoltzmannPrior(structures["graph"](0)) if exact else chain_prior(structures["graph"], known=known)
    if exact and known:
        prior.estimate_log_partition()
    state = prior.state_dict()
    assert all(isinstance(tensor, Tensor) for tensor in state.values())
    fresh = BoltzmannPrior(structures["graph"](5), prior.chains, exact_bits=16 if exact else 0)
    fresh.load_state_dict(by_file(state, tmp_path))
    again = fresh.state_dict()
    assert again.keys() == state.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in state.items())


def test_copies_keep_what_they_were_copied_with() -> None:
    prior = chain_prior(structures["graph"])
    for other in (copy.deepcopy(prior), pickle.loads(pickle.dumps(prior))):
        assert other.log_partition == prior.log_partition
        assert other.machine.labels == prior.machine.labels
        assert total(other) == pytest.approx(1, rel=1e-12)
        other.load_state_dict(prior.state_dict())
        with torch.no_grad():
            other.machine.bias.add_(1.0)
        assert total(prior) == pytest.approx(1, rel=1e-12)


@every_structure
def test_a_state_dict_of_before_loads_and_leaves_a_fresh_prior_without_log_z(
    make: Callable[[int], BoltzmannMachine],
) -> None:
    prior, fresh = chain_prior(make), chain_prior(make, 5, known=False)
    fresh.load_state_dict(old(prior.state_dict()), strict=True)
    assert fresh.log_partition is None
    z = all_states(prior.machine.bits)
    torch.testing.assert_close(fresh.machine.energy(z), prior.machine.energy(z))
    wrong = {**old(prior.state_dict()), "another": torch.zeros(1)}
    with pytest.raises(RuntimeError, match="another"):
        fresh.load_state_dict(wrong)


@pytest.mark.parametrize("name", ["_extra_state", "machine._extra_state"])
@pytest.mark.parametrize(
    "text", [b"", b"{", b"3", b"[1]", b"\xff\xfe", b"null and more", b"{}", b'{"log_partition": {"value": 1}}']
)
def test_a_state_whose_text_is_damaged_is_refused_in_a_sentence(name: str, text: bytes) -> None:
    state = chain_prior(structures["rbm"]).state_dict()
    spoiled = torch.tensor(list(text), dtype=torch.uint8)
    for damaged in (spoiled, spoiled.float()):
        with pytest.raises(InputError) as error:
            chain_prior(structures["rbm"], 5).load_state_dict({**state, name: damaged})
        assert "\n" not in str(error.value)


# --- log Z: refused where there is none, or that of other parameters ---

Z = all_states(6)
askers: dict[str, Callable[..., Tensor]] = {
    "log_prob": lambda model, **k: model.prior.log_prob(Z, hard, **k),
    "log_prob_bits": lambda model, **k: model.prior.log_prob_bits(Z, Z, **k),
    "log_weight": lambda model, **k: log_weight(model, images(), hard, 2, **k),
    "log_weight-soft": lambda model, **k: log_weight(model, images(), model.smoothing, **k),
    "importance_weighted": lambda model, **k: importance_weighted(model, images(), 3, **k),
    "importance_weighted-soft": lambda model, **k: importance_weighted(model, images(), 3, model.smoothing, **k),
}
every_asker = pytest.mark.parametrize("ask", askers.values(), ids=askers)


def model_of(known: bool) -> FeedForwardVAE:
    return tiny_model(chain_prior(structures["rbm"], known=known), (2, 4))


@every_asker
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
def test_no_likelihood_is_given_without_log_z(ask: Callable[..., Tensor], training: bool, gradients: bool) -> None:
    model = model_of(known=False).train(training)
    with nullcontext() if gradients else torch.no_grad():
        with pytest.raises(InputError, match=r"call model\.prior\.estimate_log_partition\(\)"):
            ask(model)
        model.prior.estimate_log_partition(temperatures=5, chains=5)
        ask(model)


@every_asker
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
def test_no_likelihood_is_given_with_the_log_z_of_other_parameters(
    ask: Callable[..., Tensor], training: bool, gradients: bool
) -> None:
    model = model_of(known=True).train(training)
    with nullcontext() if gradients else torch.no_grad():
        for parameter in model.prior.parameters():
            ask(model)
            before = parameter.detach().clone()
            parameter.data.view(-1)[-1] += 1e-6  # as optimisers with .data do it, too
            with pytest.raises(InputError, match=r"call model\.prior\.estimate_log_partition\(\)"):
                ask(model)
            parameter.data.copy_(before)
        ask(model)


@every_structure
def test_log_z_is_that_of_the_distribution_not_of_unused_numbers(make: Callable[[int], BoltzmannMachine]) -> None:
    prior = chain_prior(make)
    m = prior.machine
    with torch.no_grad():
        for s, coupling in zip(m.slices[1:], m.couplings, strict=True):
            for i, j in itertools.product(range(s.start), range(s.stop - s.start)):
                before = coupling[i, j].clone()
                coupling[i, j] += 1.0
                used = m.mask is None or bool(m.mask[i, s.start + j])
                assert prior.log_partition_is_current is not used
                if not used:
                    assert total(prior) == pytest.approx(1, rel=1e-12)
                coupling[i, j] = before
        assert prior.log_partition_is_current
        if m.mask is not None:
            i, j = m.mask.nonzero()[0].tolist()
            m.mask[i, j] = False
            assert not prior.log_partition_is_current


@every_structure
def test_an_exact_prior_needs_no_estimate(make: Callable[[int], BoltzmannMachine]) -> None:
    prior = BoltzmannPrior(make(0))
    assert total(prior) == pytest.approx(1, rel=1e-12)
    prior.estimate_log_partition()
    with torch.no_grad():
        prior.machine.bias.add_(1.0)
    assert total(prior) == pytest.approx(1, rel=1e-12)
    with pytest.raises(InputError, match="needs log Z"):  # which it reports
        score(tiny_model(BoltzmannPrior(machine(3, 3)), (3, 3)), images(), 2)


@every_structure
def test_another_precision_of_the_same_numbers_keeps_log_z_and_rounded_numbers_do_not(
    make: Callable[[int], BoltzmannMachine],
) -> None:
    prior = chain_prior(make, dtype=torch.float32)
    assert prior.double().log_partition_is_current
    assert total(prior) == pytest.approx(1, rel=1e-12)
    assert prior.float().log_partition_is_current
    assert not copy.deepcopy(prior).bfloat16().log_partition_is_current
    assert not copy.deepcopy(prior).bfloat16().float().log_partition_is_current
    rounded = BoltzmannPrior(make(0).bfloat16().float(), samplers["gibbs"], exact_bits=0)
    rounded.log_partition = enumerated(rounded)
    assert rounded.bfloat16().log_partition_is_current


def test_weights_that_are_rounded_when_they_are_loaded_are_not_those_of_their_log_z() -> None:
    prior = chain_prior(structures["rbm"], dtype=torch.float64)
    for dtype, current in ((torch.float64, True), (torch.float32, False), (torch.bfloat16, False)):
        fresh = chain_prior(structures["rbm"], 5, dtype, known=False)
        fresh.load_state_dict(prior.state_dict())
        assert fresh.log_partition == prior.log_partition
        assert fresh.log_partition_is_current is current


def test_numbers_of_numpy_and_infinite_ones_are_saved() -> None:
    prior, fresh = chain_prior(structures["rbm"]), chain_prior(structures["rbm"], 5)
    prior.log_partition = LogPartition(-math.inf, math.inf, None, False, "", {"a": np.float64(0.5)})
    fresh.load_state_dict(prior.state_dict())
    assert fresh.log_partition == prior.log_partition
    named = [
        BoltzmannMachine(2, 1, labels=[kind(k) for k in order]) for kind, order in ((np.int64, "021"), (int, "102"))
    ]
    named[1].load_state_dict(named[0].state_dict())
    assert named[1].labels == named[0].labels == (0, 2, 1)


def test_weights_loaded_with_their_log_z_are_current_and_without_it_are_not() -> None:
    prior, other = chain_prior(structures["rbm"], 0), chain_prior(structures["rbm"], 5)
    other.machine.load_state_dict(prior.machine.state_dict())
    assert not other.log_partition_is_current
    other.load_state_dict(prior.state_dict())
    assert total(other) == pytest.approx(1, rel=1e-12)
    other = chain_prior(structures["rbm"], 5)
    alone = {name: tensor for name, tensor in prior.state_dict().items() if "machine" not in name}
    other.load_state_dict(alone, strict=False)
    assert not other.log_partition_is_current
    other.load_state_dict(chain_prior(structures["rbm"], 0, known=False).state_dict())
    assert other.log_partition is None


def test_a_stale_log_z_is_stale_wherever_it_goes_and_still_what_a_loss_rests_on() -> None:
    prior, fresh = chain_prior(structures["rbm"]), chain_prior(structures["rbm"], 5, known=False)
    before = prior.machine.bias.detach().clone()
    with torch.no_grad():
        prior.machine.bias.add_(1.0)
    fresh.load_state_dict(prior.state_dict())
    assert not fresh.log_partition_is_current
    assert float(fresh.log_z().detach()) == pytest.approx(prior.log_partition.value, rel=1e-15)
    with torch.no_grad():
        fresh.machine.bias.copy_(before)
    assert total(fresh) == pytest.approx(1, rel=1e-12)


# --- without log Z, when asked for ---


softs = (hard, exponential(6.0).smoothing, logistic(4.0).smoothing)
densities = [(name, soft) for name in every_prior for soft in softs if name != "rbm-chains" or soft is hard]


@pytest.mark.parametrize(("name", "soft"), densities, ids=str)
def test_an_unnormalised_density_is_higher_by_log_z_and_has_the_gradient_of_the_normalised_one(
    name: str, soft: Any
) -> None:
    prior = every_prior[name].make()
    zeta = Z if soft is hard else torch.rand(9, 6, dtype=torch.float64)
    log_z = brute_force_log_z(prior.machine).detach() if isinstance(prior, BoltzmannPrior) else torch.zeros(())
    found, normalised = prior.log_prob(zeta, soft, unnormalised=True), prior.log_prob(zeta, soft)
    torch.testing.assert_close(found, normalised + log_z, rtol=1e-10, atol=1e-9)
    if soft is hard:
        torch.testing.assert_close(found, log_prior(prior, Z, Z) + log_z, rtol=1e-9, atol=1e-9)
    weight, parameters = torch.randn(len(zeta), dtype=torch.float64), list(prior.parameters())
    gradients = [flat_gradient((weight * value).sum(), parameters) for value in (found, normalised)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@every_asker
@pytest.mark.parametrize("known", ["never", "stale", "current"])
def test_unnormalised_weights_need_no_log_z_are_higher_by_it_and_have_the_same_gradient(
    ask: Callable[..., Tensor], known: str
) -> None:
    model, without = model_of(known=True), model_of(known=known == "current")
    without.prior.states.copy_(model.prior.states)
    if known == "stale":
        with torch.no_grad():
            without.prior.machine.bias.zero_()
            without.prior.log_partition = LogPartition(1e3, 0.0, None, True, "of others")
            without.prior.machine.bias.copy_(model.prior.machine.bias)
    log_z = model.prior.log_partition.value
    values, gradients = [], []
    for each, asked in ((model, {}), (without, {"unnormalised": True})):
        torch.manual_seed(3)
        value = ask(each, **asked)
        values.append(value.detach())
        if value.requires_grad:
            gradients.append(flat_gradient(value.sum(), list(each.parameters())))
    torch.testing.assert_close(values[1], values[0] + log_z, rtol=1e-10, atol=1e-10)
    if gradients:
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def _never(prior: Any) -> bool:
    raise AssertionError("a training step compared parameters")


def trainable(objective: Any, smoothing: Any = None) -> Any:
    return lambda: (tiny_model(chain_prior(structures["rbm"], known=False), (2, 4), smoothing), objective)


losses = {
    "joint": trainable(joint_elbo),
    "joint-straight": trainable(joint_elbo, StraightThrough()),
    "marginal-straight": trainable(marginal_elbo, StraightThrough()),
    "rolfe": trainable(rolfe_elbo, SpikeExponential(3.0)),
    "importance": trainable(lambda model, x: importance_weighted(model, x, 2, unnormalised=True)),
}


@pytest.mark.parametrize("make", losses.values(), ids=losses)
@pytest.mark.parametrize("stale", [True, False])
def test_a_training_step_goes_on_without_log_z_and_compares_no_parameters(
    make: Any, stale: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, objective = make()
    if stale:
        model.prior.log_partition = enumerated(model.prior)
        with torch.no_grad():
            model.prior.machine.bias.add_(1.0)
    monkeypatch.setattr(BoltzmannPrior, "log_partition_is_current", property(_never))
    model.prior.refresh()
    loss = -objective(model, images()).mean()
    torch.autograd.backward(loss)
    assert bool(loss.isfinite())
    assert all(bool(p.grad.isfinite().all()) and bool(p.grad.any()) for p in model.prior.parameters())


def test_the_loss_of_the_marginal_bound_is_what_it_was() -> None:
    """log q(z | x) - log p(z) with log Z as last estimated, or the chains' surrogate."""
    for known in (True, False):
        model = tiny_model(chain_prior(structures["rbm"], known=known), (2, 4), StraightThrough())
        with torch.no_grad():
            model.prior.machine.bias.add_(0.5)  # stale, where it is known
        torch.manual_seed(2)
        found = marginal_elbo(model, images())
        torch.manual_seed(2)
        trace = model(images())
        q, zeta = trace.posterior, trace.posterior.zeta
        kl = q.log_prob() + pair_by_pair_energy(model.prior.machine, zeta) + model.prior.log_z()
        torch.testing.assert_close(found, trace.likelihood.log_prob(images()) - kl)


# --- labels ---

NAMES: tuple[Hashable, ...] = ("a", "1", 1, (0, "x"), 'é"', (0, (1, "1")))


@st.composite
def two_orders(draw: Any) -> tuple[list[tuple[Hashable, Hashable]], list[tuple[Hashable, Hashable]]]:
    """The edges of a graph, twice, in two orders and with their ends in two orders."""
    pairs = st.sampled_from(list(itertools.combinations(NAMES, 2)))
    edges = draw(st.lists(pairs, unique=True, min_size=1, max_size=9))
    turned = [(v, u) if draw(st.booleans()) else (u, v) for u, v in draw(st.permutations(edges))]
    return edges, turned


def energies(m: BoltzmannMachine, labels: Sequence[Hashable]) -> Tensor:
    """The energies of all states with the bits in the order of `labels`, pair by pair."""
    z = all_states(m.bits)[:, [labels.index(label) for label in m.labels]]
    return pair_by_pair_energy(m, z).detach()


few = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@few
@given(two_orders())
def test_weights_are_those_of_their_labels_whatever_the_order_of_the_edges(orders: Any) -> None:
    one, other = (randomise(machine_on_graph(edges), 0.8, seed) for seed, edges in enumerate(orders))
    if one.blocks != other.blocks:
        with pytest.raises(InputError, match="blocks") as error:
            other.load_state_dict(one.state_dict())
        assert "\n" not in str(error.value)
        return
    other.load_state_dict(one.state_dict())
    assert other.labels == one.labels
    assert torch.equal(other.mask, one.mask)
    torch.testing.assert_close(energies(other, one.labels), energies(one, one.labels))


PATH = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f")]
reordered = [list(reversed(PATH)), [(v, u) for u, v in reversed(PATH)], [PATH[k] for k in (2, 0, 4, 1, 3)]]


@pytest.mark.parametrize("edges", reordered)
def test_a_model_takes_over_the_order_that_its_encoder_decoder_and_chains_were_trained_in(edges: Any) -> None:
    models = []
    for seed, given_edges in ((0, PATH), (5, edges)):
        prior = chain_prior(lambda seed, e=given_edges: randomise(machine_on_graph(e), 0.8, seed), seed)
        models.append(tiny_model(prior, (2, 4), seed=seed))
    one, other = models
    assert one.prior.machine.labels != other.prior.machine.labels
    other.load_state_dict(one.state_dict())
    assert other.prior.machine.labels == one.prior.machine.labels
    assert torch.equal(other.prior.samples, one.prior.samples)
    assert total(other.prior) == pytest.approx(1, rel=1e-12)
    labels = sorted(one.prior.machine.labels)
    torch.testing.assert_close(energies(other.prior.machine, labels), energies(one.prior.machine, labels))
    torch.testing.assert_close(exact_log_likelihood(other, images()), exact_log_likelihood(one, images()))


others: dict[str, tuple[Sequence[Hashable], Sequence[Hashable]]] = {
    "another-name": ("abcd", "abce"),
    "numbers-and-texts": (("1", "2", "3", "4"), (1, 2, 3, 4)),
    "tuples-and-texts": (((0, 1), (0, 2), (1, 1), (1, 2)), ("(0, 1)", "(0, 2)", "(1, 1)", "(1, 2)")),
    "tuples": (((0, 1), (0, 2), (1, 1), (1, 2)), ((0, "1"), (0, 2), (1, 1), (1, 2))),
    "default": ("abcd", range(4)),
    "json-has-none": ("abcd", tuple(map(frozenset, "abcd"))),
}


@pytest.mark.parametrize(("there", "here"), others.values(), ids=others)
@pytest.mark.parametrize("nested", [True, False])
def test_weights_of_other_labels_are_refused_and_nothing_is_loaded(
    there: Sequence[Hashable], here: Sequence[Hashable], nested: bool
) -> None:
    one, other = (randomise(BoltzmannMachine(2, 2, labels=labels), 0.8, k) for k, labels in enumerate((there, here)))
    before = copy.deepcopy(other)
    saved, loading = (nn.ModuleDict({"machine": m}) for m in (one, other)) if nested else (one, other)
    with pytest.raises(InputError, match="label") as error:
        loading.load_state_dict(saved.state_dict())
    assert "\n" not in str(error.value)
    assert other.labels == before.labels == tuple(here)
    torch.testing.assert_close(energies(other, tuple(here)), energies(before, tuple(here)))


@pytest.mark.parametrize("blocks", [(2, 3), (1, 4), (5,), (3, 1, 1), (3, 3), (1, 1, 1, 1, 1)], ids=str)
def test_weights_of_other_blocks_are_refused_in_a_sentence(blocks: tuple[int, ...]) -> None:
    one, other = machine(*blocks), machine(3, 2, seed=5)
    before = copy.deepcopy(other)
    for state in (one.state_dict(), old(one.state_dict())):
        with pytest.raises(InputError, match="blocks") as error:
            other.load_state_dict(state)
        assert "\n" not in str(error.value)
    torch.testing.assert_close(energies(other, range(5)), energies(before, range(5)))


class Colour(Enum):
    RED = 1
    BLUE = 2
    GREEN = 3
    GREY = 4


@pytest.mark.parametrize(
    "names",
    [
        [frozenset(name) for name in ("ab", "c", "de", "f")],
        [date(2020, 1, day) for day in (1, 2, 3, 4)],
        [Fraction(1, n) for n in (2, 3, 4, 5)],
        [b"a", b"b", b"c", b"d"],
        list(Colour),
        [1j, 2j, 3j, 4j],
        [(frozenset("a"), n) for n in range(4)],
    ],
    ids=lambda names: type(names[0]).__name__,
)
def test_labels_that_json_has_not_are_compared_by_their_text(names: list[Hashable], tmp_path: Path) -> None:
    edges = [(names[0], names[1]), (names[1], names[2]), (names[2], names[3])]
    one = randomise(machine_on_graph(edges), 0.8, 0)
    other = machine_on_graph([(b, a) for a, b in reversed(edges)])
    other.load_state_dict(by_file(one.state_dict(), tmp_path))
    assert other.labels == one.labels
    z = all_states(4)
    torch.testing.assert_close(other.double().energy(z), one.double().energy(z))
    with pytest.raises(InputError, match="labels of bits"):
        machine_on_graph([("a", "b"), ("b", "c"), ("c", "d")]).load_state_dict(one.state_dict())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ([(0, 1), (1, 2), (2, 3), (3, 0)], [(0, 1), (1, 2), (2, 3)]),
        ([("a", "b"), ("b", "c"), ("c", "d")], [("a", "b"), ("b", "d"), ("c", "d")]),
    ],
)
def test_weights_of_a_machine_whose_other_bits_interact_are_refused(theirs: Any, ours: Any) -> None:
    here = machine_on_graph(ours)
    mask = here.mask
    with pytest.raises(InputError, match="other bits interact"):
        here.load_state_dict(machine_on_graph(theirs).state_dict())
    assert here.mask is mask


def test_a_model_whose_bits_are_named_otherwise_is_left_as_it_was() -> None:
    def model(names: str) -> dvaepp.FeedForwardVAE:
        prior = BoltzmannPrior(BoltzmannMachine(2, 2, labels=list(names)))
        encoder = dvaepp.HierarchicalEncoder(dvaepp.dense(6, 4))
        return dvaepp.FeedForwardVAE(encoder, prior, dvaepp.dense(4, 6), dvaepp.OverlappingExponential(8.0))

    one, other = model("abcd"), model("abce")
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(InputError, match="labels of bits"):
        other.load_state_dict(one.state_dict())
    torch.testing.assert_close(other.state_dict(), before, rtol=0, atol=0)


def test_other_chains_are_refused_in_a_sentence() -> None:
    five, six = (BoltzmannPrior(BoltzmannMachine(3, 2), PersistentChains(n, 1), exact_bits=0) for n in (5, 6))
    for prior, other in ((five, six), (five, BoltzmannPrior(BoltzmannMachine(3, 2)))):
        with pytest.raises(InputError, match=r"chains \(5,\) does not fit one with chains \([60],\)"):
            other.load_state_dict(prior.state_dict())


def test_a_log_z_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)  # a user has no type checks
    prior = BoltzmannPrior(BoltzmannMachine(3, 2), PersistentChains(5, 1), exact_bits=0)
    with pytest.raises(InputError, match="must be a LogPartition, not 12.0"):
        prior.log_partition = 12.0  # type: ignore[assignment]
    with torch.no_grad():
        prior.machine.bias.fill_(math.nan)
    prior.estimate_log_partition(temperatures=3, chains=3)
    with pytest.raises(InputError, match="log Z is nan"):
        prior.log_prob(torch.ones(2, 5), hard)


@every_structure
def test_weights_of_the_same_machine_and_of_before_load_as_ever(make: Callable[[int], BoltzmannMachine]) -> None:
    for keep in (dict, old):
        one, other = make(0), make(5)
        labels = other.labels
        other.load_state_dict(keep(one.state_dict()))
        assert other.labels == labels
        torch.testing.assert_close(energies(other, labels), energies(one, labels))


# --- runs ---

SMALL = [
    "model.groups=[6,6]", "model.hidden=[]", "model.batch_norm=false", "training.steps=2", "training.batch=20",
    "training.validation_examples=5", "training.validation_temperatures=5", "training.validation_chains=5",
    "training.validation_samples=3", "model.chains=4", "model.sweeps=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of a machine that has chains, since log Z cannot be had exactly."""
    recipe = override(catalogue.find("quick/rbm", "tiny"), [*SMALL, "model.groups=[20,20]"])
    folder = tmp_path_factory.mktemp("state") / "run"
    run = RunFolder.create(recipe, folder, seed=0, device="cpu", threads=1, data_dir=None, command="test")
    run.trainer().fit()
    return run


def test_a_trained_model_comes_with_its_log_z(trained: RunFolder) -> None:
    for last in (False, True):
        model: Any = trained.model(last).model
        assert not model.prior.exact
        assert model.prior.log_partition_is_current
        assert bool(importance_weighted(model, torch.zeros(2, 784), 3).isfinite().all())
    assert trained.trainer().model.prior.log_partition == model.prior.log_partition


def test_log_z_is_in_the_checkpoints_in_one_place(trained: RunFolder, tmp_path: Path) -> None:
    for name in ("best", "checkpoint"):
        tensors, about = load_tensors(trained.folder / f"{name}.safetensors")
        assert "log_partition" not in about
        assert "model.prior._extra_state" in tensors


def test_checkpoints_of_before_load_with_the_log_z_of_their_header(trained: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("best.safetensors", "checkpoint.safetensors"):
        tensors, about = load_tensors(trained.folder / name)
        header = {"value": 12.5, "standard_error": 0.5, "effective_sample_size": 3.0, "trusted": False, "method": "old"}
        then = {**about, "log_partition": {**header, "diagnosis": {"r_hat": 1.5}}}
        save_tensors(tmp_path / "run" / name, old(tensors), then)
    for name in ("run.json", "metrics.jsonl"):
        (tmp_path / "run" / name).write_bytes((trained.folder / name).read_bytes())
    before = RunFolder(tmp_path / "run")
    for prior in (before.model().model.prior, before.model(last=True).model.prior, before.trainer().model.prior):
        assert prior.log_partition == LogPartition(12.5, 0.5, 3.0, False, "old", {"r_hat": 1.5})
        assert prior.log_partition_is_current
