"""Fill in missing cells of a table: train on whole rows, hide a fifth of the cells of others, compare with means.

python examples/impute.py [wine | breast-cancer | TABLE.csv] [STEPS]
"""

import sys

import numpy as np
import pandas
from sklearn.datasets import load_breast_cancer, load_wine

import dvaepp


def main(name: str = "wine", steps: int = 3000) -> dict[str, float]:
    own = {"wine": load_wine, "breast-cancer": load_breast_cancer}
    table = (
        own[name](as_frame=True).data if name in own else pandas.read_csv(name, skipinitialspace=True, na_values="?")
    )
    table = table.dropna().sample(frac=1, random_state=0)[:12_000]
    held = table[len(table) * 3 // 4 :][:500]
    run = dvaepp.train(
        "quick/directed",
        data=table[: len(table) * 3 // 4],
        steps=steps,
        settings={"model.likelihood": "mixed", "model.groups": [32], "model.hidden": [64], "training.l2": 1e-3},
        progress=False,
    )
    hidden = np.random.RandomState(0).random_sample(held.shape) < 0.2
    found = run.complete(held.mask(hidden), sweeps=500).means
    known, truth = run.examples("train").x.numpy(), run.examples(held).x.numpy()
    named = np.array([column.kind in ("bits", "categories") for column in run.data.schema or ()])
    modes = np.array([np.bincount(column.astype(int)).argmax() for column in np.abs(known).T])
    errors = {}
    for what, guess in (("model", found), ("column means and modes", np.where(named, modes, known.mean(0)))):
        numbers, words = hidden & ~named, hidden & named
        errors[f"numbers, {what}"] = float(np.sqrt((((guess - truth) / known.std(0))[numbers] ** 2).mean()))
        if named.any():
            errors[f"words, {what}"] = float((np.broadcast_to(guess, truth.shape).round() != truth)[words].mean())
    return errors


if __name__ == "__main__":
    given = sys.argv[1:]
    print("Hidden cells: root mean square error of numbers, in standard deviations; share of words that is wrong")
    for what, error in main(*given[:1], *map(int, given[1:])).items():
        print(f"{what:32} {error:.3f}")
