"""The programs under examples/ run, in a folder of their own, at tiny size."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from dvaepp.cli import main

EXAMPLES = {
    "impute": (("wine", 60), {"numbers, model", "numbers, column means and modes"}),
    "pictures": (("", 40), {"nats", "error of reconstructions", "error of completions", "classes"}),
    "elsewhere": (
        (40,),
        {"variables", "decoded samples", "codes of onnxruntime that agree", "bits an image", "exact"},
    ),
    "everyday": (("", 30, "tiny"), {"steps of the first run", "nats", "classes", "bits", "nats of dark images"}),
    "codes": ((60,), {"log p(x), nats", "5 nearest codes", "5 nearest pictures", "linear on codes"}),
}
FOLDER = Path(__file__).parent.parent / "examples"


def test_every_example_is_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(EXAMPLES)


FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not FASHION.is_dir(), reason="no Fashion-MNIST on this machine")
def test_a_folder_of_idx_files_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(FOLDER / "codes.py"))["main"](30, str(FASHION), 500)
    assert found["5 nearest codes"] > 0.3


ICONS = Path("/usr/share/icons/Adwaita/48x48")


@pytest.mark.skipif(not ICONS.is_dir(), reason="no icon theme on this machine")
def test_icons_of_all_sizes_with_transparency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(FOLDER / "pictures.py"))["main"](str(ICONS), 30)
    assert found["classes"] >= 5
    assert found["nats"] < 16 * 16 * 0.7


def here(words: list[str], check: bool) -> None:
    """A command that a program starts, run within the test: a process of its own would import torch each time."""
    assert check
    assert words[:3] == [sys.executable, "-m", "dvaepp"]
    assert main(words[3:]) == 0


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name != "elsewhere":  # torch exports nothing under the type checks of tests
        monkeypatch.setattr(subprocess, "run", here)
    given, said = EXAMPLES[name]
    found = runpy.run_path(str(FOLDER / f"{name}.py"))["main"](*given)
    assert found.keys() == said
    assert all(isinstance(value, float | int) for value in found.values())
