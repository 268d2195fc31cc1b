"""The programs of all pages run as they stand."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
EVERY = sorted(DOCS.glob("guides/*.md"))
GUIDES = [guide for guide in EVERY if "```python" in guide.read_text()]
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if "```python" in page.read_text()]


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_program_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    assert len(blocks) >= 3 or page.name == "index.md"
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)


def test_the_first_program_is_of_twenty_lines() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (DOCS / "index.md").read_text(), re.S)
    assert len(program.splitlines()) <= 20


def test_there_is_a_guide_for_each_thing_that_one_adds() -> None:
    assert [guide.stem for guide in GUIDES] == [
        "data-set",
        "estimator",
        "hub",
        "likelihood",
        "prior",
        "run",
        "sampler",
        "smoothing",
        "table",
        "your-data",
    ]
