"""What one does with a run day by day, by commands, on a folder of idx files such as MNIST's or Fashion-MNIST's.

python examples/everyday.py [FOLDER] [STEPS] [SIZE]
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
from sklearn.datasets import load_digits

import dvaepp


def dvaepp_command(*words: str) -> None:
    print("dvaepp", *words)
    subprocess.run([sys.executable, "-m", "dvaepp", *words], check=True)


def digits(folder: str) -> str:
    """idx files with labels for those who have none at hand."""
    Path(folder).mkdir(exist_ok=True)
    images, labels = (load_digits().images * 15).astype(np.uint8), load_digits().target.astype(np.uint8)
    for split, part in (("train", slice(1500)), ("t10k", slice(1500, None))):
        for what, values in (("images-idx3", images[part]), ("labels-idx1", labels[part])):
            head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
            Path(f"{folder}/{split}-{what}-ubyte").write_bytes(head + values.tobytes())
    return folder


def main(folder: str = "", steps: int = 1000, size: str = "small") -> dict[str, float]:
    data = folder or digits("idx")
    sizes = ["--size", size, "--set", "model.groups=[32,32]", "--set", "model.hidden=[128]"]
    dvaepp_command("train", "quick/rbm", "--data", data, "--steps", str(steps), *sizes, "--out", "first")
    dvaepp_command("resume", "first", "--steps", str(2 * steps))  # a while longer
    dvaepp_command("evaluate", "first", "--samples", "20", "--per-example", "scores.csv")
    dvaepp_command("encode", "first", "test", "-o", "codes.parquet", "--hard")
    dvaepp_command("probe", "first", "-o", "neighbours.png")
    dvaepp_command("interpolate", "first", "0", "1", "-o", "way.png")
    dvaepp_command(
        "train", "quick/rbm", "--data", data, "--steps", str(steps), *sizes, "--from", "first", "--out", "next"
    )

    run = dvaepp.load_run("next")
    dark = run.data.test[run.data.test.sum(1) < run.data.test.sum(1).median()].numpy().reshape(-1, *run.shape)
    np.save("dark.npy", dark)
    dvaepp_command("evaluate", "next", "--data", "dark.npy", "--samples", "20")  # other data of the same form
    dvaepp_command("report", "next", "--data", "dark.npy", "-o", "dark.html")
    scores, codes = pandas.read_csv("scores.csv"), pandas.read_parquet("codes.parquet")
    return {
        "steps of the first run": dvaepp.load_run("first").step,
        "nats": -scores["log_likelihood"].mean(),
        "classes": scores["label"].nunique(),
        "bits": sum(name.startswith("codes_") for name in codes.columns),
        "nats of dark images": run.score(dark, samples=20).numbers()["nll"],
    }


if __name__ == "__main__":
    given = sys.argv[1:]
    for what, value in main(*given[:1], *map(int, given[1:2]), *given[2:]).items():
        print(f"{what:24} {value:.3f}")
