"""Reading pictures: every mode is converted or refused with its name and a reason."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from controlnet_kit.training.data.decoding import PictureError
from controlnet_kit.training.data.pictures import file_picture
from picture_files import picture, save
from PIL import Image


def read(path: Path) -> np.ndarray:
    """Decode a file."""
    return file_picture(path).read()


def write(path: Path, image: Image.Image, **options: Any) -> Path:
    """Write any image."""
    image.save(path, **options)
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", picture(3))
    assert np.array_equal(read(path), picture(3)) and file_picture(path).size() == (128, 128)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA"])
def test_unambiguous_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(picture(3)).convert(mode)
    assert np.array_equal(read(write(tmp_path / "a.png", image)), np.asarray(image.convert("RGB")))


def deep(path: Path, channels: int) -> Path:
    """A file with 16 bits a channel, written by OpenCV."""
    levels = np.linspace(0, 65535, 64 * 64 * channels).round().astype(np.uint16).reshape(64, 64, channels)
    assert cv2.imwrite(str(path), levels)
    return path


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_refused(tmp_path: Path, suffix: str, channels: int) -> None:
    with pytest.raises(PictureError, match=r"deep\.\w+ has (16 bits|the colours I)"):
        read(deep(tmp_path / f"deep.{suffix}", channels))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(picture(3)[:64])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path / "a.png", image, exif=exif)
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Image.Transpose
    expected = image.transpose(Image.Transpose(turned[orientation])) if orientation > 1 else image
    assert np.array_equal(read(path), np.asarray(expected)) and file_picture(path).size() == read(path).shape[:2]


def transparent() -> Image.Image:
    """A picture with a hole."""
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 255))
    image.putpixel((3, 3), (0, 0, 0, 0))
    return image


@pytest.mark.parametrize(
    ("name", "image", "reason"),
    [
        ("a.jpg", Image.new("CMYK", (16, 16)), "CMYK.*sRGB"),
        ("a.png", transparent(), "transparent"),
        ("a.tif", Image.new("F", (16, 16)), "colours F"),
    ],
)
def test_the_rest_is_refused(tmp_path: Path, name: str, image: Image.Image, reason: str) -> None:
    with pytest.raises(PictureError, match=f"{name}.*{reason}"):
        read(write(tmp_path / name, image))


def test_animations_are_refused(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    path = write(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(PictureError, match="several frames"):
        read(path)


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 30000 x 30000 pixels."""
    file = io.BytesIO()
    Image.new("1", (8, 8)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = (30000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no whole picture"),
        (b"not a picture at all", "no whole picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no whole picture"),
        (bomb(), "too large|at most"),
    ],
)
def test_hostile_bytes(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(PictureError, match=reason):
        read(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif"])
def test_cut_and_garbled_files_raise_one_error(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", picture(3))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(25):
        data = bytearray(whole[: int(rng.integers(1, len(whole)))])
        for place in rng.integers(0, len(data), 8):
            data[place] = int(rng.integers(256))
        path.write_bytes(data)
        try:
            assert read(path).shape[2] == 3
        except PictureError as error:
            assert path.name in str(error)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"gone\.png cannot be read"):
        read(tmp_path / "gone.png")
