"""Pairs of a picture and its hint, with a caption: what every format of data sets is read as."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from ..errors import DataError
from .pictures import Picture

Problem = Literal["image missing", "hint missing", "caption missing", "bad entry"]
NAMED = 3
"""How many keys a message spells out."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One example."""

    key: str
    """Its stable name in the data set, from the names of its files. No other pair or fault of the set has it."""
    image: Picture
    hint: Picture | None
    """None where the data set has none, or none that is wanted: it is to be made from the image."""
    caption: str | None
    """None where the data set has none."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something in the data set that is no pair."""

    key: str
    problem: Problem
    text: str


class Pairs(Protocol):
    """A data set."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What was found beside the pairs."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Pair: ...


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A data set that is a list in memory (its pictures are not)."""

    name: str
    pairs: Sequence[Pair]
    faults: tuple[Fault, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int, /) -> Pair:
        return self.pairs[index]


def sorted_out(name: str, rows: Iterable[Pair | Fault]) -> Listed:
    """The pairs and the faults of a list. Rows of one key are told apart: "a", "a#2", "a#3"."""
    pairs: list[Pair] = []
    faults: list[Fault] = []
    for row in told_apart(rows):
        if isinstance(row, Pair):
            pairs.append(row)
        else:
            faults.append(row)
    return Listed(name=name, pairs=pairs, faults=tuple(faults))


def told_apart(rows: Iterable[Pair | Fault]) -> Iterator[Pair | Fault]:
    """The same rows; where a key was there before, the next free number is appended to it."""
    used = Counter[str]()
    for row in rows:
        key = row.key
        while key in used:
            used[row.key] += 1
            key = f"{row.key}#{used[row.key]}"
        used[key] = 1
        yield row if key == row.key else replace(row, key=key)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A data set whose pairs cost time to make: each is made when it is first asked for, once (no picture is kept)."""

    whole: Pairs
    made: dict[int, Pair] = field(default_factory=dict[int, Pair])

    @property
    def name(self) -> str:
        """That of the whole."""
        return self.whole.name

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Those of the whole."""
        return self.whole.faults

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int, /) -> Pair:
        if index not in self.made:
            self.made[index] = self.whole[index]
        return self.made[index]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Some pairs of a data set, in this order."""

    whole: Pairs
    rows: Sequence[int]
    left_out: frozenset[str] = frozenset()
    """Keys that are not missed: no faults either."""

    @property
    def name(self) -> str:
        """That of the whole."""
        return self.whole.name

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Those of the whole."""
        return tuple(fault for fault in self.whole.faults if fault.key not in self.left_out)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> Pair:
        return self.whole[self.rows[index]]


def each(pairs: Pairs) -> Iterator[Pair]:
    """All of them, in order."""
    return (pairs[index] for index in range(len(pairs)))


def sha256(pairs: Pairs) -> str:
    """A hash of keys, captions and the contents of all pictures, which are all read."""
    code = hashlib.sha256()
    for pair in each(pairs):
        code.update(repr((pair.key, pair.image.digest(), pair.hint and pair.hint.digest(), pair.caption)).encode())
    return code.hexdigest()


def without(pairs: Pairs, keys: frozenset[str]) -> Chosen:
    """All but these, pairs and faults; what is not there is no matter."""
    rows = [row for row in range(len(pairs)) if pairs[row].key not in keys]
    return Chosen(whole=pairs, rows=rows, left_out=keys)


def listed(keys: Sequence[str]) -> str:
    """Something like "a, b, c and 4 more"."""
    return ", ".join(keys[:NAMED]) + (f" and {len(keys) - NAMED} more" if len(keys) > NAMED else "")


def check(pairs: Pairs) -> None:
    """Raise DataError for an empty data set, and for one with faults."""
    if pairs.faults:
        keys = [fault.key for fault in pairs.faults]
        raise DataError(
            f"{pairs.name} is not complete ({listed(keys)}): {pairs.faults[0].text}. Complete or remove what is "
            "listed by `controlnet-kit lint`, or leave it out with its quarantine list."
        )
    if not len(pairs):
        raise DataError(f"{pairs.name} has no pairs of pictures. Look at the path and the format.")
