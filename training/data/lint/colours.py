"""Red and blue exchanged, or all inverted: seen where hints made anew have the given ones' colours in another way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .alignment import CLEARLY
from .facts import Facts
from .report import Finding

ALIKE = 0.6
"""Correlation from which on two hints are taken for the same."""
TEXTS = {
    "channels": "The hint has red and blue exchanged (BGR instead of RGB).",
    "negative": "The hint is the negative of what the preprocessor makes. Invert it.",
}


def check_colours(facts: Sequence[Facts]) -> Iterator[Finding]:
    """Of hints that were made anew: those that fit with their channels exchanged, and those that fit inverted."""
    found: dict[str, list[str]] = {}
    for one in facts:
        if code := wrong_colours(one):
            found.setdefault(code, []).append(one.pair.key)
    for code, keys in found.items():
        yield Finding(severity="error", code=code, keys=tuple(keys), text=TEXTS[code])


def wrong_colours(one: Facts) -> str | None:
    """Which of the two it is, if the hint was made anew."""
    scores = {"channels": one.exchanged, "negative": -one.agreement}
    best = max(scores, key=lambda code: scores[code])
    return best if scores[best] > max(one.agreement + CLEARLY, ALIKE) else None
