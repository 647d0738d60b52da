"""In which type a step is computed: what is trained under autocast, the frozen UNet in its own type without it.

CUDA's autocast normalises in float32, and those copies would be kept for the backward pass: an eighth to a fifth more
memory, and the time to make them. diffusers' examples have it as it is here. Shapes: B pairs, C h w latent.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from ...cn_core.networks.unet import Encoded, UNet
from ..samples import Batch

Autocast: TypeAlias = Callable[[], AbstractContextManager[object]]
Cast: TypeAlias = Callable[[Tensor], Tensor]


def autocast_of(device: torch.device) -> Autocast:
    """The autocast that is on here, to be entered elsewhere: what wraps a module may end it (DeepSpeed does)."""
    kind = device.type
    if not torch.amp.is_autocast_available(kind):  # the meta device, where a cost is counted
        return nullcontext
    return partial(torch.autocast, kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))


@contextmanager
def own_type(unet: UNet) -> Generator[Cast]:
    """No autocast as long as this lasts; yields what makes tensors of the UNet's type.

    A float32 UNet has autocast left on: it is as large as it is because there was memory, not to be slow.
    """
    weight = next(unet.parameters())
    if weight.dtype == torch.float32:
        yield unchanged
        return
    available = torch.amp.is_autocast_available(weight.device.type)
    with torch.autocast(weight.device.type, enabled=False) if available else nullcontext():
        yield lambda tensor: tensor.to(weight.dtype)


def unchanged(tensor: Tensor) -> Tensor:
    """The tensor."""
    return tensor


def encode(unet: UNet, noisy: Tensor, timesteps: Tensor, batch: Batch) -> Encoded:
    """The frozen UNet's first half; noisy is B C h w, timesteps B."""
    with own_type(unet) as cast:
        return unet.encode(cast(noisy), timesteps, cast(batch.context), None if batch.y is None else cast(batch.y))


def decode(unet: UNet, encoded: Encoded, context: Tensor) -> Tensor:
    """Its second half: eps or v, B C h w."""
    with own_type(unet) as cast:
        skips = tuple(map(cast, encoded.skips))
        same = replace(encoded, skips=skips, mid=cast(encoded.mid), emb=cast(encoded.emb))
        return unet.decode(same, cast(context))


def predict(unet: UNet, noisy: Tensor, timesteps: Tensor, batch: Batch) -> Tensor:
    """Both halves."""
    return decode(unet, encode(unet, noisy, timesteps, batch), batch.context)
