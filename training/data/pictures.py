"""Pictures of data sets: files, parts of archives, cells of tables. They are read when asked for, and not trusted.

Shapes: H W pixels.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

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
SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
DAMAGE = (OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, MemoryError, struct.error, zlib.error)
"""What Pillow's readers raise on damaged bytes."""
ORIENTATION = 0x0112
TURNED = (5, 6, 7, 8)
"""Values of EXIF's orientation that swap height and width."""
DIGEST_BYTES = 16


class PictureError(DataError):
    """A picture that cannot be used; the text names it."""


class Picture(Protocol):
    """One picture of a data set."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    def read(self) -> Pixels:
        """H W 3 uint8 RGB. Raises PictureError."""
        ...

    def size(self) -> Size:
        """Height and width as `read` gives it, from the header where that has it. Raises PictureError."""
        ...

    def stamp(self) -> str:
        """Changes when the contents may have changed; costs no reading."""
        ...

    def digest(self) -> str:
        """A hash of the contents. Raises PictureError."""
        ...


class Source(Protocol):
    """Where the bytes of an encoded picture are."""

    def open(self) -> IO[bytes]:
        """A stream of them. Raises OSError."""
        ...

    def stamp(self) -> str:
        """Place, size and time."""
        ...


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of its own."""

    path: Path

    def open(self) -> IO[bytes]:
        """The file."""
        return self.path.open("rb")

    def stamp(self) -> str:
        """Path, size and time of change."""
        return stamp_of(self.path)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Part of a larger file, such as a member of a tar archive."""

    path: Path
    offset: int
    length: int

    def open(self) -> IO[bytes]:
        """Its bytes."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.length))

    def stamp(self) -> str:
        """That of the file, and the place in it."""
        return f"{stamp_of(self.path)}:{self.offset}:{self.length}"


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A picture in one of FORMATS."""

    name: str
    source: Source

    def open(self) -> IO[bytes]:
        """The encoded bytes. Raises PictureError."""
        try:
            return self.source.open()
        except OSError as error:
            raise PictureError(f"{self.name} cannot be read: {error.strerror or error}.") from error

    def read(self) -> Pixels:
        """H W 3 uint8 RGB, turned upright by its EXIF orientation."""
        with self.open() as stream:
            return decoded(stream, self.name)

    def size(self) -> Size:
        """Height and width of the upright picture, from its header."""
        with self.open() as stream:
            image = opened(stream, self.name)
            try:
                turned = image.getexif().get(ORIENTATION) in TURNED
            except DAMAGE as error:
                raise damaged(self.name, error) from error
            return (image.width, image.height) if turned else (image.height, image.width)

    def stamp(self) -> str:
        """Of its source."""
        return self.source.stamp()

    def digest(self) -> str:
        """A hash of the encoded bytes."""
        with self.open() as stream:
            return digest_of(stream.read())


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A picture that is in memory."""

    name: str
    pixels: Pixels

    def read(self) -> Pixels:
        """The very same value."""
        return self.pixels

    def size(self) -> Size:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def stamp(self) -> str:
        """There is no cheaper one than the hash."""
        return self.digest()

    def digest(self) -> str:
        """A hash of shape and pixels."""
        return digest_of(f"{self.pixels.shape}".encode(), self.pixels.tobytes())


def file_picture(path: Path) -> Encoded:
    """The picture in a file."""
    return Encoded(name=str(path), source=File(path=path))


def stamp_of(path: Path) -> str:
    """Path, size and time of change of a file; a path alone where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return str(path)
    return f"{path.absolute()}:{stat.st_size}:{stat.st_mtime_ns}"


def digest_of(*parts: bytes) -> str:
    """The hash of some bytes, in hex."""
    code = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        code.update(part)
    return code.hexdigest()


def hashed(words: Sequence[object]) -> str:
    """The hash of some plain values, in hex."""
    return digest_of(repr(tuple(words)).encode())


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
