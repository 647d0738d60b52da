"""The two seams between the networks and whoever runs them: layer classes and the attention function.

Training uses the defaults. A host passes its own layers (weights cast or offloaded at use) and its own attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""(q, k, v, heads) -> out; q is B L D, k and v are B M D, out is B L D, D = heads * head dimension."""


class Operations(Protocol):
    """A namespace of layer classes with the constructor arguments of torch.nn."""

    Linear: Any
    Conv2d: Any
    GroupNorm: Any
    LayerNorm: Any


def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for each head."""

    def split(t: Tensor) -> Tensor:
        return t.reshape(*t.shape[:2], heads, -1).transpose(1, 2)  # B heads L d

    return F.scaled_dot_product_attention(split(q), split(k), split(v)).transpose(1, 2).flatten(2)


@dataclass(frozen=True, kw_only=True)
class Backend:
    """How layers are made and attention is computed."""

    operations: Operations = nn
    attention: Attention = scaled_dot_product_attention
    dtype: torch.dtype | None = None
    device: torch.device | str | None = None

    def linear(self, inputs: int, outputs: int, *, bias: bool = True) -> nn.Module:
        """A fully connected layer."""
        return self.operations.Linear(inputs, outputs, bias=bias, dtype=self.dtype, device=self.device)

    def conv2d(self, inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int | None = None) -> nn.Module:
        """A convolution; without `padding` it keeps H and W at stride 1 and odd `size`."""
        padding = size // 2 if padding is None else padding
        return self.operations.Conv2d(
            inputs, outputs, size, stride=stride, padding=padding, dtype=self.dtype, device=self.device
        )

    def group_norm(self, channels: int, *, eps: float = 1e-5) -> nn.Module:
        """Group normalisation in 32 groups, as everywhere in Stable Diffusion."""
        return self.operations.GroupNorm(32, channels, eps=eps, affine=True, dtype=self.dtype, device=self.device)

    def layer_norm(self, width: int) -> nn.Module:
        """Layer normalisation over the last dimension."""
        return self.operations.LayerNorm(width, dtype=self.dtype, device=self.device)
