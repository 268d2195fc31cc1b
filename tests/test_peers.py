"""The page of peers is results/peers.json and nothing else. No network, and no peer is run."""

import copy
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("peers_page", ROOT / "benchmarks/peers/page.py")
assert SPEC
assert SPEC.loader
MODULE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MODULE)
page = MODULE.page
RESULTS = json.loads((ROOT / "results/peers.json").read_text())


def leaves(value: Any, *path: str) -> list[tuple[str, ...]]:
    """Paths to all numbers and words."""
    if isinstance(value, dict):
        return [leaf for key, each in value.items() for leaf in leaves(each, *path, key)]
    return [] if isinstance(value, list) else [path]


def put(results: Any, path: tuple[str, ...], value: Any) -> Any:
    changed = copy.deepcopy(results)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def shown() -> list[tuple[str, ...]]:
    """What the page has to show of each library."""
    wanted = {"version", "licence", "seconds", "message", "megabytes", "ms", "least", "most", "rate", "epochs"}
    wanted |= {"nll", "standard_error", "log_z", "log_z_error"}
    apart = ("packages", "features", "tries")
    paths = [path for path in leaves(RESULTS["libraries"]) if path[-1] in wanted and not set(path) & set(apart)]
    return [path for path in paths if path[1:] != ("install", "seconds") and value_of(path) is not None]


def value_of(path: tuple[str, ...]) -> Any:
    value = RESULTS["libraries"]
    for key in path:
        value = value[key]
    return value


def test_the_page_is_what_the_command_makes_of_the_results() -> None:
    assert (ROOT / "docs/how-it-compares.md").read_text() == page(RESULTS)


@pytest.mark.parametrize("path", shown(), ids="/".join)
def test_a_number_that_is_tampered_with_is_noticed(path: tuple[str, ...]) -> None:
    value = value_of(path)
    other = f"not {value}" if isinstance(value, str) else value * 2 + 1
    assert page(put(RESULTS, ("libraries", *path), other)) != page(RESULTS)


@pytest.mark.parametrize("key", RESULTS["machine"])
def test_date_and_machine_are_shown(key: str) -> None:
    if key != "threads":
        assert str(RESULTS["machine"][key]) in page(RESULTS)


def blank(value: Any) -> Any:
    """Results without a digit."""
    if isinstance(value, dict):
        return {key: blank(each) for key, each in value.items()}
    if isinstance(value, list):
        return [blank(each) for each in value]
    if isinstance(value, str):
        return re.sub(r"\d", "#", value)
    return value if value is None or isinstance(value, bool) else float("nan")


def test_every_number_of_its_tables_comes_from_the_results() -> None:
    rows = [line for line in page(blank(RESULTS)).splitlines() if line.startswith(("|", "- "))]
    counts = {f" {len(library['install']['packages'])} " for library in RESULTS["libraries"].values()}
    for row in rows:
        for count in counts:
            row = row.replace(f"|{count}|", "||")
        assert not re.search(r"\d", row), row


def test_what_fails_is_shown_as_failing_with_its_message() -> None:
    failing, lines = 0, [line for line in page(RESULTS).splitlines() if "--stages first" in line]
    for name, library in RESULTS["libraries"].items():
        (row,) = [line for line in lines if line.startswith(f"| {name} | ")]
        install, first = library["install"], library.get("first", {})
        if not install["installs"]:
            assert f"**fails to install**: `{install['message']}`" in row
        elif not first["works"]:
            assert f"**fails at first run**: `{first['message']}`" in row
        else:
            assert "works" in row
        failing += "**fails" in row
    assert failing


def test_a_library_that_fails_anywhere_is_shown_so() -> None:
    for work in ("gibbs", "epoch", "likelihood"):
        failing = put(RESULTS, ("libraries", "rbms", work), {"fails": "Error: out of order"})
        assert "**fails**: `Error: out of order`" in page(failing)
    failing = put(RESULTS, ("libraries", "rbms", "first"), {"works": False, "message": "Error: odd", "seconds": 1.0})
    assert "**fails at first run**: `Error: odd`" in page(failing)


def test_names_that_show_a_feature_were_found_in_the_source() -> None:
    for library in RESULTS["libraries"].values():
        assert not [cell for cell in library["features"].values() if "not_found" in cell]


def test_every_measured_row_names_a_command() -> None:
    measured = page(RESULTS).split("## What each has")[0], page(RESULTS).partition("## Speed")[2]
    for part in measured:
        rows = [
            line for line in part.splitlines() if line.startswith("| ") and "---" not in line and "repeat" not in line
        ]
        assert all("benchmarks/compare.py --peers" in row or "no likelihood" in row for row in rows), rows
