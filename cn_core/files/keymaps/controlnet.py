"""The ControlNet's weights: LDM key -> diffusers key."""

from __future__ import annotations

from collections.abc import Iterator

from ...networks.config import UNetConfig
from ...networks.hint_encoder import RELEASED_LAYERS
from .unet import Pair, encoder, weights


def controlnet_keys(config: UNetConfig) -> dict[str, str]:
    """Every weight of `networks.controlnet.ControlNet` (released hint encoder) -> diffusers `ControlNetModel` key."""
    return weights([*encoder(config), *hint_encoder(), *zero_convs(config)])


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
