"""Files of compressed examples: what a run's model codes, with what it takes to be sure of what comes out."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dvaepp.data import Examples
from dvaepp.errors import InputError
from dvaepp.evaluation.bits_back import BitsBack
from dvaepp.models.base import Model
from dvaepp.runs.run import Run
from dvaepp.storage import replacing

_MAGIC = b"dvaepp bits back 1\n"


@dataclass(frozen=True)
class Packed:
    """What became of examples: bytes of the file, of the code in it, and of the random bits that it began with."""

    examples: int
    size: int
    code: int
    start: int

    @property
    def bits(self) -> float:
        """Of each example, without the bits at the start, which the code of the first examples takes back."""
        return 8 * (self.code - self.start) / self.examples


def pack(run: Run, examples: Examples, path: Path) -> Packed:
    """Write examples of bits in the code of a run's model; InputError where it has none that is exact, or for grey."""
    if examples.drawn:
        raise InputError("compression is of bits, without loss, and these are bits drawn from grey")
    code = BitsBack(run.model)
    words = code.encode(examples.x.to(torch.uint8))
    payload = words.astype("<u4").tobytes()
    header = {
        "model": model_digest(run.model),
        "examples": len(examples.x),
        "shape": list(examples.shape),
        "bytes": len(payload),
        "crc32": zlib.crc32(payload),
    }
    with replacing(path) as temporary:
        temporary.write_bytes(_MAGIC + json.dumps(header).encode() + b"\n" + payload)
    return Packed(len(examples.x), path.stat().st_size, len(payload), code.start.nbytes)


def unpack(run: Run, path: Path) -> NDArray[np.uint8]:
    """The examples (n, ...) in a file that `pack` wrote; InputError where it is cut short, or another model's."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    head, _, payload = raw.removeprefix(_MAGIC).partition(b"\n")
    try:
        header: Any = json.loads(head) if raw.startswith(_MAGIC) else None
        digest, count, shape = header["model"], int(header["examples"]), tuple(map(int, header["shape"]))
        size, crc = int(header["bytes"]), int(header["crc32"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is no file of compressed examples, as `dvaepp compress` writes") from None
    if len(payload) != size or zlib.crc32(payload) != crc:
        raise InputError(f"{path} is damaged or cut short: it holds {len(payload):,} bytes of code, expected {size:,}")
    if digest != model_digest(run.model):
        raise InputError(f"{path} was compressed with another model than that of {run.folder}")
    code = BitsBack(run.model)
    if math.prod(shape) != code.pixels or count < 1:
        raise InputError(f"{path} is damaged: its header speaks of {count} examples of shape {shape}")
    found = code.decode(np.frombuffer(payload, "<u4").astype(np.uint32), count)
    return found.reshape(count, *shape).numpy()


def model_digest(model: Model) -> str:
    """SHA-256 over a model's parameters and buffers, but for the chains of its prior."""
    chains = {f"prior.{name}" for name, _ in model.prior.named_buffers(recurse=False)}
    total = hashlib.sha256()
    for name, tensor in sorted((*model.named_parameters(), *model.named_buffers()), key=itemgetter(0)):
        if name not in chains:
            total.update(name.encode() + _bytes(tensor))
    return total.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()
