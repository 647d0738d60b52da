"""Do hints belong to their pictures? Each is compared with its own, with those of the others, and turned.

Compared are small maps of edges (or hints made anew): their correlation is 1 for the same and about 0 for strangers.
What is normal is measured on the set itself, since a pose shares few edges with its picture and Canny all of them.

Shapes: N pairs, C S S maps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .facts import SIDE, Facts, Level
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

    facts: Sequence[Facts]
    maps: Sequence[tuple[Level, Level]]
    """Of each: picture's and hint's."""
    scores: NDArray[np.float64]

    @property
    def own(self) -> NDArray[np.float64]:
        """N: of each picture and its hint."""
        return np.diagonal(self.scores)

    @property
    def beaten(self) -> NDArray[np.float64]:
        """N: the share of the other hints (copies of its own are none) that agree less with a picture than its own."""
        names = np.asarray([one.hint.digest if one.hint else "" for one in self.facts])
        others = names[:, None] != names[None]
        return ((self.scores < self.own[:, None]) & others).sum(axis=1) / np.maximum(others.sum(axis=1), 1)

    @property
    def best(self) -> NDArray[np.int64]:
        """N: the hint that agrees best with each picture."""
        return self.scores.argmax(axis=1)


def parts(facts: Sequence[Facts]) -> list[list[Facts]]:
    """Those with maps, in parts of about the same size; none where there are too few."""
    usable = [one for one in facts if maps_of(one) is not None]
    if len(usable) < FEWEST:
        return []
    count = -(-len(usable) // MOST)
    return [usable[len(usable) * part // count : len(usable) * (part + 1) // count] for part in range(count)]


def compare(facts: Sequence[Facts]) -> Compared:
    """Compare all of them, which have maps."""
    usable = [(one, maps) for one in facts if (maps := maps_of(one)) is not None]
    images, hints = (np.stack([maps[side].flatten() for _, maps in usable]) for side in (0, 1))
    scores = (images @ hints.T).astype(np.float64)
    return Compared(facts=[one for one, _ in usable], maps=[maps for _, maps in usable], scores=scores)


def maps_of(one: Facts) -> tuple[Level, Level] | None:
    """Picture's and hint's, if there are both and neither is of one colour."""
    if one.image_map is None or one.hint_map is None or not one.image_map.any() or not one.hint_map.any():
        return None
    return one.image_map, one.hint_map


def agreement(one: Facts) -> float:
    """The correlation of a picture's map and its hint's; 0 where one of them has none."""
    maps = maps_of(one)
    return float((maps[0] * maps[1]).sum()) if maps else 0.0


def check_alignment(facts: Sequence[Facts], *, redone: bool) -> Iterator[Finding]:
    """Mirrored, shifted, shuffled and misaligned pairs. `redone`: hints were made anew with the right preprocessor."""
    all_parts = parts(facts)
    if not all_parts:
        return
    compared = compare(all_parts[0])
    if float(np.median(compared.beaten)) >= FOLLOWS:
        found = [*exceptions(compared)]
        for part in all_parts[1:]:
            found += exceptions(compare(part))
        yield from joined(found)
        return
    turned = [finding for finding in turned_pairs(compared, STRONG) if len(finding.keys) >= MANY * len(compared.facts)]
    yield from turned or [shuffled(compared, redone=redone)]


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
    for one, own, (image, hint) in zip(compared.facts, compared.own, compared.maps, strict=True):
        scores = {name: float((image * turn(hint)).sum()) for name, turn in TURNS.items()}
        name = max(scores, key=lambda key: scores[key])
        if scores[name] > max(own + CLEARLY, least):
            found.setdefault(name, []).append(one.pair.key)
    for name, keys in found.items():
        text = f"The hint fits its picture when it is {name}, not as it is."
        yield Finding(severity="error", code=name, keys=tuple(keys), text=text)


def swapped(compared: Compared, least: float) -> Iterator[Finding]:
    """Pictures that fit the hint of another pair much better than their own."""
    best = compared.scores.max(axis=1)
    wrong = np.flatnonzero((best > compared.own + 2 * CLEARLY) & (best >= least)).tolist()
    if wrong:
        names = [(compared.facts[row].pair.key, compared.facts[int(compared.best[row])].pair.key) for row in wrong]
        examples = ", ".join(f"{own} fits that of {other}" for own, other in names[:3])
        text = f"The picture fits the hint of another pair: {examples}."
        yield Finding(severity="error", code="swapped", keys=tuple(own for own, _ in names), text=text)


def shifted(compared: Compared, least: float) -> Iterator[Finding]:
    """Hints that fit better when they are moved by some pixels."""
    keys: list[str] = []
    moves: list[tuple[int, int]] = []
    for one, own, maps in zip(compared.facts, compared.own, compared.maps, strict=True):
        down, right, score = best_move(*maps)
        if FAR <= max(abs(down), abs(right)) <= SIDE // 4 and score > max(own + CLEARLY, least):
            keys.append(one.pair.key)
            moves.append((down, right))
    if keys:
        down, right = (100 * float(value) / SIDE for value in np.median(np.asarray(moves), axis=0))
        text = f"The hint fits when it is moved, typically by {down:.0f} % of the height down and {right:.0f} % right."
        yield Finding(severity="error", code="shifted", keys=tuple(keys), text=text)


def keys_at(compared: Compared, chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    """The keys of the pairs that are marked, N bool."""
    return tuple(one.pair.key for one, marked in zip(compared.facts, chosen.tolist(), strict=True) if marked)


def best_move(image: Level, hint: Level) -> tuple[int, int, float]:
    """(down, right, correlation): by how many pixels the hint has to be moved to fit best, borders wrapped around."""
    spectrum = np.fft.rfft2(image) * np.fft.rfft2(hint).conj()
    surface = np.fft.irfft2(spectrum.sum(axis=0), s=(SIDE, SIDE))
    down, right = ((int(step) + SIDE // 2) % SIDE - SIDE // 2 for step in divmod(int(surface.argmax()), SIDE))
    return down, right, float(surface.max())


def shuffled(compared: Compared, *, redone: bool) -> Finding:
    """In a set that does not follow its hints: whether they belong to other pictures of it."""
    count = len(compared.facts)
    fits = compared.scores.max(axis=1)
    # What the best of as many strangers reaches by chance is seen in the second best.
    second = np.sort(compared.scores, axis=1)[:, -2]
    elsewhere = (compared.best != np.arange(count)) & (fits > second + CLEARLY) & (fits > STRONG)
    keys = keys_at(compared, elsewhere)
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
