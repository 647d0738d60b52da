"""Losses and gradient norms, kept on the device and read back now and then: each reading waits for the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from . import hardware
from .timesteps import Timesteps

LOST = "some weights became no numbers"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Of one step."""

    loss: float
    """Mean over processes."""
    norm: float | None
    """The gradient's, if it was measured."""
    lost: bool
    """Some weights were no numbers after it; looked at where no norm is measured."""
    timesteps: Timesteps
    """The distribution as it was when the step drew from it."""


class Readings:
    """Those since the last reading."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.losses: list[Tensor] = []
        self.norms: list[Tensor | float | None] = []
        self.lost: list[Tensor] = []
        self.timesteps: list[Timesteps] = []

    def add(self, loss: Tensor, norm: Tensor | float | None, module: nn.Module, timesteps: Timesteps) -> None:
        """After a step: this process's mean loss, the gradient's norm if it was measured, and what was trained.

        `timesteps` are as they were before the step.
        """
        self.losses.append(loss)
        self.timesteps.append(timesteps)
        self.norms.append(norm)
        self.lost.append(lost_weights(module) if norm is None else torch.zeros_like(loss))

    def read(self) -> list[Reading]:
        """Of each step since the last reading."""
        mean: Any = self.accelerator.reduce(torch.stack(self.losses), reduction="mean")
        lost: Any = self.accelerator.reduce(torch.stack(self.lost), reduction="sum")
        norms = [None if norm is None else float(norm) for norm in self.norms]
        steps = zip(mean.tolist(), norms, lost.tolist(), self.timesteps, strict=True)
        self.losses, self.norms, self.lost, self.timesteps = [], [], [], []
        return [
            Reading(loss=loss, norm=norm, lost=count > 0, timesteps=timesteps) for loss, norm, count, timesteps in steps
        ]


def first_lost(readings: Sequence[Reading], *, overflow: bool) -> tuple[int, str] | None:
    """The first of these steps whose loss, gradient or weights are no numbers: its index, and which of them.

    Gradients may `overflow` with fp16, whose scaler leaves such a step out.
    """
    for index, one in enumerate(readings):
        if not math.isfinite(one.loss):
            return index, f"the loss is {one.loss}"
        if one.norm is not None and not overflow and not math.isfinite(one.norm):
            return index, f"the gradient's norm is {one.norm}"
        if one.lost:
            return index, LOST
    return None


@torch.no_grad()
def lost_weights(module: nn.Module) -> Tensor:
    """How many of this process's trained tensors hold something else than numbers: a number, on the device."""
    norms: Any = torch._foreach_norm  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]
    parts = norms([hardware.local(parameter.detach()) for parameter in module.parameters()])
    return (~torch.stack(parts).isfinite()).sum().float()
