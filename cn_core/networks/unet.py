"""The locked copy: Stable Diffusion's UNet in two halves, `encode` and `decode`.

`encode` yields the skips; `decode` takes them back with a ControlNet's residuals added. The functions that build the
encoder's blocks are the ones the ControlNet (the trainable copy) is built from.

Shapes: B batch, C channels, H W latent, E width of the timestep embedding, M text tokens, D their width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..modulation.residuals import Residuals
from .attention import SpatialTransformer
from .backend import Backend
from .config import UNetConfig
from .layers import Block, Downsample, ResBlock, Upsample, embedding_mlp, timestep_embedding


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What the encoder hands to the decoder."""

    skips: tuple[Tensor, ...]
    """One per input block, B C H W each."""
    mid: Tensor
    """The middle block's output, B C H W."""
    emb: Tensor
    """The embedding of timestep and y, B E."""


def transformer(config: UNetConfig, channels: int, depth: int, backend: Backend) -> SpatialTransformer:
    """The attention layer for features of this many channels."""
    heads, linear = config.heads(channels), config.use_linear_in_transformer
    return SpatialTransformer(channels, config.context_dim, heads, depth, linear=linear, backend=backend)


def residual_block(config: UNetConfig, inputs: int, level: int, backend: Backend) -> list[nn.Module]:
    """A residual block into a level, followed by that level's attention if it has any."""
    channels, depth = config.channels(level), config.transformer_depth[level]
    layers: list[nn.Module] = [ResBlock(inputs, channels, config.time_embed_dim, backend)]
    return [*layers, transformer(config, channels, depth, backend)] if depth else layers


def input_blocks(config: UNetConfig, backend: Backend) -> nn.ModuleList:
    """The encoder: a convolution, then per level its residual blocks and, but for the last, a downsampling."""
    blocks = [Block(backend.conv2d(config.in_channels, config.model_channels, 3))]
    channels = config.model_channels
    for level, count in enumerate(config.num_res_blocks):
        for _ in range(count):
            blocks.append(Block(*residual_block(config, channels, level, backend)))
            channels = config.channels(level)
        if level < config.levels - 1:
            blocks.append(Block(Downsample(channels, backend)))
    return nn.ModuleList(blocks)


def middle_block(config: UNetConfig, backend: Backend) -> Block:
    """Residual block, attention, residual block at the lowest resolution."""
    channels, depth = config.middle_channels, config.transformer_depth_middle
    return Block(
        ResBlock(channels, channels, config.time_embed_dim, backend),
        transformer(config, channels, depth, backend),
        ResBlock(channels, channels, config.time_embed_dim, backend),
    )


def output_blocks(config: UNetConfig, backend: Backend) -> nn.ModuleList:
    """The decoder: the encoder's levels upwards, one residual block more in each, every one taking a skip."""
    skips = config.skip_channels()
    blocks: list[Block] = []
    channels = config.middle_channels
    for level in reversed(range(config.levels)):
        for index in range(config.num_res_blocks[level] + 1):
            layers = residual_block(config, channels + skips.pop(), level, backend)
            channels = config.channels(level)
            if level and index == config.num_res_blocks[level]:
                layers.append(Upsample(channels, backend))
            blocks.append(Block(*layers))
    return nn.ModuleList(blocks)


def label_embedding(config: UNetConfig, backend: Backend) -> nn.Sequential | None:
    """The embedding of y, for families that have it (SDXL)."""
    if config.adm_in_channels is None:
        return None
    return nn.Sequential(embedding_mlp(config.adm_in_channels, config.time_embed_dim, backend))


class Embedder(nn.Module):
    """What the UNet and the ControlNet share outside their blocks: timestep and y -> B E."""

    def __init__(self, config: UNetConfig, backend: Backend) -> None:
        super().__init__()
        self.config = config
        self.time_embed = embedding_mlp(config.model_channels, config.time_embed_dim, backend)
        self.label_emb = label_embedding(config, backend)

    def embed(self, x: Tensor, timesteps: Tensor, y: Tensor | None, more: Tensor | None = None) -> Tensor:
        """timesteps is B, y is B Y for families that have it and None for the others; x gives the dtype.

        `more` (B or 1 rows, E) is added to the timestep's embedding: union ControlNets have it.
        """
        emb = self.time_embed(timestep_embedding(timesteps, self.config.model_channels).to(x.dtype))
        if more is not None:
            emb = emb + more
        if self.label_emb is None:
            return emb
        if y is None:
            raise ValueError(f"This network takes a vector y of width {self.config.adm_in_channels}, and got none.")
        return emb + self.label_emb(y)


def decoded(blocks: nn.ModuleList, out: nn.Sequential, encoded: Encoded, context: Tensor) -> Tensor:
    """The second half by its blocks, each of which takes the features so far and a skip: B C H W."""
    skips, h = encoded.skips, encoded.mid
    for index, block in enumerate(blocks, start=1):
        size = tuple(skips[-index - 1].shape[-2:]) if index < len(skips) else None
        h = block(torch.cat([h, skips[-index]], dim=1), encoded.emb, context, size)
    return out(h)


class UNet(Embedder):
    """eps_theta (or v_theta) of Stable Diffusion."""

    def __init__(self, config: UNetConfig, backend: Backend | None = None) -> None:
        backend = backend or Backend()
        super().__init__(config, backend)
        self.input_blocks = input_blocks(config, backend)
        self.middle_block = middle_block(config, backend)
        self.output_blocks = output_blocks(config, backend)
        self.out = nn.Sequential(
            backend.group_norm(config.model_channels),
            nn.SiLU(),
            backend.conv2d(config.model_channels, config.out_channels, 3),
        )

    def encode(self, x: Tensor, timesteps: Tensor, context: Tensor, y: Tensor | None = None) -> Encoded:
        """The first half: x is B C H W, timesteps B, context B M D."""
        emb = self.embed(x, timesteps, y)
        h = x
        skips: list[Tensor] = []
        for block in self.input_blocks:
            h = block(h, emb, context)
            skips.append(h)
        return Encoded(skips=tuple(skips), mid=self.middle_block(h, emb, context), emb=emb)

    def decode(self, encoded: Encoded, context: Tensor, residuals: Residuals | None = None) -> Tensor:
        """The second half, with the ControlNet's residuals added to skips and middle; returns B C H W."""
        if residuals is not None:
            skips = tuple(skip + residual for skip, residual in zip(encoded.skips, residuals.down, strict=True))
            encoded = replace(encoded, skips=skips, mid=encoded.mid + residuals.mid)
        return decoded(self.output_blocks, self.out, encoded, context)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor | None = None,
        residuals: Residuals | None = None,
    ) -> Tensor:
        """Both halves."""
        return self.decode(self.encode(x, timesteps, context, y), context, residuals)
