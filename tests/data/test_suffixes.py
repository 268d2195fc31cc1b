"""Pictures by their suffixes: read, refused or passed over as no picture of the user's, never left out in silence."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dvaepp import data
from dvaepp.errors import InputError

GREY = np.random.RandomState(7).randint(0, 256, (12, 4, 5)).astype(np.uint8)


def saved(folder: Path, suffix: str = ".png", form: str = "PNG") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(GREY):
        Image.fromarray(image).save(folder / f"{number:02}{suffix}", form)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JFIF", ".Jpe"])
def test_every_suffix_of_jpeg_is_read(tmp_path: Path, suffix: str) -> None:
    saved(tmp_path / "jpg", ".jpg", "JPEG")
    saved(tmp_path / "other", suffix, "JPEG")
    read = [data.read_examples(tmp_path / name, "none")[0].tolist() for name in ("jpg", "other")]
    assert read[0] == read[1]


@pytest.mark.parametrize("suffix", [".heic", ".heif", ".avif", ".jp2", ".jxl", ".HEIC", ".Avif"])
@pytest.mark.parametrize("place", [".", "cats/small", "train", "test/cats"])
@pytest.mark.parametrize("binarise", ["auto", "none"])
def test_pictures_that_are_not_read_are_named(tmp_path: Path, suffix: str, place: str, binarise: data.Binarise) -> None:
    for name in ("train", "test") if place.startswith("t") else (".",):
        saved(tmp_path / name)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    for name in ("b", "a"):
        (tmp_path / place / f"{name}{suffix}").write_bytes(b"of any content")
    with pytest.raises(InputError, match=rf"{place.strip('.')}/a{suffix}: {suffix} is not read, .* PNG or JPEG"):
        data.load(str(tmp_path), binarise)


def test_a_folder_of_nothing_else_is_named_too_and_no_folder_beside_train(tmp_path: Path) -> None:
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "a.heic").write_bytes(b"")
    with pytest.raises(InputError, match=r"extra/a.heic: .heic is not read"):
        data.load(str(tmp_path))
    saved(tmp_path / "train")
    with pytest.raises(InputError, match="holds images in extra beside train"):
        data.load(str(tmp_path))


@pytest.mark.parametrize("kept", ["@eaDir", "@EADIR", "$RECYCLE.BIN", "$Recycle.Bin", "__MACOSX", "__macosx", ".cache"])
@pytest.mark.parametrize("split", [False, True])
def test_what_systems_keep_is_passed_over(tmp_path: Path, kept: str, split: bool) -> None:
    saved(tmp_path / "train" if split else tmp_path)
    for place in (tmp_path, tmp_path / "train") if split else (tmp_path, tmp_path / "cats"):
        saved(place / kept / "x")
        (place / kept / "a.heic").write_bytes(b"")
    assert len(data.read_examples(tmp_path)[0]) == 12
