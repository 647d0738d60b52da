"""T2I-Adapters in files: which one it is, and its weights under TencentARC's names.

There are two layouts. TencentARC's numbers a full adapter's residual blocks in one row, diffusers' by level; of a light
adapter the two differ in one word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..networks.t2i_adapter import T2IAdapterConfig
from .inference import consecutive

PREFIX = "adapter."
"""Before every key of diffusers' files."""
RESIDUAL = re.compile(r"^body\.(\d{1,3})\.resnets\.(\d{1,3})\.")
WIDENING = re.compile(r"^body\.(\d{1,3})\.in_conv\.")
XL_FOLDED = (256, 768)
"""Channels after the fold in adapters for SDXL: 16 x 16 pixels of one channel or three. All others fold 8 x 8."""
BLOCKS = 2
"""Residual blocks per level of a full adapter whose widths do not tell: that of all public ones."""


@dataclass(frozen=True, kw_only=True)
class DetectedT2IAdapter:
    """A T2I-Adapter out of a file."""

    family: str
    """SDXL or SD 1.x."""
    config: T2IAdapterConfig
    tensors: dict[str, Tensor]
    """The file's, under the names of `networks.t2i_adapter.T2IAdapter`; loading has yet to compare them strictly."""


def detect_t2i_adapter(state_dict: Mapping[str, Tensor]) -> DetectedT2IAdapter | None:
    """The T2I-Adapter in a file, or None when the names and shapes in it are not of one that `cn_core` runs."""
    tensors = original_names(state_dict)
    try:
        config = light_config(tensors) if "body.0.out_conv.weight" in tensors else full_config(tensors)
    except (LookupError, ValueError):
        return None
    return DetectedT2IAdapter(family="SDXL" if config.xl else "SD 1.x", config=config, tensors=tensors)


def original_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of either layout under TencentARC's keys; what is not known keeps its name."""
    bare = {key.removeprefix(PREFIX): tensor for key, tensor in state_dict.items()}
    blocks = consecutive("body.0.resnets.{}.block1.weight", bare.keys())
    if not blocks:
        return bare
    if "conv_in.weight" not in bare:
        return {RESIDUAL.sub(r"body.\1.body.\2.", key): tensor for key, tensor in bare.items()}

    def original(key: str) -> str:
        key = WIDENING.sub(lambda found: f"body.{int(found[1]) * blocks}.in_conv.", key)
        return RESIDUAL.sub(lambda found: f"body.{int(found[1]) * blocks + int(found[2])}.", key)

    return {original(key): tensor for key, tensor in bare.items()}


def full_config(tensors: Mapping[str, Tensor]) -> T2IAdapterConfig:
    """Raises LookupError or ValueError for other networks."""
    folded, count = tensors["conv_in.weight"].shape[1], consecutive("body.{}.block1.weight", tensors.keys())
    widenings = (index for index in range(count) if f"body.{index}.in_conv.weight" in tensors)
    blocks = next(widenings, BLOCKS)
    unshuffle = 16 if folded in XL_FOLDED else 8
    return T2IAdapterConfig(
        unshuffle=unshuffle,
        hint_channels=folded // unshuffle**2,
        channels=tuple(tensors[f"body.{index}.block1.weight"].shape[0] for index in range(0, count, blocks)),
        blocks=blocks,
        kernel=tensors["body.0.block2.weight"].shape[2],
        downsample_with_conv=any(key.endswith(".down_opt.op.weight") for key in tensors),
    )


def light_config(tensors: Mapping[str, Tensor]) -> T2IAdapterConfig:
    """Raises LookupError or ValueError for other networks."""
    levels = consecutive("body.{}.out_conv.weight", tensors.keys())
    return T2IAdapterConfig(
        kind="light",
        hint_channels=tensors["body.0.in_conv.weight"].shape[1] // 8**2,
        channels=tuple(tensors[f"body.{level}.out_conv.weight"].shape[0] for level in range(levels)),
        blocks=consecutive("body.0.body.{}.block1.weight", tensors.keys()),
    )
