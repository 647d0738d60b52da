"""What a ControlNet's file says of itself: strings in the safetensors header.

A reader takes them for what they are, words from a stranger: each value has its bounds, and none is executed or used
as a path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from ..errors import ControlNetKitError

PREFIX = "controlnet_kit."
ARCHITECTURES = {
    "SD 1.x": "stable-diffusion-v1/controlnet",
    "SD 2.x": "stable-diffusion-v2/controlnet",
    "SDXL": "stable-diffusion-xl-v1-base/controlnet",
}
"""Family -> modelspec.architecture."""
JSON_CHARACTERS = 2048
"""Longest text that is parsed."""
ENTRIES = 32
"""Most entries of an object."""
LARGEST = 1e12
"""Largest number anywhere."""


def is_number(value: Any) -> bool:
    """A finite int or float of sane size; a bool is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def is_name(value: Any) -> bool:
    """Short printable text that no system takes for a path."""
    return isinstance(value, str) and 0 < len(value) <= 64 and value.isprintable() and not set(value) & set("/\\:")


def is_digest(value: Any) -> bool:
    """A SHA-256 in hexadecimal."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def is_whole(value: Any) -> bool:
    """An integer that counts something."""
    return isinstance(value, int) and is_number(value) and value >= 0


def is_within(value: Any, low: float, high: float) -> bool:
    """A number from `low` to `high`."""
    return isinstance(value, int | float) and is_number(value) and low <= value <= high


def is_interval(value: Any) -> bool:
    """(low, high)."""
    pair = cast("tuple[Any, ...]", value)
    return isinstance(value, tuple) and len(pair) == 2 and all(map(is_number, pair)) and pair[0] < pair[1]


def is_table(value: Any, holds: Callable[[Any], bool]) -> bool:
    """A short object with names for keys."""
    table = cast("dict[Any, Any]", value)
    return isinstance(value, dict) and len(table) <= ENTRIES and all(is_name(k) and holds(v) for k, v in table.items())


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which values a field may have, and how the header spells them."""

    wants: str
    accepts: Callable[[Any], bool]
    text: bool = False
    """The header holds the value itself; otherwise its JSON."""

    def parse(self, string: str) -> Any:
        """The value that a header's string stands for; None when it is malformed, too long or out of bounds."""
        try:
            value: Any = string if self.text else json.loads(string if len(string) <= JSON_CHARACTERS else "")
        except (ValueError, RecursionError):
            return None
        if isinstance(value, list):
            value = tuple(cast("list[Any]", value))
        return value if self.accepts(value) else None

    def format(self, value: Any) -> str:
        """The header's string for a value."""
        return str(value) if self.text else json.dumps(value)


NAME = Rule(wants="1 to 64 printable characters without / \\ :", accepts=is_name, text=True)
DIGEST = Rule(wants="64 hexadecimal digits", accepts=is_digest, text=True)
WHOLE = Rule(wants="a whole number from 0", accepts=is_whole)
PERCENT = Rule(wants="a number from 0 to 1", accepts=lambda value: is_within(value, 0, 1))
RULES = {
    "version": NAME,
    "family": NAME,
    "condition": NAME,
    "preprocessor": NAME,
    "preprocessor_params": Rule(
        wants=f"at most {ENTRIES} named numbers, truth values or short texts",
        accepts=lambda value: is_table(value, lambda v: isinstance(v, bool) or is_number(v) or is_name(v)),
    ),
    "hint_range": Rule(wants="two numbers, the lower one first", accepts=is_interval),
    "resolution": Rule(wants="8 to 16384 pixels", accepts=lambda value: is_whole(value) and is_within(value, 8, 16384)),
    "base_sha256": DIGEST,
    "base_name": NAME,
    "decoder": NAME,
    "steps": WHOLE,
    "samples": WHOLE,
    "dataset_sha256": DIGEST,
    "fidelity": Rule(wants=f"at most {ENTRIES} named numbers", accepts=lambda value: is_table(value, is_number)),
    "strength": Rule(wants="a number from 0 to 10", accepts=lambda value: is_within(value, 0, 10)),
    "start_percent": PERCENT,
    "end_percent": PERCENT,
    "licence": NAME,
}


@dataclass(frozen=True, kw_only=True)
class ControlNetMetadata:
    """A ControlNet's description; None where it says nothing. Raises ControlNetKitError for values out of bounds."""

    version: str | None = None
    """Of the kit that wrote the file."""
    family: str | None = None
    """As `files.inference.family` names it."""
    condition: str | None = None
    """What the hint shows: "canny edges"."""
    preprocessor: str | None = None
    """Name of the preprocessor that made the training hints."""
    preprocessor_params: Mapping[str, bool | int | float | str] | None = None
    hint_range: tuple[float, float] | None = None
    """Values of a hint's pixels, (0, 1) as a rule."""
    resolution: int | None = None
    """Side of the training pictures, in pixels."""
    base_sha256: str | None = None
    base_name: str | None = None
    """The model whose encoder was copied."""
    decoder: str | None = None
    """Name of the LoRA with the UNet's decoder that was trained with it; None: the decoder is the base's."""
    steps: int | None = None
    """Optimiser steps."""
    samples: int | None = None
    """Pictures seen, with repetition."""
    dataset_sha256: str | None = None
    fidelity: Mapping[str, float] | None = None
    """Measured on pictures never trained on: {"edge_f1": 0.8}."""
    strength: float | None = None
    """Where `Apply ControlNet` should begin: this, and the window below."""
    start_percent: float | None = None
    end_percent: float | None = None
    licence: str | None = None
    """SPDX identifier."""

    def __post_init__(self) -> None:
        for name, rule in RULES.items():
            value = getattr(self, name)
            if value is not None and not rule.accepts(value):
                raise ControlNetKitError(f"The metadata field {name} must be {rule.wants}, got {value!r:.80}.")

    def to_strings(self) -> dict[str, str]:
        """For the safetensors header: what is known, and the same under modelspec's names where it has one."""
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        ours = {PREFIX + name: RULES[name].format(value) for name, value in known.items() if value is not None}
        return {**ours, **self.modelspec()}

    def modelspec(self) -> dict[str, str]:
        """The fields of Stability AI's ModelSpec 1.0.0 that follow from ours."""
        known = {
            "architecture": ARCHITECTURES.get(self.family or ""),
            "title": f"ControlNet, {self.condition}" if self.condition else None,
            "resolution": f"{self.resolution}x{self.resolution}" if self.resolution else None,
            "license": self.licence,
        }
        return {
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.implementation": "https://github.com/lllyasviel/ControlNet",
            **{f"modelspec.{name}": value for name, value in known.items() if value},
        }

    @property
    def needs(self) -> str | None:
        """What has to be loaded too, for people; None: nothing."""
        if self.decoder is None:
            return None
        return (
            f"It was trained together with the UNet's decoder: load {self.decoder} into the model too, at strength 1."
        )

    @classmethod
    def from_strings(cls, strings: Mapping[str, str]) -> ControlNetMetadata:
        """Of a header's strings the ones that we know and that are within their bounds; all others are ignored."""
        found = {name: strings.get(PREFIX + name) for name in RULES}
        values = {name: RULES[name].parse(string) for name, string in found.items() if string is not None}
        return cls(**values)
