"""Do hints belong to their pictures? Each is compared with its own, with those of the others, and turned.

Compared are small maps of edges (or hints made anew): their correlation is 1 for the same and about 0 for strangers.
What is normal is measured on the set itself, since a pose shares few edges with its picture and Canny all of them.

Shapes: N pairs, C S S maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .facts import SIDE, Level, Maps
from .report import Finding

FEWEST = 4
"""Pairs that are needed for any comparison."""
MOST = 400
"""Pairs that are compared with each other; larger sets are compared in parts."""
FOLLOWS = 0.9
"""Median share of other hints that a picture's own has to beat, for the set to follow its hints."""
CHANCE = 0.6
"""Such a share is not clearly more than chance, which is 0.5."""
LOST = 0.5
"""A pair that beats fewer, in a set that follows, does not belong together."""
CLEARLY = 0.15
"""By how much a correlation has to be better to be taken for the right one."""
WEAK, GOOD = 0.5, 0.75
"""Of the usual correlation in a set that follows: below is suspicious, above is a match."""
STRONG = 0.3
"""Least correlation that is a match in a set that does not."""
MANY = 0.3
"""Share of such a set that has to be turned in the same way."""
FAR = 2
"""Pixels of the small maps (of 64) by which a hint may be off."""
TURNS: Mapping[str, Callable[[Level], Level]] = {
    "mirrored": lambda maps: maps[:, :, ::-1],
    "upside down": lambda maps: maps[:, ::-1, :],
    "turned by 180 degrees": lambda maps: maps[:, ::-1, ::-1],
}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Pairs and how well each picture (rows) agrees with each hint (columns): N N correlations."""

    maps: Sequence[Maps]
    scores: NDArray[np.float64]

    @property
    def own(self) -> NDArray[np.float64]:
        """N: of each picture and its hint."""
        return np.diagonal(self.scores)

    @property
    def beaten(self) -> NDArray[np.float64]:
        """N: the share of the other hints (copies of its own are none) that agree less with a picture than its own."""
        names = np.asarray([one.digest for one in self.maps])
        others = names[:, None] != names[None]
        return ((self.scores < self.own[:, None]) & others).sum(axis=1) / np.maximum(others.sum(axis=1), 1)

    @property
    def best(self) -> NDArray[np.int64]:
        """N: the hint that agrees best with each picture."""
        return self.scores.argmax(axis=1)


def parts(maps: Iterable[Maps], pairs: int) -> Iterator[list[Maps]]:
    """Those of a set of so many pairs, in parts of about the same size, each as soon as it is whole.

    None where there are too few. Where some pairs have no maps the last part is the smaller.
    """
    count = -(-pairs // MOST)
    ends = {pairs * part // count for part in range(1, count)}
    waiting: list[Maps] = []
    for number, one in enumerate(maps, start=1):
        waiting.append(one)
        # The last part is never too small: the first few of it are seen before the one before goes.
        if number - FEWEST in ends:
            yield waiting[:-FEWEST]
            waiting = waiting[-FEWEST:]
    if len(waiting) >= FEWEST:
        yield waiting


def compare(maps: Sequence[Maps]) -> Compared:
    """Compare all of them."""
    images, hints = np.stack([one.image.flatten() for one in maps]), np.stack([one.hint.flatten() for one in maps])
    return Compared(maps=maps, scores=(images @ hints.T).astype(np.float64))


def check_alignment(all_parts: Iterable[Sequence[Maps]], *, redone: bool) -> list[Finding]:
    """Mirrored, shifted, shuffled and misaligned pairs. `redone`: hints were made anew with the right preprocessor.

    All parts are taken, one at a time. The first one tells whether the set follows its hints; if not, that is enough.
    """
    follows: bool | None = None
    found: list[Finding] = []
    for part in all_parts:
        if follows is False:
            continue
        compared = compare(part)
        follows = follows or float(np.median(compared.beaten)) >= FOLLOWS
        found += exceptions(compared) if follows else elsewhere(compared, redone=redone)
    return list(joined(found))


def elsewhere(compared: Compared, *, redone: bool) -> Sequence[Finding]:
    """In a set that does not follow its hints: turned as a whole, or belonging to other pictures of it."""
    turned = [finding for finding in turned_pairs(compared, STRONG) if len(finding.keys) >= MANY * len(compared.maps)]
    return turned or [shuffled(compared, redone=redone)]


def joined(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Those of one code as one, in the first one's words."""
    for code in dict.fromkeys(finding.code for finding in findings):
        same = [finding for finding in findings if finding.code == code]
        yield replace(same[0], keys=tuple(key for finding in same for key in finding.keys))


def exceptions(compared: Compared) -> Iterator[Finding]:
    """In a set that follows its hints: the pairs that do not, and why, each once."""
    usual = float(np.median(compared.own))
    known: set[str] = set()
    for check in (turned_pairs, swapped, shifted):
        for finding in check(compared, GOOD * usual):
            fresh = tuple(key for key in finding.keys if key not in known)
            known |= set(fresh)
            if fresh:
                yield replace(finding, keys=fresh)
    weak = (compared.own < WEAK * usual) & (compared.beaten < LOST)
    lost = tuple(key for key in keys_at(compared, weak) if key not in known)
    if lost:
        text = "The hint fits its picture no better than any other hint does; most of the set fits well."
        yield Finding(severity="error", code="misaligned", keys=lost, text=text)


def turned_pairs(compared: Compared, least: float) -> Iterator[Finding]:
    """Hints that fit much better when they are mirrored or turned, and then well (a correlation of `least`)."""
    found: dict[str, list[str]] = {}
    for one, own in zip(compared.maps, compared.own, strict=True):
        scores = {name: float((one.image * turn(one.hint)).sum()) for name, turn in TURNS.items()}
        name = max(scores, key=lambda key: scores[key])
        if scores[name] > max(own + CLEARLY, least):
            found.setdefault(name, []).append(one.key)
    for name, keys in found.items():
        text = f"The hint fits its picture when it is {name}, not as it is."
        yield Finding(severity="error", code=name, keys=tuple(keys), text=text)


def swapped(compared: Compared, least: float) -> Iterator[Finding]:
    """Pictures that fit the hint of another pair much better than their own."""
    best = compared.scores.max(axis=1)
    wrong = np.flatnonzero((best > compared.own + 2 * CLEARLY) & (best >= least)).tolist()
    if wrong:
        names = [(compared.maps[row].key, compared.maps[int(compared.best[row])].key) for row in wrong]
        examples = ", ".join(f"{own} fits that of {other}" for own, other in names[:3])
        text = f"The picture fits the hint of another pair: {examples}."
        yield Finding(severity="error", code="swapped", keys=tuple(own for own, _ in names), text=text)


def shifted(compared: Compared, least: float) -> Iterator[Finding]:
    """Hints that fit better when they are moved by some pixels."""
    keys: list[str] = []
    moves: list[tuple[int, int]] = []
    for one, own in zip(compared.maps, compared.own, strict=True):
        down, right, score = best_move(one.image, one.hint)
        if FAR <= max(abs(down), abs(right)) <= SIDE // 4 and score > max(own + CLEARLY, least):
            keys.append(one.key)
            moves.append((down, right))
    if keys:
        down, right = (100 * float(value) / SIDE for value in np.median(np.asarray(moves), axis=0))
        text = f"The hint fits when it is moved, typically by {down:.0f} % of the height down and {right:.0f} % right."
        yield Finding(severity="error", code="shifted", keys=tuple(keys), text=text)


def keys_at(compared: Compared, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    """The keys of the pairs that are marked, N bool."""
    return tuple(one.key for one, marked in zip(compared.maps, chosen.tolist(), strict=True) if marked)


def best_move(image: Level, hint: Level) -> tuple[int, int, float]:
    """(down, right, correlation): by how many pixels the hint has to be moved to fit best, borders wrapped around."""
    spectrum = np.fft.rfft2(image) * np.fft.rfft2(hint).conj()
    surface = np.fft.irfft2(spectrum.sum(axis=0), s=(SIDE, SIDE))
    down, right = ((int(step) + SIDE // 2) % SIDE - SIDE // 2 for step in divmod(int(surface.argmax()), SIDE))
    return down, right, float(surface.max())


def shuffled(compared: Compared, *, redone: bool) -> Finding:
    """In a set that does not follow its hints: whether they belong to other pictures of it."""
    count = len(compared.maps)
    fits = compared.scores.max(axis=1)
    # What the best of as many strangers reaches by chance is seen in the second best.
    second = np.sort(compared.scores, axis=1)[:, -2]
    strangers = (compared.best != np.arange(count)) & (fits > second + CLEARLY) & (fits > STRONG)
    keys = keys_at(compared, strangers)
    share = float(np.median(compared.beaten))
    measured = f"a picture's own hint agrees with it more than {100 * share:.0f} % of the others (50 % by chance)"
    if len(keys) >= max(count // 5, 2):
        text = f"{len(keys)} of {count} pictures fit the hint of another pair: they are shuffled; {measured}."
        return Finding(severity="error", code="shuffled", keys=keys, text=text)
    if redone:
        text = f"Hints made anew with the preprocessor do not resemble the given ones; {measured}."
        return Finding(severity="error" if share < CHANCE else "warning", code="unrelated", keys=(), text=text)
    text = f"Hints share few edges with their pictures; {measured}. Normal for poses and the like, wrong for edges."
    return Finding(severity="warning" if share < CHANCE else "note", code="unrelated", keys=(), text=text)
