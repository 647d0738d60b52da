"""Networks of transformers that are small, and random in such a way that pictures make a difference."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn

library: Any = transformers
"""Whose types do not know what its configurations take."""


def small_depth_anything() -> nn.Module:
    backbone = library.Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = library.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    return library.DepthAnythingForDepthEstimation(config)


def small_sam() -> nn.Module:
    """It sees squares of 64 pixels and gives masks of 16."""
    config = library.SamConfig(
        vision_config={
            **{"hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
            **{"image_size": 64, "patch_size": 16, "mlp_dim": 32, "global_attn_indexes": [1], "window_size": 2},
            "num_pos_feats": 8,
        },
        prompt_encoder_config={
            **{"hidden_size": 16, "image_size": 64, "patch_size": 16, "image_embedding_size": 4},
            "mask_input_channels": 4,
        },
        mask_decoder_config={
            **{"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
        },
    )
    return library.SamModel(config)


def livelier(network: nn.Module) -> nn.Module:
    """With weights so large that pictures make a difference."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim > 1:
                fan = weight[0].numel()
                gain = 20 if "queries_embedder" in name or "class_embed" in name else 1.5
                weight.copy_(torch.randn(weight.shape) * (gain / fan**0.5))
            elif "head" in name:
                weight.add_(100 if name.endswith("conv3.bias") else 0.5)  # above the zero of a last ReLU
    network.train(False)
    return network
