"""Settings of [target] that do not go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import ConfigError

if TYPE_CHECKING:
    from .config import HardwareConfig, TargetConfig

WITHOUT: dict[str, dict[str, object]] = {
    "lllite": {"links": "all", "unlock_decoder_at": 0, "zero_init": "zero", "hint_encoder": "released"},
    "input_channels": {"links": "all", "init": "base", "zero_init": "zero", "hint_encoder": "vae"},
}
"""target.kind -> settings that it does not have, and the one value that they may have then."""


def check_target(target: TargetConfig) -> None:
    """Raise ConfigError that names the setting."""
    for name, value in WITHOUT.get(target.kind, {}).items():
        if getattr(target, name) != value:
            raise ConfigError(
                f"target.{name} must be {value!r} when target.kind is {target.kind}, got {getattr(target, name)!r}."
            )
    if target.keep_hint_encoder and target.init == "base":
        raise ConfigError("target.keep_hint_encoder keeps that of the file in target.init, and there is none.")
    if target.reconnect_at and target.links == "all":
        raise ConfigError('target.reconnect_at ends "middle" or "shallow" links; target.links is "all".')


def check_together(target: TargetConfig, hardware: HardwareConfig) -> None:
    """Raise ConfigError for what only together is wrong."""
    if hardware.compile and target.kind == "lllite":
        raise ConfigError("hardware.compile does not see the modules of an LLLite inside of the UNet: set it to false.")
