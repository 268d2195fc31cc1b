"""The documentation as it is built: strict, whole, nowhere far away, and without a fault in a browser."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from browser import browser, computed, opened

ROOT = Path(__file__).parent.parent
SHOWN = (
    "index.html",
    "tutorials/first-model.html",
    "tutorials/own-table.html",
    "questions.html",
    "paper.html",
    "results.html",
    "reference/smoothings.html",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built as `make docs` builds them."""
    pytest.importorskip("mkdocs", reason="no mkdocs, which the extra docs brings")
    folder = tmp_path_factory.mktemp("site")
    pages, built = folder / "docs", folder / "site"
    subprocess.run([sys.executable, ROOT / "site" / "stage.py", pages], check=True)
    settings = (ROOT / "mkdocs.yml").read_text()
    settings = settings.replace("docs_dir: build/docs", f"docs_dir: {pages}")
    settings = settings.replace("[src]", f"[{ROOT / 'src'}]").replace(
        "site/docstrings.py", f"{ROOT}/site/docstrings.py"
    )
    (folder / "mkdocs.yml").write_text(settings.replace("site_dir: build/site", f"site_dir: {built}"))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", folder / "mkdocs.yml"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return built


class Links(HTMLParser):
    """What a page links to, loads, and can be linked to at; links of its own text apart from the site's."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.of_text: list[str] = []
        self.loads: list[str] = []
        self.names: set[str] = set()
        self._in_text = 0
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.names |= {found[name] for name in ("id", "name") if name in found}
        self._in_text += tag == "article"
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
            self.of_text += [found["href"]] if self._in_text else []
        elif tag == "link" and found.get("rel") != "canonical":
            self.loads.append(found["href"])
        elif "src" in found:
            self.loads.append(found["src"])

    def handle_endtag(self, tag: str) -> None:
        self._in_text -= tag == "article"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    return {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}


def _inside(page: Path, links: list[str]) -> Iterator[tuple[Path, str]]:
    for link in links:
        address, name = urldefrag(link)
        if not re.match(r"[a-z]+:", address):
            yield (page.parent / unquote(address)).resolve() if address else page, name


def test_no_link_is_broken_and_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Links]) -> None:
    broken = [
        (str(page.relative_to(site)), str(target), name)
        for page, found in pages.items()
        for target, name in _inside(page, [*found.links, *found.loads])
        if not target.exists() or (name and target in pages and unquote(name) not in pages[target].names)
    ]
    assert broken == []
    assert [link for found in pages.values() for link in found.loads if re.match(r"(https?:)?//", link)] == []
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert [
        address for address in re.findall(r"url\((.*?)\)", styles) if "//" in address and "data:" not in address
    ] == []


def test_what_is_looked_for_most_is_at_most_two_links_away(site: Path, pages: dict[Path, Links]) -> None:
    near = {site / "index.html"}
    for _ in range(2):
        near |= {target for page in near for target, _ in _inside(page, pages[page].of_text) if target in pages}
    for wanted in ("tutorials/own-images.html", "tutorials/own-table.html", "guides/your-data.html", "questions.html"):
        assert site / wanted in near
    assert "which-smoothing" in pages[site / "questions.html"].names


def test_equations_of_docstrings_stay_as_they_are(site: Path) -> None:
    page = (site / "reference" / "boltzmann.html").read_text()
    assert "<code>E(z) = -b'z - z'Jz.</code>" in page
    assert '<span class="gp">&gt;&gt;&gt; </span>' in page


@browser
def test_pages_fit_a_phone_and_a_desk(site: Path) -> None:
    screen = site / "screen.html"
    screen.write_text("<html><head></head><body></body></html>")
    script = """const beyond = {};
      for (const name of NAMES) for (const width of [390, 1400]) {
        const frame = Object.assign(document.createElement("iframe"), {src: name, width, height: 900, frameBorder: 0});
        const loaded = new Promise(done => { frame.onload = done; });
        document.body.append(frame);
        await loaded;
        await new Promise(done => setTimeout(done, 300));
        const {scrollWidth, clientWidth} = frame.contentDocument.documentElement;
        if (clientWidth > width - 30) beyond[`${name} ${width}`] = scrollWidth - clientWidth;
        frame.remove();
      }
      return beyond;"""
    found = computed(screen, script.replace("NAMES", json.dumps(SHOWN)), "--allow-file-access-from-files")
    assert found == {f"{name} {width}": 0 for name in SHOWN for width in (390, 1400)}


@browser
@pytest.mark.parametrize("name", SHOWN)
def test_a_page_has_no_fault_and_its_equations_are_set(name: str, site: Path) -> None:
    script = """await new Promise(done => setTimeout(done, 500));
      return [".arithmatex", ".arithmatex .katex-html"].map(what => document.querySelectorAll(what).length);"""
    equations, shown = computed(site / name, script)
    assert equations == shown
    if name in ("paper.html", "tutorials/first-model.html"):
        assert shown > 5


@browser
def test_search_works_offline(site: Path) -> None:
    shown = opened(f"{(site / 'index.html').as_uri()}?q=annealing")
    assert 'class="md-search-result__item"' in shown
    assert "annealing" in shown
