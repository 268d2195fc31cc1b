"""A trained run in a program: arrays in, arrays out."""

from __future__ import annotations

import math
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor

from dvaepp.boltzmann.log_partition import LogPartition
from dvaepp.data import Dataset, Examples
from dvaepp.data.arrays import channels_last
from dvaepp.data.columns import cells_of
from dvaepp.data.given import as_array
from dvaepp.data.kinds import DTYPES
from dvaepp.data.reading import Reading
from dvaepp.errors import InputError
from dvaepp.evaluation import completion
from dvaepp.evaluation.by_column import distortion_by_column
from dvaepp.evaluation.clamping import clamped_sample
from dvaepp.evaluation.interpolation import by_flips, straight
from dvaepp.evaluation.likelihood import score
from dvaepp.evaluation.scores import Scores
from dvaepp.models.base import Model, measuring
from dvaepp.models.convolutional import ConvolutionalVAE
from dvaepp.numerics import whole
from dvaepp.priors.normal import NormalPrior
from dvaepp.randomness import stream_seed
from dvaepp.recipes.recipe import Recipe
from dvaepp.runs.bundle import pushed
from dvaepp.runs.completed import Completed
from dvaepp.runs.folder import RunFolder, TrainedModel
from dvaepp.runs.inputs import check_categories, clamped_bits, codes_in, examples_in, filled, gapped_in, gaps_in
from dvaepp.runs.located import located
from dvaepp.smoothings.binary import hard
from dvaepp.storage import AnyPath
from dvaepp.training.journal import Metrics

Array = NDArray[Any]
_SPLITS = ("train", "valid", "test")
_PIECE = 1000
"""Examples that go through the model at a time."""


def load_run(
    folder: AnyPath,
    *,
    last: bool = False,
    device: str | None = None,
    data: AnyPath | None = None,
    data_dir: AnyPath | None = None,
    graph: AnyPath | None = None,
) -> Run:
    """The run in a folder, with the model that is best by validation, or the `last` one; on the device of its training.

    "hf://user/name" and "hf://user/name@revision" are on the Hugging Face Hub, "digits-rbm" and "digits-dvaepp" come
    with the package; a folder that is there comes before either. Data and a graph's file of edges that were moved are
    at `data`, a path or a data set's name, in `data_dir`, and at `graph`. InputError where there is no such run, or no
    model in it, and as `hub.fetched`.
    """
    paths = {"data_at": data, "data_dir": data_dir, "graph": graph}
    given = {name: None if path is None else str(path) for name, path in paths.items()}
    found = RunFolder(located(folder), given["data_at"], given["data_dir"], given["graph"])
    return Run(found, found.model(last, device))


class Run:
    """What came of a training: its model, and what one does with it; `train` and `load_run` give it.

    Examples go in as `data.from_arrays` takes them, in whatever holds arrays, (n, ...) of the run's shape or flat, or
    as a path, or as "train", "valid" or "test" of the run's own data; grey becomes bits as in valid and test. numpy
    arrays come out. All is of the binary model, and a `seed` decides what is drawn.

    >>> import tempfile, dvaepp
    >>> x = np.random.RandomState(0).randint(0, 2, (100, 8))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = dvaepp.train("quick/directed", data=x, size="tiny", steps=20, out=f"{folder}/run", progress=False)
    ...     codes = run.encode(x[:5], hard=True)
    ...     codes.shape, run.decode(codes).shape, run.sample(3).shape, run.score(x[:5]).examples.elbo.shape
    ((5, 400), (5, 8), (3, 8), torch.Size([5]))
    """

    def __init__(self, folder: RunFolder, trained: TrainedModel) -> None:
        self._folder, self._trained = folder, trained
        self.model: Model = trained.model
        """In evaluation mode."""
        self.step: int = trained.step
        """After how many steps."""
        self.shape: tuple[int, ...] = trained.shape
        """Of one example."""
        self.reading: Reading = trained.reading
        """How other data are read as examples of the run."""
        self.recipe: Recipe = folder.recipe
        self.seed: int = folder.seed
        self.folder: Path = folder.folder

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}: {self.recipe.name}, seed {self.seed}, step {self.step})"

    @cached_property
    def data(self) -> Dataset:
        """What it was trained on; InputError where that is gone, or is other data now."""
        return self._folder.data_for(self._trained)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the values of x: a table's columns, or x_1, x_2, .."""
        names, count = self.reading.names or (), math.prod(self.shape)
        return names if len(set(names)) == count else tuple(f"x_{place}" for place in range(1, count + 1))

    @property
    def log_partition(self) -> LogPartition:
        """log Z of the prior as the last validation found it; `evaluate` finds it anew."""
        return self.model.prior.known_log_partition()

    def metrics(self) -> list[Metrics]:
        """What training logged, line by line."""
        return self._folder.metrics()

    def push_to_hub(self, name: str, *, private: bool = False) -> str:
        """Put the run on the Hugging Face Hub as "user/name", with a card; its web address.

        There go the best model by validation, run.json, metrics, the latest scores of that model and a picture of
        samples: no data, no checkpoint to train on from. A repository that is there gets a new revision. InputError
        without a validated model or a login, and where the Hub refuses or cannot be reached.
        """
        return pushed(self._folder, name, private)

    def encode(self, x: Any, *, hard: bool = False, seed: int = 0) -> Array:
        """q(z = 1 | x) of every bit (n, bits), group after group, from the likelier bits before; of normals the means.

        `hard` gives the likelier bits themselves, uint8. InputError for it where global variables are normal.
        """
        return self.coded(x, hard=hard, seed=seed)[1]

    def coded(self, x: Any, *, hard: bool = False, seed: int = 0) -> tuple[Examples, Array]:
        """`examples(x)`, and what `encode` gives of them."""
        if hard and self.normal:
            raise InputError(f"the global variables of {self.folder} are normal: they have no bits, leave out hard")
        with measuring(self.model, stream_seed("codes", seed)):
            examples = self.examples(x)
            code = torch.cat([self.model.code(piece).cpu() for piece in self._pieces(examples.x.float())])
        if hard:
            return examples, (code > 0).to(torch.uint8).numpy()
        return examples, np.asarray(code if self.normal else torch.sigmoid(code))

    def decode(self, codes: Any, *, local: Any = (), seed: int = 0) -> Array:
        """The mean of p(x | z) for each code (n, bits), which are rounded to bits.

        Local variables, if any, are those of `local`, as `local_codes` gives them, and else drawn.
        """
        z, groups = codes_in(codes, sum(self.recipe.model.groups), self.normal), list(local)
        if not groups:
            return self._shaped(self._means(z, "decoded codes", seed))
        model = self._convolutional()
        h = [torch.from_numpy(as_array(group, "local").astype(np.float32)) for group in groups]
        if any(len(group) != len(z) for group in h):
            raise InputError(
                f"local holds groups of {[len(group) for group in h]} examples, expected {len(z)} as codes"
            )
        pieces = zip(self._pieces(z), *map(self._pieces, h), strict=True)
        with measuring(model, stream_seed("decoded codes", seed)):
            return self._shaped(torch.cat([model.decode(piece, rest).mean.cpu() for piece, *rest in pieces]))

    def local_codes(self, x: Any, *, seed: int = 0) -> tuple[Array, ...]:
        """E[h_j | x, z, h_<j] of every group of local variables (n, variables, height, width), z being the hard code.

        Of local bits the likelier ones. With them `decode` gives a reconstruction; InputError where there are none.
        """
        model = self._convolutional()
        examples, codes = self.coded(x, hard=not self.normal, seed=seed)
        pieces = zip(self._pieces(examples.x.float()), self._pieces(torch.from_numpy(codes).float()), strict=True)
        with measuring(model, 0):
            found = [[h.cpu() for h in model.local_code(*piece)] for piece in pieces]
        return tuple(np.asarray(torch.cat(each)) for each in zip(*found, strict=True))

    def _convolutional(self) -> ConvolutionalVAE:
        if not isinstance(self.model, ConvolutionalVAE):
            raise InputError(f"the model of {self.folder} has no local variables")
        return self.model

    def reconstruct(self, x: Any, *, seed: int = 0) -> Array:
        """The mean of p(x | z, h) for one draw of q(z, h | x) each."""
        with measuring(self.model, stream_seed("reconstructions", seed)):
            means = [self.model(piece, hard).likelihood.mean.cpu() for piece in self._pieces(self._examples(x))]
        return self._shaped(torch.cat(means))

    def score(self, x: Any = "test", *, samples: int | None = None, seed: int = 0) -> Scores:
        """Importance-weighted log-likelihoods, one for each example, by as many samples as the recipe takes.

        They rest on `log_partition`; `dvaepp evaluate` finds log Z with more care. `Scores.numbers()` has their means.
        """
        samples = self.recipe.evaluation.samples if samples is None else samples
        return score(self.model, self._examples(x), samples, seed=seed)

    def distortion_by_column(self, x: Any = "test", *, seed: int = 0) -> dict[str, float]:
        """-E_q(z | x)[log p(x_c | z)] of each column by name, nats, a mean over x by one draw of z each."""
        found = distortion_by_column(self.model, self._examples(x), seed=seed)
        return dict(zip(self.columns, found.tolist(), strict=True))

    def sample(self, n: int, *, means: bool = False, clamp: Any = None, seed: int = 0) -> Array:
        """x ~ p(x | z) p(z), as the data come; or the `means` of p(x | z) of such z.

        `clamp` gives bits of z, (bits,) or (n, bits), and NaN where they are free (`evaluation.clamping`).
        """
        with measuring(self.model, stream_seed("samples", seed)):
            if clamp is None:
                z = self.model.prior.sample(whole("n", n))
            else:
                bits = clamped_bits(clamp, whole("n", n), sum(self.recipe.model.groups))
                given = torch.from_numpy(bits).to(self._trained.device)
                z = clamped_sample(self.model.prior, given, ~given.isnan())
            laws = [self.model.decode(piece) for piece in torch.split(z, _PIECE)]
            drawn = torch.cat([(law.mean if means else law.sample()).cpu() for law in laws])
        return self._shaped(drawn) if means else self._as_data(drawn)

    def complete(self, x: Any, missing: Any = None, *, sweeps: int = 200, seed: int = 0) -> Completed:
        """Missing values drawn given those that are there, by a chain of so many sweeps (`evaluation.completion`).

        Missing is what is True in `missing`, of the shape of x or of one example, or white in the picture at that path;
        without it what is NaN in x, or no number in a table's file. Of grey, what is there is drawn to bits first.
        """
        own = isinstance(x, str) and x in _SPLITS
        given = self._shaped(self.examples(x).x) if own else gapped_in(x, self.reading)
        gaps = gaps_in(given, missing, self.shape)
        observed = self._examples(filled(given, gaps, self.reading))
        gaps = channels_last(gaps, (1, 3))
        holes = self._pieces(torch.from_numpy(gaps.reshape(len(gaps), -1)))
        drawn = [
            completion.complete(self.model, piece, hole, sweeps, seed=stream_seed("completion", seed, place))
            for place, (piece, hole) in enumerate(zip(self._pieces(observed), holes, strict=True))
        ]
        samples, means = (torch.cat([getattr(each, name).cpu() for each in drawn]) for name in ("sample", "mean"))
        acceptance = float(torch.cat([each.acceptance for each in drawn]).mean())
        shaped = self._as_data(samples), self._shaped(means), gaps.reshape(-1, *self.shape)
        return Completed(*shaped, acceptance)

    def cells(self, x: Any) -> dict[str, Array]:
        """Examples (n, ...), such as samples, by column, in the types that these had: categories are words again.

        `pandas.DataFrame(run.cells(x))` is a table like that of the training.
        """
        values, known = as_array(x, "x"), self.reading.known
        if values[:1].size != math.prod(self.shape) or values.dtype.kind not in "buif":
            raise InputError(f"x is {values.dtype} of shape {values.shape}, expected numbers (n, {self.shape})")
        values = values.reshape(len(values), -1)
        return dict(zip(self.columns, values.T, strict=True)) if known is None else cells_of(values, known)

    def interpolate(self, first: Any, second: Any, *, steps: int = 8, seed: int = 0) -> Array:
        """Means of p(x | z) on the way from the codes of some examples to those of others, (n, steps, ...).

        The bits in which two codes differ are flipped in a random order, equally many at each step. Normal variables
        go in a straight line.
        """
        steps = whole("steps", steps)
        ends = [torch.from_numpy(self.encode(x, hard=not self.normal)).float() for x in (first, second)]
        if ends[0].shape != ends[1].shape or steps < 2:
            raise InputError(
                f"interpolate takes as many examples as their partners and 2 steps or more, not {len(ends[0])}, "
                f"{len(ends[1])} and {steps}"
            )
        first_code, last = ends
        path = straight(first_code, last, steps) if self.normal else by_flips(first_code, last, steps, seed)
        means = self._means(path.transpose(0, 1).flatten(0, 1), "interpolation", seed)
        return self._shaped(means).reshape(len(ends[0]), steps, *self.shape)

    @property
    def normal(self) -> bool:
        """Whether global variables are normal, not bits."""
        return isinstance(self.model.prior, NormalPrior)

    def examples(self, x: Any) -> Examples:
        """Examples as the model takes them, with their rows and, where they are known, labels; else InputError."""
        if isinstance(x, str) and x in _SPLITS:
            with measuring(self.model, stream_seed("codes", 0)):  # of grey, train is drawn
                return self.data.examples(x)
        found = examples_in(x, self.reading, self.shape)
        check_categories(found.x, self.model, "x" if not isinstance(x, str | PathLike) else str(x))
        return found

    def _examples(self, given: Any) -> Float[Tensor, "n pixels"]:
        return self.examples(given).x.float().to(self._trained.device)

    def _means(self, codes: Float[Tensor, "n bits"], purpose: Any, seed: int) -> Float[Tensor, "n pixels"]:
        with measuring(self.model, stream_seed(purpose, seed)):
            return torch.cat([self.model.decode(piece).mean.cpu() for piece in self._pieces(codes)])

    def _pieces(self, rows: Tensor) -> list[Tensor]:
        return [piece.to(self._trained.device) for piece in torch.split(rows, _PIECE)]

    def _shaped(self, values: Shaped[Tensor, "n pixels"]) -> Array:
        return np.asarray(values.reshape(-1, *self.shape))

    def _as_data(self, drawn: Float[Tensor, "n pixels"]) -> Array:
        """Draws in the dtype of the data's kind."""
        return self._shaped(drawn.to(DTYPES[self.recipe.model.likelihood.data_kind]))
