"""Small runs, and the pages about them as read back."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from dvaepp.recipes.catalogue import find
from dvaepp.recipes.recipe import override
from dvaepp.report.report import write_report
from dvaepp.runs.evaluation import evaluate
from dvaepp.runs.folder import RunFolder
from dvaepp.storage import write_json

QUICK = (
    "training.steps=4",
    "training.validate_every=2",
    "training.log_every=1",
    "training.validation_examples=20",
    "model.hidden=[16]",
    "model.groups=[20,20]",
    "evaluation.examples=10",
)
VOID = {"meta", "img", "br", "hr", "link", "input", "wbr"}
HOSTILE = "<script>alert('&')</script>"


class Page(HTMLParser):
    """A page as read back: fails where tags do not pair."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert text.startswith("<!DOCTYPE html>")
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice"
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if self.open[-1:] in (["th"], ["td"]):
            self.tables[-1][-1][-1] += data
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)


def train(folder: Path, name: str, *settings: str, evaluated: bool = True) -> RunFolder:
    recipe = override(find(name, "tiny"), [*QUICK, *settings])
    run = RunFolder.create(
        recipe, folder, seed=3, device="cpu", threads=1, data_dir=None, command=f"dvaepp train {name} --out {HOSTILE}"
    )
    run.trainer().fit()
    if evaluated:
        result = evaluate(run, recipe.evaluation, split="test", seed=0, last=False, command="dvaepp evaluate it").result
        write_json(folder / "scores.json", result)
    return run


def report(run: RunFolder) -> Page:
    path = run.folder / "report.html"
    write_report(RunFolder(run.folder), path)
    return Page(path.read_text(encoding="utf-8"))
