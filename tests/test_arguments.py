"""Arguments of public functions as people have them: counts and numbers of numpy's, paths as texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
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
from dvaepp.runs.folder import RunFolder
from dvaepp.runs.pictures import grid, samples, save_grid

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
            _ = RunFolder(kind(folder / "none")).record


# Half precision, and a state alone


def dense_vae(prior: dvaepp.Prior, batch_norm: bool = False) -> dvaepp.FeedForwardVAE:
    encoder = dvaepp.HierarchicalEncoder(dvaepp.dense(6, 5, (7,), batch_norm))
    return dvaepp.FeedForwardVAE(
        encoder, prior, dvaepp.dense(5, 6, (7,), batch_norm), dvaepp.OverlappingExponential(5.0)
    )


def deep_vae() -> dvaepp.ConvolutionalVAE:
    return dvaepp.convolutional_vae(
        (2, 3),
        torch.full((6,), 0.5),
        prior=dvaepp.BernoulliPrior(5),
        global_groups=(5,),
        local=dvaepp.NormalVariables(),
        smoothing=dvaepp.OverlappingExponential(5.0),
        sizes=dvaepp.ConvolutionalSizes(local=1, top=1, channels=4, cells=1, groups=1, variables=1, hidden=()),
    )


every_model: dict[str, Callable[[], dvaepp.Model]] = {
    "bernoulli": lambda: dense_vae(dvaepp.BernoulliPrior(5)),
    "directed": lambda: dense_vae(dvaepp.DirectedPrior(3, dvaepp.dense(3, 2))),
    "boltzmann": lambda: dense_vae(dvaepp.BoltzmannPrior(dvaepp.BoltzmannMachine(3, 2))),
    "convolutional": deep_vae,
}
every_use: dict[str, Callable[[dvaepp.Model, torch.Tensor, torch.Tensor], Any]] = {
    "forward": lambda model, x, z: model(x),
    "decode": lambda model, x, z: model.decode(z),
    "code": lambda model, x, z: model.code(x),
    "sample": lambda model, x, z: model.prior.sample(3),
    "log_prob": lambda model, x, z: model.prior.log_prob(z, hard),
    "generate": lambda model, x, z: model.generate(3),
    "joint_elbo": lambda model, x, z: dvaepp.joint_elbo(model, x),
    "marginal_elbo": lambda model, x, z: dvaepp.marginal_elbo(model, x),
    "importance_weighted": lambda model, x, z: dvaepp.importance_weighted(model, x, 3),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("use", every_use)
@pytest.mark.parametrize("name", every_model)
def test_a_model_in_half_precision_is_refused_in_a_sentence(name: str, use: str, dtype: torch.dtype) -> None:
    z = torch.zeros(2, 5, dtype=dtype)
    for given in (dtype, torch.float32):
        with pytest.raises(InputError, match=r"must be float32 or float64, not torch\.b?float16"):
            every_use[use](every_model[name]().to(dtype), torch.zeros(2, 6, dtype=given), z)


def test_normal_variables_in_half_precision_are_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match="must be float32 or float64, not torch.float16"):
        dvaepp.NormalPrior(3).half().sample(2)


@pytest.mark.parametrize("blocks", [(3, 2), (2, 3, 1), (1, 1, 1), (4,)], ids=str)
def test_a_machine_takes_a_state_alone(blocks: tuple[int, ...]) -> None:
    m = machine(*blocks)
    z = (torch.arange(m.bits) % 2).double()
    for compute in (m.energy, m.log_marginal, *(partial(m.field, block=k) for k in range(len(blocks)))):
        torch.testing.assert_close(compute(z), compute(z[None])[0])
    swept = []
    for state in (z, z[None]):
        torch.manual_seed(0)
        swept.append(m.gibbs(state, 3, torch.full(state.shape[:-1], 0.5), clamped=torch.arange(m.bits) == 0))
    assert torch.equal(swept[0], swept[1][0])


@pytest.mark.parametrize("given", [[0.0] * 5, np.zeros(5), torch.zeros(5), torch.tensor(0.0, dtype=torch.float64)])
def test_what_are_no_states_of_a_machine_is_said(given: Any, unchecked: None) -> None:
    for use in (machine(3, 2).energy, partial(machine(3, 2).gibbs, sweeps=2)):
        with pytest.raises(InputError, match="takes torch.float64 states whose last axis holds 5 bits, not a"):
            use(given)
    with pytest.raises(InputError, match=r"states must be \(chains, bits\)"):
        dvaepp.chain_diagnostics(machine(3, 2), torch.zeros(5, dtype=torch.float64))
    with pytest.raises(InputError, match="block must be a whole number from 0 to 1, not 2"):
        machine(3, 2).field(torch.zeros(5, dtype=torch.float64), 2)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_priors_and_decoders_take_vectors_on_any_axes(batch_norm: bool) -> None:
    prior = dvaepp.DirectedPrior(3, dvaepp.dense(3, 2, (4,), batch_norm))
    vae = dense_vae(prior, batch_norm).eval()
    z = torch.randint(0, 2, (2, 3, 5)).float()
    for compute in (partial(prior.log_prob, smoothing=hard), lambda zeta: vae.decode(zeta).mean):
        rows = compute(z.view(6, 5))
        torch.testing.assert_close(compute(z).flatten(0, 1), rows)
        torch.testing.assert_close(compute(z[0, 1]), rows[1])
    if batch_norm:
        with pytest.raises(InputError, match="batch norm in training mode needs at least two vectors"):
            vae.train().decode(z[0, 0])


def test_what_no_model_can_take_is_said(unchecked: None) -> None:
    vae, z = dense_vae(dvaepp.BernoulliPrior(5)), torch.zeros(2, 3, 5)
    for wrong in (z.double(), z.long(), torch.tensor(0.0)):
        with pytest.raises(InputError, match=r"zeta must be a torch.float32 tensor \(\.\.\., bits\), not"):
            vae.decode(wrong)
    with pytest.raises(InputError, match=r"zeta must be a torch.float32 tensor \(batch, bits\), not"):
        deep_vae().decode(z[0, 0])
    for model in (vae, deep_vae()):
        with pytest.raises(InputError, match=r"x must be a torch.float32 tensor \(batch, pixels\), not"):
            model.code(torch.zeros(6))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("given", [X.tolist(), X.numpy(), None, 3])
def test_what_is_no_tensor_is_refused_as_x_and_as_zeta(given: Any) -> None:
    model = vae()
    for name, use in (("x", model), ("x", model.code), ("zeta", model.decode)):
        with pytest.raises(InputError, match=f"^{name} must be a torch.float64 tensor"):
            use(given)
