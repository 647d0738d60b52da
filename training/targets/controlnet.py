"""The ControlNet as a target: the trainable copy, fed with the hint, its residuals added to the frozen UNet's.

Shapes: B batch, C h w latent, M text tokens, D their width. Hints are B 3 8h 8w in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ...cn_core.errors import FamilyMismatchError
from ...cn_core.files import checkpoint
from ...cn_core.files.detect import describe_foreign, detect
from ...cn_core.modulation.residuals import Residuals, cast
from ...cn_core.networks.controlnet import ControlNet
from ...cn_core.networks.unet import UNet
from ..bases.base import Base
from ..config import OptimizerConfig, TargetConfig
from ..errors import ConfigError
from ..samples import Batch
from .target import ParameterGroup

GAUSSIAN_STD = 0.02
"""Of the paper's ablation: "standard convolutions initialized with Gaussian weights" (section 4.3)."""
HINT_ENCODER = "input_hint_block."


class ControlModule(nn.Module):
    """The network as one call, so that whatever wraps it for several devices sees every use of a weight."""

    def __init__(self, control: ControlNet) -> None:
        super().__init__()
        self.control = control

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, hint: Tensor, y: Tensor | None) -> list[Tensor]:
        """The residuals, the middle block's last."""
        residuals = self.control(x, timesteps, context, self.control.encode_hint(hint), y)
        return [*residuals.down, residuals.mid]


class ControlNetTarget:
    """See `Target`."""

    def __init__(self, module: ControlModule, optimizer: OptimizerConfig) -> None:
        self.module = module
        self.optimizer = optimizer

    def begin(self, step: int) -> None:
        """Nothing depends on the step."""

    def predict(self, module: nn.Module, unet: UNet, batch: Batch, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """eps or v, B C h w."""
        *down, mid = module(noisy, timesteps, batch.context, batch.hint, batch.y)
        return controlled(unet, batch, noisy, timesteps, Residuals(down=tuple(down), mid=mid))

    def parameter_groups(self) -> Iterable[ParameterGroup]:
        """One."""
        parameters = tuple(self.module.parameters())
        return [ParameterGroup(name="control", parameters=parameters, learning_rate=self.optimizer.learning_rate)]

    def tensors(self, weights: Mapping[str, Tensor], /) -> dict[str, Tensor]:
        """LDM's keys are the module's own."""
        return {name.removeprefix("control."): value for name, value in weights.items()}

    def extra_files(self, _weights: Mapping[str, Tensor], /) -> Mapping[str, Mapping[str, Tensor]]:
        """None."""
        return {}


def controlled(unet: UNet, batch: Batch, noisy: Tensor, timesteps: Tensor, residuals: Residuals) -> Tensor:
    """The frozen UNet with residuals: eps or v, B C h w. Its encoder takes no part in the backward pass."""
    with torch.no_grad():
        encoded = unet.encode(noisy, timesteps, batch.context, batch.y)
    if encoded.mid.requires_grad or any(skip.requires_grad for skip in encoded.skips):
        raise RuntimeError("The frozen encoder is in the backward pass; nothing that it is fed may require gradients.")
    return unet.decode(encoded, batch.context, cast(residuals, encoded.mid.dtype))


def make(base: Base, config: TargetConfig, optimizer: OptimizerConfig, seed: int) -> ControlNetTarget:
    """A ControlNet ready to train: the base's copy, or a file's with a hint encoder made anew."""
    kind = config.hint_encoder
    if kind == "vae":
        raise ConfigError('target.hint_encoder "vae" is not one of a plain ControlNet.')
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        control = ControlNet.from_unet(base.unet, hint_encoder_kind=kind).float()
        if config.init != "base":
            load_trunk(control, Path(config.init), base)
        if config.zero_init == "gaussian":
            for layer in (*control.zero_convs, control.middle_block_out):
                for parameter in layer.parameters():
                    nn.init.normal_(parameter, std=GAUSSIAN_STD)
    return ControlNetTarget(ControlModule(control.train().requires_grad_(True)), optimizer)


def load_trunk(control: ControlNet, path: Path, base: Base) -> None:
    """Everything but the hint encoder from a ControlNet's file, in place; FamilyMismatchError for another family's."""
    file = checkpoint.read(path)
    detected = detect(file.tensors)
    if detected is None:
        raise ConfigError(f"target.init must be a ControlNet's file; {path.name} is {describe_foreign(file.tensors)}.")
    if detected.config != control.config:
        raise FamilyMismatchError(
            f"{path.name} is a ControlNet for {detected.family}, and the base {base.name} is {base.family}. "
            "Set target.init to a ControlNet of the base's family."
        )
    tensors = checkpoint.controlnet_tensors(file.tensors, detected, base.unet.state_dict(), name=path.name)
    own = {key: value for key, value in control.state_dict().items() if key.startswith(HINT_ENCODER)}
    trunk = {key: value for key, value in tensors.items() if not key.startswith(HINT_ENCODER)}
    checkpoint.load_strictly(control, {**trunk, **own}, name=path.name)
