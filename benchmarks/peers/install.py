"""A virtual environment for each peer, made by plain pip, with torch held to the version of constraints.txt.

Nothing is repaired: what pip or a peer says is kept as it was said. Which build of torch comes is the matter of pip's
own settings; on a machine without a GPU, let them find the one for CPUs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PEERS = {
    "dvaepp": "dvaepp",
    "dwave-pytorch-plugin": "dwave",
    "kaiwu-torch-plugin": "kaiwu",
    "rbms": "rbms",
    "thrml": "thrml",
    "pythae": "pythae",
    "scikit-learn": "sklearn",
}
# What a peer needs and does not ask pip for. It is added after the first run has failed for want of it.
FORGOTTEN = {"dwave-pytorch-plugin": ["einops"]}


def last_line(text: str) -> str:
    """The last line that says something."""
    said = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in said if line.startswith("ERROR: ")]
    return (errors or said or [""])[-1]


def environment() -> dict[str, str]:
    """One thread, no bytecode of peers elsewhere, nothing of ours on the path, and no statistics sent home."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}
    one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    quiet = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "KPP_STATS_ENABLED": "false", "PYTHONWARNINGS": "ignore"}
    return {**kept, **one, **quiet}


def python_of(name: str, cache: Path) -> Path:
    """The interpreter of a peer's environment."""
    return cache / name / "bin/python"


def pip(python: Path, *arguments: str, timeout: float = 900) -> tuple[bool, str]:
    """Whether pip did it, and the last line of what it said where it did not."""
    command = [str(python), "-m", "pip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment())
    return done.returncode == 0, "" if done.returncode == 0 else last_line(done.stderr)


def installed(name: str, cache: Path) -> dict[str, Any]:
    """Version, size and packages of a peer's environment, made if it is not there; or why it cannot be made."""
    folder, found = cache / name, cache / name / "install.json"
    package = str(ROOT) if name == "dvaepp" else name
    if found.exists():
        if name == "dvaepp":  # the source may have changed
            pip(python_of(name, cache), "install", "-q", "--no-deps", "--force-reinstall", package)
        return dict(json.loads(found.read_text()))
    cache.mkdir(parents=True, exist_ok=True)
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")]
    (cache / "torch.txt").write_text("\n".join(pins) + "\n")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, env=environment())
    start = time.perf_counter()
    python = python_of(name, cache)
    made, message = pip(python, "install", "-q", "-c", str(cache / "torch.txt"), package)
    seconds = round(time.perf_counter() - start, 1)
    result: dict[str, Any] = {
        "command": f"pip install {'.' if name == 'dvaepp' else name}",
        "installs": made,
        "seconds": seconds,
    }
    result |= {"torch_pin": pins[0], "date": time.strftime("%Y-%m-%d"), "python": sys.version.split()[0]}
    if not made:
        pip(python, "download", "-q", "--no-deps", "-d", str(folder / "wheel"), name)
        for wheel in (folder / "wheel").glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(folder / "unpacked")
    result |= measured(name, cache)
    if not made:
        # Its newest release by itself, torch left to it: is it our pin that is in the way?
        alone, why = pip(python, "install", "-q", "--dry-run", f"{name}=={result['version']}")
        result |= {"message": message, "without_our_torch": {"installs": alone, "message": why}, "megabytes": None}
    found.write_text(json.dumps(result, indent=1) + "\n")
    return result


def site(name: str, cache: Path) -> Path:
    """Where the modules lie: the environment's packages, or the wheel unpacked where it could not be installed."""
    unpacked = cache / name / "unpacked"
    return unpacked if unpacked.exists() else next((cache / name / "lib").glob("python*/site-packages"))


def measured(name: str, cache: Path) -> dict[str, Any]:
    """Version, licence, and how much lies in the environment beside pip itself."""
    folder = site(name, cache)
    metadata = {each.metadata["Name"]: each for each in map(PathDistribution, folder.glob("*.dist-info"))}
    versions = {key: each.version for key, each in sorted(metadata.items()) if key not in ("pip", "setuptools")}
    files = [path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0][:3] != "pip"]
    stated = metadata[name].metadata
    texts = [value for key, value in stated.items() if key == "Classifier" and value.startswith("License")]
    texts += [stated.get("License-Expression") or "", (stated.get("License") or "").strip().split("\n")[0]]
    licence = next((text.split(" :: ")[-1].strip() for text in texts if text), "")
    if not licence:
        licence = first_words(folder, name)
    size = sum(path.stat().st_size for path in files)
    return {"version": versions[name], "megabytes": round(size / 1e6), "packages": versions, "licence": licence}


def first_words(folder: Path, name: str) -> str:
    """The head of the licence's own file, where the metadata do not name it."""
    for path in sorted(folder.glob(f"{name.replace('-', '_')}-*.dist-info/**/LICENSE*")):
        return " ".join(path.read_text().split())[:40]
    return ""
