"""Settings that do not go together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ConfigError

if TYPE_CHECKING:
    from .config import BaseConfig, DataConfig, HardwareConfig, RunConfig, TargetConfig

WITHOUT: dict[str, dict[str, object]] = {
    "lllite": {"links": "all", "unlock_decoder_at": 0, "zero_init": "zero", "hint_encoder": "released"},
    "input_channels": {"links": "all", "init": "base", "zero_init": "zero", "hint_encoder": "vae"},
}
"""target.kind -> settings that it does not have, and the one value that they may have then."""


def check_base(base: BaseConfig) -> None:
    """Raise ConfigError for parts of another base that the embedded one does not take."""
    given = [name for name in ("vae", "text_encoder", "tokenizer") if getattr(base, name)]
    if base.path == "tiny" and given:
        raise ConfigError(
            f"base.{given[0]} is {getattr(base, given[0])!r}, and the embedded base has its own: set base.path to the "
            "model that it is for, or leave it out."
        )


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
    if target.zero_init == "gaussian" and target.init != "base":
        raise ConfigError(
            "target.zero_init gaussian would undo what the zero convolutions of the file in target.init have learnt: "
            'set it to "zero", or target.init to "base".'
        )


def check_steps(target: TargetConfig, run: RunConfig) -> None:
    """Raise ConfigError for a change that the run ends before."""
    for name in ("reconnect_at", "unlock_decoder_at"):
        at = getattr(target, name)
        if at >= run.steps and at:
            raise ConfigError(
                f"target.{name} is {at}, and the run ends after {run.steps} steps: set it to less than that, "
                f"as --target.{name} {run.steps // 2} does, or to 0 for never, or raise run.steps."
            )


def check_places(data: DataConfig, run: RunConfig) -> None:
    """Raise ConfigError for a cache in the run's folder, which takes no files of others."""
    if data.cache and Path(data.cache).expanduser().resolve().is_relative_to(Path(run.output).expanduser().resolve()):
        raise ConfigError(
            f"data.cache {data.cache} lies in run.output {run.output}, which is the run's alone: set data.cache to "
            "another folder; runs may share it."
        )


def check_together(target: TargetConfig, hardware: HardwareConfig) -> None:
    """Raise ConfigError for what only together is wrong."""
    if hardware.compile and target.kind == "lllite":
        raise ConfigError("hardware.compile does not see the modules of an LLLite inside of the UNet: set it to false.")
