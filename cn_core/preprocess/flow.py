"""Optical flow between pictures, as the colours that the field knows it by.

Shapes: B batch, H W pixels, 2: motion to the right and down, in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from ..errors import HintError
from .frames import Frame, checked, drawn, in_parallel, read_8bit
from .inpaint import paired
from .settings import Settings, between, one_of

Preset = Literal["ultrafast", "fast", "medium"]
Direction = Literal["forward", "backward"]
SMALLEST = 64
"""DIS gets pictures of at least this many pixels a side: below 32 it fails or even crashes (OpenCV 5.0)."""
SLOWEST = 0.001
"""Pixels: the full colour is no less."""
ARCS = (("red", 15), ("yellow", 6), ("green", 4), ("cyan", 11), ("blue", 13), ("magenta", 6))
"""Colours of the wheel, and how many steps lead to the next one."""


@dataclass(frozen=True, kw_only=True)
class FlowSettings(Settings):
    """How the motion is found and coloured."""

    preset: Preset = field(
        default="medium", metadata=one_of(get_args(Preset), "DIS optical flow's own; medium is the most exact.")
    )
    direction: Direction = field(
        default="forward", metadata=one_of(get_args(Direction), "Where pixels go to, or where they come from.")
    )
    full_color: float = field(
        default=0.0,
        metadata=between(
            0.0, 1000.0, "Motion in pixels that has the full colour; 0: the fastest of all pictures.", step=0.5
        ),
    )


def flow_hint(images: Tensor, following: Tensor | None, settings: FlowSettings) -> Tensor:
    """B 3 H W in [0, 1] -> B 3 H W: the motion from each picture to the one of `following`, coloured; white is none.

    Without `following` the next picture of the batch follows, and the last one has the motion of the one before.
    Raises HintError for a single picture without a following one, and for sizes that differ.
    """
    checked(images)
    if following is not None:
        if checked(following).shape[2:] != images.shape[2:]:
            raise HintError(
                f"The pictures are {size(images)} and {size(following)}; flow needs equal sizes. Resize one."
            )
        count = paired(len(images), len(following), "pictures", "following pictures")
        flows = pair_flows(images.expand(count, -1, -1, -1), following.expand(count, -1, -1, -1), settings)
    elif len(images) > 1:
        count, flows = len(images), pair_flows(images[:-1], images[1:], settings)
        flows = flows[[*range(count - 1), count - 2]]
    else:
        raise HintError(
            "There is one picture; optical flow needs two or more. Connect a batch, or a following picture."
        )
    scale = max(settings.full_color or float(np.sqrt((flows**2).sum(axis=-1).max())), SLOWEST)
    return drawn(images.expand(count, -1, -1, -1), lambda _, index: coloured(flows[index] / scale))


def size(images: Tensor) -> str:
    """Width and height in words."""
    return f"{images.shape[3]}x{images.shape[2]}"


def pair_flows(first: Tensor, second: Tensor, settings: FlowSettings) -> Frame:
    """B 3 H W twice -> B H W 2 float32: DIS (Kroeger 2016)."""
    if settings.direction == "backward":
        first, second = second, first
    one, two = first.detach().cpu(), second.detach().cpu()
    flows = np.empty((len(one), *one.shape[2:], 2), np.float32)

    def work(index: int) -> None:
        flows[index] = dis(grey(one[index]), grey(two[index]), settings.preset)

    in_parallel(work, len(one))
    return flows


def grey(image: Tensor) -> Frame:
    """3 H W -> H W uint8."""
    import cv2

    return cv2.cvtColor(read_8bit(image), cv2.COLOR_RGB2GRAY)


def dis(first: Frame, second: Frame, preset: Preset) -> Frame:
    """H W uint8 twice -> H W 2 float32."""
    import cv2

    height, width = first.shape
    below, beside = max(SMALLEST - height, 0), max(SMALLEST - width, 0)
    padded = [cv2.copyMakeBorder(one, 0, below, 0, beside, cv2.BORDER_REPLICATE) for one in (first, second)]
    finder = cv2.DISOpticalFlow.create(get_args(Preset).index(preset))
    empty = np.zeros((*padded[0].shape, 2), np.float32)
    return finder.calc(padded[0], padded[1], empty)[:height, :width]


def wheel() -> Frame:
    """55 3 float32 in [0, 1]: the colours of directions (Baker 2007, Middlebury's)."""
    corners = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]], np.float32)
    arcs = [
        corners[index]
        + (corners[index + 1] - corners[index]) * (np.floor(255 * np.arange(steps) / steps) / 255)[:, None]
        for index, (_, steps) in enumerate(ARCS)
    ]
    return np.concatenate(arcs).astype(np.float32)


def coloured(flow: Frame) -> Frame:
    """H W 2, where a length of 1 has the full colour -> H W 3 float32: paler when slower, darker when beyond 1."""
    colours = wheel()
    speed = np.sqrt((flow**2).sum(axis=-1))
    turn = (np.arctan2(-flow[..., 1], -flow[..., 0]) / np.pi + 1) / 2 * (len(colours) - 1)
    below = np.floor(turn).astype(np.int32)
    part = (turn - below)[..., None]
    colour = (1 - part) * colours[below] + part * colours[(below + 1) % len(colours)]
    speed = speed[..., None]
    return np.where(speed <= 1, 1 - speed * (1 - colour), colour * 0.75)
