"""Opening a base by its path."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

from ...cn_core.errors import CheckpointError
from ...cn_core.files import checkpoint
from ..config import BaseConfig
from ..errors import ConfigError
from . import diffusers_folder, kl, ldm, tiny
from .base import Base, Codec, TextEncoder

HUB = "hub:"
"""Begins a path that is a repository's name on the Hugging Face hub: nothing else is looked up there."""
NETWORKS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""Folders of a repository that a base is made of -> what their files of weights begin with."""
WANTED = (
    "model_index.json",
    *(f"{part}/*.json" for part in (*NETWORKS, "tokenizer", "tokenizer_2", "scheduler")),
    *("tokenizer/*.txt", "tokenizer_2/*.txt"),
    *(f"{part}/{name}*.safetensors" for part, name in NETWORKS.items()),
)
HALF, NON_EMA = "*.fp16*", "*.non_ema*"
"""Variants of the same weights. Half precision is taken where there is nothing else."""


def open_base(config: BaseConfig, text: TextEncoder | None = None) -> Base:
    """The frozen model that the settings name; `text` replaces its text encoder.

    Raises ConfigError, CheckpointError or ControlNetKitError when it cannot be had.
    """
    if config.path == "tiny":
        base = tiny.as_base(tiny.load())
        base = base if text is None else dataclasses.replace(base, text=text)
    else:
        hub = config.path.startswith(HUB)
        path = from_hub(config.path.removeprefix(HUB)) if hub else Path(config.path).expanduser()
        base = opened(path, config, text)
    base = base if config.prediction == "auto" else dataclasses.replace(base, prediction=config.prediction)
    if base.schedule.zero_snr and base.prediction == "eps":
        raise CheckpointError(
            f"{base.name} has a noise schedule that ends in nothing but noise, of which nothing can be learnt by "
            'predicting eps: set base.prediction to "v" if the model predicts that.'
        )
    return base


def opened(path: Path, config: BaseConfig, text: TextEncoder | None) -> Base:
    """A file or a folder."""
    if not path.exists():
        raise ConfigError(
            f"base.path is {config.path!r}, which is no file or folder. For a hub's model write hub:NAME or "
            "hub:NAME@REVISION."
        )
    words = Path(config.tokenizer).expanduser() if config.tokenizer else None
    vae = partial(open_codec, Path(config.vae).expanduser()) if config.vae else None
    if text is None and config.text_encoder:
        text = diffusers_folder.open_text(Path(config.text_encoder).expanduser(), words)
    if path.is_file():
        return ldm.open_ldm(path, tokenizer_folder=words, vae=vae, text=text)
    if diffusers_folder.is_diffusers_folder(path):
        return diffusers_folder.open_folder(path, tokenizer_folder=words, vae=vae, text=text)
    raise ConfigError(f"base.path is {path}, a folder without unet/config.json: give a file or a diffusers folder.")


def open_codec(path: Path, family: str) -> Codec:
    """Another autoencoder: a file with LDM's keys, or a diffusers folder."""
    if path.is_dir():
        return diffusers_folder.open_vae(path, family)
    return ldm.autoencoder(path, checkpoint.read(path).tensors, kl.scaling_factor(family))


def from_hub(wanted: str) -> Path:
    """A repository's diffusers files, NAME or NAME@REVISION, from the hub's cache or over the network: the user asked
    for it by name.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = wanted.partition("@")
    get = partial(snapshot_download, name, revision=revision or None, allow_patterns=list(WANTED))
    try:
        path = Path(get(ignore_patterns=[HALF, NON_EMA]))
        if not has_weights(path):
            path = Path(get(ignore_patterns=[NON_EMA]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise CheckpointError(f"{wanted} cannot be had from the hub: {str(error).splitlines()[0]}") from error
    return path


def has_weights(path: Path) -> bool:
    """Whether each network of a diffusers folder has some."""
    return all(any((path / part).glob("*.safetensors")) for part in NETWORKS if (path / part).is_dir())
