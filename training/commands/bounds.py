"""Numbers of command lines."""

from __future__ import annotations

from ..errors import DataError


def at_least(lowest: int, **flags: int) -> None:
    """Raise DataError for a flag whose number is less."""
    for name, value in flags.items():
        if value < lowest:
            raise DataError(f"--{name} {value}: expected {lowest} or more.")
