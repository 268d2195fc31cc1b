"""A run in a program: what goes in and comes out, and that the command's tools do the same."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

import dvaepp
from dvaepp import InputError, data
from dvaepp.cli import main
from dvaepp.models.base import measuring

RANDOM = np.random.RandomState(5)
BITS = (RANDOM.random_sample((60, 4, 6)) < 0.4).astype(np.uint8)
GREY = RANDOM.randint(0, 256, (60, 4, 6)).astype(np.uint8)
REAL = RANDOM.normal(size=(60, 3)) * [1.0, 20.0, 0.1] + [0, 100, -3]
SMALL: dict[str, Any] = {"size": "tiny", "progress": False}
TINY = {"model.groups": [5, 4], "model.hidden": [8], "training.steps": 20}


def train(given: Any, folder: Path, settings: dict[str, Any] | None = None, recipe: str = "quick/rbm") -> dvaepp.Run:
    return dvaepp.train(recipe, data=given, settings={**TINY, **(settings or {})}, out=folder, **SMALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dvaepp.Run:
    return train(BITS, tmp_path_factory.mktemp("runs") / "bits")


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bits": (BITS, {}),
    "grey": (GREY, {}),
    "threshold": (GREY / 255, {"data.binarise": "threshold", "data.threshold": 0.3}),
    "levels": (GREY, {"model.likelihood": "logistic-mixture"}),
    "real": (REAL, {"model.likelihood": "normal"}),
    "counts": (RANDOM.poisson(3.0, (60, 5)), {"model.likelihood": "poisson"}),
    "categories": (RANDOM.randint(0, 4, (60, 5)), {"model.likelihood": "categorical"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_a_program_lie_in_the_folder_of_its_run(kind: str, tmp_path: Path) -> None:
    given, settings = KINDS[kind]
    run = train(given, tmp_path / "first", settings)
    digest = run.data.digest()
    (tmp_path / "first").rename(tmp_path / "moved")
    again = dvaepp.load_run(tmp_path / "moved")
    assert again.data.digest() == digest
    assert again.step == run.step
    out = again.sample(3)
    assert (out.shape, out.dtype) == ((3, *given.shape[1:]), again.data.test.numpy().dtype)
    assert again.reconstruct(given[:2]).shape == (2, *given.shape[1:])
    assert np.isfinite(again.score(given[:2], samples=3).examples.log_likelihood.numpy()).all()
    assert main(["evaluate", str(tmp_path / "moved"), "--samples", "2"]) == 0
    assert main(["resume", str(tmp_path / "moved")]) == 0


def test_a_data_set_goes_in_as_it_is(tmp_path: Path) -> None:
    given = data.from_arrays(GREY, labels=GREY[:, 0, 0] > 128)
    run = dvaepp.load_run(train(given, tmp_path / "run").folder)
    assert run.data.digest() == given.digest()
    assert run.data.labels is not None
    assert given.labels is not None
    assert torch.equal(run.data.labels.test, given.labels.test)


def test_the_command_and_the_program_train_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", BITS)
    settings = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    command = ["train", "quick/rbm", "--size", "tiny", "--data", str(tmp_path / "x.npy"), *settings]
    assert main([*command, "--out", str(tmp_path / "command")]) == 0
    at_path = train(tmp_path / "x.npy", tmp_path / "path")
    in_memory, by_command = train(BITS, tmp_path / "memory"), dvaepp.load_run(tmp_path / "command")
    for name, tensor in by_command.model.state_dict().items():
        for run in (at_path, in_memory):
            assert torch.equal(run.model.state_dict()[name], tensor), name


def test_codes_are_those_of_the_command(run: dvaepp.Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", BITS)
    assert main(["encode", str(run.folder), str(tmp_path / "x.npy"), "-o", str(tmp_path / "codes.npz")]) == 0
    with np.load(tmp_path / "codes.npz") as codes:
        assert np.array_equal(codes["probabilities"], run.encode(BITS))
        assert np.array_equal(codes["index"], np.arange(60))
    for same in (torch.from_numpy(BITS), BITS.reshape(60, -1), BITS.tolist(), tmp_path / "x.npy"):
        assert np.array_equal(run.encode(same, hard=True), run.encode(BITS) > 0.5)
    assert np.array_equal(run.encode("test"), run.encode(run.data.test.numpy()))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_codes_as_a_table_carry_rows_and_labels(suffix: str, run: dvaepp.Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=BITS, y=np.array(["even", "odd"])[BITS[:, 0, 0]])
    out = tmp_path / f"codes{suffix}"
    assert main(["encode", str(run.folder), str(tmp_path / "x.npz"), "--hard", "-o", str(out)]) == 0
    table = pandas.read_csv(out) if suffix == ".csv" else pandas.read_parquet(out)
    assert list(table.columns[:3]) == ["index", "label", "codes_1"]
    assert table["label"].tolist() == np.array(["even", "odd"])[BITS[:, 0, 0]].tolist()
    assert np.array_equal(table.filter(like="codes_").to_numpy(), run.encode(BITS, hard=True))


def test_pictures_are_called_by_their_files_and_folders(run: dvaepp.Run, tmp_path: Path) -> None:
    for place, picture in enumerate(BITS[:12]):
        folder = tmp_path / "pictures" / ("even" if place % 2 else "odd")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 * picture).save(folder / f"{place:02}.png")
    found = run.examples(tmp_path / "pictures")
    assert found.ids[0] == "even/01.png"
    assert found.labels is not None
    assert found.labels.tolist() == ["even"] * 6 + ["odd"] * 6
    assert np.array_equal(run.encode(tmp_path / "pictures"), run.encode(BITS[[*range(1, 12, 2), *range(0, 12, 2)]]))
    one = run.examples(tmp_path / "pictures/odd/04.png")
    assert (one.ids.tolist(), one.x.tolist()) == (["04.png"], [BITS[4].ravel().tolist()])


def test_decoding_samples_and_scores_are_of_the_model(run: dvaepp.Run) -> None:
    codes = run.encode(BITS[:7], hard=True)
    with measuring(run.model, 0):
        expected = run.model.decode(torch.from_numpy(codes).float()).mean
    assert np.array_equal(run.decode(codes), expected.reshape(-1, 4, 6).numpy())
    assert set(np.unique(run.sample(50))) == {0, 1}
    assert np.array_equal(run.sample(5, seed=1), run.sample(5, seed=1))
    assert not np.array_equal(run.sample(5, seed=1), run.sample(5, seed=2))
    assert run.sample(5, means=True).dtype == np.float32
    numbers = run.score(BITS[:9], samples=4).numbers()
    assert (numbers["examples"], numbers["samples"]) == (9, 4)
    assert numbers["log_z"] == run.log_partition.value


def test_the_way_between_codes_flips_equally_many_bits_at_each_step(run: dvaepp.Run) -> None:
    first, second = BITS[:3], BITS[3:6]
    means = run.interpolate(first, second, steps=4)
    assert means.shape == (3, 4, 4, 6)
    ends = [run.encode(x, hard=True) for x in (first, second)]
    np.testing.assert_allclose(means[:, 0], run.decode(ends[0]), atol=1e-6)
    np.testing.assert_allclose(means[:, -1], run.decode(ends[1]), atol=1e-6)
    with pytest.raises(InputError, match="as many examples as their partners and 2 steps or more, not 3, 2 and 4"):
        run.interpolate(first, second[:2], steps=4)


@pytest.mark.parametrize("output", ["way.png", "way.npz"])
def test_the_command_goes_from_file_to_file(output: str, run: dvaepp.Run, tmp_path: Path) -> None:
    files = [str(tmp_path / f"{name}.npy") for name in "ab"]
    for file, x in zip(files, (BITS[:2], BITS[3:5]), strict=True):
        np.save(file, x)
    assert main(["interpolate", str(run.folder), *files, "-o", str(tmp_path / output)]) == 0
    assert (tmp_path / output).exists()


def test_missing_values_are_filled_in_and_others_stay(run: dvaepp.Run, tmp_path: Path) -> None:
    gaps = RANDOM.random_sample(BITS.shape) < 0.3
    x = np.where(gaps, np.nan, BITS)
    by_nan, by_mask = run.complete(x, sweeps=5), run.complete(BITS, gaps, sweeps=5)
    assert np.array_equal(by_nan.samples, by_mask.samples)
    assert np.array_equal(by_nan.missing, gaps)
    assert np.array_equal(by_nan.samples[~gaps], BITS[~gaps])
    assert by_nan.samples.dtype == np.uint8
    assert ((by_nan.means > 0) & (by_nan.means < 1))[gaps].all()
    one = run.complete(BITS, gaps[0], sweeps=5)
    assert np.array_equal(one.missing[7], gaps[0])
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "completed.npz"
    assert main(["complete", str(run.folder), str(tmp_path / "x.npy"), "--sweeps", "5", "-o", str(out)]) == 0
    with np.load(out) as found:
        assert np.array_equal(found["samples"], by_nan.samples)
        assert np.array_equal(found["missing"], gaps)


def test_a_picture_is_completed_behind_a_mask(run: dvaepp.Run, tmp_path: Path) -> None:
    Image.fromarray(255 * BITS[0]).save(tmp_path / "x.png")
    Image.fromarray(np.where(np.arange(24).reshape(4, 6) < 12, 255, 0).astype(np.uint8)).save(tmp_path / "mask.png")
    out, files = tmp_path / "out.png", [str(tmp_path / "x.png"), "--mask", str(tmp_path / "mask.png")]
    assert main(["complete", str(run.folder), *files, "-o", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.width > 3 * picture.height > 0
    found = run.complete(tmp_path / "x.png", tmp_path / "mask.png")
    assert np.array_equal(found.samples[0, 2:], BITS[0, 2:])
    assert found.missing[0, :2].all()


def test_a_table_with_gaps_is_completed_under_its_names(tmp_path: Path) -> None:
    table = pandas.DataFrame(REAL, columns=["length", "width", "depth"])
    table.to_csv(tmp_path / "x.csv", index=False)
    run = train(tmp_path / "x.csv", tmp_path / "run", {"model.likelihood": "normal"})
    table.iloc[3, 1] = table.iloc[5, 2] = np.nan
    table.to_csv(tmp_path / "gaps.csv", index=False)
    out = tmp_path / "out.csv"
    assert main(["complete", str(run.folder), str(tmp_path / "gaps.csv"), "-o", str(out)]) == 0
    found = pandas.read_csv(out)
    assert list(found.columns) == ["length", "width", "depth"]
    assert not found.isna().to_numpy().any()
    known = table.notna().to_numpy()
    np.testing.assert_allclose(found.to_numpy()[known], table.to_numpy()[known], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": REAL}, r"^train holds values from .*model.likelihood=normal"),
        ({"data": BITS[:5]}, "^arrays: holds 5 examples, expected at least 10"),
        ({"data": "nothing.npy"}, "^'nothing.npy' is not a name or an existing path"),
        (
            {"data": data.from_arrays(REAL, kind="real")},
            "^model.likelihood=bernoulli is for bits, but arrays holds real",
        ),
        ({"recipe": "quick/rbms"}, "quick/rbm"),
        ({"settings": {"model.hiden": [3]}}, "^settings has an unknown setting 'model.hiden'; did you mean"),
        ({"steps": 0}, "steps"),
        ({"size": "huge"}, "^size is 'huge', expected one of tiny, small"),
        ({"settings": ["a"]}, "^settings must map names to values"),
        ({"seed": -3}, "^seed of a run must be a whole number of at least 0"),
        ({"threads": 0}, "^threads of a run must be"),
        ({"recipe": "x.json", "size": "tiny"}, "^size chooses among named recipes"),
        ({"device": "tpu"}, "^device 'tpu' is not one of"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        inspect.unwrap(dvaepp.train)(**{"data": BITS, "out": tmp_path / "run", "progress": False, **options})
    assert not (tmp_path / "run").exists()


def test_a_folder_of_its_own_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [dvaepp.train("quick/rbm", data=BITS, settings=TINY, **SMALL) for _ in range(2)]
    assert [str(run.folder) for run in runs] == ["runs/quick_rbm-tiny-seed0", "runs/quick_rbm-tiny-seed0-2"]


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda run: run.encode(BITS[0]), r"x is one example \(4, 6\), expected several \(n, ...\): x\[None\] is one"),
        (lambda run: run.sample(2, clamp=["a"] * 9), r"clamp is <U1 of shape \(9,\), expected numbers"),
        (lambda run: run.sample(2, clamp=1), r"clamp is int64 of shape \(\), expected numbers"),
        (lambda run: run.encode(BITS[:, :3]), r"x holds examples of shape \(3, 6\), the run's model \(4, 6\)"),
        (lambda run: run.encode("nothing.npy"), "^nothing.npy does not exist"),
        (lambda run: run.encode(REAL), "x holds values from"),
        (lambda run: run.decode(np.zeros((2, 5))), r"codes are float64 of shape \(2, 5\), expected numbers \(n, 9\)"),
        (lambda run: run.decode(np.full((2, 9), 2.0)), r"codes lie from 2.0 to 2.0, expected bits or probabilities"),
        (lambda run: run.complete(BITS, [1] * 60), "missing is int64 of shape"),
        (lambda run: run.complete(BITS, "nothing.txt"), "nothing.txt: is no mask"),
        (lambda run: run.sample(0), "n must be"),
        (lambda run: dvaepp.load_run(run.folder / "none"), "run.json does not exist"),
    ],
)
def test_what_a_run_refuses(use: Any, message: str, run: dvaepp.Run) -> None:
    with pytest.raises(InputError, match=message):
        use(run)


def per_example(run: dvaepp.Run, out: Path, *options: str) -> pandas.DataFrame:
    assert main(["evaluate", str(run.folder), "--samples", "3", "--per-example", str(out), *options]) == 0
    return pandas.read_csv(out)


def test_other_data_are_scored_and_nothing_is_kept(run: dvaepp.Run, tmp_path: Path) -> None:
    labels = np.array(["no", "yes"])[BITS[:, 0, 0]]
    np.savez(tmp_path / "new.npz", x=1 - BITS, labels=labels)
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    found = per_example(run, tmp_path / "scores.csv", "--data", str(tmp_path / "new.npz"))
    assert found["index"].tolist() == list(range(60))
    assert found["label"].tolist() == labels.tolist()
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before
    own = per_example(run, tmp_path / "own.csv")
    assert own["log_likelihood"].mean() > found["log_likelihood"].mean()
    of_test = [BITS[row].ravel().tolist() for row in own["index"]]
    assert of_test == run.data.test.tolist()
    np.save(tmp_path / "one.npy", BITS[:1])
    one = per_example(run, tmp_path / "one.csv", "--data", str(tmp_path / "one.npy"))
    assert len(one) == 1


def test_data_that_moved_are_still_its_own(run: dvaepp.Run, tmp_path: Path) -> None:
    moved = tmp_path / "moved.npz"
    moved.write_bytes((run.folder / "data.npz").read_bytes())
    assert len(per_example(run, tmp_path / "own.csv", "--data", str(moved))) == len(run.data.test)
    assert (run.folder / "scores.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--results", "results"), "--results keeps scores of a run's own data"),
        (("--split", "valid"), "--split is of a run's own data"),
    ],
)
def test_scores_of_other_data_are_no_result(
    options: tuple[str, ...], message: str, run: dvaepp.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", 1 - BITS)
    np.save(tmp_path / "wide.npy", np.zeros((20, 7)))
    assert main(["evaluate", str(run.folder), "--data", str(tmp_path / "x.npy"), *options]) == 2
    assert message in capsys.readouterr().err
    assert main(["evaluate", str(run.folder), "--data", str(tmp_path / "wide.npy")]) == 2
    assert "holds examples of shape (7,), the run's model (4, 6)" in capsys.readouterr().err


def test_samples_from_elsewhere_are_judged(run: dvaepp.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = run.model.prior.machine
    np.save(tmp_path / "good.npy", dvaepp.exact_sample(machine, 500).numpy())
    assert main(["prior", str(run.folder), "--samples", str(tmp_path / "good.npy")]) == 0
    said = capsys.readouterr().out
    assert "samples                500" in said
    assert "inverse temperature" in said
    assert "log Z from them" in said
    assert main(["prior", str(run.folder)]) == 2
    assert "either -o, to write the machine, or --samples" in capsys.readouterr().err


@pytest.fixture(scope="module")
def directed(tmp_path_factory: pytest.TempPathFactory) -> dvaepp.Run:
    return train(BITS, tmp_path_factory.mktemp("runs") / "directed", recipe="quick/directed")


def test_compressed_examples_come_out_as_they_were(directed: dvaepp.Run, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", BITS)
    folder, packed, out = str(directed.folder), tmp_path / "x.bb", tmp_path / "x.npz"
    assert main(["compress", folder, str(tmp_path / "x.npy"), "-o", str(packed)]) == 0
    command = [sys.executable, "-m", "dvaepp", "decompress", folder, str(packed), "-o", str(out)]
    subprocess.run(command, check=True, capture_output=True)  # another process
    with np.load(out) as found:
        assert np.array_equal(found["x"], BITS)


def test_compressed_files_that_cannot_be_read_are_refused(
    directed: dvaepp.Run, run: dvaepp.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed, out = tmp_path / "x.bb", str(tmp_path / "x.npz")
    assert main(["compress", str(directed.folder), "test", "-o", str(packed)]) == 0
    whole = packed.read_bytes()
    for content, message in (
        (whole[:-5], "is damaged or cut short"),
        (whole[:-5] + b"12345", "is damaged or cut short"),
        (whole[:30], "is no file of compressed examples"),
        (b"", "is no file of compressed examples"),
    ):
        packed.write_bytes(content)
        assert main(["decompress", str(directed.folder), str(packed), "-o", out]) == 2
        assert message in capsys.readouterr().err
    packed.write_bytes(whole)
    assert main(["decompress", str(run.folder), str(packed), "-o", out]) == 2
    assert "was compressed with another model" in capsys.readouterr().err
    assert main(["compress", str(directed.folder), "test", "-o", str(tmp_path / "x.zip")]) == 2
    assert "must end in .bb" in capsys.readouterr().err
    assert not Path(out).exists()


def test_bits_that_are_given_are_those_that_are_decoded(run: dvaepp.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, decode = list[torch.Tensor](), run.model.decode
    monkeypatch.setattr(run.model, "decode", lambda z: seen.append(z) or decode(z))
    bits = np.full(9, np.nan)
    bits[2], bits[5] = 1, 0
    run.sample(50, clamp=bits)
    z = torch.cat(seen)
    assert bool((z[:, 2] == 1).all())
    assert bool((z[:, 5] == 0).all())
    assert set(z[:, 3].tolist()) == {0.0, 1.0}


def test_samples_given_some_bits(run: dvaepp.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bits = np.full(9, np.nan)
    bits[2] = 1
    assert run.sample(4, clamp=bits).shape == (4, 4, 6)
    (tmp_path / "bits.csv").write_text(",,1,,,,,,\n0,,,,,,,,1\n")
    out = tmp_path / "grid.npz"
    assert (
        main(["sample", str(run.folder), "--clamp", str(tmp_path / "bits.csv"), "--columns", "3", "-o", str(out)]) == 0
    )
    with np.load(out) as found:
        assert found["means"].shape == (2, 3, 4, 6)
    (tmp_path / "bits.csv").write_text("0,1\n")
    assert main(["sample", str(run.folder), "--clamp", str(tmp_path / "bits.csv"), "-o", str(out)]) == 2
    assert "expected numbers (bits,) or (n, bits) of 9 bits" in capsys.readouterr().err
    with pytest.raises(InputError, match="clamp holds 3 rows of bits, expected 2, or one"):
        run.sample(2, clamp=np.zeros((3, 9)))


def test_columns_are_put_in_the_order_of_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pandas.DataFrame(REAL, columns=["length", "width", "depth"])
    run = train(table, tmp_path / "run", {"model.likelihood": "normal"})
    mixed = table[["depth", "length", "width"]]
    assert np.array_equal(run.encode(mixed), run.encode(table))
    mixed.to_csv(tmp_path / "mixed.csv", index=False)
    assert np.array_equal(run.encode(tmp_path / "mixed.csv"), run.encode(REAL))
    gaps = mixed.mask(np.arange(180).reshape(60, 3) % 5 == 0)
    gaps.to_csv(tmp_path / "gaps.csv", index=False)
    found = run.complete(tmp_path / "gaps.csv", sweeps=3)
    assert run.columns == ("length", "width", "depth")
    known = ~found.missing
    np.testing.assert_allclose(found.samples[known], REAL[known], rtol=1e-5)
    with pytest.raises(InputError, match="x has no column 'depth', expected length, width, depth as in training"):
        run.encode(table.rename(columns={"depth": "height"}))
    mixed[:30].to_csv(tmp_path / "mixed.csv", index=False)
    scores = per_example(run, tmp_path / "mixed.scores.csv", "--data", str(tmp_path / "mixed.csv"))
    table[:30].to_csv(tmp_path / "same.csv", index=False)
    same = per_example(run, tmp_path / "same.scores.csv", "--data", str(tmp_path / "same.csv"))
    np.testing.assert_allclose(scores["log_likelihood"], same["log_likelihood"])
    table[["length", "width"]].to_csv(tmp_path / "narrow.csv", index=False)
    assert main(["evaluate", str(run.folder), "--data", str(tmp_path / "narrow.csv")]) == 2
    assert "narrow.csv has no column 'depth'" in capsys.readouterr().err


def test_columns_of_one_name_are_told_by_their_places(tmp_path: Path) -> None:
    table = "a,a,b\n" + "".join(f"{one:.3f},{two:.3f},{three:.3f}\n" for one, two, three in REAL)
    (tmp_path / "x.csv").write_text(table)
    run = train(tmp_path / "x.csv", tmp_path / "run", {"model.likelihood": "normal"})
    assert run.encode(tmp_path / "x.csv").shape == (60, 9)
    (tmp_path / "other.csv").write_text(table.replace("a,a,b", "b,a,a"))
    with pytest.raises(InputError, match="has the columns b, a, a, expected a, a, b as in training"):
        run.encode(tmp_path / "other.csv")


def test_codes_of_a_convolutional_run_with_local_variables_are_a_reconstruction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {f"model.convolutional.{name}": size for name, size in (("stem", 1), ("local", 4), ("top", 4))}
    bits = (RANDOM.random_sample((40, 8, 8)) < 0.4).astype(np.uint8)
    settings = {**sizes, "training.steps": 2}
    run = dvaepp.train("table-3/mnist-static/rbm-normal", data=bits, settings=settings, out=tmp_path / "run", **SMALL)
    codes, local = run.encode(bits, hard=True), run.local_codes(bits)
    assert [h.shape for h in local] == [(40, 2, 4, 4)] * 2
    means = run.decode(codes, local=local)
    assert np.array_equal(means, run.decode(codes, local=local))
    x, z = torch.from_numpy(bits.reshape(40, -1)).float(), torch.from_numpy(codes).float()
    with measuring(run.model, 0):
        trace = run.model.given(x, z, dvaepp.hard, [torch.from_numpy(h) for h in local])
    np.testing.assert_allclose(means, trace.likelihood.mean.reshape(40, 8, 8).numpy(), atol=1e-5)
    np.testing.assert_allclose(local[1], trace.local[1].q.mean.numpy(), atol=1e-5)
    np.save(tmp_path / "x.npy", bits)
    files = [str(tmp_path / name) for name in ("x.npy", "codes.npz", "means.npz")]
    assert main(["encode", str(run.folder), files[0], "--hard", "--local", "-o", files[1]]) == 0
    assert main(["decode", str(run.folder), files[1], "-o", files[2]]) == 0
    with np.load(files[2]) as found:
        np.testing.assert_allclose(found["means"], means, atol=1e-6)
    assert main(["encode", str(run.folder), files[0], "--local", "-o", str(tmp_path / "codes.csv")]) == 2
    with pytest.raises(InputError, match="local holds groups of"):
        run.decode(codes[:5], local=local)
    for h, complaint in (
        (local[:1], "holds groups of local variables: 1, expected 2"),
        ([*local, local[0]], "holds groups of local variables: 3, expected 2"),
        ([local[0], local[1][:, :1]], r"examples of local_2 have shape \(1, 4, 4\), expected \(2, 4, 4\)"),
    ):
        np.savez(files[1], codes=codes, **{f"local_{j}": each for j, each in enumerate(h, 1)})
        assert main(["decode", str(run.folder), files[1], "-o", files[2]]) == 2
        assert re.search(f"codes.npz:? {complaint}", " ".join(capsys.readouterr().err.split()))


def test_a_run_without_local_variables_has_no_local_codes(run: dvaepp.Run) -> None:
    with pytest.raises(InputError, match="has no local variables"):
        run.local_codes(BITS)


def test_files_of_a_run_and_what_is_read_are_not_written_over(
    run: dvaepp.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "x.npz", x=BITS)
    folder, own, given = str(run.folder), str(run.folder / "data.npz"), str(tmp_path / "x.npz")
    before = Path(own).read_bytes(), Path(given).read_bytes()
    for command in (["encode", folder, "test"], ["sample", folder], ["complete", folder, given]):
        assert main([*command, "-o", own]) == 2
        assert "belongs to the run" in capsys.readouterr().err
    for command in (["encode", folder, given], ["complete", folder, given]):
        assert main([*command, "-o", given]) == 2
        assert "is what the command reads, which would be lost" in capsys.readouterr().err
    assert main(["evaluate", folder, "--per-example", own]) == 2
    assert (Path(own).read_bytes(), Path(given).read_bytes()) == before


def test_a_copy_of_a_run_has_its_own_data(tmp_path: Path) -> None:
    first = train(BITS, tmp_path / "run")
    shutil.copytree(first.folder, tmp_path / "copy")
    shutil.rmtree(first.folder)
    train(1 - BITS, tmp_path / "run")
    assert dvaepp.load_run(tmp_path / "copy").data.digest() == first._trained.data


def test_colours_of_torchs_order_are_completed_as_they_lie(tmp_path: Path) -> None:
    colour = RANDOM.randint(0, 256, (40, 3, 4, 6)).astype(np.uint8)
    run = train(colour, tmp_path / "run", {"model.likelihood": "logistic-mixture"})
    missing = np.zeros(colour.shape, bool)
    missing[:, 0] = True
    found = run.complete(colour, missing, sweeps=2)
    last = np.moveaxis(colour, 1, 3)
    assert np.array_equal(found.missing, np.moveaxis(missing, 1, 3))
    assert np.array_equal(found.samples[..., 1:], last[..., 1:])
    pixels = run.complete(colour, np.arange(24).reshape(4, 6) < 6, sweeps=2)
    assert np.array_equal(pixels.samples[:, 1:], last[:, 1:])
    assert pixels.missing[:, 0].all()


def test_categories_are_completed_by_those_drawn_most_often_and_new_ones_refused(tmp_path: Path) -> None:
    given, settings = KINDS["categories"]
    run = train(given, tmp_path / "run", settings)
    found = run.complete(given, RANDOM.random_sample(given.shape) < 0.3, sweeps=5)
    assert set(np.unique(found.means)) <= {0.0, 1.0, 2.0, 3.0}
    with pytest.raises(InputError, match="x holds the category 7, and the run's data had 0 to 3"):
        run.encode(given + 4)


def test_grey_and_spins_are_completed(tmp_path: Path) -> None:
    run = train(2 * BITS.astype(int) - 1, tmp_path / "spins")
    spins = np.where(RANDOM.random_sample(BITS.shape) < 0.3, np.nan, 2.0 * BITS - 1)
    found = run.complete(spins, sweeps=3)
    assert np.array_equal(found.samples[~found.missing], BITS[~found.missing])
    assert run.complete("test", np.eye(4, 6) > 0, sweeps=2).missing.sum() == 4 * len(run.data.test)


def test_grey_is_not_compressed(directed: dvaepp.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "grey.npy", GREY)
    assert main(["compress", str(directed.folder), str(tmp_path / "grey.npy"), "-o", str(tmp_path / "x.bb")]) == 2
    assert "compression is of bits, without loss" in capsys.readouterr().err


def test_numbers_of_numpys_are_settings(tmp_path: Path) -> None:
    settings = {"training.batch": np.int64(10), "model.groups": [np.int64(3)], "model.prior": "bernoulli"}
    run = dvaepp.train("quick/rbm", data=BITS, settings=settings, steps=np.int64(3), out=tmp_path / "run", **SMALL)
    assert run.recipe.training.batch == 10
