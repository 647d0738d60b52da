"""ControlNet-LLLites in files, as kohya-ss/sd-scripts writes them.

Every module has the name of the layer before which it sits, with underscores for dots, and holds

    conditioning1.0, conditioning1.2, ...  convolutions over the hint (stride = kernel), the last with E outputs
    down.0 (inner D), mid.0 (inner, E + inner), up.0 (D inner)

each with weight and bias. Files for SDXL and for SD 1.x differ in the blocks only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..errors import CheckpointError
from ..networks.lllite import LLLiteConfig, Place

PREFIX = "lllite_unet_"
MODULE = re.compile(
    r"lllite_unet_(?:(input|output)_blocks_(\d{1,3})|(middle)_block)_1_transformer_blocks_(\d{1,3})"
    r"_(attn1_to_[qkv]|attn2_to_q)"
)
SDXL_ONLY = 2
"""Input blocks up to this one have no attention in SDXL."""


@dataclass(frozen=True, kw_only=True)
class DetectedLLLite:
    """A ControlNet-LLLite out of a file."""

    family: str
    """SDXL or SD 1.x."""
    configs: dict[Place, LLLiteConfig]


def is_lllite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file holds a ControlNet-LLLite for a UNet."""
    return any(key.startswith(PREFIX) for key in tensors)


def read_lllite(tensors: Mapping[str, Tensor], *, name: str = "This file") -> DetectedLLLite:
    """The modules in a file; loading has yet to compare the tensors strictly.

    Raises CheckpointError for modules at other layers than the attention's, and for incomplete ones.
    """
    configs = {place(module, name): config(tensors, module, name) for module in modules(tensors)}
    early = any(at.block == "input" and at.number <= SDXL_ONLY for at in configs)
    deep = any(at.depth for at in configs)
    return DetectedLLLite(family="SD 1.x" if early or not deep else "SDXL", configs=configs)


def modules(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of modules, each once, in the file's order."""
    return list(dict.fromkeys(key.split(".", 1)[0] for key in tensors))


def place(module: str, name: str) -> Place:
    """Where a module of this name sits."""
    found = MODULE.fullmatch(module)
    if found is None:
        raise CheckpointError(
            f"{name} has a module {module}; this pack runs those before attn1.to_q, to_k, to_v and attn2.to_q of a "
            "Stable Diffusion UNet. Use another file."
        )
    block, number, middle, depth, projection = found.groups()
    return Place(
        block=block or middle,
        number=int(number or 0),
        depth=int(depth),
        projection=projection.replace("_", ".", 1),
    )


def config(tensors: Mapping[str, Tensor], module: str, name: str) -> LLLiteConfig:
    """The sizes of a module from its tensors' shapes."""
    convolutions: list[Tensor] = []
    while (weight := tensors.get(f"{module}.conditioning1.{2 * len(convolutions)}.weight")) is not None:
        convolutions.append(weight)
    down = tensors.get(f"{module}.down.0.weight")
    if down is None or down.ndim != 2 or not convolutions or any(weight.ndim != 4 for weight in convolutions):
        raise CheckpointError(
            f"{name} lacks {module}.conditioning1.0.weight or {module}.down.0.weight, or has them in other shapes. "
            "The file is damaged or made for another network: get it again, or use another one."
        )
    return LLLiteConfig(
        width=down.shape[1],
        inner=down.shape[0],
        channels=tuple(weight.shape[0] for weight in convolutions),
        kernels=tuple(weight.shape[2] for weight in convolutions),
    )
