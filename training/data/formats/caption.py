"""Captions as data sets have them: a text, a list of texts, or none."""

from __future__ import annotations

from typing import Any, cast

from ...errors import DataError


class CaptionError(DataError):
    """A caption that is no text; the message is the end of a sentence."""


def cleaned(text: str) -> str:
    """The text on one line, with single spaces."""
    return " ".join(text.split())


def caption_of(value: object) -> str | None:
    """A text, or the first one of a list of texts; None where there is none. Raises CaptionError for anything else."""
    if isinstance(value, list):
        value = next(iter(cast("list[Any]", value)), None)
    if value is not None and not isinstance(value, str):
        raise CaptionError(
            f"its caption is {value!r:.60}; expected a text, or a list of texts, whose first one is taken"
        )
    return None if value is None else cleaned(value)
