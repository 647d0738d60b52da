"""Hints as latents: encoded by the base's own autoencoder, without gradients.

Shapes: B pairs, C h w latent, H W = 8h 8w pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..bases.base import Codec


@torch.no_grad()
def encoded(codec: Codec, hint: Tensor) -> Tensor:
    """The posterior's mean, B C h w, of hints B 3 H W in [0, 1]; the autoencoder moves to where they are.

    One picture at a time: an autoencoder's activations take much more than those that a step keeps of a pair.
    """
    if hint.is_meta:  # a cost is being counted, and the autoencoder, counted by itself, has to keep its weights
        height, width = (side // codec.factor for side in hint.shape[-2:])
        return hint.new_empty(len(hint), codec.channels, height, width)
    for module in codec.modules():
        module.to(hint.device)
    with torch.autocast(hint.device.type, enabled=False):
        return torch.cat([codec.encode(one).mean for one in hint.split(1)])


def as_ctrlora(codec: Codec, hint: Tensor) -> Tensor:
    """As CtrLoRA has it: what the autoencoder sees is [0, 1] itself, not [-1, 1]."""
    return encoded(codec, (hint + 1) / 2)
