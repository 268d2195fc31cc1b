"""Arguments of public functions as people have them: counts and numbers of numpy's, paths as texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from registry import images, machine, tiny_model

import dvaepp
from dvaepp import InputError, data, hard
from dvaepp.boltzmann.annealing import reverse_annealed_importance_sampling
from dvaepp.boltzmann.dimod_sampler import simulated_annealing
from dvaepp.boltzmann.graphs import read_edges
from dvaepp.data.own import read_examples
from dvaepp.evaluation.kept import KeptScores
from dvaepp.report.figures import write_figure
from dvaepp.report.pictures import grid, samples, save_grid
from dvaepp.runs.run import Run

X = images()


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user has no shape checks


def vae() -> dvaepp.FeedForwardVAE:
    return tiny_model(dvaepp.BernoulliPrior(4).double(), (2, 2))


def states(rows: int = 6) -> torch.Tensor:
    return (torch.arange(5 * rows).view(rows, 5) % 3 == 0).double()


def started(sampler: dvaepp.Sampler) -> tuple[torch.Tensor, str]:
    return sampler.start(machine(3, 2)), repr(sampler).split("object at")[0]


COUNTS: dict[str, Callable[[Any], Any]] = {
    "blocks": lambda n: dvaepp.BoltzmannMachine(n, 2).blocks,
    "uniform": lambda n: machine(3, 2).uniform(n, 4),
    "sweeps of gibbs": lambda n: machine(3, 2).gibbs(states(), n),
    "exact_sample": lambda n: dvaepp.exact_sample(machine(3, 2), n),
    "chains": lambda n: started(dvaepp.PersistentChains(n, n)),
    "tempered chains": lambda n: started(dvaepp.TemperedChains(n, n, n)),
    "population": lambda n: started(dvaepp.AnnealedPopulation(n, n)),
    "exact samples": lambda n: started(dvaepp.ExactSamples(n)),
    "annealer": lambda n: started(simulated_annealing(n, 4))[0],
    "annealing": lambda n: dvaepp.annealed_importance_sampling(
        machine(3, 2), temperatures=n, chains=n, repeats=n, sweeps=n
    ),
    "reverse annealing": lambda n: reverse_annealed_importance_sampling(
        machine(3, 2), temperatures=n, chains=n, repeats=n, sweeps=n
    ),
    "population annealing": lambda n: dvaepp.population_annealing(
        machine(3, 2), temperatures=n, population=n, repeats=n, sweeps=n
    ),
    "tempering": lambda n: dvaepp.parallel_tempering(machine(3, 2), temperatures=n, chains=n, sweeps=8),
    "diagnostics": lambda n: dvaepp.chain_diagnostics(machine(3, 2), states(), sweeps=5, watched=n),
    "quadratic model": lambda n: (
        dvaepp.QuadraticModel(
            "SPIN", np.zeros(5), np.zeros((0, 2), np.int64), np.zeros(0), 0.0, tuple(range(5)), (n, 2)
        ).blocks
    ),
    "bits": lambda n: dvaepp.BernoulliPrior(n).sample(2),
    "bits of the first group": lambda n: dvaepp.DirectedPrior(n).sample(2),
    "variables": lambda n: dvaepp.NormalPrior(n).sample(2),
    "samples of bits": lambda n: dvaepp.BernoulliPrior(4).sample(n),
    "samples of groups": lambda n: dvaepp.DirectedPrior(4, torch.nn.Linear(4, 2)).sample(n),
    "samples of normals": lambda n: dvaepp.NormalPrior(4).sample(n),
    "samples of a machine": lambda n: dvaepp.BoltzmannPrior(machine(3, 2)).sample(n),
    "samples of chains": lambda n: dvaepp.BoltzmannPrior(
        machine(3, 2), dvaepp.PersistentChains(4, 1), exact_bits=0
    ).sample(n),
    "exact bits": lambda n: dvaepp.BoltzmannPrior(machine(3, 2), exact_bits=n).exact,
    "generate": lambda n: vae().generate(n),
    "draws": lambda n: vae()(X, hard, n).posterior.zeta,
    "draws of weights": lambda n: dvaepp.log_weight(vae(), X, hard, n),
    "importance_weighted": lambda n: dvaepp.importance_weighted(vae(), X, n),
    "score": lambda n: dvaepp.score(vae(), X, n).numbers(),
    "dense": lambda n: list(dvaepp.dense(n, n, (n, n)).parameters()),
    "categories": lambda n: dvaepp.CategoricalLikelihood(n),
    "components": lambda n: dvaepp.DiscretizedLogisticMixture(n),
    "sizes": lambda n: dvaepp.ConvolutionalSizes(n, n, n, n, n, n, (n, n), n),
    "pictures": lambda n: samples(vae(), n, n),
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_whole_number_of_numpys_is_a_count_like_pythons(name: str) -> None:
    found = []
    for n in (3, np.int64(3), np.uint8(3)):
        torch.manual_seed(1)
        found.append(repr(COUNTS[name](n)))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("wrong", [True, np.True_, 2.5, np.float64(3.0), -1])
def test_what_is_no_count_is_refused_in_a_sentence(name: str, wrong: Any, unchecked: None) -> None:
    with pytest.raises(InputError, match=r"whole number"):
        COUNTS[name](wrong)


NUMBERS: dict[str, Callable[[Any], Any]] = {
    "exponential": dvaepp.OverlappingExponential,
    "logistic": dvaepp.OverlappingLogistic,
    "normal": dvaepp.OverlappingNormal,
    "power": dvaepp.PowerFunction,
    "floored": dvaepp.UniformExponential,
    "floor": lambda x: dvaepp.UniformExponential(5.0, epsilon=x),
    "spike": dvaepp.SpikeExponential,
    "gaussian spike": dvaepp.SpikeGaussian,
    "mean of a spike": lambda x: dvaepp.SpikeGaussian(5.0, x),
    "concrete": dvaepp.Concrete,
    "gumbel": dvaepp.StraightThroughGumbel,
    "annealed": lambda x: dvaepp.OverlappingLogistic(2.0).with_beta(x),
    "annealed concrete": lambda x: dvaepp.Concrete(2.0).with_beta(x),
    "annealed gumbel": lambda x: dvaepp.StraightThroughGumbel(2.0).with_beta(x),
    "ends": lambda x: dvaepp.DensityPair(torch.cos, torch.sin, -1.5, x).support.upper_bound,
    "floor of log s": lambda x: dvaepp.NormalLikelihood(x),
    "inverse temperature": lambda x: machine(3, 2).gibbs(states(), 2, x),
    "temperature of a sampler": lambda x: replace(simulated_annealing(3, 4), inverse_temperature=x).inverse_temperature,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_of_numpys_is_a_number_and_kept_as_pythons(name: str) -> None:
    found, value = [], 0.5 if name == "floor" else 1.5
    for number in (value, np.float32(value), np.float64(value)):
        torch.manual_seed(1)
        found.append(repr(NUMBERS[name](number)))
    assert found[0] == found[1] == found[2]
    assert "np." not in found[1]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("wrong", [True, "1.5", float("nan")])
def test_what_is_no_number_is_refused_in_a_sentence(name: str, wrong: Any, unchecked: None) -> None:
    with pytest.raises(InputError, match=r"must be a "):
        NUMBERS[name](wrong)


def test_what_is_kept_of_numpys_numbers_goes_into_json(tmp_path: Path) -> None:
    m = dvaepp.BoltzmannMachine(np.int64(2), np.int64(3))
    qubo = dvaepp.to_qubo(m)
    dvaepp.write_model(tmp_path / "m.json", replace(qubo, blocks=(np.int64(2), np.int64(3))))
    assert dvaepp.read_model(tmp_path / "m.json").blocks == (2, 3)
    prior = dvaepp.BoltzmannPrior(m)
    settings = {"temperatures": np.int64(5), "chains": np.int64(8), "repeats": np.int64(2)}
    found = prior.estimate_log_partition(**settings)
    scores = dvaepp.score(tiny_model(randomised(prior), (5,)), X, np.int64(3))
    json.dumps([found.value, found.method, found.diagnosis, scores.numbers()], allow_nan=False)


def randomised(prior: dvaepp.BoltzmannPrior) -> dvaepp.BoltzmannPrior:
    prior.double().estimate_log_partition()
    return prior


def test_every_path_may_be_a_text(tmp_path: Path) -> None:
    model = dvaepp.to_qubo(machine(3, 2))
    for kind in (str, Path):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        dvaepp.write_model(kind(folder / "m.json"), model)
        assert dvaepp.read_model(kind(folder / "m.json")).energy(np.ones(5)) == model.energy(np.ones(5))
        np.save(folder / "z.npy", states().numpy())
        assert torch.equal(dvaepp.read_states(kind(folder / "z.npy"), 5), states().float())
        (folder / "edges.csv").write_text("a,b\n")
        assert read_edges(kind(folder / "edges.csv")) == [("a", "b")]
        np.save(folder / "x.npy", np.eye(12, dtype=np.uint8))
        assert data.load(kind(folder / "x.npy")).pixels == 12
        assert read_examples(kind(folder / "x.npy"))[1] == (12,)
        assert data.load("digits", kind(folder)).pixels == 784
        KeptScores(kind(folder / "scores"), {}).clear()
        bits = torch.eye(12, dtype=torch.uint8)
        known = data.Dataset("coins", (12,), bits, bits, bits, dynamic=False, protocol="coins")
        encoder, smoothing = dvaepp.HierarchicalEncoder(dvaepp.dense(12, 4)), dvaepp.OverlappingExponential(5.0)
        vae = dvaepp.FeedForwardVAE(encoder, dvaepp.BernoulliPrior(4), dvaepp.dense(4, 12), smoothing)
        settings = dvaepp.TrainingSettings(steps=1, batch=4)
        dvaepp.Trainer(vae, dvaepp.joint_terms, known, settings, kind(folder / "run")).fit()
        assert (folder / "run" / "checkpoint.safetensors").exists()
        write_figure("1", kind(folder / "f.svg"))
        save_grid(kind(folder / "g.png"), grid(torch.ones(1, 1, 4), (2, 2)))
        with pytest.raises(InputError, match="does not exist"):
            _ = Run(kind(folder / "none")).record
