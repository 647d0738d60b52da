"""More input channels instead of a ControlNet: the baseline that ControlNets are compared with.

The hint's latent is appended to the noisy one, and the first convolution gets weights for it that begin at zero. The
encoder is trained, which has as many weights as a ControlNet; after `unlock_decoder_at` the decoder is trained as well,
which makes it the whole UNet. What is written is a UNet; ComfyUI takes one of SD 1.x for an InstructPix2Pix model.

Shapes: B pairs, C h w latent, of the hint too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...cn_core.networks.backend import Backend
from ...cn_core.networks.unet import UNet
from ..bases.base import Base
from ..config import OptimizerConfig, TargetConfig
from ..samples import Batch
from . import decoder, initial, precision
from .precision import Autocast, autocast_of
from .target import ParameterGroup

FIRST = "input_blocks.0.0.weight"


class WiderUNet(nn.Module):
    """Prediction as one call."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet
        """Without a decoder if that is never trained."""
        self.unlocked = False

    def forward(self, noisy: Tensor, timesteps: Tensor, batch: Batch, unet: UNet, autocast: Autocast) -> Tensor:
        """eps or v, B C h w; the decoder is the frozen UNet's until it is unlocked."""
        hint = batch.hint_as_latent.to(noisy)
        with autocast():
            encoded = self.unet.encode(torch.cat([noisy, hint], dim=1), timesteps, batch.context, batch.y)
            if self.unlocked:
                return self.unet.decode(encoded, batch.context)
            return precision.decode(unet, encoded, batch.context)


class InputChannelsTarget:
    """See `Target`."""

    def __init__(
        self, module: WiderUNet, config: TargetConfig, optimizer: OptimizerConfig, start: Mapping[str, Tensor]
    ) -> None:
        self.module = module
        self.config = config
        self.optimizer = optimizer
        self.start = start
        """The base's decoder."""

    def begin(self, step: int) -> None:
        """Whether the decoder learns."""
        self.module.unlocked = 0 < self.config.unlock_decoder_at <= step

    def predict(self, module: nn.Module, unet: UNet, batch: Batch, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """eps or v, B C h w."""
        return module(noisy, timesteps, batch, unet, autocast_of(noisy.device))

    def parameter_groups(self) -> Iterable[ParameterGroup]:
        """The encoder's, and the decoder's with its own rate."""
        rates = {"encoder": self.optimizer.learning_rate, "decoder": self.config.decoder_learning_rate}
        found: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
        for name, parameter in self.module.unet.named_parameters():
            found["decoder" if name.startswith(decoder.NAMES) else "encoder"].append(parameter)
        for name, parameters in found.items():
            if parameters:
                yield ParameterGroup(name=name, parameters=tuple(parameters), learning_rate=rates[name])

    def tensors(self, weights: Mapping[str, Tensor], /) -> dict[str, Tensor]:
        """A whole UNet's, LDM's keys."""
        return {**self.start, **{name.removeprefix("unet."): value for name, value in weights.items()}}

    def extra_files(self, _weights: Mapping[str, Tensor], _done: int, /) -> Mapping[str, Mapping[str, Tensor]]:
        """None."""
        return {}


def make(base: Base, config: TargetConfig, optimizer: OptimizerConfig, seed: int) -> InputChannelsTarget:
    """A copy of the base with a wider first convolution."""
    with initial.fresh(seed):
        own = base.unet.config
        weight = next(base.unet.parameters())
        wider = replace(own, in_channels=own.in_channels + base.codec.channels)
        unet = UNet(wider, Backend(dtype=weight.dtype, device=weight.device))
        tensors = dict(base.unet.state_dict())
        first = tensors.pop(FIRST)
        unet.load_state_dict(tensors, strict=False)
        with torch.no_grad():
            convolution = unet.get_parameter(FIRST)
            convolution.zero_()
            convolution[:, : own.in_channels] = first
        if not config.unlock_decoder_at:
            unet.output_blocks, unet.out = nn.ModuleList(), nn.Sequential()
        module = WiderUNet(unet.float().train().requires_grad_(True))
        return InputChannelsTarget(module, config, optimizer, decoder.original(base.unet))
