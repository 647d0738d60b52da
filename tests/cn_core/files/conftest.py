"""State dicts of ControlNets as files have them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from controlnet_kit.cn_core.files.keymaps import rename
from controlnet_kit.cn_core.files.keymaps.controlnet import controlnet_keys
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.config import UNetConfig
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from torch import Tensor

StateDict = dict[str, Tensor]
SMALL = UNetConfig(
    model_channels=64, channel_mult=(1, 2), num_res_blocks=(1, 1), transformer_depth=(0, 1), context_dim=48
)


def state_dict_on_meta(config: UNetConfig, *, layout: str = "ldm", prefix: str = "", **options) -> StateDict:
    """Names and shapes of a ControlNet's file; takes no memory, so full-size networks are fine."""
    tensors = ControlNet(config, Backend(device="meta"), **options).state_dict()
    if layout == "diffusers":
        return rename(tensors, controlnet_keys(config))
    return {prefix + key: tensor for key, tensor in tensors.items()}


@pytest.fixture
def on_meta() -> Callable[..., StateDict]:
    """The function that makes a state dict without memory."""
    return state_dict_on_meta


@pytest.fixture
def small() -> UNetConfig:
    """A ControlNet of a few hundred thousand weights."""
    return SMALL


@pytest.fixture
def weights(randomise) -> StateDict:
    """Its weights, under LDM's bare keys."""
    return randomise(ControlNet(SMALL)).state_dict()
