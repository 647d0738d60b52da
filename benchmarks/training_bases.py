"""Bases of random weights in diffusers' layout: what a step costs depends on their shapes only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOKENS = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Arguments of diffusers' and transformers' classes."""

    unet: Mapping[str, Any]
    down: tuple[str, ...]
    """The UNet's blocks."""
    vae: Mapping[str, Any]
    texts: tuple[Mapping[str, Any], ...]
    """One text encoder, or SDXL's two."""


def text(width: int, layers: int, heads: int, **settings: Any) -> dict[str, Any]:
    """Of a CLIP text encoder."""
    sizes = {"hidden_size": width, "intermediate_size": 4 * width}
    return {**sizes, "num_hidden_layers": layers, "num_attention_heads": heads, **settings}


def xl_unet(widths: tuple[int, ...], context: int, pooled: int, **settings: Any) -> dict[str, Any]:
    """What all of SDXL's shape have: sizes beside the pooled text, linear projections."""
    sizes = {"addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": pooled + 6 * 256}
    own = {"block_out_channels": widths, "cross_attention_dim": context, "use_linear_projection": True}
    return {**own, "addition_embed_type": "text_time", **sizes, **settings}


LARGE_VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
SMALL_VAE = {"block_out_channels": (24, 48, 96, 96), "layers_per_block": 2, "norm_num_groups": 8}
SHAPES = {
    "small": Shape(
        unet={"block_out_channels": (64, 128, 256, 256), "cross_attention_dim": 64, "attention_head_dim": 8},
        down=(CROSS, CROSS, CROSS, PLAIN),
        vae=SMALL_VAE,
        texts=(text(64, 2, 4),),
    ),
    "small XL": Shape(
        unet=xl_unet((32, 64, 128), 128, 64, transformer_layers_per_block=[1, 1, 2], attention_head_dim=[1, 2, 4]),
        down=(PLAIN, CROSS, CROSS),
        vae=SMALL_VAE,
        texts=(text(64, 2, 1), text(64, 2, 1, projection_dim=64)),
    ),
    "SD 1.5": Shape(
        unet={"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768, "attention_head_dim": 8},
        down=(CROSS, CROSS, CROSS, PLAIN),
        vae=LARGE_VAE,
        texts=(text(768, 12, 12),),
    ),
    "SDXL": Shape(
        unet=xl_unet(
            (320, 640, 1280), 2048, 1280, transformer_layers_per_block=[1, 2, 10], attention_head_dim=[5, 10, 20]
        ),
        down=(PLAIN, CROSS, CROSS),
        vae={**LARGE_VAE, "scaling_factor": 0.13025},
        texts=(text(768, 12, 12), text(1280, 32, 20, projection_dim=1280)),
    ),
}
"""Name -> shape; the VAE of "small" costs about as large a part of its step as Stable Diffusion's of its own."""


def make_base(folder: Path, shape: Shape) -> None:
    """Write all parts; their tokens are letters."""
    torch.manual_seed(0)
    up = tuple(name.replace("Down", "Up") for name in reversed(shape.down))
    levels = len(shape.vae["block_out_channels"])
    blocks: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    UNet2DConditionModel(**shape.unet, down_block_types=shape.down, up_block_types=up).save_pretrained(folder / "unet")
    AutoencoderKL(**shape.vae, **blocks).save_pretrained(folder / "vae")
    DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(
        folder / "scheduler"
    )
    end = len(TOKENS) - 1
    for number, settings in enumerate(shape.texts):
        config = CLIPTextConfig(
            vocab_size=len(TOKENS), bos_token_id=end - 1, eos_token_id=end, pad_token_id=end, **settings
        )
        suffix = "_2" if number else ""
        (CLIPTextModelWithProjection if number else CLIPTextModel)(config).save_pretrained(
            folder / f"text_encoder{suffix}"
        )
        save_tokenizer(folder / f"tokenizer{suffix}")


def save_tokenizer(folder: Path) -> None:
    """CLIP's files."""
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(TOKENS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
