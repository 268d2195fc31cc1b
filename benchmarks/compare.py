"""dvaepp beside its peers, measured on one machine on one day, and the page that shows it.

::

    python benchmarks/compare.py -o results/peers.json
    python benchmarks/compare.py --page results/peers.json -o docs/how-it-compares.md

The first command makes a virtual environment for each library under --cache, with torch held to constraints.txt, and
asks each in its own interpreter; `--peers` and `--stages` name some of them, `--note` says what else the machine did.
The second writes the page from the JSON alone.

`first` is the README's smallest program as far as it goes, on built-in digits: bits drawn from grey levels, 4,000 to
train, 500 to validate and 500 to test. `gibbs` is 40 sweeps of block Gibbs sampling of 1000 chains of 200 + 200 bits.
`epoch` is one pass over the digits by an RBM of 64 hidden bits: batches of 100, 100 persistent chains, one sweep an
update, plain gradient ascent. Both are timed in rounds in which all take turns while the others wait, after one call
each that is not counted; numbers are medians. `likelihood` trains such an RBM of 16 hidden bits, so that log Z is
exact, for --seconds of each library's own time at three rates, takes the best on the validation digits, and gives the
test digits' NLL with `dvaepp.estimate_log_partition` for all. One thread everywhere. Stages that are not asked for are
kept from --output where it was measured on the same day and machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

PEERS_FOLDER = Path(__file__).resolve().with_name("peers")
sys.path.insert(0, str(PEERS_FOLDER))
from features import features  # noqa: E402
from install import FORGOTTEN, PEERS, ROOT, environment, installed, last_line, pip, python_of, site  # noqa: E402
from page import page  # noqa: E402

STAGES = ("first", "gibbs", "epoch", "likelihood")
TRAINS_RBMS = ("dvaepp", "dwave-pytorch-plugin", "rbms", "thrml", "scikit-learn")
BITS_RATES = (0.1, 0.03, 0.01)
SPIN_RATES = (0.0125, 0.004, 0.00125)  # a coupling of spins counts 16 times as much
RATES = {name: SPIN_RATES if name in ("dwave-pytorch-plugin", "thrml") else BITS_RATES for name in TRAINS_RBMS}


class PeerError(Exception):
    """A peer's process ended; the text is the last line that it said."""


class Peer:
    """A library's process, which answers one line for one."""

    def __init__(self, name: str, cache: Path) -> None:
        self.name, self.digits = name, str(cache / "digits.npz")
        python, script = str(python_of(name, cache)), str(PEERS_FOLDER / f"of_{PEERS[name]}.py")
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.said}
        self.process = subprocess.Popen([python, script], text=True, env=environment(), **streams)

    def ask(self, timeout: float = 600, **asked: Any) -> dict[str, Any]:
        """The answer; PeerError where the process ends instead."""
        assert self.process.stdin
        assert self.process.stdout
        watch = threading.Timer(timeout, self.process.kill)
        watch.start()
        try:
            self.process.stdin.write(json.dumps({**asked, "digits": self.digits}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        watch.cancel()
        if not line:
            code = self.process.wait()
            self.said.seek(0)
            raise PeerError(last_line(self.said.read()) or f"ended with {code}")
        return dict(json.loads(line))

    def close(self) -> None:
        assert self.process.stdin
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait()


def write_digits(path: Path) -> None:
    """The built-in digits as bits: to validate and test they are stored so, to train drawn once from grey levels."""
    import numpy as np

    from dvaepp.data import load

    data, random = load("digits"), np.random.default_rng(0)
    splits = {"train": random.random(data.train.shape) < data.train.numpy() / 255}
    splits |= {name: getattr(data, name).numpy() for name in ("valid", "test")}
    assert all(set(np.unique(bits)) == {0, 1} for bits in splits.values())
    np.savez_compressed(path, **{name: bits.astype(np.uint8) for name, bits in splits.items()})


def about() -> dict[str, Any]:
    """Where and when."""
    import torch

    cpu = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"date": time.strftime("%Y-%m-%d"), "cpu": cpu[0], "cores": len(cpu), "threads": 1, **versions}


def first_run(name: str, cache: Path) -> dict[str, Any]:
    """Whether the smallest program runs as installed, its seconds from a cold start, and what it said if it fails."""
    for package in FORGOTTEN.get(name, []):
        pip(python_of(name, cache), "uninstall", "-q", "-y", package)
    start, peer = time.perf_counter(), Peer(name, cache)
    try:
        peer.ask(do="first")
        found = {"works": True}
    except PeerError as why:
        found = {"works": False, "message": str(why)}
    found["seconds"] = round(time.perf_counter() - start, 1)
    peer.close()
    if not found["works"] and name in FORGOTTEN:
        pip(python_of(name, cache), "install", "-q", *FORGOTTEN[name])
        found["measured_with"] = FORGOTTEN[name]
    return found


def speed(names: list[str], cache: Path, work: str, rounds: int) -> dict[str, dict[str, Any]]:
    """Milliseconds of each library's work, in rounds in which they take turns."""
    ready, found = [], {name: {} for name in names}
    for name in names:
        peer = Peer(name, cache)
        try:
            ready += [(peer, each) for each in peer.ask(do="ready", work=work)["works"]]
        except PeerError as why:
            found[name]["fails"] = str(why)
    print(f"{work}: timing begins", file=sys.stderr, flush=True)
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for peer, each in ready:
            times.setdefault((peer.name, each), []).append(peer.ask(do="time", work=each)["ms"])
    print(f"{work}: timing ends", file=sys.stderr, flush=True)
    for (name, each), taken in times.items():
        median = round(statistics.median(taken), 1)
        found[name][each] = {
            "ms": median,
            "rounds": len(taken),
            "least": round(min(taken), 1),
            "most": round(max(taken), 1),
        }
    for peer in {id(peer): peer for peer, _ in ready}.values():
        peer.close()
    return found


def likelihood(name: str, cache: Path, seconds: float) -> dict[str, Any]:
    """NLL of the test digits at the rate that is best on the validation ones, after so many seconds of training."""
    import numpy as np
    from likelihood import nll

    digits, tries = np.load(cache / "digits.npz"), []
    peer = Peer(name, cache)
    for k, rate in enumerate(RATES[name]):
        out = cache / f"{name}-{k}.npz"
        try:
            trained = peer.ask(do="learn", hidden=16, rate=rate, seconds=seconds, out=str(out))
        except PeerError as why:
            return {"fails": str(why)}
        validation = nll(out, digits["valid"])["nll"]
        tries.append({"rate": rate, **trained, "validation_nll": validation})
        print(name, tries[-1], file=sys.stderr, flush=True)
    peer.close()
    best = min(range(len(tries)), key=lambda k: tries[k]["validation_nll"])
    return {**tries[best], "tries": tries, **nll(cache / f"{name}-{best}.npz", digits["test"])}


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """All stages, of all libraries that are asked for."""
    cache, found = asked.cache.resolve(), {"machine": {**about(), "note": asked.note}, "libraries": {}}
    libraries: dict[str, dict[str, Any]] = found["libraries"]
    for name in asked.peers:
        libraries[name] = {"install": installed(name, cache)}
        libraries[name]["features"] = features(name, site(name, cache))
    write_digits(cache / "digits.npz")
    able = [name for name in asked.peers if libraries[name]["install"]["installs"]]
    for name in able if "first" in asked.stages else []:
        libraries[name]["first"] = first_run(name, cache)
        print(name, libraries[name]["first"], file=sys.stderr, flush=True)
    for work in ("gibbs", "epoch"):
        trained = [name for name in able if name in TRAINS_RBMS]
        for name, times in (speed(trained, cache, work, asked.rounds) if work in asked.stages else {}).items():
            libraries[name][work] = times
    for name in able if "likelihood" in asked.stages else []:
        if name in TRAINS_RBMS:
            libraries[name]["likelihood"] = likelihood(name, cache, asked.seconds)
            print(name, libraries[name]["likelihood"], file=sys.stderr, flush=True)
    if asked.output.exists():
        before = json.loads(asked.output.read_text())
        if all(before["machine"][key] == value for key, value in found["machine"].items() if key != "note"):
            found["machine"]["note"] = asked.note or before["machine"].get("note", "")
            kept = {name: {**before["libraries"].get(name, {}), **new} for name, new in libraries.items()}
            found["libraries"] = {**before["libraries"], **kept}
    return found


def main() -> None:
    """Measure, or write the page."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everyone = list(PEERS)
    arguments.add_argument(
        "--peers", nargs="+", default=everyone, choices=everyone, metavar="NAME", help="some of them"
    )
    arguments.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES, help="some of them")
    arguments.add_argument("--cache", type=Path, default=ROOT / "build/peers", help="where environments are kept")
    arguments.add_argument("--seconds", type=float, default=10.0, help="of training for the likelihood")
    arguments.add_argument("--rounds", type=int, default=3, help="of timing")
    arguments.add_argument("--note", default="", help="a sentence for the page on what else the machine did")
    arguments.add_argument("--page", type=Path, metavar="JSON", help="write the page of these results instead")
    arguments.add_argument("-o", "--output", type=Path, required=True)
    asked = arguments.parse_args()
    text = page(json.loads(asked.page.read_text())) if asked.page else json.dumps(measure(asked), indent=1) + "\n"
    asked.output.write_text(text)


if __name__ == "__main__":
    main()
