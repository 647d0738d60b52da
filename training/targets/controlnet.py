"""The ControlNet as a target: the trainable copy, fed with the hint, its residuals added to the frozen UNet's.

Shapes: B batch, C h w latent, M text tokens, D their width. Hints are B 3 8h 8w in [0, 1], or latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, nn

from ...cn_core.files import checkpoint
from ...cn_core.networks.backend import Backend
from ...cn_core.networks.control_lora import ControlLoRA
from ...cn_core.networks.controlnet import ControlNet
from ...cn_core.networks.latent_controlnet import LatentControlNet
from ...cn_core.networks.unet import UNet
from ..bases.base import Base
from ..config import OptimizerConfig, TargetConfig
from ..samples import Batch
from . import decoder, initial, links, precision
from .decoder import Decoder
from .links import Links
from .precision import Autocast, autocast_of
from .target import ParameterGroup

CONTROL, DECODER = "control.", "decoder."
"""What weights of the module begin with."""
ToFile = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


class ControlModule(nn.Module):
    """Prediction as one call, so that whatever wraps it for several devices sees every use of a weight."""

    def __init__(self, control: ControlNet, own_decoder: Decoder | None = None) -> None:
        super().__init__()
        self.control = control
        self.decoder = own_decoder
        self.links: Links = "all"
        self.unlocked = False
        """The decoder is its own, not the base's."""

    def forward(self, noisy: Tensor, timesteps: Tensor, batch: Batch, unet: UNet, autocast: Autocast) -> Tensor:
        """eps or v, B C h w, of the frozen UNet with residuals."""
        with autocast():
            encoded = links.frozen_encoder(unet, noisy, timesteps, batch)
            down, mid = links.residuals(self.control, self.links, noisy, timesteps, batch, self.features(batch))
            controlled = links.joined(encoded, down, mid)
            if self.decoder is not None and self.unlocked:
                return self.decoder(controlled, batch.context)
            return precision.decode(unet, controlled, batch.context)

    def features(self, batch: Batch) -> Tensor:
        """What the network takes for the hint."""
        if isinstance(self.control, LatentControlNet):
            return batch.hint_as_latent
        return self.control.encode_hint(batch.hint)


class ControlNetTarget:
    """See `Target`."""

    def __init__(
        self,
        module: ControlModule,
        unet: UNet,
        config: TargetConfig,
        optimizer: OptimizerConfig,
        to_file: ToFile = dict,
    ) -> None:
        self.module = module
        self.unet = unet
        self.config = config
        self.optimizer = optimizer
        self.start = {} if module.decoder is None else decoder.original(unet)
        self.to_file = to_file
        self.begin(0)

    def begin(self, step: int) -> None:
        """Which links there are, and whether the decoder learns."""
        config, control = self.config, self.module.control
        if isinstance(control, ControlLoRA) and not control.bound:  # the UNet's layers may have been replaced
            control.bind(self.unet)
        self.module.links = "all" if 0 < config.reconnect_at <= step else config.links
        self.module.unlocked = 0 < config.unlock_decoder_at <= step

    def predict(self, module: nn.Module, unet: UNet, batch: Batch, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """eps or v, B C h w."""
        return module(noisy, timesteps, batch, unet, autocast_of(noisy.device))

    def parameter_groups(self) -> Iterable[ParameterGroup]:
        """The control's, and the decoder's with its own rate."""
        rate = self.optimizer.learning_rate
        yield ParameterGroup(name="control", parameters=tuple(self.module.control.parameters()), learning_rate=rate)
        if self.module.decoder is not None:
            parameters = tuple(self.module.decoder.parameters())
            yield ParameterGroup(name="decoder", parameters=parameters, learning_rate=self.config.decoder_learning_rate)

    def tensors(self, weights: Mapping[str, Tensor], /) -> dict[str, Tensor]:
        """LDM's keys are the module's own."""
        return self.to_file(checkpoint.below(weights, CONTROL))

    def extra_files(self, weights: Mapping[str, Tensor], done: int, /) -> Mapping[str, Mapping[str, Tensor]]:
        """The decoder's difference to the base's, for a LoRA loader; nothing if it was not trained yet."""
        if not 0 < self.config.unlock_decoder_at < done:
            return {}
        return {"decoder": decoder.difference(self.start, checkpoint.below(weights, DECODER))}


def target(
    base: Base, control: ControlNet, config: TargetConfig, optimizer: OptimizerConfig, to_file: ToFile = dict
) -> ControlNetTarget:
    """A ControlNet of any kind as a target; what is not linked begins at zero, and what is unlocked as a copy."""
    links.cut_(control, config.links)
    own_decoder = Decoder(base.unet) if config.unlock_decoder_at else None
    module = ControlModule(control.train(), own_decoder).requires_grad_(True)
    return ControlNetTarget(module, base.unet, config, optimizer, to_file)


def make(base: Base, config: TargetConfig, optimizer: OptimizerConfig, seed: int) -> ControlNetTarget:
    """A ControlNet ready to train: the base's copy, or a file's with a hint encoder made anew."""
    with initial.fresh(seed):
        control = copied(base.unet, config).float()
        if config.init != "base":
            initial.begin_with(control, base, config)
        if config.zero_init == "gaussian":
            initial.gaussian_(control)
        return target(base, control, config, optimizer)


def copied(unet: UNet, config: TargetConfig) -> ControlNet:
    """The copy of the UNet's encoder, with the hint encoder that the settings name."""
    if config.hint_encoder != "vae":
        return ControlNet.from_unet(unet, hint_encoder_kind=config.hint_encoder)
    weight = next(unet.parameters())
    control = LatentControlNet(unet.config, Backend(dtype=weight.dtype, device=weight.device))
    control.copy_(unet)
    return control
