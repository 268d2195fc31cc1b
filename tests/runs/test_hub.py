"""Runs on the Hub, by its stand-in on this machine: pushed, fetched, refused. Users are processes of their own."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from stand_in import TOKEN, StandIn, serving

from dvaepp.cli import main
from dvaepp.storage import load_tensors

STORED = Path(__file__).parent.parent / "stored/quick-rbm"
ADDRESS = "hf://user/digits"


@pytest.fixture(scope="module")
def hub() -> Iterator[StandIn]:
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has been evaluated, with files that are nobody else's."""
    run = Path(shutil.copytree(STORED, tmp_path_factory.mktemp("own") / "run"))
    assert main(["evaluate", str(run), "--examples", "20", "--samples", "5", "--quick"]) == 0
    (run / "data.npz").write_bytes(b"private")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"folder": str(run), "start": "/home/me", "data_dir": str(run)}))
    return run


@pytest.fixture(scope="module")
def pushed(hub: StandIn, folder: Path) -> dict[str, bytes]:
    """The files that a push puts there."""
    done = user(hub, folder.parent, run_command("push", str(folder), "user/digits", "--private"))
    assert "pushed to " in done.stdout, done.stderr
    return hub.repositories["user/digits"][-1]


def run_command(*arguments: str) -> str:
    return f"import dvaepp.cli\nassert not dvaepp.cli.main({list(arguments)!r})"


def user(hub: StandIn, folder: Path, program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a process that knows the stand-in alone, logged in, its cache and current folder being `folder`."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("HF_") and "proxy" not in name}
    ours = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    told = {**known, **ours, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    return subprocess.run([sys.executable, "-c", program], cwd=folder, env=told, capture_output=True, text=True)


def refusals(hub: StandIn, folder: Path, *commands: list[str], before: str = "", **environment: str) -> list[str]:
    """What each command says on standard error, all in one process; each ends with exit code 2 and one line."""
    program = (
        f"{before}\nimport json, io, contextlib, dvaepp.cli\nsaid = []\n"
        f"for command in {list(commands)!r}:\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as shown:\n"
        "        assert dvaepp.cli.main(command) == 2, command\n"
        "    said.append(shown.getvalue())\n"
        "print(json.dumps(said))"
    )
    done = user(hub, folder, program, **environment)
    assert done.returncode == 0, done.stderr
    said: list[str] = json.loads(done.stdout.splitlines()[-1])
    assert all(re.fullmatch(r"dvaepp: .*\n", each) for each in said), said
    return said


def test_what_is_pushed_is_the_model_and_what_is_known_of_it(
    hub: StandIn, pushed: dict[str, bytes], folder: Path
) -> None:
    assert set(pushed) == {
        "run.json",
        "best.safetensors",
        "metrics.jsonl",
        "scores.json",
        "README.md",
        "samples.png",
    }
    same = ("best.safetensors", "metrics.jsonl", "scores.json")
    assert all(pushed[name] == (folder / name).read_bytes() for name in same)
    record, sent = json.loads((folder / "run.json").read_text()), json.loads(pushed["run.json"])
    places = {"folder": None, "data_dir": None, "start": None}
    assert {name: sent[name] for name in record} == record | places
    assert sent["format"] == 1
    assert hub.private["user/digits"]


def test_what_is_fetched_is_what_was_pushed(
    hub: StandIn, pushed: dict[str, bytes], folder: Path, tmp_path: Path
) -> None:
    program = (
        f"import dvaepp\nrun = dvaepp.load_run({ADDRESS!r})\n"
        "from dvaepp.storage import load_tensors\n"
        "print(run.folder, run.step, run.sample(2).shape)\n"
    )
    done = user(hub, tmp_path, program)
    where, *told = done.stdout.split(" ", 1)
    assert told == ["20 (2, 28, 28)\n"], done.stderr
    fetched, own = (load_tensors(path / "best.safetensors") for path in (Path(where), folder))
    assert fetched[1] == own[1]
    assert {name: each.numpy().tobytes() for name, each in fetched[0].items()} == {
        name: each.numpy().tobytes() for name, each in own[0].items()
    }
    assert {path.name for path in Path(where).iterdir()} == set(pushed)


def test_a_revision_stays_when_the_run_is_pushed_again(hub: StandIn, folder: Path, tmp_path: Path) -> None:
    push = f"run = dvaepp.load_run({str(folder)!r})\nprint(run.push_to_hub('user/twice'))\n"
    first = f"import dvaepp\n{push}"
    assert user(hub, tmp_path, first).stdout == f"{hub.endpoint}/user/twice\n"
    revision, files = hub.at("user/twice", "main") or ("", {})
    hub.put("user/twice", files | {"best.safetensors": b"another"})
    both = f"{run_command('sample', f'hf://user/twice@{revision}', '-o', 'x.png', '--rows', '1')}\n"
    assert user(hub, tmp_path, both).returncode == 0
    assert (tmp_path / "x.png").exists()
    (damaged,) = refusals(hub, tmp_path, ["sample", "hf://user/twice", "-o", "y.png"])
    assert "best.safetensors is not a whole dvaepp checkpoint" in damaged


def test_once_fetched_it_needs_no_network_and_a_folder_that_is_there_never_does(
    hub: StandIn, pushed: dict[str, bytes], folder: Path, tmp_path: Path
) -> None:
    sample = run_command("sample", ADDRESS, "-o", "x.png", "--rows", "1")
    assert user(hub, tmp_path, sample).returncode == 0
    for gone in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        done = user(hub, tmp_path, sample, **gone)
        assert done.returncode == 0, done.stderr
    asked = len(hub.asked)
    assert user(hub, tmp_path, run_command("sample", str(folder), "-o", "x.png", "--rows", "1")).returncode == 0
    assert len(hub.asked) == asked


def test_nothing_is_written_beside_what_was_fetched(hub: StandIn, pushed: dict[str, bytes], tmp_path: Path) -> None:
    few = ["--examples", "5", "--samples", "2", "--quick"]
    done = user(hub, tmp_path, run_command("evaluate", ADDRESS, *few))
    assert "only read" in done.stdout, done.stderr
    assert "NLL" in done.stdout
    (report,) = refusals(hub, tmp_path, ["report", ADDRESS])
    assert "only read: name another place with -o" in report
    (snapshot,) = (tmp_path / "hf/hub/models--user--digits/snapshots").iterdir()
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == pushed


def test_the_card_renders_and_its_program_runs(hub: StandIn, pushed: dict[str, bytes], tmp_path: Path) -> None:
    _, metadata, text = pushed["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(metadata)["license"] == "apache-2.0"
    assert yaml.safe_load(metadata)["library_name"] == "dvaepp"
    assert "boltzmann-machine" in yaml.safe_load(metadata)["tags"]
    tables = [block.split("\n") for block in text.split("\n\n") if block.startswith("|")]
    cells = [{len(re.split(r"(?<!\\)\|", line)) for line in table} for table in tables]
    assert cells == [{4}, {4}]
    assert all(re.fullmatch(r"\|( --- \|)+", table[1]) for table in tables)
    assert re.findall(r"!\[.+\]\((.+)\)", text) == ["samples.png"]
    assert pushed["samples.png"].startswith(b"\x89PNG")
    scores = json.loads(pushed["scores.json"])["scores"]
    assert f"{scores['nll']:.2f} ± {scores['nll_standard_error']:.2f} nats" in text
    assert json.loads(pushed["run.json"])["command"] in text
    assert "CC BY-SA 3.0" in text
    assert "Apache-2.0" in text
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert user(hub, tmp_path, program).stdout == "(8, 28, 28) (8, 40)\n"


def test_what_is_no_run_or_may_run_anything_is_refused(
    hub: StandIn, pushed: dict[str, bytes], folder: Path, tmp_path: Path
) -> None:
    record = json.loads(pushed["run.json"])
    hub.put("user/pickled", {**pushed, "extra/weights.PT": b"\x80\x04."})
    hub.put("user/other", {"config.json": b"{}", "model.safetensors": b""})
    hub.put("user/later", {**pushed, "run.json": json.dumps(record | {"format": 2}).encode()})
    hub.put("user/broken", {**pushed, "run.json": b"{"})
    addresses = {
        "hf://user/pickled": "hf://user/pickled holds extra/weights.PT, a pickle, which may run anything",
        "hf://user/other": "hf://user/other is no run of dvaepp: it lacks run.json and best.safetensors",
        "hf://user/later": "run.json is of format 2, and this version of dvaepp reads format 1",
        "hf://user/broken": "run.json is not the record of a run",
        "hf://user/nothing": "hf://user/nothing is not on the Hub, or is private",
        "hf://user/digits@none": "hf://user/digits@none has no such revision",
        "hf://digits": "hf://digits is no run on the Hub, expected hf://user/name",
        "hf://user/two--dots..": "is no name that the Hub takes",
    }
    said = refusals(hub, tmp_path, *(["sample", address, "-o", "x.png"] for address in addresses))
    for told, expected in zip(said, addresses.values(), strict=True):
        assert expected in told
    assert not list((tmp_path / "hf").rglob("*.PT"))
    trained = ["train", "quick/rbm", "--size", "tiny", "--out", "new", "--from", "hf://user/other"]
    (start, theirs) = refusals(hub, tmp_path, trained, ["push", str(folder), "others/digits"])
    assert "hf://user/other is no run of dvaepp" in start
    assert "hf://others/digits is not yours to write to, as the Hub says (403)" in theirs


def test_without_network_login_or_library_it_says_so(hub: StandIn, folder: Path, tmp_path: Path) -> None:
    sample, push = ["sample", "hf://user/digits", "-o", "x.png"], ["push", str(folder), "user/digits"]
    unreached = "hf://user/digits is out of reach: the Hub does not answer, and no copy is here"
    for gone in ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}):
        assert all(unreached in said for said in refusals(hub, tmp_path, sample, push, **gone))
    (login,) = refusals(hub, tmp_path, push, HF_TOKEN="")
    assert "nobody is logged in to the Hub: `hf auth login`" in login
    (wrong,) = refusals(hub, tmp_path, push, HF_TOKEN="hf_another")
    assert "not yours to write to, as the Hub says (401)" in wrong
    for said in refusals(hub, tmp_path, sample, push, before="import sys; sys.modules['huggingface_hub'] = None"):
        assert "the Hub needs huggingface_hub; pip install 'dvaepp[hub]'" in said


@pytest.mark.parametrize("answer", [b"<html>Log in to this network</html>", b"[]"])
def test_what_answers_otherwise_than_the_hub_is_no_traceback(
    answer: bytes, hub: StandIn, folder: Path, tmp_path: Path
) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_HEAD = do_GET  # noqa: N815 (names of http.server)

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        elsewhere = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        said = refusals(hub, tmp_path, ["sample", "hf://a/b", "-o", "x.png"], ["push", str(folder), "a/b"], **elsewhere)
        server.shutdown()
    assert all("hf://a/b" in told for told in said)


def test_a_push_names_no_revision(hub: StandIn, folder: Path, tmp_path: Path) -> None:
    (told,) = refusals(hub, tmp_path, ["push", str(folder), "user/digits@main"])
    assert "names a revision, and a push makes a new one" in told


def test_a_run_without_a_best_model_or_scores(hub: StandIn, tmp_path: Path) -> None:
    run = Path(shutil.copytree(STORED, tmp_path / "run"))
    assert user(hub, tmp_path, run_command("push", str(run), "user/unscored")).returncode == 0
    files = hub.repositories["user/unscored"][-1]
    assert "scores.json" not in files
    assert "Not measured on test data. The NLL of validation data was" in files["README.md"].decode()
    assert not hub.private["user/unscored"]
    (run / "best.safetensors").unlink()
    (told,) = refusals(hub, tmp_path, ["push", str(run), "user/unscored"])
    assert "has no validated model yet" in told
