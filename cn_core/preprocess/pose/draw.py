"""Poses on black as ControlNets were trained on them: OpenPose's limbs, joints, hands and faces, with hard edges.

A limb is an ellipse of half-width 4 in 0.6 of its colour, under joints of radius 4; hands are lines of width 2 and blue
points of radius 4, faces white points of radius 3. Shapes: B frames, H W pixels of the canvas, N points.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..frames import MAX_PIXELS
from ..settings import Settings, between, described, one_of
from .keypoints import Frame, Mask, Person, Points, PoseError, on_one_canvas, seen
from .layouts import BODY_25_FEET, FROM_BODY_25

Canvas: TypeAlias = NDArray[np.uint8]
"""H W 3."""
Color: TypeAlias = tuple[int, int, int]

LIMBS_18 = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
"""Both ends of each limb; the colours are the hues 0, 20, 40, ... degrees, in the order of limbs and of joints."""
LIMBS_25 = (
    *((1, 8), (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (10, 11), (8, 12), (12, 13), (13, 14)),
    *((1, 0), (0, 15), (15, 17), (0, 16), (16, 18)),
    *((14, 19), (19, 20), (14, 21), (11, 22), (22, 23), (11, 24)),
)
"""BODY_25's; a limb has the colour of its second end."""
HUES_25 = (17, 0, 1, 2, 3, 4, 5, 6, 0, 7, 8, 9, 10, 11, 12, 16, 14, 15, 13, 12, 12, 12, 9, 9, 9)
"""For each joint its hue in steps of 20 degrees."""
MIDDLE_OF_HIPS, HIPS = 8, [9, 12]
"""Among BODY_25's points."""
FINGERS = tuple((0 if joint % 4 == 1 else joint - 1, joint) for joint in range(1, 21))
"""Both ends of each line of a hand; the hues go once around."""
JOINT_RADIUS, FACE_RADIUS, FINGER_WIDTH, LIMB_LIGHT = 4, 3, 2, 0.6
WHITE, BLUE = (255, 255, 255), (0, 0, 255)
REACH = 32767
"""Pixels from the origin: OpenCV draws nothing that is farther away."""
MAX_BATCH_PIXELS = 1 << 30
"""Of all pictures together: 12 GB of floats."""


@dataclass(frozen=True, kw_only=True)
class DrawSettings(Settings):
    """What is drawn."""

    skeleton: str = field(
        default="OpenPose 18",
        metadata=one_of(("OpenPose 18", "OpenPose 25"), "18: what ControlNets know. 25: with the middle of the hips."),
    )
    body: bool = field(default=True, metadata=described("Limbs and joints of the body."))
    hands: bool = field(default=True, metadata=described("Fingers."))
    face: bool = field(default=True, metadata=described("Points of the face."))
    feet: bool = field(
        default=False, metadata=described("Toes and heels; ControlNets for 18 points have not seen any.")
    )
    threshold: float = field(default=0.3, metadata=between(0.0, 1.0, "Points that are less certain are not drawn."))
    limb_width: int = field(
        default=4, metadata=between(1, 64, "Half the width of a limb, in pixels; ControlNets were trained with 4.")
    )
    xinsir: bool = field(
        default=False,
        metadata=described("Widen the limbs with the size of the picture, as xinsir's ControlNets want them."),
    )


def draw(frames: tuple[Frame, ...], settings: DrawSettings, *, width: int = 0, height: int = 0) -> Tensor:
    """Frames -> B 3 H W in [0, 1], on a canvas of this size; where a side is 0, of the first frame's.

    A frame without visible people is black: `empty` says so. Raises PoseError if the pictures are too large.
    """
    frames = checked(on_one_canvas(frames, width, height))
    pictures = torch.empty(len(frames), frames[0].height, frames[0].width, 3)
    for frame, picture in zip(frames, pictures, strict=True):
        picture.copy_(torch.from_numpy(drawing(frame, settings)))
    return pictures.div_(255).movedim(-1, 1)


def checked(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """The same value. Raises PoseError if pictures of it take too much memory."""
    width, height = frames[0].width, frames[0].height
    pixels = width * height
    if pixels > MAX_PIXELS or pixels * len(frames) > MAX_BATCH_PIXELS:
        raise PoseError(
            f"The poses are {len(frames)} pictures of {width}x{height} pixels; at most {MAX_PIXELS} pixels a picture "
            f"and {MAX_BATCH_PIXELS} in all can be drawn. Set a smaller width and height, or draw fewer frames."
        )
    return frames


def empty(pictures: Tensor) -> list[int]:
    """B 3 H W -> the places in the batch of those that are all black."""
    return [index for index, picture in enumerate(pictures) if not picture.any()]


def drawing(frame: Frame, settings: DrawSettings) -> Canvas:
    """One frame on black."""
    canvas = np.zeros((frame.height, frame.width, 3), np.uint8)
    for person in frame.people:
        if settings.body:
            draw_body(canvas, person, settings)
        if settings.feet and not (settings.body and settings.skeleton == "OpenPose 25"):
            draw_points(canvas, person.foot, settings.threshold, JOINT_RADIUS, [hue(step) for step in range(6)])
        if settings.hands:
            draw_hand(canvas, person.left_hand, settings.threshold)
            draw_hand(canvas, person.right_hand, settings.threshold)
        if settings.face:
            draw_points(canvas, person.face, settings.threshold, FACE_RADIUS, [WHITE] * len(person.face))
    return canvas


def draw_body(canvas: Canvas, person: Person, settings: DrawSettings) -> None:
    """Limbs, then joints, in place."""
    import cv2

    half = settings.limb_width * (xinsir_scale(max(canvas.shape)) if settings.xinsir else 1)
    if settings.skeleton == "OpenPose 18":
        points, limbs, joint_hues = person.body, LIMBS_18, tuple(range(18))
        limb_hues = tuple(range(len(limbs)))
    else:
        points, limbs, joint_hues = body_25(person, settings.feet), LIMBS_25, HUES_25
        limb_hues = tuple(HUES_25[end] for _, end in limbs)
    visible = drawn(points, settings.threshold)
    for (start, end), step in zip(limbs, limb_hues, strict=True):
        if visible[start] and visible[end]:
            (x, y), (right, down) = points[[start, end], :2].mean(axis=0), points[end, :2] - points[start, :2]
            size = (float(np.hypot(right, down)), 2.0 * half)
            box = ((float(x), float(y)), size, float(np.degrees(np.arctan2(down, right))))
            cv2.ellipse(canvas, box, hue(step, LIMB_LIGHT), cv2.FILLED)
    draw_points(canvas, points, settings.threshold, JOINT_RADIUS, [hue(step) for step in joint_hues])


def draw_hand(canvas: Canvas, points: Points, threshold: float) -> None:
    """Five fingers from the wrist, then their points, in place."""
    import cv2

    visible = drawn(points, threshold)
    for index, (start, end) in enumerate(FINGERS):
        if visible[start] and visible[end]:
            color = rgb(index / len(FINGERS))
            cv2.line(canvas, pixel(points[start]), pixel(points[end]), color, FINGER_WIDTH)
    draw_points(canvas, points, threshold, JOINT_RADIUS, [BLUE] * len(points))


def draw_points(canvas: Canvas, points: Points, threshold: float, radius: int, colors: list[Color]) -> None:
    """A disc at each visible point, in place."""
    import cv2

    for point, visible, color in zip(points, drawn(points, threshold), colors, strict=True):
        if visible:
            cv2.circle(canvas, pixel(point), radius, color, cv2.FILLED)


def drawn(points: Points, threshold: float) -> Mask:
    """N 3 -> N bool: certain enough, and not too far away to be drawn."""
    return seen(points, threshold) & (abs(points[:, :2]) < REACH).all(axis=1)


def body_25(person: Person, feet: bool) -> Points:
    """25 3 in BODY_25's order; the middle of the hips is as certain as the less certain of them."""
    points = np.zeros((len(HUES_25), 3), np.float32)
    points[FROM_BODY_25] = person.body
    hips = points[HIPS]
    if seen(hips).all():
        points[MIDDLE_OF_HIPS] = [*hips[:, :2].mean(axis=0), hips[:, 2].min()]
    if feet:
        points[BODY_25_FEET:] = person.foot
    return points


def xinsir_scale(long_side: int) -> int:
    """How much wider xinsir's ControlNets want limbs on a picture with this long side."""
    return 1 if long_side < 500 else min(2 + long_side // 1000, 7)


def hue(step: int, light: float = 1.0) -> Color:
    """The colour at a multiple of 20 degrees."""
    return rgb(step / 18, light)


def rgb(turn: float, light: float = 1.0) -> Color:
    """A pure colour, 0 to 255; the hue in turns from red over green."""
    red, green, blue = (int(255 * level + 1e-6) for level in colorsys.hsv_to_rgb(turn, 1, 1))
    return int(red * light), int(green * light), int(blue * light)


def pixel(point: Points) -> tuple[int, int]:
    """The pixel that a point is in."""
    return round(float(point[0])), round(float(point[1]))
