"""Folders of pictures as a viewer shows them: over a background, upright, and without what hidden folders keep."""

import inspect
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dvaepp import data
from dvaepp.data.binarise import permuted
from dvaepp.data.own import examples_at
from dvaepp.errors import InputError
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import Recipe, override

RANDOM = np.random.RandomState(7)
COLOUR = RANDOM.randint(0, 256, (12, 4, 5, 3)).astype(np.uint8)
GREY = COLOUR[..., 0]
ALPHA = RANDOM.choice([0, 0, 60, 128, 200, 255], (12, 4, 5)).astype(np.uint8)
LUMA = np.array([0.299, 0.587, 0.114])
TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
"""What is shown of stored pixels, by EXIF's orientation (0th row and column: top left, top right, bottom right, ..)."""


def levels(folder: Path, **settings: Any) -> np.ndarray:
    """The levels (n, height, width[, 3]) that are read, in their order."""
    examples, shape = data.read_examples(folder, "none", **settings)
    return examples.numpy().reshape(-1, *shape)


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def png(pixels: bytes, size: tuple[int, int], bits: int, kind: int, **chunks: bytes) -> bytes:
    """A PNG from packed rows of pixels, of a bit depth and colour type that Pillow does not write."""
    width, height = size
    stride = len(pixels) // height
    rows = b"".join(b"\0" + pixels[row * stride : (row + 1) * stride] for row in range(height))
    parts = {"IHDR": struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0), **chunks}
    parts |= {"IDAT": zlib.compress(rows), "IEND": b""}
    written = b"\x89PNG\r\n\x1a\n"
    for name, body in parts.items():
        named = name.encode() + body
        written += struct.pack(">I", len(body)) + named + struct.pack(">I", zlib.crc32(named))
    return written


def over(pixels: np.ndarray, alpha: np.ndarray, background: float) -> np.ndarray:
    share = (alpha / 255.0).reshape(*alpha.shape, *[1] * (pixels.ndim - alpha.ndim))
    return pixels * share + background * (1 - share)


# Transparency


def rgba(number: int) -> Image.Image:
    return Image.fromarray(np.dstack([COLOUR[number], ALPHA[number]]))


def la(number: int) -> Image.Image:
    return Image.fromarray(np.dstack([GREY[number], ALPHA[number]]))


@pytest.mark.parametrize("background", [None, "white", "black"])
@pytest.mark.parametrize("form", ["png", "webp", "tiff"])
def test_transparent_colour_is_over_white_unless_black_is_asked(
    tmp_path: Path, form: str, background: str | None
) -> None:
    for number in range(12):
        rgba(number).save(tmp_path / f"{number:02}.{form}", **({"lossless": True} if form == "webp" else {}))
    settings = {"background": background} if background else {}
    expected = over(COLOUR, ALPHA, 0 if background == "black" else 255)
    assert np.abs(levels(tmp_path, **settings) - expected).max() <= 1
    loaded = data.load(str(tmp_path), **settings)  # type: ignore[arg-type]
    grey = permuted(expected @ LUMA)[:10].reshape(10, -1)
    assert np.abs(loaded.train.numpy() - grey).max() <= 1.5


@pytest.mark.parametrize("background", ["white", "black"])
@pytest.mark.parametrize("form", ["png", "tiff"])
def test_transparent_grey_stays_grey(tmp_path: Path, form: str, background: str) -> None:
    for number in range(12):
        la(number).save(tmp_path / f"{number:02}.{form}")
    shown = levels(tmp_path, background=background)
    assert shown.shape == (12, 4, 5)
    assert np.abs(shown - over(GREY, ALPHA, 255 if background == "white" else 0)).max() <= 1


@pytest.mark.parametrize("background", ["white", "black"])
@pytest.mark.parametrize(("form", "alpha"), [("png", 2), ("png", bytes([255, 128, 0, 9])), ("gif", 2)])
def test_transparent_palettes(tmp_path: Path, form: str, alpha: int | bytes, background: str) -> None:
    palette = np.array([[10, 200, 30], [90, 80, 70], [1, 2, 3], [250, 240, 100]], np.uint8)
    indices = RANDOM.randint(0, 4, (12, 4, 5)).astype(np.uint8)
    indices[:, 0, :4] = range(4)
    for number, entries in enumerate(indices):
        picture = Image.fromarray(entries, "L").convert("P")
        picture.putdata(entries.reshape(-1).tolist())
        picture.putpalette(palette.tobytes())
        picture.save(tmp_path / f"{number:02}.{form}", transparency=alpha, optimize=False)
    opacity = np.frombuffer(alpha, np.uint8) if isinstance(alpha, bytes) else np.array([255, 255, 0, 255])
    expected = over(palette[indices], opacity[indices], 255 if background == "white" else 0)
    assert np.abs(levels(tmp_path, background=background) - expected).max() <= 1


@pytest.mark.parametrize("background", ["white", "black"])
@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_one_transparent_colour(tmp_path: Path, mode: str, background: str) -> None:
    keys: dict[str, Any] = {"1": 1, "L": 77, "RGB": (77, 3, 200)}
    pixels = {"1": GREY // 128 * 255, "L": GREY.copy(), "RGB": COLOUR.copy()}[mode]
    key = np.array(255 if mode == "1" else keys[mode], np.uint8)
    pixels[:, 1:3, 1:3] = key
    for number, image in enumerate(pixels):
        Image.fromarray(image).convert(mode).save(tmp_path / f"{number:02}.png", transparency=keys[mode])
    clear = (pixels == key).all(-1) if mode == "RGB" else pixels == key
    expected = over(pixels, np.where(clear, 0, 255), 255 if background == "white" else 0)
    assert (levels(tmp_path, background=background) == expected).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_transparent_levels_of_few_bits(tmp_path: Path, bits: int) -> None:
    """Optimisers of PNG files make icons so: a transparent level counts in the file's own bits."""
    top = 2**bits - 1
    stored = RANDOM.randint(0, top + 1, (3, 4, 8))
    for number, image in enumerate(stored):
        as_bits = (image[..., None] >> np.arange(bits)[::-1]) & 1
        packed = np.packbits(as_bits.reshape(4, -1).astype(np.uint8), axis=1).tobytes()
        (tmp_path / f"{number}.png").write_bytes(png(packed, (8, 4), bits, 0, tRNS=struct.pack(">H", top // 2)))
    shown = np.where(stored == top // 2, 255, stored * (255 // top))
    assert (levels(tmp_path) == shown).all()
    black = np.where(stored == top // 2, 0, stored * (255 // top))
    assert (levels(tmp_path, background="black") == black).all()


def test_a_transparent_colour_of_16_bits(tmp_path: Path) -> None:
    stored = np.array([[[0x1234, 0x5678, 0x9ABC], [0x1200, 0x5600, 0x0000], [0xFFFF, 0x0180, 0x0000]]], ">u2")
    (tmp_path / "x.png").write_bytes(png(stored.tobytes(), (3, 1), 16, 2, tRNS=stored[0, 0].tobytes()))
    assert levels(tmp_path)[0].tolist() == [[[255] * 3, [0x12, 0x56, 0], [255, 1, 0]]]


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA"])
def test_modes_that_files_seldom_have(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = (40,) if mode in ("La", "PA") else (40, 10, 20)
    made = Image.new("RGBA" if mode == "RGBa" else "LA", (3, 2), (*straight, 128))
    if mode == "PA":
        made = made.convert("L").convert("P")
        made.putalpha(128)
    else:
        made = made.convert(mode)
    assert made.mode == mode
    (tmp_path / "x.png").touch()
    monkeypatch.setattr(Image, "open", lambda path: made.copy())
    shown = levels(tmp_path)
    assert shown.shape == ((1, 2, 3) if mode == "La" else (1, 2, 3, 3))
    assert np.abs(shown[0, 0, 0].astype(float) - over(np.array(straight), np.array(128), 255)).max() <= 2


@pytest.mark.parametrize("form", ["png", "webp", "gif", "tiff"])
def test_black_shapes_on_nothing_are_told_apart(tmp_path: Path, form: str) -> None:
    shapes = RANDOM.randint(0, 2, (30, 4, 5)).astype(np.uint8)
    for number, shape in enumerate(shapes):
        picture = Image.fromarray(np.dstack([np.zeros((4, 5, 3), np.uint8), shape * 255]))
        picture.save(tmp_path / f"{number:02}.{form}", **({"lossless": True} if form == "webp" else {}))
    bits, shape = data.read_examples(tmp_path)
    assert shape == (4, 5)
    assert (bits.numpy().reshape(-1, 4, 5) == 1 - shapes).all()
    assert not data.load(str(tmp_path)).dynamic


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "L", "RGB", "CMYK"])
def test_opaque_pictures_are_what_they_are_without_alpha(tmp_path: Path, mode: str) -> None:
    made = []
    for number in range(12):
        made.append(Image.fromarray(COLOUR[number]).convert("L" if mode == "PA" else "RGB").convert(mode))
        clear = {"transparency": 255} if mode == "P" else {}
        made[-1].save(tmp_path / f"{number:02}.{'png' if mode == 'P' else 'tiff'}", **clear)
    grey = permuted(np.stack([np.array(picture.convert("L")) for picture in made]))
    assert torch.equal(data.load(str(tmp_path)).train, torch.from_numpy(grey[:10].reshape(10, -1)))
    kept = "L" if mode in ("L", "LA") else "RGB"
    assert (levels(tmp_path) == np.stack([np.array(picture.convert(kept)) for picture in made])).all()


def test_deep_pictures_stay_refused_with_transparency(tmp_path: Path) -> None:
    deep = RANDOM.randint(0, 2**16, (2, 3)).astype(">u2")
    (tmp_path / "x.png").write_bytes(png(deep.tobytes(), (3, 2), 16, 0, tRNS=deep[0, 0].tobytes()))
    with pytest.raises(InputError, match=r"x.png: has pixels of mode I.*, expected 8 bits"):
        data.read_examples(tmp_path)


def test_a_background_is_white_or_black(tmp_path: Path) -> None:
    rgba(0).save(tmp_path / "x.png")
    for read in (data.load, data.read_examples):
        with pytest.raises(InputError, match="background is 'grey', expected one of white, black"):
            inspect.unwrap(read)(str(tmp_path), background="grey")  # type: ignore[operator]


def recipe(folder: Path, *settings: str) -> Recipe:
    return override(catalogue.find("quick/rbm", "tiny"), [f"data.name={folder}", *settings])


def test_a_recipe_says_the_background_of_training_and_of_codes(tmp_path: Path) -> None:
    for number in range(12):
        la(number).save(tmp_path / f"{number:02}.png")
    for value, clear in {"white": 255, "black": 0}.items():
        settings = ["model.likelihood=logistic-mixture", f"data.background={value}"]
        made = recipe(tmp_path, *settings)
        assert made.load_data().train.numpy().reshape(-1, 4, 5)[permuted(ALPHA)[:10] == 0].tolist().count(clear) > 20
        assert set(examples_at(tmp_path, made.reading).x.numpy().reshape(-1, 4, 5)[ALPHA == 0].tolist()) == {clear}
    assert recipe(tmp_path).data.background == "white"
    with pytest.raises(InputError, match=r"setting 'data.background'.*'white' or 'black'"):
        recipe(tmp_path, "data.background=grey")


# Rotation


STORED = np.kron(RANDOM.randint(0, 2, (2, 3, 3)), np.ones((8, 8, 1))).astype(np.uint8) * 255
"""Blocks that JPEG keeps, (16, 24, 3)."""


FORMS: dict[str, dict[str, Any]] = {
    "png": {},
    "jpg": {"quality": 100, "subsampling": 0},
    "webp": {"lossless": True},
    "tif": {},
    "tiff": {"compression": "tiff_lzw"},
}


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("orientation", TURNED)
def test_pictures_are_upright(tmp_path: Path, orientation: int, form: str, colour: bool) -> None:
    pixels = STORED if colour else STORED[..., 0]
    Image.fromarray(pixels).save(tmp_path / f"x.{form}", exif=exif(orientation), **FORMS[form])
    expected = TURNED[orientation](pixels)
    shown = levels(tmp_path)[0]
    if form == "webp" and not colour:
        shown = shown[..., 0]  # WebP stores grey as colour
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).max() <= 4


def test_sizes_are_those_of_upright_pictures(tmp_path: Path) -> None:
    for number, image in enumerate(GREY):
        lying = number % 3 == 0
        stored = np.rot90(image, 1) if lying else image
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"{number:02}.png", exif=exif(6 if lying else 1))
    assert (levels(tmp_path) == GREY).all()
    Image.fromarray(GREY[5]).save(tmp_path / "05.png", exif=exif(8))
    with pytest.raises(InputError, match=r"05.png: is 5x4, expected 4x5 \(height x width\) as 00.png"):
        levels(tmp_path)


@pytest.mark.parametrize("orientation", TURNED)
def test_transparent_pictures_are_upright_too(tmp_path: Path, orientation: int) -> None:
    la(0).save(tmp_path / "0.png", exif=exif(orientation))
    Image.fromarray(GREY[0]).convert("L").save(
        tmp_path / "1.png", exif=exif(orientation), transparency=int(GREY[0, 0, 0])
    )
    shown = levels(tmp_path)
    keyed = np.where(GREY[0] == GREY[0, 0, 0], 255, GREY[0])
    assert np.abs(shown[0] - TURNED[orientation](over(GREY[0], ALPHA[0], 255))).max() <= 1
    assert (shown[1] == TURNED[orientation](keyed)).all()


@pytest.mark.filterwarnings("ignore:.*EXIF:UserWarning")  # Pillow's, where it looks for the resolution
@pytest.mark.parametrize("form", ["png", "webp", "jpg"])
@pytest.mark.parametrize("block", [b"", b"no EXIF at all", b"Exif\0\0MM\0*\0\0\0\x08\0\x09\x01\x12", b"Exif\0\0MM"])
def test_exif_that_cannot_be_read_turns_nothing(tmp_path: Path, form: str, block: bytes) -> None:
    Image.fromarray(STORED).save(tmp_path / f"x.{form}", exif=block)
    assert levels(tmp_path).shape == (1, 16, 24, 3)


def test_other_tags_of_exif_may_be_of_any_type(tmp_path: Path) -> None:
    """A maker's tag with a type that its number does not have cannot be written again, which nobody asks for."""
    made = exif(6)
    made[0x010F] = "maker"
    made[0x0100] = 7
    block = (
        made.tobytes()
        .replace(b"\x01\x00\x00\x04", b"\x01\x00\x00\x02")
        .replace(b"\x01\x00\x00\x03", b"\x01\x00\x00\x02")
    )
    Image.fromarray(STORED).save(tmp_path / "x.png", exif=block)
    assert levels(tmp_path).shape == (1, 24, 16, 3)


# What is no picture of the user's


@pytest.mark.parametrize(
    "hidden", [".git", ".thumbnails/large", "cats/.cache", "__MACOSX", "cats/__MACOSX/cats", ".a/b"]
)
@pytest.mark.parametrize("split", [False, True])
def test_hidden_folders_are_passed_over(tmp_path: Path, hidden: str, split: bool) -> None:
    for number, image in enumerate(GREY):
        folder = tmp_path / (("train" if number < 8 else "test") if split else ".") / "cats"
        folder.mkdir(exist_ok=True, parents=True)
        Image.fromarray(image).save(folder / f"{number:02}.png")
    kept = tmp_path / ("train" if split else ".") / hidden
    kept.mkdir(parents=True)
    Image.fromarray(COLOUR[0, :2]).save(kept / "small.png")
    assert sorted(levels(tmp_path).tolist()) == sorted(GREY.tolist())


def test_hidden_pictures_are_passed_over_and_a_hidden_folder_may_be_given(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "__MACOSX" / "x"
    folder.mkdir(parents=True)
    for number, image in enumerate(GREY):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    (folder / "._01.png").write_bytes(b"a resource fork")
    assert (levels(folder) == GREY).all()


@pytest.mark.parametrize("settings", [{}, {"binarise": "threshold"}], ids=str)
def test_it_is_said_where_colour_becomes_grey_and_only_there(tmp_path: Path, settings: dict[str, Any]) -> None:
    for name, stored in (("colour", COLOUR), ("grey", np.repeat(GREY[..., None], 3, -1)), ("one", GREY)):
        (tmp_path / name).mkdir()
        for k, pixels in enumerate(stored):
            Image.fromarray(pixels).save(tmp_path / name / f"{k:02}.png")
    protocols = {name: data.load(tmp_path / name, **settings).protocol for name in ("colour", "grey", "one")}
    assert "colour pictures turned grey" in protocols["colour"]
    assert "model.likelihood=logistic-mixture keeps" in protocols["colour"]
    assert all("grey data" in protocols[name] and "turned" not in protocols[name] for name in ("grey", "one"))
    Image.fromarray(COLOUR[3]).save(tmp_path / "one" / "03.png")
    assert "colour pictures turned grey" in data.load(tmp_path / "one", **settings).protocol
    assert "turned" not in data.load(tmp_path / "colour", binarise="none").protocol


@pytest.mark.parametrize("fit", ["crop", "pad", "resize"])
def test_pictures_of_all_sizes_are_scaled_to_one(fit: Any, tmp_path: Path) -> None:
    for place in range(12):
        picture = np.zeros((20, 40), np.uint8)
        picture[:, 10:30] = 200  # the middle half
        Image.fromarray(picture).resize((40 + 4 * (place % 2), 20)).save(tmp_path / f"{place:02}.png")
    with pytest.raises(InputError, match=r"is 20x44, expected 20x40 .*; data.size=20 scales all to one size"):
        data.load(tmp_path)
    found = data.load(tmp_path, binarise="none", kind="levels", size=10, fit=fit)
    assert found.shape == (10, 10)
    image = found.train[0].reshape(10, 10).float()
    middle, edge = image[5, 4:6].mean(), image[5, 0]
    assert middle > 150
    if fit == "crop":
        assert edge > 150  # only the middle is left
    else:
        assert edge < 60
    assert (image[0] > 200).all() == (fit == "pad"), "white above and below"
