"""Stable Diffusion's autoencoder, run by diffusers.

Shapes: B pictures, H W pixels, h w = H / 8, W / 8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...cn_core.errors import CheckpointError
from ...cn_core.files.checkpoint import check_strictly
from .base import Posterior

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

SCALING = {"SDXL": 0.13025}
SD_SCALING = 0.18215
"""By which latents are multiplied, so that their deviation is about 1."""
GROUPS = 32


def scaling_factor(family: str) -> float:
    """Of a family's autoencoder."""
    return SCALING.get(family, SD_SCALING)


@dataclass(frozen=True, kw_only=True)
class KLCodec:
    """Pixels to latents and back. Weights in float32: SDXL's autoencoder overflows in float16."""

    load: Callable[[], AutoencoderKL]
    """Called when a picture is encoded or decoded for the first time: a run whose cache is complete may never do so."""
    identity: str
    scaling: float
    factor: int = 8
    channels: int = 4

    @cached_property
    def model(self) -> AutoencoderKL:
        """The network."""
        return self.load()

    @torch.no_grad()
    def encode(self, images: Tensor) -> Posterior:
        """B 3 H W in [0, 1] -> mean and deviation of the scaled latents, B 4 h w each, float32."""
        weight = next(self.model.parameters())
        pixels = (2 * images - 1).to(device=weight.device, dtype=weight.dtype)
        posterior = self.model.encode(pixels).latent_dist  # pyright: ignore[reportAttributeAccessIssue]
        return Posterior(mean=posterior.mean.float() * self.scaling, std=posterior.std.float() * self.scaling)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """B 4 h w scaled latents -> B 3 H W in [0, 1], float32."""
        weight = next(self.model.parameters())
        z: Any = (latents / self.scaling).to(device=weight.device, dtype=weight.dtype)
        pixels = self.model.decode(z)
        return (pixels.sample.float() / 2 + 0.5).clamp(0, 1)  # pyright: ignore[reportAttributeAccessIssue]

    def modules(self) -> tuple[nn.Module, ...]:
        """What has weights."""
        return (self.model,)


def levels(tensors: Mapping[str, Tensor]) -> int:
    """Resolutions of LDM's encoder."""
    return 1 + max((int(key.split(".")[2]) for key in tensors if key.startswith("encoder.down.")), default=-1)


def from_ldm(tensors: Mapping[str, Tensor], *, name: str) -> AutoencoderKL:
    """Of LDM's weights without prefix; the sizes are read from their shapes."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    try:
        count = levels(tensors)
        widths = tuple(tensors[f"encoder.down.{i}.block.0.conv2.weight"].shape[0] for i in range(count))
        latent_channels = tensors["post_quant_conv.weight"].shape[0]
        blocks = sum(key.startswith("encoder.down.0.block.") and key.endswith(".conv1.weight") for key in tensors)
    except (LookupError, ValueError) as error:
        raise CheckpointError(f"{name} holds no autoencoder of Stable Diffusion's shape ({error}).") from error
    with torch.device("meta"):
        model: Any = AutoencoderKL.from_config(
            {
                "latent_channels": latent_channels,
                "layers_per_block": blocks,
                "block_out_channels": widths,
                "norm_num_groups": min(GROUPS, *widths),
                "down_block_types": ("DownEncoderBlock2D",) * count,
                "up_block_types": ("UpDecoderBlock2D",) * count,
            }
        )
    weights = convert_ldm_vae_checkpoint(dict(tensors), model.config)
    check_strictly(model, weights, name=f"{name} (autoencoder)")
    model.load_state_dict(weights, assign=True)
    return frozen(model)


def frozen(model: AutoencoderKL) -> AutoencoderKL:
    """In float32, for reading only."""
    return model.float().eval().requires_grad_(False)
