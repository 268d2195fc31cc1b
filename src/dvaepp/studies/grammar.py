"""What a study is asked for in words: values of a setting, seeds, a shard, hours."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from dvaepp.errors import InputError
from dvaepp.recipes.formats import MOVED
from dvaepp.recipes.recipe import json_or_text

_MOST_SEEDS = 10_000


def axes(settings: Iterable[str]) -> dict[str, list[Any]]:
    """What `a=1,2` each says: the values of a setting, JSON or else text, in the order given.

    A comma within brackets or quotes belongs to a value. InputError for a setting without a value, or named twice.

    >>> axes(["model.smoothing=exponential,logistic", "training.beta=[5,14],[8,18]"])
    {'model.smoothing': ['exponential', 'logistic'], 'training.beta': [[5, 14], [8, 18]]}
    """
    found: dict[str, list[Any]] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = MOVED.get(name.strip(), name.strip())
        values = [each.strip() for each in _separated(text)]
        if not (name and equals and all(values)):
            raise InputError(
                f"--set takes name=value or name=value,value,..., such as training.l2=0,1e-4, not {setting!r}"
            )
        if name in found:
            raise InputError(f"--set names {name} twice: its values stand in one, such as {name}=1,2")
        found[name] = [json_or_text(each) for each in values]
    return found


def _separated(text: str) -> list[str]:
    """The parts of a text between commas that lie outside brackets and double quotes."""
    parts, depth, quoted, before = [""], 0, False, ""
    for letter in text:
        quoted ^= letter == '"' and before != "\\"
        depth += 0 if quoted else (letter in "[{(") - (letter in ")}]")
        if letter == "," and depth <= 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
        before = letter
    return parts


def seeds(text: str) -> tuple[int, ...]:
    """Seeds: 5 is 0 to 4, 3-5 is 3, 4 and 5, and 0,2 those two; InputError for anything else.

    >>> seeds("3"), seeds("3-5"), seeds("0,4-5")
    ((0, 1, 2), (3, 4, 5), (0, 4, 5))
    """
    if re.fullmatch(r"[0-9]{1,9}", text):
        return _seeds(range(int(text)), text)
    parts = [re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part.strip()) for part in text.split(",")]
    ranges = [range(int(part[1]), int(part[2] or part[1]) + 1) for part in parts if part is not None]
    if len(ranges) < len(parts) or not all(ranges):
        raise _no_seeds(text)
    return _seeds((seed for each in ranges for seed in each), text)


def _seeds(given: Iterable[int], text: str) -> tuple[int, ...]:
    found = tuple(seed for _, seed in zip(range(_MOST_SEEDS + 1), given, strict=False))
    if not found or len(found) > _MOST_SEEDS or len({*found}) < len(found):
        raise _no_seeds(text)
    return found


def _no_seeds(text: str) -> InputError:
    return InputError(
        f"--seeds takes how many, from 1 to {_MOST_SEEDS:,}, or which, once each, such as 3-5 or 0,2, not {text!r}"
    )


def shard(text: str) -> tuple[int, int]:
    """The part i of n, counted from 1; InputError for anything else.

    >>> shard("3/8")
    (3, 8)
    """
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"--shard takes i/n, the part i of n from 1/n to n/n, such as 3/8, not {text!r}")
    return int(found[1]), int(found[2])


def budget(text: str) -> float:
    """The seconds of these hours; InputError unless they are a positive number.

    >>> budget("0.5")
    1800.0
    """
    try:
        seconds = 3600 * float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InputError(f"--budget takes a positive number of hours, such as 7.5, not {text!r}")
    return seconds
