"""The tutorial's data set, drawn anew: a filled circle on a coloured ground, and as hint the circle's outline.

    {"source": "source/0.png", "target": "target/0.png", "prompt": "pale golden rod circle with old lace background"}

Pair `number` depends on the number alone, so that any part of the set can be drawn at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..errors import DataError
from ..whole_files import write_whole
from .augment import rng_of
from .colour_names import COLOURS
from .decoding import Pixels
from .formats.listing import FILL50K
from .notes import read_note
from .processes import processes

DISTINCT = 60.0
"""Least distance of circle and ground in RGB, of 442."""
SMOOTH = 2
"""Drawn so many times larger, then reduced."""
OUTLINE_PX = 2
"""Of the hint's line, in a picture of 512."""
CHUNK = 32


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One pair."""

    source: Pixels
    """H W 3: the outline, white on black."""
    target: Pixels
    """H W 3."""
    prompt: str


def draw(number: int, size: int) -> Drawing:
    """The pair of this number, size x size pixels."""
    rng = rng_of("fill50k", number)
    names = list(COLOURS)
    circle = names[int(rng.integers(len(names)))]
    others = [name for name in names if np.linalg.norm(np.subtract(COLOURS[name], COLOURS[circle])) >= DISTINCT]
    ground = others[int(rng.integers(len(others)))]
    radius = float(rng.uniform(0.08, 0.35))
    across, down = (float(rng.uniform(radius / 2, 1 - radius / 2)) for _ in range(2))
    side = size * SMOOTH
    box = [(centre + sign * radius) * side for sign in (-1, 1) for centre in (across, down)]
    target = Image.new("RGB", (side, side), COLOURS[ground])
    ImageDraw.Draw(target).ellipse(box, fill=COLOURS[circle])
    source = Image.new("L", (side, side))
    ImageDraw.Draw(source).ellipse(box, outline=255, width=max(round(OUTLINE_PX * side / 512), SMOOTH))
    small = [picture.resize((size, size), Image.Resampling.BOX) for picture in (source, target)]
    return Drawing(
        source=np.asarray(small[0].convert("RGB")),
        target=np.asarray(small[1]),
        prompt=f"{circle} circle with {ground} background",
    )


def write_pair(folder: Path, size: int, number: int) -> str:
    """Write the two files if they are not there; the pair's line for the list."""
    drawing = draw(number, size)
    row = {"source": f"source/{number}.png", "target": f"target/{number}.png", "prompt": drawing.prompt}
    for name, pixels in ((row["source"], drawing.source), (row["target"], drawing.target)):
        if not (folder / name).is_file():
            write_whole(folder / name, partial(Image.fromarray(pixels).save, format="PNG"))
    return json.dumps(row)


def write(folder: Path, count: int, size: int, *, workers: int = 0) -> Iterator[int]:
    """Write the set in parallel, the list at the end; yields how many pairs are there.

    Called again it goes on. Raises DataError for a folder with other files, or with such a set of another size.
    """
    claim(folder, size)
    (folder / "source").mkdir(exist_ok=True)
    (folder / "target").mkdir(exist_ok=True)
    lines: list[str] = []
    with processes(workers) as pool:
        for line in pool.map(partial(write_pair, folder, size), range(count), chunksize=CHUNK):
            lines.append(line)
            yield len(lines)
    write_whole(
        folder / FILL50K, lambda path: path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    )


def claim(folder: Path, size: int) -> None:
    """Make the folder ours, or see that it is."""
    note = folder / "fill50k.json"
    if note.is_file():
        if (had := read_note(note, "size")["size"]) != size:
            raise DataError(f"{folder} has pictures of {had} pixels; asked for are {size}. Choose another folder.")
    elif folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty, and not from this command. Choose another folder.")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(note, lambda path: path.write_text(json.dumps({"size": size}), encoding="utf-8"))
