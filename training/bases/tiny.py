"""The embedded base: its three networks, in float32, frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...cn_core.files import checkpoint
from ...cn_core.files.text_encoder import load_text_encoder
from ...cn_core.networks.autoencoder import LATENT_CHANNELS, SCALING_FACTOR, Autoencoder
from ...cn_core.networks.text_encoder import LENGTH, WordTextEncoder, split_words
from ...cn_core.networks.unet import UNet
from .base import Base, Posterior, Text, weights_hash

ASSETS = Path(__file__).resolve().parents[2] / "assets"


@dataclass(frozen=True, kw_only=True)
class TinyParts:
    """The networks themselves."""

    unet: UNet
    text_encoder: WordTextEncoder
    autoencoder: Autoencoder
    sha256: str
    """Of the UNet's file."""


def load(folder: Path = ASSETS) -> TinyParts:
    """Read the files tiny_{unet,text_encoder,vae}.safetensors from `folder`."""
    file = checkpoint.read(folder / "tiny_unet.safetensors")
    unet = UNet(checkpoint.unet_config(file.tensors))
    checkpoint.load_strictly(unet, file.tensors, name=file.path.name)
    text_encoder = load_text_encoder(checkpoint.read(folder / "tiny_text_encoder.safetensors"))
    autoencoder = Autoencoder()
    vae = checkpoint.read(folder / "tiny_vae.safetensors")
    checkpoint.load_strictly(autoencoder, vae.tensors, name=vae.path.name)
    return TinyParts(
        unet=unet.eval().requires_grad_(False),
        text_encoder=text_encoder.eval().requires_grad_(False),
        autoencoder=autoencoder.eval().requires_grad_(False),
        sha256=hashlib.sha256(file.path.read_bytes()).hexdigest(),
    )


@dataclass(frozen=True)
class TinyCodec:
    """The autoencoder as a `Codec`; it is deterministic, so its posterior has no width."""

    autoencoder: Autoencoder
    factor: int = 8
    channels: int = LATENT_CHANNELS

    @property
    def identity(self) -> str:
        """Of the weights."""
        return weights_hash(self.autoencoder.state_dict())

    @torch.no_grad()
    def encode(self, images: Tensor) -> Posterior:
        """B 3 H W in [0, 1]."""
        mean = self.autoencoder.encode((images * 2 - 1).to(device_of(self.autoencoder))) * SCALING_FACTOR
        return Posterior(mean=mean, std=torch.zeros_like(mean))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """B C h w -> B 3 8h 8w in [0, 1]."""
        return self.autoencoder.decode(latents / SCALING_FACTOR).add(1).div(2).clamp(0, 1)

    def modules(self) -> tuple[nn.Module, ...]:
        """What has weights."""
        return (self.autoencoder,)


@dataclass(frozen=True)
class TinyText:
    """The word encoder as a `TextEncoder`."""

    encoder: WordTextEncoder
    tokens: int = LENGTH

    @property
    def identity(self) -> str:
        """Of the weights and the words."""
        return weights_hash(self.encoder.state_dict(), *self.encoder.vocabulary)

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Text:
        """B LENGTH D."""
        tokens = torch.tensor([self.encoder.tokenize(caption) for caption in captions])
        return Text(context=self.encoder(tokens.to(device_of(self.encoder))), pooled=None)

    def words_lost(self, caption: str) -> int:
        """Words beyond the sixteenth."""
        return max(len(split_words(caption)) - LENGTH, 0)

    def modules(self) -> tuple[nn.Module, ...]:
        """What has weights."""
        return (self.encoder,)


def device_of(module: nn.Module) -> torch.device:
    """Where a network computes."""
    return next(module.parameters()).device


def as_base(parts: TinyParts) -> Base:
    """The networks as a run takes them."""
    return Base(
        name="tiny-emoji",
        family="SD-shaped",
        sha256=parts.sha256,
        unet=parts.unet,
        prediction="eps",
        codec=TinyCodec(parts.autoencoder),
        text=TinyText(parts.text_encoder),
    )
