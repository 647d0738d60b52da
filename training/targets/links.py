"""Links: which of a ControlNet's residuals reach the UNet, and what has to be computed for them.

all: as the paper's figure 3. middle: only the middle block's (lllyasviel's advice for few pairs or one small card); it
costs as much as all of them, but has one thing to learn at first. shallow: only those of the highest resolution, whose
network ends there, so that a step costs about a third less (SD 1.x) or 60 % less (SDXL).

Shapes: B pairs, C channels, h w latent, smaller at deeper levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ...cn_core.networks.controlnet import ControlNet
from ...cn_core.networks.latent_controlnet import LatentControlNet
from ...cn_core.networks.unet import Encoded, UNet
from ...cn_core.networks.zero_conv import zero_
from ..samples import Batch
from . import precision

Links = Literal["all", "middle", "shallow"]
Down = Sequence[Tensor]
"""Residuals of the first skips, in the order of the UNet's input blocks."""


def residuals(
    control: ControlNet, links: Links, noisy: Tensor, timesteps: Tensor, batch: Batch, features: Tensor
) -> tuple[Down, Tensor | None]:
    """Those that are linked: of the first skips, and of the middle block; `features` are the hint's."""
    if links == "shallow":
        return shallow(control, noisy, timesteps, batch, features), None
    found = control(noisy, timesteps, batch.context, features, batch.y)
    return () if links == "middle" else found.down, found.mid


def shallow(control: ControlNet, noisy: Tensor, timesteps: Tensor, batch: Batch, features: Tensor) -> Down:
    """Those of the blocks at the latent's own size; no other block is computed."""
    emb = control.embed(noisy, timesteps, batch.y)
    latent = isinstance(control, LatentControlNet)
    h, added = (features, torch.zeros_like(features[:1, :1])) if latent else (noisy, features)
    found: list[Tensor] = []
    for index in range(1 + control.config.num_res_blocks[0]):
        h = control.input_blocks[index](h, emb, batch.context)
        if index == 0:
            h = h + added
        found.append(control.zero_convs[index](h))
    return found


def cut_(control: ControlNet, links: Links) -> None:
    """Set to zero, in place, the zero convolutions of residuals that are not linked: the file holds them too."""
    highest = 1 + control.config.num_res_blocks[0]
    cut = {
        "all": (),
        "middle": control.zero_convs,
        "shallow": (*control.zero_convs[highest:], control.middle_block_out),
    }
    for convolution in cut[links]:
        zero_(convolution)


def frozen_encoder(unet: UNet, noisy: Tensor, timesteps: Tensor, batch: Batch) -> Encoded:
    """The UNet's first half, which takes no part in the backward pass: RuntimeError if it would."""
    with torch.no_grad():
        encoded = precision.encode(unet, noisy, timesteps, batch)
    if encoded.mid.requires_grad or any(skip.requires_grad for skip in encoded.skips):
        raise RuntimeError("The frozen encoder is in the backward pass; nothing that it is fed may require gradients.")
    return encoded


def joined(encoded: Encoded, down: Down, mid: Tensor | None) -> Encoded:
    """Residuals added to the first skips and to the middle, in the encoder's dtype."""
    first = [skip + r.to(skip.dtype) for skip, r in zip(encoded.skips, down, strict=False)]
    middle = encoded.mid if mid is None else encoded.mid + mid.to(encoded.mid.dtype)
    return replace(encoded, skips=(*first, *encoded.skips[len(first) :]), mid=middle)
