"""What is known of each picture of a data set before it is encoded: size, hash, range. Found out once for each file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from ..errors import DataError
from .decoding import PictureError, Size
from .memo import Memo
from .pairs import Pair, Pairs, each, listed
from .pictures import Picture
from .store import Progress

SMALLEST = 8
"""Pixels of a side: one position of the latent."""
SAME_ASPECT = 0.02
"""By how much the proportions of a hint may differ from its picture's, as a share."""
SAVED_AS_FLOAT = 8
"""A hint whose brightest value is below had values from 0 to 1 when it was saved."""
AS_IT_IS = "a run with --no-lint, and the node with `check_pairs` off, takes it as it is"
BATCH = 512
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, kw_only=True)
class Known:
    """Of one picture."""

    size: Size
    digest: str
    low: int
    high: int
    """Darkest and brightest value of any channel."""


@dataclass(frozen=True, kw_only=True)
class Surveyed:
    """Of one pair; its pictures are not read yet."""

    pair: Pair
    image: Known
    hint: Known | None


def survey(pairs: Pairs, memo: Memo, *, hints: bool, workers: int, progress: Progress) -> list[Surveyed]:
    """All pairs, hints too if they are wanted.

    Raises DataError that names the first of those that cannot be read, are too small, or do not fit their hints.
    """
    found: list[Surveyed] = []
    wrong: dict[str, str] = {}
    todo = each(pairs)
    while part := list(islice(todo, BATCH)):
        known = known_pictures([p for pair in part for p in pictures(pair, hints)], memo, workers)
        for pair in part:
            row = [known[picture.stamp()] for picture in pictures(pair, hints)]
            if problem := fault(row):
                wrong[pair.key] = problem
                continue
            image, *rest = (one for one in row if isinstance(one, Known))
            found.append(Surveyed(pair=pair, image=image, hint=rest[0] if rest else None))
        progress("pictures found", len(found), len(pairs))
    refuse(pairs.name, wrong, len(pairs))
    return found


def check_levels(name: str, found: Sequence[Surveyed]) -> None:
    """Raise DataError for pictures and hints of which nothing can be learned, as `wrong_levels` says."""
    problems = {one.pair.key: wrong_levels(one) for one in found}
    refuse(name, {key: problem for key, problem in problems.items() if problem}, len(problems))


def refuse(name: str, wrong: Mapping[str, str], count: int) -> None:
    """Raise DataError if something is wrong with some of so many pairs."""
    if wrong:
        raise DataError(
            f"{name}: {len(wrong)} of {count} pairs cannot be used ({listed(list(wrong))}); "
            f"{next(iter(wrong.values()))} Put them right, or leave them out with the quarantine list of "
            "`controlnet-kit lint`."
        )


def pictures(pair: Pair, hints: bool) -> list[Picture]:
    """Those of a pair that are needed."""
    return [pair.image, *([pair.hint] if hints and pair.hint is not None else [])]


def fault(row: list[Known | str]) -> str | None:
    """What is wrong with the picture of a pair, and its hint if there is one, or None."""
    for one in row:
        if isinstance(one, str):
            return one
        if min(one.size) < SMALLEST:
            return f"picture or hint is {one.size[1]}x{one.size[0]} pixels; expected at least {SMALLEST} a side."
    sizes = [one.size for one in row if isinstance(one, Known)]
    if len(sizes) == 2 and not same_aspect(*sizes):
        (height, width), (hint_height, hint_width) = sizes
        return (
            f"the picture is {width}x{height} and its hint {hint_width}x{hint_height}; expected the same proportions."
        )
    return None


def wrong_levels(pair: Surveyed) -> str | None:
    """Why nothing can be learned from a picture and its hint, by their darkest and brightest values, or None."""
    for what, one in (("picture", pair.image), ("hint", pair.hint)):
        if one is not None and one.low == one.high:
            return f"the {what} is of one colour: it says nothing ({AS_IT_IS})."
    if pair.hint is not None and pair.hint.high < SAVED_AS_FLOAT:
        return (
            f"the hint's brightest value is {pair.hint.high} of 255, as when values from 0 to 1 are saved as they are "
            f"({AS_IT_IS})."
        )
    return None


def same_aspect(size: Size, other: Size) -> bool:
    """Whether two sizes have about the same proportions; a pixel more or less never matters."""
    expected = size[1] * other[0] / size[0]
    return abs(other[1] - expected) <= max(1.0, SAME_ASPECT * expected)


def known_pictures(wanted: list[Picture], memo: Memo, workers: int) -> dict[str, Known | str]:
    """Stamp -> what is known of the picture, or what is wrong with it. New ones are read, on all cores."""
    stamps = {picture.stamp(): picture for picture in wanted}
    kept = memo.read_all([f"picture {stamp}" for stamp in stamps])
    found: dict[str, Known | str] = {}
    for stamp in stamps:
        values = json.loads(kept.get(f"picture {stamp}", "[]"))
        if len(values) == 5:
            height, width, digest, low, high = values
            found[stamp] = Known(size=(height, width), digest=digest, low=low, high=high)
    new = {stamp: picture for stamp, picture in stamps.items() if stamp not in found}
    fresh = dict(zip(new, threaded(look, new.values(), workers), strict=True))
    readable = {stamp: one for stamp, one in fresh.items() if isinstance(one, Known)}
    if readable:
        memo.write_all({f"picture {stamp}": noted(one) for stamp, one in readable.items()})
    return found | fresh


def noted(one: Known) -> str:
    """For the memo."""
    return json.dumps([*one.size, one.digest, one.low, one.high])


def look(picture: Picture) -> Known | str:
    """What is known of a picture, which is decoded once to see that it can be, or what is wrong with it."""
    try:
        pixels = picture.read()
        size = (pixels.shape[0], pixels.shape[1])
        return Known(size=size, digest=picture.digest(), low=int(pixels.min()), high=int(pixels.max()))
    except PictureError as error:
        return str(error)


def threaded(work: Callable[[In], Out], values: Iterable[In], workers: int) -> Iterator[Out]:
    """`map` with several threads, 0: one for each core. Pillow, OpenCV and hashes let other threads run."""
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        yield from pool.map(work, values)
