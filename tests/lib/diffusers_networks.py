"""diffusers' networks of our configurations, with weights of their own."""

from __future__ import annotations

from typing import Any

from controlnet_kit.cn_core.networks.config import UNetConfig
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


def arguments(config: UNetConfig) -> dict[str, Any]:
    """What both classes are called with."""
    names = ["CrossAttn" if depth else "" for depth in config.transformer_depth]
    arguments: dict[str, Any] = {
        "in_channels": config.in_channels,
        "down_block_types": [f"{name}DownBlock2D" for name in names],
        "block_out_channels": [config.channels(level) for level in range(config.levels)],
        "layers_per_block": config.num_res_blocks[0],
        "transformer_layers_per_block": [max(depth, 1) for depth in config.transformer_depth],
        # diffusers calls the number of heads so, for historical reasons.
        "attention_head_dim": [config.heads(config.channels(level)) for level in range(config.levels)],
        "cross_attention_dim": config.context_dim,
        "use_linear_projection": config.use_linear_in_transformer,
    }
    if config.adm_in_channels is not None:
        arguments |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256 if config.adm_in_channels > 1000 else 8,
            "projection_class_embeddings_input_dim": config.adm_in_channels,
        }
    return arguments


def unet(config: UNetConfig) -> UNet2DConditionModel:
    """The locked copy."""
    names = ["CrossAttn" if depth else "" for depth in reversed(config.transformer_depth)]
    types = tuple(f"{name}UpBlock2D" for name in names)
    return UNet2DConditionModel(**arguments(config), up_block_types=types, out_channels=4)


def controlnet(config: UNetConfig) -> ControlNetModel:
    """The trainable copy."""
    return ControlNetModel(**arguments(config))
