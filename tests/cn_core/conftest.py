"""Small networks of each family's shape, and the same ones in diffusers, which is the oracle here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import diffusers_networks
import pytest
import torch
from controlnet_kit.cn_core.networks.config import UNetConfig
from torch import nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)
Randomise = Callable[[AnyModule], AnyModule]

NARROW = {
    "SD1-shaped": UNetConfig(model_channels=64, channel_mult=(1, 1, 2, 2), context_dim=48, num_heads=8),
    "SD2-shaped": UNetConfig(
        model_channels=64, channel_mult=(1, 1, 2, 2), context_dim=48, use_linear_in_transformer=True
    ),
    "SDXL-shaped": UNetConfig(
        model_channels=64,
        channel_mult=(1, 1, 2),
        num_res_blocks=(2, 2, 2),
        transformer_depth=(0, 1, 2),
        transformer_depth_middle=2,
        context_dim=48,
        adm_in_channels=24 + 6 * 8,
        use_linear_in_transformer=True,
    ),
}
"""64 channels or more: with one in each group of a normalisation, some gradients would be zero but for rounding."""


@pytest.fixture(params=NARROW)
def narrow(request: pytest.FixtureRequest) -> UNetConfig:
    """Each family's shape in turn, a fifth as wide or less."""
    return NARROW[request.param]


def filled_with_noise(module: AnyModule) -> AnyModule:
    """Random weights everywhere, zero convolutions and biases included, so that nothing can hide behind a zero."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
            else:
                deviation = parameter[0].numel() ** -0.5
                parameter.copy_(deviation * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.fixture
def randomise() -> Randomise:
    """The function that fills a module with random weights and hands it back."""
    return filled_with_noise


@pytest.fixture
def diffusers_unet() -> Callable[[UNetConfig], nn.Module]:
    """Builds diffusers' UNet2DConditionModel of a configuration."""
    return diffusers_networks.unet


@pytest.fixture
def diffusers_controlnet() -> Callable[[UNetConfig], nn.Module]:
    """Builds diffusers' ControlNetModel of a configuration."""
    return diffusers_networks.controlnet
