"""The Control-LoRA as a target: thin matrices learn what a ControlNet's copy of the encoder would.

Everything else of a ControlNet (hint encoder, zero convolutions, biases, normalisations) is trained whole. What is
written is the layout of Stability AI's files. Shapes: O outputs, I inputs of a layer, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...cn_core.files import checkpoint, control_lora, convert
from ...cn_core.networks.backend import Backend
from ...cn_core.networks.control_lora import ControlLoRA, LowRank
from ...cn_core.networks.controlnet import ControlNet
from ...cn_core.networks.hint_encoder import HintEncoderKind
from ..bases.base import Base
from ..config import OptimizerConfig, TargetConfig
from ..errors import ConfigError
from ..quantised import product
from . import initial
from .controlnet import ControlNetTarget, target
from .initial import HINT_ENCODER


class Factored(LowRank):
    """W x + up (down x) instead of (W + up down) x.

    So neither is the sum kept for the backward pass, nor is a gradient computed that is as large as W.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x is B ... I or B C H W, as the model's layer takes it."""
        base, high, low = cast("tuple[Any, Any, Any]", (self.base, self.up, self.down))
        up, own, down = high.weight, high.bias, low.weight
        sum_ = product(base, x, base.bias if own is None else None, self.geometry)
        if self.geometry is None:
            return sum_ + F.linear(F.linear(x, down), up, own)
        thin = F.conv2d(x, down.reshape(-1, *self.shape[1:]), None, *self.geometry)
        return sum_ + F.conv2d(thin, up[:, :, None, None], own)


def make(base: Base, config: TargetConfig, optimizer: OptimizerConfig, seed: int) -> ControlNetTarget:
    """A Control-LoRA ready to train: one that adds nothing yet, a file's, or the nearest to a ControlNet's file."""
    with initial.fresh(seed):
        tensors = control_lora.network_tensors(start(base, config))
        weight = next(base.unet.parameters())
        control = ControlLoRA(
            base.unet.config,
            tensors,
            Backend(device=weight.device),
            hint_encoder_kind=encoder_kind(config),
            low_rank=Factored,
        )
        checkpoint.load_strictly(control, tensors, name="The Control-LoRA")
        shapes = {name: layer.shape for name, layer in control.named_modules() if isinstance(layer, LowRank)}
        return target(base, control, config, optimizer, partial(convert.control_lora_file, shapes=shapes))


def encoder_kind(config: TargetConfig) -> HintEncoderKind:
    """Of the two that the format has."""
    if config.hint_encoder == "vae":
        raise ConfigError('A Control-LoRA has a hint encoder of its own: set target.hint_encoder to "released".')
    return config.hint_encoder


def start(base: Base, config: TargetConfig) -> dict[str, Tensor]:
    """A file's tensors to begin with, float32."""
    unet = {name: value.float() for name, value in base.unet.state_dict().items()}
    plain = ControlNet.from_unet(base.unet, hint_encoder_kind=encoder_kind(config)).float()
    if config.init == "base":
        if config.zero_init == "gaussian":
            initial.gaussian_(plain)
        return thin(plain.state_dict(), config.rank)
    path = Path(config.init).expanduser()
    file = checkpoint.read(path)
    initial.begin_with(plain, base, config)
    if not control_lora.is_control_lora(file.tensors):
        return control_lora.extract(plain.state_dict(), unet, config.rank, dtype=torch.float32, name=path.name).tensors
    own = {key: value for key, value in plain.state_dict().items() if key.startswith(HINT_ENCODER)}
    return {**{key: value.float() for key, value in file.tensors.items()}, **own}


def thin(controlnet: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """A file whose matrices add nothing: for each copied weight `up` is zero and `down` Gaussian, I^-1/2 wide."""
    copied = [key for key in controlnet if key.startswith(control_lora.COPIED) and controlnet[key].ndim > 1]
    tensors = {key: value for key, value in controlnet.items() if key not in set(copied)}
    for key in copied:
        weight, name = controlnet[key], key.removesuffix(control_lora.WEIGHT)
        outputs, inputs = weight.shape[:2]
        least = min(rank, outputs, inputs)
        tensors[name + control_lora.UP] = weight.new_zeros(outputs, least, *(1 for _ in weight.shape[2:]))
        down = weight.new_empty(least, *weight.shape[1:])
        tensors[name + control_lora.DOWN] = nn.init.normal_(down, std=down[0].numel() ** -0.5)
    return {**tensors, control_lora.MARKER: torch.empty(0)}
