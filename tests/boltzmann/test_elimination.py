"""Summing bit by bit against sums over all states, transfer matrices, and an independent library."""

import math
from collections.abc import Callable

import dimod
import networkx
import pytest
import torch
from dwave.samplers import TreeDecompositionSampler
from registry import (
    assert_distributed,
    assert_mean,
    brute_force_log_z,
    exact_pair_moments,
    log_boltzmann,
    machine,
    pair_moments,
    randomise,
)
from torch import Tensor

from dvaepp.boltzmann.elimination import eliminated_log_partition, eliminated_sample, elimination_width
from dvaepp.boltzmann.enumeration import bits_to_sum, can_be_sampled_exactly, exact_log_partition, exact_sample
from dvaepp.boltzmann.graphs import hardware_graph, machine_on_graph
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError


def on_graph(graph: networkx.Graph, sd: float = 1.0, seed: int = 0) -> BoltzmannMachine:
    made: BoltzmannMachine = randomise(machine_on_graph(graph), sd, seed)
    return made


def k_tree(k: int, nodes: int, seed: int) -> networkx.Graph:
    """Every further node is joined to a clique of k: the treewidth is k."""
    generator = torch.Generator().manual_seed(seed)
    graph = networkx.complete_graph(k + 1)
    cliques = [[i for i in range(k + 1) if i != left_out] for left_out in range(k + 1)]
    for node in range(k + 1, nodes):
        clique = cliques[int(torch.randint(len(cliques), (), generator=generator))]
        graph.add_edges_from((node, other) for other in clique)
        cliques += [[node, *(c for c in clique if c != left_out)] for left_out in clique]
    order = torch.randperm(nodes, generator=generator).tolist()
    return networkx.relabel_nodes(graph, dict(enumerate(order)))


grid = networkx.grid_2d_graph(3, 5)
every_graph: dict[str, networkx.Graph] = {
    "one-node": networkx.empty_graph(1),
    "no-edges": networkx.empty_graph(5),
    "edge": networkx.path_graph(2),
    "tree": networkx.random_labeled_tree(11, seed=2),
    "star": networkx.star_graph(7),
    "triangle": networkx.complete_graph(3),
    "cycle": networkx.cycle_graph(9),
    "complete": networkx.complete_graph(6),
    "two-parts": networkx.disjoint_union(networkx.cycle_graph(5), networkx.star_graph(4)),
    "isolated": networkx.disjoint_union(networkx.empty_graph(2), networkx.complete_graph(4)),
    "grid": grid,
    "petersen": networkx.petersen_graph(),
    **{f"random-{seed}": networkx.gnp_random_graph(10, 0.35, seed=seed) for seed in range(4)},
    "2-tree": k_tree(2, 11, 0),
}
every_machine: dict[str, Callable[[], BoltzmannMachine]] = {
    **{name: lambda graph=graph: on_graph(graph) for name, graph in every_graph.items()},
    "strong": lambda: on_graph(every_graph["random-1"], sd=6.0),
    "without-mask": lambda: machine(3, 2, 2),
    "single-block": lambda: machine(4),
}
machines = pytest.mark.parametrize("make", every_machine.values(), ids=every_machine)
small = {
    name: every_machine[name] for name in ("edge", "triangle", "complete", "isolated", "single-block", "without-mask")
}


@machines
def test_log_z_is_the_sum_over_all_states_and_its_gradient_the_moments(make: Callable[[], BoltzmannMachine]) -> None:
    m = make()
    log_z, exact = eliminated_log_partition(m), brute_force_log_z(m)
    assert log_z.shape == ()
    torch.testing.assert_close(log_z, exact, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(exact_log_partition(m), exact, rtol=1e-9, atol=1e-8)
    parameters = list(m.parameters())
    found = torch.autograd.grad(log_z, parameters, allow_unused=True, materialize_grads=True)
    expected = torch.autograd.grad(exact, parameters, allow_unused=True, materialize_grads=True)
    for gradient, other in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", list(small))
def test_draws_have_the_enumerated_distribution(name: str) -> None:
    m = small[name]()
    z = eliminated_sample(m, 40_000)
    assert z.dtype == m.bias.dtype
    assert_distributed(z, log_boltzmann(m))


@machines
def test_draws_have_the_enumerated_moments(make: Callable[[], BoltzmannMachine]) -> None:
    m = make()
    exact, samples = exact_pair_moments(m), pair_moments(eliminated_sample(m, 20_000))
    unsettled = (exact * (1 - exact)) > 1e-3  # rarer events have no normal errors in 20,000 draws
    assert_mean(samples[:, unsettled], exact[unsettled])
    torch.testing.assert_close(samples.mean(0), exact, rtol=0, atol=5 * 0.5 / math.sqrt(20_000))


@pytest.mark.parametrize("nodes", [2, 60])
def test_a_chain_is_the_product_of_its_transfer_matrices(nodes: int) -> None:
    m = on_graph(networkx.path_graph(nodes), sd=1.5)
    bit = {label: i for i, label in enumerate(m.labels)}
    couplings, bias = m.coupling_matrix().detach(), m.bias.detach()
    row = torch.tensor([0.0, float(bias[bit[0]])], dtype=torch.float64)
    for node in range(1, nodes):
        i, j = sorted((bit[node - 1], bit[node]))
        pair = torch.tensor([[0.0, 0.0], [0.0, float(couplings[i, j])]], dtype=torch.float64)
        row = torch.logsumexp(row[:, None] + pair, 0) + torch.tensor([0.0, float(bias[bit[node]])], dtype=torch.float64)
    assert bits_to_sum(m) == 1
    torch.testing.assert_close(exact_log_partition(m), torch.logsumexp(row, 0), rtol=1e-12, atol=1e-12)
    marginals = torch.autograd.grad(exact_log_partition(m), m.bias)[0]
    assert_mean(exact_sample(m, 20_000), marginals)


@pytest.mark.parametrize("name", ["pegasus-2", "chimera-2"])
@pytest.mark.parametrize("sd", [0.3, 2.0])
def test_a_processors_log_z_agrees_with_tree_decomposition(name: str, sd: float) -> None:
    m = on_graph(hardware_graph(name), sd=sd)
    couplings = m.coupling_matrix().detach()
    linear = {i: -b for i, b in enumerate(m.bias.tolist())}
    quadratic = {(int(i), int(j)): -float(couplings[i, j]) for i, j in couplings.nonzero()}
    model = dimod.BinaryQuadraticModel(linear, quadratic, 0.0, "BINARY")
    found = TreeDecompositionSampler().sample(model, num_reads=1, beta=1.0, marginals=False)
    expected = float(found.info["log_partition_function"])
    assert exact_log_partition(m).item() == pytest.approx(expected, rel=1e-9)


# --- width ---


@pytest.mark.parametrize(
    ("graph", "width"),
    [
        (networkx.empty_graph(5), 0),
        (networkx.path_graph(40), 1),
        (networkx.random_labeled_tree(30, seed=1), 1),
        (networkx.star_graph(30), 1),
        (networkx.cycle_graph(40), 2),
        (networkx.complete_graph(7), 6),
        (networkx.complete_bipartite_graph(3, 9), 3),
        (networkx.grid_2d_graph(3, 5), 3),
        (networkx.grid_2d_graph(4, 4), 4),
        *[(k_tree(k, 30, seed), k) for k in (2, 3, 5) for seed in (0, 1)],
    ],
    ids=str,
)
def test_the_width_is_that_of_known_graphs(graph: networkx.Graph, width: int) -> None:
    m = machine_on_graph(graph)
    assert elimination_width(m) == width
    assert bits_to_sum(m) == min(width, len(graph) - max(m.blocks))


def test_without_a_mask_every_other_bit_is_joined() -> None:
    m = BoltzmannMachine(3, 4)
    assert elimination_width(m) == 6
    assert bits_to_sum(m) == m.enumerated_bits == 3


def test_graphs_too_wide_to_be_summed_are_refused_at_once() -> None:
    m = machine_on_graph(hardware_graph("zephyr-3"))
    assert elimination_width(m) > 30
    assert not can_be_sampled_exactly(m)
    for refused in (exact_log_partition, eliminated_log_partition, lambda m: exact_sample(m, 3)):
        with pytest.raises(InputError, match="sum"):
            refused(m)


def test_it_keeps_the_dtype_and_draws_nothing_for_log_z() -> None:
    m = on_graph(grid)
    generator, value = torch.get_rng_state(), eliminated_log_partition(m)
    assert torch.equal(generator, torch.get_rng_state())
    narrow = eliminated_log_partition(m.float())
    assert narrow.dtype == torch.float32
    assert eliminated_sample(m, 3).dtype == torch.float32
    assert narrow.item() == pytest.approx(value.item(), rel=1e-6)


def test_draws_are_set_by_the_generator_and_independent_of_each_other() -> None:
    m = on_graph(every_graph["cycle"])
    torch.manual_seed(3)
    z: Tensor = eliminated_sample(m, 10_000)
    torch.manual_seed(3)
    assert torch.equal(eliminated_sample(m, 10_000), z)
    assert set(z.unique().tolist()) == {0.0, 1.0}
    assert eliminated_sample(m, 0).shape == (0, 9)
    centred = z - z.mean(0)
    next_to_it = (centred[:-1] * centred[1:]).mean(0) / centred.square().mean(0)
    assert float(next_to_it.abs().max()) < 5 / math.sqrt(10_000)


def test_nothing_is_lost_of_a_machine_of_many_bits() -> None:
    bits = 500
    m = on_graph(networkx.empty_graph(bits))
    expected = sum(math.log1p(math.exp(b)) for b in m.bias.tolist())
    assert eliminated_log_partition(m).item() == pytest.approx(expected, rel=1e-12)


def test_a_machine_whose_bits_came_in_another_order_is_summed_by_the_pairs_that_were_loaded() -> None:
    pairs = torch.zeros(6, 6, dtype=torch.bool)
    for i, j in ((0, 3), (0, 4), (1, 4), (2, 5)):
        pairs[i, j] = True
    stored = randomise(BoltzmannMachine(3, 3, mask=pairs, labels="abcdef"), 1.0)
    order = [2, 0, 1, 5, 3, 4]
    symmetric = pairs | pairs.T
    other = BoltzmannMachine(3, 3, mask=symmetric[order][:, order], labels=["abcdef"[i] for i in order]).double()
    other.load_state_dict(stored.state_dict())
    assert other.labels == stored.labels
    assert bits_to_sum(other) == 1
    torch.testing.assert_close(exact_log_partition(other), brute_force_log_z(stored), rtol=1e-12, atol=1e-12)
