"""What is seen of each pair when it is looked at: read once, kept small.

Shapes: H W pixels; S = SIDE of the pictures that are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ....cn_core.preprocess.lint_map import problems
from ....cn_core.preprocess.looks import look
from ....cn_core.preprocess.map_kinds import MapKind
from ..augment import cut_image, place
from ..decoding import PictureError, Pixels, Size
from ..hints import HintMaker
from ..pairs import Pair

SIDE = 64
"""Of the small pictures in which pairs are compared."""
BLUR = 1.5
"""Deviation in pixels of those."""
THUMB = 16
LONGEST = 1024
"""Pixels of the longer side at which maps are looked at."""
Level: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Of one picture."""

    size: Size
    digest: str
    fingerprint: int
    """64 bits: which of neighbouring areas is brighter."""
    thumb: Pixels
    """THUMB THUMB 3."""
    low: int
    high: int
    """Darkest and brightest value of any channel."""


@dataclass(frozen=True, kw_only=True)
class SeenHint:
    """Of a hint, beside that."""

    kind: MapKind | None
    """What it looks like."""
    checked_as: MapKind | None
    """What `problems` are about."""
    problems: tuple[tuple[str, str], ...] = ()
    """(code, text) of its kind's checks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """Of one pair."""

    pair: Pair
    fault: str | None = None
    """Why it cannot be read; then there is nothing else."""
    image: Seen | None = None
    hint: Seen | None = None
    seen_hint: SeenHint | None = None
    agreement: float = 0.0
    """Correlation of its maps; 0 without any."""
    exchanged: float = 0.0
    """The same with the hint's red and blue exchanged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Maps:
    """Of one pair, to compare it with others; too large to be kept for all of a set."""

    key: str
    digest: str
    """The hint's."""
    image: Level
    """C S S: edges of the picture, or its hint made anew; comparable with that of any other hint."""
    hint: Level


def facts_of(pair: Pair, maker: HintMaker | None, kind: MapKind | None, *, given: bool) -> tuple[Facts, Maps | None]:
    """Read a pair and look at it. With a preprocessor its hint is made again; `kind` says what hints should be.

    There are no maps where picture or hint is of one colour.
    """
    try:
        pixels = pair.image.read()
        image = seen(pixels, pair.image.digest())
        if not given or pair.hint is None:
            return Facts(pair=pair, image=image), None
        hint_pixels = pair.hint.read()
        hint = seen(hint_pixels, pair.hint.digest())
    except PictureError as error:
        return Facts(pair=pair, fault=str(error)), None
    ours = edge_map(pixels) if maker is None else redone(pixels, hint.size, maker, pair.key)
    theirs = edge_map(hint_pixels) if maker is None else level_map(hint_pixels)
    facts = Facts(
        pair=pair,
        image=image,
        hint=hint,
        seen_hint=look_at(hint_pixels, kind),
        agreement=float((ours * theirs).sum()),
        exchanged=float((ours * theirs[::-1]).sum()),
    )
    there = ours.any() and theirs.any()
    return facts, Maps(key=pair.key, digest=hint.digest, image=ours, hint=theirs) if there else None


def seen(pixels: Pixels, digest: str) -> Seen:
    """Look at one picture."""
    import cv2

    thumb = cv2.resize(pixels, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    grey = cv2.resize(pixels, (9, 8), interpolation=cv2.INTER_AREA).mean(axis=-1)
    bits = np.packbits(np.diff(grey, axis=1) > 0).tobytes()
    return Seen(
        size=(pixels.shape[0], pixels.shape[1]),
        digest=digest,
        fingerprint=int.from_bytes(bits, "big"),
        thumb=thumb.astype(np.uint8),
        low=int(pixels.min()),
        high=int(pixels.max()),
    )


def look_at(pixels: Pixels, kind: MapKind | None) -> SeenHint:
    """What a hint looks like, and what is wrong with it as a map of a kind (None: of what it looks like)."""
    step = max(max(pixels.shape) // LONGEST, 1)
    frame = pixels[::step, ::step].astype(np.float32) / 255
    found = look(frame)
    expected = kind or (found.kind if found else None)
    wrong = tuple(problems(expected, frame, None, "ADE20K")) if expected else ()
    return SeenHint(kind=found.kind if found else None, checked_as=expected, problems=wrong)


def edge_map(pixels: Pixels) -> Level:
    """H W 3 -> 1 S S: where anything changes, whatever it is; mean 0 and norm 1 (all 0 for one colour)."""
    import cv2

    small = cv2.resize(pixels, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    across, down = cv2.Scharr(small, cv2.CV_32F, 1, 0), cv2.Scharr(small, cv2.CV_32F, 0, 1)
    strength = np.sqrt(np.hypot(across, down).max(axis=-1))
    return standard(cv2.GaussianBlur(strength, (0, 0), 2 * BLUR)[..., None])


def level_map(pixels: Pixels) -> Level:
    """H W 3 -> 3 S S: its colours; mean 0 and norm 1."""
    import cv2

    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return standard(np.asarray(cv2.GaussianBlur(small, (0, 0), BLUR), dtype=np.float32))


def standard(values: Level) -> Level:
    """S' S' C -> C S S with mean 0 and norm 1."""
    import cv2

    small = cv2.resize(values, (SIDE, SIDE), interpolation=cv2.INTER_AREA).reshape(SIDE, SIDE, -1)
    centred = small.transpose(2, 0, 1) - small.mean()
    return (centred / max(float(np.linalg.norm(centred)), 1e-6)).astype(np.float32)


def redone(pixels: Pixels, size: Size, maker: HintMaker, key: str) -> Level:
    """The map of the hint that the preprocessor makes of the picture at the hint's size."""
    return level_map(maker([cut_image(pixels, place(pixels.shape[:2], size))], [key])[0])
