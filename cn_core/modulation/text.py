"""Reading what users write into one line: pieces of it that know their column, and the error that names it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise

from ..errors import ControlNetKitError

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
WHOLE_NUMBER = re.compile(r"[+-]?\d{1,6}", re.ASCII)
STRONGEST = 10.0
"""Strengths go from minus this to this, in texts and elsewhere."""
QUOTED = 40
"""Most characters that a message repeats."""


class ScheduleError(ControlNetKitError):
    """A schedule, or a list of strengths, that cannot be read."""

    column: int
    """Of the first character that is wrong, from 1."""

    def __init__(self, column: int, problem: str, example: str) -> None:
        super().__init__(f'Column {column}: {problem}. Write for example "{example}".')
        self.column = column


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Part of a text, without the white space around it."""

    text: str
    column: int
    """Of its first character in the whole text, from 1; if it is empty, of what stands in its place."""
    example: str
    """A whole text that would be right, for the messages."""

    def part(self, start: int, stop: int | None = None) -> Piece:
        """The characters from `start` up to `stop`."""
        raw = self.text[start:stop]
        return replace(self, text=raw.strip(), column=self.column + start + len(raw) - len(raw.lstrip()))

    def split(self, separator: str) -> list[Piece]:
        """The pieces between the separators (of one character); a text without one is a single piece."""
        at = [-1, *(i for i, character in enumerate(self.text) if character == separator), len(self.text)]
        return [self.part(left + 1, right) for left, right in pairwise(at)]

    def number(self, low: float, high: float, meaning: str) -> float:
        """Its value; raises ScheduleError if it is none or not from `low` to `high`."""
        if not NUMBER.fullmatch(self.text):
            raise self.error(f"expected {meaning}, a number from {low:g} to {high:g}")
        value = float(self.text)
        if not low <= value <= high:
            raise self.error(f"{meaning} goes from {low:g} to {high:g}")
        return value

    def strength(self) -> float:
        """Its value, a strength from -10 to 10."""
        return self.number(-STRONGEST, STRONGEST, "a strength")

    def whole_number(self, meaning: str) -> int:
        """Its value; raises ScheduleError if it is none of at most six digits."""
        if not WHOLE_NUMBER.fullmatch(self.text):
            raise self.error(f"expected {meaning}, a whole number")
        return int(self.text)

    def error(self, problem: str) -> ScheduleError:
        """To be raised: what is wrong with this piece."""
        shown = self.text if len(self.text) <= QUOTED else f"{self.text[:QUOTED]}..."
        found = f'found "{shown}"' if shown else "found nothing"
        return ScheduleError(self.column, f"{problem}, but {found}", self.example)


def whole(text: str, example: str) -> Piece:
    """All of a text."""
    return Piece(text=text, column=1, example=example).part(0)
