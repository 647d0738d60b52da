"""The paper's tiny network E(c_i) = c_f: a control picture in pixels -> a feature map of the latent's size.

Shapes: B batch, H W pixels of the hint (8 times the latent's), C the UNet's model channels.
Hints are RGB in [0, 1].
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from .backend import Backend

HintEncoderKind = Literal["released", "paper"]

RELEASED_LAYERS = ((16, 1), (16, 1), (32, 2), (32, 1), (96, 2), (96, 1), (256, 2))
"""(channels, stride) of the 3x3 convolutions that every public checkpoint has."""
PAPER_LAYERS = (16, 32, 64, 128)
"""Channels of the 4x4 convolutions of stride 2 that the paper's section 3.1 describes."""

GAINS: dict[type[nn.Module], float] = {nn.SiLU: 1.68, nn.ReLU: 2**0.5}
"""What an activation takes from the size of a Gaussian signal, and the weights before it give back."""


def hint_encoder(kind: HintEncoderKind, hint_channels: int, out_channels: int, backend: Backend) -> nn.Sequential:
    """B hint_channels H W -> B out_channels H/8 W/8."""
    return {"released": released, "paper": paper}[kind](hint_channels, out_channels, backend)


def released(hint_channels: int, out_channels: int, backend: Backend) -> nn.Sequential:
    """Eight 3x3 convolutions with SiLU between them, three of stride 2; the last one is a zero convolution."""
    layers: list[nn.Module] = []
    channels = hint_channels
    for width, stride in RELEASED_LAYERS:
        layers += [backend.conv2d(channels, width, 3, stride=stride), nn.SiLU()]
        channels = width
    return nn.Sequential(*layers, backend.conv2d(channels, out_channels, 3))


def paper(hint_channels: int, out_channels: int, backend: Backend) -> nn.Sequential:
    """Four 4x4 convolutions with ReLU, then a zero convolution to the UNet's width.

    Four strides of 2 would make 1/16; the paper's latents are 1/8 ("512x512 to 64x64"), so the last has stride 1.
    """
    layers: list[nn.Module] = []
    channels = hint_channels
    for width in PAPER_LAYERS[:-1]:
        layers += [backend.conv2d(channels, width, 4, stride=2, padding=1), nn.ReLU()]
        channels = width
    layers += [nn.ZeroPad2d((1, 2, 1, 2)), backend.conv2d(channels, PAPER_LAYERS[-1], 4, padding=0), nn.ReLU()]
    return nn.Sequential(*layers, backend.conv2d(PAPER_LAYERS[-1], out_channels, 1))


def initialise_(encoder: nn.Sequential) -> None:
    """Fresh weights for training: Gaussian (He et al., arXiv 1502.01852), the last layer zero.

    Torch's default would shrink the signal at each of the layers, until an edge picture leaves no trace in c_f.
    """
    for layer in encoder:
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            fan_in = layer.weight[0].numel()
            nn.init.normal_(layer.weight, std=GAINS[type(encoder[1])] / fan_in**0.5)
            nn.init.zeros_(layer.bias)
    for parameter in encoder[-1].parameters():
        nn.init.zeros_(parameter)
