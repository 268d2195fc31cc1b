"""What there is to see of a model as images: samples, reconstructions and weights."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.models.base import Model, measuring
from dvaepp.numerics import check_counts
from dvaepp.randomness import stream_seed
from dvaepp.recipes.recipe import Recipe
from dvaepp.smoothings.binary import hard
from dvaepp.storage import AnyPath, replacing

POSITIVE, NEGATIVE = (44, 116, 196), (212, 98, 28)
"""Blue and orange, as `.key` of the page's style has them: they read on white, on black, and to the colour-blind."""
GREY = 128 / 255
"""Between images, as a share of white."""
_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_CELL = 84
"""About how many pixels the longer side of an image takes in a grid, unless it has more."""
_GAP, _GAP_GREY = 2, round(255 * GREY)
_MOST_SIDE, _MOST_PIXELS = 2**14, 2**26
"""What viewers and browsers show of a picture, and Pillow reads back without a warning."""
_PIECE = 500
"""Images decoded at a time."""


def white(recipe: Recipe) -> float:
    """The value of x that is shown white, 0 being black: 255 where x is levels, else 1."""
    return recipe.model.likelihood.white


def samples(model: Model, rows: int, columns: int, seed: int = 0) -> Float[Tensor, "{rows} {columns} pixels"]:
    """In every row one z ~ p(z): first the mean of p(x | z), then draws x ~ p(x | z)."""
    check_counts("pictures", rows=rows, columns=columns)
    with measuring(model, stream_seed("samples", seed)):
        likelihood = model.decode(model.prior.sample(rows))
        draws = likelihood.sample(torch.Size([columns - 1]))
        return torch.cat([likelihood.mean[None], draws]).transpose(0, 1).cpu()


def local_samples(
    model: Model, rows: int, columns: int, seed: int = 0
) -> tuple[Float[Tensor, "{rows} {columns} pixels"], Float[Tensor, "{rows} {columns} pixels"]]:
    """In every row one z ~ p(z), in each of its columns another h ~ p(h | z): means of p(x | z, h), and draws (Fig. 4).

    A conditional decoder's mean is that of the finest scale's new pixels, given one draw of the coarser pixels.
    """
    check_counts("pictures", rows=rows, columns=columns)
    rows, columns = int(rows), int(columns)
    with measuring(model, stream_seed("samples", seed)):
        zeta = model.prior.sample(rows).repeat_interleave(columns, 0)
        decoded = (model.decode(piece) for piece in torch.split(zeta, _PIECE))
        means, draws = zip(*((each.mean.cpu(), each.sample().cpu()) for each in decoded), strict=True)
        shape = (rows, columns)
        return torch.unflatten(torch.cat(means), 0, shape), torch.unflatten(torch.cat(draws), 0, shape)


def reconstructions(model: Model, x: Float[Tensor, "n pixels"], seed: int = 0) -> Float[Tensor, "n pixels"]:
    """The mean of p(x | z) for one z ~ q(z | x) each, in the binary limit."""
    with measuring(model, stream_seed("reconstructions", seed)):
        mean: Tensor = model(x, hard).likelihood.mean
        return mean.cpu()


def grid(images: Float[Tensor, "rows columns pixels"], shape: tuple[int, ...], white: float = 1.0) -> Image.Image:
    """Images of values from 0, black, to white, side by side; those smaller than a thumbnail are enlarged.

    `shape` is (height, width), or (height, width, 3) in colour. Raises InputError for others, and for more images than
    a picture can show.
    """
    rows, columns, pixels = images.shape
    _check_shape(shape)
    if math.prod(shape) != pixels:
        raise InputError(f"images of shape {shape} have {math.prod(shape)} pixels, not {pixels}")
    factor = enlargement(rows, columns, shape)
    levels = 255 * (images.cpu() / white).clamp(0, 1).reshape(rows, columns, *shape[:2], -1)
    cells = levels.round().to(torch.uint8).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    cells = F.pad(cells, (0, 0, _GAP, 0, _GAP, 0), value=_GAP_GREY)
    sheet = cells.transpose(1, 2).reshape(rows * cells.shape[2], columns * cells.shape[3], -1)
    return Image.fromarray(F.pad(sheet, (0, 0, 0, _GAP, 0, _GAP), value=_GAP_GREY).squeeze(-1).numpy())


def enlargement(rows: int, columns: int, shape: tuple[int, ...]) -> int:
    """How often each pixel is repeated in a grid, less where there are many images; InputError for too many."""
    _check_shape(shape)
    for factor in range(max(1, round(_CELL / max(shape[:2]))), 0, -1):
        height, width = (n * (factor * side + _GAP) + _GAP for n, side in zip((rows, columns), shape[:2], strict=True))
        if max(height, width) <= _MOST_SIDE and height * width <= _MOST_PIXELS:
            return factor
    raise InputError(
        f"a picture of {rows:,} x {columns:,} images would be {height:,} x {width:,} pixels, more than can be shown: "
        "ask for fewer, or for arrays (.npz)"
    )


def columns_for(count: int) -> int:
    """Images beside each other where so many are shown: ten at most, of more than a hundred a square."""
    return min(count, max(10, math.ceil(math.sqrt(count))))


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) == 1:
        raise InputError(
            f"examples of shape {shape} are rows of a table and have no picture: save them as arrays (.npz), or "
            "samples as a table (.csv, .parquet)"
        )
    if len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
        raise InputError(
            f"examples of shape {shape} have no picture, which needs (height, width) or (height, width, 3)"
        )


def signed(values: Float[Tensor, "rows columns"], scale: float) -> Image.Image:
    """Values in [-scale, scale], one a pixel: orange below zero, blue above, zero transparent."""
    share = (values.cpu() / scale).clamp(-1, 1)[..., None]
    colour = torch.where(share > 0, torch.tensor(POSITIVE), torch.tensor(NEGATIVE))
    opacity = 255 * share.abs()
    return Image.fromarray(torch.cat([colour, opacity.round()], -1).to(torch.uint8).numpy())


def check_picture_name(path: Path) -> None:
    """InputError unless a file is named as a picture."""
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"{path} has no suffix of an image format, expected one of {', '.join(_FORMATS)}")


def save_grid(path: AnyPath, image: Image.Image) -> None:
    """Write an image in the format that the suffix names; the file is whole or not there."""
    path = Path(path)
    check_picture_name(path)
    kind = _FORMATS[path.suffix.lower()]
    with replacing(path) as temporary:
        try:
            image.save(temporary, kind)
        except (ValueError, OverflowError) as error:
            raise InputError(f"{path}: {image.width} x {image.height} pixels do not fit this format: {error}") from None
