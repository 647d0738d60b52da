"""Attention over the latent's positions and over the text: the transformer inside the UNet.

Shapes: B batch, C channels, H W latent, L = H * W positions, M text tokens, D width.
Submodules are named as in LDM, so released files load without renaming.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .backend import Backend


class CrossAttention(nn.Module):
    """Multi-head attention of x (B L D) to `context` (B M D')."""

    def __init__(self, width: int, context_width: int, heads: int, backend: Backend) -> None:
        super().__init__()
        self.heads = heads
        self.attention = backend.attention
        self.to_q = backend.linear(width, width, bias=False)
        self.to_k = backend.linear(context_width, width, bias=False)
        self.to_v = backend.linear(context_width, width, bias=False)
        self.to_out = nn.Sequential(backend.linear(width, width))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x is B L D, context is B M D'; returns B L D."""
        return self.to_out(self.attention(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))


class GEGLU(nn.Module):
    """Linear layer gated by GELU (Shazeer, arXiv 2002.05202): B L D -> B L D'."""

    def __init__(self, inputs: int, outputs: int, backend: Backend) -> None:
        super().__init__()
        self.proj = backend.linear(inputs, 2 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x is B L D."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """The transformer's two-layer network, four times as wide inside."""

    def __init__(self, width: int, backend: Backend) -> None:
        super().__init__()
        # index 1 is LDM's (unused) dropout; the file's keys count it
        self.net = nn.Sequential(GEGLU(width, 4 * width, backend), nn.Identity(), backend.linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """x is B L D."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, attention to the text, feed-forward: each on normalised input, each added to it."""

    def __init__(self, width: int, context_width: int, heads: int, backend: Backend) -> None:
        super().__init__()
        self.attn1 = CrossAttention(width, width, heads, backend)
        self.ff = FeedForward(width, backend)
        self.attn2 = CrossAttention(width, context_width, heads, backend)
        self.norm1, self.norm2, self.norm3 = (backend.layer_norm(width) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x is B L D, context is B M D'; returns B L D."""
        n = self.norm1(x)
        x = self.attn1(n, n) + x
        x = self.attn2(self.norm2(x), context) + x
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over all positions of a feature map, added to it."""

    def __init__(
        self, channels: int, context_width: int, heads: int, depth: int, *, linear: bool, backend: Backend
    ) -> None:
        super().__init__()
        self.linear = linear
        self.norm = backend.group_norm(channels, eps=1e-6)

        def projection() -> nn.Module:
            return backend.linear(channels, channels) if linear else backend.conv2d(channels, channels, 1)

        self.proj_in = projection()
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, context_width, heads, backend) for _ in range(depth)
        )
        self.proj_out = projection()

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x is B C H W, context is B M D'; returns B C H W."""
        height, width = x.shape[-2:]
        h = self.norm(x)
        if not self.linear:
            h = self.proj_in(h)
        h = h.movedim(1, 3).flatten(1, 2).contiguous()  # B L C
        if self.linear:
            h = self.proj_in(h)
        for block in self.transformer_blocks:
            h = block(h, context)
        if self.linear:
            h = self.proj_out(h)
        h = h.unflatten(1, (height, width)).movedim(3, 1).contiguous()  # B C H W
        if not self.linear:
            h = self.proj_out(h)
        return h + x
