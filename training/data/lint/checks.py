"""Checks of single pairs and of what they have in common, from what was seen of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from ....cn_core.preprocess.map_kinds import MAP_KINDS, MapKind
from ..decoding import Size
from ..pairs import Pair, Pairs
from ..survey import SAVED_AS_FLOAT, SMALLEST, same_aspect
from .alignment import CLEARLY
from .facts import Facts
from .report import Finding, Severity

BLANK = 0.2
"""Share of empty prompts that is worth a word."""
DARK = 128
CROPPED = 0.25
"""Share of a picture that is cut off when it becomes a square."""
MAJORITY = 0.5
SIDED = frozenset(("pose", "normal"))
RANGED = frozenset(("lines", "pose", "mask", "depth"))
"""Kinds that reach white."""


def check_listing(pairs: Pairs) -> Iterator[Finding]:
    """What the data set's own lists have that is no pair."""
    found: dict[str, list[str]] = defaultdict(list)
    for fault in pairs.faults:
        found[fault.problem].append(fault.key)
    for problem, keys in found.items():
        example = next(fault.text for fault in pairs.faults if fault.problem == problem)
        yield Finding(severity="error", code=problem, keys=tuple(keys), text=f"For example: {example}.")


def check_captions(pairs: Sequence[Pair], words_lost: Callable[[str], int] | None) -> Iterator[Finding]:
    """Empty ones, ones too long for the text encoder, and the same one for all."""
    captions = [pair.caption or "" for pair in pairs]
    blank, used = captions.count(""), set(captions) - {""}
    if blank > BLANK * len(captions):
        text = f'{100 * blank / len(captions):.0f} % of the captions are empty; data.captions "default" fills them.'
        yield Finding(severity="warning", code="empty captions", text=text)
    if len(used) == 1 and len(captions) > 1:
        which = "All captions that are not empty" if blank else "All captions"
        yield Finding(severity="note", code="one caption", text=f"{which} are {next(iter(used))!r}.")
    lost = {caption: words_lost(caption) for caption in used} if words_lost else {}
    long = [pair.key for pair, caption in zip(pairs, captions, strict=True) if lost.get(caption)]
    if long:
        text = f"The text encoder does not see the end of the caption; up to {max(lost.values())} words are lost."
        yield Finding(severity="warning", code="long caption", keys=tuple(long), text=text)


def check_pictures(facts: Sequence[Facts], resolution: int) -> Iterator[Finding]:
    """Unreadable and tiny ones, and those that change much when they are resized (resolution 0: to any size)."""
    readable = [(one, one.image) for one in facts if one.image is not None]
    broken = [one for one in facts if one.fault]
    if broken:
        text = f"It cannot be read. For example: {broken[0].fault}"
        yield Finding(severity="error", code="unreadable", keys=keys_of(broken), text=text)
    tiny = [(one, image) for one, image in readable if min(image.size) < SMALLEST]
    for _, image in tiny[:1]:
        text = f"It is {pixels(image.size)} pixels; expected at least {SMALLEST} a side."
        yield from found("error", "tiny", [one for one, _ in tiny], text)
    small = [one for one, image in readable if SMALLEST <= min(image.size) < resolution / 2]
    yield from found("warning", "enlarged", small, f"It has less than half of the resolution of {resolution} pixels.")
    flat = [one for one, image in readable if image.high == image.low]
    yield from found("error", "constant picture", flat, "The picture is of one colour.")
    cut = [one for one, image in readable if min(image.size) < (1 - CROPPED) * max(image.size)]
    text = "More than a quarter of it is cut off when it becomes a square; data.buckets keeps its shape."
    yield from found("note", "cropped", cut, text)


def check_hints(facts: Sequence[Facts], kind: MapKind | None, *, redone: bool) -> Iterator[Finding]:
    """Sizes, levels and colours of given hints. `redone`: they were made anew with the right preprocessor."""
    given = [(one, one.image, one.hint) for one in facts if one.image is not None and one.hint is not None]
    aspect = [row for row in given if not same_aspect(row[1].size, row[2].size)]
    for _, image, hint in aspect[:1]:
        text = f"The picture is {pixels(image.size)} and its hint {pixels(hint.size)}; expected the same proportions."
        yield from found("error", "aspect", [one for one, _, _ in aspect], text)
    size = [one for one, image, hint in given if image.size != hint.size and same_aspect(image.size, hint.size)]
    yield from found("note", "size", size, "The hint has another size than its picture and is resized.")
    flat = [one for one, _, hint in given if hint.high == hint.low]
    yield from found("error", "constant hint", flat, "The hint is of one colour: it says nothing.")
    faint = [one for one, _, hint in given if hint.low < hint.high < SAVED_AS_FLOAT]
    text = "Its brightest value is below 8 of 255, as when values from 0 to 1 are saved as they are. Scale it by 255."
    yield from found("error", "range", faint, text)
    if kind in RANGED:
        dark = [one for one, _, hint in given if SAVED_AS_FLOAT <= hint.high < DARK and hint.low < hint.high]
        yield from found(
            "warning", "dark hint", dark, "Its brightest value is below 128 of 255, where white is expected."
        )
    yield from check_kinds(facts, kind, redone=redone)


def check_kinds(facts: Sequence[Facts], kind: MapKind | None, *, redone: bool) -> Iterator[Finding]:
    """What the checks of the set's kind of map say. A hint that agrees with the one made anew is not inverted."""
    problems: dict[tuple[str, str], list[Facts]] = defaultdict(list)
    for one in facts:
        for code, text in one.seen_hint.problems if one.seen_hint and one.seen_hint.checked_as == kind else ():
            if code != "empty" and not (code == "inverted" and redone and one.agreement > CLEARLY):
                problems[code, text if code in ("inverted", "channels", "flipped", "no map") else code].append(one)
    for (code, _), some in problems.items():
        first = some[0].seen_hint
        text = next(text for one, text in first.problems if one == code) if first else code
        severity: Severity = "error" if code in ("inverted", "channels", "flipped") else "warning"
        yield Finding(severity=severity, code=code, keys=keys_of(some), text=text)


def check_mirroring(kind: MapKind | None) -> Iterator[Finding]:
    """Hints whose colours say which side is which."""
    if kind in SIDED:
        text = f"Hints of the kind {kind} have colours for left and right, and data.flip mirrors them as pictures: "
        yield Finding(severity="error", code="mirrored", text=f"{text}set it to false.")


def kind_of_set(facts: Sequence[Facts]) -> MapKind | None:
    """What most of the hints look like, or None."""
    seen = [one.seen_hint for one in facts if one.seen_hint]
    counts = {kind: sum(one.kind == kind for one in seen) for kind in MAP_KINDS}
    common = max(MAP_KINDS, key=lambda kind: counts[kind])
    return common if counts[common] > MAJORITY * len(seen) else None


def pixels(size: Size) -> str:
    """Width and height as people write them."""
    return f"{size[1]}x{size[0]}"


def found(severity: Severity, code: str, facts: Sequence[Facts], text: str) -> Iterator[Finding]:
    """One finding, if there are pairs for it."""
    if facts:
        yield Finding(severity=severity, code=code, keys=keys_of(facts), text=text)


def keys_of(facts: Sequence[Facts]) -> tuple[str, ...]:
    """Of their pairs."""
    return tuple(one.pair.key for one in facts)
