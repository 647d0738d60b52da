"""Hints as small as they can be kept without loss, and back. Shapes: N hints, H W pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from .decoding import Pixels, Size


def packed(hints: Sequence[Pixels]) -> Mapping[str, Tensor]:
    """H W 3 each -> "bits" N H W/8 (black and white), "grey" N H W, or "rgb" N 3 H W; uint8."""
    stacked = np.stack(hints)
    grey = stacked[..., 0]
    if not (stacked == grey[..., None]).all():
        return {"rgb": torch.from_numpy(np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)))}
    if ((grey == 0) | (grey == 255)).all():
        return {"bits": torch.from_numpy(np.packbits(grey > 0, axis=-1))}
    return {"grey": torch.from_numpy(np.ascontiguousarray(grey))}


def unpacked(stored: Mapping[str, Tensor], size: Size) -> Tensor:
    """One of those hints -> 3 H W uint8."""
    if "rgb" in stored:
        return stored["rgb"]
    if "grey" in stored:
        return stored["grey"][None].expand(3, *size)
    bits = np.unpackbits(stored["bits"].numpy(), axis=-1, count=size[1])
    return torch.from_numpy(bits * np.uint8(255))[None].expand(3, *size)
