"""Equation (1) of the paper, for any block:  y_c = F(x; Theta) + Z( F( x + Z(c; Theta_z1); Theta_c ); Theta_z2 ).

Shapes: features are B C H W or B L D, like the block's own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn


class ChannelMap(nn.Module):
    """Z for either layout: a 1x1 convolution over C of B C H W, or the same linear map over D of B L D."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x is B C H W or B L D."""
        if x.ndim == 4:
            return nn.functional.conv2d(x, self.weight[:, :, None, None], self.bias)
        return nn.functional.linear(x, self.weight, self.bias)


class Controlled(nn.Module):
    """A frozen block, its trainable copy and two zero convolutions. Equals the block until the first training step.

    `block` is any module whose first argument and whose result are features with `channels` channels, or
    `in_channels` and `channels` where the two differ; further arguments go to both copies.
    """

    def __init__(self, block: nn.Module, channels: int, *, in_channels: int | None = None) -> None:
        super().__init__()
        self.trainable = copy.deepcopy(block).requires_grad_(True)
        self.locked = block.requires_grad_(False).eval()
        self.zero_in = ChannelMap(channels if in_channels is None else in_channels)
        self.zero_out = ChannelMap(channels)

    def train(self, mode: bool = True) -> Controlled:
        """As for any module, but the locked block stays in evaluation: its batch normalisation is frozen as well."""
        super().train(mode)
        self.locked.eval()
        return self

    def forward(self, x: Tensor, condition: Tensor, *args: Tensor) -> Tensor:
        """x and `condition` have the shape of the block's input."""
        run: Callable[..., Tensor] = self.trainable
        return self.locked(x, *args) + self.zero_out(run(x + self.zero_in(condition), *args))
