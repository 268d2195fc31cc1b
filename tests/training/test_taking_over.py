"""What a new model takes over of another run's weights: a Boltzmann machine whole or not at all."""

from pathlib import Path

import pytest
import torch
from registry import all_states, boltzmann_prior, brute_force_log_z, randomise, tiny_model
from torch.testing import assert_close

from dvaepp.boltzmann.enumeration import exact_log_partition
from dvaepp.boltzmann.graphs import machine_on_graph
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.storage import save_tensors
from dvaepp.training.checkpoints import TakenOver, take_over

RING = [(i, (i + 1) % 6) for i in range(6)]


def on_graph(edges: list[tuple[int, int]], seed: int) -> FeedForwardVAE:
    prior = BoltzmannPrior(randomise(machine_on_graph(edges), 1.0, seed))
    return randomise(tiny_model(prior.double(), (6,)), 1.0, seed)


def begun(model: FeedForwardVAE, other: FeedForwardVAE, path: Path) -> TakenOver:
    save_tensors(path, {f"model.{name}": tensor for name, tensor in other.state_dict().items()}, {})
    return take_over(model, path)


def test_of_a_machine_on_another_graph_nothing_is_taken(tmp_path: Path) -> None:
    ring, path = on_graph(RING, 1), on_graph(RING[:-1], 2)
    machine = path.prior.machine
    assert machine.blocks == ring.prior.machine.blocks
    before = {name: tensor.clone() for name, tensor in machine.state_dict().items()}
    taken = begun(path, ring, tmp_path / "ring.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in machine.state_dict().items())
    assert {name for name in taken.new if "machine" in name} == {f"prior.machine.{n}" for n in before if n[0] != "_"}
    assert torch.equal(path.encoder.levels[0][0].weight, ring.encoder.levels[0][0].weight)
    assert_close(exact_log_partition(machine), brute_force_log_z(machine))


@pytest.mark.parametrize("blocks", [(4, 2), (2, 2, 2)], ids=str)
def test_of_a_machine_of_other_blocks_nothing_is_taken(blocks: tuple[int, ...], tmp_path: Path) -> None:
    of, other = tiny_model(boltzmann_prior(*blocks), (6,)), tiny_model(boltzmann_prior(3, 3), (6,))
    before = of.prior.machine.bias.detach().clone()
    taken = begun(of, randomise(other, 1.0, 4), tmp_path / "other.safetensors")
    assert torch.equal(of.prior.machine.bias, before)
    assert "prior.machine.bias" in taken.new


def test_a_graph_whose_edges_come_in_another_order_is_the_same_machine(tmp_path: Path) -> None:
    ring, again = on_graph(RING, 1), on_graph([RING[k] for k in (3, 5, 0, 2, 4, 1)], 2)
    z = all_states(6)
    assert again.prior.machine.labels != ring.prior.machine.labels
    taken = begun(again, ring, tmp_path / "ring.safetensors")
    assert not taken.new
    assert again.prior.machine.labels == ring.prior.machine.labels
    assert again.prior.machine.masked_pairs == ring.prior.machine.masked_pairs
    assert_close(again.prior.machine.energy(z), ring.prior.machine.energy(z))
    assert_close(again.decoder(z), ring.decoder(z))
