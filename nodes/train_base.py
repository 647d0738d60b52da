"""The host's MODEL, CLIP and VAE as a trainer's `Base`.

The UNet is copied, since training keeps it where it likes. VAE and CLIP stay the host's: it moves them, tiles pictures
that are too large, and takes care of their types.

Shapes: B pictures or prompts, C h w latent, H W = 8h 8w pixels, M text tokens, D their width, P width of pooled text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.sd
import torch
from comfy.ldm.models.autoencoder import DiagonalGaussianRegularizer
from torch import Tensor, nn

from ..cn_core.diffusion import NoiseSchedule, Prediction
from ..cn_core.errors import FamilyMismatchError
from ..cn_core.files import checkpoint, inference
from ..cn_core.files.inspect import digest
from ..cn_core.networks.config import UNetConfig
from ..training.bases.base import SIZE_WIDTH, Base, Posterior, Text, words_beyond
from ..training.bases.ldm import build_unet
from ..training.hardware import fingerprint

PREDICTIONS: dict[Any, Prediction] = {
    comfy.model_sampling.EPS.calculate_denoised: "eps",
    comfy.model_sampling.V_PREDICTION.calculate_denoised: "v",
}
"""How the host turns a UNet's output into a picture -> what that output is."""
SCHEDULE_TOLERANCE = 1e-2
HOSTS_ZERO = 4.9e-8
"""What the host has for the alpha_bar of a last timestep without signal."""
FACTOR, CHANNELS = 8, 4
"""Pixels of a latent position, and the latent's channels, of all families that are trained."""


def identity(patcher: comfy.model_patcher.ModelPatcher, *settings: object) -> str:
    """A hash of a network that is not loaded at the moment, its patches (LoRAs), and further settings."""
    words = (fingerprint(patcher.model), *told(patcher.patches), *map(repr, settings))
    return hashlib.sha256(repr(words).encode()).hexdigest()


def told(value: Any) -> Iterator[str]:
    """All numbers and texts in the host's patches, tensors as hashes."""
    if isinstance(value, Tensor):
        yield hashlib.sha256(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data).hexdigest()
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield str(key)
            yield from told(value[key])
    elif isinstance(value, list | tuple):
        for one in value:
            yield from told(one)
    elif hasattr(value, "weights"):  # an adapter: LoRA, LoHa, ...
        yield from told(value.weights)
    elif value is None or isinstance(value, bool | int | float | str):
        yield str(value)


@dataclass(frozen=True, kw_only=True)
class HostCodec:
    """The host's VAE."""

    vae: comfy.sd.VAE
    latents: comfy.latent_formats.LatentFormat
    identity: str
    factor: int = FACTOR
    channels: int = CHANNELS

    @torch.no_grad()
    def encode(self, images: Tensor) -> Posterior:
        """B 3 H W in [0, 1]. The deviation is 0 where the VAE has none, and for pictures that the host had to tile."""
        with moments(self.vae.first_stage_model) as found:
            mean = self.vae.encode(images.movedim(1, -1)).float()
        raw = torch.cat(found).to(mean) if found else mean[:0]
        std = torch.zeros_like(mean)
        if raw.shape == (len(mean), 2 * mean.shape[1], *mean.shape[2:]):
            std = raw.chunk(2, dim=1)[1].clamp(-30, 20).mul(0.5).exp()  # log variances, bounded as LDM does
        return Posterior(mean=self.latents.process_in(mean), std=std * self.latents.scale_factor)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """B C h w -> B 3 8h 8w in [0, 1]. It gives the device's memory back to the training at once."""
        images: Any = self.vae.decode(self.latents.process_out(latents))
        comfy.model_management.unload_all_models()
        return images.movedim(-1, 1).float()

    def modules(self) -> tuple[nn.Module, ...]:
        """None: only the host moves its VAE."""
        return ()


@contextmanager
def moments(network: object) -> Generator[list[Tensor]]:
    """What a VAE of Stable Diffusion's kind says of latents while it encodes: means and log variances, B 2C h w."""
    found: list[Tensor] = []
    regularizer = getattr(network, "regularization", None)
    if not isinstance(regularizer, DiagonalGaussianRegularizer):
        yield found
        return
    handle = regularizer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].float().cpu()))
    try:
        yield found
    finally:
        handle.remove()


@dataclass(frozen=True, kw_only=True)
class HostText:
    """The host's CLIP. Captions are plain text: parentheses weigh nothing, and what does not fit is cut off."""

    clip: comfy.sd.CLIP
    identity: str
    pooled: bool
    """Whether the family wants the pooled text."""

    @property
    def tokens(self) -> int:
        """M."""
        return self.encode([""]).context.shape[1]

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Text:
        """B M D, and B P."""
        found = [self.one(caption) for caption in captions]
        context = torch.cat([cond for cond, _ in found])
        pooled = [pool for _, pool in found if pool is not None] if self.pooled else []
        return Text(context=context, pooled=torch.cat(pooled) if pooled else None)

    def one(self, caption: str) -> tuple[Tensor, Tensor | None]:
        """1 M D and 1 P."""
        first = {name: chunks[:1] for name, chunks in self.chunks(caption).items()}
        found: Any = self.clip.encode_from_tokens(first, return_pooled=True)
        cond, pooled = found
        return cond.float().cpu(), None if pooled is None else pooled.float().cpu()

    def chunks(self, caption: str) -> dict[str, list[Any]]:
        """Tokens by encoder, in windows."""
        tokens: Any = self.clip.tokenize(caption, disable_weights=True)
        return tokens

    def words_lost(self, caption: str) -> int:
        """Words at the end that are not in the first window."""
        return words_beyond(caption, self.fits)

    def modules(self) -> tuple[nn.Module, ...]:
        """None: only the host moves its CLIP."""
        return ()

    def fits(self, caption: str) -> bool:
        """Whether there is one window only."""
        return all(len(chunks) == 1 for chunks in self.chunks(caption).values())


def open_base(model: comfy.model_patcher.ModelPatcher, clip: comfy.sd.CLIP, vae: comfy.sd.VAE) -> Base:
    """A frozen copy of the MODEL with its LoRAs, beside the host's own VAE and CLIP; unloads all models.

    Raises CheckpointError or FamilyMismatchError for what a ControlNet cannot be trained on.
    """
    comfy.model_management.unload_all_models()  # so that weights are the plain ones, without patches
    file = file_of(model)
    name = file.stem if file else type(model.model).__name__
    tensors = patched(model)
    config = checkpoint.unet_config(tensors)
    unet = build_unet(config, tensors, name)
    kind, schedule = process(model, name)
    check_vae(vae)
    text = HostText(
        clip=clip,
        identity=identity(clip.patcher, clip.layer_idx, clip.tokenizer_options),
        pooled=bool(config.adm_in_channels),
    )
    check_text(text, config, name)
    return Base(
        name=name,
        family=inference.family(config),
        sha256=digest(file) if file else fingerprint(unet),
        unet=unet,
        prediction=kind,
        codec=HostCodec(vae=vae, latents=model.model.latent_format, identity=identity(vae.patcher)),
        text=text,
        schedule=schedule,
    )


def patched(model: comfy.model_patcher.ModelPatcher) -> dict[str, Tensor]:
    """Copies of the UNet's weights under LDM's keys, LoRAs added."""
    prefix = "diffusion_model."
    keys = [key for key in model.model_state_dict() if key.startswith(prefix)]
    weights: dict[str, Any] = {key: model.patch_weight_to_device(key, return_weight=True) for key in keys}
    return {key.removeprefix(prefix): weight.detach().to("cpu", copy=True) for key, weight in weights.items()}


def file_of(model: comfy.model_patcher.ModelPatcher) -> Path | None:
    """The file that a model was loaded from, if nothing was added to it."""
    words: Any = (model.cached_patcher_init or (None, ()))[1]
    paths = [Path(word) for word in words if isinstance(word, str)]
    return next((path for path in paths if path.is_file()), None) if not model.patches else None


def process(model: comfy.model_patcher.ModelPatcher, name: str) -> tuple[Prediction, NoiseSchedule]:
    """What the UNet predicts, and at which noise: Stable Diffusion's own, or that down to no signal at all."""
    sampling: Any = model.get_model_object("model_sampling")
    kind = PREDICTIONS.get(type(sampling).calculate_denoised)
    sigmas = getattr(sampling, "sigmas", torch.empty(0)).float().cpu()
    for schedule in (NoiseSchedule(), NoiseSchedule(zero_snr=True)):
        if kind == "v" or (kind == "eps" and not schedule.zero_snr):
            alpha_bar = schedule.alpha_bar.clamp(min=HOSTS_ZERO)
            ours = ((1 - alpha_bar) / alpha_bar).sqrt()
            if sigmas.shape == ours.shape and torch.allclose(sigmas, ours, rtol=SCHEDULE_TOLERANCE):
                return kind, schedule
    raise FamilyMismatchError(
        f"{name} does not predict eps or v on Stable Diffusion's noise schedule (v also with zero terminal SNR), and "
        "ControlNets are trained on that only. Connect the model as it is loaded, without a ModelSampling node: only "
        "one that predicts v with zero terminal SNR, and whose file does not say so, needs ModelSamplingDiscrete."
    )


def check_vae(vae: comfy.sd.VAE) -> None:
    """Raise FamilyMismatchError for another family's."""
    if (vae.latent_channels, vae.downscale_ratio) != (CHANNELS, FACTOR):
        raise FamilyMismatchError(
            f"The VAE makes latents of {vae.latent_channels} channels at 1/{vae.downscale_ratio}, and the model takes "
            f"{CHANNELS} at 1/{FACTOR}. Connect the VAE of the model's own checkpoint."
        )


def check_text(text: HostText, config: UNetConfig, name: str) -> None:
    """Raise FamilyMismatchError for a CLIP whose vectors the model does not take."""
    found = text.encode([""])
    y = None if config.adm_in_channels is None else config.adm_in_channels - 6 * SIZE_WIDTH
    got = (found.context.shape[-1], None if found.pooled is None else found.pooled.shape[-1])
    if got != (config.context_dim, y):
        raise FamilyMismatchError(
            f"The CLIP makes texts of width {got[0]} (pooled {got[1] or 'none'}), and {name} takes "
            f"{config.context_dim} (pooled {y or 'none'}). Connect the CLIP of the model's own checkpoint."
        )
