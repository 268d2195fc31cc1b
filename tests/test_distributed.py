"""Several processes on this machine against one: gradients, resumed runs, scores, and who writes.

Run as a program, this file is one of the processes of the first tests: see `work`.
"""

import copy
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dvaepp
from dvaepp import distributed, rendezvous
from dvaepp.cli import main
from dvaepp.data.dataset import Dataset
from dvaepp.errors import InputError, TrainingDivergedError
from dvaepp.evaluation.likelihood import score, shared_log_partition
from dvaepp.objectives.base import BoundTerms
from dvaepp.objectives.bounds import joint_terms
from dvaepp.runs.folder import RunFolder
from dvaepp.storage import load_tensors
from dvaepp.training.settings import TrainingSettings
from dvaepp.training.trainer import Trainer

PIXELS, BITS, BATCH, CHAINS = 6, 4, 8, 12
TRAIN = [
    "train", "quick/rbm", "--size", "tiny", "--seed", "3", "--steps", "100",
    "--set", "model.groups=[20,20]", "--set", "model.hidden=[8]", "--set", "model.chains=10", "--set", "model.sweeps=2",
    "--set", "training.validate_every=25", "--set", "training.log_every=10", "--set", "training.batch=30",
    "--set", "training.validation_examples=20", "--set", "training.average=0.9",
]  # fmt: skip


def start(count: int, *arguments: object) -> list[subprocess.Popen[str]]:
    """Python processes with the environment that torchrun and accelerate launch give them."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    shared = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    return [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env={**os.environ, **{k: str(v) for k, v in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each process."""
    ends = [process.communicate(timeout=60) for process in processes]
    return [(process.returncode, *end) for process, end in zip(processes, ends, strict=True)]


def data() -> Dataset:
    bits = torch.randint(0, 2, (20, PIXELS), generator=torch.Generator().manual_seed(3)).to(torch.uint8)
    return Dataset("bits", (PIXELS,), bits, bits[:10], bits[10:], False, "by hand")


def model(chains: int) -> dvaepp.FeedForwardVAE:
    """Batch norm in one dimension in the encoder, in two in the decoder; chains; float64."""
    prior = dvaepp.BoltzmannPrior(dvaepp.BoltzmannMachine(2, 2), dvaepp.PersistentChains(chains, 1), exact_bits=0)
    encoder = dvaepp.HierarchicalEncoder(dvaepp.dense(PIXELS, BITS, (5,), batch_norm=True))
    decoder = nn.Sequential(
        nn.Linear(BITS, 12), nn.Unflatten(1, (2, 2, 3)), nn.BatchNorm2d(2, momentum=None), nn.Tanh(),
        nn.Conv2d(2, 1, 3, padding=1), nn.Flatten(),
    )  # fmt: skip
    vae = dvaepp.FeedForwardVAE(encoder, prior, decoder, dvaepp.OverlappingExponential(4.0)).double()
    torch.manual_seed(4)  # only now, since the chains' start took as many draws as there are chains
    with torch.no_grad():
        for parameter in vae.parameters():
            nn.init.normal_(parameter, std=0.7)
    return vae


def objective(model: Any, x: Tensor) -> BoundTerms:
    return joint_terms(model, x.to(model.decoder[0].weight.dtype))


def trainer(folder: Path, chains: int, objective: Any = objective) -> Trainer:
    settings = TrainingSettings(steps=4, batch=BATCH, kl_warmup=0, log_every=2, validate_every=4, l2=0.1)
    return Trainer(model(chains), objective, data(), settings, folder)


def one_step(folder: Path) -> dict[str, Tensor]:
    """Gradients and state after a step whose noise and chains, of all processes together, are these."""
    generator = torch.Generator().manual_seed(5)
    noise = torch.rand((BATCH, 2, BITS), dtype=torch.float64, generator=generator)
    states = torch.randint(0, 2, (CHAINS, BITS), generator=generator).double()
    training = trainer(folder, CHAINS // distributed.world())
    prior: Any = training.model.prior
    prior.states.copy_(distributed.own(states))
    prior.refresh = lambda: None
    rand = torch.rand
    torch.rand = lambda *_, **__: distributed.own(noise).transpose(0, 1)
    try:
        training.train_step()
    finally:
        torch.rand = rand
    gradients = {f"gradient.{name}": p.grad for name, p in training.model.named_parameters() if p.grad is not None}
    state = {k: v for k, v in training.model.state_dict().items() if k != "prior.states"}
    return copy.deepcopy({**gradients, **state})


def local_terms(rows: Tensor) -> BoundTerms:
    """Terms of local groups alone."""
    return BoundTerms(rows.new_zeros(len(rows)), rows.new_zeros(len(rows)), rows)


def table() -> Tensor:
    """The KL of three groups for every example of a batch; its halves balance otherwise than the whole."""
    return torch.rand((BATCH, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(6)) ** 3


def balanced(folder: Path) -> dict[str, float]:
    """Loss, gradient and metrics of a step in a warm-up with balanced groups, whose KLs differ from row to row."""

    def terms(model: Any, x: Tensor) -> BoundTerms:
        pull = torch.stack([p.sum() for p in model.parameters()]).sum()
        return local_terms(distributed.own(table()) * pull**2)

    settings = TrainingSettings(steps=4, batch=BATCH, learning_rate=((1.0, 1e-7),), kl_warmup=1, balance_kl=True)
    training = Trainer(model(CHAINS), terms, data(), settings, folder)
    losses, x = zip(*(training.train_step() for _ in range(2)), strict=True)
    gradient = next(training.model.parameters()).grad
    assert gradient is not None
    metrics = {k: v for k, v in training._training_metrics(x[1]).items() if not k.startswith("chains")}
    return {"trained": float(distributed.mean(losses[1])), "gradient": float(gradient.sum()), **metrics}


def diverges(folder: Path) -> str:
    """How a training ends that becomes NaN in the last process alone."""

    def spoiled(model: Any, x: Tensor) -> BoundTerms:
        terms, last = joint_terms(model, x), distributed.rank() == distributed.world() - 1
        return replace(terms, log_likelihood=terms.log_likelihood * float("nan")) if last else terms

    training = trainer(folder, CHAINS, spoiled)
    training.model.float()
    try:
        training.fit()
    except TrainingDivergedError as error:
        return str(error)
    return "it did not diverge"


def refused() -> str:
    """What a process says when the first alone meets bad input."""

    def fail() -> None:
        raise InputError("the first process found this")

    try:
        distributed.on_first(fail)
    except InputError as error:
        return str(error)
    return "nothing"


def work(folder: Path) -> None:
    """What each process of the tests of gradients and refusals does; its findings go to a file of its own."""
    with distributed.processes("cpu"):
        mine = folder / str(distributed.rank())
        found: dict[str, Any] = {"step": one_step(mine), "diverged": diverges(mine), "refused": refused()}
        found["balanced"] = balanced(mine)
        vae = model(CHAINS).float()
        shared_log_partition(vae.prior, temperatures=5, chains=5)
        found["one"] = score(vae, data().valid[:1].float(), 2).examples.elbo
        found["log_z"] = vae.prior.log_partition.value
        distributed.synchronise_batch_norm = lambda model: None
        found["unsynchronised"] = one_step(mine)
        torch.save(found, folder / f"found-{distributed.rank()}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    for code, _, errors in finish(start(2, __file__, folder)):
        assert code == 0, errors
    return [torch.load(folder / f"found-{rank}.pt") for rank in (0, 1)]


def test_two_processes_take_the_step_of_one_with_both_halves_of_the_batch(
    found: list[dict[str, Any]], tmp_path: Path
) -> None:
    alone = one_step(tmp_path)
    assert {"gradient.decoder.2.weight", "gradient.prior.machine.couplings.0", "decoder.2.running_var"} < alone.keys()
    for process in found:
        assert process["step"].keys() == alone.keys()
        for name, tensor in alone.items():
            torch.testing.assert_close(process["step"][name], tensor, rtol=1e-9, atol=1e-11, msg=name)
    for name, tensor in found[0]["step"].items():
        assert torch.equal(tensor, found[1]["step"][name]), name


def test_without_synchronised_batch_norm_the_step_would_be_another(found: list[dict[str, Any]], tmp_path: Path) -> None:
    alone, name = one_step(tmp_path), "gradient.encoder.levels.0.0.weight"
    assert not torch.allclose(found[0]["unsynchronised"][name], alone[name], rtol=0.01)
    assert torch.equal(found[0]["unsynchronised"][name], found[1]["unsynchronised"][name])


def test_groups_are_balanced_by_the_whole_batch_in_what_trains_and_in_what_is_logged(
    found: list[dict[str, Any]], tmp_path: Path
) -> None:
    alone = balanced(tmp_path)
    assert alone["kl_weight"] == 0.25
    assert found[0]["balanced"] == found[1]["balanced"] == pytest.approx(alone, rel=1e-9)
    assert alone["loss"] == pytest.approx(alone["trained"], rel=1e-4)
    weights = [local_terms(rows).balancing(0.25) for rows in (table(), *table().chunk(2))]
    assert all(float((weights[0] - other).abs().max()) > 0.05 for other in weights[1:])


def test_what_one_process_meets_ends_all(found: list[dict[str, Any]]) -> None:
    for process in found:
        assert process["diverged"].startswith("training became NaN or infinite at step 1; ")
        assert process["refused"] == "the first process found this"


def test_fewer_examples_than_processes_are_scored_and_log_z_is_the_same_in_all(found: list[dict[str, Any]]) -> None:
    assert found[0]["one"].shape == (1,)
    assert torch.equal(found[0]["one"], found[1]["one"])
    assert found[0]["log_z"] == found[1]["log_z"]


def lines(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in RunFolder(run).metrics()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three processes, started by torchrun."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    done = subprocess.run(
        [*torchrun, "-m", "dvaepp", *TRAIN, "--out", str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 100: validation NLL") == 1
    assert done.stdout.count("done: best") == 1
    return folder


def test_one_process_writes_and_each_has_noise_and_chains_of_its_own(whole: Path) -> None:
    tensors, _ = load_tensors(whole / "checkpoint.safetensors")
    prefixes = ("", "process.1.", "process.2.")
    for name in ("random.cpu", "model.prior.states"):
        first, second, third = (tensors[prefix + name] for prefix in prefixes)
        assert first.shape == second.shape == third.shape
        assert not torch.equal(first, second)
        assert not torch.equal(second, third)
    steps = [line["step"] for line in lines(whole) if "valid_nll" in line]
    assert steps == list(range(25, 101, 25))
    logged = [line["step"] for line in lines(whole) if "loss" in line]
    assert logged == sorted({*range(10, 101, 10), *steps})
    assert not list(whole.glob(".*.tmp"))


def test_a_run_of_three_processes_one_of_which_is_killed_ends_as_if_it_were_not(whole: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    processes = start(3, "-m", "dvaepp", *TRAIN, "--out", killed)
    while len(RunFolder(killed).metrics()) < 7:
        assert processes[1].poll() is None
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGKILL)
    codes = [code for code, _, _ in finish(processes)]
    assert codes[1] == -signal.SIGKILL
    assert codes[0] != 0 != codes[2]  # they do not wait for it
    for code, _, errors in finish(start(3, "-m", "dvaepp", "resume", killed)):
        assert code == 0, errors
    for name in ("checkpoint.safetensors", "best.safetensors"):
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    assert lines(whole) == lines(killed)


def test_one_process_cannot_go_on_with_a_run_of_three(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", str(whole)]) == 2
    assert "was trained by 3 processes, and can only go on with as many, not with 1" in capsys.readouterr().err


def test_a_batch_that_does_not_divide_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    arguments = [*TRAIN, "--set", "training.batch=31", "--out", tmp_path / "run"]
    for code, _, errors in finish(start(2, "-m", "dvaepp", *arguments)):
        assert code == 2
        assert errors == "dvaepp: training.batch is 31, which does not divide among 2 processes\n"
    assert not (tmp_path / "run").exists()


def test_two_processes_score_what_one_scores_in_the_same_order(whole: Path, tmp_path: Path) -> None:
    scores = {}
    for count in (1, 2):
        file = tmp_path / f"{count}.npz"
        arguments = [
            "evaluate",
            str(whole),
            "--quick",
            "--examples",
            "151",
            "--samples",
            "20",
            "--per-example",
            str(file),
        ]
        if count == 1:
            assert main(arguments) == 0
        else:
            ends = finish(start(2, "-m", "dvaepp", *arguments))
            assert [code for code, _, _ in ends] == [0, 0], ends
            assert "NLL, nats" in ends[0][1]
            assert ends[1][1] == ""
        scores[count] = dict(np.load(file))
        assert json.loads((whole / "scores.json").read_text())["scores"]["examples"] == 151
    one, two = scores[1], scores[2]
    np.testing.assert_allclose(one["mu"][..., :20], two["mu"][..., :20], atol=1e-5)  # the first group has no noise
    for name in ("log_likelihood", "elbo"):
        difference = one[name] - two[name]
        assert abs(difference.mean()) < 5 * difference.std() / len(difference) ** 0.5
        assert (difference != 0).mean() > 0.9


@pytest.mark.parametrize(
    ("environment", "device", "message"),
    [
        (
            {"WORLD_SIZE": "2"},
            "cpu",
            "without RANK, LOCAL_RANK, .*: start several processes with torchrun or accelerate",
        ),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "cpu", "without LOCAL_RANK: start"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "DVAEPP_JOIN_SECONDS": "0"}, "cpu", "_SECONDS is '0'"),
        *[
            ({"WORLD_SIZE": size}, "cpu", f"WORLD_SIZE is '{size}' in the")
            for size in ("two", "0", "-1", "1.5", "", "9" * 30)
        ],
        *[
            ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", name: value}, "cpu", f"{name} is '{value}' in the")
            for name, value in (
                ("RANK", "2"),
                ("RANK", "-1"),
                ("RANK", "x"),
                ("LOCAL_RANK", "1e0"),
                ("MASTER_PORT", "65536"),
            )
        ],
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "cuda:1", "take the device cpu or cuda"),
        ({"WORLD_SIZE": "99", "RANK": "98", "LOCAL_RANK": "98"}, "cuda", "needs a GPU of its own; it has"),
    ],
)
def test_processes_that_cannot_work_together_are_refused(
    environment: dict[str, str], device: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    if "RANK" in environment:
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", **environment}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message), distributed.processes(device):
        pass


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_those_who_wait_for_one_who_does_not_come_end_in_a_sentence(
    absent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVAEPP_JOIN_SECONDS", "2")
    processes = start(3, "-m", "dvaepp", *TRAIN, "--out", tmp_path / "run")
    processes[absent].kill()
    ends = finish(processes)
    for rank in {0, 1, 2} - {absent}:
        code, _, errors = ends[rank]
        assert code == 2
        said = [line for line in errors.splitlines() if line.startswith("dvaepp: ")]
        assert len(said) == 1, errors
        assert f"dvaepp: process {rank} of 3 at 127.0.0.1:" in said[0]
        assert "did not meet the others (" in said[0]
        assert "DVAEPP_JOIN_SECONDS, which is 2, lets" in said[0]
        assert "#" not in errors  # frames of torch's own trace
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("impatient", [0, 1])
def test_whoever_gives_up_takes_all_along(impatient: int, tmp_path: Path) -> None:
    staggered = """
import os, sys, time
from pathlib import Path
from dvaepp import distributed
from dvaepp.errors import InputError
rank, impatient, folder = int(os.environ["RANK"]), int(sys.argv[1]), Path(sys.argv[2])
(folder / str(rank)).touch()
while len(list(folder.iterdir())) < 3:
    time.sleep(0.01)
if rank == 2:
    sys.exit()
os.environ["DVAEPP_JOIN_SECONDS"] = "5" if rank == impatient else "600"
try:
    with distributed.processes("cpu"):
        pass
except InputError as error:
    print(error)
"""
    ends = finish(start(3, "-c", staggered, impatient, tmp_path))
    assert [(code, errors) for code, _, errors in ends] == [(0, "")] * 3
    for rank in (0, 1):
        assert f"process {rank} of 3 at 127.0.0.1:" in ends[rank][1]
        assert "did not meet the others (process 2 has not come): start all" in ends[rank][1]


def test_who_comes_after_one_has_given_up_does_not_go_on_without_it() -> None:
    store = torch.distributed.HashStore()
    for rank in (1, 0):
        with pytest.raises(TimeoutError, match="process 0 has not come"):
            rendezvous._meet(store, rank, 2, until=math.inf if rank == 0 else 0.0)


@pytest.mark.parametrize(("first", "meets"), [("met", True), ("process 1 has not come", False)])
def test_whoever_settles_first_whether_they_met_is_followed(first: str, meets: bool) -> None:
    class SettledMeanwhile(torch.distributed.HashStore):
        """Another process settles it right after the first look."""

        def check(self, keys: list[str]) -> bool:
            seen: bool = super().check(keys)
            if keys == ["end"] and not seen:
                self.set("end", first)
            return seen

    store = SettledMeanwhile()
    if meets:
        rendezvous._meet(store, 0, 2, until=0.0)
    else:
        store.set("here/1", "")
        with pytest.raises(TimeoutError, match=first):
            rendezvous._meet(store, 0, 2, until=math.inf)


def test_each_attempt_of_torchrun_meets_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")

    def attempt(count: int, come: int, patience: float) -> None:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(count))
        until = time.monotonic() + patience
        stores = [rendezvous._store(("127.0.0.1", agent.port), rank, 2, until) for rank in range(come)]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda rank: rendezvous._meet(stores[rank], rank, 2, until), range(come)))

    with pytest.raises(TimeoutError, match="process 1 has not come"):
        attempt(0, 1, 0.0)
    attempt(1, 2, 60.0)
    with pytest.raises(TimeoutError, match="process 1 has not come"):
        attempt(2, 1, 0.0)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_first_process_that_has_no_address_is_named(rank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": "0", "MASTER_PORT": "29500", "DVAEPP_JOIN_SECONDS": "1"}
    for name, value in {**shared, "MASTER_ADDR": "no such host"}.items():
        monkeypatch.setenv(name, value)
    met = distributed.processes("cpu")
    with pytest.raises(InputError, match=rf"process {rank} of 2 at no such host:29500 did not meet"), met:
        pass


def test_those_who_have_met_may_wait_longer_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVAEPP_JOIN_SECONDS", "8")
    slow = """
import time
from dvaepp import distributed
with distributed.processes("cpu"):
    distributed.on_first(lambda: time.sleep(9))
"""
    assert [code for code, _, _ in finish(start(2, "-c", slow))] == [0, 0]


def test_one_process_alone_is_left_as_it_is() -> None:
    vae, loss = model(CHAINS), torch.zeros
    distributed.synchronise_batch_norm(vae)
    assert not any(isinstance(module, distributed.SynchronisedBatchNorm) for module in vae.modules())
    assert distributed.averaging(vae, loss) is loss
    x = torch.rand(3, 2)
    assert distributed.own(x) is x
    assert distributed.mean(x) is x
    assert distributed.own_seed(7) == 7
    assert distributed.share(7, "it") == 7
    assert distributed.gather(7) == [7]


@pytest.mark.parametrize("like", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracks", [True, False])
def test_the_batch_norm_of_one_process_is_torchs(like: Any, affine: bool, tracks: bool) -> None:
    x = torch.randn(5, 3, *(2,) * {nn.BatchNorm1d: 0, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}[like], dtype=torch.float64)
    torchs = like(3, affine=affine, track_running_stats=tracks).double()
    ours = copy.deepcopy(torchs)
    ours.__class__ = distributed.SynchronisedBatchNorm
    for _ in range(2):
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        outputs = [norm(each) for norm, each in zip((torchs, ours), inputs, strict=True)]
        torch.testing.assert_close(*outputs)
        gradients = [torch.autograd.grad(y.sin().sum(), each)[0] for y, each in zip(outputs, inputs, strict=True)]
        torch.testing.assert_close(*gradients)
        torch.testing.assert_close(ours.state_dict(), torchs.state_dict())
    torch.testing.assert_close(ours.eval()(x), torchs.eval()(x))


if __name__ == "__main__":
    work(Path(sys.argv[1]))
