"""`Residuals`: what a ControlNet adds to the UNet, as an immutable value with pure functions.

Shapes: B batch, C channels, H W latent (smaller at deeper levels).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """The outputs of the zero convolutions: one for each skip connection and one for the middle block."""

    down: tuple[Tensor, ...]
    """In the order of the UNet's input blocks, each B C H W of that block's output."""
    mid: Tensor
    """B C H W of the middle block's output."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Residuals:
        """Apply `function` to every residual."""
        return Residuals(down=tuple(function(r) for r in self.down), mid=function(self.mid))


def scale(residuals: Residuals, strength: float) -> Residuals:
    """Every residual times `strength`; 1.0 hands back the very same value."""
    return residuals if strength == 1.0 else residuals.map(lambda r: r * strength)


def add(first: Residuals, second: Residuals) -> Residuals:
    """The sum, residual by residual; raises ValueError when the two come from UNets of different depth."""
    if len(first.down) != len(second.down):
        raise ValueError(f"Cannot add residuals of {len(first.down)} and {len(second.down)} skips: different UNets.")
    down = tuple(a + b for a, b in zip(first.down, second.down, strict=True))
    return Residuals(down=down, mid=first.mid + second.mid)


def cast(residuals: Residuals, dtype: torch.dtype) -> Residuals:
    """Every residual as `dtype`."""
    return residuals.map(lambda r: r.to(dtype))


def pool_globally(residuals: Residuals) -> Residuals:
    """Replace every residual by its mean over H and W (the "shuffle" ControlNet: style without layout)."""
    return residuals.map(lambda r: r.mean(dim=(2, 3), keepdim=True).expand_as(r))
