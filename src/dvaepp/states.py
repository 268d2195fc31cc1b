"""What a state dict says in words, as JSON in tensors: labels of bits, and the extra state of modules."""

from __future__ import annotations

import json
import operator
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from dvaepp.errors import InputError

EXTRA_STATE = "_extra_state"
"""What torch calls a module's extra state in a state dict."""


def json_tensor(value: Any) -> UInt8[Tensor, " bytes"]:
    """A value as JSON in bytes, for state dicts, which hold tensors alone; what JSON has not as it prints itself."""
    return torch.frombuffer(bytearray(json.dumps(value, default=_plain).encode()), dtype=torch.uint8)


def _plain(value: Any) -> Any:
    """A number of numpy's, or a whole one of any kind, as Python's; else its text, that of a set's members sorted."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, frozenset):
        return {"frozenset": sorted(json.dumps(member, default=_plain) for member in value)}
    try:
        return operator.index(value)
    except TypeError:
        return {type(value).__name__: repr(value)}


def from_json_tensor(tensor: Tensor, what: str) -> Any:
    """The value that `json_tensor` was given; InputError, naming `what` was expected, where there is none."""
    try:
        if tensor.dtype == torch.uint8:
            return json.loads(bytes(tensor.cpu().numpy()))
    except (ValueError, RecursionError):
        pass
    raise InputError(f"a state dict is damaged: it does not hold {what}")


def labels_tensor(labels: Sequence[Hashable]) -> UInt8[Tensor, " bytes"]:
    """Names of bits as `json_tensor`: whole numbers, texts and tuples stay apart."""
    return json_tensor(labels)


def in_stored_order(labels: Sequence[Hashable], stored: Tensor) -> tuple[Hashable, ...]:
    """Labels in the order that `labels_tensor` was given; InputError where it was given others."""
    there, here = (from_json_tensor(tensor, "labels of bits") for tensor in (stored, labels_tensor(labels)))
    label = dict(zip(map(json.dumps, here), labels, strict=True))
    names = [json.dumps(name) for name in there] if isinstance(there, list) else []
    if sorted(names) != sorted(label):
        differing = ", ".join(sorted(label.keys() ^ set(names))[:2]) or "some of them twice"
        raise InputError(
            "labels of bits in a state dict must be those of the machine that it is loaded into, in any order: only "
            f"one of the two has {differing}"
        )
    return tuple(label[name] for name in names)


def keep_extra_state(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """A load_state_dict pre-hook: a state dict from before the module had extra state leaves that as it is."""
    state_dict.setdefault(prefix + EXTRA_STATE, module.get_extra_state())
