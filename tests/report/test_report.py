"""Pictures of a model and the page about a run."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from pages import HOSTILE, Page, report, train
from PIL import Image

from dvaepp.boltzmann.ising import to_qubo
from dvaepp.errors import InputError
from dvaepp.models.base import measuring
from dvaepp.randomness import stream_seed
from dvaepp.recipes.catalogue import find
from dvaepp.recipes.recipe import override
from dvaepp.recipes.settings import SIZES, Size
from dvaepp.report import gallery, page
from dvaepp.report.changes import origin
from dvaepp.report.plots import Curve, curves
from dvaepp.report.report import write_report
from dvaepp.report.subject import Subject, duration
from dvaepp.runs.folder import RunFolder
from dvaepp.runs.pictures import grid, reconstructions, samples, save_grid, signed
from dvaepp.storage import load_tensors, save_tensors, write_json


@cache
def report_of(folder: Path) -> Page:
    """The report of a run that no test changes."""
    return report(RunFolder(folder))


@pytest.fixture(scope="module")
def rbm(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(tmp_path_factory.mktemp("rbm"), "quick/rbm", "evaluation.chains=8")


@pytest.fixture(scope="module")
def directed(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(tmp_path_factory.mktemp("directed") / "a run", "quick/directed", evaluated=False)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("table")
    rows = np.random.RandomState(0).randint(0, 2, (60, 5))
    np.savetxt(folder / "table.csv", rows, fmt="%d", delimiter=",", header="a,b,c,d,e", comments="")
    data = f"data.name={folder / 'table.csv'}"
    return train(folder / "run", "quick/rbm", data, "model.groups=[4]", "evaluation.examples=null")


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[RunFolder], RunFolder]:
    """A copy of a run, to break."""

    def copy(run: RunFolder) -> RunFolder:
        return RunFolder(Path(shutil.copytree(run.folder, tmp_path / "copy")))

    return copy


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_holds_the_scores_what_they_rest_on_and_how_to_repeat_them(rbm: RunFolder) -> None:
    read, result = report_of(rbm.folder), rbm.scores()
    assert result is not None
    numbers = result["scores"]
    for name in ("nll", "nll_standard_error", "nll_at_low_log_z", "nll_at_high_log_z", "distortion", "kl", "log_z"):
        assert f"{numbers[name]:.2f}" in read.text, name
    assert "K = 5 importance samples · 10 examples" in read.text
    assert f"{numbers['active_units_2']:.0f} of 20" in read.text
    assert f"{numbers['effective_sample_size']:.1f} of 5" in read.text
    assert f"dvaepp train quick/rbm --out {HOSTILE}" in read.text
    assert "dvaepp evaluate it" in read.text
    assert result["data"]["protocol"] in read.text
    assert "Not shown" not in read.text
    assert read.headings == [
        *("Changed settings", "Numbers", "Training", "Chains", "Samples", "Reconstructions"),
        *("Prior", "Latent units", "Parameters", "Data", "To repeat it"),
    ]


def test_the_recipe_in_the_page_is_the_recipe(rbm: RunFolder) -> None:
    text = report_of(rbm.folder).text
    start = text.index("{", text.index("The recipe as JSON"))
    assert json.JSONDecoder().raw_decode(text[start:])[0] == rbm.recipe.model_dump(mode="json")


@pytest.mark.parametrize("name", ["rbm", "directed", "table"])
def test_the_page_needs_nothing_but_itself(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name).folder
    read, text = report_of(folder), (folder / "report.html").read_text()
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in read.links)
    assert not {"link", "script", "iframe", "object"} & set(read.tags)
    assert "@import" not in text
    assert "url(http" not in text
    assert read.tags.count("svg") >= 5


def test_the_same_run_makes_the_same_page(table: RunFolder, tmp_path: Path) -> None:
    report_of(table.folder)
    torch.rand(1)
    write_report(RunFolder(table.folder), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (table.folder / "report.html").read_bytes()


def test_what_is_not_to_be_trusted_is_in_a_box(rbm: RunFolder, table: RunFolder) -> None:
    for run, warnings in ((rbm, 1), (table, 0)):
        scores = run.scores()
        assert scores is not None
        assert scores["log_partition"]["trusted"] is (warnings == 0)
        report_of(run.folder)
        page = (run.folder / "report.html").read_text()
        assert page.count('<div class="warning"') == warnings
        assert ("--temperatures" in page) == bool(warnings)


def test_more_temperatures_are_advised_than_there_were(
    rbm: RunFolder, copied: Callable[[RunFolder], RunFolder]
) -> None:
    run, scores = copied(rbm), rbm.scores() or {}
    effort = {**scores["evaluation"], "temperatures": 7000, "chains": 50, "repeats": 2}
    write_json(run.folder / "scores.json", {**scores, "evaluation": effort})
    page = report(RunFolder(run.folder)).text
    assert "--temperatures 28000" in page
    assert "--chains" not in page
    few = {**effort, "chains": 49}  # of which no estimate is trusted, whatever the temperatures
    write_json(run.folder / "scores.json", {**scores, "evaluation": few})
    assert "--temperatures 28000 --chains 100" in report(RunFolder(run.folder)).text


def test_a_run_without_scores_says_which_command_makes_them(directed: RunFolder) -> None:
    read = report_of(directed.folder)
    best = min(line["valid_nll"] for line in directed.metrics() if "valid_nll" in line)
    assert "Not evaluated yet" in read.text
    assert f"dvaepp evaluate '{directed.folder}'" in read.text
    assert f"{best:.2f} nats" in read.text
    assert "The 20 bits of the first group" in read.text


def test_scores_of_another_step_are_said_to_be(table: RunFolder, copied: Callable[[RunFolder], RunFolder]) -> None:
    run = copied(table)
    write_json(run.folder / "scores.json", {**(table.scores() or {}), "steps": 1})
    assert "The scores are of step 1, the pictures of step" in report(run).text


def test_pictures_are_of_the_model_that_was_scored(rbm: RunFolder, copied: Callable[[RunFolder], RunFolder]) -> None:
    run = copied(rbm)
    tensors, about = load_tensors(run.folder / "best.safetensors")
    save_tensors(run.folder / "best.safetensors", tensors, {**about, "step": 2})
    write_json(run.folder / "scores.json", {**(rbm.scores() or {}), "steps": 4})
    text = report(run).text
    assert "Model of step 4." in text
    assert "The scores are of step" not in text


def test_a_table_is_shown_by_column(table: RunFolder) -> None:
    read = report_of(table.folder)
    assert "A dot for each of 5 columns" in read.text
    assert {"Samples", "Reconstructions"}.isdisjoint(read.headings)
    assert "Not shown" not in read.text
    assert "No uncertainty comes from log Z: exact" in read.text


def test_missing_data_costs_only_what_needs_it(table: RunFolder, copied: Callable[[RunFolder], RunFolder]) -> None:
    run, data = copied(table), Path(table.recipe.data.name)
    data.rename(data.with_name("elsewhere.csv"))
    try:
        read = report(run)
    finally:
        data.with_name("elsewhere.csv").rename(data)
    assert read.text.count("Not shown") == 2
    assert read.text.count("not shown: ") == 1
    assert "table.csv" in read.text
    assert "The 4 biases b" in read.text


def test_a_run_that_has_not_begun_has_a_page(tmp_path: Path) -> None:
    recipe = find("quick/rbm", "tiny").model_copy(update={"about": HOSTILE})
    run = RunFolder.create(recipe, tmp_path, seed=0, device="cpu", threads=1, data_dir=None, command=HOSTILE)
    read = report(run)
    assert "0 of 40 steps" in read.text
    assert "nothing has been logged yet" in read.text
    assert "script" not in read.tags
    assert read.text.count(HOSTILE) >= 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["model.prior=bernoulli"], "The 40 bits"),
        (["model.blocks=[40]"], "The 40 biases b"),
        (["model.blocks=[10,10,20]"], "Couplings J between 20 bits (down) and 30 (across)"),
    ],
)
def test_every_prior_is_shown(settings: list[str], expected: str, tmp_path: Path) -> None:
    run = train(tmp_path, "quick/rbm", *settings, "training.steps=1", evaluated=False)
    assert expected in report(run).text


def test_unwritable_paths_and_folders_without_a_run_are_refused(table: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"could not write .*report.html"):
        write_report(table, tmp_path / "file" / "report.html")
    with pytest.raises(InputError, match="is this a run folder"):
        write_report(RunFolder(tmp_path), tmp_path / "report.html")


def test_every_part_escapes_text() -> None:
    texts = [HOSTILE, HOSTILE]
    made = {
        "section": page.parts.section(HOSTILE, texts),
        "text": page.parts.text(HOSTILE),
        "note": page.parts.note(HOSTILE),
        "commands": page.parts.commands(HOSTILE),
        "unfolded": page.parts.unfolded(*texts),
        "warning": page.parts.warning(*texts),
        "headline": page.parts.headline(*texts, HOSTILE, texts),
        "meanings": page.parts.meanings([(*texts, HOSTILE)]),
        "table": page.parts.table(texts, [texts]),
        "picture": page.picture(Image.new("L", (1, 1)), HOSTILE),
        "figure": page.parts.figure(HOSTILE, HOSTILE, texts, texts),
        "columns": page.parts.columns(texts),
        "panels": page.parts.panels([1, 2], texts),
        "link": page.parts.link(HOSTILE, HOSTILE),
    }
    assert set(made) == {name for name in vars(page.parts) if not name.startswith("_")}
    read = Page(inspect.unwrap(page.page)(HOSTILE, HOSTILE, 0, texts, [*made.values(), HOSTILE]))
    assert "script" not in read.tags
    assert read.text.count(HOSTILE) == 6 + 3 + 1 + 1 + 1 + 2 + 2 + 5 + 3 + 4 + 0 + 6 + 2 + 2 + 1
    assert 'aria-label="&lt;script&gt;' in curves(HOSTILE, Curve([1.0], [1.0]))


def test_commands_are_wrapped_between_words_not_cut_off() -> None:
    command = "dvaepp train x --out 'a  b'\n\ndvaepp report"
    text = page.page("", "", 0, [], [page.parts.commands(command), page.parts.warning("", command)])
    rule = re.search(r"\npre {([^}]*)}", text.partition("@media print")[0])
    assert rule
    assert "white-space: pre-wrap" in rule[1]
    assert "overflow-wrap: anywhere" in rule[1]
    assert Page(text).text.count(command) == 2


# --- what was trained -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["quick/zephyr", "table-2/mnist-static/linear-1/rbm", "table-3/cifar10/normal-normal"])
def test_a_recipe_of_the_catalogue_is_unchanged_at_every_size(name: str, size: Size) -> None:
    found = origin(find(name, size))
    assert found is not None
    assert (found.size, found.changes) == (size, [])


@pytest.mark.parametrize(
    ("size", "changed", "expected"),
    [
        ("tiny", ["training.steps=41"], [("training.steps", "40", "41")]),
        ("small", ["data.name=a b.csv"], [("data.name", "digits", "a b.csv")]),
        ("paper", ["model.blocks=[100,300]"], [("model.prior.blocks", "null", "[100, 300]")]),
        ("small", ["about=other", "evaluation.samples=7"], [("evaluation.samples", "100", "7")]),
    ],
)
def test_changed_settings_are_listed_with_both_values(
    size: Size, changed: list[str], expected: list[tuple[str, str, str]]
) -> None:
    found = origin(override(find("quick/rbm", size), changed))
    assert found is not None
    assert (found.size, found.changes) == (size, expected)


def test_settings_that_only_one_of_two_recipes_has_are_changes() -> None:
    within = find("table-3/omniglot/rbm-normal", "tiny").model_dump()["model"]["convolutional"]
    changes = origin(override(find("quick/rbm", "tiny"), ['model.convolutional={"cells":1}', "model.batch_norm=false"]))
    assert changes is not None
    listed = {name: values for name, *values in changes.changes}
    assert listed.pop("model.convolutional") == ["null", "–"]
    assert listed.pop("model.batch_norm") == ["true", "false"]
    assert {name.removeprefix("model.convolutional.").partition(".")[0] for name in listed} == set(within)
    assert listed["model.convolutional.cells.count"] == ["–", "1"]


def test_the_title_says_what_was_trained(rbm: RunFolder, tmp_path: Path) -> None:
    sentence = find("quick/rbm").about
    read = report_of(rbm.folder)
    assert "Changed from quick/rbm" in read.text
    assert sentence not in read.text.partition("To repeat it")[0]
    assert "[200, 200]" in read.text
    assert "[20, 20]" in read.text
    known, own = find("quick/rbm", "tiny"), {"name": "mine", "about": "My own sentence."}
    for recipe, title, about in (
        (known, "quick/rbm", sentence),
        (known.model_copy(update=own), "mine", own["about"]),
        (
            override(known, ["training.steps=7", "about=Mine, for a week."]),
            "Changed from quick/rbm",
            "Mine, for a week.",
        ),
    ):
        folder = tmp_path / recipe.model_dump_json()[-40:-20].encode().hex() / title.replace("/", "_")
        run = RunFolder.create(recipe, folder, seed=0, device="cpu", threads=1, data_dir=None, command="dvaepp train")
        header = report(run).text.partition("Not evaluated yet")[0]
        assert title in header
        assert about in header


def test_training_time_is_the_sum_of_its_parts_or_unknown(
    rbm: RunFolder, copied: Callable[[RunFolder], RunFolder]
) -> None:
    run = copied(rbm)
    lines = [{**line, "seconds": 30.0} for line in rbm.metrics()]
    path = run.folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(lines) == 6
    assert "Training took 3 min on cpu, 0.0222 steps a second, validations included" in report(run).text
    del lines[0]["seconds"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "Training took" not in report(run).text


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.26, "0.3 s"),
        (59.0, "59.0 s"),
        (3569.0, "59 min"),
        (3600.0, "1 h 0 min"),
        (9000.0, "2 h 30 min"),
        (2e5, "2 d 8 h"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_parameters_are_those_that_training_moves(rbm: RunFolder, directed: RunFolder, tmp_path: Path) -> None:
    for run in (rbm, directed):
        model = run.model(last=run is directed).model
        count = sum(parameter.numel() for parameter in model.parameters())
        assert sum(Subject(run).parameters.values()) == count
        assert f"all\n{count:,}" in re.sub(r"\s*\n\s*|(?<=all)", "\n", report_of(run.folder).text)
    graph = train(tmp_path, "quick/zephyr", "model.groups=[80,80]", "training.steps=1", evaluated=False)
    machine = graph.model(last=True).model.prior.machine
    assert (
        Subject(graph).parameters["prior"]
        == 160 + len(to_qubo(machine).quadratic)
        < sum(parameter.numel() for parameter in machine.parameters())
    )


def test_the_sizes_of_the_splits_are_listed(rbm: RunFolder) -> None:
    text = " ".join(report_of(rbm.folder).text.split())
    sizes = [len(split) for split in (rbm.data.train, rbm.data.valid, rbm.data.test)]
    assert "examples of 28 × 28" in text
    train, valid, test = (f"{size:,}" for size in sizes)
    assert f"train{train} valid{valid} test{test}" in text


def test_real_examples_stand_beside_the_samples(rbm: RunFolder) -> None:
    panels = gallery.samples(Subject(rbm))[0]
    assert re.findall("<figcaption>\\s*(.*)\\s*</figcaption>", panels) == ["Mean", "Draws", "Real examples"]
    *_, real = re.findall('base64,([^"]*)', panels)
    with Image.open(BytesIO(b64decode(real))) as image:
        shown = np.asarray(image)[2:, 2:].reshape(6, 86, 3, 86)[:, :84:3, :, :84:3].transpose(0, 2, 1, 3)
    valid = {tuple(row) for row in rbm.data.valid.tolist()}
    assert len({tuple(row) for row in (shown.reshape(18, 784) // 255).tolist()} & valid) == 18


def test_few_real_examples_leave_their_places_grey(table: RunFolder) -> None:
    subject = Subject(table)
    subject.__dict__["data"] = replace(subject.data, valid=subject.data.valid[:1].repeat(8, 1))
    images, why = gallery._real(subject)
    assert why == ""
    assert images["Real examples"].shape == (6, 2, 5)
    assert (images["Real examples"].flatten(0, 1)[8:] == 128 / 255).all()


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rbm", "directed"])
def test_a_row_of_samples_shares_one_prior_sample(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name).model().model
    drawn = samples(model, 3, 4000, seed=5)
    with measuring(model, stream_seed("samples", 5)):
        mean = model.decode(model.prior.sample(3)).mean
    assert drawn.shape == (3, 4000, 784)
    torch.testing.assert_close(drawn[:, 0], mean)
    assert all(not torch.equal(mean[i], mean[j]) for i, j in [(0, 1), (0, 2), (1, 2)])
    assert set(drawn[:, 1:].unique().tolist()) <= {0.0, 1.0}
    deviation = drawn[:, 1:].mean(1) - mean
    assert float(deviation.abs().max()) < 6 * 0.5 / 4000**0.5


def test_pictures_leave_the_model_and_the_random_state_alone(rbm: RunFolder) -> None:
    model = rbm.model().model.train()
    chains, state = model.prior.states.clone(), torch.get_rng_state()
    first = samples(model, 2, 2), reconstructions(model, torch.ones(3, 784))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    again = samples(model, 2, 2), reconstructions(model, torch.ones(3, 784))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(model.prior.states, chains)
    assert model.training


def test_reconstructions_are_means_given_bits_of_the_posterior(rbm: RunFolder) -> None:
    model, x = rbm.model().model, rbm.data.valid[:6].float()
    decoded = []
    model.decoder.register_forward_pre_hook(lambda _, inputs: decoded.append(inputs[0]))
    mean = reconstructions(model, x, seed=1)
    assert set(decoded[0].unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(mean, model.decode(decoded[0]).mean)
    assert not mean.requires_grad


@pytest.mark.parametrize(("rows", "columns"), [(0, 1), (1, 0)])
def test_empty_samples_are_refused(rows: int, columns: int, rbm: RunFolder) -> None:
    with pytest.raises(InputError, match="at least 1, not 0"):
        samples(rbm.model().model, rows, columns)


@pytest.mark.parametrize(("shape", "factor"), [((28, 28), 3), ((2, 3), 28), ((200, 100), 1), ((1, 7), 12)])
def test_every_image_lies_in_its_cell(shape: tuple[int, int], factor: int) -> None:
    images = torch.rand(2, 3, shape[0] * shape[1])
    sheet = np.asarray(grid(images, shape)).astype(int)
    height, width = (factor * side for side in shape)
    assert sheet.shape == (2 + 2 * (height + 2), 2 + 3 * (width + 2))
    for row in range(2):
        for column in range(3):
            top, left = 2 + row * (height + 2), 2 + column * (width + 2)
            cell = sheet[top : top + height, left : left + width]
            expected = 255 * np.kron(images[row, column].view(shape).numpy(), np.ones((factor, factor)))
            assert np.abs(cell - expected).max() <= 0.5 + 1e-4
    gaps = np.delete(sheet, [2 + r * (height + 2) + i for r in range(2) for i in range(height)], axis=0)
    assert set(gaps.ravel()) == {128}


def test_tables_have_no_grid_and_shapes_must_fit() -> None:
    with pytest.raises(InputError, match=r"table and have no picture: save them as arrays"):
        grid(torch.rand(1, 1, 4), (4,))
    with pytest.raises(InputError, match="have 6 pixels, not 4"):
        grid(torch.rand(1, 1, 4), (2, 3))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".gif", ".bmp", ".tiff"])
def test_the_suffix_chooses_the_format(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"grid{suffix}"
    image = grid(torch.rand(1, 2, 4), (2, 2))
    save_grid(path, image)
    with Image.open(path) as read:
        assert read.size == image.size
        assert read.format == {".jpg": "JPEG"}.get(suffix, suffix[1:].upper())
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["grid", "grid.txt", "grid.npz"])
def test_other_suffixes_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected one of .*\.png"):
        save_grid(tmp_path / name, Image.new("L", (1, 1)))
    assert not list(tmp_path.iterdir())


def test_signed_colours_are_symmetric_about_a_transparent_zero() -> None:
    pixels = np.asarray(signed(torch.tensor([[-2.0, -0.5, 0.0, 0.5, 2.0]]), 1.0))[0]
    assert pixels[:, 3].tolist() == [255, 128, 0, 128, 255]
    assert pixels[0, :3].tolist() == pixels[1, :3].tolist() != pixels[4, :3].tolist() == pixels[3, :3].tolist()


def test_long_curves_are_drawn_with_few_points() -> None:
    short, long = (curves("Loss", Curve(*2 * ([float(i) for i in range(n)],))) for n in (100, 100_000))
    assert len(long) < 5 * len(short)
    assert "100k" in long
