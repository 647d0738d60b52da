"""Where a run's hints come from: made by itself, or by `annotate` or anyone else before it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

from ..config import DataConfig, Value
from ..errors import ConfigError, DataError
from ..tables import build
from .annotate import NOTE
from .hints import Entry, HintMaker, known, maker_of
from .notes import read_note

NAMES = {"condition": "preprocessor", "preprocessor_params": "values", "randomise": "ranges"}
"""Setting -> what the note calls it."""


def recorded(config: DataConfig) -> DataConfig:
    """The settings, with what a folder's note says of its hints where they say nothing.

    `annotate` leaves the note. Raises DataError for one that it did not write.
    """
    said = config.condition or config.preprocessor_params or config.randomise
    note = Path(config.path).expanduser() / NOTE
    if config.hints != "given" or said or not config.path:
        return config
    if config.format not in ("auto", "pairs") or not note.is_file():
        return config
    try:
        found = cast("dict[str, Any]", json.loads(note.read_text(encoding="utf-8")))
        made = {
            "condition": found["preprocessor"],
            "preprocessor_params": found["values"],
            "randomise": found["ranges"],
        }
        typed = build(DataConfig, made, NOTE)
        maker_of(typed.condition, typed.preprocessor_params, typed.randomise)
    except (OSError, ValueError, RecursionError, LookupError, TypeError, ConfigError, DataError) as error:
        raise DataError(
            f"{note} does not tell how the hints were made ({error}): say it in data.condition, or remove the file."
        ) from error
    return replace(config, **{setting: getattr(typed, setting) for setting in NAMES})


def origin(config: DataConfig) -> HintMaker | None:
    """The preprocessor of the hints, where settings were drawn with the middle of their range.

    None where hints are given and data.condition is no preprocessor's name.
    """
    name = config.condition if config.hints == "given" else config.hints
    if config.hints == "given" and name not in known():
        return None
    maker = maker_of(name, config.preprocessor_params, config.randomise)
    return replace(maker, values={**maker.values, **middles(maker.entry, maker.ranges)}, ranges={})


def drawn_again(config: DataConfig, seed: int) -> HintMaker | None:
    """The preprocessor of the hints, with the settings that were drawn for each; as `origin` has it where none were.

    `seed` is of hints that a run makes; those of `annotate` have theirs in its note. Those of hints with other drawn
    settings than the note's, or without a note that can be read, are not known.
    """
    if config.hints != "given":
        return maker_of(config.hints, config.preprocessor_params, config.randomise, seed=seed)
    note = Path(config.path).expanduser() / NOTE
    maker = origin(config)
    if maker is None or not config.randomise or not note.is_file():
        return maker
    try:
        found = read_note(note, "ranges", "seed")
    except DataError:
        return maker
    if found["ranges"] != {name: list(limits) for name, limits in config.randomise.items()}:
        return maker
    return maker_of(config.condition, config.preprocessor_params, config.randomise, seed=found["seed"])


def middles(entry: Entry, ranges: Mapping[str, tuple[float, float]]) -> dict[str, Value]:
    """Settings that were drawn for each picture, in the middle of their range."""
    whole = {field.name for field in fields(entry.settings) if isinstance(field.metadata.get("min"), int)}
    centres = {name: (low + high) / 2 for name, (low, high) in ranges.items()}
    return {name: round(value) if name in whole else value for name, value in centres.items()}
