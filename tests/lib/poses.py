"""A standing person for pose tests, and the dialects of POSE_KEYPOINT that it may come in."""

from __future__ import annotations

from typing import Any

import numpy as np
from controlnet_kit.cn_core.preprocess.pose.keypoints import Frame, Person, Points

WIDTH, HEIGHT = 400, 480
BODY = [
    *((200, 80), (200, 130), (160, 130), (140, 190), (130, 250), (240, 130), (260, 190), (270, 250)),
    *((180, 260), (175, 340), (170, 420), (220, 260), (225, 340), (230, 420)),
    *((190, 70), (210, 70), (175, 78), (225, 78)),
]
"""Nose, neck, right arm, left arm, right leg, left leg, eyes, ears; mirrored at x = 200."""
FEET = [(240, 440), (245, 438), (226, 430), (160, 440), (155, 438), (174, 430)]


def certain(places: Any, confidence: float = 0.9) -> Points:
    """N 2 -> N 3."""
    places = np.asarray(places, np.float32)
    return np.concatenate([places, np.full((len(places), 1), confidence, np.float32)], axis=1)


def hand(x: float, y: float) -> Points:
    """Five straight fingers that hang from a wrist, two pixels aside for each."""
    fingers = [(x + 6 * (finger - 2), y + 6 * joint) for finger in range(5) for joint in range(1, 5)]
    return certain([(x, y), *fingers])


def face(x: float, y: float) -> Points:
    """Points on a circle; the last two are the eyes."""
    turns = np.arange(70) * (2 * np.pi / 70)
    return certain(np.stack([x + 28 * np.cos(turns), y + 34 * np.sin(turns)], axis=1))


def person(right: float = 0.0, down: float = 0.0, *, whole: bool = True) -> Person:
    """The person, moved; `whole`: with hands, face and feet."""
    shift = np.array([right, down, 0], np.float32)
    body = certain(BODY) + shift
    if not whole:
        return Person(body=body)
    parts = {"face": face(200, 80), "left_hand": hand(270, 252), "right_hand": hand(130, 252), "foot": certain(FEET)}
    return Person(body=body, **{part: points + shift for part, points in parts.items()})


def frame(*people: Person, width: int = WIDTH, height: int = HEIGHT) -> Frame:
    """A picture of them."""
    return Frame(people=people, width=width, height=height)


def flat(points: Any) -> list[float]:
    """N 3 -> x, y, confidence, x, ..."""
    return np.asarray(points, np.float64).flatten().tolist()


def core_dialect() -> list[dict[str, Any]]:
    """What the host's SDPose writes: pixels, real scores, -1 for what is invalid, all parts."""
    one = person()
    body = one.body.copy()
    body[17] = [-1, -1, 0.1]
    return [
        {
            "canvas_width": WIDTH,
            "canvas_height": HEIGHT,
            "people": [
                {
                    "pose_keypoints_2d": flat(body),
                    "foot_keypoints_2d": flat(one.foot),
                    "face_keypoints_2d": flat(one.face),
                    "hand_right_keypoints_2d": flat(one.right_hand),
                    "hand_left_keypoints_2d": flat(one.left_hand),
                }
            ],
        }
    ]


def aux_dialect(scale: tuple[float, float] = (1, 1)) -> list[dict[str, Any]]:
    """comfyui_controlnet_aux's DWPose: confidence 1 or 0, None for missing parts; OpenPose's with a scale to shares."""
    body = certain(BODY, 1.0) * np.array([*scale, 1], np.float32)
    body[17] = 0
    parts = {"face_keypoints_2d": None, "hand_left_keypoints_2d": None, "hand_right_keypoints_2d": None}
    return [
        {
            "people": [{"pose_keypoints_2d": flat(body), **parts}],
            "canvas_width": WIDTH,
            "canvas_height": HEIGHT,
        }
    ]
