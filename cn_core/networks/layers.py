"""The parts of a UNet level: timestep embedding, residual block, down- and upsampling.

Shapes: B batch, C channels, H W latent, E width of the timestep embedding.
Submodules are named as in LDM, so released files load without renaming.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import SpatialTransformer
from .backend import Backend


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Sinusoids of timesteps (B, may be fractional) -> B width, float32: cosines first, wavelengths up to 10000."""
    half = width // 2
    steps = torch.arange(0, half, dtype=torch.float32, device=timesteps.device)
    frequencies = torch.exp(-math.log(10000) * steps / half)
    angles = timesteps[:, None].float() * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def embedding_mlp(inputs: int, width: int, backend: Backend) -> nn.Sequential:
    """Linear, SiLU, Linear: B inputs -> B width."""
    return nn.Sequential(backend.linear(inputs, width), nn.SiLU(), backend.linear(width, width))


class ResBlock(nn.Module):
    """Two normalised 3x3 convolutions around the addition of the timestep embedding, plus the input."""

    def __init__(self, in_channels: int, out_channels: int, embedding_width: int, backend: Backend) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            backend.group_norm(in_channels), nn.SiLU(), backend.conv2d(in_channels, out_channels, 3)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), backend.linear(embedding_width, out_channels))
        self.out_layers = nn.Sequential(
            backend.group_norm(out_channels),
            nn.SiLU(),
            nn.Identity(),  # LDM has its (unused) dropout here; the file's keys count it
            backend.conv2d(out_channels, out_channels, 3),
        )
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else backend.conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x is B C H W, emb is B E; returns B C' H W."""
        h = self.in_layers(x) + self.emb_layers(emb)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2: B C H W -> B C ceil(H/2) ceil(W/2)."""

    def __init__(self, channels: int, backend: Backend) -> None:
        super().__init__()
        self.op = backend.conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x is B C H W."""
        return self.op(x)


class Upsample(nn.Module):
    """Nearest-neighbour enlargement to the size of the next skip, then a 3x3 convolution."""

    def __init__(self, channels: int, backend: Backend) -> None:
        super().__init__()
        self.conv = backend.conv2d(channels, channels, 3)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """x is B C H W; returns B C size[0] size[1]."""
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


class Block(nn.Sequential):
    """One numbered block of the UNet: its layers in order, each given what it takes."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride], nn.Sequential's passes on one argument
        self, h: Tensor, emb: Tensor, context: Tensor, size: tuple[int, int] | None = None
    ) -> Tensor:
        """h is B C H W, emb is B E, context is B M D; `size` is the H W after an upsampling layer."""
        for layer in self:
            if isinstance(layer, ResBlock):
                h = layer(h, emb)
            elif isinstance(layer, SpatialTransformer):
                h = layer(h, context)
            elif isinstance(layer, Upsample):
                h = layer(h, size)
            else:
                h = layer(h)
        return h
