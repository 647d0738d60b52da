"""A base from a diffusers folder: unet, vae, text_encoder(s), tokenizer(s), scheduler."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...cn_core.diffusion import NoiseSchedule, Prediction
from ...cn_core.errors import CheckpointError
from ...cn_core.files import checkpoint, inference
from ...cn_core.files.inspect import digest
from ...cn_core.files.keymaps import inverse, rename
from ...cn_core.files.keymaps.unet import unet_keys
from ...cn_core.networks.config import UNetConfig
from . import kl, ldm, tokenizer
from .base import Base, Codec, TextEncoder
from .clip import Clip, ClipTextEncoder

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "v_prediction": "v"}
SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": NoiseSchedule.steps,
    "beta_start": NoiseSchedule.beta_start,
    "beta_end": NoiseSchedule.beta_end,
    "beta_schedule": NoiseSchedule.kind,
    "rescale_betas_zero_snr": NoiseSchedule.zero_snr,
    "trained_betas": None,
}
"""A scheduler's settings that training depends on, as they are where a folder does not say."""


def is_diffusers_folder(path: Path) -> bool:
    """Whether a UNet is where diffusers puts it."""
    return (path / "unet" / "config.json").is_file()


def open_folder(
    path: Path,
    *,
    tokenizer_folder: Path | None = None,
    vae: Callable[[str], Codec] | None = None,
    text: TextEncoder | None = None,
) -> Base:
    """All parts from local files; `vae` (family -> codec) and `text` replace its own. Raises CheckpointError."""
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
        schedule=noise_schedule(path),
        codec=vae(family) if vae else open_vae(path / "vae", family),
        text=text or open_text(path, tokenizer_folder),
    )


def read_json(path: Path) -> dict[str, Any]:
    """A settings file; raises CheckpointError."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as settings: {error}.") from error


def weight_files(folder: Path, name: str = "diffusion_pytorch_model") -> list[Path]:
    """The safetensors of a model, in one file or several; the plain ones before fp16 variants."""
    found = sorted(folder.glob(f"{name}*.safetensors"))
    plain = [file for file in found if ".fp16" not in file.name and ".non_ema" not in file.name]
    if not found:
        raise CheckpointError(f"{folder} has no {name}.safetensors: give a folder with safetensors.")
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


def scheduler_settings(path: Path) -> dict[str, Any]:
    """Of the folder's scheduler; nothing without one."""
    file = path / "scheduler" / "scheduler_config.json"
    return read_json(file) if file.is_file() else {}


def scheduled_prediction(path: Path) -> Prediction:
    """What the folder's scheduler says that the UNet predicts; eps without one."""
    said = scheduler_settings(path).get("prediction_type", "epsilon")
    if said not in PREDICTIONS:
        raise CheckpointError(f"{path.name} predicts {said!r}; a ControlNet is trained for epsilon or v_prediction.")
    return PREDICTIONS[said]


def noise_schedule(path: Path) -> NoiseSchedule:
    """The folder's scheduler's, Stable Diffusion's without one; raises CheckpointError for one of another kind."""
    said = scheduler_settings(path)
    name, found = said.get("_class_name", "its scheduler"), {key: said.get(key, SCHEDULE[key]) for key in SCHEDULE}
    start, end, kind = found["beta_start"], found["beta_end"], found["beta_schedule"]
    odd = [key for key in ("num_train_timesteps", "trained_betas") if found[key] != SCHEDULE[key]]
    odd += [key for key in ("beta_start", "beta_end") if not isinstance(found[key], float) or not 0 < found[key] < 1]
    odd += ["beta_schedule"] if kind not in ("scaled_linear", "linear") else []
    if odd or ("_class_name" in said and "beta_schedule" not in said):
        told = ", ".join(f"{key} {found[key]!r:.40}" for key in odd) or "no beta_schedule at all"
        raise CheckpointError(
            f"{path.name} was trained with another noise schedule than a ControlNet can be trained with here: {name} "
            f"has {told}; 1000 timesteps of scaled_linear or linear betas were expected."
        )
    return NoiseSchedule(beta_start=start, beta_end=end, kind=kind, zero_snr=bool(found["rescale_betas_zero_snr"]))


def open_vae(folder: Path, family: str) -> Codec:
    """An autoencoder folder; the network is read when it is wanted."""
    settings, files = read_json(folder / "config.json"), weight_files(folder)
    scaling = settings.get("scaling_factor") or kl.scaling_factor(family)
    return kl.KLCodec(
        load=lambda: read_vae(folder),
        identity=f"{joint_digest(files)} {scaling}",
        scaling=scaling,
        factor=2 ** (len(settings.get("block_out_channels", (0,))) - 1),
    )


def read_vae(folder: Path) -> AutoencoderKL:
    """The network."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    try:
        model = AutoencoderKL.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} holds no autoencoder: {str(error).splitlines()[0]}") from error
    return kl.frozen(model)


def open_text(path: Path, tokenizer_folder: Path | None) -> TextEncoder:
    """One text encoder, or SDXL's two; read when they are wanted."""
    two = (path / "text_encoder_2").is_dir()
    encoders = [path / "text_encoder", path / "text_encoder_2"][: 1 + two]
    words = [tokenizer_folder or path / "tokenizer", tokenizer_folder or path / "tokenizer_2"][: 1 + two]
    files = [file for folder in encoders for file in weight_files(folder, "model")]
    tokens = [file for folder in words for file in tokenizer.files(folder)]
    return ClipTextEncoder(
        clips=tuple(
            Clip(
                load=partial(read_text, encoder, projects=index == 1),
                words=partial(tokenizer.from_folder, folder),
                layer="penultimate" if two else "last",
            )
            for index, (encoder, folder) in enumerate(zip(encoders, words, strict=True))
        ),
        identity=joint_digest([*files, *tokens]),
    )


def read_text(folder: Path, *, projects: bool) -> CLIPTextModel | CLIPTextModelWithProjection:
    """A text encoder folder; SDXL's second one has a projection."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    kind = CLIPTextModelWithProjection if projects else CLIPTextModel
    try:
        model = kind.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} holds no text encoder: {str(error).splitlines()[0]}") from error
    return model.float().eval().requires_grad_(False)
