"""Pictures of data sets: files, parts of archives, cells of tables. They are read when asked for, and not trusted.

Shapes: H W pixels.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from .decoding import PictureError, Pixels, Size, decoded, size_of

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
DIGEST_BYTES = 16


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
            return size_of(stream, self.name)

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
