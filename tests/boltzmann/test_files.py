"""Exported machines against their energies state by state, dimod's own sums, and damage to their files."""

import builtins
import io
import itertools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dimod
import networkx
import numpy as np
import pytest
import torch
from registry import all_states, log_boltzmann, machine, pair_by_pair_energy, randomise, sparse_machine

from dvaepp.boltzmann.diagnostics import effective_inverse_temperature
from dvaepp.boltzmann.enumeration import exact_sample
from dvaepp.boltzmann.files import read_model, read_states, write_model
from dvaepp.boltzmann.graphs import machine_on_graph
from dvaepp.boltzmann.ising import (
    QuadraticModel,
    machine_from,
    model_from_bqm,
    to_bqm,
    to_ising,
    to_qubo,
)
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError


def on_graph() -> BoltzmannMachine:
    """A masked machine whose labels are texts, numbers and tuples, one of them without a neighbour's block."""
    edges = [("a", 7), (7, (1, "x")), ((1, "x"), "d"), ("d", "a"), ("a", (1, "x")), ("d", 2)]
    made: BoltzmannMachine = randomise(machine_on_graph(edges), 0.8)
    return made


machines: dict[str, Callable[[], BoltzmannMachine]] = {
    "rbm": lambda: machine(3, 2),
    "three-blocks": lambda: machine(2, 3, 1),
    "full": lambda: machine(*[1] * 5),
    "no-couplings": lambda: machine(4),
    "one-bit": lambda: machine(1),
    "graph": on_graph,
}
every_machine = pytest.mark.parametrize("make", machines.values(), ids=machines.keys())
every_vartype = pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])


def export(m: BoltzmannMachine, vartype: str) -> QuadraticModel:
    return to_ising(m) if vartype == "SPIN" else to_qubo(m)


def in_variables(z: torch.Tensor, vartype: str) -> torch.Tensor:
    return 2 * z - 1 if vartype == "SPIN" else z


def log_probabilities(m: BoltzmannMachine, labels: Any) -> torch.Tensor:
    """log p of every state, with the bits in the order of `labels`."""
    z = all_states(m.bits)
    energy = pair_by_pair_energy(m, z[:, [list(labels).index(label) for label in m.labels]])
    return torch.log_softmax(-energy, 0)


# --- energies ---


@every_machine
@every_vartype
def test_energies_are_the_machines_in_every_state(make: Callable[[], BoltzmannMachine], vartype: str) -> None:
    m, z = make(), all_states(make().bits)
    energy = torch.from_numpy(export(m, vartype).energy(in_variables(z, vartype)))
    torch.testing.assert_close(energy, pair_by_pair_energy(m, z).detach(), rtol=1e-12, atol=1e-12)


@every_machine
@every_vartype
def test_a_bqm_has_the_machines_energies_by_dimods_sums(make: Callable[[], BoltzmannMachine], vartype: str) -> None:
    m, z = make(), all_states(make().bits)
    bqm = to_bqm(m, vartype)
    assert bqm.vartype is dimod.Vartype[vartype]
    assert list(bqm.variables) == list(m.labels)
    energy = torch.from_numpy(bqm.energies((in_variables(z, vartype).numpy(), list(m.labels))))
    torch.testing.assert_close(energy, pair_by_pair_energy(m, z).detach(), rtol=1e-12, atol=1e-12)


@every_machine
def test_ising_and_qubo_are_what_dimod_turns_each_into(make: Callable[[], BoltzmannMachine]) -> None:
    m = make()
    h, couplings, offset = to_bqm(m, "BINARY").to_ising()
    model = to_ising(m)
    assert h == pytest.approx(dict(zip(model.labels, model.linear, strict=True)), abs=1e-12)
    assert offset == pytest.approx(model.offset, abs=1e-12)
    ours = {frozenset((model.labels[i], model.labels[j])): q for (i, j), q in zip(model.pairs, model.quadratic)}  # noqa: B905
    assert {frozenset(pair): q for pair, q in couplings.items()} == pytest.approx(ours, abs=1e-12)
    terms, offset = to_bqm(m, "SPIN").to_qubo()
    model = to_qubo(m)
    assert offset == pytest.approx(0, abs=1e-12)
    assert [terms[label, label] for label in model.labels] == pytest.approx(model.linear.tolist(), abs=1e-12)


@every_machine
def test_the_other_variables_and_back_are_the_same_model(make: Callable[[], BoltzmannMachine]) -> None:
    model = to_qubo(make())
    back = model.as_vartype("SPIN").as_vartype("BINARY")
    np.testing.assert_allclose(back.linear, model.linear, atol=1e-12)
    np.testing.assert_allclose(back.quadratic, model.quadratic, atol=1e-12)
    assert back.offset == pytest.approx(model.offset, abs=1e-12)


def test_a_scaled_model_has_scaled_energies() -> None:
    model, s = to_ising(machine(3, 2)), 2 * all_states(5) - 1
    np.testing.assert_allclose(model.scaled(0.4).energy(s), 0.4 * model.energy(s), atol=1e-12)


def test_signs_are_physics() -> None:
    m = BoltzmannMachine(1, 1)
    with torch.no_grad():
        m.bias[0] = 3.0
        m.couplings[0].fill_(2.0)
    model = to_qubo(m)
    assert (model.linear.tolist(), model.quadratic.tolist(), model.offset) == ([-3.0, 0.0], [-2.0], 0.0)


def test_pairs_are_those_that_may_interact() -> None:
    assert to_ising(BoltzmannMachine(2, 1)).pairs.tolist() == [[0, 2], [1, 2]]
    m = machine_on_graph([("a", "b"), ("b", "c")])
    assert {frozenset(m.labels[i] for i in pair) for pair in to_ising(m).pairs} == {
        frozenset("ab"),
        frozenset("bc"),
    }


def test_models_take_states_of_their_own_values_only() -> None:
    model = to_ising(machine(3, 2))
    for states in (np.zeros((2, 5)), np.ones((2, 4)), np.full((2, 5), np.nan)):
        with pytest.raises(InputError, match="SPIN model of 5 bits takes states of that many -1 or 1"):
            model.energy(states)


# --- machines that come back ---


@every_machine
@every_vartype
def test_a_machine_that_went_out_comes_back_with_its_distribution(
    make: Callable[[], BoltzmannMachine], vartype: str, tmp_path: Path
) -> None:
    m = make()
    path = tmp_path / "folder" / "model.json"
    write_model(path, export(m, vartype))
    for back in (
        machine_from(read_model(path), torch.float64),
        machine_from(to_bqm(m, vartype), torch.float64),
    ):
        assert set(back.labels) == set(m.labels)
        expected = log_boltzmann(m).detach()
        torch.testing.assert_close(log_probabilities(back, m.labels).detach(), expected, rtol=1e-11, atol=1e-11)


ordered: dict[str, Callable[[], BoltzmannMachine]] = {
    **machines,
    "rising-blocks": lambda: machine(1, 2, 3),
    "rising-masked": lambda: sparse_machine(2, 3, 1, pairs=[(0, 2), (1, 3), (4, 5), (0, 5)]),
    "no-pairs": lambda: sparse_machine(2, 1, pairs=[]),
    "named": lambda: randomise(BoltzmannMachine(2, 2, labels=["d", "a", (1, "c"), 7])),
}
routes: dict[str, Callable[[BoltzmannMachine, Path], QuadraticModel]] = {
    "qubo": lambda m, path: to_qubo(m),
    "ising": lambda m, path: to_ising(m),
    "back-and-forth": lambda m, path: to_qubo(m).as_vartype("SPIN").as_vartype("BINARY"),
    "scaled": lambda m, path: to_ising(m).scaled(0.25).scaled(4.0),
    "qubo-file": lambda m, path: write_and_read(to_qubo(m), path),
    "ising-file": lambda m, path: write_and_read(to_ising(m), path),
}


def write_and_read(model: QuadraticModel, folder: Path) -> QuadraticModel:
    write_model(folder / "m.json", model)
    return read_model(folder / "m.json")


@pytest.mark.parametrize("make", ordered.values(), ids=ordered)
@pytest.mark.parametrize("route", routes.values(), ids=routes)
def test_a_machine_that_went_out_comes_back_in_its_order_of_bits_and_blocks(
    make: Callable[[], BoltzmannMachine], route: Callable[[BoltzmannMachine, Path], QuadraticModel], tmp_path: Path
) -> None:
    m = make()
    back = machine_from(route(m, tmp_path), torch.float64)
    assert (back.labels, back.blocks) == (m.labels, m.blocks)
    z = all_states(m.bits)
    torch.testing.assert_close(back.energy(z), m.energy(z), rtol=1e-12, atol=1e-12)
    every_pair = (torch.block_diag(*(torch.ones(size, size) for size in m.blocks)) == 0).triu()
    mask = every_pair if m.mask is None else m.mask
    assert torch.equal(every_pair if back.mask is None else back.mask, mask)
    assert (back.mask is None) == torch.equal(mask, every_pair)


sampled: dict[str, Callable[[], BoltzmannMachine]] = {
    "rbm": lambda: machine(3, 7, sd=1.5),
    "three-blocks": lambda: machine(1, 4, 6, sd=1.5),
    **{
        f"graph-{n}-{seed}": lambda n=n, seed=seed: randomise(
            machine_on_graph(networkx.gnp_random_graph(n, 0.3, seed=seed)), 1.5
        )
        for n, seed in ((12, 6), (14, 6), (16, 2))
    },
}


@pytest.mark.parametrize("make", sampled.values(), ids=sampled)
def test_a_plain_file_of_samples_is_of_the_machine_that_was_written(
    make: Callable[[], BoltzmannMachine], tmp_path: Path
) -> None:
    m = make()
    z = exact_sample(m, 4000)
    (tmp_path / "s.csv").write_text(as_lines(z.int().numpy(), ","))
    back = machine_from(write_and_read(to_ising(m), tmp_path))
    states = read_states(tmp_path / "s.csv", back)
    torch.testing.assert_close(back.energy(states).double(), m.energy(z), rtol=1e-5, atol=1e-5)
    assert effective_inverse_temperature(back, states) == pytest.approx(1, abs=0.15)


@every_machine
def test_a_file_of_before_is_coloured_as_before(make: Callable[[], BoltzmannMachine], tmp_path: Path) -> None:
    model = to_ising(make())
    write_model(tmp_path / "m.json", model)
    value = json.loads((tmp_path / "m.json").read_text())
    value.pop("blocks", None)
    (tmp_path / "m.json").write_text(json.dumps(value))
    back = machine_from(read_model(tmp_path / "m.json"))
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(model.labels)))
    graph.add_edges_from(model.pairs.tolist())
    coloured = machine_on_graph(graph)
    assert back.blocks == coloured.blocks
    assert back.labels == tuple(model.labels[i] for i in coloured.labels)  # type: ignore[index]
    assert torch.equal(back.mask, coloured.mask)  # type: ignore[arg-type]


bad_blocks: dict[str, tuple[Any, str]] = {
    "text": ("2,1", "blocks .* must be"),
    "number": (3, "blocks .* must be"),
    "float": ([2.0, 1.0], "blocks .* must .* whole numbers"),
    "bool": ([2, True], "blocks .* must .* whole numbers"),
    "negative": ([4, -1], "blocks .* must be positive whole numbers that add up to 3"),
    "zero": ([2, 0, 1], "blocks .* must be positive whole numbers that add up to 3"),
    "sum": ([2, 2], "blocks .* must be positive whole numbers that add up to 3"),
    "none": ([], "blocks .* must be positive whole numbers that add up to 3"),
    "huge": ([10**30], "blocks .* too large"),
    "pair-within": ([3], "join bits of one block"),
    "pair-within-two": ([1, 2], "join bits of one block"),
}


@pytest.mark.parametrize(("blocks", "message"), bad_blocks.values(), ids=bad_blocks)
def test_blocks_that_do_not_fit_are_named_in_a_sentence(blocks: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_model(path, to_ising(machine(2, 1)))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"blocks": blocks}))
    with pytest.raises(InputError, match=message) as error:
        read_model(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@every_vartype
def test_an_offset_is_a_constant_of_the_energy_and_no_part_of_p(vartype: str) -> None:
    model = export(machine(3, 2), vartype)
    lifted = QuadraticModel(model.vartype, model.linear, model.pairs, model.quadratic, 17.0, model.labels)
    back = machine_from(lifted, torch.float64)
    z = all_states(5)[:, list(back.labels)]
    gap = torch.from_numpy(lifted.energy(in_variables(all_states(5), vartype))) - back.energy(z).detach()
    torch.testing.assert_close(gap, gap[:1].expand_as(gap), rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(gap[:1], torch.from_numpy(lifted.as_vartype("BINARY").energy(np.zeros((1, 5)))))


def test_a_bqm_of_someone_elses_comes_in_with_its_own_sums() -> None:
    bqm = dimod.generators.gnp_random_bqm(7, 0.5, "SPIN", random_state=3)
    bqm.relabel_variables({i: f"q{i}" for i in range(7)})
    bqm.offset = 2.5
    m = machine_from(bqm, torch.float64)
    z = all_states(7)
    energy = bqm.energies(((2 * z - 1).numpy(), list(m.labels)))
    expected = torch.log_softmax(torch.from_numpy(-energy), 0)
    torch.testing.assert_close(torch.log_softmax(-m.energy(z), 0).detach(), expected, rtol=1e-11, atol=1e-11)
    assert int(m.mask.sum()) == bqm.num_interactions  # type: ignore[union-attr]
    assert machine_from(bqm).bias.dtype == torch.float32


def test_files_keep_every_float_and_every_label(tmp_path: Path) -> None:
    m = on_graph()
    model = to_ising(m)
    write_model(tmp_path / "m.json", model)
    back = read_model(tmp_path / "m.json")
    assert back.labels == model.labels == tuple(m.labels)
    assert (back.vartype, back.offset) == (model.vartype, model.offset)
    for name in ("linear", "pairs", "quadratic"):
        assert np.array_equal(getattr(back, name), getattr(model, name))
        assert getattr(back, name).dtype == getattr(model, name).dtype


def test_a_file_says_what_it_means(tmp_path: Path) -> None:
    write_model(tmp_path / "m.json", to_ising(machine(1, 1)))
    text = (tmp_path / "m.json").read_text()
    value = json.loads(text)
    assert value["values"] == [-1, 1]
    assert "lower is likelier" in value["energy"]
    assert len(text.splitlines()) == 2 + len(value)


def test_labels_that_json_cannot_hold_are_refused(tmp_path: Path) -> None:
    model = to_ising(BoltzmannMachine(1, 1, labels=[frozenset("a"), 1]))
    with pytest.raises(InputError, match="label frozenset"):
        write_model(tmp_path / "m.json", model)
    assert not list(tmp_path.iterdir())


# --- damage ---

damages: dict[str, tuple[dict[str, Any], str]] = {
    "format": ({"format": "x"}, "is not a quadratic model"),
    "version": ({"version": 2}, "version 2, expected 1"),
    "vartype": ({"vartype": "DISCRETE"}, "must be SPIN or BINARY"),
    "vartype-list": ({"vartype": []}, "must be SPIN or BINARY"),
    "nan": ({"linear": [0.0, float("nan"), 0.0]}, "must be finite"),
    "infinite": ({"offset": float("inf")}, "must be finite"),
    "text": ({"linear": [0.0, "1", 0.0]}, "linear.*must hold numbers, not '1'"),
    "bool": ({"quadratic": [True, 0.0]}, "quadratic.*must hold numbers, not True"),
    "huge": ({"linear": [10**400, 0, 0]}, "linear.*too large"),
    "huge-pair": ({"pairs": [[0, 10**30], [1, 2]]}, "pairs.*too large"),
    "offset": ({"offset": None}, "offset.*not None"),
    "no-list": ({"linear": 3.0}, "linear.*must be a list"),
    "short": ({"linear": [0.0, 0.0]}, r"linear of a quadratic model of 3 bits must be \(3,\)"),
    "couplings": ({"quadratic": [0.0]}, r"quadratic .* must be \(2,\)"),
    "pair-of-one": ({"pairs": [[0], [1, 2]]}, "pairs.*must be a list of 2 whole numbers"),
    "pair-float": ({"pairs": [[0, 2.5], [1, 2]]}, "pairs.*whole numbers, not 2.5"),
    "pair-outside": ({"pairs": [[0, 3], [1, 2]]}, "pairs.*from 0 to 2"),
    "pair-negative": ({"pairs": [[-1, 2], [1, 2]]}, "pairs.*from 0 to 2"),
    "pair-self": ({"pairs": [[1, 1], [1, 2]]}, "pairs.*two different"),
    "pair-twice": ({"pairs": [[2, 1], [1, 2]]}, "must not repeat"),
    "labels-twice": ({"labels": [0, 1, 1]}, "different names"),
    "labels-none": ({"labels": [0, 1, None]}, "not None"),
    "labels-few": ({"labels": [0, 1]}, "quadratic model of 2 bits"),
    "labels-text": ({"labels": "abc"}, "labels.*must be a list"),
    "nothing": ({"labels": [], "linear": [], "pairs": [], "quadratic": []}, "at least one bit"),
}


@pytest.mark.parametrize(("changes", "message"), damages.values(), ids=damages.keys())
def test_damaged_models_are_named_in_a_sentence(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_model(path, to_ising(machine(2, 1)))
    read_model(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=message) as error:
        read_model(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["labels", "linear", "pairs", "quadratic", "offset", "vartype"])
def test_a_model_without_a_field_is_refused_by_name(field: str, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_model(path, to_ising(machine(2, 1)))
    value = json.loads(path.read_text())
    del value[field]
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=f"without {field}"):
        read_model(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{", b"\xff\xfe\x00", b"null"])
def test_files_that_are_no_models_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    with pytest.raises(InputError, match="does not exist"):
        read_model(path)
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a quadratic model"):
        read_model(path)


def test_every_cut_of_a_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_model(path, to_ising(machine(1, 1)))
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_model(path)


@pytest.mark.parametrize("labels", [("z", "a", "q", "b"), (3, 1, 2, 0), (10, 9, 2, 1)])
@pytest.mark.parametrize("vartype", ["SPIN", "BINARY"])
def test_a_bqm_comes_in_by_its_labels_in_whatever_order_they_are(labels: tuple[Any, ...], vartype: Any) -> None:
    m = BoltzmannMachine(2, 2, labels=labels).double()
    for parameter in m.parameters():
        parameter.data.normal_()
    back = machine_from(to_bqm(m, vartype), torch.float64)
    place = [labels.index(label) for label in back.labels]
    z = all_states(4)
    difference = back.energy(z[:, place]) - m.energy(z)
    torch.testing.assert_close(difference, difference[:1].expand(16), rtol=1e-9, atol=1e-9)


def test_what_is_no_bqm_is_refused() -> None:
    with pytest.raises(InputError, match="expected a QuadraticModel or a dimod.BinaryQuadraticModel, not a dict"):
        model_from_bqm({})
    with pytest.raises(InputError, match="at least one bit"):
        machine_from(dimod.BinaryQuadraticModel("SPIN"))


def test_without_dimod_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def without_dimod(name: str, *rest: Any, **more: Any) -> Any:
        if name == "dimod":
            raise ImportError(name)
        return load(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_dimod)
    with pytest.raises(InputError, match=r"pip install 'dvaepp\[dwave\]'"):
        to_bqm(BoltzmannMachine(1, 1))


# --- samples drawn elsewhere ---

BITS = np.array([[0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]])


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def as_lines(rows: np.ndarray, between: str) -> str:
    return "\n".join(between.join(map(str, row)) for row in rows) + "\n"


@pytest.mark.parametrize("dtype", ["int8", "float32", "float64", "int64"])
@every_vartype
def test_samples_are_read_from_every_kind_of_file(vartype: str, dtype: str, tmp_path: Path) -> None:
    values = (2 * BITS - 1 if vartype == "SPIN" else BITS).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    save(tmp_path / "b.npz", anything=values)
    np.savez_compressed(tmp_path / "c.npz", other=np.zeros(2), codes=values)
    (tmp_path / "d.csv").write_text(as_lines(values, ","))
    (tmp_path / "e.txt").write_text("\n" + as_lines(values, "  "))
    (tmp_path / "f.csv").write_text("\ufeff" + as_lines(values, ", ").replace("\n", "\r\n"), encoding="utf-8")
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 6
    for path, machine_or_bits in itertools.product(paths, (3, BoltzmannMachine(2, 1))):
        for asked in (None, vartype):
            z = read_states(path, machine_or_bits, asked)
            assert z.dtype == torch.float32
            assert z.tolist() == BITS.tolist()


def test_booleans_are_bits_and_all_ones_are_what_the_caller_says(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", BITS.astype(bool))
    assert read_states(tmp_path / "a.npy", 3).tolist() == BITS.tolist()
    np.save(tmp_path / "b.npy", np.ones((2, 3)))
    for vartype in (None, "SPIN", "BINARY"):
        assert read_states(tmp_path / "b.npy", 3, vartype).tolist() == [[1, 1, 1]] * 2


def test_labels_put_columns_in_the_machines_order(tmp_path: Path) -> None:
    m = BoltzmannMachine(2, 1, labels=["a", 7, (1, 2)])
    moved = BITS[:, [2, 0, 1]]
    (tmp_path / "a.csv").write_text('"(1, 2)",a,7\n' + as_lines(moved, ","))
    save(tmp_path / "b.npz", samples=moved, labels=np.array(["(1, 2)", "a", "7"]))
    for name in ("a.csv", "b.npz"):
        assert read_states(tmp_path / name, m).tolist() == BITS.tolist()
    (tmp_path / "c.txt").write_text("30 10 20\n" + as_lines(moved, " "))
    save(tmp_path / "d.npz", states=2 * moved - 1, labels=np.array([30, 10, 20]))
    for name in ("c.txt", "d.npz"):
        assert read_states(tmp_path / name, BoltzmannMachine(3, labels=[10, 20, 30])).tolist() == BITS.tolist()
    (tmp_path / "e.csv").write_text("2,0,1\n" + as_lines(moved, ","))
    save(tmp_path / "f.npz", codes=moved, labels=np.array([2, 0, 1]))
    for name in ("e.csv", "f.npz"):
        assert read_states(tmp_path / name, 3).tolist() == BITS.tolist()
    grid = BoltzmannMachine(3, labels=[(0, 0), (0, 1), (1, 0)])
    save(tmp_path / "g.npz", codes=moved, labels=np.array([(1, 0), (0, 0), (0, 1)]))
    assert read_states(tmp_path / "g.npz", grid).tolist() == BITS.tolist()


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def no_arrays() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("samples.txt", "0 1 1")
    return file.getvalue()


bad_files: dict[str, tuple[str, bytes, str]] = {
    "suffix": ("a.pt", npy(BITS), "does not end in .npy"),
    "truncated": ("a.npy", npy(BITS)[:-3], "not a whole .npy"),
    "truncated-zip": ("a.npz", npz(samples=BITS)[:-30], "not a whole .npz"),
    "header-only": ("a.npy", npy(BITS)[:20], "not a whole .npy"),
    "empty": ("a.npy", b"", "not a whole .npy"),
    "noise": ("a.npz", b"\x01\x02\x03" * 50, "not a whole .npz"),
    "pickle": ("a.npy", npy(np.array([{"a": 1}], object)), "not a whole .npy"),
    "no-arrays": ("a.npz", no_arrays(), "expected numbers|not a whole"),
    "two-arrays": ("a.npz", npz(a=BITS, b=BITS), "must hold one array of samples, codes, states, but holds a, b"),
    "two-names": ("a.npz", npz(codes=BITS, states=BITS), "must hold one array"),
    "only-labels": ("a.npz", npz(labels=np.arange(3)), "must hold one array .* holds none"),
    "text": ("a.npy", npy(np.array([["0", "1", "1"]])), "expected numbers"),
    "complex": ("a.npy", npy(BITS + 0j), "expected numbers"),
    "width": ("a.npy", npy(BITS[:, :2]), r"shape \(4, 2\), expected \(samples, 3\)"),
    "axes": ("a.npy", npy(BITS[0]), r"shape \(3,\), expected"),
    "none": ("a.npy", npy(BITS[:0]), r"shape \(0, 3\), expected"),
    "nan": ("a.npy", npy(np.array([[0.0, np.nan, 1.0]])), "holds nan, expected only 0 and 1"),
    "half": ("a.npy", npy(BITS * 0.5), "holds 0.5, expected only 0 and 1"),
    "mixed": ("a.npy", npy(BITS - (BITS == 0) * [1, 1, 0]), "holds 0, expected only -1 and 1"),
    "bytes": ("a.npy", npy(BITS.astype(np.uint8) * 255), "holds 255, expected"),
    "csv-empty": ("a.csv", b"\n \n", "is empty"),
    "csv-width": ("a.csv", b"0,1\n1,1\n", r"shape \(2, 2\), expected"),
    "csv-ragged": ("a.csv", b"0,1,1\n0,1\n", "lines of 3 and of 2 columns"),
    "csv-word": ("a.csv", b"0,1,1\n0,x,1\n", "holds 'x', expected numbers"),
    "csv-nan": ("a.csv", b"0,1,1\n0,nan,1\n", "holds nan"),
    "csv-cut": ("a.csv", b"0,1,1\n0,1,\n", "holds '', expected numbers"),
    "csv-half": ("a.csv", b"0,1,1\n0,0.5,1\n", "holds 0.5"),
    "csv-binary": ("a.csv", b"\xff\xfe\x00\x01", "not a text file"),
    "csv-header-only": ("a.csv", b"2,1,0\n", r"shape \(0, 3\)"),
    "csv-names": ("a.csv", b"0,1,q\n0,1,1\n", "names 'q', which is none of the bits"),
    "csv-twos": ("a.csv", b"2,2,0\n0,1,1\n", "does not name each bit once"),
    "labels": ("a.npz", npz(codes=BITS, labels=np.array([0, 1, 5])), "names '5', which is none"),
    "labels-few": ("a.npz", npz(codes=BITS, labels=np.arange(2)), "does not name each bit once"),
    "labels-scalar": ("a.npz", npz(codes=BITS, labels=np.array(3)), "labels names ''"),
}


@pytest.mark.parametrize(("name", "content", "message"), bad_files.values(), ids=bad_files.keys())
def test_bad_files_of_samples_are_named_in_a_sentence(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_states(tmp_path / name, 3)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_callers_vartype_decides(tmp_path: Path) -> None:
    np.save(tmp_path / "bits.npy", BITS)
    np.save(tmp_path / "spins.npy", 2 * BITS - 1)
    with pytest.raises(InputError, match="holds 0, expected only -1 and 1"):
        read_states(tmp_path / "bits.npy", 3, "SPIN")
    with pytest.raises(InputError, match="holds -1, expected only 0 and 1"):
        read_states(tmp_path / "spins.npy", 3, "BINARY")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".txt"])
def test_files_of_samples_that_are_not_there_or_folders_are_refused(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_states(tmp_path / f"a{suffix}", 3)
    (tmp_path / f"b{suffix}").mkdir()
    with pytest.raises(InputError, match="is not a"):
        read_states(tmp_path / f"b{suffix}", 3)


def test_every_cut_of_a_compressed_file_is_refused(tmp_path: Path) -> None:
    whole = npz(samples=BITS)
    for length in range(0, len(whole), 7):
        (tmp_path / "a.npz").write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_states(tmp_path / "a.npz", 3)


@pytest.mark.parametrize(
    "wrong", [{}, 3, "machine.json", np.zeros(3), BoltzmannMachine(2, 2)], ids=lambda w: type(w).__name__
)
def test_what_is_no_quadratic_model_is_named(wrong: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    kind = type(wrong).__name__
    with pytest.raises(InputError, match=f"expected a QuadraticModel or a dimod.BinaryQuadraticModel, not a {kind}"):
        machine_from(wrong)
    with pytest.raises(InputError, match=f"write_model takes a QuadraticModel, .*, not a {kind}"):
        write_model(tmp_path / "m.json", wrong)
