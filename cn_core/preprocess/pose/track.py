"""Who is who from frame to frame: people followed over a film by where they are.

Shapes: T frames, N 3 points of a person (all parts) as in `keypoints`, P people.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .edit import center
from .keypoints import Frame, Person, PoseError, everything, from_everything, seen

Track: TypeAlias = NDArray[np.float32]
"""T N 3 of one person, zeros in frames without them."""
FARTHEST_STEP = 0.15
"""Share of the canvas's diagonal that a person moves at most between two frames in which they are seen."""
MAX_NUMBERS = 1 << 28
"""In all tracks together: 1 GB."""


def tracks(frames: tuple[Frame, ...]) -> list[Track]:
    """Each person of the film; all frames have the same canvas.

    Nearest pairs first, between the middles of what is seen now and when a person was seen last. Raises PoseError if
    there are too many people who come and go.
    """
    reach = FARTHEST_STEP * np.hypot(frames[0].width, frames[0].height)
    films: list[dict[int, Person]] = []
    lasts: NDArray[np.float64] = np.zeros((0, 2))
    for time, frame in enumerate(frames):
        people = [person for person in frame.people if seen(everything(person)).any()]
        places = np.array([center(person) for person in people], np.float64).reshape(-1, 2)
        chosen = matched(lasts, places, reach)
        for index, person in enumerate(people):
            if chosen[index] < 0:
                films.append({time: person})
                lasts = np.concatenate([lasts, places[index : index + 1]])
            else:
                films[chosen[index]][time] = person
                lasts[chosen[index]] = places[index]
        if len(films) * len(frames) * 136 * 3 > MAX_NUMBERS:
            raise PoseError(
                f"There are {len(films)} different people by frame {time} of {len(frames)}, which is too much to "
                "follow. Pick the people first, or take fewer frames."
            )
    return [filmed(film, len(frames)) for film in films]


def matched(lasts: NDArray[np.float64], places: NDArray[np.float64], reach: float) -> list[int]:
    """Where P people are now -> for each the index of the nearest who was there, -1 for somebody new."""
    distances = np.linalg.norm(lasts[:, None] - places[None], axis=-1)
    chosen, taken = [-1] * len(places), set[int]()
    for index in np.argsort(distances, axis=None, kind="stable"):
        last, now = divmod(int(index), len(places))
        if distances[last, now] > reach:
            break
        if chosen[now] < 0 and last not in taken:
            chosen[now] = last
            taken.add(last)
    return chosen


def filmed(film: dict[int, Person], length: int) -> Track:
    """One person's frames -> T N 3."""
    track = np.zeros((length, 136, 3), np.float32)
    for time, person in film.items():
        track[time] = everything(person)
    return track


def framed(frames: tuple[Frame, ...], films: list[Track]) -> tuple[Frame, ...]:
    """The frames with the people of these tracks, each where they are seen."""
    return tuple(
        replace(frame, people=tuple(from_everything(film[time]) for film in films if seen(film[time]).any()))
        for time, frame in enumerate(frames)
    )
