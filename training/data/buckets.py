"""Aspect buckets: shapes of about one area, so that pictures need little cropping and all fill the same memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import DataError
from .decoding import Size

LONGEST = 2.0
"""Largest ratio of the sides."""


def shapes(resolution: int, multiple: int, *, aspects: bool) -> tuple[Size, ...]:
    """Heights and widths of at most resolution x resolution pixels, each side a multiple; the square alone or all.

    Raises DataError for a resolution that is no multiple.
    """
    if resolution % multiple:
        near = max(round(resolution / multiple), 1) * multiple
        raise DataError(f"data.resolution is {resolution}; this base takes multiples of {multiple}. Set it to {near}.")
    if not aspects:
        return ((resolution, resolution),)
    sides = range(multiple, int(resolution * math.sqrt(LONGEST)) // multiple * multiple + 1, multiple)
    found: set[Size] = set()
    for long in sides:
        short = resolution * resolution // long // multiple * multiple
        if resolution <= long <= short * LONGEST:
            found |= {(short, long), (long, short)}
    return tuple(sorted(found))


def nearest(size: Size, among: Sequence[Size]) -> Size:
    """The shape whose proportions are most like those of a picture; the largest of them if several are."""
    wanted = math.log(size[0] / size[1])
    return min(among, key=lambda shape: (abs(math.log(shape[0] / shape[1]) - wanted), -shape[0] * shape[1]))
