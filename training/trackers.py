"""Figures and pictures of a run for TensorBoard, Weights & Biases and what else accelerate knows."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, get_available_trackers
from accelerate.utils import LoggerType

from .config import TrainConfig
from .errors import ConfigError
from .events import Alarm, Converged, Event, Probed, StepDone, Validated
from .output.output import write_text
from .tables import nearest

PROJECT = "controlnet-kit"
WANDB_ID = "wandb-id.txt"
"""In the output folder."""


def wanted(config: TrainConfig) -> list[str | LoggerType | GeneralTracker]:
    """Names for `Accelerator(log_with=...)`; ConfigError for one that accelerate does not know or that is missing."""
    names = [name.strip().lower() for name in config.run.trackers.split(",") if name.strip()]
    known = sorted(str(kind.value) for kind in LoggerType if kind != LoggerType.ALL)
    installed = [str(kind.value) for kind in get_available_trackers()]
    for name in names:
        if name not in known:
            raise ConfigError(f"run.trackers knows {', '.join(known)}; got {name!r}.{nearest(name, known)}")
        if name not in installed:
            raise ConfigError(f"run.trackers has {name}, which is not installed: python -m pip install {name}")
    return [*names]


class Trackers:
    """Told each event of a run; logs into its output folder from the first one on."""

    def __init__(self, accelerator: Accelerator, config: TrainConfig) -> None:
        self.accelerator = accelerator
        self.config = config
        self.wanted = wanted(config)
        self.begun = False

    def __call__(self, event: Event) -> None:
        """Log it."""
        if not self.wanted:
            return
        if not self.begun:
            mine = {"wandb": of_wandb(Path(self.config.run.output))} if "wandb" in self.wanted else {}
            self.accelerator.init_trackers(PROJECT, flat(self.config), init_kwargs=mine)
            self.begun = True
        values = figures(event)
        if values:
            self.accelerator.log(values, step=event.number)
        if isinstance(event, Validated):
            for tracker in self.accelerator.trackers:
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                if hasattr(tracker, "log_images"):
                    tracker.log_images({"validation": grid(event)}, step=event.number, **layout)

    def close(self) -> None:
        """At the end of the run."""
        if self.begun:
            self.accelerator.end_training()


def of_wandb(output: Path) -> dict[str, str]:
    """What `wandb.init` takes for the run in this folder: one that is resumed goes on with its curves."""
    file = output / WANDB_ID
    name = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    if not re.fullmatch("[0-9a-f]{8}", name):
        name = uuid.uuid4().hex[:8]
        write_text(file, f"{name}\n")
    return {"dir": str(output), "id": name, "name": output.absolute().name, "resume": "allow"}


def figures(event: Event) -> dict[str, float]:
    """Name -> number."""
    if isinstance(event, StepDone):
        if event.loss is None:
            return {}
        norm = {} if event.gradient_norm is None else {"train/gradient_norm": event.gradient_norm}
        return {"train/loss": event.loss, "train/learning_rate": event.learning_rate, **norm}
    if isinstance(event, Probed):
        return {f"gap/{name}": value for name, value in event.values.items()}
    if isinstance(event, Alarm):
        return {f"alarm/{event.kind}": 1}
    if isinstance(event, Converged):
        return {"converged/since": event.since}
    if isinstance(event, Validated):
        return {f"fidelity/{name}": value for name, value in event.scores.items()}
    return {}


def grid(event: Validated) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """N H W' 3: hint, with control, without, real, side by side."""
    columns = [one for one in (event.hints, event.images, event.without, event.real) if one is not None]
    return np.concatenate(columns, axis=2)


def flat(config: TrainConfig) -> dict[str, str | int | float | bool]:
    """Settings as trackers take them."""
    return {
        f"{table}.{key}": value if isinstance(value, str | int | float | bool) else str(value)
        for table, values in config.to_dict().items()
        for key, value in values.items()
    }
