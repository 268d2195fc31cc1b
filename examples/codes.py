"""Binary codes from scikit-learn's interface: what nearest neighbours and a linear classifier make of them.

python examples/codes.py [STEPS] [FOLDER]
"""

import sys

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from dvaepp import data
from dvaepp.sklearn import BinaryAutoencoder


def main(steps: int = 2000, folder: str = "", most: int = 10_000) -> dict[str, float]:
    if folder:  # of pictures by class, or of idx files
        found = data.load(folder, binarise="threshold")
        train, test, known = found.train[:most].numpy(), found.test[:most].numpy(), found.labels
        labels, told = known.train[:most].numpy(), known.test[:most].numpy()
    else:
        bits, target = (load_digits().data > 7).astype(int), load_digits().target
        train, test, labels, told = train_test_split(bits, target, test_size=0.3, random_state=0)
    coder = BinaryAutoencoder(bits=64, steps=steps, random_state=0).fit(train)
    codes, new = coder.transform(train), coder.transform(test)
    near, raw = (KNeighborsClassifier(5, metric="hamming").fit(x, labels) for x in (codes, train))
    linear = LogisticRegression(max_iter=1000).fit(codes, labels)
    return {
        "log p(x), nats": coder.score(test),
        "5 nearest codes": near.score(new, told),
        "5 nearest pictures": raw.score(test, told),
        "linear on codes": linear.score(new, told),
    }


if __name__ == "__main__":
    given = sys.argv[1:]
    for what, value in main(*map(int, given[:1]), *given[1:]).items():
        print(f"{what:20} {value:.3f}")
