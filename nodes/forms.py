"""What the host shows for settings of the core: one widget for each field of a frozen dataclass."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any

from comfy_api.latest import io

from ..cn_core.preprocess.settings import Settings


def widget(one: Field[Any]) -> io.Input:
    """Of a field of settings."""
    name, limits = one.name, one.metadata
    default: Any = one.default
    tooltip = limits["tooltip"]
    if "choices" in limits:
        return io.Combo.Input(name, options=list(limits["choices"]), default=default, tooltip=tooltip)
    if "min" not in limits:
        return io.Boolean.Input(name, default=default, tooltip=tooltip)
    low, high, step = limits["min"], limits["max"], limits["step"]
    if isinstance(low, float):
        return io.Float.Input(name, default=default, min=low, max=high, step=step, tooltip=tooltip)
    # The host's interface would draw another seed for every run by itself.
    after: Any = io.ControlAfterGenerate.fixed if name == "seed" else None
    return io.Int.Input(
        name, default=default, min=low, max=high, step=step, tooltip=tooltip, control_after_generate=after
    )


def widgets(settings: type[Settings]) -> list[io.Input]:
    """One for each field, in their order."""
    return [widget(one) for one in fields(settings)]


def resolution() -> io.Input:
    """The rule that all preprocessors follow."""
    return io.Int.Input(
        "resolution",
        default=0,
        min=0,
        max=16384,
        step=8,
        tooltip="Short side in pixels at which the hint is made, and of the output; 0: as it is.",
    )
