"""A base from one file with LDM's keys: SD 1.x, SD 2.x, SDXL and smaller ones, as they are shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from ...cn_core.diffusion import NoiseSchedule, Prediction
from ...cn_core.errors import CheckpointError
from ...cn_core.files import checkpoint, inference
from ...cn_core.files.inspect import digest
from ...cn_core.networks.backend import Backend
from ...cn_core.networks.config import UNetConfig
from ...cn_core.networks.unet import UNet
from . import clip, kl, tokenizer
from .base import Base, Codec, TextEncoder, weights_hash
from .clip import Clip, ClipTextEncoder, Layer
from .tokenizer import END

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP_L, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
SDXL_CLIP_L, SDXL_OPEN_CLIP = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
TEXT = ("cond_stage_model.", "conditioner.")
TRAINABLE = {torch.float16, torch.bfloat16, torch.float32}
V_MARK = "v_pred"
"""A key that SDXL files for v-prediction carry."""
ZERO_SNR_MARK = "ztsnr"
"""Beside it: the last timestep was nothing but noise in their training."""
V_NORM, V_DEVIATION = "input_blocks.2.1.transformer_blocks.0.norm1.bias", 0.09
"""In SD 2.x this bias has a larger deviation where the model predicts v."""


def open_ldm(
    path: Path,
    *,
    tokenizer_folder: Path | None = None,
    vae: Callable[[str], Codec] | None = None,
    text: TextEncoder | None = None,
) -> Base:
    """UNet, autoencoder and text encoders of a checkpoint; `vae` (family -> codec) and `text` replace its own.

    Raises CheckpointError for a file that is none or not whole.
    """
    tensors = checkpoint.read(path).tensors
    weights = unet_weights(tensors, path.name)
    config = checkpoint.unet_config(weights)
    family = inference.family(config)
    return Base(
        name=path.stem,
        family=family,
        sha256=digest(path),
        unet=build_unet(config, weights, path.name),
        prediction=prediction(tensors, weights, family),
        schedule=NoiseSchedule(zero_snr=V_MARK in tensors and ZERO_SNR_MARK in tensors),
        codec=vae(family) if vae else autoencoder(path, checkpoint.below(tensors, VAE), kl.scaling_factor(family)),
        text=text or text_encoder(path, tensors, tokenizer_folder),
    )


def unet_weights(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The UNet's, which have a prefix unless the file holds nothing else."""
    weights = checkpoint.below(tensors, UNET) or dict(tensors)
    if "input_blocks.0.0.weight" not in weights or "out.2.weight" not in weights:
        raise CheckpointError(
            f"{name} is no base: no UNet's keys begin with {UNET} (the file's first ones are "
            f"{', '.join(list(tensors)[:3])}). Give a whole Stable Diffusion checkpoint."
        )
    return weights


def build_unet(config: UNetConfig, weights: Mapping[str, Tensor], name: str) -> UNet:
    """The frozen UNet, which takes the file's own tensors."""
    if config.in_channels != config.out_channels:
        raise CheckpointError(
            f"{name} takes {config.in_channels} latent channels and makes {config.out_channels}: it is an inpainting "
            "or editing model. Train on the model that it was made from; the ControlNet then works for both."
        )
    dtypes = {value.dtype for value in weights.values()}
    if odd := dtypes - TRAINABLE:
        raise CheckpointError(
            f"{name} has weights of {', '.join(map(str, odd))}; a ControlNet is a copy of them and needs the model in "
            "fp16, bf16 or fp32. Get that; hardware.base_dtype still lets the frozen part run in fp8."
        )
    unet = UNet(config, Backend(device="meta"))
    checkpoint.load_strictly(unet, weights, name=name, assign=True)
    return unet.eval().requires_grad_(False)


def prediction(tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor], family: str) -> Prediction:
    """What the UNet predicts, as far as a file tells."""
    if V_MARK in tensors:
        return "v"
    norm = weights.get(V_NORM)
    if family == "SD 2.x" and norm is not None and norm.float().std(correction=0) > V_DEVIATION:
        return "v"
    return "eps"


def autoencoder(path: Path, tensors: Mapping[str, Tensor], scaling: float) -> Codec:
    """The file's own, with LDM's keys below first_stage_model or bare; read again when it is wanted."""

    def weights_of(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return checkpoint.below(tensors, VAE) or tensors

    weights = weights_of(tensors)
    levels = kl.levels(weights)
    if not levels:
        raise CheckpointError(f"{path.name} has no autoencoder ({VAE}...): set base.vae to a file or folder with one.")
    return kl.KLCodec(
        load=lambda: kl.from_ldm(weights_of(checkpoint.read(path).tensors), name=path.name),
        identity=weights_hash(weights, scaling),
        scaling=scaling,
        factor=2 ** (levels - 1),
    )


def text_encoder(path: Path, tensors: Mapping[str, Tensor], tokenizer_folder: Path | None) -> TextEncoder:
    """The file's own, read again when it is wanted: the keys tell the family's."""

    def has(prefix: str) -> bool:
        return any(key.startswith(prefix) for key in tensors)

    if has(SDXL_OPEN_CLIP):
        layouts = (Layout(read=clip_l_xl, pad=END, layer="penultimate"), Layout(read=open_clip, layer="penultimate"))
    elif has(OPEN_CLIP):
        layouts = (Layout(read=open_clip_without_last),)
    elif has(CLIP_L):
        layouts = (Layout(read=clip_l, pad=END),)
    else:
        raise CheckpointError(
            f"{path.name} has no text encoder that is known: set base.text_encoder to a folder with one."
        )
    weights = {key: value for key, value in tensors.items() if key.startswith(TEXT)}
    words = [f"{file.name} {digest(file)}" for file in tokenizer.files(tokenizer_folder)] if tokenizer_folder else [""]
    return ClipTextEncoder(
        clips=tuple(layout.clip(path, tokenizer_folder) for layout in layouts),
        identity=weights_hash(weights, *words),
    )


Model: TypeAlias = "CLIPTextModel | CLIPTextModelWithProjection"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a checkpoint holds one CLIP."""

    read: Callable[[Mapping[str, Tensor], str], Model]
    """(the file's weights, its name) -> the network."""
    pad: int = 0
    """Fills the tokens' row: the end token for CLIP-L, 0 for OpenCLIP's encoders."""
    layer: Layer = "last"

    def clip(self, path: Path, folder: Path | None) -> Clip:
        """Of a file, with a tokenizer from a folder or from a package."""
        return Clip(
            load=lambda: self.read(checkpoint.read(path).tensors, path.name),
            words=lambda: (
                tokenizer.from_folder(folder, pad=self.pad) if folder else tokenizer.from_package(pad=self.pad)
            ),
            layer=self.layer,
        )


def clip_l(tensors: Mapping[str, Tensor], name: str) -> Model:
    """OpenAI's, under transformers' own names."""
    return clip.build(checkpoint.below(tensors, CLIP_L), activation="quick_gelu", name=name)


def clip_l_xl(tensors: Mapping[str, Tensor], name: str) -> Model:
    """The same where SDXL has it."""
    return clip.build(checkpoint.below(tensors, SDXL_CLIP_L), activation="quick_gelu", name=name)


def open_clip(tensors: Mapping[str, Tensor], name: str) -> Model:
    """SDXL's second one, with its projection."""
    return clip.build(clip.from_open_clip(tensors, SDXL_OPEN_CLIP), activation="gelu", name=name)


def open_clip_without_last(tensors: Mapping[str, Tensor], name: str) -> Model:
    """SD 2.x takes the last layer but one, after the final norm: a model without the last layer and projection."""
    layers = f"{OPEN_CLIP}transformer.resblocks."
    last = max(int(key[len(layers) :].split(".")[0]) for key in tensors if key.startswith(layers))
    left_out = (f"{layers}{last}.", f"{OPEN_CLIP}text_projection", f"{OPEN_CLIP}logit_scale")
    kept = {key: value for key, value in tensors.items() if not key.startswith(left_out)}
    return clip.build(clip.from_open_clip(kept, OPEN_CLIP), activation="gelu", name=name)
