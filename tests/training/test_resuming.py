import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import dvaepp.training
from dvaepp.errors import InputError, TrainingDivergedError
from dvaepp.objectives.base import BoundTerms
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import Recipe, override
from dvaepp.runs.evaluation import evaluate
from dvaepp.runs.folder import RunFolder
from dvaepp.runs.pictures import reconstructions, samples
from dvaepp.training.settings import TrainingSettings

SMALL = ["model.groups=[6,6]", "model.hidden=[8]", "model.chains=10", "training.validation_examples=20"]


def recipe(*settings: str) -> Recipe:
    """A small recipe on the built-in digits."""
    return override(catalogue.find("quick/rbm", "tiny"), [*SMALL, *settings])


def start(tmp_path: Path, *settings: str, name: str = "run", seed: int = 0) -> RunFolder:
    return RunFolder.create(
        recipe(*settings), tmp_path / name, seed=seed, device="cpu", threads=1, data_dir=None, command="test"
    )


def lines(run: RunFolder) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in run.metrics()]


@pytest.mark.parametrize(
    "changes",
    [
        ["model.groups=[20,20]"],
        ["model.groups=[20,20]", "model.sampler=tempering", "model.temperatures=4"],
        ["model.groups=[20,20]", "model.sampler=population", "model.temperatures=5"],
        ["model.groups=[24,24]", "model.prior=graph", "model.graph=zephyr-1", "model.sampler=annealer"],
        ["model.groups=[20,20]", "model.smoothing=spike-exponential", "objective=rolfe"],
        ["model.groups=[20,20]", "training.muon=10", "training.l2=0.01"],
        ["model.groups=[20,20]", "training.average=0.9"],
        ["model.groups=[20,20]", "training.average=0.9", "training.compile=true"],
    ],
    ids=["gibbs", "tempering", "population", "annealer", "rolfe", "muon", "averaged", "averaged, compiled"],
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path, changes: list[str]) -> None:
    settings = [*changes, "training.steps=8", "training.validate_every=4", "training.log_every=3"]
    whole = start(tmp_path, *settings, name="whole")
    whole.trainer().fit()
    broken = start(tmp_path, *settings, name="broken")

    def stop(metrics: dict[str, Any]) -> None:
        if metrics["step"] == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken.trainer().fit(stop)
    torch.manual_seed(99)
    again = RunFolder(broken.folder).trainer()
    assert again.step == 4
    again.fit()
    assert (whole.folder / "checkpoint.safetensors").read_bytes() == (
        broken.folder / "checkpoint.safetensors"
    ).read_bytes()
    assert (whole.folder / "best.safetensors").read_bytes() == (broken.folder / "best.safetensors").read_bytes()
    assert lines(whole) == lines(broken)
    watched = [line for line in lines(whole) if "chains_r_hat" in line]
    assert len(watched) == 4  # at each log line and before each validation
    assert all(line["chains_autocorrelation_time"] >= 1 for line in watched)
    assert all(line["chains_effective_sample_size"] > 1 for line in watched)


def test_an_exact_or_directed_prior_has_no_chains_to_watch(tmp_path: Path) -> None:
    run = start(tmp_path, "training.steps=2", "training.log_every=1", "model.prior=directed")
    run.trainer().fit()
    assert not any(name.startswith("chains") for line in lines(run) for name in line)


def test_a_run_killed_at_random_moments_ends_as_if_never_killed(tmp_path: Path) -> None:
    arguments = ["train", "quick/rbm", "--size", "tiny", "--seed", "3"]
    for setting in (*SMALL, "model.groups=[20,20]", "training.steps=500", "training.validate_every=25"):
        arguments += ["--set", setting]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(*arguments: str) -> subprocess.Popen[bytes]:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([sys.executable, "-m", "dvaepp", *arguments], env=environment, **quiet)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert command(*arguments, "--out", str(whole)).wait() == 0
    process, chance = command(*arguments, "--out", str(killed)), random.Random(5)
    for done in (3, 20, 40):
        while len(RunFolder(killed).metrics()) < done:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = command("resume", str(killed))
    assert process.wait() == 0
    for name in ("checkpoint.safetensors", "best.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
    assert lines(RunFolder(whole)) == lines(RunFolder(killed))


def test_other_seeds_give_other_runs_and_the_same_seed_the_same(tmp_path: Path) -> None:
    runs = [start(tmp_path, "training.steps=5", name=str(k), seed=seed) for k, seed in enumerate((0, 0, 1))]
    for run in runs:
        run.trainer().fit()
    assert lines(runs[0]) == lines(runs[1]) != lines(runs[2])


def test_training_lowers_the_loss_and_the_validation_nll(tmp_path: Path) -> None:
    run = start(tmp_path, "training.steps=200", "training.validate_every=50")
    run.trainer().fit()
    losses = [line["loss"] for line in run.metrics() if "loss" in line]
    nlls = [line["valid_nll"] for line in run.metrics() if "valid_nll" in line]
    assert losses[-1] < losses[0] - 20
    assert nlls[-1] < nlls[0] - 5
    assert run.model().step == max(run.metrics(), key=lambda line: -line.get("valid_nll", 1e9))["step"]


def test_nan_stops_training_and_names_the_step_and_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = start(tmp_path, "training.steps=40", "training.validate_every=10", "training.log_every=10")
    trainer = run.trainer()
    objective = trainer.objective

    def spoiled(model: Any, x: torch.Tensor) -> BoundTerms:
        terms = objective(model, x)
        return replace(terms, log_likelihood=math.nan * terms.log_likelihood) if trainer.step + 1 == 24 else terms

    trainer.objective = spoiled
    with pytest.raises(
        TrainingDivergedError, match=r"at step 24; the last good checkpoint is .*checkpoint\.safetensors"
    ):
        trainer.fit()
    again = RunFolder(run.folder).trainer()
    assert again.step == 20
    assert all(bool(p.isfinite().all()) for p in again.model.parameters())


def test_a_nan_weight_never_reaches_a_checkpoint(tmp_path: Path) -> None:
    trainer = start(tmp_path, "training.steps=10", "training.validate_every=5").trainer()
    step = trainer.optimisation.optimizers["optimizer"].step

    def poisoned(*arguments: Any) -> None:
        step(*arguments)
        if trainer.step + 1 == 5:
            with torch.no_grad():
                next(iter(trainer.model.parameters())).fill_(float("nan"))

    trainer.optimisation.optimizers["optimizer"].step = poisoned
    with pytest.raises(TrainingDivergedError, match="at step 5"):
        trainer.fit()
    assert RunFolder(trainer.folder).trainer().step == 0


def test_a_checkpoint_of_another_recipe_or_other_data_is_refused(tmp_path: Path) -> None:
    small, large = (
        start(tmp_path, "training.steps=2"),
        start(tmp_path, "model.hidden=[9]", "training.steps=2", name="b"),
    )
    for run in (small, large):
        run.trainer().fit()
    for name in ("checkpoint.safetensors", "best.safetensors"):
        (small.folder / name).write_bytes((large.folder / name).read_bytes())
    with pytest.raises(InputError, match=r"checkpoint\.safetensors was trained with another recipe"):
        small.trainer()
    with pytest.raises(InputError, match=r"best\.safetensors was trained with another recipe"):
        small.model()


def test_changed_data_are_refused(tmp_path: Path) -> None:
    def write(value: int) -> None:
        rows = [[(i * j) % 2 for j in range(8)] for i in range(40)]
        rows[0][0] = value
        (tmp_path / "t.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))

    write(0)
    run = start(tmp_path, f"data.name={tmp_path / 't.csv'}", "training.steps=2")
    run.trainer().fit()
    write(1)
    with pytest.raises(InputError, match="is no longer the data that"):
        RunFolder(run.folder).trainer()
    record = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps({**record, "data": None}))  # as it was before it said so
    with pytest.raises(InputError, match="was trained with other data than the run has now"):
        RunFolder(run.folder).trainer()


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path: Path) -> None:
    start(tmp_path)
    with pytest.raises(InputError, match="is not empty"):
        start(tmp_path)


def test_schedules_run_over_the_fraction_of_training() -> None:
    stages = ((0.02, 3e-4), (0.6, 3e-3), (1.0, 9e-5))
    settings = TrainingSettings(steps=10, learning_rate=stages, kl_warmup=0.3)
    assert [settings.learning_rate_at(f) for f in (0.0, 0.0199, 0.02, 0.59, 0.6, 1.0)] == [
        3e-4,
        3e-4,
        3e-3,
        3e-3,
        9e-5,
        9e-5,
    ]
    assert [settings.kl_weight_at(f) for f in (0.0, 0.15, 0.3, 0.9)] == [0, 0.5, 1, 1]
    assert TrainingSettings(steps=10, kl_warmup=0).kl_weight_at(0.0) == 1


def test_beta_is_annealed_and_epsilon_is_tensorflows(tmp_path: Path) -> None:
    trainer = start(tmp_path, "training.steps=10", "training.beta=[5,15]").trainer()
    seen = []
    for _ in range(10):
        trainer.train_step()
        seen.append(trainer.model.smoothing.beta)
    assert seen == pytest.approx([5 + k for k in range(10)])
    assert trainer.optimisation.optimizers["optimizer"].param_groups[0]["eps"] == pytest.approx(
        1e-3 / (1 - 0.999**10) ** 0.5
    )


def test_l2_decays_matrices_and_gains_but_no_biases(tmp_path: Path) -> None:
    trainer = start(tmp_path, "training.l2=0.1").trainer()
    decayed = {id(p) for p in trainer.optimisation.optimizers["optimizer"].param_groups[0]["params"]}
    for name, parameter in trainer.model.named_parameters():
        gain = name.endswith("1.1.weight") or name.endswith("0.1.weight")
        assert (id(parameter) in decayed) == (parameter.ndim > 1 or gain), name


def test_every_example_is_seen_once_an_epoch(tmp_path: Path) -> None:
    trainer = start(tmp_path, "training.batch=7").trainer()
    count = len(trainer.data.train)
    steps = -(-2 * count // 7)
    seen = torch.cat([trainer._order.indices(step) for step in range(steps)])[: 2 * count]
    assert torch.equal(seen[:count].sort()[0], torch.arange(count))
    assert torch.equal(seen[count:].sort()[0], torch.arange(count))
    assert not torch.equal(seen[:count], seen[count:])


def test_metrics_are_json_lines_and_the_loss_is_never_called_a_bound(tmp_path: Path) -> None:
    run = start(tmp_path, "training.steps=4", "training.validate_every=2")
    run.trainer().fit()
    text = (run.folder / "metrics.jsonl").read_text()
    for line in text.splitlines():
        assert "seconds" in json.loads(line)
    assert "bound" not in text
    assert "valid_log_z_standard_error" in text


def test_seconds_are_those_of_the_steps_that_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(dvaepp.training.journal.time, "perf_counter", lambda: clock[0])
    run = start(tmp_path, "training.steps=6", "training.validate_every=4", "training.log_every=1")

    def a_second_each(metrics: dict[str, float]) -> None:
        clock[0] += 1
        if metrics["step"] == 5:
            raise KeyboardInterrupt

    trainer = run.trainer()
    clock[0] += 1000
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(a_second_each)
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4, 4, 5]
    again = run.trainer()
    clock[0] += 1000
    again.fit(lambda metrics: clock.append(clock.pop() + 1))
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4, 4, 5, 6, 6]
    assert [line["seconds"] for line in run.metrics()] == [0, 1, 1, 1, 1, 0, 1, 1]


STEPS, EVERY = 7, 3
ANNEALED = {
    "rising": ["training.beta=[5,8]"],
    "falling": ["training.beta=[9,2]"],
    "constant": ["training.beta=[4,4]"],
    "concrete": ["training.beta=[1,3]", "model.smoothing=concrete", "model.prior=directed", "objective=marginal"],
    "gumbel": ["training.beta=[0.5,3]", "model.smoothing=straight-through-gumbel"],
    "none": ["model.beta=6"],
}


def begin(tmp_path: Path, kind: str, name: str = "run") -> RunFolder:
    settings = [*ANNEALED[kind], f"training.steps={STEPS}", f"training.validate_every={EVERY}"]
    return start(tmp_path, *settings, name=name)


def fit(run: RunFolder, report: Any = lambda metrics: None) -> dict[int, Any]:
    """Train on; the smoothing that each step was taken with, by the number of steps done after it."""
    trainer, used = run.trainer(), {}
    objective = trainer.objective

    def watched(model: Any, x: torch.Tensor) -> BoundTerms:
        if model.training:  # metrics ask once more
            used[trainer.step + 1] = model.smoothing
        return objective(model, x)

    trainer.objective = watched
    trainer.fit(report)
    return used


@pytest.fixture
def rigged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations of which the first is the best."""
    nll = iter(range(100))

    def score(*arguments: Any, **settings: Any) -> SimpleNamespace:
        value = float(next(nll))
        return SimpleNamespace(numbers=lambda: {"nll": value, "nll_at_high_log_z": value})

    monkeypatch.setattr(dvaepp.training.trainer, "score", score)


annealed = pytest.mark.parametrize("kind", ANNEALED)


@annealed
@pytest.mark.usefixtures("rigged")
def test_a_checkpoint_brings_back_the_smoothing_that_its_weights_were_made_with(tmp_path: Path, kind: str) -> None:
    run = begin(tmp_path, kind)
    used = fit(run)
    best, last = run.model(), run.model(last=True)
    assert (best.step, last.step) == (EVERY, STEPS)
    assert best.model.smoothing == used[EVERY]
    assert last.model.smoothing == used[STEPS]
    for trained, loaded in ((best, dvaepp.load_run(run.folder)), (last, dvaepp.load_run(run.folder, last=True))):
        assert loaded.model.smoothing == trained.model.smoothing
        assert all(
            torch.equal(p, q) for p, q in zip(loaded.model.parameters(), trained.model.parameters(), strict=True)
        )
    assert RunFolder(run.folder).trainer().model.smoothing == used[STEPS]


@annealed
@pytest.mark.usefixtures("rigged")
def test_a_run_stopped_midway_goes_on_with_the_smoothing_of_where_it_was(tmp_path: Path, kind: str) -> None:
    whole, run = fit(begin(tmp_path, kind, "whole")), begin(tmp_path, kind)

    def stop(metrics: dict[str, Any]) -> None:
        if metrics["step"] == STEPS:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(run, stop)
    assert run.model(last=True).step == 2 * EVERY
    assert run.model(last=True).model.smoothing == whole[2 * EVERY]
    assert RunFolder(run.folder).trainer().model.smoothing == whole[2 * EVERY]
    assert fit(RunFolder(run.folder)) == {STEPS: whole[STEPS]}
    assert run.model(last=True).model.smoothing == whole[STEPS]


@annealed
def test_before_the_first_step_the_smoothing_is_the_first_steps(tmp_path: Path, kind: str) -> None:
    run = begin(tmp_path, kind)
    trainer = run.trainer()
    trainer.save()
    before = trainer.model.smoothing
    assert before == run.model(last=True).model.smoothing == RunFolder(run.folder).trainer().model.smoothing
    trainer.train_step()
    assert before == trainer.model.smoothing


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The last 32 bits of every seed that a generator is given, which are all that it keeps."""
    met: list[int] = []
    manual_seed = torch.manual_seed

    class Generator(torch.Generator):
        def manual_seed(self, seed: int) -> torch.Generator:
            met.append(seed % 2**32)
            return super().manual_seed(seed)

    def seeded(seed: int) -> torch.Generator:
        met.append(seed % 2**32)
        return manual_seed(seed)

    monkeypatch.setattr(torch, "manual_seed", seeded)
    monkeypatch.setattr(torch, "Generator", Generator)
    return met


def test_what_is_done_with_a_run_from_one_seed_has_noise_of_its_own_each(tmp_path: Path, seeds: list[int]) -> None:
    run = start(tmp_path, "training.steps=3", "training.log_every=1", "training.validate_every=3", "model.chains=5")
    seeds.clear()
    run.trainer().fit()
    evaluation = run.recipe.evaluation.model_copy(update={"examples": 10, "samples": 2, "thorough": False})
    evaluate(run, evaluation, split="test", seed=0, last=False, command="test")
    model = run.model().model
    samples(model, 2, 2)
    reconstructions(model, run.data.valid[:2].float())
    assert len(seeds) > 15
    assert [seed for seed in seeds if seeds.count(seed) > 1] == []
