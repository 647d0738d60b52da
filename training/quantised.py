"""The frozen base's weights in 8 bits: half of bf16's memory. Each layer restores its own when it is used.

    W = stored * scale,    one scale for each output: its largest weight over the largest number

Weight only, in linear layers and convolutions; the arithmetic stays as it was. The backward pass restores them again:
what torch keeps by itself would be the restored weights of the whole decoder. (torchao has no convolutions, which are
two thirds of SD 1.x, and does keep them.)

Shapes: O outputs, I inputs, k kernel, B pairs, C channels, h w features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
import torch.nn.grad
from torch import Tensor, nn

from ..cn_core.networks.unet import UNet

Kind = Literal["int8", "fp8"]
Geometry = tuple[int, int] | None
"""Stride and padding of a convolution; None: a linear layer."""
STORED = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
"""int8 is the more exact one: its steps are even, and a trained layer's weights are much alike in size."""


def stored(weight: Tensor, kind: Kind) -> tuple[Tensor, Tensor]:
    """A weight (O I or O I k k) in 8 bits, and its scales (O, then ones) in the weight's dtype."""
    dtype = STORED[kind]
    largest = float(torch.iinfo(dtype).max if kind == "int8" else torch.finfo(dtype).max)
    amax = weight.float().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True).clamp(min=1e-12)
    scale = (amax / largest).to(weight.dtype)
    numbers = (weight.float() / scale.float()).clamp(-largest, largest)
    return (numbers.round() if kind == "int8" else numbers).to(dtype), scale


class Product(torch.autograd.Function):
    """What a frozen layer does to its input; keeps the 8-bit weight only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, numbers: Tensor, scale: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        """x is B ... I or B C h w."""
        ctx.save_for_backward(numbers, scale)
        ctx.geometry, ctx.shape, ctx.dtype = geometry, x.shape, x.dtype
        weight = numbers.to(scale.dtype) * scale
        if geometry is None:
            return F.linear(x.to(scale.dtype), weight, bias)
        return F.conv2d(x.to(scale.dtype), weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Of x; nothing else is trained."""
        numbers, scale = ctx.saved_tensors
        weight, grad = numbers.to(scale.dtype) * scale, grads[0].to(scale.dtype)
        if ctx.geometry is None:
            x = grad @ weight
        else:
            x = torch.nn.grad.conv2d_input(ctx.shape, weight, grad, *ctx.geometry)
        return x.to(ctx.dtype), None, None, None, None


class Quantised(nn.Module):
    """In the place of a frozen linear layer or convolution."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, kind: Kind) -> None:
        super().__init__()
        numbers, scale = stored(layer.weight.detach(), kind)
        self.numbers, self.scale = (nn.Parameter(tensor, requires_grad=False) for tensor in (numbers, scale))
        self.bias = layer.bias
        self.geometry: Geometry = (layer.stride[0], int(layer.padding[0])) if isinstance(layer, nn.Conv2d) else None

    @property
    def weight(self) -> Tensor:
        """Restored."""
        return self.numbers.to(self.scale.dtype) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """x is B ... I or B C h w."""
        return self.product(x, self.bias)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """With another bias, or none."""
        return Product.apply(x, self.numbers, self.scale, bias, self.geometry)  # pyright: ignore[reportReturnType]


def quantise(unet: UNet, kind: Kind) -> None:
    """Replace the linear layers and convolutions of its blocks, in place. First and last layer and the embeddings of
    timestep and y stay: they are small, and everything depends on them.
    """
    for parent, layer in layers(unet):
        name = next(name for name, child in parent.named_children() if child is layer)
        parent.add_module(name, Quantised(layer, kind))


def layers(unet: UNet) -> Iterator[tuple[nn.Module, nn.Linear | nn.Conv2d]]:
    """Those that are replaced, each after the module that it is in."""
    for module in (*list(unet.input_blocks)[1:], unet.middle_block, *unet.output_blocks):
        for parent in list(module.modules()):
            for layer in list(parent.children()):
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    yield parent, layer


def product(layer: nn.Module, x: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """What a frozen layer, in 8 bits or not, does to x with this bias instead of its own."""
    if isinstance(layer, Quantised):
        return layer.product(x, bias)
    weight = layer.get_parameter("weight")
    return F.linear(x, weight, bias) if geometry is None else F.conv2d(x, weight, bias, *geometry)
