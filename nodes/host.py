"""The core's two seams filled by the host: its layers (weights cast or offloaded at use) and its attention."""

from __future__ import annotations

from functools import partial

import comfy.ldm.modules.attention
import torch
from torch import Tensor

from ..cn_core.networks.backend import Backend, Operations


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, *, precision: torch.dtype | None) -> Tensor:
    """The host's attention as it is set at the time of the call; q is B L D, k and v are B M D."""
    return comfy.ldm.modules.attention.optimized_attention(q, k, v, heads, attn_precision=precision)


def host_backend(
    operations: Operations, dtype: torch.dtype, device: torch.device, *, precision: torch.dtype | None = None
) -> Backend:
    """`dtype` is that of the stored weights; `precision` the least that attention may compute in (SD 2.x: float32)."""
    attend = partial(attention, precision=precision)
    return Backend(operations=operations, attention=attend, dtype=dtype, device=device)
