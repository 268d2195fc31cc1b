"""Folders of pictures as arrays, as a viewer shows them: upright, and over a background where they are transparent."""

import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dvaepp.errors import InputError

Array = NDArray[Any]
Background = Literal["white", "black"]
Fit = Literal["crop", "pad", "resize"]
Size = tuple[int, int]
"""Height and width."""
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".pgm", ".pbm", ".ppm", ".jfif", ".jpe")
_UNREAD = (".heic", ".heif", ".avif", ".jp2", ".jxl")
_OF_SYSTEMS = ("__macosx", "@eadir", "$recycle.bin")
"""Folders that macOS adds to archives, Synology to shares and Windows to drives."""
_COLOURLESS = ("1", "L", "LA", "La", "")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What puts a picture upright, by the orientation in its EXIF data."""

_IN_8_BITS = {"1": 255, "L;2": 85, "L;4": 17, "RGB;16B": 1 / 256}
"""Factors to 8 bits, by the layout of a PNG's pixels."""


def image_folder(
    folder: Path, colour: bool = False, background: str = "white", size: Size | None = None, fit: str = "crop"
) -> Array:
    """Images below a folder in the order of their paths, uint8 (n, height, width) grey, or (n, height, width, 3).

    Upright by their EXIF data, a pixel of opacity a as a * pixel + (1 - a) * background, of an animation one frame.
    Of a `size` that is given they are scaled (Lanczos): to "crop" so that they fill it, the middle being kept; to "pad"
    so that they fit in it, amid the background; to "resize" whatever their sides were. Hidden files and folders are
    passed over. InputError where sizes differ or an image cannot be read.
    """
    paths = images_below(folder)
    for path in paths:
        if path.suffix.lower() in _UNREAD:
            raise InputError(f"{path}: {path.suffix} is not read, expected the picture saved as PNG or JPEG")
    if not paths:
        raise InputError(f"{folder}: no images found, expected a folder of {', '.join(IMAGES[:6])} files")

    def read(path: Path) -> Array:
        return _image(path, colour, background, size, fit)

    first = read(paths[0])
    images = np.empty((len(paths), *first.shape), np.uint8)
    for slot, path in zip(images, paths, strict=True):
        image = read(path)
        if image.shape != first.shape:
            (height, width), (rows, columns) = image.shape[:2], first.shape[:2]
            raise InputError(
                f"{path}: is {height}x{width}, expected {rows}x{columns} (height x width) as {paths[0].name}; "
                f"data.size={rows} scales all to one size"
            )
        slot[:] = image
    return images


def has_colour(folder: Path) -> bool:
    """Whether some image below the folder is stored in colour (or with a palette); a broken one has none."""
    return any(_mode(path) not in _COLOURLESS for path in images_below(folder))


def shows_colour(folder: Path) -> bool:
    """Whether some image below the folder has a pixel that is not grey; those stored in colour alone are looked at."""
    coloured = (p for p in images_below(folder) if _mode(p) not in _COLOURLESS)
    images = (_image(path, colour=True, background="white") for path in coloured)
    return any(bool((image != image[..., :1]).any()) for image in images)


def images_below(folder: Path) -> list[Path]:
    """The visible images below a folder, or the one that stands there; also those that `image_folder` refuses."""
    found = folder.rglob("*") if folder.is_dir() else [folder]
    return sorted(p for p in found if p.suffix.lower() in IMAGES + _UNREAD and is_visible(p.relative_to(folder)))


def is_visible(path: Path) -> bool:
    """Whether no part of a relative path is hidden, or of the folders that systems add."""
    return not any(part.startswith(".") or part.lower() in _OF_SYSTEMS for part in path.parts)


def _mode(path: Path) -> str:
    with suppress(OSError, SyntaxError, ValueError, Image.DecompressionBombError), Image.open(path) as image:
        return image.mode
    return ""


def _image(path: Path, colour: bool, background: str, size: Size | None = None, fit: str = "crop") -> Array:
    try:
        # Given a path, Pillow maps some TIFF files into memory before it knows how they are turned.
        with path.open("rb") as file, Image.open(file) as image:
            if image.mode.startswith(("I", "F")):
                raise InputError(f"{path}: has pixels of mode {image.mode}, expected 8 bits a channel")
            _transparency_in_8_bits(image)
            image.load()
            shown = _opaque(_upright(image), background).convert("RGB" if colour else "L")
            return np.array(shown if size is None else _scaled(shown, size, fit, background))
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: expected a complete image file, but {error}") from error


def _scaled(image: Image.Image, size: Size, fit: str, background: str) -> Image.Image:
    """The picture at this height and width."""
    sides = size[::-1]
    if fit == "resize":
        return image.resize(sides, Image.Resampling.LANCZOS)
    if fit == "pad":
        return ImageOps.pad(image, sides, Image.Resampling.LANCZOS, color=background)
    return ImageOps.fit(image, sides, Image.Resampling.LANCZOS)


def _upright(image: Image.Image) -> Image.Image:
    """The picture as its EXIF data turn it, not at all where they cannot be read, as in viewers."""
    # TIFF files Pillow turns itself. ImageOps.exif_transpose writes all tags anew, and fails where one is odd.
    turn = None if image.format == "TIFF" else _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> Any:
    with suppress(Exception), warnings.catch_warnings():  # many kinds escape from broken EXIF data
        warnings.simplefilter("ignore")
        return image.getexif().get(_ORIENTATION)
    return None


def _opaque(image: Image.Image, background: str) -> Image.Image:
    """The picture over the background; one that is opaque already as it is but for its alpha."""
    keyed = "transparency" in image.info and image.mode in ("1", "L", "P", "RGB")
    if not keyed and image.mode not in ("LA", "PA", "RGBA", "La", "RGBa"):
        return image
    straight = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if straight.getchannel("A").getextrema()[0] == 255:
        image.info.pop("transparency", None)
        return image
    below = Image.new("RGB", image.size, background)
    below.paste(straight, mask=straight)
    return below


def _transparency_in_8_bits(image: Image.Image) -> None:
    """Pillow gives the transparent grey or colour of a PNG in the file's own bits, but its pixels in 8."""
    tiles = getattr(image, "tile", ())
    factor = _IN_8_BITS.get(tiles[0][3]) if tiles else None
    if factor is None or "transparency" not in image.info:
        return
    value = image.info["transparency"]
    values = [min(int(each * factor), 255) for each in (value if isinstance(value, tuple) else [value])]
    image.info["transparency"] = tuple(values) if isinstance(value, tuple) else values[0]
