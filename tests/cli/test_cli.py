"""The command as a user types it: what it writes, and how it ends when something is wrong."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dvaepp.boltzmann.files import read_model
from dvaepp.cli import main
from dvaepp.recipes.catalogue import find
from dvaepp.runs.folder import RunFolder
from dvaepp.storage import load_tensors, locked, save_tensors, write_json

QUICK = [
    "--size", "tiny", "--steps", "4", "--set", "training.validate_every=2", "--set", "model.hidden=[8]",
    "--set", "model.groups=[5,5]", "--set", "evaluation.examples=10",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "a run"
    assert main(["train", "quick/rbm", *QUICK, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must end with exit code 2 and one line; the line."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("dvaepp: ")
        assert error.count("\n") == 1, error
        return error

    return run


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert "table-2/mnist-static/nonlinear-2/rbm" in listed
    assert "caltech101-silhouettes" in listed
    assert main(["show", "quick/directed", "--size", "tiny", "--set", "model.beta=7"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["smoothing"]["beta"] == 7


def test_a_shown_recipe_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "quick/directed", *QUICK]) == 0
    (tmp_path / "mine.json").write_text(capsys.readouterr().out)
    assert main(["train", str(tmp_path / "mine.json"), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "best.safetensors").exists()


def test_evaluate_writes_scores_results_and_examples(trained: Path, tmp_path: Path) -> None:
    examples = tmp_path / "scores.npz"
    arguments = ["--samples", "7", "--per-example", str(examples), "--results", str(tmp_path / "results")]
    assert main(["evaluate", str(trained), *arguments]) == 0
    result = json.loads((trained / "scores.json").read_text())
    assert result == json.loads((tmp_path / "results/quick/rbm/seed0.json").read_text())
    assert (result["recipe"], result["seed"]) == ("quick/rbm", 0)
    assert result["steps"] in (2, 4)
    with np.load(examples) as arrays:
        assert arrays["log_likelihood"].shape == (10,)
        assert result["scores"]["nll"] == pytest.approx(-arrays["log_likelihood"].mean())
    assert result["scores"]["samples"] == 7


def test_sample_draws_pictures_and_arrays(trained: Path, tmp_path: Path) -> None:
    assert main(["sample", str(trained), "-o", str(tmp_path / "s.png"), "--rows", "2", "--columns", "3"]) == 0
    with Image.open(tmp_path / "s.png") as image:
        assert image.width > image.height > 56
    assert main(["sample", str(trained), "-o", str(tmp_path / "s.npz"), "--rows", "2", "--columns", "3"]) == 0
    with np.load(tmp_path / "s.npz") as arrays:
        assert arrays["means"].shape == (2, 28, 28)
        assert arrays["samples"].shape == (2, 2, 28, 28)
        assert set(np.unique(arrays["samples"])) <= {0, 1}


def test_the_prior_goes_out_and_states_of_it_come_back(
    trained: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    for form, vartype in (("ising", "SPIN"), ("qubo", "BINARY")):
        assert main(["prior", str(trained), "-o", str(tmp_path / "m.json"), "--form", form]) == 0
        model = read_model(tmp_path / "m.json")
        assert (model.vartype, model.linear.shape) == (vartype, (10,))
    machine = RunFolder(trained).model().model.prior.machine
    z = torch.bernoulli(torch.full((20, 10), 0.5))
    found = torch.from_numpy(model.energy(z.numpy()))
    torch.testing.assert_close(found, machine.energy(z).double(), rtol=1e-5, atol=1e-5)
    (tmp_path / "spins.csv").write_text("\n".join(",".join(f"{s:.0f}" for s in row) for row in (2 * z - 1).tolist()))
    np.savez(tmp_path / "codes.npz", codes=z.numpy())
    means = []
    for name in ("spins.csv", "codes.npz"):
        assert main(["decode", str(trained), str(tmp_path / name), "-o", str(tmp_path / "d.npz")]) == 0
        with np.load(tmp_path / "d.npz") as decoded:
            means.append(decoded["means"])
    assert (means[0] == means[1]).all()
    (tmp_path / "spins.csv").write_text("1,-1,1\n")
    assert "expected (samples, 10)" in fails("decode", trained, tmp_path / "spins.csv", "-o", tmp_path / "d.npz")


RING = [(f"n{k}", f"n{(k + 1) % 10}") for k in range(10)]
orders: dict[str, list[tuple[str, str]]] = {
    "rotated": RING[4:] + RING[:4],
    "reversed": RING[::-1],
    "turned": [(v, u) for u, v in RING],
    "shuffled": [RING[k] for k in (7, 3, 0, 9, 5, 1, 8, 2, 6, 4)],
}


def write_edges(path: Path, edges: list[tuple[str, str]]) -> None:
    path.write_text("".join(f"{u},{v}\n" for u, v in edges))


@pytest.fixture(scope="module")
def on_a_graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of a prior on a graph, and the file of its edges."""
    folder = tmp_path_factory.mktemp("graph")
    write_edges(folder / "edges.csv", RING)
    graph = ["--set", "model.prior=graph", "--set", f"model.graph={folder / 'edges.csv'}"]
    assert main(["train", "quick/rbm", *QUICK, *graph, "--out", str(folder / "run")]) == 0
    return folder / "run", folder / "edges.csv"


@pytest.mark.parametrize("order", orders.values(), ids=orders)
def test_a_file_of_edges_in_another_order_is_the_same_prior(
    on_a_graph: tuple[Path, Path], order: list[tuple[str, str]], tmp_path: Path
) -> None:
    run, file = on_a_graph
    found = []
    for edges in (RING, order):
        write_edges(file, edges)
        assert main(["prior", str(run), "-o", str(tmp_path / "m.json"), "--form", "qubo"]) == 0
        model = read_model(tmp_path / "m.json")
        names = [[model.labels[i] for i in pair] for pair in model.pairs]
        couplings = {frozenset(pair): q for pair, q in zip(names, model.quadratic, strict=True)}
        assert couplings.keys() == set(map(frozenset, RING))
        codes = "".join(f"{name}," for name in model.labels)[:-1] + "\n" + "1,0,1,0,0,1,1,0,0,0\n"
        (tmp_path / "codes.csv").write_text(codes if edges is RING else (tmp_path / "codes.csv").read_text())
        assert main(["decode", str(run), str(tmp_path / "codes.csv"), "-o", str(tmp_path / "d.npz")]) == 0
        with np.load(tmp_path / "d.npz") as arrays:
            means = arrays["means"]
        found.append((dict(zip(model.labels, model.linear, strict=True)), couplings, means))
        assert main(["resume", str(run)]) == 0
    assert found[0][:2] == found[1][:2]
    assert (found[0][2] == found[1][2]).all()


renamed = [(u.replace("n9", "m0"), v.replace("n9", "m0")) for u, v in RING]
changed: dict[str, tuple[list[tuple[str, str]], str]] = {
    "another-edge": ([("n2", "n7"), *RING[1:]], "other bits interact"),
    "another-edge-in-order": ([*RING[:-1], ("n0", "n5")], "other bits interact"),
    "one-bit-more": ([*RING, ("n0", "n11")], "11 nodes and model.groups hold 10 bits"),
    "another-name": (renamed, "label"),
    "another-name-first": (renamed[::-1], "label"),
    "other-blocks": ([*RING[:-1], ("n0", "n8")], "blocks"),
}


@pytest.mark.parametrize(("edges", "message"), changed.values(), ids=changed)
def test_a_file_of_other_edges_is_refused(
    on_a_graph: tuple[Path, Path], edges: list[tuple[str, str]], message: str, tmp_path: Path, fails: Callable[..., str]
) -> None:
    run, file = on_a_graph
    write_edges(file, edges)
    for command in (["prior", run, "-o", tmp_path / "m.json"], ["resume", run]):
        assert message in fails(*command)
    write_edges(file, RING)


def test_a_directed_prior_is_no_boltzmann_machine(tmp_path: Path, fails: Callable[..., str]) -> None:
    assert main(["train", "quick/directed", *QUICK, "--out", str(tmp_path / "run")]) == 0
    error = fails("prior", tmp_path / "run", "-o", tmp_path / "m.json")
    assert "is a DirectedPrior, not a Boltzmann machine" in error


def test_evaluation_tells_how_log_z_was_found_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, few = str(tmp_path / "run"), ["--temperatures", "20", "--chains", "128"]
    large = ["--set", "model.groups=[30,30]", "--set", "model.chains=20", "--set", "evaluation.thorough=true"]
    assert main(["train", "quick/rbm", *QUICK, *large, "--out", run]) == 0
    assert main(["evaluate", run, "--samples", "3", *few]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("lowest swap rate", "forward log z", "tempering log z", "reverse log z"))
    found = json.loads((tmp_path / "run/scores.json").read_text())["log_partition"]
    assert "parallel tempering" in found["method"]
    assert found["diagnosis"]["largest_distance_in_errors"] >= 0
    assert main(["evaluate", run, "--samples", "3", "--quick", *few]) == 0
    assert "swap rate" not in capsys.readouterr().out
    assert main(["report", run]) == 0


@pytest.mark.parametrize("name", ["1", "concrete"])
def test_figures_are_png_and_svg(name: str, tmp_path: Path, fails: Callable[..., str]) -> None:
    assert main(["figure", name, "-o", str(tmp_path / "f")]) == 0
    with Image.open(tmp_path / "f.png") as image:
        assert image.width > 2 * image.height > 500
    assert "<svg" in (tmp_path / "f.svg").read_text()
    once = (tmp_path / "f.svg").read_bytes()
    assert main(["figure", name, "-o", str(tmp_path / "f.svg")]) == 0
    assert (tmp_path / "f.svg").read_bytes() == once
    assert ".png or .svg" in fails("figure", name, "-o", tmp_path / "f.pdf")


def test_codes_go_out_and_come_back(trained: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    images = np.random.RandomState(0).randint(0, 2, (13, 28, 28)).astype(np.uint8)
    np.save(tmp_path / "x.npy", images)
    hard, soft = str(tmp_path / "hard.npz"), str(tmp_path / "soft.npz")
    assert main(["encode", str(trained), str(tmp_path / "x.npy"), "-o", hard, "--hard"]) == 0
    assert main(["encode", str(trained), str(tmp_path / "x.npy"), "-o", soft]) == 0
    with np.load(hard) as bits, np.load(soft) as probabilities:
        assert bits["codes"].shape == (13, 10)
        assert bits["codes"].dtype == np.uint8
        assert (bits["codes"] == (probabilities["probabilities"] > 0.5)).all()
        assert bits["groups"].tolist() == [5, 5]
    table, parquet = str(tmp_path / "soft.csv"), str(tmp_path / "hard.parquet")
    assert main(["encode", str(trained), str(tmp_path / "x.npy"), "-o", table]) == 0
    assert main(["encode", str(trained), str(tmp_path / "x.npy"), "-o", parquet, "--hard"]) == 0
    found = []
    for codes in (hard, soft, table, parquet):
        assert main(["decode", str(trained), codes, "-o", str(tmp_path / "d.npz")]) == 0
        with np.load(tmp_path / "d.npz") as decoded:
            found.append(decoded["means"])
    assert found[0].shape == (13, 28, 28)
    for each in found:
        np.testing.assert_allclose(each, found[0], rtol=1e-5)
    Path(table).write_text("index,codes_1,codes_2\n0,1\n")
    assert "line 2 lacks a number" in fails("decode", trained, table, "-o", tmp_path / "d.npz")
    Path(table).write_text("index,codes_1\n0," + "1" * 200_000 + "\n")
    assert "line 2 lacks a number" in fails("decode", trained, table, "-o", tmp_path / "d.npz")
    assert main(["decode", str(trained), hard, "-o", str(tmp_path / "d.png")]) == 0
    assert main(["encode", str(trained), "test", "-o", hard]) == 0


def test_a_picture_is_as_square_and_as_large_as_it_can_be_shown(
    trained: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    codes, picture = tmp_path / "codes.npy", tmp_path / "d.png"
    for count, most in ((13, (2, 10)), (6000, (77, 78))):
        np.save(codes, np.zeros((count, 10)))
        assert main(["decode", str(trained), str(codes), "-o", str(picture)]) == 0
        with Image.open(picture) as image:  # opening a larger one would be warned about
            cells = [round(side / 86) for side in (image.height, image.width)]
            assert cells == list(most)
    np.save(codes, np.zeros((100_000, 10)))
    limit = r"a picture of 316 x 317 images would be 9,.* pixels, more than can be shown: .* arrays \(\.npz\)"
    assert re.search(limit, fails("decode", trained, codes, "-o", picture))
    assert main(["decode", str(trained), str(codes), "-o", str(tmp_path / "d.npz")]) == 0
    for output in ("s.png", "s.jpg"):
        size = ("--rows", 10**9, "--columns", 8)
        assert "more than can be shown" in fails("sample", trained, "-o", tmp_path / output, *size)


def test_one_example_has_no_standard_error(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = Path(shutil.copytree(trained, tmp_path / "run"))
    for count, said in ((1, False), (2, True)):
        capsys.readouterr()
        assert main(["evaluate", str(one), "--examples", str(count)]) == 0
        lines = capsys.readouterr().out.splitlines()
        (nll,) = (line for line in lines if line.startswith("NLL, nats"))
        assert (" ± " in nll, "one example, so no standard error" in nll) == (said, not said)
        assert json.loads((one / "scores.json").read_text())["scores"]["examples"] == count
        assert main(["report", str(one)]) == 0
        page = (one / "report.html").read_text()
        assert ("of one example: no standard error" in page) != said
        assert ("± 0.00 nats" in page) is False


def test_codes_of_pictures_rest_on_the_background_of_the_training(tmp_path: Path) -> None:
    for k in range(30):
        shape = np.random.RandomState(k).randint(0, 2, (4, 5), dtype=np.uint8) * 255
        Image.fromarray(np.dstack([0 * shape + 255, shape])).save(tmp_path / f"{k:02}.png")
    made = ["train", "quick/directed", *QUICK, "--data", str(tmp_path), "--set", "data.background=black"]
    assert main([*made, "--out", str(tmp_path / "run")]) == 0
    for k in range(30):
        with Image.open(tmp_path / f"{k:02}.png") as picture:
            picture.getchannel("A").save(tmp_path / f"opaque-{k:02}.png")
    assert main(["encode", str(tmp_path / "run"), str(tmp_path), "-o", str(tmp_path / "c.npz")]) == 0
    with np.load(tmp_path / "c.npz") as codes:
        np.testing.assert_allclose(codes["probabilities"][:30], codes["probabilities"][30:], rtol=1e-5)


def test_your_own_images_of_any_size_train_and_sample(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for k in range(30):
        Image.fromarray(np.random.RandomState(k).randint(0, 256, (6, 9), dtype=np.uint8)).save(
            tmp_path / f"photos/{k}.png"
        )
    run = str(tmp_path / "run")
    assert main(["train", "quick/rbm", *QUICK, "--data", str(tmp_path / "photos"), "--out", run]) == 0
    assert main(["sample", run, "-o", str(tmp_path / "s.npz"), "--rows", "2", "--columns", "2"]) == 0
    with np.load(tmp_path / "s.npz") as arrays:
        assert arrays["means"].shape == (2, 6, 9)
    assert main(["encode", run, str(tmp_path / "photos"), "-o", str(tmp_path / "c.npz")]) == 0


def test_training_says_what_becomes_of_colour(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    for k in range(20):
        pixels = np.random.RandomState(k).randint(0, 256, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{k}.png")
    made = ["train", "quick/rbm", *QUICK, "--data", str(tmp_path / "photos"), "--out", str(tmp_path / "run")]
    assert main(made) == 0
    assert "colour pictures turned grey" in capsys.readouterr().out


def test_resuming_a_finished_run_changes_nothing(copied: Path) -> None:
    before = (copied / "metrics.jsonl").read_bytes()
    assert main(["resume", str(copied)]) == 0
    assert (copied / "metrics.jsonl").read_bytes() == before


def test_a_run_from_before_a_setting_goes_on_and_is_evaluated(copied: Path) -> None:
    def without(recipe: dict[str, Any]) -> dict[str, Any]:
        settings = {key: value for key, value in recipe["data"].items() if key not in ("background", "header")}
        return {**recipe, "data": settings}

    record = json.loads((copied / "run.json").read_text())
    write_json(copied / "run.json", {**record, "recipe": without(record["recipe"])})
    for name in ("checkpoint.safetensors", "best.safetensors"):
        tensors, about = load_tensors(copied / name)
        save_tensors(copied / name, tensors, {**about, "recipe": without(about["recipe"])})
    assert main(["resume", str(copied)]) == 0
    assert main(["evaluate", str(copied), "--samples", "3"]) == 0
    assert json.loads((copied / "scores.json").read_text())["settings"] == without(record["recipe"])
    assert main(["encode", str(copied), "test", "-o", str(copied / "codes.npz")]) == 0


LINEAR = "table-2/mnist-static/linear-1/rbm"


SCORES = dict.fromkeys(
    ["nll_at_low_log_z", "nll_at_high_log_z", "elbo", "distortion", "kl", "effective_sample_size"], 1.0
) | {
    "nll": 91.0,
    "nll_standard_error": 0.5,
    "log_z": 10.0,
    "log_z_standard_error": 0.1,
    "samples": 100.0,
    "examples": 1000.0,
}


def stored(folder: Path, seed: int, nll: float, **changes: object) -> None:
    """A result of table-2/mnist-static/linear-1/rbm as `evaluate --results` keeps it, but for the changes."""
    result = {
        "recipe": LINEAR,
        "settings": find(LINEAR, "small").model_dump(mode="json"),
        "seed": seed,
        "steps": 3000,
        "scores": SCORES | {"nll": nll},
        "log_partition": {"method": "annealed importance sampling", "trusted": True},
        "split": "test",
        "evaluation_seed": 0,
        "data": {"name": "mnist-static", "protocol": "as published"},
        "commands": ["dvaepp train", "dvaepp evaluate"],
        **changes,
    }
    write_json(folder / LINEAR / f"seed{seed}.json", result)


def test_table_shows_results_beside_the_papers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, nll in ((0, 91.0), (1, 92.0)):
        stored(tmp_path, seed, nll)
    assert main(["table", "2", "--results", str(tmp_path)]) == 0
    assert "| 91.50 ± 0.71 (1,000 examples) | 3,000, 100 | 0, 1 |" in capsys.readouterr().out
    for seed in (0, 1):
        stored(tmp_path, seed, 91.0, trained=5000)
    assert main(["table", "2", "--results", str(tmp_path)]) == 0
    assert "| 5,000, 100 | 0, 1 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"recipe": "table-2/mnist-static/linear-2/rbm"}, "is of recipe table-2/mnist-static/linear-2/rbm"),
        ({"settings": {}}, "setting 'name': Field required"),
        (
            {"settings": find(LINEAR, "small").model_dump(mode="json") | {"data": {"name": "digits"}}},
            "its data settings are others",
        ),
        (
            {"settings": find(LINEAR, "small").model_dump(mode="json") | {"training": {"steps": 3000}}},
            "its training settings are others",
        ),
        ({"scores": None}, "does not hold the scores of a run: scores"),
        ({"scores": {"nll": 1.0}}, "scores lack distortion, effective_sample_size"),
        ({"scores": {**SCORES, "samples": -4.0}}, "scores: expected numbers of samples and of examples, at least 1"),
        ({"scores": {**SCORES, "samples": 2.7}}, "scores: expected numbers of samples and of examples, at least 1"),
        ({"scores": {**SCORES, "examples": 0.0}}, "scores: expected numbers of samples and of examples, at least 1"),
        ({"scores": {**SCORES, "samples": 10**400}}, "scores.samples: expected a finite number"),
        ({"scores": {**SCORES, "nll_standard_error": -0.2}}, "scores: nll_standard_error is below 0"),
        ({"steps": "many"}, "does not hold the scores of a run: steps"),
        ({"evaluation_seed": -5}, "does not hold the scores of a run: evaluation_seed"),
        ({"split": "all"}, "does not hold the scores of a run: split"),
    ],
)
def test_a_table_takes_no_result_of_anything_else(
    fails: Callable[..., str], tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    stored(tmp_path, 0, 91.0, **changes)
    error = fails("table", "2", "--results", tmp_path)
    assert "seed0.json" in error
    assert expected in error


def test_what_is_not_there_is_named(fails: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    for command in (["resume"], ["evaluate"], ["report"], ["sample", "-o", "x.png"]):
        assert "nowhere/run.json does not exist" in fails(*command, missing)
    assert "nothing.npy" in fails("encode", trained, "nothing.npy", "-o", "c.npz")
    assert "is not a name or an existing path" in fails("train", "quick/rbm", "--data", "no.npy", "--out", missing)
    assert "no recipe is named 'quick/rmb'; did you mean 'quick/rbm'" in fails("train", "quick/rmb")
    assert "did you mean 'mnist-static'" in fails("data", "check", "mnist-statc")
    assert not missing.exists()


def test_bad_input_leaves_no_run_behind(fails: Callable[..., str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert "device 'cuda:77' cannot be used here" in fails("train", "quick/rbm", "--device", "cuda:77", "--out", out)
    assert "device 'mps' has no float64" in fails("train", "quick/rbm", "--device", "mps", "--out", out)
    assert "device 'gpu' is not one of cpu, cuda" in fails("train", "quick/rbm", "--device", "gpu", "--out", out)
    assert "did you mean 'steps'" in fails("train", "quick/rbm", "--set", "training.step=3", "--out", out)
    assert not out.exists()


def test_tensorboard_has_the_metrics(trained: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(trained / "tensorboard")).Reload()
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    expected = [(line["step"], line["valid_nll"]) for line in lines if "valid_nll" in line]
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("valid_nll")] == expected


def test_a_run_is_not_trained_over(fails: Callable[..., str], trained: Path) -> None:
    assert "is not empty" in fails("train", "quick/rbm", *QUICK, "--out", trained)


def test_damaged_runs_are_named(fails: Callable[..., str], copied: Path) -> None:
    best = copied / "best.safetensors"
    best.write_bytes(best.read_bytes()[:-9])
    assert "best.safetensors is not a whole dvaepp checkpoint" in fails("evaluate", copied)
    best.unlink()
    assert "has no validated model yet" in fails("sample", copied, "-o", copied / "s.png")
    inside = copied / "run.json" / "run.json"
    assert f"{inside} does not exist; expected the record of a run" in fails("evaluate", copied / "run.json")
    (copied / "run.json").write_text("{")
    assert "run.json is not the record of a run" in fails("evaluate", copied)
    (copied / "run.json").write_text("{}")
    assert "run.json is not the record of a run: recipe: Field required" in fails("evaluate", copied)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"codes": np.zeros((3, 9))}, "expected (samples, 10)"),
        ({"codes": np.full((3, 10), 2.0)}, "holds 2.0, expected only 0 and 1"),
        ({"codes": np.full((3, 10), np.nan)}, "holds nan, expected only 0 and 1"),
        ({"probabilities": np.full((3, 10), 1.5)}, "in [0, 1]"),
        ({"probabilities": np.full((3, 9), 0.5)}, "expected (n, 10) in [0, 1]"),
        ({"code": np.zeros((3, 10)), "more": np.zeros(3)}, "must hold one array of samples, codes, states"),
        ({"codes": np.array([[None] * 10])}, "is not a whole .npz file of numbers"),
    ],
)
def test_codes_that_do_not_fit_are_refused(
    fails: Callable[..., str], trained: Path, tmp_path: Path, arrays: dict[str, np.ndarray], expected: str
) -> None:
    np.savez(tmp_path / "c.npz", **arrays)
    assert expected in fails("decode", trained, tmp_path / "c.npz", "-o", tmp_path / "d.png")


def test_outputs_of_unknown_kind_are_refused(fails: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    assert "must end in .npz, .csv or .parquet" in fails("encode", trained, "test", "-o", tmp_path / "codes.png")
    assert "s.xyz" in fails("sample", trained, "-o", tmp_path / "s.xyz")
    assert list(tmp_path.iterdir()) == []


def test_what_makes_a_run_is_not_written_over(fails: Callable[..., str], copied: Path) -> None:
    before = {path.name: path.read_bytes() for path in copied.iterdir() if path.is_file()}
    for name in ("run.json", "scores.json"):
        assert "belongs to the run" in fails("prior", copied, "-o", copied / name)
    for name in ("metrics.jsonl", "checkpoint.safetensors", "best.safetensors"):
        assert "must end in .html" in fails("report", copied, "-o", copied / name)
    assert before == {path.name: path.read_bytes() for path in copied.iterdir() if path.is_file()}


def test_examples_of_another_shape_are_refused(fails: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((12, 5, 5), np.uint8))
    assert "holds examples of shape (5, 5), the run's model (28, 28)" in fails(
        "encode", trained, tmp_path / "x.npy", "-o", tmp_path / "c.npz"
    )


@pytest.mark.parametrize("arguments", [[], ["trian"], ["train"], ["train", "quick/rbm", "--steps", "0"]])
def test_words_that_make_no_command_end_with_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half of a zip", b"\x93NUMPY\x01\x00v\x00{}", b"\x80\x04K\x01."])
def test_files_that_are_no_codes_are_refused(
    fails: Callable[..., str], trained: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "c.npz").write_bytes(content)
    assert "is not a whole .npz file of numbers" in fails(
        "decode", trained, tmp_path / "c.npz", "-o", tmp_path / "d.png"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "3"),
        ("run.json", "[" * 100_000),
        ("metrics.jsonl", "5\n"),
        ("metrics.jsonl", "garbage\n"),
        ("metrics.jsonl", '{"step": 1, "loss": NaN}\n'),
        ("metrics.jsonl", '{"step": ' + 5000 * "9" + "}\n"),
        ("metrics.jsonl", "\xff\n"),
        ("scores.json", "{}"),
        ("scores.json", "5"),
    ],
)
def test_a_report_of_damaged_files_names_them(fails: Callable[..., str], copied: Path, name: str, content: str) -> None:
    (copied / name).write_text(content, encoding="latin-1")
    assert name in fails("report", copied)


@pytest.mark.parametrize(
    ("key", "value"), [("seed", "abc"), ("threads", 0), ("threads", 10**6), ("command", 5), ("seed", 2**70)]
)
def test_a_record_of_wrong_types_is_refused(fails: Callable[..., str], copied: Path, key: str, value: object) -> None:
    record = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps({**record, key: value}))
    assert f"run.json is not the record of a run: {key}: " in fails("resume", copied)


def test_a_run_goes_on_where_there_is_no_gpu(fails: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    recipe, folder = RunFolder(trained).recipe, tmp_path / "begun"
    run = RunFolder.create(recipe, folder, seed=0, device="cpu", threads=1, data_dir=None, command="")
    run.trainer().begin()
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "device": "cuda:77"}))
    assert "device 'cuda:77' cannot be used here" in fails("resume", folder)
    assert main(["resume", str(folder), "--device", "cpu"]) == 0
    (one, _), (other, _) = (load_tensors(each / "checkpoint.safetensors") for each in (folder, trained))
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_all_examples_are_not_some_of_them(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", str(trained), "--examples", "5", "--all"])
    assert stopped.value.code == 2
    assert "--all: not allowed with argument --examples" in capsys.readouterr().err


def test_metrics_that_are_gone_are_named_on_resume(fails: Callable[..., str], copied: Path) -> None:
    (copied / "metrics.jsonl").unlink()
    assert "metrics.jsonl" in fails("resume", copied)


def test_a_model_without_training_state_cannot_be_resumed(fails: Callable[..., str], copied: Path) -> None:
    shutil.copy(copied / "best.safetensors", copied / "checkpoint.safetensors")
    assert "holds a model but not the state of a training" in fails("resume", copied)


def test_a_checkpoint_whose_header_says_too_little_is_refused(fails: Callable[..., str], copied: Path) -> None:
    tensors, about = load_tensors(copied / "best.safetensors")
    save_tensors(copied / "best.safetensors", tensors, {key: about[key] for key in ("recipe", "seed")})
    assert "its header lacks data, shape, step" in fails("sample", copied, "-o", copied / "s.png")


@pytest.mark.parametrize("step", ["4", -1, 2.5, None, True])
def test_a_checkpoint_without_a_number_of_steps_is_refused(
    fails: Callable[..., str], copied: Path, step: object
) -> None:
    for name, command in (("best", ["sample", copied, "-o", copied / "s.png"]), ("checkpoint", ["resume", copied])):
        tensors, about = load_tensors(copied / f"{name}.safetensors")
        save_tensors(copied / f"{name}.safetensors", tensors, {**about, "step": step})
        assert f"its step is {step!r}, expected a whole number" in fails(*command)


def test_a_checkpoint_of_another_seed_is_refused(fails: Callable[..., str], copied: Path) -> None:
    record = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps({**record, "seed": 1}))
    for command in (["resume", copied], ["evaluate", copied]):
        assert "was trained with another seed than the run has now" in fails(*command)


def test_changed_data_are_not_evaluated(fails: Callable[..., str], tmp_path: Path) -> None:
    data, run = tmp_path / "x.npy", str(tmp_path / "run")
    np.save(data, np.random.RandomState(0).randint(0, 2, (40, 7)))
    assert main(["train", "quick/rbm", *QUICK, "--data", str(data), "--out", run]) == 0
    np.save(data, np.random.RandomState(1).randint(0, 2, (40, 9)))
    assert "is no longer the data" in fails("evaluate", run)
    assert "is no longer the data" in fails("encode", run, "test", "-o", tmp_path / "c.npz")
    data.unlink()
    assert "does not exist: --data says where it lies now" in fails("evaluate", run)


def test_a_run_without_any_finite_validation_ends_as_any_other(
    fails: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One value of the validation data is so large that its square is infinite: there is never a best model."""
    splits = {split: np.random.RandomState(0).randn(n, 5) for split, n in (("train", 40), ("valid", 10), ("test", 10))}
    splits["valid"][0, 0] = 1e30
    np.savez(tmp_path / "x.npz", **splits)
    run, settings = str(tmp_path / "run"), ["--set", "model.likelihood=normal", "--set", "training.log_every=1"]
    assert main(["train", "quick/rbm", *QUICK, *settings, "--data", str(tmp_path / "x.npz"), "--out", run]) == 0
    assert main(["resume", run]) == 0
    assert capsys.readouterr().out.count("done: no validation NLL was finite, so that there is no best model") == 2
    lines = RunFolder(Path(run)).metrics()
    assert [line["step"] for line in lines if "valid_kl" in line] == [2, 4]
    assert not any("valid_nll" in line for line in lines)
    assert main(["report", run]) == 0
    assert main(["evaluate", run, "--last"]) == 0
    error = fails("evaluate", run, "--last", "--split", "valid")
    assert "the likelihood of 1 of 10 valid examples is no finite number: no scores are kept" in error
    assert "has no validated model yet: train on, or use --last" in fails("evaluate", run)


def test_two_processes_do_not_train_one_run(fails: Callable[..., str], trained: Path) -> None:
    with locked(trained):
        assert "is being trained by another process" in fails("resume", trained)


def test_settings_beyond_the_machine_end_in_a_sentence(fails: Callable[..., str], tmp_path: Path) -> None:
    arguments = ["train", "quick/rbm", "--set", "model.hidden=[1,1000000,1000000]"]
    assert "not enough memory" in fails(*arguments, "--out", tmp_path / "run")
    assert "less than or equal to 1000000" in fails("train", "quick/rbm", "--set", "model.chains=100000000000")
    assert not (tmp_path / "run").exists()


def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    fails: Callable[..., str], copied: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (copied / "scores.json").unlink(missing_ok=True)
    assert "must end in .npz" in fails("evaluate", copied, "--per-example", tmp_path / "x.txt")
    assert "is not a folder" in fails("evaluate", copied, "--per-example", tmp_path / "file/x.npz")
    assert "is not a folder" in fails("evaluate", copied, "--results", tmp_path / "file")
    assert not (copied / "scores.json").exists()  # refused before any work


def test_a_folder_is_no_file_to_write(fails: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    for output in (".", "/", tmp_path):
        assert "it is a folder" in fails("report", trained, "-o", output)


def test_a_run_that_lost_its_checkpoint_is_not_begun_again(fails: Callable[..., str], copied: Path) -> None:
    (copied / "checkpoint.safetensors").unlink()
    before = (copied / "metrics.jsonl").read_bytes()
    assert "holds results but no checkpoint.safetensors to go on from" in fails("resume", copied)
    assert (copied / "metrics.jsonl").read_bytes() == before


def test_names_with_brackets_are_printed_as_they_are(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "q[bold]" / "[x].npz"
    assert main(["sample", str(trained), "-o", str(path), "--rows", "1", "--columns", "2"]) == 0
    assert path.exists()
