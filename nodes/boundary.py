"""Where the host's pictures (IMAGE: B H W C) turn into the core's (B C H W) and back; nowhere else.

Shapes: B batch, H W pixels, C channels. Values are in [0, 1].
"""

from __future__ import annotations

from torch import Tensor

from ..cn_core.errors import HintError


def to_pixels(image: Tensor) -> Tensor:
    """IMAGE with 1, 3 or 4 channels -> B 3 H W; RGB comes back as a view of what came in.

    One channel is grey. Alpha is composited over black: hints are light on black, so what is transparent is no hint.
    Raises HintError for an empty batch, for NaN or infinite values and for any other number of channels.
    """
    if not image.numel():
        raise HintError(
            f"The image is empty: {tuple(image.shape)} (batch, height, width, channels). Connect a picture."
        )
    finite = image.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        broken = ", ".join(str(index) for index in (~finite).nonzero().flatten().tolist())
        raise HintError(
            f"The image has NaN or infinite values in picture {broken} of its batch, counted from 0. "
            "Look at the node that made it."
        )
    channels = image.shape[-1]
    if channels == 4:
        image = image[..., :3] * image[..., 3:]
    elif channels == 1:
        image = image.repeat(1, 1, 1, 3)
    elif channels != 3:
        raise HintError(f"The image has {channels} channels; a picture has 1 (grey), 3 (RGB) or 4 (RGBA).")
    return image.movedim(-1, 1)  # B 3 H W


def to_image(pixels: Tensor) -> Tensor:
    """B 3 H W -> IMAGE."""
    return pixels.movedim(1, -1).contiguous()
