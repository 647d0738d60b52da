"""`LoadTinyBase`: the embedded base as the host's own MODEL, CLIP and VAE."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import comfy.taesd.taesd
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor, nn

from ..cn_core.errors import CheckpointError
from ..cn_core.files.checkpoint import Checkpoint, check_strictly, load_strictly, read, unet_config
from ..cn_core.files.text_encoder import load_text_encoder
from ..cn_core.networks.autoencoder import Autoencoder
from ..cn_core.networks.backend import Backend
from ..cn_core.networks.text_encoder import LENGTH, WordTextEncoder, split_words
from ..cn_core.networks.unet import UNet

logger = logging.getLogger(__name__)

ASSETS = Path(__file__).resolve().parents[1] / "assets"
UNET, VAE, TEXT_ENCODER = "tiny_unet.safetensors", "tiny_vae.safetensors", "tiny_text_encoder.safetensors"


def read_asset(folder: Path, name: str) -> Checkpoint:
    """Read a file of the embedded base; raises CheckpointError that says where it should be."""
    if not (folder / name).is_file():
        raise CheckpointError(f"The embedded base lacks {name} in {folder}. Install the pack again, with its assets.")
    return read(folder / name)


class TinyConfig(comfy.supported_models_base.BASE):
    """What the host has to know about the UNet besides its weights."""

    unet_extra_config = {"num_heads": -1, "num_head_channels": 64}  # noqa: RUF012  the host's form
    latent_format = comfy.latent_formats.SD15
    memory_usage_factor = 1.0


def load_model(checkpoint: Checkpoint) -> comfy.model_patcher.ModelPatcher:
    """A UNet under bare LDM keys -> MODEL, with the noise schedule and the latents of SD 1.x."""
    tensors, name = checkpoint.tensors, checkpoint.path.name
    check_strictly(UNet(unet_config(tensors), Backend(device="meta")), tensors, name=name)
    device, offload_device = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    config = TinyConfig(comfy.model_detection.detect_unet_config(tensors, ""))
    dtype = comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(tensors),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=comfy.utils.weight_dtype(tensors),
    )
    compute_dtype = comfy.model_management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, compute_dtype, device=device)
    model = config.get_model(tensors, "")
    patcher = comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=offload_device)
    model.load_model_weights(dict(tensors), "", assign=patcher.is_dynamic())  # it empties the dict that it is given
    return patcher


class TinyVAE(comfy.sd.VAE):
    """The host's VAE around our `Autoencoder`, which none of the host's own networks can hold. Always float32."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        # The host sets its defaults only together with a network that it knows: take those of a small one, replace it.
        super().__init__(sd=comfy.taesd.taesd.TAESD().state_dict(), dtype=torch.float32)
        autoencoder = Autoencoder()
        load_strictly(autoencoder, checkpoint.tensors, name=checkpoint.path.name)
        self.first_stage_model = autoencoder.requires_grad_(False).eval()
        self.disable_offload, self.size = True, None
        self.patcher = comfy.model_patcher.ModelPatcher(
            autoencoder, load_device=self.device, offload_device=comfy.model_management.vae_offload_device()
        )


class WordTokenizer:
    """The host's tokenizer interface: {"words": one chunk of (token number, weight)}; weights are always 1."""

    def __init__(self, encoder: WordTextEncoder, **_: Any) -> None:
        self.encoder = encoder

    def tokenize_with_weights(self, text: str, *_: Any, **__: Any) -> dict[str, list[list[tuple[int, float]]]]:
        """Words that the encoder cannot take are named in the log."""
        if unknown := self.encoder.unknown_words(text):
            logger.warning("The embedded base does not know the words: %s.", ", ".join(dict.fromkeys(unknown)))
        if left := split_words(text)[LENGTH:]:
            logger.warning("The embedded base reads %d words; left out: %s.", LENGTH, " ".join(left))
        return {"words": [[(number, 1.0) for number in self.encoder.tokenize(text)]]}

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing that is not in the encoder."""
        return {}


class WordConditioner(nn.Module):
    """The host's text model interface around our text encoder."""

    disable_offload = True

    def __init__(self, encoder: WordTextEncoder, *, dtype: torch.dtype, device: torch.device, **_: Any) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).to(device=device, dtype=dtype)
        self.dtypes = {dtype}

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """Layers to skip and the like: there are none."""

    def reset_clip_options(self) -> None:
        """As above."""

    def encode_token_weights(self, tokens: dict[str, list[list[tuple[int, float]]]]) -> tuple[Tensor, None]:
        """What `WordTokenizer` gave -> (1 LENGTH D, no pooled vector)."""
        numbers = [[number for number, _ in chunk] for chunk in tokens["words"]]
        words = self.encoder(torch.tensor(numbers, device=self.encoder.words.device))
        return words.to(comfy.model_management.intermediate_device()), None


def load_clip(checkpoint: Checkpoint) -> comfy.sd.CLIP:
    """The text encoder -> CLIP. Always float32."""
    encoder = load_text_encoder(checkpoint)
    target = comfy.supported_models_base.ClipTarget(partial(WordTokenizer, encoder), partial(WordConditioner, encoder))
    return comfy.sd.CLIP(target, model_options={"dtype": torch.float32})


class LoadTinyBase(io.ComfyNode):
    """Real generation with nothing downloaded."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What the host shows."""
        return io.Schema(
            node_id="LoadTinyBase",
            display_name="Load Tiny Base",
            category="ControlNet Kit",
            description="The text-to-image model that comes with this pack: 128x128 pictures of emoji, shapes and "
            "patterns, for trying out ControlNet with nothing downloaded.",
            search_aliases=["tiny", "demo model", "checkpoint loader"],
            inputs=[],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The three parts, from the pack's assets."""
        unet, text_encoder, vae = (read_asset(ASSETS, name) for name in (UNET, TEXT_ENCODER, VAE))
        return io.NodeOutput(load_model(unet), load_clip(text_encoder), TinyVAE(vae))
