"""T2I-Adapter (Mou et al., arXiv 2302.08453): features of the hint, added to the UNet's encoder at four places.

The hint's pixels are folded into channels, then convolutions follow at four resolutions, one for each level of the
UNet. Nothing depends on the timestep, so one pass serves a whole run.

Shapes: B batch, H W pixels of the hint, c channels of the hint, u the fold's side, C_k channels of level k.
Hints are in [0, 1]. Submodules are named as in TencentARC's files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backend import Backend
from .layers import Downsample

Kind = Literal["full", "light"]
INPUT_BLOCKS = (2, 5, 8, 11)
"""Of SD 1.x's UNet: each level's last one before the downsampling, where that level's feature is added."""
INPUT_BLOCKS_XL = (3, 5, 8)
"""Of SDXL's UNet; level 0 comes after the first downsampling, and the fourth feature goes to the middle block."""


@dataclass(frozen=True, kw_only=True)
class T2IAdapterConfig:
    """The numbers that fix every layer. Checked once, here."""

    kind: Kind = "full"
    """light: narrow blocks between 1x1 convolutions (the colour adapter)."""
    unshuffle: int = 8
    """u: 8, or 16 for SDXL."""
    hint_channels: int = 3
    """c: 3, or 1 for sketches."""
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """C_k of each level."""
    blocks: int = 2
    """Residual blocks per level."""
    kernel: int = 1
    """Side of the convolutions besides the first of each residual block (full)."""
    downsample_with_conv: bool = False
    """A convolution of stride 2 instead of an average (full)."""

    def __post_init__(self) -> None:
        if len(self.channels) != 4 or self.hint_channels not in (1, 3) or self.blocks < 1:
            raise ValueError(
                "A T2I-Adapter has four levels of one residual block or more, and hints of 1 or 3 channels; "
                f"got channels {self.channels}, {self.blocks} blocks and hints of {self.hint_channels} channels."
            )

    @property
    def xl(self) -> bool:
        """For SDXL's UNet."""
        return self.unshuffle == 16

    def halves(self, level: int) -> bool:
        """Whether a level begins by halving the resolution: all but the first, in SDXL only the third."""
        return level == 2 if self.xl else level > 0


class AveragePool(nn.Module):
    """Means of 2x2 positions; an odd side gets a zero at both ends, as in the host: B C H W -> B C ceil(H/2) ceil(W/2).

    TencentARC's own leaves the last row out, diffusers' averages what is there.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x is B C H W."""
        height, width = x.shape[-2:]
        return F.avg_pool2d(x, 2, padding=(height % 2, width % 2))


class ResidualBlock(nn.Module):
    """Halving and widening where a level begins, then x + conv(relu(conv(x)))."""

    def __init__(self, inputs: int, outputs: int, kernel: int, halving: nn.Module, backend: Backend) -> None:
        super().__init__()
        self.down_opt = halving
        self.in_conv = nn.Identity() if inputs == outputs else backend.conv2d(inputs, outputs, kernel)
        self.block1 = backend.conv2d(outputs, outputs, 3)
        self.block2 = backend.conv2d(outputs, outputs, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> B C' H' W'."""
        x = self.in_conv(self.down_opt(x))
        return self.block2(F.relu(self.block1(x))) + x


class LightLevel(nn.Module):
    """Residual blocks of a quarter of the width between two 1x1 convolutions."""

    def __init__(self, inputs: int, outputs: int, blocks: int, halving: nn.Module, backend: Backend) -> None:
        super().__init__()
        inner = outputs // 4
        self.down_opt = halving
        self.in_conv = backend.conv2d(inputs, inner, 1)
        self.body = nn.Sequential(*(ResidualBlock(inner, inner, 3, nn.Identity(), backend) for _ in range(blocks)))
        self.out_conv = backend.conv2d(inner, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> B C' H' W'."""
        return self.out_conv(self.body(self.in_conv(self.down_opt(x))))


def full_body(config: T2IAdapterConfig, backend: Backend) -> list[nn.Module]:
    """All levels' residual blocks in one row."""
    blocks: list[nn.Module] = []
    width = config.channels[0]
    for level, channels in enumerate(config.channels):
        for index in range(config.blocks):
            halving: nn.Module = nn.Identity()
            if index == 0 and config.halves(level):
                halving = Downsample(width, backend) if config.downsample_with_conv else AveragePool()
            blocks.append(ResidualBlock(width, channels, config.kernel, halving, backend))
            width = channels
    return blocks


def light_body(config: T2IAdapterConfig, folded: int, backend: Backend) -> list[nn.Module]:
    """One module per level."""
    return [
        LightLevel(inputs, channels, config.blocks, AveragePool() if config.halves(level) else nn.Identity(), backend)
        for level, (inputs, channels) in enumerate(zip((folded, *config.channels), config.channels, strict=False))
    ]


class T2IAdapter(nn.Module):
    """One feature for each level of the UNet."""

    def __init__(self, config: T2IAdapterConfig, backend: Backend | None = None) -> None:
        super().__init__()
        backend, folded = backend or Backend(), config.hint_channels * config.unshuffle**2
        self.config = config
        self.modules_per_level = 1 if config.kind == "light" else config.blocks
        self.conv_in = nn.Identity() if config.kind == "light" else backend.conv2d(folded, config.channels[0], 3)
        light = config.kind == "light"
        self.body = nn.ModuleList(light_body(config, folded, backend) if light else full_body(config, backend))

    def forward(self, hint: Tensor) -> tuple[Tensor, ...]:
        """B c H W, H and W multiples of u -> one B C_k H_k W_k per level; H_0 is H / u."""
        h = self.conv_in(F.pixel_unshuffle(hint, self.config.unshuffle))
        features: list[Tensor] = []
        for index, module in enumerate(self.body, start=1):
            h = module(h)
            if index % self.modules_per_level == 0:
                features.append(h)
        return tuple(features)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype
