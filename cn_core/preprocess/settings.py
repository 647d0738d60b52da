"""Settings of preprocessors: frozen dataclasses whose fields say what a form needs, and check themselves.

A field's metadata has "tooltip", and either "min", "max" and "step" (numbers) or "choices" (words).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, fields
from typing import Any

import numpy as np

from ..errors import ControlNetKitError

WHOLE = (int, np.integer)
REAL = (int, float, np.integer, np.floating)


def between(low: float, high: float, tooltip: str, *, step: float | None = None) -> Mapping[str, Any]:
    """Metadata of a number, which is a whole one if `low` is."""
    return {"min": low, "max": high, "step": step or (1 if isinstance(low, int) else 0.01), "tooltip": tooltip}


def one_of(choices: Iterable[str], tooltip: str) -> Mapping[str, Any]:
    """Metadata of a word."""
    return {"choices": tuple(choices), "tooltip": tooltip}


def described(tooltip: str) -> Mapping[str, Any]:
    """Metadata of a switch."""
    return {"tooltip": tooltip}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings. Raises ControlNetKitError for a value that its field does not allow."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not allows(one, value):
                raise ControlNetKitError(f"{type(self).__name__}: {one.name} is {value!r}; {expected(one)}.")


def allows(one: Field[Any], value: Any) -> bool:
    """Whether the value is of the field's kind and within its limits."""
    limits = one.metadata
    if "choices" in limits:
        return value in limits["choices"]
    if "min" not in limits:
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, WHOLE if isinstance(limits["min"], int) else REAL):
        return False
    return bool(limits["min"] <= value <= limits["max"])  # which NaN is not


def expected(one: Field[Any]) -> str:
    """What the field allows, in words."""
    limits = one.metadata
    if "choices" in limits:
        return f"it is one of {', '.join(limits['choices'])}"
    if "min" not in limits:
        return "it is true or false"
    kind = "a whole number" if isinstance(limits["min"], int) else "a number"
    return f"it is {kind} from {limits['min']} to {limits['max']}"
