"""From settings to a target: one row for each kind."""

from __future__ import annotations

import importlib

from ..bases.base import Base
from ..config import TrainConfig
from .target import Target

MODULES = {
    "controlnet": ".controlnet",
    "control_lora": ".control_lora",
    "lllite": ".lllite",
    "input_channels": ".input_channels",
}
"""target.kind -> the module whose `make(base, target settings, optimiser settings, seed)` builds it."""


def make_target(base: Base, config: TrainConfig) -> Target:
    """What the settings train; raises ConfigError, CheckpointError or FamilyMismatchError."""
    module = importlib.import_module(MODULES[config.target.kind], __package__)
    return module.make(base, config.target, config.optimizer, config.run.seed)
