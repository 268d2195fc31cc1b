"""Lossless compression of bits by a model of bits, at the length of its bound: bits back (Townsend et al. 2019)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from dvaepp.boltzmann.enumeration import enumerated_log_marginals
from dvaepp.boltzmann.machine import BoltzmannMachine
from dvaepp.errors import InputError
from dvaepp.likelihoods.standard import BernoulliLikelihood
from dvaepp.models.base import Model, measuring
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.numerics import whole
from dvaepp.priors.base import Prior
from dvaepp.priors.boltzmann import BoltzmannPrior
from dvaepp.priors.directed import BernoulliPrior, DirectedPrior

Words = NDArray[np.uint32]
MOST_BITS = 16
"""Of a Boltzmann machine outside its summed-out block: their states are enumerated."""
_BLOCK = 16
"""Examples that go through the networks at a time, always so many, so that they compute the same numbers again."""
_PARTS = 2**16
"""Probabilities are whole numbers of parts of 1, at least one part."""


class BitsBack:
    """A model as a code for examples x of bits: for each, -log2 p(x, z) / q(z | x) bits at one z ~ q(z | x).

    A stack of words holds what has been coded, and some random bits at first. To code x: z is decoded from the stack
    by q(z | x), which takes -log2 q(z | x) bits off it; x is coded by p(x | z), z by p(z). Decoding undoes that. So the
    length is minus the bound of one sample in bits, but for the first bits and the rounding of probabilities to
    multiples of 2^-16.

    Townsend, Bird & Barber, Practical lossless compression with latent variables using bits back coding (2019). The
    entropy coder is constriction's. Raises InputError for a model whose code would not be exact: variables or data that
    are no bits, local variables, and a Boltzmann machine with more than 16 bits outside its summed-out block.

    >>> import dvaepp
    >>> encoder, decoder = dvaepp.HierarchicalEncoder(dvaepp.dense(12, 4)), dvaepp.dense(4, 12)
    >>> code = BitsBack(dvaepp.FeedForwardVAE(encoder, dvaepp.BernoulliPrior(4), decoder, dvaepp.hard))
    >>> x = torch.randint(0, 2, (20, 12), dtype=torch.uint8)
    >>> bool((code.decode(code.encode(x), 20) == x).all())
    True
    """

    def __init__(self, model: Model) -> None:
        if not isinstance(model, FeedForwardVAE) or not isinstance(model.likelihood, BernoulliLikelihood):
            raise InputError("compression takes a feed-forward model of bits x, without local variables")
        self._model, self._factors, self._stream = model, _factors(model.prior), _constriction()
        pixels = model.decode(next(model.parameters()).new_zeros(1, self._factors.bits)).event_shape[0]
        with measuring(model, 0):
            self._sizes = model(next(model.parameters()).new_zeros(2, pixels), None).posterior.sizes
        self.pixels = int(pixels)

    @property
    def start(self) -> Words:
        """The random words that lie on the stack at first, enough for the z of the first block."""
        count = _BLOCK * self._factors.bits // 32 + 64
        words: Words = np.random.RandomState(0).randint(0, 2**32, count, dtype=np.uint32)
        return words

    def encode(self, x: UInt8[Tensor, "n pixels"]) -> Words:
        """The stack once all examples are coded, the last on top; InputError for other values than 0 and 1."""
        if x.ndim != 2 or x.shape[1] != self.pixels or not bool(((x == 0) | (x == 1)).all()):
            raise InputError(f"x must be bits (n, {self.pixels}), not of shape {tuple(x.shape)}")
        coder = self._stream.stack.AnsCoder(self.start)
        with self._exactly():
            for block in torch.split(x, _BLOCK):
                rows = self._padded(block)
                z = rows.new_zeros(_BLOCK, self._factors.bits)
                for group in self._groups():
                    z[: len(block), group] = self._pop(coder, self._posterior(rows, z)[: len(block), group])
                self._push(coder, block, self._likelihood(z)[: len(block)])
                for place in reversed(range(len(self._factors.groups))):
                    group = self._factors.groups[place]
                    self._push(coder, z[: len(block), group], self._factors.logits(z, place)[: len(block)])
        words: Words = coder.get_compressed()
        return words

    def decode(self, words: Words, n: int) -> UInt8[Tensor, "n pixels"]:
        """The n examples of a stack that `encode` gave; InputError where it is none of this model's."""
        coder = self._stream.stack.AnsCoder(words)
        found: list[Tensor] = []
        with self._exactly():
            for start in reversed(range(0, whole("n", n), _BLOCK)):
                count = min(_BLOCK, n - start)
                z = next(self._model.parameters()).new_zeros(_BLOCK, self._factors.bits)
                for place, group in enumerate(self._factors.groups):
                    z[:count, group] = self._pop(coder, self._factors.logits(z, place)[:count]).to(z)
                block = self._pop(coder, self._likelihood(z)[:count])
                rows, known = self._padded(block), z.clone()
                for group in reversed(self._groups()):
                    known[:, group] = 0
                    logits = self._posterior(rows, known)[:count, group]
                    self._push(coder, z[:count, group], logits)
                found.append(block.to(torch.uint8))
        if not np.array_equal(coder.get_compressed(), self.start):
            raise InputError("these words are no examples that this model has coded: they do not end where it began")
        return torch.cat(found[::-1])

    def _groups(self) -> list[slice]:
        ends = np.cumsum(self._sizes).tolist()
        return [slice(end - size, end) for end, size in zip(ends, self._sizes, strict=True)]

    def _posterior(self, x: Tensor, z: Tensor) -> Tensor:
        """Logits of q(z_k | x, z_<k)."""
        return self._model.encoder.logits(x, z)  # type: ignore[operator, no-any-return]

    def _likelihood(self, z: Tensor) -> Tensor:
        """Logits of p(x | z)."""
        law: Any = self._model.decode(z)
        logits: Tensor = law.base_dist.logits
        return logits

    def _padded(self, block: Tensor) -> Tensor:
        rows = next(self._model.parameters()).new_zeros(_BLOCK, self.pixels)
        rows[: len(block)] = block.to(rows)
        return rows

    def _pop(self, coder: Any, logits: Tensor) -> Tensor:
        """Bits decoded from the stack by their probabilities."""
        bits = coder.decode(self._stream.model.Bernoulli(perfect=False), _probabilities(logits))
        return torch.from_numpy(bits.astype(np.float32)).reshape(logits.shape).to(logits)

    def _push(self, coder: Any, bits: Tensor, logits: Tensor) -> None:
        symbols = bits.to(torch.int32).reshape(-1).cpu().numpy()
        coder.encode_reverse(symbols, self._stream.model.Bernoulli(perfect=False), _probabilities(logits))

    @contextmanager
    def _exactly(self) -> Iterator[None]:
        """With one thread, by which sums are the same each time."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with measuring(self._model, 0):
                yield
        finally:
            torch.set_num_threads(threads)


class _Factors(ABC):
    """p(z) as a product of independent bits, group by group, each given the groups before."""

    bits: int
    groups: list[Any]
    """What each group takes of z: a slice, or the indices of its bits."""

    @abstractmethod
    def logits(self, z: Tensor, place: int) -> Tensor:
        """Those of a group's bits, where z holds those before."""


class _Directed(_Factors):
    def __init__(self, prior: BernoulliPrior | DirectedPrior) -> None:
        self._prior = prior
        first = prior.bias if isinstance(prior, BernoulliPrior) else prior.first.bias
        ends = [first.numel()]
        for network in () if isinstance(prior, BernoulliPrior) else prior.networks:
            with torch.no_grad():
                ends.append(ends[-1] + network(first.new_zeros(2, ends[-1])).shape[-1])
        self.bits = ends[-1]
        self.groups = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def logits(self, z: Tensor, place: int) -> Tensor:
        return self._prior.logits(z)[:, self.groups[place]]


class _Machine(_Factors):
    """The bits outside the summed-out block one by one, those that follow summed over; then the block."""

    def __init__(self, machine: BoltzmannMachine) -> None:
        count = machine.enumerated_bits
        if count > MOST_BITS:
            raise InputError(
                f"compression takes a Boltzmann machine of at most {MOST_BITS} bits outside its largest block, whose "
                f"states are enumerated, and this one has {count}: bernoulli and directed priors have no such limit"
            )
        self._machine, self.bits = machine, machine.bits
        block = machine.slices[machine.summed]
        others = [bit for bit in range(machine.bits) if not block.start <= bit < block.stop]
        self.groups = [*([bit] for bit in others), block]
        with torch.no_grad():
            shares = torch.softmax(enumerated_log_marginals(machine).double(), 0)
        self._shares: list[Tensor] = []
        """For each bit the share of the states of it, the highest digit, and of those before it."""
        for place in reversed(range(count)):
            self._shares.insert(0, shares)
            shares = shares.view(2, 2**place).sum(0)

    def logits(self, z: Tensor, place: int) -> Tensor:
        if place == len(self._shares):
            return self._machine.field(z, self._machine.summed)
        before = z[:, [group[0] for group in self.groups[:place]]].long()
        number = (before << torch.arange(place, device=z.device)).sum(1)
        shares = self._shares[place]
        return (shares[number + 2**place].log() - shares[number].log())[:, None]


def _factors(prior: Prior) -> _Factors:
    if isinstance(prior, BernoulliPrior | DirectedPrior):
        return _Directed(prior)
    if isinstance(prior, BoltzmannPrior):
        return _Machine(prior.machine)
    raise InputError(f"compression takes a prior of bits, not a {type(prior).__name__}")


def _probabilities(logits: Float[Tensor, "n bits"]) -> NDArray[np.float64]:
    """Those of 1, as whole numbers of parts."""
    parts = (torch.sigmoid(logits.double()) * _PARTS).round().clamp(1, _PARTS - 1)
    found: NDArray[np.float64] = (parts / _PARTS).reshape(-1).cpu().numpy()
    return found


def _constriction() -> Any:
    try:
        from constriction import stream
    except ImportError:
        raise InputError("compression needs constriction; pip install 'dvaepp[compression]'") from None
    return stream
