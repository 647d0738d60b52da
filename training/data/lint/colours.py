"""Red and blue exchanged: found where hints made anew have the colours of the given ones the other way round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .alignment import CLEARLY, maps_of
from .facts import Facts
from .report import Finding


def check_colours(facts: Sequence[Facts]) -> Iterator[Finding]:
    """Of hints that were made anew: those that fit with their channels exchanged, and those that fit inverted."""
    exchanged: list[str] = []
    inverted: list[str] = []
    for one in facts:
        maps = maps_of(one)
        if maps is None:
            continue
        image, hint = maps
        own = float((image * hint).sum())
        if float((image * hint[::-1]).sum()) > own + CLEARLY:
            exchanged.append(one.pair.key)
        elif own < -2 * CLEARLY:
            inverted.append(one.pair.key)
    if exchanged:
        text = "The hint has red and blue exchanged (BGR instead of RGB)."
        yield Finding(severity="error", code="channels", keys=tuple(exchanged), text=text)
    if inverted:
        text = "The hint is the negative of what the preprocessor makes. Invert it."
        yield Finding(severity="error", code="negative", keys=tuple(inverted), text=text)
