"""What cannot be is refused in a sentence, or at least never trusted, wherever a user may hand it in."""

import argparse
import math
import subprocess
import sys
from pathlib import Path

import jaxtyping
import networkx
import pytest
import torch
from registry import case_model, images, machine, tiny_model
from torch import Tensor

import dvaepp
from dvaepp.boltzmann.graphs import read_edges
from dvaepp.boltzmann.log_partition import LogPartition
from dvaepp.cli import main
from dvaepp.cli.grammar import parser
from dvaepp.errors import InputError
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import override
from dvaepp.runs.folder import RunFolder


@pytest.fixture(autouse=True)
def _as_a_user_without_shape_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def filled(value: float) -> dvaepp.BoltzmannMachine:
    made = dvaepp.BoltzmannMachine(3, 3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(value)
    return made


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38, 1e30, -1e4])
def test_log_z_that_is_no_number_or_stands_on_none_is_not_trusted(value: float) -> None:
    made = filled(value)
    found: list[LogPartition] = [
        dvaepp.estimate_log_partition(made),
        dvaepp.annealed_importance_sampling(made, temperatures=20, chains=200),
        dvaepp.population_annealing(made, temperatures=20, population=200),
        dvaepp.parallel_tempering(made, temperatures=5, chains=8, sweeps=32),
        dvaepp.reverse_annealed_importance_sampling(made, samples=torch.zeros(5, 6), temperatures=20, chains=200),
    ]
    for log_z in found:
        sound = math.isfinite(log_z.value) and math.isfinite(log_z.standard_error)
        assert sound or not log_z.trusted, log_z
    assert not found[-1].trusted


def test_reverse_annealing_that_misses_what_counts_at_beta_0_does_not_know_it() -> None:
    """A bit with a giant bias is 1 in every exact sample: log 2 is missing, and the weights are all alike."""
    made = dvaepp.BoltzmannMachine(3, 3)
    with torch.no_grad():
        made.bias[0] = 1000.0
    found = dvaepp.reverse_annealed_importance_sampling(made, temperatures=100, chains=256)
    assert found.value - float(dvaepp.exact_log_partition(made).detach()) == pytest.approx(math.log(2), abs=0.01)
    assert found.standard_error < 0.01
    assert not found.trusted


STATES = torch.zeros(2, 6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sweeps": 1.5}, "sweeps"),
        ({"sweeps": -1}, "sweeps"),
        ({"inverse_temperature": math.nan}, "inverse_temperature"),
        ({"inverse_temperature": "hot"}, "inverse_temperature"),
        ({"inverse_temperature": torch.ones(3)}, "one for each state"),
        ({"clamped": torch.zeros(6)}, "clamped must be boolean"),
        ({"clamped": torch.zeros(5, dtype=torch.bool)}, "clamped must be boolean"),
        ({"clamped": torch.zeros(3, 6, dtype=torch.bool)}, "clamped must be boolean"),
        ({"clamped": [True] * 6}, "clamped must be boolean"),
    ],
)
def test_settings_of_gibbs_sampling(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dvaepp.BoltzmannMachine(3, 3).gibbs(STATES, **{"sweeps": 1, **settings})


no_states = {
    "none": torch.zeros(0, 6),
    "halves": torch.full((4, 6), 0.5),
    "spins": -torch.ones(4, 6),
    "narrow": torch.zeros(4, 5),
    "one": torch.zeros(6),
    "float64": torch.zeros(4, 6).double(),
}


@pytest.mark.parametrize("samples", no_states.values(), ids=no_states.keys())
def test_samples_that_are_no_states(samples: Tensor) -> None:
    with pytest.raises(InputError, match="state"):
        dvaepp.reverse_annealed_importance_sampling(dvaepp.BoltzmannMachine(3, 3), samples=samples, temperatures=3)


@pytest.mark.parametrize("graph", [5, "abc", [(1, 2, 3)], [(1,)], [([1], [2])], None])
def test_graphs_that_are_none(graph: object) -> None:
    with pytest.raises(InputError, match="pairs of nodes"):
        dvaepp.machine_on_graph(graph)


def test_masks_and_chains_of_another_kind() -> None:
    with pytest.raises(InputError, match="boolean matrix of 2 x 2, not list"):
        dvaepp.BoltzmannMachine(1, 1, mask=[[0, 1], [0, 0]])
    with pytest.raises(InputError, match="must be a Sampler"):
        dvaepp.BoltzmannPrior(dvaepp.BoltzmannMachine(2, 2), dvaepp.PersistentChains)
    for count in (0, 1.5, "a"):
        with pytest.raises(InputError, match="num_samples"):
            dvaepp.exact_sample(dvaepp.BoltzmannMachine(2, 2), count)
    with pytest.raises(InputError, match="sweeps of chain_diagnostics"):
        dvaepp.chain_diagnostics(dvaepp.BoltzmannMachine(3, 3), STATES, sweeps=0)


def test_edges_are_read_as_csv(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes('\ufeff"a",b\nb, c\nc,a\n'.encode())
    assert read_edges(tmp_path / "e.csv") == [("a", "b"), ("b", "c"), ("c", "a")]


@pytest.mark.parametrize("power", [0.5, 0.7])
def test_a_density_that_is_infinite_at_an_end_is_not_resolved(power: float) -> None:
    with pytest.raises(InputError, match="infinite at an end"):
        dvaepp.DensityPair(lambda z: -power * torch.log(z), lambda z: 3 * z)


def test_a_density_must_be_of_real_numbers() -> None:
    with pytest.raises(InputError, match="real numbers"):
        dvaepp.DensityPair(lambda z: z > 0.5, lambda z: 3 * z)


def test_draws_stay_off_the_ends_of_the_interval() -> None:
    """Where a logarithm of the density may be infinite."""
    pair = dvaepp.DensityPair(lambda z: 4 * torch.log1p(-z), lambda z: 4 * torch.log(z))
    q = pair(torch.zeros(3))
    zeta = q.icdf(torch.tensor([0.0, 0.5, 1.0]))
    assert bool(((zeta > 0) & (zeta < 1)).all())
    assert bool(q.log_prob(zeta).isfinite().all())


def test_numbers_too_large_for_float32_are_refused() -> None:
    model = dvaepp.to_ising(dvaepp.BoltzmannMachine(2, 2)).scaled(1.0)
    huge = dvaepp.QuadraticModel(model.vartype, model.linear + 1e39, model.pairs, model.quadratic, 0.0, model.labels)
    with pytest.raises(InputError, match=r"too large for torch\.float32"):
        dvaepp.machine_from(huge)


def test_minima_calibrate_nothing() -> None:
    from dwave.samplers import SteepestDescentSampler

    m = machine(3, 3, sd=2.0).float()
    with pytest.raises(InputError, match="minima rather than draws"):
        dvaepp.DimodSampler(SteepestDescentSampler(), 100).calibrated(m)


@pytest.mark.parametrize("bound", [dvaepp.joint_elbo, dvaepp.marginal_elbo])
def test_nobody_trains_on_half_an_estimator(bound) -> None:
    model = case_model("rbm-2-groups", dvaepp.hard)
    with pytest.raises(InputError, match="no gradient to the encoder through Hard"):
        bound(model, images())
    with torch.no_grad():
        assert bound(model, images()).shape == (2,)


@pytest.mark.parametrize("bound", [dvaepp.joint_elbo, dvaepp.marginal_elbo, dvaepp.log_weight])
def test_concrete_has_no_bound_with_a_boltzmann_prior(bound) -> None:
    model = tiny_model(dvaepp.BoltzmannPrior(machine(3, 3)), (3, 3), dvaepp.Concrete(0.5))
    arguments = (model.smoothing,) if bound is dvaepp.log_weight else ()
    with pytest.raises(InputError, match="directed prior"):
        bound(model, images(), *arguments)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.beta=1e300", "model.smoothing.*1e\\+300, expected 0.001 to 10,000"),
        ("model.beta=1e-300", "model.smoothing.*1e-300, expected"),
        ("training.beta=[1,1e9]", "inverse temperature 1e\\+09, expected 0.001 to 10,000"),
    ],
)
def test_betas_of_a_recipe_are_of_this_world(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        override(catalogue.find("quick/rbm", "tiny"), [setting])


def test_a_graph_that_changed_since_the_training_is_noticed(tmp_path: Path) -> None:
    edges = tmp_path / "edges.csv"
    edges.write_text("".join(f"{i},{i + 1}\n" for i in range(9)))
    settings = ["model.prior=graph", f"model.graph={edges}", "model.groups=[10]", "model.hidden=[]", "training.steps=2"]
    recipe = override(catalogue.find("quick/rbm", "tiny"), settings)
    run = RunFolder.create(recipe, tmp_path / "run", seed=0, device="cpu", threads=1, data_dir=None, command="test")
    run.trainer().fit()
    assert RunFolder(run.folder).model().model.prior.machine.bits == 10
    ends = networkx.path_graph(10)
    ends.remove_edge(4, 5)
    ends.add_edge(0, 9)
    edges.write_text("".join(f"{u},{v}\n" for u, v in sorted(ends.edges)))
    with pytest.raises(InputError, match=r"does not fit the recipe|other bits interact"):
        RunFolder(run.folder).model()


def test_outputs_name_files_of_their_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figure", "1", "-o", str(tmp_path)]) == 2
    assert ".png or .svg" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def words_that_name() -> list[tuple[str, ...]]:
    """Each command with an empty word where it takes a name or a path."""
    commands = next(each for each in parser()._actions if isinstance(each, argparse._SubParsersAction)).choices
    found: list[tuple[str, ...]] = []
    for command, grammar in commands.items():
        before: tuple[str, ...] = ()
        for action in grammar._actions:
            if action.nargs != 0 and action.type is None and action.choices is None:
                found.append((command, *(action.option_strings[-1:] or before), ""))
            if not action.option_strings:
                before = (*before, next(iter(action.choices or ["x"])))
    return found


@pytest.mark.parametrize("words", words_that_name(), ids=" ".join)
def test_what_names_something_is_not_empty(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    for nothing in ("", " "):
        with pytest.raises(SystemExit) as stopped:
            main([*words[:-1], nothing])
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert "must name something, and is empty" in error
    assert words[-2] in error or not words[-2].startswith("-")


def test_a_reader_that_goes_away_is_no_error() -> None:
    program = "import sys, dvaepp.cli as c; sys.exit(c.main(['list']))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, error = process.communicate()
    assert error == b""
