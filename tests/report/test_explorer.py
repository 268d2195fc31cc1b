"""The page to play with: its numbers are the library's, in a browser."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import browser, computed, opened
from PIL import Image
from registry import all_states

import dvaepp
from dvaepp import InputError
from dvaepp.cli import main
from dvaepp.report.explorer import Rounded, write_explorer

BITS = (np.random.RandomState(3).random_sample((80, 4, 3)) < 0.4).astype(np.uint8)
SMALL: dict[str, Any] = {"size": "tiny", "progress": False}


def train(folder: Path, recipe: str = "quick/rbm", data: Any = BITS, **settings: Any) -> dvaepp.Run:
    chosen = {"model.groups": [3, 2], "model.hidden": [7], "training.steps": 60, **settings}
    return dvaepp.train(recipe, data=data, settings=chosen, out=folder, **SMALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dvaepp.Run:
    return train(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def page(run: dvaepp.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "explore.html"
    write_explorer(run, path)
    return path


@browser
def test_its_numbers_are_those_of_the_rounded_model(run: dvaepp.Run, page: Path) -> None:
    rounded = Rounded.of(run)
    states, x = all_states(5), torch.from_numpy(BITS[:32].reshape(32, -1)).double()
    given = json.dumps({"z": states.int().tolist(), "x": x.int().tolist()})
    found = computed(
        page,
        f"""const given = {given}, e = explorer;
        return {{
          energy: given.z.map(z => e.energy(Uint8Array.from(z))),
          logits: given.z.map(z => [...e.logits(Uint8Array.from(z))]),
          posterior: given.z.map((z, i) => [...e.posterior(Uint8Array.from(given.x[i]), Uint8Array.from(z))]),
          code: given.x.map(x => [...e.code(Uint8Array.from(x)).z]),
          weight: given.z.map((z, i) => e.logWeight(Uint8Array.from(given.x[i]), Uint8Array.from(z))),
        }};""",
    )
    logits, posterior = rounded.logits(states), rounded.posterior(x, states)
    np.testing.assert_allclose(found["energy"], rounded.energy(states), atol=1e-9)
    np.testing.assert_allclose(found["logits"], logits, atol=1e-9)
    np.testing.assert_allclose(found["posterior"], posterior, atol=1e-9)
    log_p = torch.distributions.Bernoulli(logits=logits).log_prob(x).sum(1) - rounded.energy(states)
    log_q = torch.distributions.Bernoulli(logits=posterior).log_prob(states).sum(1)
    np.testing.assert_allclose(found["weight"], log_p - log_q, atol=1e-9)
    assert (np.array(found["code"]) == run.encode(BITS[:32], hard=True)).mean() > 0.98, "but for what rounding turns"


@browser
def test_its_chain_draws_from_the_prior_and_from_it_given_what_is_held(run: dvaepp.Run, page: Path) -> None:
    states, draws = all_states(5), 20_000
    chain = """const count = {}, held = Uint8Array.from(HELD), z = Uint8Array.from([1, 0, 0, 1, 0]);
        for (let k = 0; k < DRAWS; k++) {
          for (let r = 0; r < 4; r++) explorer.sweep(z, BETA, held);
          count[z.join("")] = (count[z.join("")] || 0) + 1;
        }
        return count;"""
    energy = Rounded.of(run).energy(states)
    for beta, held in ((1.0, [0] * 5), (0.5, [0, 1, 0, 1, 0])):
        script = chain.replace("BETA", str(beta)).replace("HELD", str(held)).replace("DRAWS", str(draws))
        counts, start = computed(page, script), torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
        allowed = ((states == start) | (torch.tensor(held) == 0)).all(1)
        law = torch.softmax(torch.where(allowed, -beta * energy, -torch.inf), 0).numpy()
        shares = np.array([counts.get("".join(str(int(bit)) for bit in s), 0) for s in states]) / draws
        assert (np.abs(shares - law) <= 8 * np.sqrt(law * (1 - law) / draws) + 1e-9).all(), "sweeps are not independent"


@browser
def test_everything_can_be_pressed(page: Path) -> None:
    found = computed(
        page,
        """const buttons = [...document.querySelectorAll("button")], names = buttons.map(b => b.id);
        const get = name => document.getElementById(name), ones = () => get("ones").textContent;
        for (const round of [1, 2]) for (const button of buttons) button.click();
        const press = (where, across, down) => {
          const box = where.getBoundingClientRect();
          const at = {clientX: box.left + across * box.width, clientY: box.top + down * box.height};
          where.dispatchEvent(new PointerEvent("pointerdown", {...at, buttons: 1, pointerId: 1, bubbles: true}));
        };
        get("clear").click();
        const before = ones();
        press(get("bits"), 0.01, 0.01);
        const flipped = ones();
        document.querySelector("input[name=tool][value=hide]").click();
        get("drawing").setPointerCapture = () => {};
        press(get("drawing"), 0.5, 0.5);
        get("complete").click();
        await new Promise(done => setTimeout(done, 1500));
        return {names, before, flipped, said: get("accepted").textContent};""",
    )
    assert set(found["names"]) >= {
        "play",
        "step",
        "shuffle",
        "release",
        "example",
        "sample",
        "clear",
        "half",
        "complete",
    }
    assert found["before"] != found["flipped"]
    assert re.fullmatch(r"\d+ proposals, \d+ accepted", found["said"])


def test_the_command_writes_it_and_says_how_far_rounding_goes(run: dvaepp.Run, tmp_path: Path) -> None:
    assert main(["explore", str(run.folder)]) == 0
    page = (run.folder / "explore.html").read_text()
    said = re.search(
        r"differ from the run&#39;s by at most ([\d.e-]+), energies by ([\d.e-]+) nats", " ".join(page.split())
    )
    assert said is not None
    assert float(said[1]) < 0.01
    assert main(["explore", str(run.folder), "-o", str(tmp_path / "x.txt")]) == 2
    assert main(["report", str(run.folder)]) == 0
    assert 'href="explore.html"' in (run.folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("recipe", "data", "settings", "message"),
    [
        ("quick/directed", BITS, {}, "the page samples a Boltzmann machine, and the prior of .* is a DirectedPrior"),
        ("quick/rbm", BITS.reshape(80, -1), {}, "the page explores images of bits"),
        ("quick/rbm", BITS[:, 0] / 3, {"model.likelihood": "normal"}, "the page explores images of bits"),
    ],
)
def test_other_runs_are_refused(recipe: str, data: Any, settings: Any, message: str, tmp_path: Path) -> None:
    run = train(tmp_path / "run", recipe, data, **settings)
    with pytest.raises(InputError, match=message):
        write_explorer(run, tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


@browser
def test_the_picture_in_the_guide_is_a_screenshot_of_the_shipped_run(tmp_path: Path) -> None:
    """DVAEPP_SCREENSHOTS=docs makes it anew."""
    page = tmp_path / "explore.html"
    write_explorer(dvaepp.load_run("digits-rbm"), page)
    assert page.stat().st_size < 3e6
    made = Path(os.environ.get("DVAEPP_SCREENSHOTS", tmp_path), "explorer.png").absolute()
    opened(page.as_uri(), f"--screenshot={made}", "--window-size=1180,1000", "--hide-scrollbars")
    kept = Path(__file__).parents[2] / "docs" / "explorer.png"
    with Image.open(made) as new, Image.open(kept) as old:
        assert new.size == old.size
        grey, before = (np.asarray(each.convert("L").resize((60, 50)), float) for each in (new, old))
    assert grey.std() > 20
    assert np.corrcoef(grey.ravel(), before.ravel())[0, 1] > 0.9
