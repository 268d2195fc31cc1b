"""The guides' programs run as they stand."""

import re
from pathlib import Path

import pytest

EVERY = sorted((Path(__file__).parent.parent / "docs/guides").glob("*.md"))
GUIDES = [guide for guide in EVERY if "```python" in guide.read_text()]


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_the_program_of_a_guide_runs(guide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", guide.read_text(), re.S)
    assert len(blocks) >= 3
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": guide.stem}
    for block in blocks:
        exec(compile(block, str(guide), "exec"), names)


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
