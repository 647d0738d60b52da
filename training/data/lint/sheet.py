"""The contact sheet: picture, hint and both together, what was found written above, the worst first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..decoding import PictureError
from ..pairs import Pair
from ..pictures import Picture
from .run import Looked

CELL = 176
"""Pixels of each picture."""
LABEL = 30
ACROSS = 3
MOST, FLAGGED = 24, 18
"""Pairs on the sheet, and those of them with findings."""
GROUND, GREY, RED, AMBER = (24, 24, 27), (212, 212, 216), (248, 113, 113), (251, 191, 36)


def contact_sheet(looked: Looked) -> Image.Image:
    """An RGB picture of up to 24 pairs, of which those with findings come first."""
    chosen = list(chosen_pairs(looked))
    rows = max(-(-len(chosen) // ACROSS), 1)
    sheet = Image.new("RGB", (ACROSS * 3 * CELL + (ACROSS - 1) * 12, rows * (CELL + LABEL + 8)), GROUND)
    for place, (pair, codes, severe) in enumerate(chosen):
        left, top = place % ACROSS * (3 * CELL + 12), place // ACROSS * (CELL + LABEL + 8)
        write(sheet, (left + 4, top + 3), pair.key, GREY)
        write(
            sheet,
            (left + 4, top + 16),
            ", ".join(codes) or "nothing found",
            RED if severe else AMBER if codes else GREY,
        )
        for column, picture in enumerate(pictures(pair)):
            sheet.paste(picture, (left + column * CELL, top + LABEL))
    return sheet


def save(looked: Looked, path: Path) -> None:
    """Write it in the format of the suffix."""
    contact_sheet(looked).save(path, quality=90)


def chosen_pairs(looked: Looked) -> Iterator[tuple[Pair, list[str], bool]]:
    """Pair, codes of findings, and whether one of them is an error: some of each kind of finding, then clean ones."""
    codes: dict[str, list[str]] = {}
    for finding in looked.report.findings:
        for key in finding.keys:
            codes.setdefault(key, []).append(finding.code)
    errors = set(looked.report.quarantine)
    kinds = max(len({finding.code for finding in looked.report.findings if finding.keys}), 1)
    first = [key for finding in looked.report.findings for key in finding.keys[: max(FLAGGED // kinds, 1)]]
    pairs = {one.pair.key: one.pair for one in looked.facts}
    flagged = list(dict.fromkeys(key for key in [*first, *codes] if key in pairs))
    clean = [key for key in pairs if key not in codes]
    for key in [*flagged[: FLAGGED if clean else MOST], *clean][:MOST]:
        yield pairs[key], codes.get(key, []), key in errors


def pictures(pair: Pair) -> Iterator[Image.Image]:
    """CELL CELL each: the picture, its hint, and the hint's light in red over the darkened picture."""
    image = small(pair.image) or broken()
    hint = small(pair.hint) if pair.hint else None
    yield image
    if pair.hint is None:
        return
    yield hint or broken()
    if hint is not None:
        light = np.asarray(hint.convert("L"), dtype=np.float32)[..., None] / 255
        base = np.asarray(image, dtype=np.float32) * 0.6
        yield Image.fromarray((base * (1 - light) + np.asarray([255, 40, 40]) * light).astype(np.uint8))


def small(picture: Picture) -> Image.Image | None:
    """CELL CELL with all of the picture in it, or None for one that cannot be read."""
    try:
        pixels = picture.read()
    except PictureError:
        return None
    image = ImageOps.contain(Image.fromarray(pixels), (CELL, CELL))
    cell = Image.new("RGB", (CELL, CELL))
    cell.paste(image, ((CELL - image.width) // 2, (CELL - image.height) // 2))
    return cell


def broken() -> Image.Image:
    """In place of a picture that cannot be read."""
    cell = Image.new("RGB", (CELL, CELL), (63, 20, 20))
    write(cell, (CELL // 2 - 36, CELL // 2 - 6), "unreadable", RED)
    return cell


def write(sheet: Image.Image, place: tuple[int, int], text: str, colour: Sequence[int]) -> None:
    """One line, cut at the width of a pair."""
    ImageDraw.Draw(sheet).text(place, text[:84], fill=tuple(colour), font=ImageFont.load_default(11))
