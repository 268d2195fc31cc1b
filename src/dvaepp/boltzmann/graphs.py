"""Boltzmann machines on given graphs: colour classes become blocks, so that block Gibbs sampling is chromatic."""

from __future__ import annotations

import csv
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

import networkx
import torch

from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError, nearest
from dvaepp.storage import AnyPath

_COLOURINGS = ("DSATUR", "smallest_last", "largest_first")


def machine_on_graph(graph: networkx.Graph | Iterable[tuple[Hashable, Hashable]]) -> BoltzmannMachine:
    """The machine with a bit for each node of a graph and a coupling for each edge.

    `graph` is a networkx graph or its edges. Blocks are the classes of a colouring (the one with the fewest colours
    that greedy strategies find), the largest first; `machine.labels` says which node each bit is. The order of the
    edges decides, those of a set, whose order is chance, being sorted by their text. Raises InputError for a graph
    without nodes or with an edge from a node to itself.

    >>> machine = machine_on_graph([("a", "b"), ("b", "c"), ("c", "d")])
    >>> machine.blocks, machine.labels
    ((2, 2), ('b', 'd', 'a', 'c'))
    """
    if isinstance(graph, set | frozenset):
        graph = sorted(graph, key=repr)
    try:
        graph = networkx.Graph(graph if isinstance(graph, networkx.Graph) else [(u, v) for u, v in graph])
    except (TypeError, ValueError, networkx.NetworkXError):
        raise InputError("a machine's graph must be a networkx graph or its edges, pairs of nodes") from None
    if not len(graph) or any(u == v for u, v in graph.edges):
        raise InputError("a machine's graph must have nodes, and no edge from a node to itself")
    classes = _colour_classes(graph)
    labels = [node for nodes in classes for node in nodes]
    index = {node: i for i, node in enumerate(labels)}
    mask = torch.zeros(len(labels), len(labels), dtype=torch.bool)
    if graph.edges:
        mask[tuple(torch.tensor([[index[u], index[v]] for u, v in graph.edges]).T)] = True
    return BoltzmannMachine(*map(len, classes), mask=mask, labels=labels)


def _colour_classes(graph: networkx.Graph) -> list[list[Hashable]]:
    """Sets of nodes without an edge among them, as few as can be found, the largest first, in the graph's order.

    The nodes' numbers are coloured: networkx keeps nodes in sets, whose order differs between runs for strings.
    """
    numbered = networkx.convert_node_labels_to_integers(graph)
    colourings = (networkx.greedy_color(numbered, strategy) for strategy in _COLOURINGS)
    colours = min(colourings, key=lambda colouring: max(colouring.values()))
    classes: list[list[Hashable]] = [[] for _ in range(max(colours.values()) + 1)]
    for number, node in enumerate(graph):
        classes[colours[number]].append(node)
    return sorted(classes, key=len, reverse=True)


def hardware_graph(name: str) -> networkx.Graph:
    """The graph of a D-Wave processor by its topology's name and size: chimera-4, pegasus-3, zephyr-2, ...

    Nodes are the qubits' numbers. Raises InputError for unknown names, and where dwave-graphs is not installed.
    """
    topology, _, size = name.partition("-")
    makers = _hardware_graphs()
    if topology not in makers:
        raise InputError(
            f"no hardware topology is named {topology!r}{nearest(topology, list(makers))} (one of {', '.join(makers)}, "
            "and a size, as in zephyr-2)"
        )
    least = 2 if topology == "pegasus" else 1
    if not size.isdecimal() or not least <= int(size) <= 50:
        raise InputError(f"{name!r} does not name a size from {least} to 50, as in {topology}-4")
    graph: networkx.Graph = makers[topology](int(size))
    return graph


def read_edges(path: AnyPath) -> list[tuple[str, str]]:
    """The edges of a graph in a CSV file, two names of nodes a line; InputError for anything else."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path} is not a file of edges, expected CSV with two nodes a line") from None
    rows = csv.reader((line for line in lines if line.strip()), skipinitialspace=True)
    edges = [tuple(name.strip() for name in row) for row in rows]
    for number, edge in enumerate(edges, 1):
        if len(edge) != 2 or not all(edge):
            raise InputError(f"{path}: line {number} does not name the two nodes of an edge, as in a,b")
    if not edges:
        raise InputError(f"{path} holds no edges, expected CSV with two nodes a line")
    return [(edge[0], edge[1]) for edge in edges]


def _hardware_graphs() -> dict[str, Callable[[int], Any]]:
    try:
        from dwave.graphs import chimera_graph, pegasus_graph, zephyr_graph
    except ImportError:
        raise InputError("hardware graphs need dwave-graphs: pip install 'dvaepp[dwave]'") from None
    return {"chimera": chimera_graph, "pegasus": pegasus_graph, "zephyr": zephyr_graph}
