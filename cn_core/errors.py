"""The kit's own errors. Each message says what arrived, what was expected and what to change."""

from __future__ import annotations


class ControlNetKitError(ValueError):
    """Base of all of them: something the user can put right."""


class CheckpointError(ControlNetKitError):
    """A file that cannot be read, is damaged, or is not what its place asks for."""


class FamilyMismatchError(ControlNetKitError):
    """A ControlNet made for another family of models than the one it is used with."""


class HintError(ControlNetKitError):
    """A control picture that cannot be used: empty, not finite, of a wrong shape."""


class WeightsError(ControlNetKitError):
    """Weights of a preprocessor that are not there, are damaged, or cannot be had."""
