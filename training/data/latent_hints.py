"""Hints as latents: what the base's own autoencoder makes of them, for networks that have no hint encoder.

Shapes: B pairs, C h w latent, H W = 8h 8w pixels.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor

from ..bases.base import Base
from ..bases.kl import scaling_factor
from ..config import TargetConfig

LatentHints: TypeAlias = Literal["none", "ctrlora", "instruct_pix2pix"]
"""Whose way it is. CtrLoRA's autoencoder sees [0, 1] itself, not [-1, 1]; ComfyUI's node InstructPixToPixConditioning
does not multiply by the scaling factor."""


def wanted(config: TargetConfig) -> LatentHints:
    """By what is trained."""
    if config.hint_encoder != "vae":
        return "none"
    return "instruct_pix2pix" if config.kind == "input_channels" else "ctrlora"


def encoded(kind: LatentHints, base: Base, hints: Tensor) -> Tensor:
    """The posterior's mean, B C h w, of hints B 3 H W in [0, 1]."""
    if kind == "ctrlora":
        return base.codec.encode((hints + 1) / 2).mean
    return base.codec.encode(hints).mean / scaling_factor(base.family)
