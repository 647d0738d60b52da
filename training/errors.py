"""The trainer's own errors. Each message says what arrived, what was expected and what to change."""

from __future__ import annotations

from ..cn_core.errors import ControlNetKitError


class ConfigError(ControlNetKitError):
    """A setting that is unknown, out of bounds, or does not go with another one."""


class DataError(ControlNetKitError):
    """Pairs that cannot be trained on."""


class OutputError(ControlNetKitError):
    """An output folder that cannot be used: someone else's, another run's, too full."""


class TrainingError(RuntimeError):
    """A run that had to stop; what was saved before is whole."""


class DivergedError(TrainingError):
    """The loss, the gradient or the weights are no numbers any more."""
