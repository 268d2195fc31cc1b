"""Seeds of streams: alike only by chance, also where a generator keeps 32 bits, and the same for ever."""

import itertools
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvaepp import distributed
from dvaepp.randomness import Purpose, stream_seed

PURPOSES: tuple[Any, ...] = get_args(Purpose)
numbers = st.lists(
    st.integers(-(2**70), 2**70) | st.integers(0, 3) | st.sampled_from([2**31, 2**32, 2**64]), max_size=4
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(PURPOSES), numbers, st.sampled_from(PURPOSES), numbers)
def test_different_lists_have_seeds_that_differ_in_their_last_32_bits(
    purpose: Any, parts: list[int], other: Any, others: list[int]
) -> None:
    one, two = stream_seed(purpose, *parts), stream_seed(other, *others)
    assert ((purpose, parts) == (other, others)) == (one % 2**32 == two % 2**32)
    assert 0 <= one < 2**63


@pytest.mark.parametrize(
    ("parts", "others"),
    [
        ((5,), (5, 0)),
        ((), (0,)),
        ((5 + 2**32, 0), (5, 1)),
        ((5, 1, 0), (5, 1)),
        ((0, 100), (100, 0)),
        ((1, 23), (12, 3)),
    ],
)
def test_numbers_are_told_apart_by_place_and_size(parts: tuple[int, ...], others: tuple[int, ...]) -> None:
    assert stream_seed("scores", *parts) % 2**32 != stream_seed("scores", *others) % 2**32


def test_seeds_steps_and_purposes_of_a_whole_grid_have_streams_of_their_own() -> None:
    grid = itertools.product(PURPOSES, (0, 1, 2, 3, 99, 100, 101, 2**31 - 1), (*range(10), 99, 100, 101, 10**6))
    found = [stream_seed(purpose, seed, step) % 2**32 for purpose, seed, step in grid]
    assert len(set(found)) == len(found) > 1500


def test_processes_have_streams_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world", lambda: 8)
    found = []
    for rank in range(8):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        found += [distributed.own_seed(seed) % 2**32 for seed in (0, 1, 2, 7, 2**31 - 1, 2**32, 2**40 + 7)]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("parts", [lambda k: (k, 0), lambda k: (0, k), lambda k: (k, 100 - k)])
def test_neighbouring_streams_are_uniform_and_independent(parts: Any) -> None:
    """The first numbers of 4,000 streams, against the moments of uniform numbers."""
    generator, count = torch.Generator(), 4000
    first = [torch.rand((), generator=generator.manual_seed(stream_seed("batches", *parts(k)))) for k in range(count)]
    x = torch.stack(first).double() - 0.5
    for products, sd in ((x, 12**-0.5), (x**2 - 1 / 12, 180**-0.5), (x[1:] * x[:-1], 1 / 12)):
        assert abs(float(products.mean())) < 5 * sd / len(products) ** 0.5


def test_streams_stay_what_they_are_so_that_runs_can_go_on() -> None:
    assert stream_seed("batches", 0, 0) == 8472344182270230259
    assert stream_seed("scores", 7, 1, 200) == 5007761002190977632
    assert stream_seed("decoded codes") == 5236752065183120052
