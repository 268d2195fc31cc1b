"""What must not change when code only moves: the numbers of tiny runs, as one JSON file to compare with another.

    python scripts/golden.py SOURCE OUT.json

SOURCE is the `src` folder of a checkout. Every recipe trains, is evaluated and sampled, two minutes in all; the file
holds the metrics but for their seconds, the scores and what log Z rests on, a digest of the last checkpoint's tensors,
the samples' sums, the lists and tables that the command prints, and the public names. On one machine, with one build of
torch, two trees that compute the same have equal files.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

RUNS = {
    "rbm": ["quick/rbm"],
    "directed": ["quick/directed"],
    "zephyr": ["quick/zephyr"],
    "marginal": ["table-2/mnist-static/nonlinear-2/marginal", "--data", "digits"],
    "rolfe": ["table-2/mnist-static/nonlinear-2/rolfe", "--data", "digits"],
    "annealed": ["table-2/mnist-static/linear-1/rbm", "--data", "digits", "--set", "training.beta=[5,9]"],
    "deep": ["table-3/mnist-static/rbm-normal", "--data", "digits"],
    "deep-rolfe": ["table-3/mnist-static/rolfe-normal", "--data", "digits"],
    "deep-bits": ["table-3/mnist-static/rbm-bernoulli", "--data", "digits"],
    "conditional": ["table-3/omniglot/rbm-normal", "--data", "digits"],
    "normal": ["table-3/mnist-static/normal-normal", "--data", "digits", "--set", "training.muon=10"],
}
RESULTS = Path(__file__).parents[1] / "results"
SAYS = (["list"], ["show", "table-3/cifar10/rbm-normal"], ["table", "2"], ["table", "3"])


def main(source: Path, out: Path) -> None:
    """Run everything with the source's code and write the file."""
    environment = {**os.environ, "PYTHONPATH": str(source.resolve()), "OMP_NUM_THREADS": "1"}

    def python(*arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def numbers(name: str, arguments: list[str]) -> dict[str, Any]:
        python("-m", "dvaepp", "train", *arguments, "--size", "tiny", "--seed", "1", "--out", name)
        python("-m", "dvaepp", "evaluate", name, "--chains", "128")
        python("-m", "dvaepp", "sample", name, "-o", f"{name}.npz")
        run = Path(folder) / name
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        scores = json.loads((run / "scores.json").read_text())
        return {
            "metrics": [{key: value for key, value in line.items() if key != "seconds"} for line in metrics],
            "scores": scores["scores"],
            "log_partition": scores["log_partition"],
            "checkpoint": digest(run / "checkpoint.safetensors"),
            "samples": {key: float(array.sum()) for key, array in np.load(f"{run}.npz").items()},
        }

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "results").symlink_to(RESULTS)
        found: dict[str, Any] = {name: numbers(name, arguments) for name, arguments in RUNS.items()}
        found["says"] = [python("-m", "dvaepp", *words) for words in SAYS]
        found["names"] = python("-c", "import dvaepp; print(*sorted(dvaepp.__all__))").split()
    out.write_text(json.dumps(found, indent=1, sort_keys=True))


def digest(path: Path) -> str:
    """SHA-256 of every tensor that training makes, under its name."""
    total = hashlib.sha256()
    with safe_open(path, framework="numpy") as file:
        for name in sorted(name for name in file.keys() if not name.startswith("data.")):  # noqa: SIM118
            total.update(name.encode() + file.get_tensor(name).tobytes())
    return total.hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
