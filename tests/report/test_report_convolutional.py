"""Pictures and pages of models with local variables, of levels in colour, and of tables of numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from deep import deep_model
from pages import Page, report, train
from PIL import Image
from registry import boltzmann_prior

from dvaepp.cli import main
from dvaepp.errors import InputError
from dvaepp.models.local import BernoulliVariables, NormalVariables
from dvaepp.priors.normal import NormalPrior
from dvaepp.report import plots
from dvaepp.report.columns import r_squared, shares
from dvaepp.report.local_groups import _verdict
from dvaepp.report.plots import Curve
from dvaepp.report.subject import Subject
from dvaepp.runs import pictures
from dvaepp.runs.codes import read_codes
from dvaepp.runs.folder import RunFolder
from dvaepp.runs.pictures import grid, local_samples
from dvaepp.storage import write_json

CELL = ["model.groups=[4,4]", "model.hidden=[8]", "training.batch=4"]


def levels(folder: Path) -> list[str]:
    """Settings for 8 x 8 colour images of levels."""
    np.save(folder / "x.npy", np.random.RandomState(0).randint(0, 256, (40, 8, 8, 3)).astype(np.uint8))
    return [f"data.name={folder / 'x.npy'}", "model.likelihood=logistic-mixture"]


@pytest.fixture(scope="module")
def bits(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("bits") / "run"
    return train(folder, "table-3/mnist-static/rbm-normal", "data.name=digits", *CELL)


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("colour")
    small = ["model.convolutional.local=4", "model.convolutional.top=2", "model.convolutional.stem=1"]
    return train(folder / "run", "table-3/cifar10/normal-normal", *levels(folder), *small, *CELL)


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


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("kind", [NormalVariables(), BernoulliVariables()])
def test_a_row_shares_one_prior_sample_and_its_columns_differ(
    conditional: bool, kind: NormalVariables | BernoulliVariables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_PIECE", 5)
    model = deep_model(boltzmann_prior(2, 2), (2, 2), kind, variables=2, conditional=conditional)
    seen = []
    model.upsampler.enter.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    state = torch.get_rng_state()
    means, draws = local_samples(model, 3, 4, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    zeta = torch.unflatten(torch.cat(seen), 0, (3, 4))
    assert torch.equal(zeta, zeta[:, :1].expand_as(zeta))
    assert means.shape == draws.shape == (3, 4, 16)
    assert len(means.flatten(0, 1).unique(dim=0)) > 3
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    again, _ = local_samples(model, 3, 4, seed=2)
    assert torch.equal(means, again)
    assert not means.requires_grad


def test_draws_have_the_means_that_are_shown() -> None:
    model = deep_model(boltzmann_prior(2, 2), (2, 2), NormalVariables(), variables=2)
    means, draws = local_samples(model, 1, 20_000, seed=1)
    error = (draws - means)[0].mean(0)
    assert float(error.abs().max()) < 5 * 0.5 / 20_000**0.5


def test_local_samples_need_a_row_and_a_column() -> None:
    model = deep_model(boltzmann_prior(2, 2), (2, 2), NormalVariables())
    with pytest.raises(InputError, match="at least 1, not 0"):
        local_samples(model, 1, 0)


@pytest.mark.parametrize(("shape", "factor"), [((2, 3, 3), 28), ((100, 90, 3), 1), ((2, 3), 28)])
def test_levels_are_shown_as_they_are(shape: tuple[int, ...], factor: int) -> None:
    x = torch.randint(0, 256, (2, 3, math.prod(shape))).float()
    sheet = np.asarray(grid(x, shape, 255.0))
    height, width = (factor * side for side in shape[:2])
    assert sheet.shape == (2 + 2 * (height + 2), 2 + 3 * (width + 2), *shape[2:])
    for row in range(2):
        for column in range(3):
            top, left = 2 + row * (height + 2), 2 + column * (width + 2)
            cell = sheet[top : top + height : factor, left : left + width : factor]
            assert np.array_equal(cell, x[row, column].reshape(shape).numpy())
    assert (sheet[:2] == 128).all()
    assert (sheet[:, -2:] == 128).all()


def test_values_beyond_black_and_white_are_cut_off() -> None:
    sheet = np.asarray(grid(torch.tensor([[[-20.0, 0.0, 255.0, 300.0]]]), (2, 2), 255.0))
    assert set(sheet[2:-2, 2:-2].ravel()) == {0, 255}


@pytest.mark.parametrize("shape", [(2, 2, 2), (2, 2, 1), (2, 2, 3, 1)])
def test_other_shapes_have_no_picture(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"needs \(height, width\) or \(height, width, 3\)"):
        grid(torch.rand(1, 1, math.prod(shape)), shape)


# --- plots ------------------------------------------------------------------------------------------------------------


def test_numbers_of_curves_do_not_overlap_and_keep_their_order() -> None:
    heights = [0.5, 0.5, 0.98, 0.99, 0.1, 0.5]
    placed = plots._apart(heights, 0.06)
    ordered = sorted(placed)
    assert all(b - a > 0.06 - 1e-9 for a, b in pairwise(ordered))
    assert max(placed) <= 1
    assert placed[4] == 0.1
    assert max(placed[i] for i in (0, 1, 5)) < min(placed[2], placed[3])


@pytest.mark.parametrize("groups", [1, 2, 16, 30])
def test_every_group_has_a_curve_of_its_own_look(groups: int) -> None:
    series = [Curve([1.0, 2.0, 3.0], [0.0, 0.05 * j, 10.0 * j]) for j in range(groups)]
    svg = plots.group_curves("KL", series, 0.1)
    assert svg.startswith('<svg role="img" aria-label="KL"')
    lines = {(plots._shade(j, groups), j % 3) for j in range(groups)}
    assert len(lines) == groups
    assert all(0 <= part <= 1 for j in range(groups) for part in plots._shade(j, groups))


def test_bars_carry_their_values() -> None:
    svg = plots.bars("KL", [12.34, 0.05, 3.0, -0.01], 0.1)
    assert all(f">{text}</text>" in svg for text in ("12.3", "0.05", "3.00", "-0.01"))
    assert svg.count("var(--two)") >= 4


# --- the page ---------------------------------------------------------------------------------------------------------


def test_coarse_groups_are_on_the_page_too(tmp_path: Path) -> None:
    coarse = "model.convolutional.coarse_groups=1"
    run = train(tmp_path / "run", "table-3/mnist-static/rbm-normal", "data.name=digits", coarse, *CELL)
    text = report(run).text
    assert "1 local group of 2 normal variables at 4 x 4 locations · 2 local groups of 2 normal" in text
    assert "KL of each local group on test data, nats: 1 at 4 x 4, 2 to 3 at 8 x 8" in text
    assert re.search(r"of the groups on test data: \d+ of 32, \d+ of 128, \d+ of 128\.", text)


def test_a_page_shows_what_local_groups_cost(bits: RunFolder) -> None:
    read, result = report(bits), bits.scores()
    assert result is not None
    scores = result["scores"]
    assert "Not shown" not in read.text
    assert "4 + 4 global bits · rbm prior · 2 local groups of 2 normal variables at 8 x 8 locations" in read.text
    assert "decoder factorial over pixels" in read.text
    assert "Local groups" in read.headings
    for name in ("kl", "kl_global", "kl_local_1", "kl_local_2"):
        assert f"{scores[name]:.2f}".replace("-", "−") in read.text, name
    active = [scores[f"active_local_{j}"] for j in (1, 2)]
    assert f"of the groups on test data: {active[0]:.0f} of 128, {active[1]:.0f} of 128." in read.text
    assert "KL of each local group on test data" in read.text
    assert "Groups 1, 2 have collapsed" in read.text
    assert "seen through 5 draws of the local variables" in read.text
    assert "for each x one z and h from q(z, h | x)" in read.text
    assert "bits per dimension" not in read.text
    labels = (bits.folder / "report.html").read_text()
    assert 'aria-label="KL by local group over training"' in labels


def test_a_page_about_colour_and_normal_variables(colour: RunFolder) -> None:
    read, result = report(colour), colour.scores()
    assert result is not None
    assert "Not shown" not in read.text
    assert "4 + 4 global normal variables · normal prior" in read.text
    assert "decoder conditional on coarser pixels" in read.text
    nats, bits = result["scores"]["nll"], result["scores"]["bits_per_dimension"]
    assert bits == pytest.approx(nats / (192 * math.log(2)))
    assert f"{bits:.3f} ± {result['scores']['nll_standard_error'] / (192 * math.log(2)):.3f} bits per dimension" in (
        read.text
    )
    assert "8 standard normal variables: nothing of this prior is learned" in read.text
    assert "E[z | x] varies over x" in read.text
    assert "Group 2: variance of E[z | x] over 4 validation examples" in read.text
    assert "Chains" not in read.headings
    assert "given one draw of the coarser ones" in read.text


def test_before_it_is_scored_a_page_shows_the_last_validation(colour: RunFolder, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "metrics.jsonl", "best.safetensors"):
        (folder / name).write_bytes((colour.folder / name).read_bytes())
    text = report(RunFolder(folder)).text
    best = min(line["valid_bits_per_dimension"] for line in colour.metrics() if "valid_nll" in line)
    assert f"({best:.3f} bits per dimension)" in text
    assert "KL of each local group on validation data" in text
    assert "its KL weighted as scheduled, local groups balanced in the warm-up" in text
    lines = [line for line in (folder / "metrics.jsonl").read_text().splitlines(True) if "valid_nll" not in line]
    (folder / "metrics.jsonl").write_text("".join(lines))
    assert "Active variables" not in report(RunFolder(folder)).text
    assert "KL of each local group on the latest training batch, nats" in report(RunFolder(folder)).text


def test_a_run_without_what_newer_ones_log_has_a_page(bits: RunFolder, tmp_path: Path) -> None:
    result = bits.scores()
    assert result is not None
    scores = {k: v for k, v in result["scores"].items() if not k.startswith(("kl_", "active_local", "bits_per"))}
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "best.safetensors"):
        (folder / name).write_bytes((bits.folder / name).read_bytes())
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "distortion": 1.0, "kl": 1.0}\n')
    write_json(folder / "scores.json", {**result, "scores": scores})
    read = report(RunFolder(folder))
    assert "Not shown" not in read.text
    assert "Local groups" not in read.headings


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.1, 3.0], "No group has collapsed: every KL is at least 0.1 nats."),
        ([0.0999, 3.0], "Group 1 has collapsed: a KL below 0.1 nats."),
        ([0.0, 3.0, -0.01], "Groups 1, 3 have collapsed: a KL below 0.1 nats."),
    ],
)
def test_the_verdict_names_the_collapsed_groups(values: list[float], expected: str) -> None:
    assert _verdict(values) == expected


# --- tables of numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "likelihood"), [("real", "normal"), ("counts", "poisson"), ("categories", "categorical")]
)
def test_tables_of_numbers_have_a_page_and_samples(kind: str, likelihood: str, tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    rows = 100 * random.randn(60, 3) if kind == "real" else random.randint(0, 4, (60, 3))
    form = "%.3f" if kind == "real" else "%d"
    np.savetxt(tmp_path / "t.csv", rows, fmt=form, delimiter=",", header="first,a & b,", comments="")
    data = [f"data.name={tmp_path / 't.csv'}"]
    settings = [
        "model.groups=[4]",
        f"model.likelihood={likelihood}",
        "training.batch=10",
        "training.learning_rate=[[1,0.001]]",
    ]
    run = train(tmp_path / "run", "quick/directed", *data, *settings)
    read = report(run)
    assert "Not shown" not in read.text
    table = cells(read)
    numbers = run.data.train.double().numpy()
    expected = (
        [f"{np.bincount(column.astype(int)).max() / len(column):.3g}" for column in numbers.T]
        if kind == "categories"
        else [f"{value:.4g}".replace("-", "−") for value in numbers.mean(0)]
    )
    assert [table[name][0] for name in ("first", "a & b", "3")] == expected
    if kind != "categories":
        assert [table[name][2] for name in ("first", "a & b", "3")] == [f"{value:.4g}" for value in numbers.std(0)]
    assert main(["sample", str(run.folder), "-o", str(tmp_path / "s.npz"), "--rows", "2", "--columns", "3"]) == 0
    with np.load(tmp_path / "s.npz") as arrays:
        assert arrays["means"].shape == (2, 3)
        assert arrays["samples"].shape == (2, 2, 3)


def cells(read: Page) -> dict[str, list[str]]:
    """The rows of the first table with columns, by name."""
    rows = next(rows for rows in read.tables if rows[0][0] == "Column")
    return {name: values for name, *values in rows[1:]}


def test_a_wide_table_shows_the_columns_that_are_most_off(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "wide.csv", np.random.RandomState(0).randint(0, 2, (40, 50)), fmt="%d", delimiter=",")
    run = train(tmp_path / "run", "quick/directed", f"data.name={tmp_path / 'wide.csv'}", "model.groups=[4]")
    read = report(run)
    assert "30 of 50 columns are listed" in read.text
    table = cells(read)
    assert len(table) == 30
    assert list(table) == sorted(table, key=int)
    subject = Subject(run)
    means = pictures.samples(subject.trained.model, 2000, 2)[:, 0].mean(0)
    off = (means - run.data.mean).abs()
    assert {int(name) - 1 for name in table} == set(off.topk(30).indices.tolist())


def test_r_squared_is_one_of_x_itself_nought_of_its_mean_and_undefined_of_constants() -> None:
    x = torch.rand(50, 4)
    x[:, 3] = 0.1
    made = torch.stack([x[:, 0], x[:, 1].mean().expand(50), x[:, 2] + x[:, 2].std(correction=0), x[:, 3]], 1)
    found = r_squared(x, made)
    torch.testing.assert_close(found[:3], torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), atol=1e-5, rtol=0)
    assert math.isnan(found[3])


def test_shares_are_those_of_each_column() -> None:
    x = torch.tensor([[0, 2], [0, 1], [1, 2], [0, 2]], dtype=torch.int32)
    assert shares(x, 3).tolist() == [[0.75, 0.25, 0.0], [0.0, 0.25, 0.75]]


# --- commands ---------------------------------------------------------------------------------------------------------


def size(path: Path) -> tuple[int, int, str]:
    with Image.open(path) as image:
        return image.width, image.height, image.mode


def test_samples_of_local_variables(bits: RunFolder, colour: RunFolder, tmp_path: Path) -> None:
    for run, shape, mode in ((bits, (28, 28), "L"), (colour, (8, 8, 3), "RGB")):
        side = round(84 / shape[0]) * shape[0] + 2
        command = ["sample", str(run.folder), "--rows", "2", "--columns", "3", "-o"]
        assert main([*command, str(tmp_path / "s.png")]) == 0
        assert size(tmp_path / "s.png") == (3 * side + 2, 2 * side + 2, mode)
        assert main([*command, str(tmp_path / "s.npz")]) == 0
        with np.load(tmp_path / "s.npz") as arrays:
            assert sorted(arrays) == ["means", "samples"]
            assert arrays["means"].shape == arrays["samples"].shape == (2, 3, *shape)
            shown = grid(torch.from_numpy(arrays["means"]).flatten(2), shape, 255.0 if mode == "RGB" else 1.0)
            assert set(np.unique(arrays["samples"])) <= set(range(256) if mode == "RGB" else range(2))
        with Image.open(tmp_path / "s.png") as image:
            assert np.array_equal(np.asarray(image), np.asarray(shown))


def test_figure_4_of_a_run(bits: RunFolder, colour: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["figure", "4", "--run", str(bits.folder)]) == 0
    assert size(tmp_path / "figure-4.png") == (5 * 86 + 2, 5 * 86 + 2, "L")
    assert main(["figure", "4", "--run", str(colour.folder), "--rows", "2", "--columns", "3", "-o", "c.png"]) == 0
    first = (tmp_path / "c.png").read_bytes()
    assert size(tmp_path / "c.png")[2] == "RGB"
    again = ["figure", "4", "--run", str(colour.folder), "--rows", "2", "--columns", "3", "-o", "c.png", "--seed"]
    assert main([*again, "0"]) == 0
    assert (tmp_path / "c.png").read_bytes() == first
    assert main([*again, "1", "--last"]) == 0
    assert (tmp_path / "c.png").read_bytes() != first


def test_figure_4_is_of_a_run_with_local_variables(bits: RunFolder, tmp_path: Path, fails: Callable[..., str]) -> None:
    dense = train(tmp_path / "dense", "quick/directed", evaluated=False)
    out = ("-o", tmp_path / "f.png")
    assert "--run names its folder" in fails("figure", "4", *out)
    assert "has none" in fails("figure", "4", "--run", dense.folder, *out)
    assert "nowhere/run.json does not exist" in fails("figure", "4", "--run", tmp_path / "nowhere", *out)
    assert ".png" in fails("figure", "4", "--run", bits.folder, "-o", tmp_path / "f.svg")
    for name in ("1", "concrete"):
        for option, value in (("run", bits.folder), ("rows", 2), ("columns", 2)):
            error = fails("figure", name, f"--{option}", value, *out)
            assert f"figure {name} is not of a run: --{option} goes with figure 4" in error
    assert not list(tmp_path.glob("f.*"))


def test_feedforward_models_of_levels_in_colour(tmp_path: Path) -> None:
    run = str(train(tmp_path / "run", "quick/rbm", *levels(tmp_path), "training.batch=10").folder)
    assert main(["sample", run, "-o", str(tmp_path / "s.png"), "--rows", "2", "--columns", "3"]) == 0
    assert size(tmp_path / "s.png") == (3 * 82 + 2, 2 * 82 + 2, "RGB")
    assert main(["sample", run, "-o", str(tmp_path / "s.npz"), "--rows", "2", "--columns", "3"]) == 0
    with np.load(tmp_path / "s.npz") as arrays:
        assert arrays["means"].shape == (2, 8, 8, 3)
        assert arrays["samples"].shape == (2, 2, 8, 8, 3)
        assert arrays["samples"].max() > 1
    text = report(RunFolder(Path(run))).text
    assert "bits per dimension" in text
    assert "the mean of p(x | z), and draws from it" in text
    assert "Not shown" not in text


def test_bits_are_decoded_where_there_are_bits(
    bits: RunFolder, colour: RunFolder, tmp_path: Path, fails: Callable[..., str]
) -> None:
    np.save(tmp_path / "z.npy", np.random.RandomState(0).randint(0, 2, (3, 8)))

    def decode(run: RunFolder, name: str) -> list[str]:
        return ["decode", str(run.folder), str(tmp_path / "z.npy"), "-o", str(tmp_path / name)]

    assert main(decode(bits, "d.png")) == 0
    assert size(tmp_path / "d.png") == (3 * 86 + 2, 86 + 2, "L")
    assert main(decode(bits, "d.npz")) == 0
    with np.load(tmp_path / "d.npz") as arrays:
        assert arrays["means"].shape == (3, 28, 28)
    assert "holds no `means`" in fails(*decode(colour, "d.npz"))


def test_means_of_normal_variables_go_out_and_come_back(
    colour: RunFolder, tmp_path: Path, fails: Callable[..., str]
) -> None:
    codes, decoded = tmp_path / "c.npz", tmp_path / "d.npz"
    assert main(["encode", str(colour.folder), "test", "-o", str(codes)]) == 0
    assert main(["decode", str(colour.folder), str(codes), "-o", str(decoded)]) == 0
    with np.load(codes) as known, np.load(decoded) as images:
        assert images["means"].shape == (len(known["means"]), 8, 8, 3)
        assert images["means"].max() > 1
        means = known["means"]
    assert torch.equal(read_codes(codes, NormalPrior(8), 8), torch.from_numpy(means))
    for array, expected in (
        (means[:, 1:], f"float32 means of shape ({len(means)}, 7), expected means (n, 8)"),
        (np.full((1, 8), np.nan), "means that are not finite"),
    ):
        np.savez(codes, means=array)
        assert expected in fails("decode", colour.folder, codes, "-o", decoded)
