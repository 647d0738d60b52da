"""ControlNets from one layout, base model or dtype into another. Tensors are named by LDM's keys without prefix, unless
a function says diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, FamilyMismatchError
from ..networks.config import UNetConfig
from .checkpoint import listed
from .control_lora import COPIED, DOWN, MARKER, UP, WEIGHT
from .detect import UNION_KEYS
from .keymaps import inverse, rename
from .keymaps.controlnet import controlnet_keys

HINT = "input_hint_block.0.weight"
TASK, PROJECTION = UNION_KEYS[:2]
FIRST = "input_blocks.0.0.weight"
FOLDER_CONFIG, FOLDER_WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
"""The two files of a ControlNet in diffusers' layout."""


def to_diffusers(tensors: Mapping[str, Tensor], config: UNetConfig) -> dict[str, Tensor]:
    """The same tensors under diffusers' keys, in diffusers' order; CheckpointError unless all are there and no more."""
    return renamed(tensors, controlnet_keys(config, union=TASK in tensors), "diffusers")


def to_ldm(tensors: Mapping[str, Tensor], config: UNetConfig) -> dict[str, Tensor]:
    """The way back: diffusers' keys -> LDM's keys without prefix."""
    return renamed(tensors, inverse(controlnet_keys(config, union=TASK in tensors)), "LDM")


def renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str], layout: str) -> dict[str, Tensor]:
    """`tensors` under the names of the other side, if they are exactly those that have one."""
    faults = (
        listed("missing", (key for key in names if key not in tensors)),
        listed("without a name there", (key for key in tensors if key not in names)),
    )
    if any(faults):
        raise CheckpointError(
            f"This ControlNet cannot be named as in {layout}'s files; weights {'; '.join(filter(None, faults))}. "
            "Only whole ControlNets and unions with the released hint encoder have names in both."
        )
    return rename({key: tensors[key] for key in names}, names)


def diffusers_config(tensors: Mapping[str, Tensor], config: UNetConfig, *, pooled: bool = False) -> dict[str, Any]:
    """What diffusers' config.json says of a ControlNet; `pooled`: its residuals are averaged over the picture.

    Raises CheckpointError for shapes that diffusers cannot build: levels with different numbers of residual blocks, or
    a middle block whose depth is not that of the last level.
    """
    depths = [max(depth, 1) for depth in config.transformer_depth]
    if len(set(config.num_res_blocks)) != 1 or depths[-1] != config.transformer_depth_middle:
        raise CheckpointError(
            f"diffusers has no ControlNet with {config.num_res_blocks} residual blocks and attention of depth "
            f"{config.transformer_depth}, {config.transformer_depth_middle} in the middle. Save it in LDM's layout."
        )
    names = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in config.transformer_depth]
    settings: dict[str, Any] = {
        "_class_name": "ControlNetModel",
        "in_channels": config.in_channels,
        "conditioning_channels": tensors[HINT].shape[1],
        "conditioning_embedding_out_channels": [16, 32, 96, 256],
        "down_block_types": names,
        "block_out_channels": [config.channels(level) for level in range(config.levels)],
        "layers_per_block": config.num_res_blocks[0],
        "transformer_layers_per_block": depths,
        # diffusers calls the number of heads so, for historical reasons.
        "attention_head_dim": [config.heads(config.channels(level)) for level in range(config.levels)],
        "cross_attention_dim": config.context_dim,
        "use_linear_projection": config.use_linear_in_transformer,
        "global_pool_conditions": pooled,
    }
    return {**settings, **label_settings(config), **union_settings(tensors)}


def label_settings(config: UNetConfig) -> dict[str, Any]:
    """Of the embedding of y: six sizes of 256 numbers each after the pooled text, as in SDXL."""
    if config.adm_in_channels is None:
        return {}
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": config.adm_in_channels,
    }


def union_settings(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Of what a union network has besides."""
    if TASK not in tensors:
        return {}
    types, width = tensors[TASK].shape
    return {
        "_class_name": "ControlNetUnionModel",
        "num_control_type": types,
        "num_trans_channel": width,
        "num_proj_channel": tensors[PROJECTION].shape[0],
    }


def transfer(
    controlnet: Mapping[str, Tensor],
    old_base: Mapping[str, Tensor],
    new_base: Mapping[str, Tensor],
    *,
    name: str = "This ControlNet",
) -> dict[str, Tensor]:
    """A ControlNet trained on one base model, made to fit another of its family.

    What the ControlNet copied from its base moves as the base did, copied + (new - old); what is its own (hint encoder,
    zero convolutions) stays. So do the paper's authors for community models (lllyasviel/ControlNet, in their
    tool_transfer_control.py). Added in float32; dtypes and devices are those of `controlnet`. Raises
    FamilyMismatchError when a base does not fit.
    """
    moved = dict(controlnet)
    for key, weight in controlnet.items():
        if key.startswith(COPIED):
            old, new = (
                base_weight(key, weight, base, f"{name} has", which)
                for base, which in ((old_base, "old"), (new_base, "new"))
            )
            moved[key] = (weight.float() + (new - old)).to(weight.dtype)
    return moved


def base_weight(key: str, weight: Tensor, base: Mapping[str, Tensor], who: str, which: str) -> Tensor:
    """The base's weight for a copy of it, in float32 on its device, without an inpainting model's further inputs."""
    found = base.get(key)
    fitting = found[:, : weight.shape[1]] if found is not None and key == FIRST else found
    if fitting is None or fitting.shape != weight.shape:
        has = "none" if found is None else f"one of shape {tuple(found.shape)}"
        raise FamilyMismatchError(
            f"{who} {key} of shape {tuple(weight.shape)}, and the {which} base model has {has}. "
            "Both base models have to be of the ControlNet's family."
        )
    return fitting.to(weight.device, torch.float32)


def control_lora_file(tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The way back from `control_lora.network_tensors`: a file's tensors.

    `shapes` has for each layer that is stored as two matrices the shape of its weight (`LowRank.shape`).
    """
    rest = dict(tensors)
    for layer, shape in shapes.items():
        up, down = rest.pop(f"{layer}{UP}{WEIGHT}"), rest.pop(f"{layer}{DOWN}{WEIGHT}")
        rest[layer + UP] = up.reshape(*up.shape, *(1 for _ in shape[2:]))
        rest[layer + DOWN] = down.reshape(-1, *shape[1:])
        if f"{layer}{UP}.bias" in rest:
            rest[f"{layer}.bias"] = rest.pop(f"{layer}{UP}.bias")
    return {**rest, MARKER: torch.empty(0)}


def cast(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Floating-point tensors in `dtype`, None: as they are; raises CheckpointError where a value becomes infinite."""
    if dtype is None:
        return dict(tensors)
    result = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
    for key, tensor in tensors.items():
        if not result[key].isfinite().all() and tensor.isfinite().all():
            raise CheckpointError(f"{key} has values too large for {dtype}. Save in another dtype, such as bf16.")
    return result
