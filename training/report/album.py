"""The pictures of a run's validations: JPEG files in its output folder.

Shapes: N pictures, H W pixels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..events import Validated
from ..watch.sampling import Pictures

FOLDER = "validation"
LARGEST = 384
"""Pixels of a picture's longer side."""
QUALITY = 88


@dataclass(frozen=True, kw_only=True)
class Album:
    """Of one output folder."""

    folder: Path

    def add(self, event: Validated) -> None:
        """Keep what was drawn, and what it is compared with."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for kind, pictures in (("hint", event.hints), ("without", event.without), ("real", event.real)):
            if pictures is not None:
                self.write(kind, pictures)
        self.write(drawn(event.number), event.images)

    def write(self, kind: str, pictures: Pictures) -> None:
        """One file for each picture."""
        for index, picture in enumerate(pictures):
            (self.folder / f"{kind}-{index}.jpg").write_bytes(jpeg(picture))

    def has(self, kind: str, index: int = 0) -> bool:
        """Whether there is such a picture."""
        return self.place(kind, index).is_file()

    def place(self, kind: str, index: int) -> Path:
        """Its file."""
        return self.folder / f"{kind}-{index}.jpg"

    def source(self, kind: str, index: int) -> str:
        """The picture itself as a page takes it."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.place(kind, index).read_bytes()).decode()}"


def drawn(number: int) -> str:
    """What is drawn after so many steps."""
    return f"step-{number:07d}"


def jpeg(picture: Pictures) -> bytes:
    """H W 3 -> a file's bytes; larger pictures are made smaller."""
    image = Image.fromarray(picture)
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def spread(numbers: Sequence[int], count: int) -> list[int]:
    """At most `count` of them, the first and the last among these, the others evenly spread."""
    if len(numbers) <= count:
        return list(numbers)
    return [numbers[round(index * (len(numbers) - 1) / (count - 1))] for index in range(count)]
