"""ControlNet-LLLite: small networks before the attention layers' projections in the model itself, by kohya-ss.

Each one adds to the input x of one projection what the hint c and x say together (no paper; the formula is that of
`networks/control_net_lllite.py` in kohya-ss/sd-scripts):

    x' = x + s up( relu( mid( [cond(c), relu(down(x))] ) ) )        s: strength

and `cond` is a stack of convolutions that overlap nowhere, down to one position for each token.

Shapes: B batch, H W pixels, h w tokens, L = h * w, D width of x, E channels of cond(c). Hints are RGB in [0, 1].
Submodules are named as in the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backend import Backend


@dataclass(frozen=True, kw_only=True)
class Place:
    """A projection in the model's UNet."""

    block: str
    """input, middle or output."""
    number: int
    """Of the block; 0 for the middle."""
    depth: int
    """Of the transformer block in it."""
    projection: str
    """attn1.to_q, attn1.to_k, attn1.to_v or attn2.to_q."""

    @property
    def key(self) -> str:
        """LDM's name of the layer."""
        block = "middle_block" if self.block == "middle" else f"{self.block}_blocks.{self.number}"
        return f"{block}.1.transformer_blocks.{self.depth}.{self.projection}"

    @property
    def name(self) -> str:
        """The files' name of the module before it."""
        return f"lllite_unet_{self.key.replace('.', '_')}"


@dataclass(frozen=True, kw_only=True)
class LLLiteConfig:
    """The numbers that fix one module."""

    width: int
    """D."""
    inner: int
    """Width between `down` and `up`."""
    channels: tuple[int, ...]
    """Of each convolution over the hint; the last is E."""
    kernels: tuple[int, ...]
    """Their sizes, which are their strides as well."""


class LLLiteModule(nn.Module):
    """What is added to the input of one projection."""

    def __init__(self, config: LLLiteConfig, backend: Backend) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs, size in zip(config.channels, config.kernels, strict=True):
            layers += [backend.conv2d(inputs, outputs, size, stride=size, padding=0), nn.ReLU()]
            inputs = outputs
        self.stride = prod(config.kernels)
        self.conditioning1 = nn.Sequential(*layers[:-1])
        self.down = nn.Sequential(backend.linear(config.width, config.inner), nn.ReLU())
        self.mid = nn.Sequential(backend.linear(config.inner + inputs, config.inner), nn.ReLU())
        self.up = nn.Sequential(backend.linear(config.inner, config.width))

    def encode(self, hint: Tensor) -> Tensor:
        """cond(c): hint is B 3 H W in [-1, 1]; returns B E h w.

        The last pixels are repeated up to a whole token: the UNet rounds the sizes of its levels up as well.
        """
        right, below = -hint.shape[-1] % self.stride, -hint.shape[-2] % self.stride
        return self.conditioning1(F.pad(hint, (0, right, 0, below), mode="replicate") if right or below else hint)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x is B L D, embedding B L E (B or 1 rows); returns B L D, to be multiplied by the strength and added to x."""
        return self.up(self.mid(torch.cat([embedding.expand(x.shape[0], -1, -1), self.down(x)], dim=2)))


class LLLite(nn.Module):
    """All modules of a file."""

    def __init__(self, configs: Mapping[Place, LLLiteConfig], backend: Backend | None = None) -> None:
        super().__init__()
        backend = backend or Backend()
        self.configs = dict(configs)
        self.places = {place: index for index, place in enumerate(configs)}
        for place, config in configs.items():
            self.add_module(place.name, LLLiteModule(config, backend))

    def encode(self, hint: Tensor) -> tuple[Tensor, ...]:
        """Every module's cond(c), in the order of `places`: hint is B 3 H W in [0, 1].

        The files were trained on hints in [-1, 1]. Nothing depends on the timestep: once per hint is enough.
        """
        hint = hint * 2 - 1
        return tuple(module.encode(hint) for module in self.children() if isinstance(module, LLLiteModule))

    def forward(self, place: Place, x: Tensor, embedding: Tensor, grid: tuple[int, int]) -> Tensor:
        """What the module at `place` adds to x (B L D) at strength 1, the tokens being those of a grid of h w.

        `embedding` is its own from `encode`; it is resized if the grid is another one, as when the model works on
        downscaled features.
        """
        embedding = embedding.to(x)
        if tuple(embedding.shape[-2:]) != grid:
            embedding = F.interpolate(embedding, size=grid, mode="bilinear")
        return self.get_submodule(place.name)(x, embedding.flatten(2).mT)
