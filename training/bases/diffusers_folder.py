"""A base from a diffusers folder: unet, vae, text_encoder(s), tokenizer(s), scheduler."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from ...cn_core.diffusion import Prediction
from ...cn_core.errors import CheckpointError
from ...cn_core.files import checkpoint, inference
from ...cn_core.files.inspect import digest
from ...cn_core.files.keymaps import inverse, rename
from ...cn_core.files.keymaps.unet import unet_keys
from ...cn_core.networks.config import UNetConfig
from . import kl, ldm, tokenizer
from .base import Base, Codec, TextEncoder
from .clip import Clip, ClipTextEncoder

PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v"}


def is_diffusers_folder(path: Path) -> bool:
    """Whether a UNet is where diffusers puts it."""
    return (path / "unet" / "config.json").is_file()


def open_folder(
    path: Path, *, tokenizer_folder: Path | None = None, codec: Codec | None = None, text: TextEncoder | None = None
) -> Base:
    """All parts from local files; `codec` and `text` replace the folder's own. Raises CheckpointError."""
    settings = read_json(path / "unet" / "config.json")
    files = weight_files(path / "unet")
    tensors = {key: value for file in files for key, value in checkpoint.read(file).tensors.items()}
    config = unet_config(tensors, settings, path.name)
    family = inference.family(config)
    return Base(
        name=path.name,
        family=family,
        sha256=joint_digest(files),
        unet=ldm.build_unet(config, rename(tensors, inverse(unet_keys(config))), f"{path.name}/unet"),
        prediction=scheduled_prediction(path),
        codec=codec or open_vae(path / "vae", family),
        text=text or open_text(path, tokenizer_folder),
    )


def read_json(path: Path) -> dict[str, Any]:
    """A settings file; raises CheckpointError."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as settings: {error}.") from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a model, in one file or several; the plain ones before fp16 variants."""
    found = sorted(folder.glob("diffusion_pytorch_model*.safetensors"))
    plain = [file for file in found if ".fp16" not in file.name and ".non_ema" not in file.name]
    if not found:
        raise CheckpointError(f"{folder} has no diffusion_pytorch_model.safetensors: give a folder with safetensors.")
    return plain or found


def joint_digest(files: list[Path]) -> str:
    """SHA-256 of one file, or of the digests of several."""
    digests = [digest(file) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def unet_config(tensors: dict[str, Tensor], settings: dict[str, Any], name: str) -> UNetConfig:
    """From the weights' shapes; the heads, which leave no trace there, from the settings."""
    config = inference.infer(tensors, inference.DIFFUSERS)
    if config is None:
        raise CheckpointError(f"{name}/unet is no UNet of Stable Diffusion's shape.")
    # diffusers calls the number of heads attention_head_dim.
    heads = settings.get("num_attention_heads") or settings.get("attention_head_dim", 8)
    try:
        return with_heads(config, heads)
    except (ValueError, ZeroDivisionError, TypeError) as error:
        raise CheckpointError(f"{name}/unet has {heads!r} attention heads, which its width does not allow.") from error


def with_heads(config: UNetConfig, heads: Any) -> UNetConfig:
    """The same number at all levels, or one for each, which must be of one width."""
    if isinstance(heads, int):
        return dataclasses.replace(config, num_heads=heads)
    widths = {config.channels(level) // count for level, count in enumerate(heads) if config.transformer_depth[level]}
    if len(widths) != 1:
        raise ValueError("heads of several widths")
    return dataclasses.replace(config, num_heads=None, head_dim=widths.pop())


def scheduled_prediction(path: Path) -> Prediction:
    """What the folder's scheduler says that the UNet predicts; eps without one."""
    file = path / "scheduler" / "scheduler_config.json"
    said = read_json(file).get("prediction_type", "epsilon") if file.is_file() else "epsilon"
    if said not in PREDICTIONS:
        raise CheckpointError(f"{path.name} predicts {said!r}; a ControlNet is trained for epsilon or v_prediction.")
    return PREDICTIONS[said]


def open_vae(folder: Path, family: str) -> Codec:
    """An autoencoder folder."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    try:
        model = AutoencoderKL.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} holds no autoencoder: {str(error).splitlines()[0]}") from error
    scaling = model.config.get("scaling_factor") or kl.scaling_factor(family)
    return kl.KLCodec(model=kl.frozen(model), scaling=scaling)


def open_text(path: Path, tokenizer_folder: Path | None) -> TextEncoder:
    """One text encoder, or SDXL's two."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    pairs = [("text_encoder", "tokenizer")]
    if (path / "text_encoder_2").is_dir():
        pairs.append(("text_encoder_2", "tokenizer_2"))
    clips: list[Clip] = []
    for index, (encoder, words) in enumerate(pairs):
        kind = CLIPTextModelWithProjection if index else CLIPTextModel
        try:
            model = kind.from_pretrained(str(path / encoder), local_files_only=True, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path / encoder} holds no text encoder: {str(error).splitlines()[0]}") from error
        clips.append(
            Clip(
                model=model.float().eval().requires_grad_(False),
                tokenizer=tokenizer.from_folder(tokenizer_folder or path / words),
                layer="penultimate" if len(pairs) > 1 else "last",
            )
        )
    return ClipTextEncoder(clips=tuple(clips))
