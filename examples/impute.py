"""Fill in missing cells of a table: train on whole rows, hide a fifth of the cells of others, compare with means.

python examples/impute.py [wine | breast-cancer] [STEPS]
"""

import sys

import numpy as np
from sklearn.datasets import load_breast_cancer, load_wine

import dvaepp


def main(name: str = "wine", steps: int = 3000) -> dict[str, float]:
    table = {"wine": load_wine, "breast-cancer": load_breast_cancer}[name](as_frame=True).data.astype(float)
    table = table.sample(frac=1, random_state=0)
    known, held = table[: len(table) * 3 // 4], table[len(table) * 3 // 4 :]
    run = dvaepp.train(
        "quick/directed",
        data=known,
        steps=steps,
        settings={"model.likelihood": "normal", "model.groups": [32], "model.hidden": [64], "training.l2": 1e-3},
        progress=False,
    )
    hidden = np.random.RandomState(0).random_sample(held.shape) < 0.2
    found = run.complete(held.mask(hidden), sweeps=500)
    sd = known.std().to_numpy()
    errors = {"model": found.means - held.to_numpy(), "column means": known.mean().to_numpy() - held.to_numpy()}
    return {what: float(np.sqrt(((error / sd)[hidden] ** 2).mean())) for what, error in errors.items()}


if __name__ == "__main__":
    given = sys.argv[1:]
    for what, error in main(*given[:1], *map(int, given[1:])).items():
        print(f"{what:14} root mean square error of hidden cells, in standard deviations: {error:.3f}")
