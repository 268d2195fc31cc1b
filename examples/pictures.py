"""A folder of pictures: train, sample, code, reconstruct, and fill in what a mask hides.

python examples/pictures.py [FOLDER] [STEPS]
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import dvaepp


def digits(folder: str) -> str:
    """A folder of pictures for those who have none at hand: a folder in it for each class."""
    for place, (picture, label) in enumerate(zip(load_digits().images, load_digits().target, strict=True)):
        path = Path(f"{folder}/{label}/{place:04}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((picture * 15).astype(np.uint8)).save(path)
    return folder


def main(folder: str = "", steps: int = 2000) -> dict[str, float]:
    settings = {"data.size": 16, "model.groups": [32, 32], "model.hidden": [128]}
    run = dvaepp.train("quick/rbm", data=folder or digits("pictures"), steps=steps, settings=settings, progress=False)

    codes = run.encode("test", hard=True)
    again = run.decode(codes)
    seen = run.data.test.numpy().reshape(again.shape)
    half = np.zeros(run.shape, bool)
    half[:8] = True  # the upper half is missing
    found = run.complete(seen, half, sweeps=100)
    new = run.sample(16, means=True)
    Image.fromarray((255 * np.concatenate(new, 1)).astype(np.uint8)).save("samples.png")
    return {
        "nats": run.score("test", samples=20).numbers()["nll"],
        "error of reconstructions": float(np.abs(again - seen).mean()),
        "error of completions": float(np.abs(found.means - seen)[found.missing].mean()),
        "classes": len(run.data.labels.classes) if run.data.labels else 0,
    }


if __name__ == "__main__":
    given = sys.argv[1:]
    for what, value in main(*given[:1], *map(int, given[1:])).items():
        print(f"{what:26} {value:.3f}")
