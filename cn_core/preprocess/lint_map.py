"""What is wrong with a control map before it is used: its polarity, colours, levels, size and the width of its lines.

    for finding in lint("depth", maps, target=(1024, 1024)): print(finding.text)

Shapes: B batch, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..lines import Size
from .frames import Frame, checked
from .lint_size import size_problems
from .looks import POSE_GROUND, best_palette, front, is_grey, look, palette_share, unit_pixels
from .map_kinds import LIGHT_ON_DARK, MapKind
from .normal_axes import flipped_axis

INVERTED = "looks like black lines on white; ControlNets expect white on black. Invert it."
FULL = 0.5
"""Share of a line map that is white from which on it says nothing."""
GREY_GROUND = 0.3
"""Median of a map of soft lines that is full of texture; that of a grey photograph is higher."""
FEWEST_BANDS, BANDS = 8, 64
"""From so many levels on and up to so many a depth map has visible steps."""
ONE_BY_ONE = 0.7
"""Share of a depth map's steps that lead to the next level, if it is the levels that are too few."""
NARROW = 0.25
"""Least range of a depth map."""
UNIT_NORMALS = 0.6
"""Least share of the pixels of a normal map, ground apart, with vectors of length 1."""
IN_PALETTE, BLENDED = 0.5, 0.98
"""Share of a segmentation map in its palette: less is another palette, in between are blended borders."""
CLEARLY = 0.1
"""How much more of it has to be in the palette with its channels exchanged."""
ALIKE: Mapping[MapKind, MapKind] = {"soft lines": "lines"}
"""Kinds that cannot be told apart for sure."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    code: str
    """For programs: "inverted"."""
    text: str
    """For people: what it is, and what to do."""
    pictures: tuple[int, ...] = (0,)
    """Which of the batch, from 0."""


Problem = tuple[str, str]
"""(code, text) of one picture."""


def lint(kind: MapKind, maps: Tensor, *, target: Size | None = None, palette: str = "ADE20K") -> tuple[Finding, ...]:
    """Check maps of a kind, B 3 H W in [0, 1]; `target` is height and width of the picture to be made.

    palette: the data set of a segmentation ControlNet. Nothing is certain here: photographs may look like maps. Raises
    HintError for what is no batch of pictures.
    """
    frames = [one.movedim(0, -1).numpy() for one in checked(maps).detach().float().cpu().clamp(0, 1)]
    found: dict[Problem, list[int]] = {}
    for index, frame in enumerate(frames):
        for problem in problems(kind, frame, target, palette):
            found.setdefault(problem, []).append(index)
    return tuple(Finding(code=code, text=text, pictures=tuple(pictures)) for (code, text), pictures in found.items())


def problems(kind: MapKind, frame: Frame, target: Size | None, palette: str) -> Iterator[Problem]:
    """Of one picture, H W 3 float32."""
    if (empty := emptiness(frame)) is not None:
        yield "empty", empty
        return
    if kind in LIGHT_ON_DARK and is_inverted(frame):
        yield "inverted", f"It {INVERTED}"
    elif kind == "segmentation":
        yield from palette_problems(frame, palette)
    elif kind in CHECKS:
        yield from CHECKS[kind](frame)
    if target is not None:
        yield from size_problems(kind, frame, target)


def emptiness(frame: Frame) -> str | None:
    """What a map of one colour is, in words; None for all others."""
    if np.ptp(frame.reshape(-1, 3), axis=0).max() > 0:
        return None
    level = float(frame.mean())
    colour = "black" if level == 0 else "white" if level == 1 else "of one colour"
    return f"It is {colour} everywhere: it controls nothing. Look at the node that made it."


def is_inverted(frame: Frame) -> bool:
    """Whether H W 3 is a drawing, dark on light."""
    seen = look(frame)
    return seen is not None and seen.inverted


def is_map(kind: MapKind, frame: Frame) -> bool:
    """Whether H W 3 float32 looks like a finished map of the kind, so that it is not to be processed once more."""
    seen = look(frame)
    if seen is None or seen.inverted or kind == "picture":
        return False
    return ALIKE.get(seen.kind, seen.kind) == ALIKE.get(kind, kind)


def upright(kind: MapKind, maps: Tensor) -> Tensor:
    """B 3 H W in [0, 1] with those inverted that look dark on light where the kind is light on dark."""
    if kind not in LIGHT_ON_DARK:
        return maps
    frames = (one.movedim(0, -1).numpy() for one in checked(maps).detach().float().cpu())
    return torch.stack([1 - one if is_inverted(frame) else one for one, frame in zip(maps, frames, strict=True)])


def line_problems(frame: Frame) -> Iterator[Problem]:
    """Of drawings that are light on dark."""
    seen, level = look(frame), frame.max(axis=-1)
    as_lines = seen is not None and seen.kind in ("lines", "soft lines", "mask")
    if not as_lines and (not is_grey(frame) or np.median(level) > GREY_GROUND):
        yield "no map", "It does not look like lines on black. If it is a photograph, put a preprocessor before it."
    elif (share := float((level > 0.5).mean())) > FULL:
        yield "full", f"{100 * share:.0f} % of it is white, where lines are a few. Raise the thresholds."


def pose_problems(frame: Frame) -> Iterator[Problem]:
    """Of skeletons."""
    if (frame.max(axis=-1) < 0.1).mean() < POSE_GROUND:
        yield "no map", "It does not look like a pose on black. If it is a photograph, put a pose detector before it."


def depth_problems(frame: Frame) -> Iterator[Problem]:
    """Of depth maps."""
    if not is_grey(frame):
        yield "coloured", "A depth map is grey, and this one has colours. Connect the depth itself, not its picture."
        return
    level = frame.mean(axis=-1)
    low, high = (float(one) for one in np.quantile(level, (0.005, 0.995)))
    if high - low < NARROW:
        yield "flat", f"Its levels only go from {low:.2f} to {high:.2f}. Stretch them with Depth Remap."
    levels, banded = steps_of(level)
    if banded:
        yield (
            "banded",
            f"It has {levels} levels: surfaces become steps. Make it in floats or 16 bits, and stretch it before it is "
            "saved.",
        )
    seen = look(frame)
    if seen is not None and seen.kind in ("lines", "soft lines"):
        yield "no map", "It looks like a drawing of lines, not like depth. Connect a depth map."


def steps_of(level: Frame) -> tuple[int, bool]:
    """Levels of H W, and whether they are few and surfaces climb them one by one.

    Painted depth has few levels too, but goes from any of them to any other where things end.
    """
    levels, ranks = np.unique(np.rint(level * 65535).astype(np.int64), return_inverse=True)
    if not FEWEST_BANDS <= len(levels) < BANDS:
        return len(levels), False
    climbs = np.abs(np.diff(ranks.reshape(level.shape), axis=0))
    return len(levels), bool((climbs[climbs > 0] == 1).mean() > ONE_BY_ONE)


def normal_problems(frame: Frame) -> Iterator[Problem]:
    """Of normal maps in ControlNet's colours: red left, green up, blue to the front."""
    if unit_pixels(frame) < UNIT_NORMALS:
        yield (
            "no map",
            "Its colours are no normals: they do not have the length 1. Put a normal preprocessor before it.",
        )
        return
    if (channel := front(frame)) != 2:
        yield (
            "channels",
            f"Its {('red', 'green')[channel]} points to the front, which is blue's. Exchange the channels.",
        )
        return
    if flipped_axis(frame):
        yield (
            "flipped",
            (
                "Its red or its green seems to run the other way than ControlNets expect (red left, green up), as in "
                "OpenGL's convention. Invert the red channel."
            ),
        )


def palette_problems(frame: Frame, palette: str) -> Iterator[Problem]:
    """Of segmentation maps."""
    share = palette_share(frame, palette)
    if share >= BLENDED:
        return
    if palette_share(frame[..., ::-1], palette) >= max(IN_PALETTE, share + CLEARLY):
        yield "channels", f"Its colours are {palette}'s with red and blue exchanged. Exchange the channels."
    elif share >= IN_PALETTE:
        yield (
            "blended",
            (
                f"{100 * (1 - share):.0f} % of it is in no colour of {palette}, as after resizing or compression. Put "
                "Segmentation Palette behind it."
            ),
        )
    else:
        other, most = best_palette(frame)
        whose = f"they are {other}'s" if other != palette and most >= IN_PALETTE else "they may be a photograph's"
        yield (
            "palette",
            (
                f"Only {100 * share:.0f} % of its colours are {palette}'s, which the ControlNet knows; {whose}. Choose "
                "the palette in the node that made it."
            ),
        )


CHECKS: Mapping[MapKind, Callable[[Frame], Iterator[Problem]]] = {
    "lines": line_problems,
    "soft lines": line_problems,
    "pose": pose_problems,
    "depth": depth_problems,
    "normal": normal_problems,
}
