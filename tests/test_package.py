"""The package as a user meets it: README, the map of the paper, the wheel."""

import importlib
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import dvaepp
from dvaepp.cli import main
from dvaepp.cli.commands import COMMANDS
from dvaepp.runs.results import results_of, table
from dvaepp.storage import read_json

ROOT = Path(__file__).parent.parent


def test_every_public_name_is_there() -> None:
    for name in dvaepp.__all__:
        assert getattr(dvaepp, name) is not None
    with pytest.raises(AttributeError, match="attribute nothing"):
        _ = dvaepp.nothing


def rows() -> list[list[str]]:
    lines = (ROOT / "docs/paper.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    headings = ("equation", "what")
    return [row for row in cells if row[0] not in headings and not set("".join(row)) <= set("-: ")]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_row_of_the_map_leads_to_a_function_and_a_test(row: list[str]) -> None:
    _, functions, tests = row[0], row[1], row[2]
    for path in re.findall(r"`([\w.]+)`", functions):
        module, *names = path.split(".")
        found = importlib.import_module(f"dvaepp.{module}")
        for name in names:
            try:
                found = getattr(found, name)
            except AttributeError:
                found = importlib.import_module(f"{found.__name__}.{name}")
    assert re.findall(r"`([\w.]+)`", functions)
    for file, name in re.findall(r"`([\w/]+)::(\w+)`", tests):
        assert re.search(rf"^def {name}\(", (ROOT / "tests" / f"{file}.py").read_text(), re.M), name
    assert re.findall(r"`([\w/]+)::(\w+)`", tests)


def test_the_readmes_programs_run(tmp_path: Path) -> None:
    programs, printed = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S), ""
    for program in programs:
        program = re.sub(r"range\(\d+\)", "range(2)", program)
        arguments = [sys.executable, "-W", "error", "-c", program]
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed += done.stdout
    assert len(programs) == 5
    assert "log p(x)" in printed
    assert "carried" in printed
    assert "ChainDiagnostics" in printed


def test_the_wheel_runs_alone(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT))
    (wheel,) = tmp_path.glob("*.whl")
    run("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "site"), str(wheel))
    assert (tmp_path / "site/dvaepp/py.typed").exists()
    sources = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src/dvaepp").rglob("*.py")}
    installed = tmp_path / "site"
    assert {str(path.relative_to(installed)) for path in (installed / "dvaepp").rglob("*.py")} == sources
    names = [".".join(Path(path).with_suffix("").parts).removesuffix(".__init__") for path in sorted(sources)]
    every = [name for name in names if not name.endswith("__main__")]
    run("-c", f"import sys, importlib; sys.path.insert(0, 'site')\nfor name in {every}: importlib.import_module(name)")
    program = (
        "import sys; sys.path.insert(0, 'site')\n"
        "import dvaepp, dvaepp.cli\n"
        "assert dvaepp.__file__.endswith('site/dvaepp/__init__.py'), dvaepp.__file__\n"
        "assert not dvaepp.cli.main(['train', 'quick/rbm', '--size', 'tiny', '--steps', '2', '--out', 'run',"
        " '--set', 'model.hidden=[4]'])\n"
        "assert not dvaepp.cli.main(['sample', 'digits-rbm', '-o', 'x.png', '--rows', '1'])\n"
        "raise SystemExit(dvaepp.cli.main(['report', 'run']))\n"
    )
    assert "best validation NLL" in run("-c", program)
    assert "Changed from quick/rbm" in (tmp_path / "run/report.html").read_text()


def loaded(program: str) -> set[str]:
    """The modules that are there after a program."""
    program += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(done.stdout.split("\n")[-2].split())


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=lambda names: " ".join(names))
def test_help_needs_no_torch(arguments: list[str]) -> None:
    program = f"from dvaepp.cli import main\ntry: main({[*arguments, '--help']})\nexcept SystemExit: pass"
    assert not {"torch", "numpy", "pydantic"} & loaded(program)


def test_boltzmann_machines_need_no_autoencoder() -> None:
    names = [f"dvaepp.boltzmann.{path.stem}" for path in (ROOT / "src/dvaepp/boltzmann").glob("[a-z]*.py")]
    below = "boltzmann|components|numerics|gradients|randomness|distributed|storage|states|errors"
    met = {name for name in loaded("\n".join(f"import {name}" for name in names)) if name.startswith("dvaepp.")}
    assert {name for name in met if not re.match(rf"dvaepp\.({below})\b", name)} == set()


@pytest.mark.parametrize("page", ["README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))])
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert all((ROOT / page).parent.joinpath(link).exists() for link in links if "://" not in link), links


def test_the_results_page_is_what_the_command_makes_of_the_results() -> None:
    assert (ROOT / "docs/results-table-1.md").read_text() == table(ROOT / "results", "1")
    assert (ROOT / "docs/results.md").read_text() == table(ROOT / "results", "2")
    assert (ROOT / "docs/results-table-3.md").read_text() == table(ROOT / "results", "3")


@pytest.mark.parametrize("folder", [path.name for path in sorted((ROOT / "results/varied").iterdir())])
def test_the_page_of_what_was_varied_shows_what_the_command_makes_of_the_results(folder: str, tmp_path: Path) -> None:
    made = tmp_path / "made.md"
    assert main(["compare", str(ROOT / "results/varied" / folder), "--steps-may-differ", "-o", str(made)]) == 0
    assert made.read_text().strip() in (ROOT / "docs/varied.md").read_text()


@pytest.mark.parametrize("number", ["1", "2", "3"])
def test_the_readme_shows_the_results(number: str) -> None:
    readme, found = (ROOT / "README.md").read_text(), defaultdict(list)
    for result in results_of(ROOT / "results", number).values():
        found[result.recipe].append(result.scores["nll"])
    shown = re.split(r"^\| static MNIST, Table ", readme, flags=re.M)[int(number)]
    rows = dict(re.findall(r"^\| `([a-z0-9/-]+)` \| ([\d.]+)", shown.partition("\n\n")[0], re.M))
    assert rows.keys() == {name.split("mnist-static/")[1] for name in found}
    for name, nlls in found.items():
        assert float(rows[name.split("mnist-static/")[1]]) == pytest.approx(sum(nlls) / len(nlls), abs=0.005001)


def test_the_readme_shows_table_3_in_larger_batches() -> None:
    shown = re.findall(r"^\| `([a-z-]+)` \| [\d.]+ \| ([\d.]+) \|", (ROOT / "README.md").read_text(), re.M)
    results = [read_json(path, "a result") for path in (ROOT / "results/varied/batches-of-1600").rglob("*.json")]
    assert dict(shown) == {result["recipe"].rpartition("/")[2]: f"{result['scores']['nll']:.2f}" for result in results}
    assert {(result["steps"], result["settings"]["training"]["batch"]) for result in results} == {(4400, 1600)}
