"""The ControlNet's weights: LDM key -> diffusers key."""

from __future__ import annotations

from collections.abc import Iterator

from ...networks.config import UNetConfig
from ...networks.hint_encoder import RELEASED_LAYERS
from .unet import Pair, encoder, weights

UNION = (
    *("transformer_layes.0.ln_1", "transformer_layes.0.ln_2", "transformer_layes.0.attn.out_proj"),
    *("transformer_layes.0.mlp.c_fc", "transformer_layes.0.mlp.c_proj", "spatial_ch_projs"),
    *("control_add_embedding.linear_1", "control_add_embedding.linear_2"),
)
"""Modules of a union network that both sides call the same."""
UNION_PARAMETERS = {
    "task_embedding": "task_embedding",
    "transformer_layes.0.attn.in_proj.weight": "transformer_layes.0.attn.in_proj_weight",
    "transformer_layes.0.attn.in_proj.bias": "transformer_layes.0.attn.in_proj_bias",
}
"""The others; LDM's side is named as the host names it."""


def controlnet_keys(config: UNetConfig, *, union: bool = False) -> dict[str, str]:
    """Every weight of `networks.controlnet.ControlNet` (released hint encoder) -> diffusers `ControlNetModel` key.

    With `union`: of `networks.union.UnionControlNet` -> `ControlNetUnionModel`, and xinsir's files.
    """
    keys = weights([*encoder(config), *hint_encoder(), *zero_convs(config)])
    return {**keys, **UNION_PARAMETERS, **weights((name, name) for name in UNION)} if union else keys


def hint_encoder() -> Iterator[Pair]:
    """LDM counts the SiLU layers between the convolutions, diffusers names the first and the last."""
    last = len(RELEASED_LAYERS)
    yield "input_hint_block.0", "controlnet_cond_embedding.conv_in"
    for index in range(1, last):
        yield f"input_hint_block.{2 * index}", f"controlnet_cond_embedding.blocks.{index - 1}"
    yield f"input_hint_block.{2 * last}", "controlnet_cond_embedding.conv_out"


def zero_convs(config: UNetConfig) -> Iterator[Pair]:
    """One for each skip connection and one for the middle block."""
    for index in range(len(config.skip_channels())):
        yield f"zero_convs.{index}.0", f"controlnet_down_blocks.{index}"
    yield "middle_block_out.0", "controlnet_mid_block"
