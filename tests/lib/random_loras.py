"""Control-LoRAs, CtrLoRAs and ControlLLLites with random weights, in the formats of the public files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod

import torch
from controlnet_kit.cn_core.files.control_lora import MARKER
from controlnet_kit.cn_core.networks.backend import Backend
from controlnet_kit.cn_core.networks.config import UNetConfig
from controlnet_kit.cn_core.networks.controlnet import ControlNet
from controlnet_kit.cn_core.networks.unet import UNet
from torch import Tensor

Tensors = dict[str, Tensor]
OWN = ("input_hint_block.", "zero_convs.", "middle_block_out.")


def controlnet_shapes(config: UNetConfig) -> dict[str, torch.Size]:
    """Every weight of a ControlNet under LDM's keys."""
    return {key: tensor.shape for key, tensor in ControlNet(config, Backend(device="meta")).state_dict().items()}


def random_tensor(shape: Sequence[int], generator: torch.Generator, *, norm: bool = False) -> Tensor:
    """Keeps the variance; scales of normalisations are near 1, biases small."""
    scale = 0.1 if len(shape) == 1 else prod(shape[1:]) ** -0.5
    return norm + scale * torch.randn(*shape, generator=generator)


def control_lora_shapes(config: UNetConfig, rank: int) -> dict[str, tuple[int, ...]]:
    """The format: thin matrices for what a ControlNet copies, everything else whole."""
    shapes: dict[str, tuple[int, ...]] = {MARKER: (0,)}
    for key, shape in controlnet_shapes(config).items():
        if len(shape) == 1 or key.startswith(OWN):
            shapes[key] = shape
            continue
        name, least = key.removesuffix(".weight"), min(rank, shape[0], shape[1])
        shapes[f"{name}.up"] = (shape[0], least, *(1 for _ in shape[2:]))
        shapes[f"{name}.down"] = (least, *shape[1:])
    return shapes


def control_lora_tensors(
    config: UNetConfig, *, rank: int = 8, seed: int = 1, dtype: torch.dtype = torch.float32
) -> Tensors:
    """A Control-LoRA that has an effect."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: random_tensor(shape, generator, norm=len(shape) == 1 and key.endswith("weight")).to(dtype)
        for key, shape in control_lora_shapes(config, rank).items()
    }


def ctrlora_base_tensors(config: UNetConfig, seed: int = 1) -> Tensors:
    """CtrLoRA's base ControlNet, with prefix."""
    generator, shapes = torch.Generator().manual_seed(seed), controlnet_shapes(config)
    return {
        f"control_model.{key}": random_tensor(shape, generator, norm=len(shape) == 1 and key.endswith("weight"))
        for key, shape in shapes.items()
        if not key.startswith("input_hint_block.")
    }


def ctrlora_tensors(config: UNetConfig, *, rank: int = 4, seed: int = 2) -> Tensors:
    """A LoRA for that base, as CtrLoRA's own script extracts it."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for key, tensor in ctrlora_base_tensors(config).items():
        name = key.removesuffix(".weight")
        if tensor.ndim == 2:
            tensors[f"{name}.lora_layer.down.weight"] = random_tensor((rank, tensor.shape[1]), generator)
            tensors[f"{name}.lora_layer.up.weight"] = random_tensor((tensor.shape[0], rank), generator)
        elif "zero_convs" in key or "middle_block_out" in key or "norm" in key:
            tensors[key] = random_tensor(tensor.shape, generator, norm=tensor.ndim == 1 and key.endswith("weight"))
    return tensors


HINT_KERNELS = ((4, 2), (4, 4), (4, 4, 2))
"""kohya's, for the first three levels of the UNet; all below have the last."""
PROJECTION = re.compile(r"(?:input_blocks\.(\d+)|middle_block)\.1\..*\.(?:attn1\.to_[qkv]|attn2\.to_q)")


def projections(config: UNetConfig) -> dict[str, tuple[int, int]]:
    """The layers that kohya's trainer changes, by LDM's names: input width and level."""
    tensors = UNet(config, Backend(device="meta")).state_dict()
    ends = [int(key.split(".")[1]) for key in tensors if key.startswith("input_blocks.") and key.endswith(".op.weight")]
    found = {}
    for key, tensor in tensors.items():
        if match := PROJECTION.fullmatch(key.removesuffix(".weight")):
            level = len(ends) if match[1] is None else sum(end < int(match[1]) for end in ends)
            found[match[0]] = tensor.shape[1], level
    return found


def lllite_tensors(config: UNetConfig, *, embedding: int = 8, inner: int = 6, seed: int = 1) -> Tensors:
    """A ControlNet-LLLite that has an effect."""
    generator, tensors = torch.Generator().manual_seed(seed), {}

    def add(name: str, *shape: int) -> None:
        tensors[f"{name}.weight"] = random_tensor(shape, generator)
        tensors[f"{name}.bias"] = random_tensor(shape[:1], generator)

    for key, (width, level) in projections(config).items():
        module, channels = f"lllite_unet_{key.replace('.', '_')}", 3
        kernels = HINT_KERNELS[min(level, 2)]
        for index, size in enumerate(kernels):
            outputs = embedding if index == len(kernels) - 1 else embedding // 2
            add(f"{module}.conditioning1.{2 * index}", outputs, channels, size, size)
            channels = outputs
        add(f"{module}.down.0", inner, width)
        add(f"{module}.mid.0", inner, embedding + inner)
        add(f"{module}.up.0", width, inner)
    return tensors
