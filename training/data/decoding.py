"""Encoded pictures to RGB: what is unambiguous is converted, all else is refused with a reason.

Shapes: H W pixels.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ...cn_core.preprocess.frames import MAX_PIXELS, MAX_SIDE
from ..errors import DataError

Pixels: TypeAlias = NDArray[np.uint8]
"""H W 3, RGB."""
Size: TypeAlias = tuple[int, int]
"""Height and width."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Of these Pillow has decoders of its own; others start programs (EPS) or are no pictures."""
DAMAGE = (OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, MemoryError, struct.error, zlib.error)
"""What Pillow's readers raise on damaged bytes."""
ORIENTATION = 0x0112
TURNED = (5, 6, 7, 8)
"""Values of EXIF's orientation that swap height and width."""


class PictureError(DataError):
    """A picture that cannot be used; the text names it."""


def size_of(stream: IO[bytes], name: str) -> Size:
    """Height and width of the upright picture, from its header. Raises PictureError."""
    image = opened(stream, name)
    try:
        turned = image.getexif().get(ORIENTATION) in TURNED
    except DAMAGE as error:
        raise damaged(name, error) from error
    return (image.width, image.height) if turned else (image.height, image.width)


def opened(stream: IO[bytes], name: str) -> Image.Image:
    """The picture, its pixels not decoded yet. Raises PictureError for what is none, or is too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{name} is no whole picture; expected one of {', '.join(FORMATS)}. Get it again or leave it out."
        ) from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name} is too large ({error}). Make it smaller.") from error
    except DAMAGE as error:
        raise damaged(name, error) from error
    if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise PictureError(
            f"{name} is {image.width}x{image.height} pixels; expected at most {MAX_PIXELS} pixels and {MAX_SIDE} a "
            "side. Make it smaller."
        )
    return image


def decoded(stream: IO[bytes], name: str) -> Pixels:
    """H W 3 uint8 RGB of an encoded picture, upright. Raises PictureError."""
    image = opened(stream, name)
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise PictureError(f"{name} is an animation of several frames; expected a single picture. Extract its frames.")
    if sixteen_bit(image):
        raise PictureError(
            f"{name} has 16 bits a channel; expected 8, as networks and preprocessors take them. Save it with 8, its "
            "range scaled to 0..255."
        )
    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
    except DAMAGE as error:
        raise damaged(name, error) from error
    return rgb(upright, name)


def sixteen_bit(image: Image.Image) -> bool:
    """Whether a channel has more than 8 bits in the file; Pillow itself drops those of RGB without a word."""
    # Of each tile, (decoder, box, offset, arguments), the arguments name the layout of its values: "RGB;16B".
    tiles: list[Any] = getattr(image, "tile", [])
    return image.mode.startswith("I;") or any(";16" in str(tile[3]) for tile in tiles)


def damaged(name: str, error: BaseException) -> PictureError:
    """The error for a picture that starts well and ends badly."""
    return PictureError(f"{name} is damaged ({error}). Get it again or leave it out.")


def rgb(image: Image.Image, name: str) -> Pixels:
    """H W 3 uint8 of an image of any mode; opaque alpha is dropped.

    Raises PictureError for CMYK, floats and 32 bits, whose conversion needs a choice, and for transparent pixels.
    """
    if image.mode not in ("1", "L", "P", "RGB", "LA", "PA", "RGBA", "La", "RGBa"):
        raise PictureError(f"{name} has the colours {image.mode}; expected RGB or grey of 8 bits. Convert it to sRGB.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        lowest: Any = image.getchannel("A").getextrema()[0]
        if lowest < 255:
            raise PictureError(f"{name} has transparent pixels, whose colour is anyone's guess. Flatten it first.")
    return np.asarray(image.convert("RGB"))
