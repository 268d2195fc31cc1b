"""Samples from elsewhere: how good they are said to be, and the files that they come in."""

import json
from pathlib import Path

import dimod
import numpy as np
import pytest
import torch
from registry import machine

from dvaepp import InputError, exact_log_partition, exact_sample, read_states, sample_quality
from dvaepp.boltzmann.ising import to_bqm

MACHINE = machine(4, 3, sd=0.7)


def test_samples_of_the_machine_are_found_to_be() -> None:
    torch.manual_seed(0)
    found = sample_quality(MACHINE, exact_sample(MACHINE, 20_000), exact_sample(MACHINE, 20_000), 100)
    assert found.samples == 20_000
    assert found.inverse_temperature == pytest.approx(1, abs=0.05)
    assert 0.5 < found.bits / found.bits_noise < 2
    assert 0.5 < found.pairs / found.pairs_noise < 2
    exact = exact_log_partition(MACHINE).item()
    assert found.log_partition.value == pytest.approx(exact, abs=5 * found.log_partition.standard_error + 0.01)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_samples_of_another_temperature_are_found_out(temperature: float) -> None:
    torch.manual_seed(0)
    z = MACHINE.gibbs(MACHINE.uniform(20_000), 100, 1 / temperature)
    found = sample_quality(MACHINE, z, exact_sample(MACHINE, 20_000), 10)
    assert found.inverse_temperature == pytest.approx(1 / temperature, rel=0.1)
    assert found.pairs > 5 * found.pairs_noise


def test_samples_that_are_all_alike_do_not_shrink_what_chance_would_do() -> None:
    torch.manual_seed(0)
    reference = exact_sample(MACHINE, 10_000)
    found = sample_quality(MACHINE, torch.zeros(50, 7, dtype=torch.float64), reference, 10)
    assert found.bits > 3 * found.bits_noise
    assert found.bits_noise == pytest.approx(float((reference.var(0).mean() * (1 / 50 + 1e-4)) ** 0.5), rel=1e-3)


def test_a_machine_without_pairs_has_no_pairs_to_compare() -> None:
    alone = machine(3)
    found = sample_quality(alone, exact_sample(alone, 100), exact_sample(alone, 100), 10)
    assert (found.pairs, found.pairs_noise) == (0, 0)


def test_what_is_no_sample_is_refused() -> None:
    z = exact_sample(MACHINE, 10)
    with pytest.raises(InputError, match="samples must be two states of bits 0 and 1 or more"):
        sample_quality(MACHINE, z[:1], z)
    with pytest.raises(InputError, match="samples must be two states"):
        sample_quality(MACHINE, z / 2, z)


def sample_set() -> tuple[dimod.SampleSet, np.ndarray]:
    """Samples of the machine's model, of which some occurred several times, and each as often as it did."""
    states = np.random.RandomState(0).randint(0, 2, (5, 7))
    times = [1, 3, 1, 2, 1]
    bqm = to_bqm(MACHINE)
    found = dimod.SampleSet.from_samples_bqm((states, list(bqm.variables)), bqm, num_occurrences=times)
    order = [list(bqm.variables).index(label) for label in MACHINE.labels]
    return found, states[:, order].repeat(times, 0)


@pytest.mark.parametrize("form", ["csv", "index.csv", "json", "packed.json", "spins.json"])
def test_sample_sets_of_dimod_are_read(form: str, tmp_path: Path) -> None:
    found, expected = sample_set()
    if form.startswith("spins"):
        found = found.change_vartype("SPIN", inplace=False)
    path = tmp_path / f"x.{form.split('.')[-1]}"
    if form.endswith("csv"):
        found.to_pandas_dataframe().to_csv(path, index=form.startswith("index"))
    else:
        path.write_text(json.dumps(found.to_serializable(pack_samples=form.startswith("packed"))))
    assert read_states(path, MACHINE).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "is not a dimod SampleSet in JSON"),
        ("{", "is not a dimod SampleSet, as"),
    ],
)
def test_other_json_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_states(tmp_path / "x.json", MACHINE)


def test_occurrences_that_cannot_be_are_refused(tmp_path: Path) -> None:
    found, _ = sample_set()
    table = found.to_pandas_dataframe()
    table.loc[2, "num_occurrences"] = 0
    table.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(InputError, match="num_occurrences must be whole numbers from 1 on"):
        read_states(tmp_path / "x.csv", MACHINE)
