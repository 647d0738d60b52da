"""How a control's residuals join those of the controls before it, and how large residuals are.

Shapes: a residual is R C H W or R L D (R rows, C channels, H W latent, L tokens, D width).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..errors import ControlNetKitError

Stacking = Literal["sum", "normalized", "max", "mask"]


def join(previous: Tensor, own: Tensor, how: Stacking, mask: Tensor | None = None) -> Tensor:
    """One residual for both; neither argument is changed.

    sum: what the host does. normalized: the sum, scaled down where its RMS (over the whole tensor) exceeds the larger
    one of the two; never up. max: of each two numbers the one of larger magnitude. mask: `own` where `mask` (broadcasts
    over it, in [0, 1]; None: 1) is 1, `previous` where it is 0, in between linear; so `own` must not be masked before.
    """
    if how == "sum":
        return previous + own
    if how == "normalized":
        total = previous + own
        limit = torch.maximum(root_mean_square(previous), root_mean_square(own))
        size = root_mean_square(total)
        return torch.where(size > limit, total * (limit / size).to(total.dtype), total)
    if how == "max":
        return torch.where(own.abs() > previous.abs(), own, previous)
    if how == "mask":
        return own if mask is None else torch.lerp(previous, own, mask.to(own.dtype))
    raise ControlNetKitError(f'Unknown way of stacking "{how}": take sum, normalized, max or mask.')


def root_mean_square(t: Tensor) -> Tensor:
    """A single number in float32, where the squares of half precision have room; stays on the device."""
    return t.float().square().mean().sqrt()


def rms(t: Tensor) -> float:
    """Root mean square, 0 or more."""
    return float(root_mean_square(t))


def relative_change(new: Tensor, old: Tensor) -> float:
    """RMS of the difference over RMS of `new`; 0 for two equal ones, infinite if only `new` is all zeros."""
    change = rms(new.float() - old.float())
    return change / size if (size := rms(new)) else (float("inf") if change else 0.0)
