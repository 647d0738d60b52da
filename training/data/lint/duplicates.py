"""Pictures that occur twice: the same files, or almost the same pictures.

Shapes: T T 3 thumbnails.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from .facts import Facts, Seen
from .report import Finding

BANDS = 4
"""Of sixteen bits each: fingerprints that differ in at most three bits share one."""
BITS = 3
LEVELS = 3.0
"""Mean difference of two thumbnails, of 255, up to which pictures are almost the same."""
CROWD = 64
"""Neighbours with which each of many similar fingerprints is compared."""


def check_duplicates(facts: Sequence[Facts]) -> Iterator[Finding]:
    """Exact and near duplicates among pictures, and hints that are all one."""
    images = [(one.pair.key, one.image) for one in facts if one.image is not None]
    same = repeated([(key, image.digest) for key, image in images])
    if same:
        text = "The same picture occurs more than once (here all but the first)."
        yield Finding(severity="warning", code="duplicate", keys=tuple(same), text=text)
    near = [key for key in near_duplicates(images) if key not in set(same)]
    if near:
        text = "Almost the same picture occurs more than once (here all but the first)."
        yield Finding(severity="warning", code="near duplicate", keys=tuple(near), text=text)
    hints = repeated([(one.pair.key, one.hint.digest) for one in facts if one.hint and one.hint.low < one.hint.high])
    hints = [key for key in hints if key not in set(same)]
    if hints:
        text = "Different pictures have the very same hint (here all but the first)."
        yield Finding(severity="warning", code="same hint", keys=tuple(hints), text=text)


def repeated(digests: Sequence[tuple[str, str]]) -> list[str]:
    """The keys whose hash occurred before."""
    seen: set[str] = set()
    found: list[str] = []
    for key, digest in digests:
        if digest in seen:
            found.append(key)
        seen.add(digest)
    return found


def near_duplicates(images: Sequence[tuple[str, Seen]]) -> list[str]:
    """The keys of pictures that almost equal one before them, in order."""
    found: set[int] = set()
    for later, earlier in candidates([image.fingerprint for _, image in images]):
        one, other = images[later][1], images[earlier][1]
        if (one.fingerprint ^ other.fingerprint).bit_count() > BITS or later in found:
            continue
        difference = np.abs(one.thumb.astype(np.float32) - other.thumb).mean()
        if difference <= LEVELS and one.digest != other.digest:
            found.add(later)
    return [images[row][0] for row in sorted(found)]


def candidates(fingerprints: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(later, earlier) rows whose fingerprints share a band; of a crowd each with its nearest neighbours only."""
    for band in range(BANDS):
        shared: dict[int, list[int]] = defaultdict(list)
        for row, fingerprint in enumerate(fingerprints):
            shared[(fingerprint >> (16 * band)) & 0xFFFF].append(row)
        for rows in shared.values():
            rows.sort(key=lambda row: (fingerprints[row], row))
            for place, row in enumerate(rows):
                yield from ((max(row, other), min(row, other)) for other in rows[max(place - CROWD, 0) : place])
