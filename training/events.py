"""What a run tells: the loop yields these, and command line, node, trackers and report read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class StepDone:
    """After every optimiser step."""

    number: int
    """From 1."""
    loss: float | None
    """Mean since the last reading; None between readings (run.log_every)."""
    learning_rate: float
    seconds: float
    """The step took, without validation and saving."""
    gradient_norm: float | None
    """Before clipping, at a reading; None without clipping."""


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """A run went on from a checkpoint."""

    number: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class MicroBatchHalved:
    """The device's memory was too small; the step is computed again in smaller parts."""

    number: int
    micro_batch: int


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint or a ControlNet file is on the disk."""

    number: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class Validated:
    """Pictures were drawn from held-out hints."""

    number: int
    scores: Mapping[str, float]
    """{"edge_f1": 0.6, "floor": 0.2, "ceiling": 0.9, ...}: the measure, what it is for pictures drawn without control
    from the same noise, for the real pictures after the autoencoder, and further measures."""
    images: np.ndarray
    """N H W 3 uint8 RGB: what was drawn."""
    hints: np.ndarray
    """N H W 3 uint8 RGB."""
    captions: tuple[str, ...] = ()
    without: np.ndarray | None = None
    """N H W 3 uint8 RGB: drawn without control from the same noise."""
    real: np.ndarray | None = None
    """N H W 3 uint8 RGB: the pictures that the hints belong to, after the autoencoder."""
    measure: str = ""
    """Which of the scores is the fidelity; the others are bounds and details."""
    held_out: bool = True
    """False: there are no held-out pairs, and these are from training."""


@dataclass(frozen=True, kw_only=True)
class Probed:
    """The paired loss gap was measured."""

    number: int
    values: Mapping[str, float]
    """other_hint, no_control: how much larger the loss is with another picture's hint and without control; right: the
    loss with the right hint; error: standard error of other_hint."""
    preview: np.ndarray | None = None
    """N H W 3 uint8 RGB: what one step makes of a mostly noisy latent."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """Something that fails silently seems to."""

    number: int
    kind: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Converged:
    """The hint is followed; a snapshot is written."""

    number: int
    message: str
    since: int = 0
    """The step at which it began to be; `number` is when that was sure."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The last event; `stopped` when someone asked for it before all steps were done."""

    number: int
    stopped: bool
    path: Path
    """The ControlNet's file."""
    seconds: float


Event = StepDone | Resumed | MicroBatchHalved | Saved | Validated | Probed | Alarm | Converged | Finished


def plain(event: Event) -> dict[str, Any]:
    """An event for a line of JSON: its kind and fields, without pictures."""
    values = {key: value for key, value in vars(event).items() if not isinstance(value, np.ndarray)}
    words = {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
    return {"event": type(event).__name__, **words}


def scored(measure: str, scores: Mapping[str, float], held_out: bool) -> str:
    """What a validation found: "edge_f1 0.612 (without control 0.240, real pictures 0.910)"."""
    if not measure:
        return "pictures drawn"
    where = "" if held_out else ", on pairs of the training: data.validation holds none out"
    return (
        f"{measure} {scores[measure]:.3f} (without control {scores['floor']:.3f}, real pictures "
        f"{scores['ceiling']:.3f}{where})"
    )
