"""Machines on graphs against the graphs themselves: proper blocks, every node a bit, every edge a coupling."""

import sys
from pathlib import Path
from typing import Any

import networkx
import pytest
import torch
from registry import all_states, brute_force_log_z, randomise
from torch import Tensor

from dvaepp.boltzmann.graphs import hardware_graph, machine_on_graph, read_edges
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError

with_isolated = networkx.Graph([("x", "y")])
with_isolated.add_nodes_from(["alone", "too"])

every_graph: dict[str, networkx.Graph] = {
    "one-node": networkx.empty_graph(1),
    "no-edges": networkx.empty_graph(4),
    "path": networkx.path_graph(5),
    "even-cycle": networkx.cycle_graph(6),
    "odd-cycle": networkx.cycle_graph(7),
    "star": networkx.star_graph(6),
    "complete": networkx.complete_graph(5),
    "bipartite": networkx.complete_bipartite_graph(3, 4),
    "petersen": networkx.petersen_graph(),
    "grid-of-tuples": networkx.grid_2d_graph(3, 4),
    "two-parts": networkx.disjoint_union(networkx.cycle_graph(3), networkx.path_graph(4)),
    "isolated-nodes": with_isolated,
    "random": networkx.gnp_random_graph(14, 0.3, seed=1),
    "random-tree": networkx.random_labeled_tree(12, seed=1),
    "strings": networkx.relabel_nodes(networkx.gnp_random_graph(9, 0.4, seed=2), dict(enumerate("qwertyuio"))),
    "one-way-edges": networkx.DiGraph([("a", "b"), ("b", "a"), ("c", "b"), ("a", "d"), ("d", "c"), ("c", "a")]),
    "many-edges": networkx.MultiGraph([(0, 1), (0, 1), (1, 2)]),
    "chimera-1": hardware_graph("chimera-1"),
    "pegasus-2": hardware_graph("pegasus-2"),
}
graphs = pytest.mark.parametrize("graph", every_graph.values(), ids=every_graph)


def edges_of(graph: Any) -> set[frozenset[Any]]:
    return {frozenset(edge[:2]) for edge in graph.edges}


@torch.no_grad()
def joined(m: BoltzmannMachine) -> set[frozenset[Any]]:
    """The pairs of labels whose bits interact, by the energies of states with two bits set."""
    randomise(m)
    found = set()
    for i in range(m.bits):
        for j in range(i):
            single_i, single_j, pair = (torch.zeros(m.bits, dtype=torch.float64) for _ in range(3))
            single_i[i] = single_j[j] = pair[i] = pair[j] = 1
            if abs(float(m.energy(pair) - m.energy(single_i) - m.energy(single_j))) > 1e-9:
                found.add(frozenset((m.labels[i], m.labels[j])))
    return found


@graphs
def test_bits_are_the_nodes_and_couplings_the_edges(graph: networkx.Graph) -> None:
    m = machine_on_graph(graph)
    assert set(m.labels) == set(graph.nodes)
    assert len(m.labels) == m.bits == len(graph)
    assert joined(m) == edges_of(graph)


@graphs
def test_no_edge_lies_within_a_block_and_blocks_fall_in_size(graph: networkx.Graph) -> None:
    m = machine_on_graph(graph)
    block = {label: k for k, s in enumerate(m.slices) for label in m.labels[s]}
    assert all(block[u] != block[v] for u, v in edges_of(graph))
    assert list(m.blocks) == sorted(m.blocks, reverse=True)
    nodes = list(graph)
    for s in m.slices:
        assert [nodes.index(label) for label in m.labels[s]] == sorted(nodes.index(label) for label in m.labels[s])


fewest = {"one-node": 1, "no-edges": 1, "path": 2, "even-cycle": 2, "odd-cycle": 3, "star": 2, "complete": 5}
fewest |= {"bipartite": 2, "petersen": 3, "grid-of-tuples": 2, "two-parts": 3, "random-tree": 2, "isolated-nodes": 2}
fewest |= {"chimera-1": 2, "pegasus-2": 4}


@pytest.mark.parametrize(("name", "colours"), fewest.items(), ids=fewest)
def test_blocks_are_as_few_as_the_graph_allows(name: str, colours: int) -> None:
    assert len(machine_on_graph(every_graph[name]).blocks) == colours


def test_log_z_of_a_machine_on_a_graph_is_the_sum_over_its_labelled_states() -> None:
    graph = every_graph["strings"]
    m = randomise(machine_on_graph(graph))
    bit = {label: i for i, label in enumerate(m.labels)}
    couplings, z = m.coupling_matrix(), all_states(m.bits)
    terms: list[Tensor] = [m.bias[bit[u]] * z[:, bit[u]] for u in graph]
    for u, v in graph.edges:
        i, j = sorted((bit[u], bit[v]))
        terms.append(couplings[i, j] * z[:, i] * z[:, j])
    torch.testing.assert_close(torch.logsumexp(sum(terms), 0), brute_force_log_z(m))


def test_a_list_of_edges_is_a_graph() -> None:
    edges = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")]
    for given in (edges, iter(edges), networkx.Graph(edges)):
        m = machine_on_graph(given)
        assert joined(m) == {frozenset(edge) for edge in edges}
        assert m.blocks == (2, 1, 1)
        assert set(m.labels[:2]) in ({"a", "d"}, {"b", "d"})


class Named:
    """A node whose place in a set is chosen, as that of a string is by chance."""

    def __init__(self, name: int, place: int) -> None:
        self.name, self.place = name, place

    def __hash__(self) -> int:
        return self.place


@pytest.mark.parametrize(("nodes", "density", "graph_seed"), [(14, 0.5, 0), (30, 0.2, 1), (40, 0.4, 2)])
def test_the_blocks_do_not_depend_on_the_hashes_of_the_nodes(nodes: int, density: float, graph_seed: int) -> None:
    plain = networkx.gnp_random_graph(nodes, density, seed=graph_seed)
    found = set()
    for seed in range(8):
        places = torch.randperm(1000, generator=torch.Generator().manual_seed(seed)).tolist()
        named = networkx.relabel_nodes(plain, {i: Named(i, places[i]) for i in plain})
        found.add(tuple(label.name for label in machine_on_graph(named).labels))
    assert len(found) == 1


class Text(str):
    """A text whose place in a set is chosen, as that of every text is by chance."""

    place: int

    def __hash__(self) -> int:
        return self.place


@pytest.mark.parametrize("kind", [set, frozenset])
def test_the_bits_of_a_set_of_edges_do_not_depend_on_hashes(kind: Any) -> None:
    found = set()
    for seed in range(8):
        names = [Text(name) for name in "qwertyuio"]
        for name, place in zip(names, torch.randperm(99, generator=torch.Generator().manual_seed(seed)), strict=False):
            name.place = int(place)
        edges = [(names[u], names[v]) for u, v in networkx.gnp_random_graph(9, 0.4, seed=2).edges]
        m = machine_on_graph(kind(edges))
        assert joined(m) == set(map(frozenset, edges))
        found.add(tuple(map(str, m.labels)))
    assert len(found) == 1


def test_edges_in_a_list_keep_their_order() -> None:
    for edges in ([("b", "a"), ("c", "b")], [(10, 2), (2, 3)], networkx.Graph([("b", "a"), ("c", "b")]).edges):
        assert machine_on_graph(edges).labels == machine_on_graph(networkx.Graph(list(edges))).labels


@pytest.mark.parametrize(
    "graph",
    [[], networkx.Graph(), [(1, 2), (2, 2)], [("a", "a")], networkx.DiGraph([(0, 1), (1, 1)])],
    ids=["no-edges", "empty", "loop", "only-a-loop", "one-way-loop"],
)
def test_graphs_without_nodes_or_with_loops_are_refused(graph: Any) -> None:
    with pytest.raises(InputError, match="must have nodes"):
        machine_on_graph(graph)


# --- hardware ---


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "most"),
    [
        ("chimera-1", 8, 16, 4),
        ("chimera-4", 4 * 4 * 8, 16 * 4 * 4 + 2 * 4 * 4 * 3, 6),  # m^2 cells of 16 edges, 4 m (m - 1) between, twice
        ("pegasus-2", 8 * 1 * 5, None, 15),  # 8 (m - 1) (3m - 1) qubits
        ("pegasus-3", 8 * 2 * 8, None, 15),
        ("zephyr-1", 16 * 1 * 3, None, 20),  # 16 m (2m + 1) qubits
        ("zephyr-2", 16 * 2 * 5, None, 20),
    ],
)
def test_processors_have_the_known_numbers_of_qubits(name: str, nodes: int, edges: int | None, most: int) -> None:
    graph = hardware_graph(name)
    assert len(graph) == nodes
    assert edges is None or graph.number_of_edges() == edges
    assert max(degree for _, degree in graph.degree) <= most
    m = machine_on_graph(graph)
    assert m.bits == nodes
    assert m.mask is not None
    assert int(m.mask.sum()) == graph.number_of_edges()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pegasos-3", "pegasus"),
        ("", "chimera, pegasus, zephyr"),
        ("-4", "chimera, pegasus, zephyr"),
        ("Chimera-4", "chimera"),
        ("chimera", "size from 1 to 50"),
        ("chimera-", "size from 1 to 50"),
        ("chimera-0", "size from 1 to 50"),
        ("chimera-51", "size from 1 to 50"),
        ("chimera-2.5", "size from 1 to 50"),
        ("chimera-2-2", "size from 1 to 50"),
        ("zephyr--1", "size from 1 to 50"),
        ("zephyr-x", "size from 1 to 50"),
        ("pegasus-1", "size from 2 to 50"),
    ],
)
def test_names_of_no_processor_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hardware_graph(name)


def test_without_dwave_graphs_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dwave.graphs", None)
    with pytest.raises(InputError, match=r"dvaepp\[dwave\]"):
        hardware_graph("chimera-2")


# --- files of edges ---


def test_a_file_names_two_nodes_a_line(tmp_path: Path) -> None:
    path = tmp_path / "edges.csv"
    path.write_text("a,b\n\n b , c \nc,1\n")
    assert read_edges(path) == [("a", "b"), ("b", "c"), ("c", "1")]


@pytest.mark.parametrize(
    ("text", "message"), [("", "no edges"), ("\n \n", "no edges"), ("a,b\nc\n", "line 2"), ("a,b,c", "1"), ("a,", "1")]
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "edges.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_edges(path)
    with pytest.raises(InputError, match="not a file of edges"):
        read_edges(tmp_path / "none.csv")
