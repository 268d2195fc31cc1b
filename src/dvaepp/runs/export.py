"""A run's networks as ONNX, for programs without torch."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dvaepp.errors import InputError
from dvaepp.models.base import Model, measuring, unchecked
from dvaepp.models.feedforward import FeedForwardVAE
from dvaepp.runs.run import Run
from dvaepp.storage import replacing

Part = Literal["encoder", "decoder"]
_CLOSE = 1e-3
"""How far onnxruntime's numbers may be from torch's, relative to the largest."""


def export(run: Run, path: Path, part: Part = "encoder") -> None:
    """Write a network as ONNX, in float32, of batches of any size; InputError where it cannot be, or comes out other.

    The encoder takes x (n, pixels) as the likelihood does, an input `x`, and gives `logits` of q(z = 1 | x) (n, bits),
    from the likelier bits before, of normal variables `means`; the decoder takes bits `z` (n, bits) and gives `mean`,
    that of p(x | z). What onnxruntime makes of the file is compared with torch before it takes its name.
    """
    runtime = _onnxruntime()
    model, pixels, bits = run.model.cpu(), math.prod(run.shape), sum(run.recipe.model.groups)
    if part == "decoder" and not isinstance(model, FeedForwardVAE):
        raise InputError(
            f"the decoder of {run.folder} draws local variables, and is no function of codes; its encoder is"
        )
    network: nn.Module
    if part == "encoder":
        network, given, size, out = _Encoder(model), "x", pixels, "means" if run.normal else "logits"
    else:
        network, given, size, out = _Decoder(model), "z", bits, "mean"
    x = torch.rand(5, size).round()
    how: Any = {"dynamic_shapes": {given: {0: torch.export.Dim.DYNAMIC}}, "input_names": [given], "output_names": [out]}
    with measuring(model, 0), unchecked(), _quietly():
        program: Any = torch.onnx.export(network, (x,), dynamo=True, verbose=False, **how)
        expected = network(x[:3])
    with replacing(path) as temporary:
        program.save(str(temporary))
        found = torch.from_numpy(runtime.InferenceSession(str(temporary)).run(None, {given: x[:3].numpy()})[0])
        if not torch.allclose(found, expected, atol=_CLOSE * float(expected.abs().max()), rtol=_CLOSE):
            raise InputError(
                f"onnxruntime gives other numbers than torch for the {part} of {run.folder}; nothing is kept"
            )


class _Encoder(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the code."""
        return self.model.code(x)


class _Decoder(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor) -> Tensor:
        """The mean of p(x | z)."""
        mean: Tensor = self.model.decode(z).mean
        return mean


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what torch's exporter says of itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _onnxruntime() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError("export needs onnx, onnxscript and onnxruntime; pip install 'dvaepp[onnx]'") from None
    return onnxruntime
