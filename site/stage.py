"""Lay out the pages of the documentation in a folder, from which mkdocs builds it: `python site/stage.py FOLDER`."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "dvaepp"
PACKAGES = {
    "boltzmann": "Boltzmann machines, sampling and log Z; of use without any VAE",
    "smoothings": "Smoothing transformations: r(zeta | z), the mixture q(zeta | x), draws and their gradients",
    "priors": "Priors over bits, and over normal variables",
    "estimators": "Gradient estimators for random bits; of use without any VAE",
    "objectives": "Bounds, in parts",
    "models": "Encoder, prior and decoder put together",
    "networks": "Plain networks",
    "likelihoods": "p(x | z)",
    "optimisers": "Optimisers",
    "data": "Data sets, and how one's own are read",
    "training": "Training that resumes bit for bit",
    "evaluation": "Likelihoods with their uncertainty, gradients, completion, interpolation",
    "recipes": "Recipes, and the paper's tables",
    "runs": "Run folders, and a run in use",
    "studies": "Grids of runs",
    "report": "Reports, figures, the page to play with",
}
"""What is at each package's page in the reference."""
_NO_PAGES = shutil.ignore_patterns("*.json", "*.jsonl", "*.safetensors")


def stage(folder: Path) -> None:
    """Write all pages: those of docs, the changelog, cards of shipped runs, the reference, and what pages need.

    ValueError for a folder that holds anything but pages of before, which are removed.
    """
    if folder.exists():
        if not (folder / "assets" / "math.js").exists() or folder.resolve() == ROOT / "site":
            raise ValueError(f"{folder} is there, and no pages of before: name a new folder")
        shutil.rmtree(folder)
    shutil.copytree(ROOT / "docs", folder)
    shutil.copytree(ROOT / "site" / "assets", folder / "assets")
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        (folder / name.lower()).write_text(text, encoding="utf-8")
    for card in sorted((SOURCE / "pretrained").glob("*/README.md")):
        shutil.copytree(card.parent, folder / "pretrained" / card.parent.name, ignore=_NO_PAGES)
    hub = folder / "guides" / "hub.md"
    hub.write_text(hub.read_text(encoding="utf-8").replace("](../../src/dvaepp/", "](../"), encoding="utf-8")
    paper = folder / "paper.md"
    paper.write_text(linked(paper.read_text(encoding="utf-8")), encoding="utf-8")
    for package, about in PACKAGES.items():
        path = folder / "reference" / f"{package}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(reference(package, about), encoding="utf-8")


def linked(page: str) -> str:
    """The map of the paper with each function's name, in the second column, a link to where it is explained."""
    return "\n".join(_row(line) if line.startswith("| ") else line for line in page.splitlines()) + "\n"


def _row(line: str) -> str:
    cells = line.split(" | ")
    if len(cells) != 3:
        raise ValueError(f"a row of the paper's map has {len(cells)} columns, not 3: {line}")
    cells[1] = re.sub(r"`([a-z_0-9]+(\.\w+)+)`", r"[`\1`][dvaepp.\1]", cells[1])
    return " | ".join(cells)


def reference(package: str, about: str) -> str:
    """A package's page: each of its public modules, in order."""
    modules = [
        path.relative_to(SOURCE.parent).with_suffix("")
        for path in sorted((SOURCE / package).rglob("*.py"))
        if not any(part.startswith("_") for part in path.relative_to(SOURCE).parts)
    ]
    shown = "\n\n".join(f"::: {'.'.join(module.parts)}" for module in modules)
    return f"# dvaepp.{package}\n\n{about}.\n\n{shown}\n"


if __name__ == "__main__":
    stage(Path(sys.argv[1]))
