"""From settings to a target: one row for each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from ..bases.base import Base
from ..config import OptimizerConfig, TargetConfig, TrainConfig
from . import control_lora, controlnet, input_channels, lllite
from .target import Target

Make: TypeAlias = Callable[[Base, TargetConfig, OptimizerConfig, int], Target]
"""The last is the seed."""
MAKE: Mapping[str, Make] = {
    "controlnet": controlnet.make,
    "control_lora": control_lora.make,
    "lllite": lllite.make,
    "input_channels": input_channels.make,
}
"""target.kind -> what builds it."""


def make_target(base: Base, config: TrainConfig) -> Target:
    """What the settings train; raises ConfigError, CheckpointError or FamilyMismatchError."""
    return MAKE[config.target.kind](base, config.target, config.optimizer, config.run.seed)
