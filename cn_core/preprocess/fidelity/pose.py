"""How well people stand where the hint has them: PCK and OKS of keypoints. Shapes: N 3 points as in `..pose.keypoints`.

Only the body counts, and of it only what the hint shows; a point that was not found is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..pose.keypoints import Frame, Person, on_canvas, seen

SIGMAS = np.array(
    [
        *(0.026, np.nan, 0.079, 0.072, 0.062, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089, 0.107, 0.087, 0.089),
        *(0.025, 0.025, 0.035, 0.035),
    ]
)
"""COCO's spread of each point between annotators, in roots of a person's area; the neck, which COCO lacks, has none."""
REACH = 0.1
"""Of PCK, in sides of the person's box."""
Score = Callable[[Person, Person], float]
"""(found, wanted) -> 0 to 1."""


def box(person: Person) -> tuple[float, float]:
    """Width and height in pixels around the body's points, at least one each."""
    places = person.body[seen(person.body), :2]
    if not len(places):
        return 1.0, 1.0
    width, height = np.maximum(places.max(axis=0) - places.min(axis=0), 1)
    return float(width), float(height)


def distances(found: Person, wanted: Person) -> NDArray[np.float64]:
    """18: pixels between the points; infinite where it was not found, NaN where the hint shows none."""
    apart = np.linalg.norm(found.body[:, :2].astype(np.float64) - wanted.body[:, :2], axis=1)
    return np.where(seen(wanted.body), np.where(seen(found.body), apart, np.inf), np.nan)


def pck(found: Person, wanted: Person) -> float:
    """Share of points at most REACH of the longer side of the person's box away (Yang and Ramanan 2013)."""
    apart = distances(found, wanted)
    known = ~np.isnan(apart)
    return float((apart[known] <= REACH * max(box(wanted))).mean()) if known.any() else 1.0


def oks(found: Person, wanted: Person) -> float:
    """COCO's object keypoint similarity: the mean of exp(-d^2 / (2 s^2 k^2)) with k = 2 sigma.

    s^2 is the area of the box around the points: keypoints do not tell that of the person, which COCO has.
    """
    apart = distances(found, wanted)
    known = ~np.isnan(apart) & ~np.isnan(SIGMAS)
    if not known.any():
        return 1.0
    width, height = box(wanted)
    return float(np.exp(-(apart[known] ** 2) / (2 * width * height * (2 * SIGMAS[known]) ** 2)).mean())


def frame_score(found: Frame, wanted: Frame, score: Score) -> float:
    """0 to 1 over all people: each of the hint's with one of the found, the most alike first; who is left over has 0.

    Nobody on either side is a perfect match. `found` is stretched to the canvas of `wanted`.
    """
    theirs, ours = on_canvas(found, wanted.width, wanted.height).people, wanted.people
    if not theirs and not ours:
        return 1.0
    pairs = sorted(
        ((oks(one, other), i, j) for i, one in enumerate(theirs) for j, other in enumerate(ours)), reverse=True
    )
    matched: dict[int, int] = {}
    for _, i, j in pairs:
        if i not in matched and j not in matched.values():
            matched[i] = j
    return sum(score(theirs[i], ours[j]) for i, j in matched.items()) / max(len(theirs), len(ours))


def pose_scores(found: Sequence[Frame], wanted: Sequence[Frame], score: Score) -> tuple[float, ...]:
    """For each frame; one frame that is wanted goes for all that are found."""
    wanted = [*wanted] * len(found) if len(wanted) == 1 else wanted
    return tuple(frame_score(one, other, score) for one, other in zip(found, wanted, strict=True))
