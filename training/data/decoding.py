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
    try:
        image.load()
        upright = ImageOps.exif_transpose(image)
    except DAMAGE as error:
        raise damaged(name, error) from error
    return rgb(upright, name)


def damaged(name: str, error: BaseException) -> PictureError:
    """The error for a picture that starts well and ends badly."""
    return PictureError(f"{name} is damaged ({error}). Get it again or leave it out.")


def rgb(image: Image.Image, name: str) -> Pixels:
    """H W 3 uint8 of an image of any mode; 16-bit greys keep their upper eight bits, opaque alpha is dropped.

    Raises PictureError for CMYK and floats, whose conversion needs a choice, and for transparent pixels.
    """
    if image.mode.startswith("I"):
        return grey_16_bit(image, name)
    if image.mode not in ("1", "L", "P", "RGB", "LA", "PA", "RGBA", "La", "RGBa"):
        raise PictureError(f"{name} has the colours {image.mode}; expected RGB or grey. Convert it to sRGB.")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        lowest: Any = image.getchannel("A").getextrema()[0]
        if lowest < 255:
            raise PictureError(f"{name} has transparent pixels, whose colour is anyone's guess. Flatten it first.")
    return np.asarray(image.convert("RGB"))


def grey_16_bit(image: Image.Image, name: str) -> Pixels:
    """H W 3: 0..65535 -> 0..255, rounded (depth maps as PNG or TIFF)."""
    levels = np.asarray(image).astype(np.int64)
    if levels.size and (levels.min() < 0 or levels.max() > 65535):
        raise PictureError(
            f"{name} has values from {levels.min()} to {levels.max()}; expected 16 bits. Scale it to 0..65535."
        )
    return np.repeat(((levels + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
