"""Losses and gradient norms, kept on the device and read back now and then: each reading waits for the device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from . import hardware


class Readings:
    """Those since the last reading."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.losses: list[Tensor] = []
        self.norms: list[Tensor | float | None] = []

    def add(self, loss: Tensor, norm: Tensor | float | None) -> None:
        """After a step: this process's mean loss, and the gradient's norm if it was measured."""
        self.losses.append(loss)
        self.norms.append(norm)

    def read(self) -> tuple[list[float], list[float | None]]:
        """Of each step since the last reading, the mean loss over processes, and the gradient's norm."""
        mean = self.accelerator.reduce(torch.stack(self.losses), reduction="mean")
        norms = [None if norm is None else float(norm) for norm in self.norms]
        self.losses, self.norms = [], []
        return mean.tolist(), norms  # pyright: ignore[reportAttributeAccessIssue]


def first_lost(losses: Sequence[float], norms: Sequence[float | None]) -> tuple[int, str] | None:
    """The first of these steps whose loss or gradient is no number: its index, and which of them."""
    for index, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        if not math.isfinite(loss):
            return index, f"the loss is {loss}"
        if norm is not None and not math.isfinite(norm):
            return index, f"the gradient's norm is {norm}"
    return None


@torch.no_grad()
def lost_weights(module: nn.Module) -> Tensor:
    """How many of this process's trained tensors hold something else than numbers: a number, on the device."""
    parts = [hardware.local(parameter.detach()).sum(dtype=torch.float32) for parameter in module.parameters()]
    return (~torch.stack(parts).isfinite()).sum()
