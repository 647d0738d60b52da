"""The zero convolution Z of the paper: a 1x1 convolution whose weight and bias start at zero.

At zero it outputs nothing, yet learns: with y = W x + B, dy/dB = 1 and dy/dW = x are not zero, only dy/dx = W is;
after the first step W is not zero any more and gradients reach what lies before it (arXiv 2302.05543, section 3.1).
"""

from __future__ import annotations

from torch import nn

from .backend import Backend


def zero_conv(channels: int, backend: Backend) -> nn.Sequential:
    """Z on B C H W; the caller that builds for training zeroes it with `zero_`, a loaded file overwrites it."""
    return nn.Sequential(backend.conv2d(channels, channels, 1))


def zero_(module: nn.Module) -> None:
    """Set every parameter of `module` to zero, in place."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
