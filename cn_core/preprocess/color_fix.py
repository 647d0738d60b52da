"""The colours of one picture with the detail of another: what Tile ControlNets' colour fix does, on pictures.

Shapes: B batch, H W pixels, h w pixels of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from .frames import Frame, checked, clamped, drawn, read
from .inpaint import paired
from .settings import Settings, between


@dataclass(frozen=True, kw_only=True)
class ColorFixSettings(Settings):
    """What is a colour and what is detail."""

    variation: float = field(
        default=8.0,
        metadata=between(0.5, 64.0, "Detail finer than this stays, in pixels; colours coarser are replaced."),
    )
    sharpness: float = field(
        default=1.0, metadata=between(0.0, 2.0, "Strength of the detail: 1 as it was, above 1 sharper.")
    )


def color_fix(images: Tensor, references: Tensor, settings: ColorFixSettings) -> Tensor:
    """B 3 H W and B 3 h w in [0, 1] -> B 3 H W: sharpness (x - blur(x)) + blur(reference).

    References are resized; one goes with many pictures and the other way round. Raises HintError as `paired` does.
    """
    count = paired(len(checked(images)), len(checked(references)), "pictures", "references")
    references = references.to(device=images.device, dtype=images.dtype)
    if references.shape[2:] != images.shape[2:]:
        size = images.shape[2:]
        references = F.interpolate(references.float(), size=size, mode="bicubic", antialias=True).to(images.dtype)
    others = references.detach().cpu().expand(count, -1, -1, -1)

    def fixed(image: Tensor, index: int) -> Frame:
        return recoloured(clamped(read(image)), clamped(read(others[index])), settings)

    return drawn(images.expand(count, -1, -1, -1), fixed)


def recoloured(frame: Frame, reference: Frame, settings: ColorFixSettings) -> Frame:
    """H W 3 float32 each -> H W 3."""
    import cv2

    detail = frame - cv2.GaussianBlur(frame, (0, 0), settings.variation)
    return settings.sharpness * detail + cv2.GaussianBlur(reference, (0, 0), settings.variation)
