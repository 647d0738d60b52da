"""`lint`: looks at a data set, thoroughly or in seconds.

report = lint(open_pairs(config))
print(report.text())
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ....cn_core.preprocess.map_kinds import MapKind, kind_of
from ....cn_core.preprocess.preprocessor import Preprocessor
from ...config import DataConfig
from ..hints import HintMaker
from ..origin import origin
from ..pairs import Chosen, Listed, Pair, Pairs, each
from ..pictures import hashed
from ..store import Progress, silent
from ..survey import BATCH, threaded
from .alignment import check_alignment, parts
from .checks import check_captions, check_hints, check_listing, check_mirroring, check_pictures, kind_of_set
from .colours import check_colours, wrong_colours
from .duplicates import check_duplicates
from .facts import Facts, Maps, facts_of
from .report import Finding, LintReport, Severity

QUICK = 64
"""Pairs that the fast check at the start of a run looks at."""
ORDER: Sequence[Severity] = ("error", "warning", "note")
STEP = 64


@dataclass(frozen=True, kw_only=True)
class LintOptions:
    """What is checked."""

    sample: int = QUICK
    """Pairs that are decoded, chosen by their names; 0: all."""
    resolution: int = 0
    """At which they are going to be trained; 0: not known."""
    given: bool = True
    """Whether the set's own hints are used."""
    maker: HintMaker | None = None
    """The preprocessor that made the hints, or will; with it they are made again and compared."""
    words_lost: Callable[[str], int] | None = None
    """`TextEncoder.words_lost` of the base."""
    workers: int = 0
    """Threads; 0: one for each core."""
    flip: bool = False
    """Whether pairs are going to be mirrored."""
    captions: bool = True
    """Whether the set's own captions are used."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """The report, and what it was made from (for the contact sheet)."""

    report: LintReport
    facts: tuple[Facts, ...]


def lint(pairs: Pairs, options: LintOptions | None = None, *, progress: Progress = silent) -> LintReport:
    """Check a data set; by default a sample of it, in seconds."""
    return look_over(pairs, options or LintOptions(), progress=progress).report


def look_over(pairs: Pairs, options: LintOptions, *, progress: Progress = silent) -> Looked:
    """The same with what was seen."""
    pairs = listed(pairs, progress)
    chosen = sampled(pairs, options.sample)
    maker = options.maker if options.given else None
    kind: MapKind | None = kind_of(maker.entry.name) if maker else None
    facts: list[Facts] = []

    def to_compare() -> Iterator[Maps]:
        for one, maps in looked_at(chosen, options, kind):
            facts.append(one)
            if len(facts) % STEP == 0 or len(facts) == len(chosen):
                progress("pairs looked at", len(facts), len(chosen))
            if maps is not None and not (maker and wrong_colours(one)):
                yield maps

    misplaced = check_alignment(parts(to_compare(), len(chosen)), redone=maker is not None)
    kind = kind or kind_of_set(facts)
    found = [*findings_of(pairs, facts, options, kind), *misplaced]
    findings = sorted(found, key=lambda finding: ORDER.index(finding.severity))
    captioned = sum(bool(pair.caption) for pair in pairs.pairs)
    report = LintReport(
        name=pairs.name,
        pairs=len(pairs),
        looked_at=len(facts),
        kind=(kind or "unknown") if options.given else "made from the pictures",
        numbers={"captions": captioned, "sizes": len({one.image.size for one in facts if one.image})},
        findings=tuple(findings),
    )
    return Looked(report=report, facts=tuple(facts))


def looked_at(pairs: Pairs, options: LintOptions, kind: MapKind | None) -> Iterator[tuple[Facts, Maps | None]]:
    """Each pair, with its maps; those of a batch at most wait to be taken."""
    todo, maker = each(pairs), options.maker
    while batch := list(islice(todo, BATCH)):
        yield from threaded(lambda pair: facts_of(pair, maker, kind, given=options.given), batch, options.workers)


def listed(pairs: Pairs, progress: Progress) -> Listed:
    """The same pairs, all of them made."""
    found: list[Pair] = []
    for pair in each(pairs):
        found.append(pair)
        if len(found) % BATCH == 0:
            progress("pairs found", len(found), len(pairs))
    return Listed(name=pairs.name, pairs=found, faults=pairs.faults)


def findings_of(pairs: Listed, facts: Sequence[Facts], options: LintOptions, kind: MapKind | None) -> Iterator[Finding]:
    """All checks of what was seen, one after another."""
    yield from check_listing(pairs)
    yield from check_pictures(facts, options.resolution)
    if options.captions:
        yield from check_captions(pairs.pairs, options.words_lost)
    yield from check_duplicates(facts)
    if options.given:
        yield from check_hints(facts, kind, redone=options.maker is not None)
        yield from check_mirroring(kind if options.flip else None)
        yield from check_colours(facts) if options.maker else ()


def options_of(
    config: DataConfig, *, sample: int = QUICK, words_lost: Callable[[str], int] | None = None
) -> LintOptions:
    """The check of a run's own data, with `recorded` settings."""
    return LintOptions(
        sample=sample,
        resolution=config.resolution,
        given=config.hints == "given",
        maker=remaker(config),
        words_lost=words_lost,
        workers=config.workers,
        flip=config.flip,
        captions=config.captions == "given",
    )


def remaker(config: DataConfig) -> HintMaker | None:
    """The preprocessor with which given hints can be made again, or None.

    Networks are not loaded for it, and settings that were drawn for each picture are not known.
    """
    maker = origin(config) if config.hints == "given" and not config.randomise else None
    return maker if maker and isinstance(maker.entry, Preprocessor) else None


def sampled(pairs: Pairs, count: int) -> Pairs:
    """So many pairs, always the same ones, in their order; 0: all."""
    if not 0 < count < len(pairs):
        return pairs
    rows = sorted(range(len(pairs)), key=lambda row: hashed([pairs[row].key]))[:count]
    return Chosen(whole=pairs, rows=sorted(rows))
