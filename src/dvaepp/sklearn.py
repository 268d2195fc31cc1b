"""A binary autoencoder as a scikit-learn transformer and density estimator."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dvaepp.data import Dataset
from dvaepp.data.kinds import DTYPES, check_resolved
from dvaepp.errors import InputError
from dvaepp.models.base import Model, measuring
from dvaepp.numerics import plain, whole
from dvaepp.objectives.importance import importance_weighted
from dvaepp.randomness import stream_seed
from dvaepp.recipes import catalogue
from dvaepp.recipes.build import spec_of
from dvaepp.recipes.recipe import Recipe, override
from dvaepp.smoothings.binary import hard
from dvaepp.training.trainer import Trainer

try:
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise InputError("dvaepp.sklearn needs scikit-learn; pip install 'dvaepp[sklearn]'") from None

Array = NDArray[Any]
_PRIORS = ("rbm", "bernoulli", "directed")


class BinaryAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A variational autoencoder with `bits` binary latent variables, fit by the paper's joint bound (Eq. 4, 6).

    `prior` is "rbm", a restricted Boltzmann machine of two halves, "bernoulli" or "directed"; `hidden` are the tanh
    layers of encoder and decoder. Columns that hold 0 and 1 alone have a Bernoulli likelihood, others the normal one,
    all of a table alike. `steps` of Adam at `learning_rate` see `batch` rows each. What is fit is in double precision.

    transform(X) gives codes (n, bits): the likelier bits of q(z | x), or with output="probabilities" q(z = 1 | x).
    score_samples(X) gives importance-weighted log p(x), nats, by `samples` draws, which are the same for every row, so
    that a row's score depends on nothing else. sample(n) draws x ~ p(x | z) p(z).

    >>> X = np.random.RandomState(0).randint(0, 2, (60, 8))
    >>> codes = BinaryAutoencoder(bits=6, steps=20, random_state=0).fit_transform(X)
    >>> codes.shape, np.unique(codes).tolist()
    ((60, 6), [0.0, 1.0])
    """

    def __init__(
        self,
        bits: Any = 64,
        prior: Any = "rbm",
        hidden: Any = (128,),
        steps: Any = 500,
        batch: Any = 100,
        learning_rate: Any = 3e-3,
        output: Any = "bits",
        samples: Any = 100,
        random_state: Any = None,
    ) -> None:  # scikit-learn asks for settings of any type, which fit refuses
        self.bits = bits
        self.prior = prior
        self.hidden = hidden
        self.steps = steps
        self.batch = batch
        self.learning_rate = learning_rate
        self.output = output
        self.samples = samples
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> BinaryAutoencoder:  # noqa: N803
        """Train on rows X (n, columns), two at least; y is not looked at."""
        if self.output not in ("bits", "probabilities"):
            raise InputError(f"output is {self.output!r}, expected bits or probabilities")
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)  # noqa: N806
        self.binary_ = bool(((X == 0) | (X == 1)).all())
        if not self.binary_:
            check_resolved(X, "X")
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        data = _held(X, "bits" if self.binary_ else "real")
        recipe = self._recipe(len(X))
        with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(stream_seed("weights", self._seed))
            model, objective = recipe.build(spec_of(data))
            Trainer(model.train(), objective, data, recipe.training, folder, self._seed).fit()
            self.model_: Model = model.eval()
            self._in_double()
        self._n_features_out = self.bits
        return self

    def transform(self, X: Any) -> Array:  # noqa: N803
        """Codes (n, bits) of rows, float64."""
        with measuring(self._fitted(), 0):
            logits = self.model_.code(self._rows(X))
        codes = torch.sigmoid(logits) if self.output == "probabilities" else (logits > 0).double()
        return np.asarray(codes)

    def inverse_transform(self, X: Any) -> Array:  # noqa: N803
        """The mean of p(x | z) for codes (n, bits), which are rounded to bits."""
        model, codes = self._fitted(), np.asarray(X, dtype=np.float64)
        if codes.ndim != 2 or codes.shape[1] != self.bits or not ((codes >= 0) & (codes <= 1)).all():
            raise InputError(f"codes of shape {codes.shape} must be (n, {self.bits}), bits or probabilities")
        with measuring(model, 0):
            return np.asarray(model.decode(torch.from_numpy(codes).round()).mean)

    def score_samples(self, X: Any) -> Array:  # noqa: N803
        """log (1/K) sum_k p(x, z_k) / q(z_k | x) of each row (n,), nats; of real columns a density's."""
        model, x, count = self._fitted(), self._rows(X), whole("samples", self.samples)
        with measuring(model, stream_seed("scores", self._seed)):
            noise = torch.rand(2, count, self.bits, dtype=torch.float64)
            pieces = torch.split(x, max(1, 10_000 // count))
            scores = [importance_weighted(model, p, count, hard, noise=noise.repeat(1, len(p), 1)) for p in pieces]
        return np.asarray(torch.cat(scores))

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """The mean of score_samples(X)."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1) -> Array:
        """Rows (n, columns) drawn from the model, the same ones each time."""
        with measuring(self._fitted(), stream_seed("samples", self._seed)):
            return np.asarray(self.model_.generate(whole("n_samples", n_samples)))

    def _recipe(self, rows: int) -> Recipe:
        """quick/rbm or quick/directed with what was chosen; log Z is found once, after the last step."""
        bits = whole("bits", self.bits)
        if self.prior not in _PRIORS:
            raise InputError(f"prior is {self.prior!r}, expected one of {', '.join(_PRIORS)}")
        halves = self.prior == "rbm" and bits > 1
        settings = {
            "model.groups": [bits - bits // 2, bits // 2] if halves else [bits],
            "model.prior": "rbm" if halves else "directed" if self.prior == "directed" else "bernoulli",
            "model.hidden": list(self.hidden) if isinstance(self.hidden, Iterable) else self.hidden,
            "model.likelihood": "bernoulli" if self.binary_ else "normal",
            **({"model.prior.sampler": "gibbs", "model.prior.sampler.num_chains": 100} if halves else {}),
            "training.steps": whole("steps", self.steps),
            "training.batch": min(whole("batch", self.batch), rows),
            "training.learning_rate": [[1.0, self.learning_rate]],
            "training.validate_every": self.steps,
            "training.log_every": self.steps,
            "training.validation_samples": 1,
            "training.validation_examples": 1,
        }
        changes = [f"{name}={json.dumps(value, default=plain)}" for name, value in settings.items()]
        return override(catalogue.find("quick/rbm"), changes, "BinaryAutoencoder")

    def _in_double(self) -> None:
        """The model in double precision, and log Z of its parameters there."""
        torch.manual_seed(stream_seed("log Z of the evaluation", self._seed))
        with torch.no_grad():
            self.model_.double().prior.estimate_log_partition(temperatures=300, chains=200, repeats=3)

    def _fitted(self) -> Model:
        check_is_fitted(self, "model_")
        return self.model_

    def _rows(self, X: Any) -> Tensor:  # noqa: N803
        """Rows as the model takes them; InputError for other numbers than 0 and 1 where it was fit to these."""
        X = validate_data(self, X, dtype=np.float64, reset=False)  # noqa: N806
        if self.binary_ and not ((X == 0) | (X == 1)).all():
            raise InputError("X holds other numbers than 0 and 1, which are all that BinaryAutoencoder was fit to")
        return torch.from_numpy(np.array(X))


def _held(x: Array, kind: Any) -> Dataset:
    """All rows to train on, and one of them where a validation must have some."""
    rows = torch.from_numpy(np.array(x)).to(DTYPES[kind])
    return Dataset("X", (x.shape[1],), rows, rows[:1], rows[:1], dynamic=False, protocol="given to fit", kind=kind)
