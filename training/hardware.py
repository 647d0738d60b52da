"""Fitting a run to its device: dtypes, memory layout, recomputed activations, compiled blocks."""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.distributed.tensor import DTensor

from ..cn_core.networks.layers import Block, Downsample, Upsample
from ..cn_core.networks.unet import UNet
from .config import HardwareConfig, TrainConfig
from .errors import ConfigError
from .quantised import quantise

CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16")
"""Names of instructions for it, of x86 and ARM."""
MALLOPT = {"M_TRIM_THRESHOLD": (-1, 2**30), "M_MMAP_THRESHOLD": (-3, 2**30), "M_ARENA_MAX": (-8, 1)}
"""What glibc is told: its number for each setting, and bytes, or how many pools all threads share."""
CONTROL_LEVELS: Mapping[str, int | None] = {"one_level": 1, "two_levels": 2, "control": None, "both": None}
"""Kind of checkpointing -> of which levels the trained network's blocks are computed again; None: of all."""
DECODER_LEVELS: Mapping[str, int | None] = {"one_level": 1, "two_levels": 2, "decoder": None, "both": None}
"""The same for the frozen decoder's."""
SCALING = (Downsample, Upsample)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def decided(config: TrainConfig, device: torch.device) -> TrainConfig:
    """The settings with a precision that the device is made for; ConfigError where another setting forbids that."""
    if config.hardware.precision != "auto":
        return config
    return replace(config, hardware=replace(config.hardware, precision=best_precision(device)))


def best_precision(device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """The fastest that trains well. Where bf16 is only emulated it takes many times as long as fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu":
        has = getattr(torch.cpu, "get_capabilities", dict[str, Any])()
        return "bf16" if any(has.get(name) for name in CPU_BF16) else "fp32"
    return "fp32"


def keep_freed_memory() -> None:
    """Have the C library of this process keep large pieces of memory for the next step, which wants the same again.

    By default glibc gives them back to the system, whose fresh pages cost about a twentieth of a step on a CPU, and
    each thread keeps a pool of its own. Nothing happens elsewhere than on Linux with glibc.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        for parameter, value in MALLOPT.values():
            libc.mallopt(parameter, value)


def base_dtype(config: HardwareConfig) -> Literal["fp32", "fp16", "bf16", "int8", "fp8"]:
    """Of the frozen UNet."""
    kind = config.precision if config.base_dtype == "auto" else config.base_dtype
    if kind == "auto":
        raise ValueError("hardware.precision is not decided yet.")
    return kind


def check(config: HardwareConfig, device: torch.device) -> None:
    """Raise ConfigError for what the device cannot do."""
    if config.precision == "fp16" and device.type != "cuda":
        raise ConfigError(f"hardware.precision fp16 needs a CUDA device, and this run is on {device.type}: use bf16.")


def prepare_base(unet: UNet, config: HardwareConfig, device: torch.device) -> None:
    """Put the frozen UNet where and how it is used, in place."""
    kind = base_dtype(config)
    unet.requires_grad_(False).eval()
    unet.to(device, DTYPES.get(kind, DTYPES[config.precision]))
    if kind in ("int8", "fp8"):
        quantise(unet, kind)
    if config.checkpointing in DECODER_LEVELS:
        recompute(unet.output_blocks, DECODER_LEVELS[config.checkpointing])
    shape(unet, config)


def prepare_module(module: nn.Module, config: HardwareConfig) -> None:
    """The same for what is trained; its device is accelerate's affair."""
    if config.checkpointing in CONTROL_LEVELS:
        recompute(module, CONTROL_LEVELS[config.checkpointing])
    shape(module, config)


def shape(module: nn.Module, config: HardwareConfig) -> None:
    """Memory layout and compilation."""
    if config.channels_last:
        module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if config.compile:
        compiled(module)


def compiled(module: nn.Module, backend: str = "inductor") -> None:
    """Compile blocks and hint encoder one by one, in place.

    Each has its own graphs: they all share one `forward`, and dynamo gives up on a function after eight graphs.
    """
    own = "isolate_recompiles" in inspect.signature(torch.compile).parameters  # of torch 2.11 and later
    for part in recomputable(module):
        part.compile(backend=backend, **({"isolate_recompiles": True} if own else {}))


def recompute(module: nn.Module, levels: int | None = None) -> None:
    """What `recomputable` gives keeps its inputs only and is computed again in the backward pass, in place."""
    chosen = {id(part) for part in recomputable(module, levels)}
    apply_activation_checkpointing(
        module, checkpoint_wrapper_fn=checkpoint_wrapper, check_fn=lambda part: id(part) in chosen
    )


def recomputable(module: nn.Module, levels: int | None = None) -> list[nn.Module]:
    """Its blocks and hint encoder; with `levels` only the blocks of so many of the highest resolutions."""
    named = module.named_modules()
    parts = [part for name, part in named if isinstance(part, Block) or name.endswith("input_hint_block")]
    if levels is None:
        return parts
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    high = {id(block) for blocks in lists for block in highest(blocks, levels)}
    return [part for part in parts if id(part) in high or not isinstance(part, Block)]


def highest(blocks: nn.ModuleList, levels: int) -> list[nn.Module]:
    """Of an encoder's or a decoder's blocks, in order, those of the `levels` highest resolutions."""
    downs, ups = ([any(isinstance(part, kind) for part in block.modules()) for block in blocks] for kind in SCALING)
    halved = [*accumulate(reversed(ups))][::-1] if any(ups) else list(accumulate(downs, initial=0))[:-1]
    return [block for block, times in zip(blocks, halved, strict=True) if times < levels]


def laid_out(tensor: Tensor, config: HardwareConfig) -> Tensor:
    """An input (B C H W) in the layout of the weights."""
    return tensor.contiguous(memory_format=torch.channels_last) if config.channels_last else tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor of the CPU on a device; a GPU is not waited for."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of the bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def storages(tensors: Iterable[Tensor]) -> set[int]:
    """Where tensors lie."""
    return {local(tensor).untyped_storage().data_ptr() for tensor in tensors} - {0}


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process has: all of it, but with FSDP."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
