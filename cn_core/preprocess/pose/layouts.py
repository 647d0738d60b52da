"""Which point of other skeletons is which of ours: COCO's 17, OpenPose's 25 (BODY_25), COCO-WholeBody's 133.

Shapes: N 3 points as in `keypoints`.
"""

from __future__ import annotations

import numpy as np

from .keypoints import LENGTHS, Points

NAMES = {
    "body": ("pose_keypoints_2d", "pose_keypoints"),
    "face": ("face_keypoints_2d", "face_keypoints"),
    "left_hand": ("hand_left_keypoints_2d", "hand_left_keypoints"),
    "right_hand": ("hand_right_keypoints_2d", "hand_right_keypoints"),
    "foot": ("foot_keypoints_2d",),
}
"""Part -> its names in JSON: the common one, and that of OpenPose before 1.3."""
COUNTS = {"body": (17, 18, 25, 133), "face": (68, 70), "left_hand": (21,), "right_hand": (21,), "foot": (6,)}
"""Part -> the numbers of points that it comes with."""
FROM_COCO = [0, -1, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
"""For each of our 18 points COCO's, which has no neck."""
SHOULDERS = [5, 6]
"""COCO's."""
FROM_BODY_25 = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
"""For each of our 18 points BODY_25's; its 8 is the middle of the hips, and its feet follow."""
BODY_25_FEET = 19
WHOLE_BODY = {"foot": (17, 23), "face": (23, 91), "left_hand": (91, 112), "right_hand": (112, 133)}
"""Part -> where it is among COCO-WholeBody's 133 points, of which the first 17 are COCO's body."""


def split(points: Points) -> dict[str, Points]:
    """A body of any known number of points -> our parts, those that it has."""
    count = len(points)
    if count == LENGTHS["body"]:
        return {"body": points}
    if count == 25:
        return {"body": points[FROM_BODY_25], "foot": points[BODY_25_FEET:]}
    parts = {"body": from_coco(points[:17])}
    if count == 133:
        parts |= {part: points[start:end] for part, (start, end) in WHOLE_BODY.items()}
        parts["face"] = full_face(parts["face"])
    return parts


def from_coco(points: Points) -> Points:
    """17 3 -> 18 3: the neck is the middle of the shoulders, as sure as the less certain of them."""
    body = points[FROM_COCO]
    shoulders = points[SHOULDERS]
    certain = shoulders[:, 2].min()
    body[1] = [*shoulders[:, :2].mean(axis=0), certain] if certain > 0 else 0
    return body


def full_face(points: Points) -> Points:
    """68 3 or 70 3 -> 70 3: the eyes that some detectors add are missing."""
    return np.concatenate([points, np.zeros((LENGTHS["face"] - len(points), 3), np.float32)])
