"""Columns of several kinds in one table: p(x | zeta) is a product over columns, each under the law of its kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.components.registry import OF_DATA
from dvaepp.errors import InputError
from dvaepp.likelihoods.base import DataSpec, Likelihood, Placement
from dvaepp.likelihoods.standard import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    NormalLikelihood,
    PoissonLikelihood,
)

_Block = tuple[Likelihood, list[int], list[list[int]]]
"""A law, the columns that are under it, and where the parameters of each of these are."""


@dataclass(frozen=True)
class MixedLikelihood(Likelihood):
    """p(x) = prod_c p_c(x_c; parameters_c), a row x of a table being one site and p_c the law of column c's kind.

    `bits`, `real`, `counts` and `categories` say which law each kind has; `columns` are those of the columns in order,
    which a recipe takes from its data. A decoder gives the parameters of one column after the other.

    >>> mixed = MixedLikelihood(columns=(BernoulliLikelihood(), NormalLikelihood(), CategoricalLikelihood(3)))
    >>> mixed.width, mixed(torch.zeros(5, 6)).sample().shape
    (6, torch.Size([5, 3]))
    """

    name: ClassVar[str] = "mixed"
    data_kind: ClassVar[str] = "mixed"
    bits: Likelihood = field(default_factory=BernoulliLikelihood)
    real: Likelihood = field(default_factory=NormalLikelihood)
    counts: Likelihood = field(default_factory=PoissonLikelihood)
    categories: Likelihood = field(default_factory=CategoricalLikelihood)
    columns: tuple[Likelihood, ...] = field(default=(), metadata=OF_DATA)
    _blocks: list[_Block] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for kind in ("bits", "real", "counts", "categories"):
            law: Likelihood = getattr(self, kind)
            if not isinstance(law, Likelihood):
                raise InputError(f"{kind} must be a likelihood, not {law!r}")
            if law.data_kind != kind or law.values != 1:
                raise InputError(
                    f"{kind} must be a likelihood of {kind}, not {law.name!r}, which is of {law.data_kind}"
                )
        object.__setattr__(self, "_blocks", _blocks(self.columns))

    def for_data(self, spec: DataSpec) -> MixedLikelihood:
        """With the law of each of the data's columns."""
        return replace(self, columns=tuple(law.for_data(each) for law, each in self._laws(spec)))

    def placed(self, spec: DataSpec) -> tuple[MixedLikelihood, Placement]:
        """Each column's parameters where its own likelihood places them."""
        laws, places = zip(*(law.placed(each) for law, each in self._laws(spec)), strict=True)
        likelihood = replace(self, columns=laws)
        shift = torch.cat([place.shift for place in places])
        scale = torch.cat([place.scale * torch.ones_like(place.shift) for place in places])
        least = [torch.full_like(p.shift, -math.inf) if p.least is None else p.least for p in places]
        return likelihood, Placement(shift, scale, torch.cat(least))

    def _laws(self, spec: DataSpec) -> Iterator[tuple[Likelihood, DataSpec]]:
        """The law of each column, and what of the data is its own."""
        if len(spec.columns) != len(spec.mean):
            raise InputError("model.likelihood=mixed is for tables of which the kind of each column is known")
        for place, (kind, categories) in enumerate(spec.columns):
            mean, sd = spec.mean[place : place + 1], spec.sd[place : place + 1]
            yield getattr(self, kind), DataSpec((1,), mean, sd, categories)

    @property
    def values(self) -> int:
        """Columns."""
        return len(self.columns)

    @property
    def width(self) -> int:
        """The parameters of all columns; InputError where it has none yet."""
        if not self.columns:
            raise InputError("a mixed likelihood has no columns yet: for_data, or columns=, says which")
        return sum(law.width for law in self.columns)

    @property
    def start(self) -> Float[Tensor, " width"]:
        """The start of each column."""
        return torch.cat([torch.zeros(0), *(law.start for law in self.columns)])

    def of_values(self, count: int) -> tuple[Likelihood, ...]:
        """The law of each column."""
        return self.columns

    def by_value(
        self, parameters: Float[Tensor, "*batch sites width"], x: Float[Tensor, "*batch sites values"]
    ) -> Float[Tensor, "*batch sites values"]:
        """log p(x_c; parameters_c), nats a column."""
        return self._joined(
            lambda law, columns, at: law.log_prob(parameters[..., at], x[..., columns, None])[..., None]
        )

    def log_prob(
        self, parameters: Float[Tensor, "*batch sites width"], x: Float[Tensor, "*batch sites values"]
    ) -> Float[Tensor, "*batch sites"]:
        """sum_c log p(x_c; parameters_c), nats a row."""
        return self.by_value(parameters, x).sum(-1)

    def sample(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """Each column under its law."""
        return self._joined(lambda law, columns, at: law.sample(parameters[..., at]))

    def mean(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """Each column's mean; of categories the likeliest."""
        return self._joined(lambda law, columns, at: law.mean(parameters[..., at]))

    def variance(self, parameters: Float[Tensor, "*batch sites width"]) -> Float[Tensor, "*batch sites values"]:
        """Each column's variance; InputError where there are categories."""
        return self._joined(lambda law, columns, at: law.variance(parameters[..., at]))

    def check(self, x: Tensor) -> None:
        """InputError unless each column holds what its law is of."""
        for law, columns, _ in self._blocks:
            law.check(x[..., columns])

    def _joined(self, of_block: Callable[[Likelihood, list[int], list[list[int]]], Tensor]) -> Tensor:
        """What a function gives of each block (.., n, 1), in the order of the columns."""
        parts = [of_block(*block).squeeze(-1) for block in self._blocks]
        places = [column for _, columns, _ in self._blocks for column in columns]
        return torch.cat(parts, -1)[..., sorted(range(len(places)), key=places.__getitem__)]


def _blocks(laws: tuple[Likelihood, ...]) -> list[_Block]:
    """Columns under one law side by side, so that there are as many calls as laws."""
    starts = list(accumulate((law.width for law in laws), initial=0))
    columns = {law: [place for place, each in enumerate(laws) if each == law] for law in dict.fromkeys(laws)}
    return [
        (law, places, [list(range(starts[place], starts[place] + law.width)) for place in places])
        for law, places in columns.items()
    ]
