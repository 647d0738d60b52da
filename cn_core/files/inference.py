"""`UNetConfig` from the names and shapes of a file's weights, in either layout.

No values are read, so tensors on the meta device do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from ..networks.config import SD1, SD2, SDXL, UNetConfig

Levels = list[list[tuple[str, str]]]
"""Per level of the encoder, per residual block of the level: the names of that block and of the attention after it."""

FAMILIES: tuple[tuple[str, UNetConfig], ...] = (("SD 1.x", SD1), ("SD 2.x", SD2), ("SDXL", SDXL))
IDENTITY = ("model_channels", "context_dim", "adm_in_channels", "use_linear_in_transformer")
"""What makes a network one of a family, however deep it is."""
SHAPED_ALIKE = "SD-shaped"


@dataclass(frozen=True, kw_only=True)
class Names:
    """Where a layout keeps the weights whose shapes tell the network's."""

    levels: Callable[[Collection[str]], Levels]
    convolution: str
    """The first one inside a residual block."""
    conv_in: str
    conv_out: str
    label: str
    middle: str
    """The attention of the middle block."""


def consecutive(template: str, keys: Collection[str]) -> int:
    """How many of template.format(0), template.format(1), ... are there, up to the first that is not."""
    number = 0
    while template.format(number) in keys:
        number += 1
    return number


def ldm_levels(keys: Collection[str]) -> Levels:
    """LDM numbers all blocks in one row; a downsampling block ends a level."""
    levels: Levels = [[]]
    for block in range(1, 1 + len(keys)):
        name = f"input_blocks.{block}"
        if f"{name}.0.op.weight" in keys:
            levels.append([])
        elif f"{name}.0.in_layers.2.weight" in keys:
            levels[-1].append((f"{name}.0", f"{name}.1"))
        else:
            break
    return levels


def diffusers_levels(keys: Collection[str]) -> Levels:
    """diffusers numbers the levels, and in each of them its residual blocks and its attentions."""
    levels = [f"down_blocks.{level}" for level in range(consecutive("down_blocks.{}.resnets.0.conv1.weight", keys))]
    return [
        [
            (f"{level}.resnets.{block}", f"{level}.attentions.{block}")
            for block in range(consecutive(f"{level}.resnets.{{}}.conv1.weight", keys))
        ]
        for level in levels
    ]


LDM = Names(
    levels=ldm_levels,
    convolution="in_layers.2.weight",
    conv_in="input_blocks.0.0.weight",
    conv_out="out.2.weight",
    label="label_emb.0.0.weight",
    middle="middle_block.1",
)
DIFFUSERS = Names(
    levels=diffusers_levels,
    convolution="conv1.weight",
    conv_in="conv_in.weight",
    conv_out="conv_out.weight",
    label="add_embedding.linear_1.weight",
    middle="mid_block.attentions.0",
)


def infer(tensors: Mapping[str, Tensor], names: Names) -> UNetConfig | None:
    """The configuration of a UNet or ControlNet whose keys carry no prefix, or None when `UNetConfig` cannot say it.

    That is the case for levels whose blocks differ, for a middle block without attention, and for other networks.
    """
    try:
        config = read_config(tensors, names)
    except (LookupError, ValueError, ZeroDivisionError):
        return None
    # The number of heads leaves no trace in a file.
    reference = dict(FAMILIES).get(family(config))
    return replace(config, num_heads=reference.num_heads) if reference else config


def read_config(tensors: Mapping[str, Tensor], names: Names) -> UNetConfig:
    """As `infer`, but raises LookupError, ValueError or ZeroDivisionError where that returns None."""

    def depth(attention: str) -> int:
        return consecutive(f"{attention}.transformer_blocks.{{}}.norm1.weight", tensors.keys())

    model_channels, in_channels = tensors[names.conv_in].shape[:2]
    levels = names.levels(tensors.keys())
    widths = [{tensors[f"{block}.{names.convolution}"].shape[0] for block, _ in level} for level in levels]
    depths = [{depth(attention) for _, attention in level} for level in levels]
    if any(len(values) != 1 for values in widths + depths) or any(width % model_channels for (width,) in widths):
        raise ValueError("The blocks of a level differ, or its width is no multiple of the first one's.")
    return UNetConfig(
        in_channels=in_channels,
        out_channels=tensors[names.conv_out].shape[0] if names.conv_out in tensors else UNetConfig.out_channels,
        model_channels=model_channels,
        channel_mult=tuple(width // model_channels for (width,) in widths),
        num_res_blocks=tuple(len(level) for level in levels),
        transformer_depth=tuple(value for (value,) in depths),
        transformer_depth_middle=depth(names.middle),
        context_dim=tensors[f"{names.middle}.transformer_blocks.0.attn2.to_k.weight"].shape[1],
        adm_in_channels=tensors[names.label].shape[1] if names.label in tensors else None,
        use_linear_in_transformer=tensors[f"{names.middle}.proj_in.weight"].ndim == 2,
    )


def family(config: UNetConfig) -> str:
    """One of "SD 1.x", "SD 2.x" and "SDXL", or "SD-shaped" for networks that only look like theirs."""
    for name, reference in FAMILIES:
        if all(getattr(config, field) == getattr(reference, field) for field in IDENTITY):
            return name
    return SHAPED_ALIKE
