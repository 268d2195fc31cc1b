"""One step of training against an optimiser by hand in float64; log Z and the best checkpoint against what they are."""

import copy
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from registry import all_states, pair_by_pair_energy
from torch import Tensor, nn

import dvaepp
import dvaepp.training
from dvaepp.data.dataset import Dataset
from dvaepp.objectives.base import BoundTerms
from dvaepp.objectives.bounds import joint_terms
from dvaepp.optimisers.adam import Adam
from dvaepp.optimisers.muon import MuonAndAdam
from dvaepp.storage import load_tensors
from dvaepp.training.checkpoints import load_model
from dvaepp.training.settings import TrainingSettings
from dvaepp.training.trainer import Trainer

BITS = 4
SETTINGS: dict[str, Any] = {
    "steps": 8,
    "batch": 20,
    "learning_rate": ((0.25, 1e-2), (0.75, 5e-2), (1.0, 2e-3)),
    "l2": 0.3,
    "kl_warmup": 0.5,
    "beta": (4.0, 12.0),
}
RATES = [1e-2, 1e-2, 5e-2, 5e-2, 5e-2, 5e-2, 2e-3, 2e-3]
KL_WEIGHTS = [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]
BETAS = [4, 5, 6, 7, 8, 9, 10, 11]


def data(examples: int = 20) -> Dataset:
    """Bits of six pixels."""
    bits = torch.randint(0, 2, (examples, 6), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    return Dataset("bits", (6,), bits, bits[:10], bits[10:], False, "by hand")


def model(chains: dvaepp.PersistentChains | None = None) -> dvaepp.FeedForwardVAE:
    """Four bits in one group; every kind of parameter, in float64."""
    torch.manual_seed(4)
    machine = dvaepp.BoltzmannMachine(2, 2)
    prior = dvaepp.BoltzmannPrior(machine, chains, exact_bits=0 if chains else 16)
    encoder = dvaepp.HierarchicalEncoder(dvaepp.dense(6, BITS, (3,), batch_norm=True))
    decoder = dvaepp.dense(BITS, 6)
    vae = dvaepp.FeedForwardVAE(encoder, prior, decoder, dvaepp.OverlappingExponential(9.0)).double()
    with torch.no_grad():
        for parameter in vae.parameters():
            nn.init.normal_(parameter, std=0.5)
    return vae


class Pull:
    """An objective without chance: every parameter is pulled to -1, the prior's by kl_weight, the others by the data.

    For one example, -sum(p + p^2 / 2), times kl_weight for the prior's and 1 + (number of ones in x) for the others.
    """

    def __init__(self) -> None:
        self.betas: list[float] = []
        self.states: list[Tensor] = []

    def __call__(self, model: Any, x: Tensor) -> BoundTerms:
        self.betas.append(float(model.smoothing.beta))
        self.states.append(model.prior.states.clone())
        ours, priors = [], []
        for name, p in model.named_parameters():
            (priors if name.startswith("prior") else ours).append((p + p**2 / 2).sum())
        likelihood = -(1 + x.double().sum(1)) * torch.stack(ours).sum()
        return BoundTerms(likelihood, torch.stack(priors).sum().expand(len(x)), x.new_zeros(len(x), 0))


class AdamByHand:
    """TensorFlow's Adam on the loss with (l2 / 2) |w|^2 in it, in plain formulas (Kingma & Ba, end of Section 2)."""

    def __init__(self, value: Tensor) -> None:
        self.value = value.detach().clone()
        self.m, self.v, self.t = torch.zeros_like(value), torch.zeros_like(value), 0

    def step(self, gradient: Tensor, rate: float, epsilon: float) -> None:
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * gradient
        self.v = 0.999 * self.v + 0.001 * gradient**2
        corrected = rate * math.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t)
        self.value = self.value - corrected * self.m / (self.v.sqrt() + epsilon)


class MuonByHand:
    """Jordan et al.'s Muon on the same loss: momentum a sum over all gradients, the quintic on singular values."""

    def __init__(self, value: Tensor) -> None:
        self.value = value.detach().clone()
        self.gradients: list[Tensor] = []

    def step(self, gradient: Tensor, rate: float, epsilon: float) -> None:
        self.gradients.append(gradient)
        weighted = [0.95**age * g for age, g in enumerate(reversed(self.gradients))]
        u, s, v = torch.linalg.svd((gradient + 0.95 * sum(weighted)) * 0.05, full_matrices=False)
        s = s / max(float((s**2).sum()) ** 0.5, 1e-7)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        rows, columns = gradient.shape
        self.value = self.value - rate * max(1, rows / columns) ** 0.5 * (u * s) @ v


# Weight matrices, the batch-norm gain and the couplings; neither biases nor the batch norm's shift.
DECAYED = {
    "encoder.levels.0.0.weight",
    "encoder.levels.0.1.weight",
    "encoder.levels.0.3.weight",
    "decoder.0.weight",
    "prior.machine.couplings.0",
}


# Weights of layers.
MATRICES = {"encoder.levels.0.0.weight", "encoder.levels.0.3.weight", "decoder.0.weight"}


@pytest.mark.parametrize("muon", [None, 0.3])
def test_eight_steps_are_the_ones_taken_by_hand_with_every_schedule(tmp_path: Path, muon: float | None) -> None:
    vae, pull, examples = model(), Pull(), data()
    trainer = Trainer(
        vae,
        pull,
        examples,
        TrainingSettings(**SETTINGS, optimiser=MuonAndAdam(muon, epsilon=1e-2) if muon else Adam(1e-2)),
        tmp_path,
    )
    by_muon = MATRICES if muon else set()
    by_hand = {name: (MuonByHand if name in by_muon else AdamByHand)(p) for name, p in vae.named_parameters()}
    assert set(by_hand) > DECAYED > MATRICES
    data_weight = 1 + float(examples.train.double().sum() / 20)
    for rate, kl_weight in zip(RATES, KL_WEIGHTS, strict=True):
        loss = 0.0
        for name, its in by_hand.items():
            weight = kl_weight if name.startswith("prior") else data_weight
            loss += weight * float((its.value + its.value**2 / 2).sum())
            decay = 0.3 * its.value if name in DECAYED else 0
            its.step(weight * (1 + its.value) + decay, 0.3 * rate if name in by_muon else rate, 1e-2)
        measured, x = trainer.train_step()
        assert x.shape == (20, 6)
        assert float(measured) == pytest.approx(loss, rel=1e-12)
        for name, parameter in vae.named_parameters():
            torch.testing.assert_close(parameter.detach(), by_hand[name].value, rtol=1e-10, atol=1e-12, msg=name)
    assert pull.betas == pytest.approx(BETAS)
    assert trainer.step == 8


def test_the_first_step_is_the_one_taken_by_hand_in_numbers(tmp_path: Path) -> None:
    """Gradient 1 at a single weight 0: m = .1, v = .001; TensorFlow's step is rate sqrt(.001) / .1 * .1 / (sqrt(.001)
    + epsilon), which is .01 * .0316228 / .0416228."""
    vae = model()
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()

    def slope(model: Any, x: Tensor) -> BoundTerms:
        return BoundTerms(-model.decoder[0].weight[0, 0].expand(len(x)), x.new_zeros(len(x)), x.new_zeros(len(x), 0))

    Trainer(vae, slope, data(), TrainingSettings(**SETTINGS, optimiser=Adam(1e-2)), tmp_path).train_step()
    assert float(vae.decoder[0].weight.detach()[0, 0]) == pytest.approx(-0.00759746, rel=1e-5)
    assert sum(int(p.count_nonzero()) for p in vae.parameters()) == 1


def test_chains_are_swept_once_before_every_step_with_the_weights_of_then(tmp_path: Path) -> None:
    vae, pull = model(dvaepp.PersistentChains(30, 3)), Pull()
    trainer = Trainer(vae, pull, data(), TrainingSettings(**SETTINGS), tmp_path)
    torch.manual_seed(11)
    for step in range(3):
        before, then = vae.prior.states.clone(), copy.deepcopy(vae.prior)
        random_state = torch.get_rng_state()
        then.refresh()
        by_hand = copy.deepcopy(vae.prior.machine)
        torch.set_rng_state(random_state)
        swept = by_hand.gibbs(before, 3)
        torch.set_rng_state(random_state)
        trainer.train_step()
        assert torch.equal(vae.prior.states, then.states)
        assert torch.equal(vae.prior.states, swept)
        assert torch.equal(pull.states[step], swept)  # the gradient was taken at the fresh states
        assert not torch.equal(vae.prior.states, before)


def _fit(trainer: Trainer, look: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    trainer.folder.mkdir(exist_ok=True)
    trainer.fit(look)
    return [json.loads(line) for line in trainer.journal.path.read_text().splitlines()]


def test_log_z_is_estimated_afresh_at_every_line_of_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = model(dvaepp.PersistentChains(10, 1)).float()
    efforts, estimate = set[tuple[int, int, int]](), vae.prior.estimate_log_partition

    def watched(*, temperatures: int, chains: int, repeats: int) -> Any:
        efforts.add((temperatures, chains, repeats))
        return estimate(temperatures=temperatures, chains=chains, repeats=repeats)

    monkeypatch.setattr(vae.prior, "estimate_log_partition", watched)
    settings = TrainingSettings(
        steps=12,
        batch=20,
        learning_rate=((1.0, 0.3),),
        kl_warmup=0,
        log_every=3,
        validate_every=6,
        validation_temperatures=50,
        validation_chains=100,
    )

    def lift(model: Any, x: Tensor) -> BoundTerms:
        """The biases rise by about .3 a step, and log Z with them; the KL trains nothing."""
        kl = model.prior.kl(model(x).posterior).detach()
        return BoundTerms(model.prior.machine.bias.sum().expand(len(x)), kl, x.new_zeros(len(x), 0))

    exact: dict[tuple[int, str], float] = {}

    def look(metrics: dict[str, Any]) -> None:
        machine = vae.prior.machine
        log_p = -pair_by_pair_energy(copy.deepcopy(machine).double(), all_states(BITS)).detach()
        log_z = float(torch.logsumexp(log_p, 0))
        kind = "valid" if "valid_log_z" in metrics else "train"
        exact[metrics["step"], kind] = log_z
        if kind == "valid":
            error = 5 * metrics["valid_log_z_standard_error"] + 1e-6
            assert abs(metrics["valid_log_z"] - log_z) < error < 0.3
        else:
            # One group: q is independent given x, and KL(q || p) is a sum over all states.
            with torch.no_grad():
                q = torch.sigmoid(vae.eval().encoder.levels[0](examples.train.float()).double())
            vae.train()
            states = all_states(BITS)
            log_q = torch.log(torch.where(states > 0.5, q[:, None], 1 - q[:, None])).sum(-1)
            kl = float((log_q.exp() * (log_q - log_p + log_z)).sum(1).mean())
            assert metrics["kl"] == pytest.approx(kl, abs=0.2)
            assert metrics["loss"] == pytest.approx(metrics["distortion"] + metrics["kl"])

    examples = data()
    trainer = Trainer(vae, lift, examples, settings, tmp_path / "run")
    _fit(trainer, look)
    assert efforts == {(100, 100, 1), (50, 100, 3)}
    assert sorted(step for step, kind in exact if kind == "train") == [3, 6, 9, 12]
    assert sorted(step for step, kind in exact if kind == "valid") == [6, 12]
    # log Z rises by more than the tolerances from each line to the next: a value kept from before would show.
    values = [exact[step, "train"] for step in (3, 6, 9, 12)]
    assert min(b - a for a, b in itertools.pairwise(values)) > 1
    saved = model(dvaepp.PersistentChains(10, 1)).float()
    load_model(saved, trainer.checkpoint, *load_tensors(trainer.checkpoint), settings)
    assert saved.prior.log_partition.value == pytest.approx(values[-1], abs=0.3)


def test_the_best_checkpoint_is_the_validation_with_the_lowest_nll(tmp_path: Path) -> None:
    vae = model().float()
    settings = TrainingSettings(
        steps=12, batch=20, learning_rate=((0.5, 0.15), (1.0, 5.0)), kl_warmup=0, validate_every=2, log_every=100
    )
    weights: dict[int, dict[str, Tensor]] = {}

    def look(metrics: dict[str, Any]) -> None:
        weights[metrics["step"]] = {name: tensor.clone() for name, tensor in vae.state_dict().items()}

    trainer = Trainer(vae, joint_terms, data(), settings, tmp_path / "run")
    with torch.no_grad():
        vae.decoder[0].bias.fill_(3.0)
    scores = [line for line in _fit(trainer, look) if "valid_nll" in line]
    best = min(scores, key=lambda line: line["valid_nll_at_high_log_z"])
    # It gets better, and then, at a rate much too large, worse.
    assert scores[0]["step"] < best["step"] < scores[-1]["step"]
    tensors, about = load_tensors(tmp_path / "run" / "best.safetensors")
    assert about["step"] == best["step"]
    for name, tensor in weights[best["step"]].items():
        assert torch.equal(tensors[f"model.{name}"], tensor), name


def test_the_best_checkpoint_is_judged_at_the_high_end_of_log_z(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A validation whose likelihood looks good because its log Z is uncertain does not win."""
    nll, margin = [9.0, 8.0, 8.5, 8.9, 8.4], [1.0, 3.0, 0.2, 0.1, 2.0]
    rigged = iter(zip(nll, margin, strict=True))

    def score(*arguments: Any, **settings: Any) -> SimpleNamespace:
        middle, error = next(rigged)
        numbers = {"nll": middle, "nll_at_low_log_z": middle - error, "nll_at_high_log_z": middle + error}
        return SimpleNamespace(numbers=lambda: {**numbers, "elbo": -middle - 1})

    monkeypatch.setattr(dvaepp.training.trainer, "score", score)
    settings = TrainingSettings(steps=5, batch=20, kl_warmup=0, validate_every=1, log_every=100)
    trainer = Trainer(model().float(), Pull(), data(), settings, tmp_path / "run")
    lines = _fit(trainer, lambda metrics: None)
    assert [line["valid_nll"] for line in lines if "valid_nll" in line] == nll
    _, about = load_tensors(tmp_path / "run" / "best.safetensors")
    assert about["step"] == 3
    assert about["best"]["valid_nll_at_high_log_z"] == pytest.approx(8.7)


def short(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**{"steps": 2, "batch": 20, "kl_warmup": 0, "log_every": 1, "validate_every": 1, **changes})


def test_a_module_that_is_frozen_in_evaluation_mode_stays_so_while_the_model_trains(tmp_path: Path) -> None:
    vae = model().float()
    vae.encoder.eval()
    frozen = {name: tensor.clone() for name, tensor in vae.encoder.named_buffers()}
    trainer = Trainer(vae, joint_terms, data(), short(), tmp_path)
    trainer.fit()
    assert not any(module.training for module in vae.encoder.modules())
    assert all(module.training for module in (vae, vae.decoder, vae.prior))
    assert frozen
    for name, tensor in vae.encoder.named_buffers():
        assert torch.equal(tensor, frozen[name]), name


def test_a_model_in_evaluation_mode_is_trained_in_training_mode(tmp_path: Path) -> None:
    vae = model().float().eval()
    Trainer(vae, joint_terms, data(), short(), tmp_path).fit()
    assert all(module.training for module in vae.modules())
    assert int(vae.encoder.levels[0][1].num_batches_tracked) == 2


def noise() -> float:
    """The next random number, which is left to be drawn."""
    with torch.random.fork_rng():
        return float(torch.rand((), dtype=torch.float64))


def noise_of(seed: int, step: int, folder: Path) -> dict[str, float]:
    """The first random number that each estimate of a trainer meets at its step."""
    vae, settings = model().float(), short(steps=1000, validation_samples=1)
    trainer, prior, met = Trainer(vae, Pull(), data(), settings, folder, seed), vae.prior, []
    estimate = prior.estimate_log_partition

    def estimated(**settings: Any) -> Any:
        met.append(noise())
        return estimate(**settings)

    prior.estimate_log_partition = estimated
    vae.register_forward_pre_hook(lambda module, inputs: met.append(noise()))
    trainer.step = step
    trainer._training_metrics(data().train.float())
    trainer._validate()
    names = ("log Z of the loss", "loss", "log Z of the validation", "scores")
    return dict(zip(names, met[:4], strict=True))


def test_no_two_estimates_of_any_runs_share_noise(tmp_path: Path) -> None:
    steps, seeds = (0, 1, 2, 99, 100), (0, 1, 2, 100, 2**31 - 1)
    found = {(seed, step): noise_of(seed, step, tmp_path) for seed in seeds for step in steps}
    for here, there in itertools.combinations(found, 2):
        assert found[here].keys() == found[there].keys()
        assert not set(found[here].values()) & set(found[there].values()), (here, there)
    assert all(len(set(of_a_step.values())) == 4 for of_a_step in found.values())


@pytest.mark.parametrize("kind", ["log Z of the loss", "loss", "log Z of the validation", "scores"])
def test_the_hundredth_step_of_seed_0_is_not_the_start_of_seed_100(tmp_path: Path, kind: str) -> None:
    assert noise_of(0, 100, tmp_path)[kind] != noise_of(100, 0, tmp_path)[kind]
    assert noise_of(0, 100, tmp_path)[kind] == noise_of(0, 100, tmp_path)[kind]


def test_validation_examples_are_not_drawn_as_the_batches_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.tensor(list(itertools.product((0, 1), repeat=6)), dtype=torch.uint8)
    known = Dataset("bits", (6,), rows, rows, rows, False, "every image once")
    scored: list[Tensor] = []

    def score(model: Any, x: Tensor, *arguments: Any, **settings: Any) -> Any:
        scored.append(x)
        return SimpleNamespace(numbers=lambda: {"nll": 1.0, "nll_at_high_log_z": 1.0})

    monkeypatch.setattr(dvaepp.training.trainer, "score", score)
    trainer = Trainer(model().float(), Pull(), known, short(batch=64), tmp_path)
    trainer._validate()
    trainer.step = 1
    trainer._validate()
    assert torch.equal(scored[0], scored[1])  # of one run always the same
    assert not torch.equal(scored[0], rows[trainer._order.indices(0)].float())
