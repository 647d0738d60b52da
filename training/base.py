"""Reading the embedded base for training and measuring: its three networks, in float32, frozen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..cn_core.files import checkpoint
from ..cn_core.files.text_encoder import load_text_encoder
from ..cn_core.networks.autoencoder import Autoencoder
from ..cn_core.networks.text_encoder import WordTextEncoder
from ..cn_core.networks.unet import UNet


@dataclass(frozen=True, kw_only=True)
class FrozenBase:
    """The locked copy, what reads its prompts, and what makes its latents."""

    unet: UNet
    text_encoder: WordTextEncoder
    autoencoder: Autoencoder
    sha256: str
    """Of the UNet's file; goes into the metadata of what is trained on it."""


def load(folder: Path) -> FrozenBase:
    """Read the files tiny_{unet,text_encoder,vae}.safetensors from `folder`."""
    file = checkpoint.read(folder / "tiny_unet.safetensors")
    unet = UNet(checkpoint.unet_config(file.tensors))
    checkpoint.load_strictly(unet, file.tensors, name=file.path.name)
    text_encoder = load_text_encoder(checkpoint.read(folder / "tiny_text_encoder.safetensors"))
    autoencoder = Autoencoder()
    vae = checkpoint.read(folder / "tiny_vae.safetensors")
    checkpoint.load_strictly(autoencoder, vae.tensors, name=vae.path.name)
    return FrozenBase(
        unet=unet.eval().requires_grad_(False),
        text_encoder=text_encoder.eval().requires_grad_(False),
        autoencoder=autoencoder.eval().requires_grad_(False),
        sha256=hashlib.sha256(file.path.read_bytes()).hexdigest(),
    )
