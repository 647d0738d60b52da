"""Losses and gradient norms, kept on the device and read back now and then: each reading waits for the device."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator
from torch import Tensor


class Readings:
    """Those since the last reading."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.losses: list[Tensor] = []
        self.norm: Tensor | None = None

    def add(self, loss: Tensor, norm: Tensor | None) -> None:
        """After a step: this process's mean loss, and the gradient's norm."""
        self.losses.append(loss)
        self.norm = norm

    def read(self) -> tuple[list[float], float | None]:
        """The losses since the last reading, each the mean over processes, and the last norm."""
        mean = self.accelerator.reduce(torch.stack(self.losses), reduction="mean")
        self.losses = []
        norm = None if self.norm is None else float(self.norm)
        return mean.tolist(), norm  # pyright: ignore[reportAttributeAccessIssue]


def first_lost(losses: list[float]) -> int | None:
    """Index of the first loss that is no number."""
    return next((index for index, loss in enumerate(losses) if not math.isfinite(loss)), None)
