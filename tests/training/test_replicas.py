"""Replicas against runs by themselves: the same noise gives the same training, whatever moves and whichever way."""

import itertools
import shutil
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import dvaepp
from dvaepp.data.dataset import Dataset
from dvaepp.errors import InputError, TrainingDivergedError
from dvaepp.estimators import NVIL, REBAR, LeaveOneOut
from dvaepp.objectives.base import BoundTerms, Objective
from dvaepp.objectives.bounds import JointBound, MarginalBound
from dvaepp.objectives.elbo import Elbo
from dvaepp.objectives.relaxed import GumBolt, MeanFieldBound
from dvaepp.optimisers.adam import Adam
from dvaepp.optimisers.base import Optimiser
from dvaepp.optimisers.muon import MuonAndAdam
from dvaepp.smoothings.concrete import Concrete
from dvaepp.storage import load_tensors
from dvaepp.training.execution import executed
from dvaepp.training.numbers import Numbers
from dvaepp.training.replicas import Replicas, fit
from dvaepp.training.settings import TrainingSettings
from dvaepp.training.settling import pending, settle
from dvaepp.training.trainer import Trainer

PIXELS, STEPS = 9, 20
RATES = (1e-2, 5e-3, 2e-2)


def data(dynamic: bool = False) -> Dataset:
    generator = torch.Generator().manual_seed(3)
    bits = torch.randint(0, 2, (40, PIXELS), generator=generator).to(torch.uint8)
    train = torch.randint(0, 256, (40, PIXELS), generator=generator).to(torch.uint8) if dynamic else bits
    return Dataset("bits", (PIXELS,), train, bits[:15], bits[15:], dynamic, "by hand")


def chains(groups: tuple[int, ...]) -> dvaepp.Prior:
    machine = dvaepp.BoltzmannMachine(3, sum(groups) - 3)
    nn.init.normal_(machine.couplings[0], std=0.3)
    return dvaepp.BoltzmannPrior(machine, dvaepp.PersistentChains(12, 2), exact_bits=0)


def directed(groups: tuple[int, ...]) -> dvaepp.Prior:
    networks = zip(itertools.accumulate(groups), groups[1:], strict=False)
    return dvaepp.DirectedPrior(groups[0], *(dvaepp.dense(before, size) for before, size in networks))


@dataclass(frozen=True)
class Case:
    """What a replica is; seeds, rates, beta, KL warm-up and L2 differ from one to the next."""

    prior: Callable[[tuple[int, ...]], dvaepp.Prior] = directed
    groups: tuple[int, ...] = (5,)
    batch_norm: bool = False
    smoothing: dvaepp.Smoothing = field(default_factory=dvaepp.OverlappingExponential)
    objective: Callable[[], Objective] = JointBound
    optimiser: Optimiser = field(default_factory=Adam)
    dynamic: bool = False
    beta: bool = True
    average: float | None = None

    def trainer(self, folder: Path, seed: int, steps: int = STEPS, **changes: Any) -> Trainer:
        torch.manual_seed(seed)
        starts = itertools.accumulate((PIXELS, *self.groups[:-1]))
        levels = [dvaepp.dense(s, g, (4,), self.batch_norm) for s, g in zip(starts, self.groups, strict=True)]
        decoder = dvaepp.dense(sum(self.groups), PIXELS, (4,), self.batch_norm)
        model = dvaepp.FeedForwardVAE(
            dvaepp.HierarchicalEncoder(*levels), self.prior(self.groups), decoder, self.smoothing
        )
        settings = {
            "steps": steps,
            "batch": 6,
            "learning_rate": ((0.5, RATES[seed]), (1.0, RATES[seed] / 3)),
            "l2": 0.02 * seed,
            "kl_warmup": 0.2 * seed if self.objective is not elbo_of_all else 0.0,
            "beta": (4.0 + seed, 9.0) if self.beta else None,
            "optimiser": self.optimiser,
            "average": self.average,
            "log_every": STEPS // 2,
            "validate_every": STEPS // 2,
            "validation_samples": 3,
            "validation_temperatures": 5,
            "validation_chains": 8,
        }
        return Trainer(
            model.double(),
            self.objective(),
            data(self.dynamic),
            TrainingSettings(**{**settings, **changes}),
            folder,
            seed,
        )


def elbo_of_all() -> Objective:
    return Elbo(analytic_kl=False).with_estimator(REBAR(PIXELS).double())


def nvil() -> Objective:
    return Elbo().with_estimator(NVIL(PIXELS).double())


CASES = {
    "joint": Case(),
    "marginal": Case(objective=MarginalBound, dynamic=True),
    "two groups, chains, batch norm": Case(chains, (4, 3), batch_norm=True),
    "muon": Case(optimiser=MuonAndAdam(2.0)),
    "averaged, batch norm": Case(batch_norm=True, average=0.9),
    "mean-field, 3 draws": Case(chains, (4, 3), objective=partial(MeanFieldBound, 3), smoothing=dvaepp.PowerFunction()),
    "gumbolt, 2 draws": Case(chains, (4, 3), objective=partial(GumBolt, 2), smoothing=Concrete(1 / 7)),
    "logistic": Case(smoothing=dvaepp.OverlappingLogistic(5.0), beta=False),
    "straight-through": Case(chains, (4, 3), smoothing=dvaepp.StraightThrough(), beta=False),
    "rebar": Case(smoothing=dvaepp.hard, objective=elbo_of_all, optimiser=Adam(1e-8, 0.99999), beta=False),
    "nvil": Case(smoothing=dvaepp.hard, objective=nvil, beta=False),
    "leave-one-out, two groups": Case(
        groups=(4, 3),
        smoothing=dvaepp.hard,
        objective=lambda: Elbo().with_estimator(LeaveOneOut()),
        beta=False,
    ),
}


def together(case: Case, folder: Path, execution: Any = "eager", steps: int = STEPS, seeds: int = 3) -> Replicas:
    makers = [partial(case.trainer, folder / f"seed{seed}", seed, steps) for seed in range(seeds)]
    return Replicas(makers, execution)


def assert_same(one: Path, other: Path, tolerance: float = 1e-8) -> None:
    """Everything in two checkpoints, to rounding; what both say of themselves to its last digits."""
    (a, about_a), (b, about_b) = (load_tensors(path) for path in (one, other))
    assert a.keys() == b.keys()
    for name in a.keys() - {name for name in a if name.endswith("_extra_state")}:
        torch.testing.assert_close(a[name], b[name], rtol=tolerance, atol=tolerance, msg=lambda text, n=name: n + text)
    assert about_a["step"] == about_b["step"]
    assert about_a["best"] == pytest.approx(about_b["best"], rel=max(1e-6, tolerance))


@pytest.mark.parametrize(("name", "steps"), [*((name, STEPS) for name in CASES), ("joint", 100)])
def test_replicas_train_as_each_does_alone(name: str, steps: int, tmp_path: Path) -> None:
    case = CASES[name]
    together(case, tmp_path / "together", steps=steps).fit()
    for seed in range(3):
        folder = Path(f"seed{seed}")
        alone = case.trainer(tmp_path / "alone" / folder, seed, steps)
        start = {key: tensor.clone() for key, tensor in alone.model.named_parameters()}
        alone.fit()
        assert all(not torch.equal(start[key], tensor) for key, tensor in alone.model.named_parameters())
        assert_same(*(tmp_path / kind / folder / "checkpoint.safetensors" for kind in ("together", "alone")))
        assert_same(*(tmp_path / kind / folder / "best.safetensors" for kind in ("together", "alone")))
        lines = [(tmp_path / kind / folder / "metrics.jsonl").read_text().count("\n") for kind in ("together", "alone")]
        assert lines == [4 * steps // STEPS] * 2


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
def test_compiled_replicas_train_as_each_does_alone(tmp_path: Path) -> None:
    case = CASES["two groups, chains, batch norm"]
    together(case, tmp_path / "together", "compiled", seeds=2).fit()
    for seed in range(2):
        case.trainer(tmp_path / f"seed{seed}", seed).fit()
        names = (f"together/seed{seed}", f"seed{seed}")
        assert_same(*(tmp_path / name / "checkpoint.safetensors" for name in names))


def test_float32_stays_float32_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU torch's compiler advises tf32 where it meets float32 products, and warnings can be errors."""
    advice = "TensorFloat32 tensor cores for float32 matrix multiplication available but not enabled."

    def compiled(function: Callable[..., Tensor], **_: Any) -> Callable[..., Tensor]:
        return lambda *tensors: (warnings.warn(advice, stacklevel=1), function(*tensors))[1]

    monkeypatch.setattr("torch.compile", compiled)
    monkeypatch.setattr("dvaepp.training.execution.check_compiler", lambda *_: None)
    replicas = together(CASES["joint"], tmp_path, "compiled", seeds=1)
    replicas.fit()
    assert replicas.step == STEPS


class Products(TorchDispatchMode):
    """Counts matrix products, and those over nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.empty, self.all = 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(function) for name in (".mm", ".bmm", ".addmm", ".baddbmm", ".mv", ".dot")):
            self.all += 1
            self.empty += any(isinstance(each, Tensor) and not each.numel() for each in args)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.prior is chains])
def test_no_step_takes_a_product_over_nothing(name: str, tmp_path: Path) -> None:
    """torch's compiled code on a CPU reads, and dies of, what the gradient of such a product points to."""
    replicas = together(CASES[name], tmp_path, seeds=1)
    replicas.begin()
    with Products() as products:
        replicas.advance(lambda *_: None, lambda: False)
    assert products.all > 10
    assert products.empty == 0


class Recorded:
    """A CUDA graph's part in `execution`, without a GPU: what is called as it is captured is called at each replay."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.replays = 0
        monkeypatch.setattr("dvaepp.training.execution._compiled", self.compiled)
        monkeypatch.setattr("torch.cuda.current_stream", lambda device: None)
        monkeypatch.setattr("torch.cuda.CUDAGraph", lambda: self)
        monkeypatch.setattr("torch.cuda.graph", lambda graph, stream: nullcontext())

    def compiled(self, function: Callable[..., Tensor], *arguments: Any) -> Callable[..., Tensor]:
        self.call = partial(function, *arguments)
        return function

    def replay(self) -> None:
        self.replays += 1
        self.call()


@pytest.mark.parametrize("name", ["marginal", "rebar"])
def test_a_graph_takes_the_steps_of_a_stretch_one_after_another(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Numbers, "span", 7)
    together(CASES[name], tmp_path / "eager").fit()
    graph = Recorded(monkeypatch)
    together(CASES[name], tmp_path / "graph", "graph").fit()
    assert graph.replays == STEPS
    for seed in range(3):
        assert_same(*(tmp_path / f"{kind}/seed{seed}/checkpoint.safetensors" for kind in ("graph", "eager")))


def test_a_prior_of_the_users_own_that_moves_does_so_at_every_step(tmp_path: Path) -> None:
    class Moving(dvaepp.BernoulliPrior):
        moves = 0

        def refresh(self, noise: Tensor | None = None) -> None:
            self.moves += 1

    assert (dvaepp.BernoulliPrior(5).chain_noise, Moving(5).chain_noise) == (None, (0,))
    replicas = together(Case(prior=lambda groups: Moving(*groups)), tmp_path, seeds=1)
    replicas.fit()
    assert replicas.trainers[0].model.prior.moves == STEPS


@pytest.mark.parametrize("name", ["joint", "two groups, chains, batch norm"])
def test_spans_of_steps_have_the_same_numbers_whatever_comes_between(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, whose generator here is the CPU's: stretches, companions, lines of metrics, a stop and a resume."""
    case = CASES[name]
    monkeypatch.setattr(Numbers, "span", 7)
    monkeypatch.setattr(Numbers, "moves_chains", case.prior is chains)
    monkeypatch.setattr(Numbers, "_of_device", staticmethod(lambda state: state))
    together(case, tmp_path / "whole").fit()
    monkeypatch.setattr("dvaepp.training.replicas.stretch", lambda trainers, span: 4)

    def alone(restored: bool) -> Trainer:
        trainer = case.trainer(tmp_path / "alone/seed1", 1, log_every=6, validate_every=9)
        if restored:
            trainer.restore()
        return trainer

    graph, stops = Recorded(monkeypatch), iter([False, False, True])
    Replicas([partial(alone, False)], "graph").fit(stop=lambda: next(stops))
    replicas = Replicas([partial(alone, True)], "graph")
    assert replicas.step == 12
    replicas.fit()
    assert graph.replays == STEPS
    (a, _), (b, _) = (load_tensors(tmp_path / f"{kind}/seed1/checkpoint.safetensors") for kind in ("whole", "alone"))
    for key in a.keys() - {key for key in a if key.endswith("_extra_state")}:
        torch.testing.assert_close(a[key], b[key], rtol=1e-8, atol=1e-8)


def test_chains_that_move_within_the_step_are_those_that_move_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, refresh = CASES["two groups, chains, batch norm"], dvaepp.BoltzmannPrior.refresh

    def drawn(prior: dvaepp.BoltzmannPrior, noise: Tensor | None = None) -> None:
        refresh(prior, torch.rand(prior.chain_noise, dtype=torch.float64) if noise is None else noise)

    monkeypatch.setattr(dvaepp.BoltzmannPrior, "refresh", drawn)
    together(case, tmp_path / "before").fit()
    monkeypatch.setattr(Numbers, "moves_chains", True)
    replicas = together(case, tmp_path / "within")
    before = [trainer.model.prior.states.clone() for trainer in replicas.trainers]
    replicas.fit()
    for start, trainer in zip(before, replicas.trainers, strict=True):
        assert not torch.equal(trainer.model.prior.states, start)
        names = (f"{kind}/seed{trainer.seed}/checkpoint.safetensors" for kind in ("before", "within"))
        assert_same(*(tmp_path / name for name in names))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["joint", "marginal", "two groups, chains, batch norm", "rebar"])
def test_replicas_as_cuda_graphs_side_by_side_train_as_each_does_alone(
    name: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With spans of 7 steps, stopped within one; in float32 for as long as rounding does not grow."""
    monkeypatch.setattr("dvaepp.training.numbers._MOST_STEPS", 7)
    steps = STEPS if dtype == torch.float64 else 4

    def on_gpu(folder: str, seed: int, restored: bool = False) -> Trainer:
        made = CASES[name].trainer(tmp_path / folder, seed, steps, log_every=5, validate_every=10)
        of = made.model.to("cuda", dtype), made.objective, made.data, made.settings, made.folder, seed
        trainer = Trainer(*of)
        if restored:
            trainer.restore()
        return trainer

    for restored in (False, True):
        makers = [[partial(on_gpu, f"graph{seed}", seed, restored) for seed in seeds] for seeds in ((0, 1), (2,))]
        groups = [Replicas(each, "graph") for each in makers]
        for group in groups:
            group.begin()
        while groups:
            groups = [group for group in groups if group.advance(lambda *_: None, lambda stop=not restored: stop)]
    for seed in range(3):
        Replicas([partial(on_gpu, f"alone{seed}", seed)], "eager").fit()
        tolerance = 1e-8 if dtype == torch.float64 else 1e-3
        assert_same(*(tmp_path / f"{kind}{seed}/checkpoint.safetensors" for kind in ("graph", "alone")), tolerance)


@pytest.mark.parametrize("name", ["two groups, chains, batch norm", "rebar"])
def test_replicas_that_were_stopped_go_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    together(case, tmp_path / "whole").fit()

    def stop(trainer: Trainer, metrics: Any) -> None:
        if trainer.step == STEPS and trainer.seed == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        together(case, tmp_path / "parts").fit(stop)

    def restored(seed: int) -> Trainer:
        trainer = case.trainer(tmp_path / f"parts/seed{seed}", seed)
        trainer.restore()
        assert trainer.step == STEPS // 2
        return trainer

    Replicas([partial(restored, seed) for seed in range(3)], "eager").fit()
    for seed in range(3):
        paths = [tmp_path / kind / f"seed{seed}/checkpoint.safetensors" for kind in ("whole", "parts")]
        (a, about_a), (b, about_b) = map(load_tensors, paths)
        assert about_a == about_b
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_checkpoints_of_a_killed_group_come_to_one_step(tmp_path: Path) -> None:
    def at(step: int) -> Path:
        replicas = together(Case(), tmp_path / str(step))
        for trainer in replicas.trainers:
            trainer.step = step
            trainer.save()
        return tmp_path / str(step)

    old, new = at(20), at(40)
    folders = [f"seed{seed}/checkpoint.safetensors" for seed in range(3)]

    def group(name: str, *states: str) -> list[int]:
        """The steps after `settle`; a state is what a folder holds: o(ld), p(ending and old), n(ew)."""
        paths = [tmp_path / name / folder for folder in folders]
        for path, folder, state in zip(paths, folders, states, strict=True):
            path.parent.mkdir(parents=True)
            shutil.copy((new if state == "n" else old) / folder, path)
            if state == "p":
                shutil.copy(new / folder, pending(path))
        settle(paths)
        assert not any(pending(path).exists() for path in paths)
        return [load_tensors(path)[1]["step"] for path in paths]

    assert group("before", "o", "o", "o") == [20, 20, 20]
    assert group("writing", "p", "p", "o") == [20, 20, 20]
    assert group("written", "p", "p", "p") == [40, 40, 40]
    assert group("renaming", "n", "p", "p") == [40, 40, 40]
    shutil.copy(old / folders[0], pending(new / folders[0]))  # the run has gone on by itself since
    settle([new / folder for folder in folders])
    assert [load_tensors(new / folder)[1]["step"] for folder in folders] == [40, 40, 40]
    assert not pending(new / folders[0]).exists()


@pytest.mark.parametrize("name", ["joint", "averaged, batch norm"])
def test_a_replica_that_diverges_stops_alone(name: str, tmp_path: Path) -> None:
    case = CASES[name]

    def trainer(seed: int) -> Trainer:
        made = case.trainer(tmp_path / f"seed{seed}", seed)
        if seed == 1:
            with torch.no_grad():
                next(made.model.decoder.parameters()).fill_(float("nan"))
        return made

    replicas = Replicas([partial(trainer, seed) for seed in range(3)], "eager")
    replicas.fit()
    assert [made.seed for made in replicas.trainers] == [0, 2]
    ((folder, error),) = replicas.failures.items()
    assert folder == tmp_path / "seed1"
    assert "infinite at step 1;" in str(error)
    assert str(folder) in str(error)
    for seed in (0, 2):
        case.trainer(tmp_path / f"alone{seed}", seed).fit()
        assert_same(*(tmp_path / f"{kind}{seed}/checkpoint.safetensors" for kind in ("seed", "alone")))


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("their steps so far", {"step": 3}),
        ("settings of training", {"batch": 5}),
        ("settings of training", {"validate_every": 40}),
        ("their bound", {"objective": MarginalBound}),
        ("their bound", {"objective": lambda: Elbo().with_estimator(LeaveOneOut())}),
        ("their model", {"groups": (6,)}),
        ("their model", {"smoothing": dvaepp.OverlappingLogistic(6.0)}),
        ("their data", {"dynamic": True}),
    ],
)
def test_what_is_not_a_replicas_own_must_be_the_same(what: str, other: dict[str, Any], tmp_path: Path) -> None:
    of_case = {key: value for key, value in other.items() if key in Case.__dataclass_fields__}
    settings = {key: value for key, value in other.items() if key in TrainingSettings.model_fields}

    def second() -> Trainer:
        trainer = Case(**of_case).trainer(tmp_path / "second", 0, **settings)
        trainer.step = other.get("step", 0)
        return trainer

    with pytest.raises(InputError, match=f"first and .*second cannot be trained as replicas: they differ in {what}"):
        Replicas([partial(Case().trainer, tmp_path / "first", 0), second])


def test_replicas_need_an_objective_that_takes_noise(tmp_path: Path) -> None:
    def terms(model: Any, x: Tensor) -> BoundTerms:
        return dvaepp.joint_terms(model, x)

    trainer = Case().trainer(tmp_path, 0)
    trainer.objective = terms
    with pytest.raises(InputError, match="replicas train on an Objective"):
        Replicas([lambda: trainer]).fit()
    with pytest.raises(InputError, match="at least one"):
        Replicas([])


def test_a_compiled_run_by_itself_says_where_it_diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvaepp.training.replicas.executed", lambda stack, given, *_: executed(stack, given, "eager"))
    trainer = Case().trainer(tmp_path, 0, compile=True)
    with torch.no_grad():
        next(trainer.model.decoder.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingDivergedError, match="at step 1; the last good checkpoint is .*checkpoint"):
        fit(trainer)


def test_replicas_have_one_estimator_and_leave_frozen_parameters_alone(tmp_path: Path) -> None:
    def maker(folder: str, samples: int, frozen: bool = False) -> Trainer:
        case = Case(smoothing=dvaepp.hard, objective=lambda: Elbo().with_estimator(LeaveOneOut(samples)), beta=False)
        trainer = case.trainer(tmp_path / folder, 0)
        trainer.model.encoder.requires_grad_(not frozen)
        return trainer

    with pytest.raises(InputError, match="they differ in their bound"):
        Replicas([partial(maker, "two", 2), partial(maker, "three", 3)])
    Replicas([partial(maker, "together", 2, True)], "eager").fit()
    alone = maker("alone", 2, True)
    start = {name: parameter.clone() for name, parameter in alone.model.named_parameters()}
    alone.fit()
    assert_same(tmp_path / "together/best.safetensors", tmp_path / "alone/best.safetensors")
    tensors, _ = load_tensors(tmp_path / "together/checkpoint.safetensors")
    for name, parameter in start.items():
        assert torch.equal(tensors[f"model.{name}"], parameter) == name.startswith("encoder"), name


def test_replicas_are_of_bits(tmp_path: Path) -> None:
    model = dvaepp.FeedForwardVAE(
        dvaepp.NormalEncoder(dvaepp.dense(PIXELS, 6)), dvaepp.NormalPrior(3), dvaepp.dense(3, PIXELS), dvaepp.hard
    )
    trainer = Trainer(model, JointBound(), data(), TrainingSettings(steps=2, batch=6), tmp_path)
    with pytest.raises(InputError, match="replicas are feed-forward models of bits"):
        Replicas([lambda: trainer])


def test_what_is_learned_goes_where_the_model_is_and_a_sampled_kl_has_no_warm_up(tmp_path: Path) -> None:
    case = Case(smoothing=dvaepp.hard, objective=lambda: Elbo().with_estimator(NVIL(PIXELS)), beta=False)
    trainer = case.trainer(tmp_path, 0)
    assert trainer.learned is not None
    assert {parameter.dtype for parameter in trainer.learned.parameters()} == {torch.float64}
    trainer.train_step()
    meta = Trainer(trainer.model.to("meta"), trainer.objective, trainer.data, trainer.settings, tmp_path)
    assert {parameter.device.type for parameter in meta.learned.parameters()} == {"meta"}  # type: ignore[union-attr]
    with pytest.raises(InputError, match="kl_warmup must be 0"):
        Case(smoothing=dvaepp.hard, objective=elbo_of_all, beta=False).trainer(tmp_path, 0, kl_warmup=0.3)


def test_muon_leaves_an_estimator_without_matrices_to_adam(tmp_path: Path) -> None:
    def objective() -> Objective:
        return Elbo().with_estimator(REBAR())

    trainer = Case(smoothing=dvaepp.hard, objective=objective, optimiser=MuonAndAdam(), beta=False).trainer(tmp_path, 0)
    trainer.train_step()
    assert set(trainer.optimisation.optimizers) == {"optimizer", "muon", "estimator.optimizer"}
