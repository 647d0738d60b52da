"""Batches and video: which hint, mask and strength belongs to which latent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import ControlNetKitError
from .text import STRONGEST, Piece, whole

FrameMode = Literal["cycle", "repeat_last"]
"""When there are fewer hints than latents: begin again, as the host does, or stay at the last one."""

EXAMPLE = "0:8=0.5, -1=0.2"
EXAMPLE_IN_ORDER = "1.0, 0.5, 0"


def frame_indices(available: int, wanted: int, mode: FrameMode, window: Sequence[int] | None = None) -> tuple[int, ...]:
    """For each of `wanted` latents the index of its hint (or mask) among `available` ones; hints left over are unused.

    `window` has the number of each latent in the whole video, if these are only some of its frames.
    Raises ControlNetKitError if there is no hint, or if the window is not of `wanted` frames.
    """
    if available < 1:
        raise ControlNetKitError("There is no picture for any frame. Connect one or more.")
    if window is not None and len(window) != wanted:
        raise ControlNetKitError(f"Got {wanted} latents for a context window of {len(window)} frames.")
    frames = range(wanted) if window is None else window
    return tuple(frame % available if mode == "cycle" else min(frame, available - 1) for frame in frames)


@dataclass(frozen=True, kw_only=True)
class FrameRange:
    """Some frames and their strength, in the meaning of Python's slices: negative ones count from the end."""

    start: int | None
    stop: int | None
    strength: float
    """-10 to 10."""

    def __post_init__(self) -> None:
        if not abs(self.strength) <= STRONGEST:
            raise ControlNetKitError(f"A frame of strength {self.strength:g}: strengths go from -10 to 10.")


@dataclass(frozen=True, kw_only=True)
class FrameStrengths:
    """A multiplier for each frame: 1.0 for those that no range names; where ranges overlap the later one wins."""

    ranges: tuple[FrameRange, ...]


def parse_strengths(text: str) -> FrameStrengths:
    """Read "1.0, 0.5, 0" (in order, the last one repeats) or "0:8=0.5, -1=0.2, 9=1" (some frames, from 0).

    Raises ScheduleError.
    """
    if "=" in text:
        return FrameStrengths(ranges=tuple(map(read_range, whole(text, EXAMPLE).split(","))))
    strengths = [entry.strength() for entry in whole(text, EXAMPLE_IN_ORDER).split(",")]
    *stops, _ = range(1, len(strengths) + 1)
    ranges = zip(range(len(strengths)), (*stops, None), strengths, strict=True)
    return FrameStrengths(ranges=tuple(FrameRange(start=a, stop=b, strength=s) for a, b, s in ranges))


def read_range(entry: Piece) -> FrameRange:
    """One "FRAME=STRENGTH" or "START:STOP=STRENGTH", where START and STOP may be left out."""
    if "=" not in entry.text:
        raise entry.error('expected FRAME=STRENGTH, with an "="')
    cut = entry.text.index("=")
    frames, strength = entry.part(0, cut).split(":"), entry.part(cut + 1).strength()
    if len(frames) == 1:
        frame = frames[0].whole_number("the number of a frame")
        return FrameRange(start=frame, stop=frame + 1 or None, strength=strength)
    if len(frames) > 2:
        raise frames[2].error("expected START:STOP without a third number")
    start, stop = (end.whole_number("the number of a frame") if end.text else None for end in frames)
    return FrameRange(start=start, stop=stop, strength=strength)


def values(strengths: FrameStrengths, count: int) -> tuple[float, ...]:
    """The multipliers of `count` frames, of a whole video and not of a context window; ranges beyond have no effect."""
    found = [1.0] * count
    for frames in strengths.ranges:
        for frame in range(*slice(frames.start, frames.stop).indices(count)):
            found[frame] = frames.strength
    return tuple(found)
